"""The only file that reads a clock.

Everything else is handed `now_s`, so that a simulated hour and a real one run the same code.
"""

import time
from datetime import UTC, datetime


class Clock:
    """Seconds since the Unix epoch that never run backwards within one process.

    Journals need absolute times, estimators need steady ones: the epoch is read once and the
    monotonic clock counts from there.
    """

    __slots__ = ("_offset_s",)

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._offset_s + time.monotonic()


def cpu_s() -> float:
    """CPU seconds this thread has used: what a decision costs, whatever else the machine does."""
    return time.thread_time()


def tick_s() -> float:
    """A steady high-resolution counter, for differences only."""
    return time.perf_counter()


def sleep_s(seconds: float) -> None:
    """Block this thread; for command-line shells only, never on an event loop."""
    time.sleep(seconds)


def iso(at_s: float) -> str:
    """UTC time of `at_s` as ISO 8601 with milliseconds, for people and logs."""
    return datetime.fromtimestamp(at_s, tz=UTC).isoformat(timespec="milliseconds")
