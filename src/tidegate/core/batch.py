"""How many an engine of ours is given at once, so that each of them gets its tokens in the time that was promised.

Each sequence more in a batch makes all others slower, and of that no prediction for a single request tells: where an
engine has become slower, what is sent there is worth more to itself than it takes from the others, until none of them
keeps its promise. So misses are counted instead. Each makes the batch a little smaller, each promise that was kept a
little larger, by so much less that they balance where as many are missed as are given away.
"""

from math import ceil, exp, log, pow
from typing import Final

import msgspec

# A promise that is missed takes three in a hundred of the batch, and eleven that are kept give them back: where an
# engine becomes slower, some dozen answers follow it. Of 5, 8 and 12 in a hundred, 8 lost least where nothing changes.
STEP: Final = 0.03
MISSED_SHARE: Final = 0.08
# A quarter of the slots is always used: in smaller batches, engines do much less work in the same time.
LESS_MAX: Final = log(4.0)
# What was learned of an engine that has been given little since then: it may be another one by now.
HALF_LIFE_S: Final = 3600.0
# A whole number of slots is not one more for the rounding of a logarithm.
_ROUNDING: Final = 1e-9


class Batch(msgspec.Struct):
    """How much smaller than all slots the batch is, as a logarithm: 0 is all of them.

    `fresh` is what the answers of one moment add to it, and counts with its bounds when the moment is over, so that
    these have no order.
    """

    less: float = 0.0
    fresh: float = 0.0
    at_s: float = 0.0

    def learn(self, missed: bool, now_s: float) -> None:
        """Of one more answer, tokens took longer than was promised, or not."""
        self.settle(now_s)
        self.fresh += STEP if missed else -STEP * MISSED_SHARE / (1.0 - MISSED_SHARE)

    def settle(self, now_s: float) -> None:
        """With a new moment, the one before is over."""
        if now_s <= self.at_s:
            return
        self.less, self.fresh = self.bounded * pow(0.5, (now_s - self.at_s) / HALF_LIFE_S), 0.0
        self.at_s = now_s

    @property
    def bounded(self) -> float:
        """How much smaller it is, as far as is known now."""
        return min(max(self.less + self.fresh, 0.0), LESS_MAX)

    def of(self, slots: int) -> int:
        """How many of so many slots are used; at least one."""
        return max(1, ceil(slots * exp(-self.bounded) - _ROUNDING))


def combined(one: Batch, other: Batch) -> Batch:
    """What the more careful of both has found, as of the later of the two."""
    at_s = max(one.at_s, other.at_s)
    one, other = msgspec.structs.replace(one), msgspec.structs.replace(other)
    for each in (one, other):
        each.settle(at_s)
    return Batch(max(one.bounded, other.bounded), 0.0, at_s)


def fault(batch: Batch) -> str:
    """What is wrong with it, empty where nothing is."""
    if not 0.0 <= batch.less <= LESS_MAX or not abs(batch.fresh) < float("inf"):
        return "`batch` is larger than all slots, or smaller than it may be"
    return ""
