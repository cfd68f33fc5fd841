"""Time in a simulated world: what is to happen, in its order, and a clock that stands still in between."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Loop:
    """`at` a time, something happens. What is to happen at one time does so in the order in which it was said."""

    __slots__ = ("_events", "_order", "count", "now_s")

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s
        self.count = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, at_s: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act` then; a time that has passed is now."""
        self._order += 1
        heappush(self._events, (at_s if at_s > self.now_s else self.now_s, self._order, act, arguments))

    def run(self, until_s: float) -> None:
        """Let all happen that is to happen until then."""
        events = self._events
        while events and events[0][0] <= until_s:
            self.now_s, _, act, arguments = heappop(events)
            self.count += 1
            act(*arguments)

    @property
    def waiting(self) -> int:
        """How much is to happen."""
        return len(self._events)

    @property
    def over(self) -> bool:
        """Whether nothing is to happen any more."""
        return not self._events
