"""The sums of a ledger in memory: by window and by key, in nano-dollars."""

from collections.abc import Collection

from tidegate.clock import month_number
from tidegate.core.model import replace
from tidegate.state.cap import Period
from tidegate.state.store import LeaseRow

# Days with money in them that are kept at hand: a clock that is set back finds what it spent there. What is older is
# closed: a time before it counts as the oldest day that is open, whose budget is then spent once and not twice.
DAYS_OPEN = 40


class Sums:
    """What one window holds of one key, or of all together."""

    __slots__ = ("reserved", "spent", "unconfirmed")

    def __init__(self) -> None:
        self.spent = self.unconfirmed = self.reserved = 0

    @property
    def held(self) -> int:
        """All that counts against a cap."""
        return self.spent + self.unconfirmed + self.reserved


NOTHING = Sums()  # of a window that nothing was put into; never written to


class Lease:
    """A reservation and the sums that it is part of. `stored`: the file knows it."""

    __slots__ = ("_sums", "row", "stored")

    def __init__(self, row: LeaseRow, sums: tuple[Sums, ...], *, stored: bool) -> None:
        self.row = row
        self.stored = stored
        self._sums = sums
        self._add(row.nusd)

    def _add(self, nusd: int) -> None:
        for sums in self._sums:
            if self.row.expired:
                sums.unconfirmed += nusd
            else:
                sums.reserved += nusd

    def expire(self) -> None:
        """Nobody can tell any more whether it was billed."""
        self._add(-self.row.nusd)
        self.row = replace(self.row, expired=True)
        self._add(self.row.nusd)

    def close(self) -> None:
        """It holds nothing back any more."""
        self._add(-self.row.nusd)

    def spend(self, nusd: int) -> None:
        """It was billed."""
        for sums in self._sums:
            sums.spent += nusd


class Books:
    """The open windows."""

    def __init__(self) -> None:
        self._days: dict[int, dict[str | None, Sums]] = {}
        self._months: dict[int, dict[str | None, Sums]] = {}
        self._first = 0
        self._month_of = (0, month_number(0))

    def day(self, number: int) -> int:
        """The day that money of that day is attributed to: itself, or the first that is open."""
        return max(number, self._first)

    def known(self, day: int) -> bool:
        """Whether there is money in that day."""
        return day in self._days

    def sums(self, scope: str | None, period: Period, day: int) -> Sums:
        """What the window of that day holds of one key, or of all where `scope` is None."""
        return self._window(period, day).get(scope, NOTHING)

    def scopes(self, period: Period, day: int) -> Collection[str | None]:
        """Whose money is in the window of that day: of these keys, and None, which is all."""
        return self._window(period, day).keys()

    def spend(self, day: int, key: str, nusd: int) -> None:
        """Take over what was spent before."""
        for sums in self._of(day, key):
            sums.spent += nusd

    def lease(self, row: LeaseRow, *, stored: bool) -> Lease:
        """Hold back what this lease reserves, or leaves unconfirmed."""
        return Lease(row, self._of(row.day, row.key), stored=stored)

    def _of(self, day: int, key: str) -> tuple[Sums, ...]:
        """The sums that money of this day is part of; those of its month alone, or none, where the day is closed."""
        if day >= self._first and day not in self._days:
            self._open(day)
        windows = (self._days.get(day), self._months.get(self._month(day)))
        return tuple(w.setdefault(scope, Sums()) for w in windows if w is not None for scope in (None, key))

    def _open(self, day: int) -> None:
        self._days[day] = {}
        self._months.setdefault(self._month(day), {})
        if len(self._days) > DAYS_OPEN:
            del self._days[min(self._days)]
            self._first = min(self._days)
            first_month = month_number(self._first)
            self._months = {number: window for number, window in self._months.items() if number >= first_month}

    def _window(self, period: Period, day: int) -> dict[str | None, Sums]:
        if period is Period.DAY:
            return self._days.get(day, _EMPTY)
        return self._months.get(self._month(day), _EMPTY)

    def _month(self, day: int) -> int:
        if self._month_of[0] != day:
            self._month_of = (day, month_number(day))
        return self._month_of[1]


_EMPTY: dict[str | None, Sums] = {}
