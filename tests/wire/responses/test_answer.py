"""Answers of the Responses API."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.wire.hub import answers, streamed
from tests.wire.streams import DONE, PING, chunk, cuts, frame
from tidegate.wire import chunks
from tidegate.wire.anthropic.inward import WholeMessage
from tidegate.wire.openai import Call
from tidegate.wire.responses.answer import whole
from tidegate.wire.responses.client import Responses
from tidegate.wire.responses.request import parse
from tidegate.wire.responses.stream import ResponseStream
from tidegate.wire.sse import BadStream, Cause
from tidegate.wire.translate import Translated, reader

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
NOW_S = 1_800_000_000.0


def asked(**fields: Any) -> Call:
    return parse(json.dumps({"model": "m", "input": "hi", "stream": True, **fields}).encode())


CALL = asked()


def events_of(out: bytes) -> list[dict[str, Any]]:
    """The data of each event, named and numbered as it should be."""
    found: list[dict[str, Any]] = []
    for block in out.split(b"\n\n")[:-1]:
        if block == b": ping":
            continue
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        assert event["sequence_number"] == len(found)
        EVENT.validate_python(event)
        found.append(event)
    return found


def outward(*stream: bytes, call: Call = CALL) -> bytes:
    translate = ResponseStream(call, NOW_S)
    return b"".join(translate.feed(piece) for piece in stream) + translate.end()


def kinds(*stream: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events_of(outward(*stream))]


def test_a_request_that_is_broken_into_lines_breaks_no_event() -> None:
    body = b'{"model":"m","stream":true,"input":"hi","tools":[\n\n  {"type":"function","name":"f","parameters":{}}\n]}'
    events = events_of(outward(chunk(content="a") + DONE, call=parse(body)))
    assert events[0]["response"]["tools"][0]["name"] == "f"


# --- laws -----------------------------------------------------------------------------------------------------------


@given(st.data(), answers())
def test_a_stream_ends_with_the_whole_answer(data: st.DataObject, answer: dict[str, Any]) -> None:
    made = json.loads(whole(json.dumps(answer).encode(), CALL, NOW_S))
    Response.model_validate(made)
    assert events_of(outward(data.draw(streamed(answer))))[-1]["response"] == made


def test_the_items_of_a_whole_answer_keep_the_order_in_which_a_messages_engine_gave_them() -> None:
    content = [
        {"type": "thinking", "thinking": "A", "signature": "YQ=="},
        {"type": "text", "text": "first"},
        {"type": "thinking", "thinking": "B", "signature": "Yg=="},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        {"type": "text", "text": "second"},
    ]
    made = reader(asked(stream=False), streamed=False, engine=WholeMessage(0), client=Responses(), now_s=lambda: NOW_S)
    made.feed(json.dumps({"type": "message", "id": "1", "content": content}).encode())
    made.end()
    assert isinstance(made, Translated)
    output = json.loads(made.result())["output"]
    Response.model_validate(json.loads(made.result()))
    assert [item["type"] for item in output] == ["reasoning", "message", "reasoning", "function_call", "message"]
    said = [item["content"][0]["text"] for item in output if item["type"] != "function_call"]
    assert said == ["A", "first", "B", "second"]
    assert len({item["id"] for item in output}) == 5


@given(st.data(), answers())
def test_what_the_pieces_add_up_to_is_what_the_ends_repeat(data: st.DataObject, answer: dict[str, Any]) -> None:
    *events, last = events_of(outward(data.draw(streamed(answer))))
    gathered: dict[tuple[int, int], str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["output_index"], event.get("content_index", 0)
            gathered[place] = gathered.get(place, "") + event["delta"]
    repeated = {
        (at, index): text
        for at, item in enumerate(last["response"]["output"])
        for index, text in enumerate(said(item))
        if text
    }
    assert gathered == repeated


def said(item: dict[str, Any]) -> list[str]:
    return [part["text"] for part in item["content"]] if "content" in item else [item["arguments"]]


@given(st.data(), answers())
def test_events_do_not_depend_on_how_the_bytes_were_cut(data: st.DataObject, answer: dict[str, Any]) -> None:
    stream = data.draw(streamed(answer))
    assert outward(*data.draw(cuts(stream))) == outward(stream)


def test_a_stream_may_be_cut_at_every_byte() -> None:
    stream = PING + chunk(role="assistant") + chunk(content="é") + chunk(finish="stop") + DONE
    for at in range(len(stream)):
        assert outward(stream[:at], stream[at:]) == outward(stream)


@given(answers())
def test_nothing_of_an_answer_is_lost(answer: dict[str, Any]) -> None:
    made = json.loads(whole(json.dumps(answer).encode(), CALL, NOW_S))
    message, usage = answer["choices"][0]["message"], answer["usage"]
    by_type: dict[str, list[Any]] = {"reasoning": [], "message": [], "function_call": []}
    for item in made["output"]:
        by_type[item["type"]].append(item)
    assert "".join(said(item)[0] for item in by_type["reasoning"]) == message.get("reasoning_content", "")
    assert "".join(said(item)[0] for item in by_type["message"]) == (message["content"] or "")
    assert [(i["call_id"], i["name"], i["arguments"]) for i in by_type["function_call"]] == [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())
    ]
    assert made["usage"] == {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
        "input_tokens_details": usage["prompt_tokens_details"],
        "output_tokens_details": usage.get("completion_tokens_details", {"reasoning_tokens": 0}),
    }
    assert (made["model"], made["created_at"]) == (answer["model"], answer["created"])


# --- events ---------------------------------------------------------------------------------------------------------


def test_a_plain_answer_has_the_events_of_one_message() -> None:
    assert kinds(chunk(role="assistant"), chunk(content="Hi"), chunk(content="!"), chunk(finish="stop"), DONE) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_a_call_has_the_events_of_its_arguments() -> None:
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": "{}"}},
    ]
    assert kinds(*[chunk(tool_calls=[piece]) for piece in pieces], chunk(finish="tool_calls"))[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize("told", ["", " "])
def test_a_call_without_arguments_has_none_that_are_json(told: str) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": told}}
    *events, last = events_of(outward(chunk(tool_calls=[call]), chunk(finish="tool_calls"), DONE))
    deltas = [event["delta"] for event in events if event["type"].endswith(".delta")]
    (item,) = last["response"]["output"]
    assert "".join(deltas) == item["arguments"]
    assert json.loads(item["arguments"]) == {}
    answer = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    (alike,) = json.loads(whole(json.dumps(answer).encode(), CALL, NOW_S))["output"]
    assert alike["arguments"] == item["arguments"]


def test_a_refusal_is_a_part_of_its_own() -> None:
    assert kinds(chunk(content="a"), chunk(refusal="No."), chunk(finish="stop"))[3:-1] == [
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
    ]


OWN = {"format": "openai-responses-v1"}


def both(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of an answer that thinks so and says a word, which are the same streamed and whole."""
    thinking = [chunk(reasoning_content=detail.get("summary", ""), reasoning_details=[detail]) for detail in details]
    streamed = events_of(outward(*thinking, chunk(content="a"), chunk(finish="stop")))[-1]["response"]["output"]
    message = {"content": "a", "reasoning_details": details}
    answer = {"id": "chatcmpl-1", "choices": [{"message": message, "finish_reason": "stop"}]}
    found: list[dict[str, Any]] = json.loads(whole(json.dumps(answer).encode(), CALL, NOW_S))["output"]
    assert [meant(item) for item in streamed] == [meant(item) for item in found]
    return found


def meant(item: dict[str, Any]) -> dict[str, Any]:
    """An item without what stands for nothing, and without the name that it has only from its place."""
    return {name: value for name, value in item.items() if value and name != "id"}


def test_each_seal_ends_a_thought() -> None:
    """OpenRouter's details are those of its vendor's items, one after the other."""
    first, second, _ = both(
        [
            {"type": "reasoning.summary", "summary": "one ", "index": 0, **OWN},
            {"type": "reasoning.summary", "summary": "part", "index": 0, **OWN},
            {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", **OWN},
            {"type": "reasoning.encrypted", "data": "gBBB", "id": "rs_2", **OWN},
        ]
    )
    assert first["summary"] == [{"type": "summary_text", "text": "one part"}]
    assert [item["encrypted_content"] for item in (first, second)] == ["gAAA", "gBBB"]
    assert second["id"] == "rs_2"


@pytest.mark.parametrize("format", [None, "anthropic-claude-v1", "google-gemini-v1"])
def test_what_another_vendor_has_sealed_is_no_seal_of_this_dialects(format: str | None) -> None:
    """It would come back, and the whole conversation would be refused with it."""
    (said,) = both([{"type": "reasoning.encrypted", "data": "eA==", "format": format}])
    assert said["type"] == "message"


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_short_says_so(finish: str, reason: str) -> None:
    last = events_of(outward(chunk(content="a"), chunk(finish=finish)))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": reason}
    assert last["response"]["output"][-1]["status"] == "incomplete"


def test_the_answer_repeats_what_was_asked_and_stores_nothing() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": None}
    given = {"instructions": "be brief", "tools": [tool], "temperature": 0.5, "metadata": {"a": "b"}, "top_p": None}
    body = json.dumps({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}).encode()
    made = json.loads(whole(body, asked(**given, store=True), NOW_S))
    assert {name: made[name] for name in given} == {**given, "top_p": 1.0}
    assert made["store"] is False
    assert made["created_at"] == NOW_S


def test_a_filter_result_before_all_else_is_not_where_a_response_has_its_name_from() -> None:
    first = frame({"id": "", "choices": [], "created": 0, "model": "", "object": "", "prompt_filter_results": [{}]})
    events = events_of(outward(first, chunk(content="Hi"), chunk(finish="stop"), DONE))
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_chatcmpl-1"}
    assert events[-1]["type"] == "response.completed"


def test_usage_is_told_also_where_its_chunk_has_no_name() -> None:
    usage = frame({"id": "", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    for stream in ([chunk(content="Hi"), usage], [usage, chunk(content="Hi")]):
        assert events_of(outward(*stream))[-1]["response"]["usage"]["output_tokens"] == 2


def test_keep_alives_pass() -> None:
    assert outward(PING, chunk(content="a")).startswith(PING)


# --- what breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [chunk(content=7), chunk(tool_calls=[{"index": 0, "id": "c"}]), b"data: [1]\n\n"])
def test_what_has_no_form_is_a_failure_after_what_came_before_it(bad: bytes) -> None:
    translate = ResponseStream(CALL, NOW_S)
    out = translate.feed(chunk(content="a") + bad + chunk(content="b"))
    assert translate.failure is not None
    assert translate.failure.cause is Cause.MALFORMED
    assert "response.output_text.delta" in [event["type"] for event in events_of(out)]


def test_a_call_that_comes_back_after_its_end_is_a_failure() -> None:
    translate = ResponseStream(CALL, NOW_S)
    for at in (0, 1):
        translate.feed(chunk(tool_calls=[{"index": at, "id": f"c{at}", "function": {"name": "f", "arguments": "{"}}]))
    assert translate.failure is None
    translate.feed(chunk(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]))
    assert translate.failure is not None


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.wire.responses.stream.ANSWER_BYTES_MAX", 2000)
    translate = ResponseStream(CALL, NOW_S)
    while translate.failure is None:
        translate.feed(chunk(content="x" * 100))
    assert translate.failure.cause is Cause.TOO_LARGE
    assert chunks.ANSWER_BYTES_MAX > 2000


def test_what_items_are_called_is_kept_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.wire.responses.stream.ANSWER_BYTES_MAX", 20_000)
    translate = ResponseStream(CALL, NOW_S)
    for _ in range(3):
        translate.feed(chunk(content="y", tidegate_item={"type": "message", "id": "x" * 10_000}))
    assert translate.failure is not None
    assert translate.failure.cause is Cause.TOO_LARGE


def test_what_an_engine_says_beside_its_text_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.wire.responses.stream.ANSWER_BYTES_MAX", 20_000)
    translate = ResponseStream(CALL, NOW_S)
    for _ in range(200):
        translate.feed(chunk(content="x", obfuscation="y" * 300))
    assert translate.failure is None
    assert b"response.completed" in translate.end()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices":[]}', b'{"choices":[{"message":7}]}'])
def test_what_is_no_answer_is_none_in_any_dialect(body: bytes) -> None:
    with pytest.raises(BadStream):
        whole(body, CALL, NOW_S)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: {}\n\n", frame({"choices": [{"delta": {}}]})])))
def test_no_bytes_break_a_translator(stream: list[bytes]) -> None:
    outward(*stream)


def test_an_error_in_mid_stream_fails_the_response() -> None:
    translate = ResponseStream(CALL, NOW_S)
    out = translate.feed(chunk(content="a")) + translate.error("gone", "api_error", "upstream_error")
    last = events_of(out)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": "server_error", "message": "gone"}


def test_an_error_before_all_else_is_an_error_event() -> None:
    (event,) = events_of(ResponseStream(CALL, NOW_S).error("busy", "rate_limit_error", "all_endpoints_busy"))
    assert (event["type"], event["code"], event["message"]) == ("error", "all_endpoints_busy", "busy")


def test_a_whole_error_is_openais() -> None:
    body = json.loads(Responses().error_body(404, "no", "invalid_request_error", "model", "model_not_found"))
    said = {"message": "no", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert body == {"error": said}
