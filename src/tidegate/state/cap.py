"""What may be spent, and what the ledger says of it."""

from enum import StrEnum

import msgspec

from tidegate.clock import DAY_S, month_number, month_starts_s
from tidegate.core.model import Record


class Period(StrEnum):
    """How long a budget lasts: a calendar day or month, in UTC."""

    DAY = "day"
    MONTH = "month"

    def number(self, day: int) -> int:
        """The window that the day `day` belongs to."""
        return day if self is Period.DAY else month_number(day)

    def ends_s(self, number: int) -> float:
        """When that window ends and the next budget begins."""
        return (number + 1) * DAY_S if self is Period.DAY else month_starts_s(number + 1)


class Cap(Record, frozen=True, kw_only=True, omit_defaults=False):
    """At most `usd` in each `period`: by one client key, or by all together where `key` is None."""

    usd: float
    period: Period
    key: str | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation that does not fit. Of the caps it breaks, the one for which it takes longest to be renewed."""

    cap: Cap
    left_usd: float
    resets_at_s: float


class CapStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One cap in its present window. `left_usd` is negative where a bill exceeded its bound, or the cap was lowered."""

    cap: Cap
    spent_usd: float
    unconfirmed_usd: float
    reserved_usd: float
    left_usd: float
    resets_at_s: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What operators look at. `overruns` counts bills above their bound, in the days that are kept."""

    caps: tuple[CapStatus, ...]
    overruns: int


class DayRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one key spent at one endpoint on one UTC day, by the time of the reservation. `day` is ISO 8601."""

    day: str
    key: str
    endpoint: str
    spent_usd: float
    settled: int
    overruns: int
