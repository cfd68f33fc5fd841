"""How the head of a message is written, for requests and responses alike."""

import re
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from itertools import starmap
from typing import Final

Headers = Sequence[tuple[bytes, bytes]]

# Who frames the message decides these; a second one from above would let two readers disagree.
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection"))
_SPACE: Final = ord(" ")  # what else is white space of ASCII is below
_BREAKS_OUT = re.compile(rb"[\r\n\0]")
_BREAKS_TARGET = re.compile(rb"[^!-~]")
# Most heads say what an earlier one said, so most are looked at once: 0.3 us instead of 1 a field. The bound leaves
# room for the ones that differ to pass through. Now and then they take the others with them, which costs less than to
# know what was asked for last. Long ones are made anew: 1024 of what a client may send are 64 MB.
_KEPT_MAX: Final = 1024
_KEPT_BYTES_MAX: Final = 1024
_LINES: Final[dict[tuple[tuple[bytes, bytes], ...], bytes]] = {}
_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
# As short as most messages are: looked up instead of formatted.
_LENGTHS: Final = [b"content-length: %d\r\n" % size for size in range(4096)]


def status_line(status: int) -> bytes:
    """The first line of a response, also for codes without a registered phrase (529)."""
    known = _STATUS_LINES.get(status)
    return known if known is not None else b"HTTP/1.1 %d \r\n" % status


@lru_cache(maxsize=256)  # an upstream is asked for a handful of targets
def request_line(method: bytes, target: bytes) -> bytes:
    """The first line of a request. Raises `ValueError` for a target that would break out of it."""
    if _BREAKS_TARGET.search(target):
        raise ValueError("the target contains a space, a control or a non-ASCII character")
    return method + b" " + target + b" HTTP/1.1\r\n"


def trimmed(value: bytes) -> bytes:
    """Without white space around it. Nearly all have none, and to see that takes a quarter of what `strip` takes."""
    return value if value and value[0] > _SPACE and value[-1] > _SPACE else value.strip()


def content_length(size: int) -> bytes:
    """The header line that frames a body of so many bytes."""
    return _LENGTHS[size] if size < len(_LENGTHS) else b"content-length: %d\r\n" % size


def fields(headers: Headers) -> bytes:
    """Header lines, each with its line end.

    Raises `ValueError` for a name or value that would break out of its line, or that frames the message.
    """
    known = tuple(headers)
    lines = _LINES.get(known)
    if lines is None:
        lines = b"".join(starmap(_line, known))
        if len(lines) <= _KEPT_BYTES_MAX:
            if len(_LINES) >= _KEPT_MAX:
                _LINES.clear()
            _LINES[known] = lines
    return lines


def _line(name: bytes, value: bytes) -> bytes:
    line = name + b": " + value
    if _BREAKS_OUT.search(line):
        raise ValueError(f"header {name!r} contains CR, LF or NUL")
    if name.lower() in _FRAMING:
        raise ValueError(f"header {name!r} is set by the connection")
    return line + b"\r\n"
