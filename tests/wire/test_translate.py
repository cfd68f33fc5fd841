"""A reader around a reader: what an attempt sees of an engine and a client that speak other dialects."""

import json
from typing import Any

import pytest

from tests.wire.hub import asked
from tests.wire.streams import DONE, PING, ROLE, STOP, USAGE, USAGE_FRAME, chunk
from tidegate.wire.anthropic.answer import MessageStream
from tidegate.wire.anthropic.client import Messages
from tidegate.wire.anthropic.inward import EventStream, WholeMessage
from tidegate.wire.chunks import Usage
from tidegate.wire.openai import Call
from tidegate.wire.sse import Cause
from tidegate.wire.stream import Reader, StreamReader
from tidegate.wire.translate import Translated, reader
from tidegate.wire.whole import WholeReader

PLAIN = ROLE + chunk(content="Hel") + chunk(content="lo") + STOP + USAGE_FRAME + DONE
WHOLE = json.dumps(
    {"id": "1", "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}], "usage": USAGE}
).encode()


def now_s() -> float:
    return 1.0


def call(*, stream: bool) -> Call:
    return asked({"messages": [{"role": "user", "content": "hi"}], "stream": stream})


def events(stream: bytes) -> bytes:
    """The same answer as an engine of the other dialect gives it."""
    translate = MessageStream()
    return translate.feed(stream) + translate.end()


def read(made: Reader, data: bytes) -> bytes:
    return made.feed(data) + made.end()


def test_a_client_of_the_hub_and_an_engine_of_the_hub_need_no_translation() -> None:
    assert isinstance(reader(call(stream=True), streamed=True, now_s=now_s), StreamReader)
    assert isinstance(reader(call(stream=False), streamed=False, now_s=now_s), WholeReader)


def test_nothing_passes_before_content_and_the_ending_waits_for_the_books() -> None:
    made = reader(call(stream=True), streamed=True, client=Messages(), now_s=now_s)
    assert made.feed(PING + ROLE) == b""
    assert not made.content
    out = made.feed(chunk(content="Hello"))
    assert made.content
    assert b"message_start" in out
    assert made.done_frame == b""
    out += made.feed(STOP + USAGE_FRAME + DONE)
    assert made.done
    assert b"message_stop" not in out
    assert made.done_frame.endswith(b'data: {"type":"message_stop"}\n\n')
    assert made.done_frame == made.done_frame
    assert made.usage is not None
    assert made.usage.cached_tokens == 4
    assert (made.output_chunks, made.finished) == (1, True)
    assert made.feed(chunk(content="more")) == made.end() == b""


def test_the_usage_reaches_a_client_whose_dialect_always_tells_it() -> None:
    made = reader(call(stream=True), streamed=True, client=Messages(), now_s=now_s)
    read(made, PLAIN)
    assert b'"input_tokens":5' in made.done_frame
    assert b'"cache_read_input_tokens":4' in made.done_frame


@pytest.mark.parametrize("streamed", [True, False])
def test_a_whole_answer_is_in_the_clients_dialect_however_the_engine_gave_it(streamed: bool) -> None:
    made = reader(call(stream=False), streamed=streamed, client=Messages(), now_s=now_s)
    assert read(made, PLAIN if streamed else WHOLE) == b""
    assert made.done
    assert isinstance(made, Translated)
    message = json.loads(made.result())
    assert message["content"] == [{"type": "text", "text": "Hello"}]
    assert message["usage"]["output_tokens"] == 2


def test_an_engine_of_another_dialect_reads_as_one_of_the_hub() -> None:
    made = reader(call(stream=True), streamed=True, engine=EventStream(0), now_s=now_s)
    out = read(made, events(PLAIN))
    assert made.done
    assert made.done_frame == DONE
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.output_tokens) == (9, 2)
    texts = [json.loads(line[6:])["choices"][0]["delta"].get("content") for line in out.split(b"\n\n") if line]
    assert "".join(text or "" for text in texts) == "Hello"


def test_what_an_engine_told_of_the_prompt_is_known_of_an_answer_that_is_cut() -> None:
    made = reader(call(stream=True), streamed=True, engine=EventStream(0), now_s=now_s)
    counts = {"input_tokens": 5, "cache_read_input_tokens": 4_000, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "1", "type": "message", "usage": counts}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}
    for event in (start, delta):
        made.feed(b"data: %b\n\n" % json.dumps(event).encode())
    assert made.usage == Usage(prompt_tokens=4_005, cached_tokens=4_000, cache_write_tokens=0)


@pytest.mark.parametrize("stream", [True, False])
def test_both_sides_may_speak_another_dialect(stream: bool) -> None:
    engine: Any = EventStream(0) if stream else WholeMessage(0)
    made = reader(call(stream=stream), streamed=stream, engine=engine, client=Messages(), now_s=now_s)
    body = {"type": "message", "id": "1", "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn"}
    out = read(made, events(PLAIN) if stream else json.dumps(body).encode())
    assert made.done
    assert isinstance(made, Translated)
    assert b"Hel" in (out if stream else made.result())


def test_an_engine_that_leaves_out_its_last_word_has_told_its_usage() -> None:
    made = reader(call(stream=True), streamed=True, engine=EventStream(0), now_s=now_s)
    read(made, events(PLAIN).partition(b"event: message_stop")[0])
    assert made.done
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.output_tokens) == (9, 2)


def test_an_answer_that_is_cut_is_a_failure_and_has_no_ending() -> None:
    made = reader(call(stream=True), streamed=True, engine=EventStream(0), client=Messages(), now_s=now_s)
    read(made, events(PLAIN).partition(b"event: message_delta")[0])
    assert made.failure is not None
    assert made.failure.cause is Cause.TRUNCATED
    assert not made.done
    assert made.done_frame == b""


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_without_a_form_in_the_clients_dialect_is_a_failure(streamed: bool) -> None:
    made = reader(call(stream=False), streamed=streamed, client=Messages(), now_s=now_s)
    delta: dict[str, Any] = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{"}}]}
    whole = json.dumps({"choices": [{"message": delta, "finish_reason": "tool_calls"}]}).encode()
    read(made, chunk(**delta) + STOP + DONE if streamed else whole)
    assert made.failure is not None
    assert made.failure.cause is Cause.NO_FORM
    assert not made.done


def test_a_chunk_without_a_form_in_the_clients_dialect_is_a_failure() -> None:
    made = reader(call(stream=True), streamed=True, client=Messages(), now_s=now_s)
    out = made.feed(chunk(content="a") + chunk(content=["b"]))
    assert b"text_delta" in out
    assert made.failure is not None
    assert made.feed(STOP + DONE) == b""
    assert not made.done


def test_an_engines_failure_is_the_readers() -> None:
    made = reader(call(stream=True), streamed=True, engine=EventStream(0), now_s=now_s)
    made.feed(events(PLAIN)[:120] + b"\n\n" + b'data: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n')
    assert made.failure is not None
    assert made.end() == b""
