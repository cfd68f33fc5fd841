"""The audit log, to be read: what operators have changed, the latest first."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from tidegate.core.model import Record
from tidegate.wire.changes import FILE, FILE_BYTES_MAX, Changed

LIMIT_MAX: Final = 1000


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many of them."""

    limit: int = 100


class Changes(Record, frozen=True, kw_only=True, omit_defaults=False):
    """So many of them."""

    changes: tuple[Changed, ...]


def changes(folder: Path, limit: int) -> Changes:
    """Those in the file there; none where there is none. A line that is no change is passed over."""
    lines: list[bytes] = []
    with suppress(OSError), (folder / FILE).open("rb") as file:
        lines = file.read(2 * FILE_BYTES_MAX).splitlines()
    found: list[Changed] = []
    for line in reversed(lines):
        if len(found) >= min(max(1, limit), LIMIT_MAX):
            break
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            found.append(msgspec.json.decode(line, type=Changed))
    return Changes(changes=tuple(found))
