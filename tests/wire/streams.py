"""Streams as engines send them, and ways to cut them up."""

import json
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from tidegate.wire.stream import Reader

CASSETTES = Path(__file__).parent.parent / "engines" / "cassettes" / "llamacpp"

DONE = b"data: [DONE]\n\n"


def recorded(name: str) -> bytes:
    """The body that llama.cpp answered with."""
    body = msgspec.json.decode((CASSETTES / f"{name}.json").read_bytes())["response"]["body"]
    assert isinstance(body, str)
    return body.encode()


def frame(value: object) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(value)


def chunk(
    *, index: int = 0, finish: str | None = None, logprobs: object = None, usage: object = None, **delta: object
) -> bytes:
    """A chunk of a chat with one choice; further arguments make up its delta."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return frame({**HEAD, "choices": [choice], **({"usage": usage} if usage is not None else {})})


def text(piece: str, *, index: int = 0, finish: str | None = None) -> bytes:
    """A chunk of a text completion."""
    choice = {"index": index, "text": piece, "finish_reason": finish, "logprobs": None}
    return frame({**HEAD, "object": "text_completion", "choices": [choice]})


HEAD: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "m"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 4}}
USAGE_FRAME = frame({**HEAD, "choices": [], "usage": USAGE})
ROLE = chunk(role="assistant", content="")
STOP = chunk(finish="stop")
PING = b": ping\n\n"
ERROR = frame({"error": {"message": "boom", "type": "server_error", "param": None, "code": None}})

PLAIN = ROLE + chunk(content="Hel") + chunk(content="lo") + STOP + USAGE_FRAME + DONE

ALL: dict[str, bytes] = {
    "plain": PLAIN,
    "llama.cpp": recorded("chat_stream_usage"),
    "llama.cpp tool call": recorded("tool_call_stream"),
    "keep-alives": PING + PING + ROLE + PING + chunk(content="a") + PING + STOP + PING + USAGE_FRAME + DONE,
    "carriage returns": PLAIN.replace(b"\n\n", b"\r\n\r\n"),
    "other fields": PLAIN.replace(b"data: {", b"event: message\nid: 7\ndata: {"),
    "two choices": chunk(content="a") + chunk(content="b", index=1) + STOP + chunk(index=1, finish="stop") + DONE,
    "usage with a choice": ROLE + chunk(content="a") + chunk(finish="stop", usage=USAGE) + DONE,
    "empty": ROLE + STOP + USAGE_FRAME + DONE,
    "no done": ROLE + chunk(content="a") + STOP,
    "no last blank line": ROLE + chunk(content="a") + STOP + b"data: [DONE]",
    "two dones": ROLE + chunk(content="a") + STOP + DONE + DONE + chunk(content="b"),
    "cut": ROLE + chunk(content="a") + chunk(content="b")[:-9],
    "cut between chunks": ROLE + chunk(content="a"),
    "malformed": ROLE + chunk(content="a") + b"data: {oops}\n\n" + chunk(content="b") + DONE,
    "error": ROLE + chunk(content="a") + ERROR + DONE,
    "error at once": ERROR,
    "broken off": ROLE + chunk(content="a") + chunk(finish="insufficient_system_resource") + USAGE_FRAME + DONE,
    "done at once": ROLE + DONE,
    "nothing": b"",
    "reasoning": ROLE + chunk(reasoning_content="hm") + chunk(content="a") + STOP + DONE,
    "byte order mark": b"\xef\xbb\xbf" + chunk(content="Hel") + chunk(content="lo") + STOP + USAGE_FRAME + DONE,
    "blank lines": b"\n\n\n" + PLAIN.replace(b"\n\n", b"\n\n\n"),
    "not events": b"<html><body>Bad Gateway</body></html>",
    "text": text("a") + text("b", finish="length") + DONE,
    "null": b"data: null\n\n" + PLAIN,
}


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=30)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def relayed(reader: Reader, pieces: list[bytes]) -> bytes:
    """What a client gets of them, without the last frame."""
    passed = b"".join([reader.feed(piece) for piece in pieces])
    return passed + reader.end()


def facts(reader: Reader) -> tuple[object, ...]:
    """All that a reader tells."""
    failure = reader.failure and (reader.failure.cause, reader.failure.message)
    return (
        reader.content,
        reader.finished,
        reader.done,
        reader.done_frame,
        reader.usage,
        reader.output_chunks,
        reader.tokens_seen,
        failure,
    )


@st.composite
def flowing(draw: st.DrawFn) -> list[bytes]:
    """Frames of one text, and what may stand beside it: most differ in their text alone."""
    parts = ["a", "a" * 40, " ", "word", "é", '"', "\\", "\n", "\x7f", '{"content":"a"}', '"content":"', '"}]']
    texts = st.lists(st.sampled_from(parts), max_size=2).map("".join)
    notes: list[object] = [{"content": "a"}, {"content": "a" * 40}, '{"content":"a"}']
    beside = st.sampled_from([{}] * 6 + [{"usage": USAGE}] + [{"note": note} for note in notes])
    finishes, steady = st.sampled_from([None] * 6 + ["stop"]), draw(beside)
    keys = st.sampled_from(["content", "content", "reasoning_content", "reasoning", "text"])
    spaced, key = draw(st.booleans()), draw(keys)
    more: list[dict[str, object]] = [{"reasoning_content": "hm" * 9}, {"tool_calls": ["call" * 9]}]
    others = st.sampled_from([{}] * 6 + more)
    frames = [chunk(content="a")]
    for piece in draw(st.lists(texts, min_size=2, max_size=12)):
        text = draw(st.sampled_from([piece] * 6 + [[{"type": "text", "text": piece}]]))
        delta = {"text": text, **draw(others)} if key == "text" else {"delta": {key: text, **draw(others)}}
        choice = {"index": 0, **delta, "finish_reason": draw(finishes)}
        told = {**HEAD, **steady, **draw(beside), "choices": [choice]}
        frames.append(b"data: %b\n\n" % json.dumps(told).encode() if spaced else frame(told))
    return [*frames, *draw(st.sampled_from([[], [STOP, DONE], [b"data: {oops}\n\n"]]))]
