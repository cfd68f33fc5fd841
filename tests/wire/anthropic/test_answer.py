"""Answers of the Messages API, from the hub and back."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.wire.hub import HEAD, answers, asked, dumped, gathered, json_values, objects, streamed, texts, words
from tests.wire.streams import DONE, PING, chunk, cuts, frame
from tidegate.wire.anthropic.answer import MessageStream, whole
from tidegate.wire.anthropic.client import Messages
from tidegate.wire.anthropic.errors import error_body
from tidegate.wire.anthropic.inward import EventStream, WholeMessage
from tidegate.wire.clients import CLIENTS
from tidegate.wire.sse import FRAME_BYTES_MAX, BadStream, Cause
from tidegate.wire.translate import Client, EngineStream, Translated, reader

MESSAGES = Messages()
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}


def events_of(out: bytes) -> list[dict[str, Any]]:
    """The data of each event, named as it should be."""
    found = []
    for block in out.split(b"\n\n")[:-1]:
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        found.append(event)
    return found


def outward(*stream: bytes) -> bytes:
    translate = MessageStream()
    return b"".join(translate.feed(piece) for piece in stream) + translate.end()


def inward(*stream: bytes) -> bytes:
    translate = EventStream(HEAD["created"])
    return b"".join(translate.feed(piece) for piece in stream) + translate.end()


def message_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the SDK makes of them."""
    message: Any = None
    json_bufs: dict[int, bytes] = {}
    for event in events:
        event = EVENT.validate_python(event)
        message = accumulate_event(event=event, current_snapshot=message, json_bufs=json_bufs)
    made: dict[str, Any] = message.model_dump(mode="json", exclude_none=True)
    return made


def facts(message: dict[str, Any]) -> dict[str, Any]:
    known = Message.model_validate(message).model_dump(mode="json", exclude_none=True)
    # Zeros and absences say the same.
    known["usage"] = {name: value for name, value in known["usage"].items() if value}
    for block in known["content"]:
        block.pop("parsed_output", None)
    return known


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.lengthy
@given(st.data(), answers())
def test_a_stream_adds_up_to_the_whole_answer(data: st.DataObject, answer: dict[str, Any]) -> None:
    events = events_of(outward(data.draw(streamed(answer))))
    assert facts(message_of(events)) == facts(json.loads(whole(json.dumps(answer).encode())))


@given(st.data(), answers())
def test_events_do_not_depend_on_how_the_bytes_were_cut(data: st.DataObject, answer: dict[str, Any]) -> None:
    stream = data.draw(streamed(answer))
    out = outward(stream)
    assert outward(*data.draw(cuts(stream))) == out
    back = inward(out)
    assert inward(*data.draw(cuts(out))) == back


def test_a_stream_may_be_cut_at_every_byte() -> None:
    stream = PING + chunk(role="assistant") + chunk(content="é") + chunk(finish="stop", usage=USAGE) + DONE
    out = outward(stream)
    for at in range(len(stream)):
        assert outward(stream[:at], stream[at:]) == out
    back = inward(out)
    for at in range(len(out)):
        assert inward(out[:at], out[at:]) == back


@given(st.data(), answers())
def test_what_the_hub_answers_comes_back_from_the_other_dialect(data: st.DataObject, answer: dict[str, Any]) -> None:
    back = json.loads(gathered(inward(outward(data.draw(streamed(answer))))))
    assert back == {**answer, "id": "msg_chatcmpl-1", "choices": back["choices"]}
    assert essence(back["choices"][0]) == essence(answer["choices"][0])


@given(answers())
def test_a_whole_answer_comes_back_from_the_other_dialect(answer: dict[str, Any]) -> None:
    translate = WholeMessage(HEAD["created"])
    assert translate.feed(whole(json.dumps(answer).encode())) == b""
    back = json.loads(translate.end())
    assert back == {**answer, "id": "msg_chatcmpl-1", "choices": back["choices"]}
    assert essence(back["choices"][0]) == essence(answer["choices"][0])


def _block(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


some = texts.filter(bool)
blocks = st.one_of(
    _block("thinking", thinking=texts, signature=some),
    _block("redacted_thinking", data=some),
    _block("text", text=some),
    _block("tool_use", id=words, name=words, input=objects),
)


def message_of_engine(content: list[dict[str, Any]]) -> bytes:
    return json.dumps({"type": "message", "id": "1", "content": content, "stop_reason": "end_turn"}).encode()


def relayed(engine: EngineStream, answer: bytes, *, stream: bool, client: Client | None = MESSAGES) -> bytes:
    """What a client gets of the answer of an engine that speaks this dialect."""
    call = asked({"messages": [{"role": "user", "content": "hi"}], "stream": stream})
    made = reader(call, streamed=stream, engine=engine, client=client, now_s=lambda: 1.0)
    assert isinstance(made, Translated)
    out = made.feed(answer) + made.end()
    assert made.failure is None
    return out + made.done_frame if stream else made.result()


@given(st.lists(blocks, min_size=1, max_size=6))
def test_a_whole_answer_keeps_the_order_of_its_blocks_as_a_streamed_one_does(content: list[dict[str, Any]]) -> None:
    events = b"".join(streamed_blocks(content))
    made = json.loads(relayed(WholeMessage(0), message_of_engine(content), stream=False))
    of_events = message_of(events_of(relayed(EventStream(0), events, stream=True)))
    assert facts(made)["content"] == facts(of_events)["content"]
    # One text behind another is one text.
    if not any(one["type"] == other["type"] == "text" for one, other in pairwise(content)):
        assert made["content"] == content


def streamed_blocks(content: list[dict[str, Any]]) -> Iterator[bytes]:
    """The same as events, each block in one piece."""
    yield frame({"type": "message_start", "message": {"id": "1", "type": "message"}})
    for at, block in enumerate(content):
        empty: dict[str, Any]
        match block["type"]:
            case "thinking":
                empty, pieces = {"thinking": "", "signature": ""}, ["thinking", "signature"]
            case "text":
                empty, pieces = {"text": ""}, ["text"]
            case "tool_use":
                empty, pieces = {"input": {}}, ["input"]
            case _:
                empty, pieces = {}, []
        yield frame({"type": "content_block_start", "index": at, "content_block": {**block, **empty}})
        for name in pieces:
            delta = {"type": f"{name}_delta", name: block[name]}
            if name == "input":
                delta = {"type": "input_json_delta", "partial_json": dumped(block[name])}
            yield frame({"type": "content_block_delta", "index": at, "delta": delta})
        yield frame({"type": "content_block_stop", "index": at})
    yield frame({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    yield frame({"type": "message_stop"})


counted = st.fixed_dictionaries(
    {"input_tokens": st.integers(0, 9), "output_tokens": st.integers(0, 9)},
    optional={
        "cache_creation_input_tokens": st.integers(0, 9),
        "cache_read_input_tokens": st.integers(0, 9),
        "cache_creation": st.just({"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5}),
        "server_tool_use": st.just({"web_search_requests": 1, "web_fetch_requests": 2}),
        "later": objects,
    },
)
endings = st.fixed_dictionaries(
    {"stop_reason": st.sampled_from(["end_turn", "refusal", "pause_turn", "model_context_window_exceeded"])},
    optional={
        "stop_sequence": st.none() | words,
        "stop_details": st.none() | st.just({"type": "refusal", "category": "cyber", "explanation": "No."}),
        "later": json_values,
    },
)
besides = st.fixed_dictionaries(
    {},
    optional={
        "context_management": st.just({"applied_edits": [{"type": "clear_tool_uses_20250919"}]}),
        "kind": json_values.filter(lambda value: value is not None),
    },
)


@given(counted, endings, besides)
def test_a_client_is_told_what_an_engine_of_its_own_dialect_says_besides_as_it_says_it(
    usage: dict[str, Any], ending: dict[str, Any], more: dict[str, Any]
) -> None:
    """Why it refused, which cache it wrote to, what it has left out of the conversation, and what comes later."""
    text = {"type": "text", "text": "a"}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c"}
    message = {**head, "content": [text], "usage": usage, **ending, **more}
    told = json.loads(relayed(WholeMessage(0), json.dumps(message).encode(), stream=False))
    assert told == {"stop_sequence": None} | {name: value for name, value in message.items() if value is not None}

    start = {**head, "content": [], "usage": usage, "stop_reason": None, "stop_sequence": None, **more}
    _, *middle, _, last = streamed_blocks([text])
    end = {"type": "message_delta", "delta": ending, "usage": usage, **more}
    events = [frame({"type": "message_start", "message": start}), *middle, frame(end), last]
    first, *_, final, _ = events_of(relayed(EventStream(0), b"".join(events), stream=True))
    assert (first["message"], final) == (start, end)


@pytest.mark.parametrize("client", [None, CLIENTS["/v1/responses"], CLIENTS["/api/chat"]])
@pytest.mark.parametrize("stream", [False, True])
def test_nobody_else_is_told_it(client: Client | None, stream: bool) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 0}}
    ending = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": {"type": "refusal"}}
    message = {"type": "message", "id": "1", "content": [{"type": "text", "text": "a"}], "usage": usage, **ending}
    engine: EngineStream = EventStream(0) if stream else WholeMessage(0)
    answer = json.dumps(message).encode()
    if stream:
        start, *middle, _, last = message_events({"type": "text", "text": "a"})
        answer = b"".join([start, *middle, frame({"type": "message_delta", "delta": ending, "usage": usage}), last])
    told = relayed(engine, answer, stream=stream, client=client)
    assert b"stop_details" not in told
    assert b"cache_creation" not in told
    assert b"tidegate" not in told


INTERLEAVED: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "A", "signature": "YQ=="},
    {"type": "text", "text": "first"},
    {"type": "thinking", "thinking": "B", "signature": "Yg=="},
    {"type": "tool_use", "id": "c", "name": "f", "input": {}},
]


def test_a_client_of_the_hub_gets_an_answer_of_its_own_dialect_whatever_the_order_was() -> None:
    answer = relayed(WholeMessage(0), message_of_engine(INTERLEAVED), stream=False, client=None)
    said = json.loads(answer)["choices"][0]["message"]
    assert set(said) == {"role", "content", "reasoning_content", "reasoning_details", "tool_calls"}
    assert (said["content"], said["reasoning_content"]) == ("first", "AB")


def essence(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice, without what says nothing: an empty text beside calls, a null."""
    message = {name: value for name, value in choice["message"].items() if value}
    return {**choice, "message": message}


# --- events ---------------------------------------------------------------------------------------------------------


def test_a_plain_answer_is_one_block_of_text() -> None:
    events = events_of(outward(chunk(role="assistant", content=""), chunk(content="Hi"), chunk(finish="stop"), DONE))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0]["message"]["content"] == []
    assert events[2] == {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
    assert events[4]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_arguments_of_a_call_come_in_the_pieces_of_the_engine() -> None:
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}},
    ]
    events = events_of(outward(*[chunk(tool_calls=[piece]) for piece in pieces], chunk(finish="tool_calls")))
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [(s["id"], s["name"], s["input"]) for s in starts] == [("c1", "f", {}), ("c2", "g", {})]
    deltas = [(e["index"], e["delta"]["partial_json"]) for e in events if e["type"] == "content_block_delta"]
    assert deltas == [(0, '{"a":'), (0, "1}"), (1, "{}")]


def test_a_call_that_was_cut_is_told_as_cut_and_one_with_nonsense_has_no_form() -> None:
    function = {"name": "f", "arguments": '{"path": "/tmp/a", "text": "Once up'}
    said = {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    choice = {"index": 0, "message": said, "finish_reason": "length"}
    message = json.loads(whole(json.dumps({"choices": [choice]}).encode()))
    assert message["stop_reason"] == "max_tokens"
    assert [(block["name"], block["input"]) for block in message["content"]] == [("f", {})]
    with pytest.raises(BadStream) as told:
        whole(json.dumps({"choices": [choice | {"finish_reason": "tool_calls"}]}).encode())
    assert told.value.cause is Cause.NO_FORM


def test_a_call_without_arguments_has_empty_ones_and_no_empty_text() -> None:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "1", "type": "message"}}]
    for at, name in enumerate(("f", "g")):
        block = {"type": "tool_use", "id": name, "name": name}
        events += [
            {"type": "content_block_start", "index": at, "content_block": block},
            {"type": "content_block_delta", "index": at, "delta": {"type": "input_json_delta", "partial_json": ""}},
            {"type": "content_block_stop", "index": at},
        ]
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    answer = json.loads(gathered(inward(*map(frame, events))))
    calls = [call["function"] for call in answer["choices"][0]["message"]["tool_calls"]]
    assert calls == [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "{}"}]


def message_events(*blocks: dict[str, Any], stop: bool = True) -> list[bytes]:
    """What an engine sends that gives each block at once."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "1", "type": "message", "usage": usage}}
    ]
    for at, block in enumerate(blocks):
        events += [
            {"type": "content_block_start", "index": at, "content_block": block},
            {"type": "content_block_stop", "index": at},
        ]
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 812}})
    return [frame(event) for event in (*events, *([{"type": "message_stop"}] if stop else []))]


@pytest.mark.parametrize(
    ("given", "arguments"), [({"path": "/a"}, '{"path":"/a"}'), ({}, "{}"), (None, "{}"), ("", "{}")]
)
def test_arguments_that_a_call_begins_with_are_kept_where_no_others_come(given: Any, arguments: str) -> None:
    block = {"type": "tool_use", "id": "c", "name": "f", "input": given}
    (call,) = json.loads(gathered(inward(*message_events(block))))["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": arguments}
    translate = WholeMessage(0)
    translate.feed(json.dumps({"type": "message", "content": [block]}, separators=(",", ":")).encode())
    assert json.loads(translate.end())["choices"][0]["message"]["tool_calls"] == [call]


def test_pieces_of_arguments_take_the_place_of_those_that_a_call_began_with() -> None:
    start, begin, *rest = message_events({"type": "tool_use", "id": "c", "name": "f", "input": {"path": "/a"}})
    delta = {"type": "input_json_delta", "partial_json": '{"path":"/b"}'}
    piece = frame({"type": "content_block_delta", "index": 0, "delta": delta})
    answer = json.loads(gathered(inward(start, begin, piece, *rest)))
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"path":"/b"}'


def test_an_answer_that_lacks_but_its_last_word_tells_what_it_has_told_of_its_usage() -> None:
    events = message_events({"type": "text", "text": "Hi"}, stop=False)
    for stream in (b"".join(events), b"".join(events).rstrip()):
        answer = json.loads(gathered(inward(stream)))
        assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (9, 812)
    assert b"[DONE]" not in inward(*events)
    assert b'"usage"' not in inward(*events[:-1])


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        (None, None),
        ({}, None),
        ({"input_tokens": -5, "output_tokens": -7}, None),
        ({"input_tokens": 10**400, "output_tokens": 2**60}, None),
        ({"cache_read_input_tokens": 3}, None),
        ({"input_tokens": 9}, (9, None)),
        ({"input_tokens": 0, "cache_read_input_tokens": 9}, (9, None)),
        ({"output_tokens": 2}, (None, 2)),
        ({"input_tokens": 9, "output_tokens": 2}, (9, 2)),
    ],
)
def test_of_usage_only_what_is_told_is_known_and_clients_get_no_half_of_it(
    told: dict[str, int] | None, counts: tuple[int | None, int | None] | None
) -> None:
    message = {"type": "message", "id": "1", "content": [{"type": "text", "text": "Hi"}], "usage": told}
    translate = WholeMessage(0)
    translate.feed(json.dumps(message).encode())
    start, *events = message_events({"type": "text", "text": "Hi"})
    start = frame({"type": "message_start", "message": {"id": "1", "type": "message"}})
    ending = frame({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told})
    stream = EventStream(HEAD["created"])
    streamed = stream.feed(b"".join((start, *events[:-2], ending, events[-1])))
    for answer in (json.loads(translate.end()), json.loads(gathered(streamed))):
        usage = answer.get("usage")
        got = usage and (usage["prompt_tokens"], usage["completion_tokens"])
        assert got == (None if counts is None or None in counts else counts)
    for known in (translate.usage, stream.usage):
        assert (known and (known.prompt_tokens, known.output_tokens)) == counts


def test_a_byte_order_mark_before_a_whole_answer_is_dropped() -> None:
    message = {"type": "message", "id": "1", "content": [{"type": "text", "text": "Hi"}]}
    translate = WholeMessage(0)
    translate.feed(b"\xef\xbb\xbf" + json.dumps(message).encode())
    assert json.loads(translate.end())["choices"][0]["message"]["content"] == "Hi"


def test_what_is_told_before_the_first_word_is_no_count_of_the_answer() -> None:
    start, *events = message_events({"type": "text", "text": "Hi"})
    silent = [event.replace(b'"output_tokens":812', b"") for event in events]
    assert silent != events
    translate = EventStream(HEAD["created"])
    assert b'"usage"' not in translate.feed(b"".join((start, *silent)))
    assert translate.usage is not None
    assert (translate.usage.prompt_tokens, translate.usage.output_tokens) == (9, None)


ERROR_EVENT = b"event: error\n" + frame(
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
)


@pytest.mark.parametrize(
    "behind",
    [ERROR_EVENT, b"event: message_stop\ndata: {oops}\n\n", b"data: %b" % (b"x" * (FRAME_BYTES_MAX + 1))],
    ids=["an error", "no JSON", "an event beyond any bound"],
)
def test_what_goes_wrong_behind_the_reason_to_stop_is_the_end_of_the_stream(behind: bytes) -> None:
    events = b"".join(message_events({"type": "text", "text": "Hi"}, stop=False))
    translate = EventStream(HEAD["created"])
    out = translate.feed(events + behind)
    assert translate.failure is None
    assert out.endswith(DONE)
    assert json.loads(gathered(out))["usage"]["completion_tokens"] == 812
    assert translate.feed(ERROR_EVENT) + translate.end() == b""
    assert translate.failure is None


def test_a_stream_may_be_cut_within_its_last_event() -> None:
    *events, last = message_events({"type": "text", "text": "Hi"})
    last = b"event: message_stop\n" + last
    for size in range(len(last)):
        translate = EventStream(HEAD["created"])
        out = translate.feed(b"".join(events) + last[:size]) + translate.end()
        assert translate.failure is None
        assert json.loads(gathered(out))["usage"]["completion_tokens"] == 812


def test_a_reason_to_stop_before_the_message_began_is_a_failure() -> None:
    translate = EventStream(0)
    translate.feed(frame({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
    assert translate.failure is not None
    assert translate.failure.cause is Cause.MALFORMED


def test_a_filter_result_before_all_else_is_not_where_a_message_has_its_name_from() -> None:
    first = frame({"id": "", "choices": [], "created": 0, "model": "", "object": "", "prompt_filter_results": [{}]})
    events = events_of(outward(first, chunk(role="assistant"), chunk(content="Hi"), chunk(finish="stop"), DONE))
    assert (events[0]["message"]["id"], events[0]["message"]["model"]) == ("msg_chatcmpl-1", HEAD["model"])
    assert [event["type"] for event in events_of(outward(first))] == ["message_start", "message_delta", "message_stop"]


def test_half_a_surrogate_pair_is_replaced_on_either_way() -> None:
    half = rb'data: {"choices":[{"delta":{"content":"a\ud83d"},"finish_reason":"stop"}]}' + b"\n\n"
    (block,) = message_of(events_of(outward(half)))["content"]
    assert block["text"] == "a\ufffd"
    events = b"".join(message_events({"type": "text", "text": "aHALF"})).replace(b"HALF", rb"\ud83d")
    back = gathered(inward(events))
    assert json.loads(back)["choices"][0]["message"]["content"] == "a\ufffd"
    translate = WholeMessage(0)
    translate.feed(rb'{"type":"message","content":[{"type":"text","text":"a\ud83d"}]}')
    assert json.loads(translate.end())["choices"][0]["message"]["content"] == "a\ufffd"


def test_half_a_surrogate_pair_in_arguments_is_no_reason_for_them_to_have_no_form() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": r'{"a":"\ud83d"}'}}
    made = json.loads(whole(json.dumps({"choices": [{"message": {"tool_calls": [call]}}]}).encode()))
    assert made["content"][0]["input"] == {"a": "\ufffd"}


def test_thinking_text_and_calls_are_blocks_that_follow_each_other() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    out = outward(chunk(reasoning="hm"), chunk(content="a"), chunk(tool_calls=[call]), chunk(finish="stop"))
    message = message_of(events_of(out))
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["stop_reason"] == "tool_use"


def test_keep_alives_are_pings() -> None:
    assert outward(PING, chunk(content="a")).startswith(b'event: ping\ndata: {"type":"ping"}\n\n')
    assert b": ping\n\n" in inward(outward(PING, chunk(content="a")))


def test_a_seal_comes_through_to_the_client_and_back() -> None:
    sealed = [
        chunk(reasoning_content="hm"),
        chunk(reasoning_details=[{"type": "reasoning.text", "signature": "c2ln"}]),
        chunk(reasoning_details=[{"type": "reasoning.encrypted", "data": "eA=="}]),
        chunk(content="4"),
        chunk(finish="stop"),
    ]
    content = message_of(events_of(outward(*sealed)))["content"]
    assert content == [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "4"},
    ]
    assert json.loads(whole(gathered(b"".join(sealed) + DONE)))["content"] == content
    whole_back = WholeMessage(0)
    whole_back.feed(json.dumps({"type": "message", "id": "1", "content": content, "stop_reason": "end_turn"}).encode())
    assert json.loads(whole(whole_back.end()))["content"] == content


@pytest.mark.parametrize(
    ("finish", "more", "reason", "sequence"),
    [
        ("stop", {}, "end_turn", None),
        ("stop", {"stop_reason": "END"}, "stop_sequence", "END"),
        ("stop", {"stop_reason": 128001}, "end_turn", None),
        ("stop", {"matched_stop": "END"}, "stop_sequence", "END"),
        ("stop", {"matched_stop": 128001}, "end_turn", None),
        ("stop", {"matched_stop": None}, "end_turn", None),
        ("length", {}, "max_tokens", None),
        ("tool_calls", {}, "tool_use", None),
        ("function_call", {}, "tool_use", None),
        ("content_filter", {}, "refusal", None),
        ("eos", {}, "end_turn", None),
    ],
)
def test_why_it_stopped_is_said_in_the_clients_words(
    finish: str, more: dict[str, Any], reason: str, sequence: str | None
) -> None:
    choice = {"index": 0, "finish_reason": finish, **more}
    message = json.loads(whole(json.dumps({"choices": [{**choice, "message": {"content": "a"}}]}).encode()))
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    *_, delta, _ = events_of(outward(frame({"choices": [{**choice, "delta": {"content": "a"}}]})))
    assert delta["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("pause_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_why_an_engine_stopped_is_said_in_the_hubs_words(reason: str, finish: str) -> None:
    translate = WholeMessage(0)
    translate.feed(json.dumps({"type": "message", "stop_reason": reason}).encode())
    assert json.loads(translate.end())["choices"][0]["finish_reason"] == finish


def test_a_refusal_is_text_and_its_reason() -> None:
    message = message_of(events_of(outward(chunk(refusal="No."), chunk(finish="stop"))))
    assert message["content"] == [{"type": "text", "text": "No."}]
    assert message["stop_reason"] == "refusal"


def test_counts_that_no_engine_should_give_lose_no_answer() -> None:
    usage = {"prompt_tokens": 9.0, "completion_tokens": 1e300, "prompt_tokens_details": {"cached_tokens": 99}}
    choice = {"message": {"content": "a"}, "finish_reason": "stop"}
    message = json.loads(whole(json.dumps({"created": 1.5, "choices": [choice], "usage": usage}).encode()))
    assert Message.model_validate(message).usage.input_tokens == 9
    assert (message["usage"]["cache_read_input_tokens"], message["usage"]["output_tokens"]) == (99, 0)


# --- what breaks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        chunk(content=7),
        chunk(tool_calls=[{"index": 0, "id": "c"}]),
        chunk(tool_calls=[{"index": 10**9, "id": "c", "function": {"name": "f"}}]),
        b"data: [1]\n\n",
    ],
)
def test_what_has_no_form_is_a_failure_after_what_came_before_it(bad: bytes) -> None:
    translate = MessageStream()
    out = translate.feed(chunk(content="a") + bad + chunk(content="b"))
    assert translate.failure is not None
    assert translate.failure.cause is Cause.MALFORMED
    assert [event["type"] for event in events_of(out)][-1] == "content_block_delta"
    assert translate.feed(chunk(content="c")) == b""


def test_a_call_that_comes_back_after_its_end_is_a_failure() -> None:
    translate = MessageStream()
    for at in (0, 1):
        translate.feed(chunk(tool_calls=[{"index": at, "id": f"c{at}", "function": {"name": "f", "arguments": "{"}}]))
    assert translate.failure is None
    translate.feed(chunk(tool_calls=[{"index": 0, "function": {"arguments": ""}}]))
    assert translate.failure is None
    translate.feed(chunk(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]))
    assert translate.failure is not None


@pytest.mark.parametrize("arguments", ["{", "[]", "7", "null"])
def test_arguments_that_are_no_object_are_no_whole_answer(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(BadStream):
        whole(json.dumps({"choices": [{"message": {"tool_calls": [call]}}]}).encode())


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"choices":[]}', b'{"choices":[{"message":7}]}'])
def test_what_is_no_answer_is_none_in_any_dialect(body: bytes) -> None:
    with pytest.raises(BadStream):
        whole(body)
    translate = WholeMessage(0)
    translate.feed(body)
    assert translate.end() == b""
    assert translate.failure is not None


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: {}\n\n", b'data: {"type":"message_stop"}\n\n'])))
def test_no_bytes_break_a_translator(stream: list[bytes]) -> None:
    outward(*stream)
    inward(*stream)


def test_an_engines_error_event_is_a_failure_in_its_own_words() -> None:
    translate = EventStream(0)
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    translate.feed(b"event: error\n" + frame(overloaded))
    assert translate.failure is not None
    assert (translate.failure.cause, translate.failure.message) == (Cause.ERROR_EVENT, "reported an error: Overloaded")


def test_an_engines_error_is_told_in_its_words_also_with_half_a_surrogate_pair() -> None:
    translate = EventStream(0)
    translate.feed(rb'data: {"type":"error","error":{"type":"api_error","message":"boom \ud83d"}}' + b"\n\n")
    assert translate.failure is not None
    assert translate.failure.cause is Cause.ERROR_EVENT
    assert "boom" in translate.failure.message


def test_an_event_beyond_any_bound_is_a_failure() -> None:
    translate = EventStream(0)
    translate.feed(b"data: " + b"x" * (FRAME_BYTES_MAX + 1))
    assert translate.failure is not None
    assert translate.failure.cause is Cause.TOO_LARGE


def test_events_of_a_kind_that_came_later_are_passed_over() -> None:
    out = outward(chunk(content="a"), chunk(finish="stop"))
    assert inward(b'event: new\ndata: {"type":"new"}\n\n' + out) == inward(out)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_an_error_has_the_type_of_its_status(status: int, kind: str) -> None:
    body = json.loads(Messages().error_body(status, "no", "api_error", None, None))
    assert body == {"type": "error", "error": {"type": kind, "message": "no"}}
    assert json.loads(error_body(status, "no")) == body
    if kind != "request_too_large":
        assert ErrorResponse.model_validate({**body, "request_id": None}).error.type == kind


def test_a_code_that_the_vendors_sdks_look_for_stands_in_an_errors_details() -> None:
    body = json.loads(Messages().error_body(400, "no", "invalid_request_error", "thread", "thread_unsupported_request"))
    assert body["error"].pop("details") == {"error_code": "thread_unsupported_request"}
    assert body == json.loads(Messages().error_body(400, "no", "invalid_request_error", "model", "model_not_found"))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("exceeds the available context size (8192)", "prompt is too long: exceeds the available context size (8192)"),
        ("The prompt is too long: about 9 tokens", "The prompt is too long: about 9 tokens"),
        ("prompt is too long: 210000 tokens > 200000 maximum", "prompt is too long: 210000 tokens > 200000 maximum"),
    ],
)
def test_that_a_prompt_is_too_long_is_told_in_the_words_that_claude_code_knows(message: str, told: str) -> None:
    """It makes its conversation shorter at these alone, and else gives up."""
    code = "context_length_exceeded"
    body = json.loads(Messages().error_body(400, message, "invalid_request_error", "messages", code))
    (event,) = events_of(MessageStream().error(message, "invalid_request_error", code))
    assert body["error"] == event["error"] == {"type": "invalid_request_error", "message": told}
    other = json.loads(Messages().error_body(400, message, "invalid_request_error", None, "model_not_found"))
    assert other["error"]["message"] == message


# As the gateway, OpenAI, vLLM and SGLang say it: the prompt, what is asked for, the window, and their sum.
TOO_MUCH = [
    "The input length and `max_tokens` exceed context limit: {0} + {1} > {2}",
    "This model's maximum context length is {2} tokens. However, you requested {3} tokens ({0} in the messages, {1} in "
    "the completion)",
    "'max_tokens' or 'max_completion_tokens' is too large: {1}. This model's maximum context length is {2} tokens and "
    "your request has {0} input tokens ({1} > {2} - {0})",
    "Requested token count exceeds the model's maximum context length of {2} tokens. You requested a total of {3} "
    "tokens: {0} tokens from the input messages and {1} tokens for the completion",
]
# As llama.cpp and SGLang say it of a prompt alone.
TOO_LONG = [
    "request ({0} tokens) exceeds the available context size ({1} tokens)",
    "The input ({0} tokens) is longer than the model's context length ({1} tokens)",
]


def told_of(message: str) -> str:
    """What is said of it, without the rest of the message."""
    body = json.loads(error_body(400, f"{message}; so it is.", "context_length_exceeded"))
    words: str = body["error"]["message"]
    assert words.endswith("; so it is.")
    return words.removesuffix("; so it is.")


@pytest.mark.parametrize("words", TOO_MUCH)
def test_of_a_prompt_that_fits_it_is_said_in_which_words_claude_code_reads_how_much_less_to_ask_for(words: str) -> None:
    told = told_of(words.format(17_000, 32_000, 32_768, 49_000))
    assert told == "input length and `max_tokens` exceed context limit: 17000 + 32000 > 32768"


@pytest.mark.parametrize("words", TOO_MUCH)
def test_a_prompt_that_leaves_no_room_for_an_answer_is_too_long(words: str) -> None:
    """With less left than that, Claude Code asks for no less and makes nothing shorter, where only that is said."""
    told = told_of(words.format(28_769, 32_000, 32_768, 60_769))
    assert told == "prompt is too long: 28769 tokens > 28768 maximum, with room for an answer"
    assert told_of(words.format(28_768, 32_000, 32_768, 60_768)).startswith("input length")
    assert told_of(words.format(40_000, 9, 32_768, 40_009)) == "prompt is too long: 40000 tokens > 32768 maximum"


@pytest.mark.parametrize("words", TOO_LONG)
def test_how_much_too_long_a_prompt_is_stands_where_claude_code_reads_it(words: str) -> None:
    assert told_of(words.format(40_000, 32_768)) == "prompt is too long: 40000 tokens > 32768 maximum"


def test_so_does_what_the_gateway_says_of_it_itself() -> None:
    window = ", and this model's maximum context length is 32768"
    told = told_of("The prompt is too long: about 40000 tokens" + window)
    assert told == "prompt is too long: 40000 tokens > 32768 maximum" + window


def test_an_answer_to_who_only_fills_a_cache_is_empty() -> None:
    counts = {"input_tokens": 9, "output_tokens": 0, "cache_creation_input_tokens": 90}
    answer = {"type": "message", "id": "1", "content": [], "stop_reason": "max_tokens", "usage": counts}
    made = json.loads(relayed(WholeMessage(0), json.dumps(answer).encode(), stream=False))
    assert (made["content"], made["stop_reason"]) == ([], "max_tokens")
    assert {name: made["usage"][name] for name in counts} == counts


def test_an_error_in_mid_stream_is_its_last_event() -> None:
    (event,) = events_of(MessageStream().error("gone", "api_error", "upstream_error"))
    assert event == {"type": "error", "error": {"type": "api_error", "message": "gone"}}
    (event,) = events_of(MessageStream().error("slow", "api_error", "upstream_timeout"))
    assert event["error"]["type"] == "timeout_error"
