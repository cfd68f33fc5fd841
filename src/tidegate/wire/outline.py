"""JSON with its long strings cut out, for a second look: a decoder looks at each byte of a string, also of one that it
passes by, and an image or a long text has nothing to see there. To find where it ends mostly takes a tenth of that."""

import re
from secrets import token_hex
from typing import Final

# A smaller body is looked at again as quickly as its outline is made.
OUTLINED_BYTES_MIN: Final = 16 * 1024
# Longer than any name that is looked at may be: 256 letters, each written as two escapes.
_STRING_BYTES_MIN: Final = 4096
# So many quotes are looked at, one in so many bytes: where there are more, the rest is sooner looked at byte by byte.
_BYTES_PER_QUOTE: Final = 1024
_BACKSLASH: Final = ord("\\")
# Nor are more backslashes in a row counted, before a quote.
_BACKSLASHES_MAX: Final = 32
# Nobody outside can write this. It, too, is longer than any name may be: what was too long still is.
_NAME: Final = token_hex(160).encode()
_CUT: Final = re.compile(_NAME + rb":([0-9]+):")


def outline(body: bytes) -> bytes:
    """The same JSON, which must be sound, with something short in place of long strings; itself where it has none."""
    kept, done, view = list[bytes | memoryview](), 0, memoryview(body)
    begin, at = -1, -1  # of the string that has begun, and of the quote before
    for _ in range(len(body) // _BYTES_PER_QUOTE):
        at = body.find(b'"', at + 1)
        if at < 0:
            break
        if begin < 0:
            begin = at
        else:
            backslashes = 0 if body[at - 1] != _BACKSLASH else _backslashes(body, at)
            if backslashes > _BACKSLASHES_MAX:
                break
            if backslashes % 2 == 0:
                size = at - begin - 1
                if size >= _STRING_BYTES_MIN:
                    kept += (view[done : begin + 1], b"%b:%d:" % (_NAME, size))
                    done = at
                begin = -1
    if not done:
        return body
    kept.append(view[done:])
    return b"".join(kept)


def whole_bytes(part: bytes | memoryview) -> int:
    """How long a part of an outline was in what it is an outline of."""
    return len(part) + sum([int(cut[1]) - len(cut[0]) for cut in _CUT.finditer(part)])


def _backslashes(body: bytes, at: int) -> int:
    """How many stand before it; of many, that there are more than are counted."""
    found = 0
    while found <= _BACKSLASHES_MAX and body[at - found - 1] == _BACKSLASH:
        found += 1
    return found
