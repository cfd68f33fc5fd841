"""JSON with its long strings cut out, for a second look: a decoder looks at each byte of a string, also of one that it
passes by, and that of an image or a long text holds nothing to see. To find where it ends takes a tenth of that."""

import re
from secrets import token_hex
from typing import Final

# A smaller body is looked at again as quickly as its outline is made.
OUTLINED_BYTES_MIN: Final = 16 * 1024
_STRING_BYTES_MIN: Final = 1024
# So many quotes are looked at, one in so many bytes: where there are more, the rest is sooner looked at byte by byte.
_BYTES_PER_QUOTE: Final = 1024
_BACKSLASH: Final = ord("\\")
# Nobody outside can write this. It is longer than any name that is looked at may be: what was too long still is.
_NAME: Final = token_hex(160).encode()
_CUT: Final = re.compile(_NAME + rb":([0-9]+):")


def outline(body: bytes) -> bytes:
    """The same JSON, which must be sound, with something short in place of long strings."""
    kept, done = list[bytes](), 0
    begin, at = -1, -1  # of the string that has begun, and of the quote before
    for _ in range(len(body) // _BYTES_PER_QUOTE):
        at = body.find(b'"', at + 1)
        if at < 0:
            break
        if begin < 0:
            begin = at
        elif body[at - 1] != _BACKSLASH or not _is_escaped(body, at):
            size = at - begin - 1
            if size >= _STRING_BYTES_MIN:
                kept += (body[done : begin + 1], b"%b:%d:" % (_NAME, size))
                done = at
            begin = -1
    kept.append(body[done:])
    return b"".join(kept)


def whole_bytes(part: bytes | memoryview) -> int:
    """How long a part of an outline was in what it is an outline of."""
    return len(part) + sum([int(cut[1]) - len(cut[0]) for cut in _CUT.finditer(part)])


def _is_escaped(body: bytes, at: int) -> bool:
    """Whether an odd number of backslashes stands before it."""
    before = at - 1
    while body[before] == _BACKSLASH:
        before -= 1
    return (at - before) % 2 == 0
