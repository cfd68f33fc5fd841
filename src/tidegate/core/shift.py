"""Whether what is predicted has changed for good: a sum of errors that only a change makes large.

Page's test (1954), both ways: errors of one sign add up, and what chance makes of them is taken off at each step.
"""

from math import exp

import msgspec

# No single error counts for more than this many deviations: one stall is no change.
ERROR_MAX = 3.0
# Nothing changes by more than twelve times at once; the rest shows when it has.
LOG_RATIO_MAX = 2.5
# What is taken off for each error, and what has to add up, in deviations: three large errors on end, or a dozen of one
# and a half; of errors without a change, some thousand until the next false alarm.
SLACK = 0.75
ENOUGH = 6.0


class Side(msgspec.Struct, array_like=True):
    """Errors of one sign since they began to add up: how far they did, their sum and their number."""

    height: float = 0.0
    total: float = 0.0
    count: float = 0.0

    def add(self, deviations: float, error: float, share: float) -> None:
        """One more error, as a logarithm and in deviations, of this side's sign where it is positive."""
        self.height += share * (deviations - SLACK)
        self.total += share * error
        self.count += share

    def settle(self) -> None:
        """The moment is over: what does not add up is forgotten."""
        if self.height <= 0.0:
            self.height = self.total = self.count = 0.0


class Shift(msgspec.Struct):
    """Watches errors of predictions, log(actual / predicted). `moved_s` is when a change was last found."""

    up: Side
    down: Side
    at_s: float = 0.0
    moved_s: float = 0.0

    def settled(self, now_s: float) -> float | None:
        """With a new moment: the ratio by which everything has changed by then, None where nothing has."""
        if now_s <= self.at_s:
            return None
        self.at_s = now_s
        for side, sign in ((self.up, 1.0), (self.down, -1.0)):
            if side.height > ENOUGH:
                ratio = exp(sign * side.total / side.count)
                self.up, self.down, self.moved_s = Side(), Side(), now_s
                return ratio
            side.settle()
        return None

    def add(self, error: float, sigma: float, share: float = 1.0) -> None:
        """One more error, of a prediction with that spread, that counts for so much of one."""
        error = min(max(error, -LOG_RATIO_MAX), LOG_RATIO_MAX)
        deviations = min(max(error / sigma, -ERROR_MAX), ERROR_MAX)
        self.up.add(deviations, error, share)
        self.down.add(-deviations, -error, share)


def unmoved() -> Shift:
    """Nothing was seen."""
    return Shift(up=Side(), down=Side())
