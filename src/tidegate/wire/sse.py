"""Server-sent events: bytes to frames, whatever pieces they come in."""

import re
from enum import StrEnum
from typing import Final

from tidegate.wire.errors import ErrorInfo

# A chunk is a few hundred bytes; a tool call in one piece or a second of audio reaches some hundred KiB, an image some
# MiB: half of what an answer given whole may have. An open stream may take several times that: one that is translated
# is split into frames up to four times over, what a frame is decoded to is larger than it was, and behind all stands
# what its client has not taken yet.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024

DONE = b"[DONE]"
DONE_FRAME = b"data: [DONE]\n\n"

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Where no frame has begun, in many streams at once: nothing is put into it.
_NOTHING: Final = bytearray()
_BLANK_LINE = re.compile(rb"\n\r?\n")
# llama.cpp before late 2025 sent `error: {...}` where the others send `data: {"error": {...}}`.
_DATA_LINE = re.compile(rb"^(?:data|error)(?::([^\n]*))?$", re.MULTILINE)


class Cause(StrEnum):
    """Why a stream cannot be trusted any further."""

    MALFORMED = "malformed_chunk"
    TRUNCATED = "truncated_stream"
    TOO_LARGE = "oversized_answer"
    ERROR_EVENT = "error_event"
    NO_FORM = "no_form"  # the client's dialect has none for what was answered


class BadStream(Exception):
    """The stream broke. `message` continues the words "the endpoint"; `error` is what it said itself, if it did."""

    def __init__(self, cause: Cause, message: str, error: ErrorInfo | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.error = error

    def kept(self) -> "BadStream":
        """Itself, to be kept. Its traceback, and that of what it came from, would tie who keeps it to itself, and so to
        all of a request, until garbage is collected.
        """
        self.__traceback__ = self.__context__ = None
        return self


class Frames:
    r"""Splits a stream into frames, each with the blank line that ends it.

    Lines end in `\n` or `\r\n`; a lone `\r`, which the standard allows and nobody sends, does not end one. A byte order
    mark before the first, as .NET's writers and some proxies put there, is dropped, as the standard has it.
    `oversized` is set once a frame is beyond its bound: what came before it is still returned, nothing after.
    """

    __slots__ = ("_begun", "_pending", "oversized")

    def __init__(self) -> None:
        self._begun = False
        self._pending = _NOTHING
        self.oversized = False

    @property
    def pending(self) -> bytes:
        """The bytes of a frame that has not ended yet."""
        return bytes(self._pending)

    @property
    def between(self) -> bool:
        """Whether the next byte begins a frame."""
        return not self._pending and not self.oversized

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes."""
        if not self._begun:
            data = self._begin(data)
        return [data] if self.is_one(data) else self._split(data)

    def is_one(self, data: bytes) -> bool:
        """Whether `data`, next in the stream, is one whole frame of one line, as nearly every read is."""
        size = len(data)
        return data.find(b"\n") == size - 2 and data.endswith(b"\n\n") and size <= FRAME_BYTES_MAX and self.between

    def _begin(self, data: bytes) -> bytes:
        """The first bytes of the stream without the mark; none while so few have come that they may be part of it."""
        first = self.pending + data
        self._begun = len(first) >= len(BYTE_ORDER_MARK) or not BYTE_ORDER_MARK.startswith(first)
        self._pending = _NOTHING if self._begun else bytearray(first)
        return first.removeprefix(BYTE_ORDER_MARK) if self._begun else b""

    def _split(self, data: bytes) -> list[bytes]:
        if self.oversized:
            return []
        pending = self._pending
        # A blank line may straddle the seam; what lies before it has been searched.
        searched = max(0, len(pending) - 2)
        read: bytes | bytearray = data
        if pending:
            pending += data
            read = pending
        frames: list[bytes] = []
        start = 0
        for blank in _BLANK_LINE.finditer(read, searched):
            end = blank.end()
            if end - start > FRAME_BYTES_MAX:
                break
            frames.append(bytes(read[start:end]))
            start = end
        if start or not pending:
            self._pending = bytearray(read[start:]) if start < len(read) else _NOTHING
        if len(self._pending) > FRAME_BYTES_MAX:
            self.oversized = True
            self._pending = _NOTHING
        return frames


def data_of(frame: bytes) -> bytes | None:
    """What a frame carries; None for comments and other frames without data, empty where it stands for nothing."""
    if frame.startswith(b"data: {") and frame.find(b"\n") == len(frame) - 2:
        return frame[6:-2]
    # Not by splitting it: of a frame of millions of lines, only those that count are to be had.
    found: list[bytes] = _DATA_LINE.findall(frame)
    data = b"\n".join(found).strip() if found else None
    # llama.cpp begins the answer to several prompts with it.
    return b"" if data == b"null" else data
