"""What each fault puts on the wire: pure scripts of bytes and pauses, which `chaos` plays to whoever asks.

A script that ends leaves the connection open for the next request, unless its last step says otherwise.
"""

import gzip
from collections.abc import Iterator
from email.utils import formatdate
from enum import Enum, auto

import msgspec

from tidegate.core.model import Record
from tidegate.engines.faults import Fault
from tidegate.engines.words import DONE, Words, event

JSON = b"application/json"
_EVENTS = b"text/event-stream"
_HTML = b"text/html"
_PAGE = b"<html><body><h1>Bad Gateway</h1></body></html>"
_HALF = b'{"id": "fake-1", "choices": [{"message"'
_ERROR = {"error": {"message": "out of memory", "type": "server_error", "param": None, "code": None}}
RETRY_AFTER_S = 2
# Twice what the largest answer may have; who takes in more than this has no bound.
HUGE_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 64 * 1024


class Then(Enum):
    """How a script ends that does not leave the connection as it was."""

    CLOSE = auto()  # closes it, whatever was promised
    STALL = auto()  # neither goes on nor closes


Step = bytes | float | Then
"""Bytes to send, seconds to wait, or an end."""


class Pace(Record, frozen=True, kw_only=True):
    """How long an answer is, and how fast it comes."""

    tokens: int = 8
    tokens_good: int = 2  # those before a fault that comes after content
    token_s: float = 0.05
    trickle_s: float = 1.0
    comment_s: float = 1.0


class Asked(Record, frozen=True, kw_only=True):
    """What a script is played for."""

    words: Words
    streamed: bool
    now_s: float


def respond(status: int, kind: bytes, body: bytes, *headers: bytes) -> bytes:
    """A whole response that is in order; `headers` are lines without their end."""
    return _head(status, kind, *headers, b"content-length: %d" % len(body)) + body


def play(fault: Fault | None, asked: Asked, pace: Pace) -> Iterator[Step]:
    """The steps that answer a request by this fault, or in good order where there is none."""
    if fault is not None and fault.status is not None:
        return _refusal(fault, fault.status, asked.now_s)
    if fault in _SILENCES:
        return _silence(fault, asked, pace)
    if fault in _INSTEAD:
        return _instead(fault, asked, pace)
    if fault in _LATER:
        return _later(fault, asked, pace)
    return _answer(fault, asked, pace)


_SILENCES = (Fault.SILENT, Fault.HEAD_ONLY, Fault.COMMENTS, Fault.STALL)
_INSTEAD = (Fault.HTML, Fault.EMPTY, Fault.GZIP)
_LATER = (
    Fault.STALL_LATER,
    Fault.CUT,
    Fault.UNFINISHED,
    Fault.HALF_BODY,
    Fault.MALFORMED,
    Fault.ERROR_EVENT,
    Fault.HUGE_FRAME,
)


def _head(status: int, kind: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d Status" % status, b"content-type: " + kind, *headers]
    return b"\r\n".join([*lines, b"", b""])


def _begin(asked: Asked) -> bytes:
    """The head of an answer that is in order so far."""
    return _head(200, _EVENTS if asked.streamed else JSON, b"transfer-encoding: chunked")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


_LAST_CHUNK = b"0\r\n\r\n"


def _refusal(fault: Fault, status: int, now_s: float) -> Iterator[Step]:
    """An error of HTTP, in the words of those who say it."""
    headers: tuple[bytes, ...] = ()
    if fault is Fault.STATUS_429_SECONDS:
        headers = (b"retry-after: %d" % RETRY_AFTER_S,)
    elif fault is Fault.STATUS_429_DATE:
        # A date has whole seconds: rounded up, it is never over before it is read.
        headers = (b"retry-after: " + formatdate(int(now_s) + RETRY_AFTER_S + 1, usegmt=True).encode(),)
    elif fault is Fault.STATUS_429_MS:
        headers = (b"retry-after-ms: %d" % (RETRY_AFTER_S * 1000),)
    if fault is Fault.STATUS_502:
        yield respond(status, _HTML, _PAGE)
        return
    told: dict[str, object] = {"message": f"this is {status}", "type": "made_up_error", "param": None, "code": None}
    if fault is Fault.STATUS_529:
        told = {"type": "overloaded_error", "message": "Overloaded"}
    yield respond(status, JSON, msgspec.json.encode({"type": "error", "error": told}), *headers)


def _silence(fault: Fault, asked: Asked, pace: Pace) -> Iterator[Step]:
    """Nothing that a user waits for ever comes."""
    if fault is not Fault.SILENT:
        yield _begin(asked)
    if fault is Fault.STALL and asked.streamed:
        yield _chunk(asked.words.role())
    while fault is Fault.COMMENTS:
        # Whoever counts any byte as life waits for ever; DeepSeek sends blank lines where nothing is streamed.
        yield _chunk(b": keep-alive\n\n" if asked.streamed else b"\n")
        yield pace.comment_s
    yield Then.STALL


def _instead(fault: Fault, asked: Asked, pace: Pace) -> Iterator[Step]:
    """200, and something else than an answer."""
    kind = _EVENTS if asked.streamed else JSON
    if fault is Fault.HTML:
        yield respond(200, _HTML, _PAGE)
    elif fault is Fault.EMPTY:
        yield respond(200, kind, b"")
    else:
        yield respond(200, kind, gzip.compress(_good(asked, pace)), b"content-encoding: gzip")


def _good(asked: Asked, pace: Pace) -> bytes:
    """A whole body that is in order."""
    if asked.streamed:
        return b"".join(_frames(None, asked, pace))
    return asked.words.whole(pace.tokens, asked.words.usage(pace.tokens))


def _later(fault: Fault, asked: Asked, pace: Pace) -> Iterator[Step]:
    """A beginning that is in order, and what goes wrong then."""
    words, good = asked.words, pace.tokens_good
    if fault is Fault.HALF_BODY:
        body = _good(asked, pace)
        yield _head(200, _EVENTS if asked.streamed else JSON, b"content-length: %d" % len(body))
        # The first half of a stream is cut behind a frame, where only the length tells.
        yield b"".join([words.role(), *map(words.token, range(1, good + 1))]) if asked.streamed else _HALF
        yield Then.CLOSE
        return
    yield _begin(asked)
    if asked.streamed:
        yield _chunk(words.role())
        for number in range(1, good + 1):
            yield pace.token_s
            yield _chunk(words.token(number))
    elif fault is not Fault.ERROR_EVENT:
        yield _chunk(_HALF)
    if fault in (Fault.STALL_LATER, Fault.CUT):
        yield Then.CLOSE if fault is Fault.CUT else Then.STALL
        return
    match fault:
        case Fault.MALFORMED:
            yield _chunk(b'data: {"choices": [{"delta"\n\n' if asked.streamed else b"}")
        case Fault.ERROR_EVENT:
            yield _chunk(event(_ERROR) if asked.streamed else msgspec.json.encode(_ERROR))
        case Fault.HUGE_FRAME:
            yield _chunk(b'data: {"choices": [{"index": 0, "delta": {"content": "' if asked.streamed else b': "')
            for _ in range(HUGE_BYTES // _PIECE_BYTES):
                yield _chunk(b"x" * _PIECE_BYTES)
    yield _LAST_CHUNK


def _answer(fault: Fault | None, asked: Asked, pace: Pace) -> Iterator[Step]:
    """A complete answer, with a harmless oddity or with none."""
    token_s = pace.trickle_s if fault is Fault.TRICKLE else pace.token_s
    tokens = 0 if fault is Fault.WORDLESS else pace.tokens
    if not asked.streamed:
        usage = asked.words.usage(tokens)
        if fault is Fault.USAGE_ZERO:
            usage = dict.fromkeys(usage, 0)
        yield token_s * tokens
        yield respond(200, JSON, asked.words.whole(tokens, None if fault is Fault.USAGE_MISSING else usage))
        return
    yield _begin(asked)
    for frame in _frames(fault, asked, pace):
        yield _chunk(frame)
        yield token_s
    yield _LAST_CHUNK


def _frames(fault: Fault | None, asked: Asked, pace: Pace) -> Iterator[bytes]:
    """The frames of a stream that is complete."""
    words = asked.words
    tokens = 0 if fault is Fault.WORDLESS else pace.tokens
    usage = words.usage(tokens)
    yield words.role()
    for number in range(1, tokens + 1):
        yield words.token(number)
    yield words.finish(usage if fault is Fault.USAGE_WITH_CHOICES else None)
    if fault is Fault.USAGE_ZERO:
        yield words.usage_frame(dict.fromkeys(usage, 0))
    elif fault not in (Fault.USAGE_MISSING, Fault.USAGE_WITH_CHOICES):
        yield words.usage_frame(usage)
    if fault is not Fault.DONE_MISSING:
        yield DONE
    if fault is Fault.DONE_TWICE:
        yield DONE
