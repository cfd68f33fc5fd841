"""The gateway's time beside the system's, which is ahead after a sleep, or was put right since the start."""

import asyncio
from collections.abc import Callable

from tidegate.clock import Clock
from tidegate.telemetry.log import Log

# Between two looks. A day's budget is that much late after a night, at most, and nobody waits for it.
LOOK_S = 5.0
# What network time adjusts by and by is less.
OFF_S = 1.0

AHEAD = (
    "the system's clock is ahead; days of budgets, prices and keys go by the time before, until there is a moment in "
    "which nothing is under way"
)
BACK = (
    "the system's clock was put back; days of budgets, prices and the journal go by the time before, until it is there "
    "again or the gateway is restarted"
)


class Timekeeper:
    """Puts the clock forward where the system's is ahead, at a moment in which nothing is being timed.

    What is under way has been timed by one clock from its beginning to its end, so that a sleep makes nothing look
    slow. Until such a moment comes, it is told. One that was put back is told, and not followed: time never runs
    backwards here.
    """

    def __init__(self, clock: Clock, log: Log, is_quiet: Callable[[], bool]) -> None:
        self._clock = clock
        self._log = log
        self._is_quiet = is_quiet
        self._told_s = 0.0

    async def watch(self) -> None:
        """Look now and then, for as long as it runs."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Compare, once."""
        behind_s = self._clock.behind_s()
        if behind_s > OFF_S and self._is_quiet():
            self._clock.catch_up()
            self._told_s = 0.0
            self._log.event("warning", "clock put forward: the machine slept, or its clock was set", by_s=behind_s)
        elif abs(behind_s) <= OFF_S:
            self._told_s = 0.0
        elif abs(behind_s - self._told_s) > OFF_S:
            self._told_s = behind_s
            self._log.event("warning", AHEAD if behind_s > 0.0 else BACK, by_s=abs(behind_s))
