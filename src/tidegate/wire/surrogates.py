"""Half of a surrogate pair, alone: JSON may have it (RFC 8259, section 8.2), engines whose tokens end within a letter
send it, and the decoder refuses all that it stands in."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from tidegate.wire.errors import UNREADABLE

_T = TypeVar("_T")
_REPLACEMENT: Final = rb"\ufffd"
# An escaped backslash, which does not escape what stands behind it; a pair; or half of one, which alone is a group.
_ESCAPE: Final = re.compile(
    rb"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def decoded(decode: Callable[[bytes], _T], data: bytes) -> _T:
    """What `decode` makes of JSON, with such halves replaced where it will not have them. Raises what that raises."""
    try:
        return decode(data)
    except UNREADABLE:
        readable = replace_lone_surrogates(data)
        if readable == data:
            raise
        return decode(readable)


def replace_lone_surrogates(data: bytes) -> bytes:
    """The same JSON with U+FFFD in place of each; all else stands where it stood.

    Of a pair whose halves came in two chunks both are replaced: apart, neither is a letter.
    """
    if rb"\ud" not in data and rb"\uD" not in data:
        return data
    # A copy of the same length: to cut a long text into its escapes takes many times its memory.
    replaced = bytearray(data)
    for found in _ESCAPE.finditer(data):
        if found[1] is not None:
            replaced[found.start() : found.end()] = _REPLACEMENT
    return bytes(replaced)
