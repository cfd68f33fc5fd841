"""How long the load of a model takes: what its size says, what loads took, and for how long they were waited for in
vain.
"""

from math import exp, log, sqrt
from typing import Final

from tidegate.core.hazard import LONG_HALF_LIFE_S
from tidegate.core.record import Untracked

# Loads of safetensors from fast disks, see bench/fit_loads.py; nothing is there sooner than its process has started.
LOAD_BYTES_PER_S: Final = 3.4e9
LOAD_S_MIN: Final = 1.0
# Of a model whose size is not known, as of a function that a vendor has to start.
LOAD_S: Final = 10.0
# From models in the page cache to those on a disk that turns: one in three is off by more than 2.7 times.
LOAD_SIGMA: Final = 1.0
# Those of one model are much alike.
REPEATED_SIGMA: Final = 0.2
# How many loads weigh as much as what was believed of their median, and of their spread: one is as long as the next.
STRENGTH: Final = 0.3
SPREAD_STRENGTH: Final = 2.0
SIGMA_MIN, SIGMA_MAX = 0.05, 2.0
# What adds less is none: no process starts sooner. Else an engine that is wrongly predicted would seem to load a little
# each time, and that would explain why.
LEAST_S: Final = 0.3
# A load that is overdue is expected to take a fifth of its age more, as other work is.
OVERDUE_SHARE: Final = 0.2


def usual_load_s(weights_bytes: float) -> float:
    """What a load of so many bytes of weights usually takes."""
    return max(LOAD_S_MIN, weights_bytes / LOAD_BYTES_PER_S)


def remaining(load_s: float, sigma: float, waited_s: float) -> tuple[float, float]:
    """Median and deviation of what is left of a load: in seconds it is as uncertain as before."""
    left_s = max(load_s - waited_s, OVERDUE_SHARE * waited_s, LEAST_S)
    return left_s, min(sigma * max(1.0, load_s / left_s), SIGMA_MAX)


class Loads(Untracked):
    """Decayed sums over loads: their number, the logarithms of their seconds, and the squares of these.

    A wait in vain is a lower bound, and holds until a load is seen to its end. `waited_s` is the longest that ended at
    `waited_at_s`, and `waited_before_s` the longest before that.
    """

    count: float = 0.0
    logs: float = 0.0
    squares: float = 0.0
    at_s: float = 0.0
    waited_s: float = 0.0
    waited_before_s: float = 0.0
    waited_at_s: float = 0.0

    def learn(self, count: float, load_s: float, now_s: float) -> None:
        """Take in a load, for as much as it was one."""
        log_s = log(max(load_s, LEAST_S))
        before, logs, squares = self.left(now_s)
        self.count, self.logs, self.squares = before + count, logs + count * log_s, squares + count * log_s * log_s
        self.at_s = max(self.at_s, now_s)

    def learn_wait(self, waited_s: float, now_s: float) -> None:
        """Take in that somebody waited for so long in vain."""
        if now_s > self.waited_at_s:
            self.waited_before_s = self.at_least_s()
            self.waited_s, self.waited_at_s = waited_s, now_s
        else:
            self.waited_s = max(self.waited_s, waited_s)

    def left(self, now_s: float) -> tuple[float, float, float]:
        """What is left of the sums."""
        age_s = now_s - self.at_s
        left = 0.5 ** (age_s / LONG_HALF_LIFE_S) if age_s > 0.0 else 1.0
        return left * self.count, left * self.logs, left * self.squares

    def at_least_s(self) -> float:
        """The longest wait in vain since a load was last seen; what ended in the same moment counts."""
        if self.waited_at_s > self.at_s:
            return max(self.waited_s, self.waited_before_s)
        return self.waited_s if self.waited_at_s == self.at_s else 0.0

    def median_and_sigma(self, prior_s: float) -> tuple[float, float]:
        """Median and deviation of a load, where `prior_s` was believed before."""
        prior = mean = log(prior_s)
        variance = LOAD_SIGMA * LOAD_SIGMA
        if self.count:
            share = self.count / (self.count + STRENGTH)
            found = self.logs / self.count
            scatter = max(0.0, self.squares - self.count * found * found)
            repeated = (SPREAD_STRENGTH * REPEATED_SIGMA**2 + scatter) / (SPREAD_STRENGTH + self.count)
            # What was believed and what was found disagree on is uncertainty too, of which little is left after a few.
            variance = (1.0 - share) ** 2 * (variance + share * (found - prior) ** 2) + share * repeated
            mean += share * (found - prior)
        at_least_s = self.at_least_s()
        if at_least_s > exp(mean):
            # Somebody waited in vain for longer than loads took: one or the other may hold.
            variance += (log(at_least_s) - mean) ** 2
            mean = log(at_least_s)
        return exp(mean), min(max(sqrt(variance), SIGMA_MIN), SIGMA_MAX)


def together(one: Loads, other: Loads) -> Loads:
    """What two processes have seen, as of the last load."""
    at_s = max(one.at_s, other.at_s)
    count, logs, squares = (a + b for a, b in zip(one.left(at_s), other.left(at_s), strict=True))
    newer, older = (one, other) if one.waited_at_s >= other.waited_at_s else (other, one)
    waited_s, before_s = newer.waited_s, max(newer.waited_before_s, older.waited_before_s)
    if older.waited_at_s == newer.waited_at_s:
        waited_s = max(waited_s, older.waited_s)
    else:
        before_s = max(before_s, older.waited_s)
    return Loads(count, logs, squares, at_s, waited_s, before_s, newer.waited_at_s)
