"""Half of a surrogate pair, alone: JSON may have it (RFC 8259, section 8.2), engines whose tokens end within a letter
send it, their clients send it back, and the decoder refuses all that it stands in."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from tidegate.wire.errors import UNREADABLE

_T = TypeVar("_T")
_REPLACEMENT: Final = rb"\\ufffd"  # as a template, where a backslash is written as two
# No text has as many, and to replace each takes time and memory: of what has more, which nobody can read, the rest is
# left as it is. To look for them takes as long as the text is.
HALVES_MAX: Final = 100_000
# A first half that no second follows, or a second that follows no first.
_HALF: Final = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
_ESCAPED: Final = rb"\\"
# In place of an escaped backslash, which does not escape what stands behind it. No JSON has such bytes.
_ASIDE: Final = b"\0\0"


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
    """The same JSON with U+FFFD in place of each, of `HALVES_MAX` at most; all else stands where it stood.

    Of a pair whose halves came in two chunks both are replaced: apart, neither is a letter.
    """
    if (rb"\ud" not in data and rb"\uD" not in data) or _ASIDE in data:
        return data
    return _HALF.sub(_REPLACEMENT, data.replace(_ESCAPED, _ASIDE), HALVES_MAX).replace(_ASIDE, _ESCAPED)
