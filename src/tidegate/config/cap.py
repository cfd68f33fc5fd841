"""What may be spent: a sum, for how long it lasts, and who draws on it."""

from enum import StrEnum

from tidegate.clock import DAY_S, month_number, month_starts_s
from tidegate.core.model import Drawn, Record


class Period(StrEnum):
    """How long a budget lasts: a calendar day or month, in UTC."""

    DAY = "day"
    MONTH = "month"

    def number(self, day: int) -> int:
        """The window that the day `day` belongs to."""
        return day if self is Period.DAY else month_number(day)

    def begins_s(self, number: int) -> float:
        """When that window begins."""
        return number * DAY_S if self is Period.DAY else month_starts_s(number)

    def ends_s(self, number: int) -> float:
        """When that window ends and the next budget begins."""
        return (number + 1) * DAY_S if self is Period.DAY else month_starts_s(number + 1)


class Cap(Record, frozen=True, kw_only=True, omit_defaults=False):
    """At most `usd` in each `period`: by one client key, or by all together where `key` is None."""

    usd: float
    period: Period
    key: str | None = None

    @property
    def name(self) -> str:
        """What it is called where budgets are paced: its period, and whose it is."""
        return self.period.value if self.key is None else f"{self.period.value}/{self.key}"

    def drawn(self, spent_usd: float, day: int) -> Drawn:
        """The fact that so much is spent of it, in the window of that day."""
        number = self.period.number(day)
        return Drawn(
            budget=self.name,
            usd=self.usd,
            spent_usd=spent_usd,
            begins_s=self.period.begins_s(number),
            ends_s=self.period.ends_s(number),
        )
