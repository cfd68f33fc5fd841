"""A loop whose time is its own: it never waits, so that seconds of timers pass at once, and exactly."""

import asyncio
import os
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from tidegate.clock import Clock
from tidegate.gateway import daemon

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
BEGINS_S = 2.0**20  # days after the epoch: what was before it has a time, too, and is found exactly
TURN_S = 1e-9  # who waits for less than a loop can tell waits on, and on
KEPT_MAX = 64  # somebody may turn round and round until what comes is told
DAEMON_S = 0.001  # of the machine's time, from look to look at who has no other way to say that it is through
LOOKS = 3  # what was sent on loopback is there at once, but for a busy kernel


class _Selector(selectors.DefaultSelector):
    """Tells what is there to be read, in the order in which it came; where that is nothing, time goes on to the next
    timer. While callbacks are ready, and time stands still, nothing is told, so that what comes at one time is told at
    once. No time passes while `threads` are at work."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = BEGINS_S
        self.threads = 0
        self._came: dict[int, tuple[selectors.SelectorKey, int]] = {}
        self._kept = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += TURN_S
        ready = self._look()
        # That there is nothing is to be sure where time goes on for it. On a busy machine a turn of others takes long.
        for _ in range(LOOKS - 1 if timeout != 0.0 else 0):
            if not ready:
                os.sched_yield()
                ready = self._look()
        self._came = {fd: ready[fd] for fd in self._came if fd in ready} | ready
        if timeout == 0.0 and self._kept < KEPT_MAX:
            self._kept += 1
            return []
        self._kept = 0
        if self._came or timeout == 0.0:
            told, self._came = list(self._came.values()), {}
            return told
        if self.threads:
            return super().select(None)
        at_work = True
        while at_work:  # and looked at once more after the last has ended: it told something before
            at_work = any(thread.name.startswith(daemon.NAMED) for thread in threading.enumerate())
            if came := super().select(DAEMON_S if at_work else 0):
                return came
        assert timeout is not None, "nothing will ever happen again"
        self.now_s += timeout
        return []

    def _look(self) -> dict[int, tuple[selectors.SelectorKey, int]]:
        return {key.fd: (key, events) for key, events in super().select(0)}


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._virtual.threads += 1
        future.add_done_callback(self._came_back)
        return future

    async def shutdown_default_executor(self, *timeout_s: float | None) -> None:
        """With one, as Python 3.12 asks for it."""
        self._virtual.threads += 1
        await super().shutdown_default_executor(*timeout_s)

    def _came_back(self, _: object) -> None:
        self._virtual.threads -= 1


class VirtualClock(Clock):
    """The loop's time. The system's is what it says, too."""

    __slots__ = ()

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def behind_s(self) -> float:
        return 0.0


def loop_clock() -> Clock:
    """The time that the running loop has."""
    return VirtualClock() if isinstance(asyncio.get_running_loop(), VirtualLoop) else Clock()


def run(test: Coroutine[Any, Any, T]) -> T:
    """What it returns, or raises."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(test)
