"""Whether what is predicted has changed for good: a sum of errors that only a change makes large.

Page's test (1954), both ways: errors of one sign add up, and what chance makes of them is taken off at each step.
"""

from math import exp
from typing import Final

from tidegate.core.learned import Shift, Side

# No single error counts for more than this many deviations: one stall is no change.
ERROR_MAX: Final = 3.0
# Nothing changes by more than twelve times at once; the rest shows when it has.
LOG_RATIO_MAX: Final = 2.5
# What is taken off for each error, and what has to add up, in deviations: three large errors on end, or a dozen of one
# and a half; of errors without a change, some thousand until the next false alarm.
SLACK: Final = 0.75
ENOUGH: Final = 6.0


def unmoved() -> Shift:
    """Nothing was seen."""
    return Shift(Side(), Side())


def change(shift: Shift, now_s: float) -> float | None:
    """With a new moment: the ratio by which everything has changed by then, None where nothing has."""
    if now_s <= shift.at_s:
        return None
    shift.at_s = now_s
    up, down = shift.up, shift.down
    if _has_moved(up):
        ratio = exp(up.total / up.count)
    elif _has_moved(down):
        ratio = exp(-down.total / down.count)
    else:
        return None
    shift.up, shift.down, shift.moved_s = Side(), Side(), now_s
    return ratio


def _has_moved(side: Side) -> bool:
    """Whether enough has added up; what does not add up is forgotten."""
    height: float = side.height
    if height <= 0.0:
        side.height = side.total = side.count = 0.0
    return height > ENOUGH


def add_error(shift: Shift, error: float, sigma: float, share: float) -> None:
    """One more error, of a prediction with that spread, that counts for so much of one."""
    error = min(max(error, -LOG_RATIO_MAX), LOG_RATIO_MAX)
    deviations = min(max(error / sigma, -ERROR_MAX), ERROR_MAX)
    _add(shift.up, deviations, error, share)
    _add(shift.down, -deviations, -error, share)


def _add(side: Side, deviations: float, error: float, share: float) -> None:
    """One more error, of the sign of this side or of the other one."""
    height: float = side.height
    total: float = side.total
    side.height, side.total = height + share * (deviations - SLACK), total + share * error
    side.count += share
