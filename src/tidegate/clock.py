"""The only file that reads a clock.

Everything else is handed `now_s`, so that a simulated hour and a real one run the same code.
"""

import time
from datetime import UTC, date, datetime

Day = date
"""A calendar day, as TOML writes it."""

Moment = datetime
"""A point in time, as TOML writes it; without an offset it is UTC."""

tick_s = time.perf_counter
"""A steady high-resolution counter, for differences only."""

DAY_S = 86_400.0
_EPOCH = date(1970, 1, 1).toordinal()


class Clock:
    """Seconds since the Unix epoch that never run backwards within one process.

    Journals need absolute times, estimators need steady ones: the epoch is read once and the
    monotonic clock counts from there. That one stands still while a machine sleeps, and knows nothing of a system's
    clock that is put right later: see `catch_up`.
    """

    __slots__ = ("_forward_s", "_offset_s")

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()
        self._forward_s = 0.0

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._offset_s + time.monotonic()

    @property
    def forward_s(self) -> float:
        """How far it has been put forward."""
        return self._forward_s

    def steady_s(self) -> float:
        """Seconds that go on as before when time is put forward: for the time-outs of what waits meanwhile."""
        return self.now_s() - self._forward_s

    def behind_s(self) -> float:
        """How far the system's clock is ahead of this one; negative where it was put back."""
        return time.time() - self.now_s()

    def catch_up(self) -> None:
        """Go on from the system's time where that is ahead. For a moment in which nothing is being timed."""
        by_s = max(0.0, self.behind_s())
        self._offset_s += by_s
        self._forward_s += by_s


def cpu_s() -> float:
    """CPU seconds this thread has used: what a decision costs, whatever else the machine does."""
    return time.thread_time()


def sleep_s(seconds: float) -> None:
    """Block this thread; for command-line shells only, never on an event loop."""
    time.sleep(seconds)


def iso(at_s: float) -> str:
    """UTC time of `at_s` as ISO 8601 with milliseconds, for people and logs."""
    return utc(at_s).isoformat(timespec="milliseconds")


def utc(at_s: float) -> datetime:
    """The calendar's and the clock's name for `at_s`, in UTC."""
    return datetime.fromtimestamp(at_s, tz=UTC)


def since_epoch_s(moment: Moment) -> float:
    """Seconds from the epoch to that point in time."""
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def day_number(at_s: float) -> int:
    """Days from the epoch to the UTC day of `at_s`."""
    return int(at_s // DAY_S)


def day(number: int) -> Day:
    """The calendar day of that number."""
    return date.fromordinal(_EPOCH + number)


def month_number(number: int) -> int:
    """Months from the year zero to that of the day `number`."""
    at = day(number)
    return at.year * 12 + at.month - 1


def month_starts_s(month: int) -> float:
    """When that month begins, in seconds since the epoch."""
    return (date(month // 12, month % 12 + 1, 1).toordinal() - _EPOCH) * DAY_S
