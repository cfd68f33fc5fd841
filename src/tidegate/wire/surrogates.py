"""Half of a surrogate pair, alone: JSON may have it (RFC 8259, section 8.2), engines whose tokens end within a letter
send it, and the decoder refuses all that it stands in."""

import re
from typing import Final

_REPLACEMENT: Final = rb"\ufffd"
# One, or a pair, behind the escaped backslashes that may stand before it.
_SURROGATE: Final = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u[dD]"
    rb"(?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})"
)


def replace_lone_surrogates(data: bytes) -> bytes:
    """The same JSON with U+FFFD in place of each; all else stands where it stood.

    Of a pair whose halves came in two chunks both are replaced: apart, neither is a letter.
    """
    return _SURROGATE.sub(_replaced, data)


def _replaced(found: re.Match[bytes]) -> bytes:
    return found[1] + _REPLACEMENT if found[2] is None else found[0]
