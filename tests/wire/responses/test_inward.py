"""Answers of an engine of this dialect become the hub's, and its client's again."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.wire.hub import HEAD, answers, dumped, gathered, streamed, usages
from tests.wire.responses.engine import (
    call,
    created,
    event,
    events,
    message,
    parts_of,
    quick,
    response,
    responses,
    thought,
)
from tests.wire.streams import DONE, cuts
from tidegate.wire.anthropic.client import Messages
from tidegate.wire.chunks import ANSWER_BYTES_MAX, Usage
from tidegate.wire.hub import read_answer
from tidegate.wire.openai import Call
from tidegate.wire.responses.answer import whole
from tidegate.wire.responses.client import Responses
from tidegate.wire.responses.inward import EventStream, WholeResponse
from tidegate.wire.responses.request import parse
from tidegate.wire.responses.stream import ResponseStream
from tidegate.wire.responses.thoughts import thoughts_of
from tidegate.wire.sse import FRAME_BYTES_MAX, Cause
from tidegate.wire.translate import Client, EngineStream, Translated, reader

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
NOW_S = 1_800_000_000.0
TOOK = Usage(prompt_tokens=9, output_tokens=7, cached_tokens=4, cache_write_tokens=0, reasoning_tokens=3)


def asked(stream: bool) -> Call:
    return parse(json.dumps({"model": "m", "input": "hi", "stream": stream}).encode())


def read(engine: EngineStream, *data: bytes) -> bytes:
    return b"".join(engine.feed(piece) for piece in data) + engine.end()


def inward(*data: bytes) -> bytes:
    """The hub's chunks of a stream that does not break."""
    engine = EventStream(0)
    out = read(engine, *data)
    assert engine.failure is None
    return out


def broken(*data: bytes) -> EventStream:
    engine = EventStream(0)
    read(engine, *data)
    assert engine.failure is not None
    return engine


def answered(response: dict[str, Any]) -> Any:
    """The hub's answer for one that was given whole."""
    engine = WholeResponse(0)
    out = read(engine, json.dumps(response).encode())
    assert engine.failure is None
    return json.loads(out)


# --- laws -----------------------------------------------------------------------------------------------------------


def relayed(answer: bytes, *, stream: bool, client: Client | None = None) -> dict[str, Any]:
    """What a client of the dialect has in the end."""
    engine: EngineStream = EventStream(0) if stream else WholeResponse(0)
    made = reader(asked(stream), streamed=stream, engine=engine, client=client or Responses(), now_s=lambda: NOW_S)
    assert isinstance(made, Translated)
    out = made.feed(answer) + made.end()
    assert made.failure is None
    if not stream:
        found: dict[str, Any] = json.loads(made.result())
        return found
    told = [json.loads(block.partition(b"data: ")[2]) for block in (out + made.done_frame).split(b"\n\n")[:-1]]
    for one in told:
        EVENT.validate_python(one)
    last: dict[str, Any] = told[-1]["response"]
    return last


def meant(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what says nothing."""
    return {name: value for name, value in item.items() if value}


@given(st.data(), responses)
def test_items_reach_a_client_of_the_same_dialect_as_they_were(data: st.DataObject, answer: dict[str, Any]) -> None:
    streamed, whole = relayed(data.draw(events(answer)), stream=True), relayed(dumped(answer).encode(), stream=False)
    assert streamed == whole
    Response.model_validate(whole)
    # A thought of which nothing can be read, and nothing is sealed, says nothing.
    assert [meant(item) for item in whole["output"]] == [meant(item) for item in answer["output"]]
    assert {name: whole[name] for name in ("id", "model", "status", "usage")} == {
        name: answer[name] for name in ("id", "model", "status", "usage")
    }


def essence(answer: dict[str, Any]) -> tuple[Any, ...]:
    """What the hub's answer says, however many details it has been told in."""
    (choice,) = answer["choices"]
    said = read_answer(json.dumps(answer).encode()).first
    assert said is not None
    assert said.message is not None
    rest = {name: value for name, value in choice["message"].items() if value and name != "reasoning_details"}
    head = {name: answer[name] for name in ("id", "created", "model", "usage")}
    return rest, thoughts_of(said.message), choice["finish_reason"], head


@given(st.data(), responses)
def test_a_stream_adds_up_to_the_whole_answer(data: st.DataObject, answer: dict[str, Any]) -> None:
    assert essence(json.loads(gathered(inward(data.draw(events(answer)))))) == essence(answered(answer))


@given(responses)
def test_what_does_not_come_in_pieces_comes_at_its_end(answer: dict[str, Any]) -> None:
    there = essence(answered(answer))
    assert essence(json.loads(gathered(inward(quick(answer))))) == there
    last = event("response.completed", response=answer)
    assert essence(json.loads(gathered(inward(created(answer) + last)))) == there
    assert essence(json.loads(gathered(inward(last)))) == there


@pytest.mark.lengthy
@given(st.data(), responses)
def test_chunks_do_not_depend_on_how_the_bytes_were_cut(data: st.DataObject, answer: dict[str, Any]) -> None:
    stream = data.draw(events(answer))
    assert inward(*data.draw(cuts(stream))) == inward(stream)


def test_a_stream_may_be_cut_at_every_byte() -> None:
    stream = quick(response(thought("é", sealed="gAAA"), message("é"), call()))
    out = inward(stream)
    for at in range(len(stream)):
        assert inward(stream[:at], stream[at:]) == out


@given(st.data(), answers(), usages())
def test_what_the_hub_answers_comes_back_from_the_other_dialect(
    data: st.DataObject, answer: dict[str, Any], usage: dict[str, Any]
) -> None:
    answer |= {"usage": usage | {"completion_tokens_details": {"reasoning_tokens": 0}}}
    translate = ResponseStream(asked(stream=True), NOW_S)
    stream = translate.feed(data.draw(streamed(answer))) + translate.end()
    back, there = (
        json.loads(gathered(inward(stream))),
        answered(json.loads(whole(json.dumps(answer).encode(), asked(False), NOW_S))),
    )
    assert essence(back) == essence(there) == essence({**answer, "id": f"resp_{HEAD['id']}"})


@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([b"data: {}\n\n", b'data: {"type":"response.completed"}\n\n']))
)
def test_no_bytes_break_a_translator(stream: list[bytes]) -> None:
    for engine in (EventStream(0), WholeResponse(0)):
        read(engine, *stream)


# --- what an answer says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": {"reason": "of its own"}}, "length"),
        ({"status": "incomplete"}, "length"),
    ],
)
def test_why_it_stopped_is_said_in_the_hubs_words(fields: dict[str, Any], finish: str) -> None:
    answer = response(message(), **fields)
    for found in (answered(answer), json.loads(gathered(inward(quick(answer))))):
        assert found["choices"][0]["finish_reason"] == finish


def test_an_answer_that_calls_says_so() -> None:
    for found in (answered(response(call())), json.loads(gathered(inward(quick(response(call())))))):
        assert found["choices"][0]["finish_reason"] == "tool_calls"
        assert found["choices"][0]["message"]["content"] is None


def test_calls_are_numbered_by_themselves() -> None:
    stream = quick(response(thought(sealed="g"), call("f"), message(), call("g")))
    calls = json.loads(gathered(inward(stream)))["choices"][0]["message"]["tool_calls"]
    assert [(one["id"], one["function"]["name"]) for one in calls] == [("call_fc_1", "f"), ("call_fc_3", "g")]


def test_parts_of_a_thought_are_told_apart_also_where_they_are_one_text() -> None:
    answer = response(thought("**One**", "**Two**", sealed="gAAA"), message())
    said = answered(answer)["choices"][0]["message"]
    assert said["reasoning_content"] == "**One**\n\n**Two**"
    assert said["reasoning_details"][-1] == {
        "type": "reasoning.encrypted",
        "data": "gAAA",
        "id": "rs_0",
        "format": "openai-responses-v1",
        "index": 2,
    }


def test_a_thought_is_sealed_as_it_is_at_its_end() -> None:
    """Until then the seal may be a piece of one."""
    item = {**thought(), "id": "rs_1"}
    stream = [
        created(response()),
        event("response.output_item.added", output_index=0, item={**item, "encrypted_content": "g"}),
        event("response.output_item.done", output_index=0, item={**item, "encrypted_content": "gAAA"}),
        event("response.completed", response=response({**item, "encrypted_content": "gAAA"}, message())),
    ]
    (sealed,) = json.loads(gathered(inward(*stream)))["choices"][0]["message"]["reasoning_details"]
    assert sealed["data"] == "gAAA"


def test_no_name_of_an_item_reaches_a_client_of_the_hub() -> None:
    answer = response(message(phase="commentary"), message("there", phase="final_answer"))
    assert b"tidegate" not in inward(quick(answer))
    assert set(answered(answer)["choices"][0]["message"]) == {"role", "content"}


def test_a_client_of_another_dialect_gets_no_seal_that_it_could_not_send_back() -> None:
    answer = response(thought("hm", sealed="gAAA"), message("first"), thought(sealed="gBBB"), message("second"))
    content = relayed(dumped(answer).encode(), stream=False, client=Messages())["content"]
    assert content == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "first"},
        {"type": "text", "text": "second"},
    ]
    made = reader(asked(True), streamed=True, engine=EventStream(0), client=Messages(), now_s=lambda: NOW_S)
    blocks = (made.feed(quick(answer)) + made.end()).decode().split("\n\n")
    starts = [json.loads(block.partition("data: ")[2]) for block in blocks if "content_block_start" in block]
    assert [start["content_block"]["type"] for start in starts] == [block["type"] for block in content]


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        (None, None),
        ({}, None),
        ({"input_tokens": -5, "output_tokens": "many"}, None),
        ({"input_tokens": 9}, (9, None)),
        ({"output_tokens": 2}, (None, 2)),
        ({"input_tokens": 9, "output_tokens": 2, "input_tokens_details": None}, (9, 2)),
        ({"input_tokens": 9, "output_tokens": 2, "output_tokens_details": []}, (9, 2)),
    ],
)
def test_of_usage_only_what_is_told_is_known_and_clients_get_no_half_of_it(
    told: dict[str, Any] | None, counts: tuple[int | None, int | None] | None
) -> None:
    answer = response(message(), usage=told)
    for engine, data in ((EventStream(0), quick(answer)), (WholeResponse(0), dumped(answer).encode())):
        out = read(engine, data)
        known = (None, None) if engine.usage is None else (engine.usage.prompt_tokens, engine.usage.output_tokens)
        assert known == (counts or (None, None))
        assert (b'"usage"' in out) is (None not in known)


def test_usage_has_what_was_cached_and_what_was_thought() -> None:
    made = reader(asked(True), streamed=True, engine=EventStream(0), now_s=lambda: NOW_S)
    made.feed(quick(response(message())))
    assert made.usage == TOOK


def test_an_answer_without_a_date_has_that_of_its_request() -> None:
    answer = {name: value for name, value in response(message()).items() if name != "created_at"}
    engines: tuple[EngineStream, ...] = (EventStream(7), WholeResponse(7))
    for engine, data in zip(engines, (quick(answer), dumped(answer).encode()), strict=True):
        assert b'"created":7,' in read(engine, data)


# --- what the hub has no place for ----------------------------------------------------------------------------------

STRANGE = [
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
    {"type": "tool_search_call", "id": "ts_1", "arguments": {"a": 1}, "content": "not a list"},
    {"type": "message", "id": "msg_9", "role": "assistant", "content": [{"type": "output_audio", "data": "AAAA"}]},
]


@pytest.mark.parametrize("strange", STRANGE)
def test_items_of_a_kind_that_came_later_are_passed_over(strange: dict[str, Any]) -> None:
    for said in (message(), call(), message("", refusal="no")):
        answer, plain = response(strange, said | {"id": "a"}), response(said | {"id": "a"})
        assert essence(answered(answer)) == essence(answered(plain))
        assert essence(json.loads(gathered(inward(quick(answer))))) == essence(answered(plain))


@pytest.mark.parametrize("strange", STRANGE)
def test_an_answer_of_nothing_else_is_not_taken_for_an_empty_one(strange: dict[str, Any]) -> None:
    answer = response(thought("hm", sealed="gAAA"), strange)
    for engine in (broken(quick(answer)), whole_broken(answer)):
        assert engine.failure is not None
        assert engine.failure.cause is Cause.MALFORMED
    assert b"[DONE]" not in read(EventStream(0), quick(answer))


def whole_broken(answer: dict[str, Any]) -> WholeResponse:
    engine = WholeResponse(0)
    assert read(engine, json.dumps(answer).encode()) == b""
    assert engine.failure is not None
    return engine


def test_an_answer_of_no_words_is_complete() -> None:
    for found in (answered(response()), json.loads(gathered(inward(quick(response()))))):
        assert (found["choices"][0]["message"]["content"], found["choices"][0]["finish_reason"]) == ("", "stop")


def test_events_of_a_kind_that_came_later_are_passed_over() -> None:
    stream = quick(response(message()))
    later = event("response.later", delta={"a": 1}, item={"type": 7}, output_index=3)
    assert inward(created(response()) + later + stream + later) == inward(created(response()) + stream)


def test_a_keep_alive_passes() -> None:
    stream = quick(response(message()))
    assert b": ping\n\n" in inward(created(response()) + event("keepalive", sequence_number=2) + stream)


def test_a_mark_of_the_end_as_chats_have_it_ends_nothing() -> None:
    stream = quick(response(message()))
    assert inward(stream + DONE) == inward(stream)
    assert inward(created(response()) + DONE + stream) == inward(created(response()) + stream)


# --- what breaks ----------------------------------------------------------------------------------------------------

LONG = "Your input exceeds the context window of this model. Please adjust your input and try again."


@pytest.mark.parametrize(
    "failed",
    [
        event("error", code="context_length_exceeded", message=LONG, param="input", sequence_number=2),
        event("error", error={"type": "invalid_request_error", "code": "context_length_exceeded", "message": LONG}),
        event(
            "response.failed",
            response=response(status="failed", error={"code": "context_length_exceeded", "message": LONG}),
        ),
    ],
    ids=["flat", "nested", "failed"],
)
def test_an_error_in_mid_stream_is_a_failure_in_the_engines_own_words(failed: bytes) -> None:
    failure = broken(created(response()) + failed).failure
    assert failure is not None
    assert (failure.cause, failure.message) == (Cause.ERROR_EVENT, f"reported an error: {LONG}")
    assert failure.error is not None
    assert failure.error.context_exceeded


def test_what_an_answer_took_that_failed_is_known() -> None:
    failed = response(status="failed", error={"code": "server_error", "message": "boom"})
    for engine in (broken(created(response()) + event("response.failed", response=failed)), whole_broken(failed)):
        assert engine.failure is not None
        assert engine.failure.message == "reported an error: boom"
        assert engine.usage == TOOK


@pytest.mark.parametrize("status", ["cancelled", "queued", "in_progress"])
def test_a_whole_answer_that_has_not_come_to_its_end_is_cut(status: str) -> None:
    failure = whole_broken(response(message(), status=status)).failure
    assert failure is not None
    assert failure.cause is Cause.TRUNCATED


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"object":"response","output":7,"status":"completed"}', b'{"error":{"message":"boom"}}'],
)
def test_what_is_no_response_is_none_in_any_dialect(body: bytes) -> None:
    engine = WholeResponse(0)
    assert read(engine, body) == b""
    assert engine.failure is not None
    assert engine.failure.cause is (Cause.ERROR_EVENT if b"boom" in body else Cause.MALFORMED)


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {oops}\n\n",
        b"data: [1]\n\n",
        event("response.output_text.delta", output_index=0, delta={"a": 1}),
        event("response.output_text.delta", output_index=7, delta="a"),
        event("response.output_item.added", output_index=0, item={"type": "message", "content": 7}),
    ],
)
def test_what_cannot_be_read_is_a_failure_after_what_came_before_it(bad: bytes) -> None:
    engine = EventStream(0)
    out = engine.feed(created(response()) + bad + quick(response(message())))
    assert engine.failure is not None
    assert engine.failure.cause is Cause.MALFORMED
    assert out.count(b"data:") == 1


def test_events_before_the_response_began_are_a_failure() -> None:
    failure = broken(event("response.output_item.added", output_index=0, item={**call(), "id": "fc_1"})).failure
    assert failure is not None
    assert failure.cause is Cause.MALFORMED


def test_a_stream_that_is_cut_is_left_so() -> None:
    stream = quick(response(message()))
    last = stream.rindex(b"event:")
    for size in range(last, len(stream) - 2):
        made = reader(asked(True), streamed=True, engine=EventStream(0), now_s=lambda: NOW_S)
        made.feed(stream[:size])
        made.end()
        assert made.failure is not None
        assert not made.done


def test_a_stream_may_lack_its_last_blank_line() -> None:
    stream = quick(response(message()))
    assert inward(stream.rstrip()) == inward(stream)


def test_an_event_beyond_any_bound_is_a_failure() -> None:
    failure = broken(b"data: " + b"x" * (FRAME_BYTES_MAX + 1)).failure
    assert failure is not None
    assert failure.cause is Cause.TOO_LARGE


def test_a_whole_answer_beyond_any_bound_is_a_failure() -> None:
    engine = WholeResponse(0)
    engine.feed(b"x" * ANSWER_BYTES_MAX)
    assert engine.failure is None
    engine.feed(b"x")
    assert engine.failure is not None
    assert engine.failure.cause is Cause.TOO_LARGE
    assert engine.end() == b""


def test_half_a_surrogate_pair_is_replaced() -> None:
    answer = response(message("aHALF"))
    streamed = quick(answer).replace(b"HALF", rb"\ud83d")
    assert json.loads(gathered(inward(streamed)))["choices"][0]["message"]["content"] == "a\ufffd"
    engine = WholeResponse(0)
    out = read(engine, json.dumps(answer).encode().replace(b"HALF", rb"\ud83d"))
    assert json.loads(out)["choices"][0]["message"]["content"] == "a\ufffd"


def test_an_engine_that_tells_no_places_is_understood_by_the_names_of_its_items() -> None:
    answer = response(thought(text="hm"), message("Hi"), call("f", '{"a":1}'))
    found = [created(answer)]
    for item in answer["output"]:
        begun = {name: type(value)() if name in ("content", "arguments") else value for name, value in item.items()}
        found.append(event("response.output_item.added", item=begun))
        found += [event(f"response.{kind}.delta", item_id=item["id"], delta=text) for kind, _, text in parts_of(item)]
    found += [event("response.output_item.done", item=item) for item in answer["output"]]
    found.append(event("response.completed", response=answer))
    assert essence(json.loads(gathered(inward(*found)))) == essence(answered(answer))
