"""What operators have changed: the lines of a file beside the journal."""

from typing import Any, Final

from tidegate.core.model import Record

FILE: Final = "changes.jsonl"
FILE_BYTES_MAX: Final = 1024 * 1024  # some thousand changes; what is older is in a backup, or nobody asks any more


class Setting(Record, frozen=True, kw_only=True):
    """One that differs: by its path, what it was and what it is.

    `at_restart`: a running gateway goes on with the one before. It is written down where it is so.
    """

    path: str
    before: Any
    after: Any
    at_restart: bool = False


class Changed(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One change: who wanted what, what that came to, and whether it is in force."""

    at_s: float
    who: str
    what: str
    changes: tuple[Setting, ...]
    applied: bool
