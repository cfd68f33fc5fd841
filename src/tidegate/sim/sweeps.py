"""When a simulated gateway looks at the time, and at the requests that it holds."""

from collections.abc import Callable, Collection
from math import ceil, inf

from tidegate.core.waiting import SWEEP_S
from tidegate.sim.loop import Loop
from tidegate.sim.warmups import WarmUps


class Sweeps:
    """Looks at the time, one every `SWEEP_S` while requests are under way.

    Whether a model is to be loaded, after what requests have told, is asked with each; where none ever is, no sweep
    need happen.
    """

    def __init__(self, loop: Loop, warm_ups: WarmUps) -> None:
        self._loop, self._warm_ups = loop, warm_ups
        # Since when there are sweeps, and when they end: inf while something is under way.
        self._since_s = self._end_s = -inf
        self._ordered = False

    def begin(self) -> None:
        """A request comes where none was under way."""
        if self._loop.now_s >= self._end_s:
            self._since_s = self._loop.now_s
            # That of the ones before may be due just now.
            if self._warm_ups.wanted and not self._ordered:
                self._order(self._loop.now_s)
        self._end_s = inf

    def end(self) -> None:
        """None is under way any more."""
        self._end_s = self.next_s(self._loop.now_s)

    def next_s(self, from_s: float) -> float:
        """When a gateway sweeps next, from then on: for the first time once the first of them have been under way for
        so long. Its clock is never so exact that it would miss one by a rounding."""
        return self._since_s + max(1, ceil((from_s - self._since_s) / SWEEP_S - 1e-5)) * SWEEP_S

    def _order(self, from_s: float) -> None:
        self._ordered = True
        self._loop.at(self.next_s(from_s), self._sweep)

    def _sweep(self) -> None:
        self._ordered = False
        self._warm_ups.begin()
        if self._end_s == inf:
            self._order(self._loop.now_s + SWEEP_S / 2.0)


class Rechecks:
    """Looks at the requests that are held: when something has changed, and by the clock where nothing has for long."""

    def __init__(
        self, loop: Loop, sweeps: Sweeps, held: Collection[str], every_s: float, check: Callable[[], None]
    ) -> None:
        """`check` looks at those that are `held` then, at the latest when they were left for `every_s`."""
        self._loop, self._sweeps, self._held, self._every_s, self._check = loop, sweeps, held, every_s, check
        self._pending = False
        # When they were looked at last, and which of the looks by the clock are still to come.
        self._checked_s = 0.0
        self._number = 0

    def begin(self) -> None:
        """One is held where none was."""
        self._number += 1
        self._order()

    def soon(self) -> None:
        """Something has changed."""
        if self._held and not self._pending:
            self._pending = True
            self._loop.at(self._loop.now_s, self._changed)

    def _order(self) -> None:
        """At the first sweep before which nobody has looked at those that are held for as long as they are left."""
        at_s = self._sweeps.next_s(max(self._loop.now_s, self._checked_s + self._every_s))
        self._loop.at(at_s, self._left, self._number)

    def _changed(self) -> None:
        self._pending = False
        self._checked_s = self._loop.now_s
        self._check()

    def _left(self, number: int) -> None:
        if number != self._number or not self._held:
            return
        if self._loop.now_s < self._sweeps.next_s(self._checked_s + self._every_s):
            # They were looked at meanwhile.
            self._order()
            return
        self._checked_s = self._loop.now_s
        self._order()
        self._check()
