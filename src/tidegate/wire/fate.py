"""What becomes of each field of a dialect on its way to the hub: nothing is dropped in silence."""

from collections.abc import Iterable
from enum import StrEnum

from tidegate.core.model import Record


class Fate(StrEnum):
    """Carried as it is, kept for an engine of the same dialect alone, set aside, or refused."""

    CARRIED = "carried"
    NATIVE = "native"
    SET_ASIDE = "set aside"
    REFUSED = "refused"


class Field(Record, frozen=True, kw_only=True):
    """One field by its path, and what is said of it in the reference."""

    path: str
    fate: Fate
    note: str


def carried(path: str, note: str) -> Field:
    """It says the same on the other side."""
    return Field(path=path, fate=Fate.CARRIED, note=note)


def native(path: str, note: str) -> Field:
    """The hub has no word for it: an engine of the same dialect gets it, another does without."""
    return Field(path=path, fate=Fate.NATIVE, note=note)


def set_aside(path: str, note: str) -> Field:
    """The other side does without, and the answer is still the one that was asked for."""
    return Field(path=path, fate=Fate.SET_ASIDE, note=note)


def refused(path: str, note: str) -> Field:
    """Without it the answer would be another one."""
    return Field(path=path, fate=Fate.REFUSED, note=note)


def top_level(fields: Iterable[Field], *fates: Fate) -> dict[str, str]:
    """The names of a body's own fields that have one of the fates, with their notes."""
    return {f.path: f.note for f in fields if f.fate in fates and "." not in f.path and "[" not in f.path}


def table(fields: Iterable[Field]) -> str:
    """The fields as rows of a reference page."""
    rows = [f"| `{field.path}` | {field.fate.value} | {field.note} |" for field in fields]
    return "\n".join(["| field | fate | |", "| --- | --- | --- |", *rows])
