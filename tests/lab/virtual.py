"""A loop whose time is its own: it never waits, so that seconds of timers pass at once, and exactly."""

import asyncio
import os
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from tidegate.clock import Clock

T = TypeVar("T")
LOOKS = 3  # what was sent on loopback is there at once, but for a busy kernel


class _Selector(selectors.SelectSelector):
    """Tells what is there to be read; where that is nothing, time goes on to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        for _ in range(LOOKS):
            if ready := super().select(0):
                return ready
            os.sched_yield()
        assert timeout is not None, "nothing will ever happen again"
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


class VirtualClock(Clock):
    """The loop's time."""

    __slots__ = ()

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


def run(test: Coroutine[Any, Any, T]) -> T:
    """What it returns, or raises."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(test)
