from typing import Any

import msgspec
import pytest

from tests.wire.streams import HEAD, USAGE, recorded
from tidegate.wire.chunks import ANSWER_BYTES_MAX, Usage
from tidegate.wire.sse import Cause
from tidegate.wire.whole import WholeReader


def read(body: bytes) -> WholeReader:
    reader = WholeReader()
    assert reader.feed(body[:10]) == b""
    assert reader.feed(body[10:]) == b""
    assert not reader.content
    assert reader.end() == b""
    return reader


def test_an_answer_passes_untouched_and_tells_its_usage() -> None:
    body = recorded("chat")
    reader = read(body)
    assert reader.result() == body
    assert reader.result() is reader.result()
    assert reader.content
    assert reader.done
    assert reader.usage == Usage(prompt_tokens=32, output_tokens=8, cached_tokens=24)


def test_what_gemini_has_thought_is_counted() -> None:
    usage = {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 105}
    body = msgspec.json.encode({**HEAD, "choices": [{"index": 0, "message": {"content": "a"}}], "usage": usage})
    assert read(body).usage == Usage(prompt_tokens=9, output_tokens=96, reasoning_tokens=93)


def test_a_text_completion_is_an_answer_too() -> None:
    body = msgspec.json.encode({**HEAD, "choices": [{"index": 0, "text": "a"}], "usage": USAGE})
    assert read(body).content


def test_half_a_surrogate_pair_passes_as_it_came() -> None:
    body = rb'{"choices":[{"index":0,"message":{"content":"a\ud83d"}}]}'
    assert read(body).result() == body


def test_a_byte_order_mark_before_an_answer_is_dropped() -> None:
    assert read(b"\xef\xbb\xbf" + recorded("chat")).result() == recorded("chat")


def test_an_answer_without_content_is_an_answer() -> None:
    body = msgspec.json.encode({**HEAD, "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}]})
    assert read(body).done
    assert not read(body).content


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"", Cause.MALFORMED),
        (b"<html>busy</html>", Cause.MALFORMED),
        (b'{"choices":[{"index":0,"mess', Cause.MALFORMED),
        (b'{"choices":[]}', Cause.MALFORMED),
        (b"{}", Cause.MALFORMED),
        (b'{"error":{"message":"boom"}}', Cause.ERROR_EVENT),
        (b"[" * 100_000, Cause.MALFORMED),
    ],
)
def test_what_is_no_answer_is_a_failure(body: bytes, cause: Cause) -> None:
    reader = read(body)
    assert not reader.done
    assert reader.failure is not None
    assert reader.failure.cause is cause


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ({"finish_reason": "insufficient_system_resource"}, "insufficient_system_resource"),
        ({"finish_reason": "abort"}, "abort"),
        ({"finish_reason": "error", "error": {"code": 502, "message": "Upstream gone"}}, "Upstream gone"),
        ({"finish_reason": "error", "error": "Upstream gone"}, "Upstream gone"),
        ({"finish_reason": None, "error": True}, "no message"),
    ],
)
@pytest.mark.parametrize("text", ["", "Once upon"])
def test_an_answer_that_its_engine_broke_off_is_a_failure_and_its_usage_counts(
    ending: dict[str, Any], told: str, text: str
) -> None:
    good = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "error": None}
    bad = {"index": 1, "message": {"content": text}, **ending}
    reader = read(msgspec.json.encode({**HEAD, "choices": [good, bad], "usage": USAGE}))
    assert reader.failure is not None
    assert reader.failure.cause is Cause.ERROR_EVENT
    assert told in reader.failure.message
    assert (reader.done, reader.finished, reader.content) == (False, False, False)
    assert reader.usage == Usage(prompt_tokens=9, output_tokens=2, cached_tokens=4)


def test_an_answer_beyond_its_bound_is_a_failure() -> None:
    reader = WholeReader()
    reader.feed(b" " * (ANSWER_BYTES_MAX + 1))
    assert reader.failure is not None
    assert reader.failure.cause is Cause.TOO_LARGE
