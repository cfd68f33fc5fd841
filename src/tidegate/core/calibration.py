"""What is remembered of measured against predicted: decayed samples, and calibrated quantiles."""

from typing import ClassVar

import msgspec

# A sample counts half after ten minutes: short against the daily cycle of vendor latency, yet long
# enough to hold ten samples at one request a minute.
HALF_LIFE_S = 600.0
# No cell remembers more than this many samples, so that a change shows within a few dozen requests.
WEIGHT_MAX = 32.0
# Nothing that is timed repeats to better than one per cent.
VARIANCE_MIN = 1e-4


def left_after(age_s: float) -> float:
    """The share of what was known that is left after so long: 1 at once, a half after each half-life."""
    return float(0.5 ** (age_s / HALF_LIFE_S))


class Cell(msgspec.Struct, gc=False):
    """Decayed mean and variance of log(actual / predicted)."""

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    at_s: float = 0.0

    def learn(self, x: float, now_s: float, within: float = 0.0) -> None:
        """Take one sample in; `within` is its own variance, where it is not measured but inferred."""
        age_s = now_s - self.at_s
        weight = self.weight
        if age_s > 0.0 and weight:
            weight *= 0.5 ** (age_s / HALF_LIFE_S)
        self.weight = weight = weight + 1.0 if weight < WEIGHT_MAX - 1.0 else WEIGHT_MAX
        self.at_s = now_s
        before = x - self.mean
        moved = before / weight
        self.mean += moved
        self.variance += (before * (before - moved) + within - self.variance) / weight

    def weight_at(self, now_s: float) -> float:
        """Effective number of recent samples; falls towards zero as knowledge ages."""
        age_s = now_s - self.at_s
        return self.weight * 0.5 ** (age_s / HALF_LIFE_S) if age_s > 0.0 else self.weight


class UpperQuantile(msgspec.Struct):
    """How many standard deviations above the median the wanted quantile lies, tracked online.

    `deviations` rises with every miss and falls a little with every hit, so that the coverage is what it says even
    where the spread is wrong (adaptive conformal inference, Gibbs and Candes 2021).
    """

    deviations: float
    hits: int = 0
    misses: int = 0

    # One miss moves the bound by nearly a fifth of a deviation, nine hits move it back.
    STEP: ClassVar[float] = 0.2
    DEVIATIONS_MAX: ClassVar[float] = 8.0

    def learn(self, missed: bool, quantile: float) -> None:
        """Take in whether the actual value exceeded the bound."""
        self.misses += missed
        self.hits += not missed
        moved = self.deviations + self.STEP * (missed - (1.0 - quantile))
        self.deviations = min(max(moved, 0.0), self.DEVIATIONS_MAX)
