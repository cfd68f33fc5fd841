"""What is remembered of measured against predicted: decayed samples, and calibrated quantiles."""

from math import exp, log, pow
from statistics import NormalDist
from typing import Final

import msgspec

from tidegate.core.counts import Tracked

# A sample counts half after ten minutes: short against the daily cycle of vendor latency, yet long
# enough to hold ten samples at one request a minute.
HALF_LIFE_S: Final = 600.0
# How far answers lie from their middle is a property of the engine, and lasts as what each part takes does.
SPREAD_HALF_LIFE_S: Final = 3600.0
# Far beyond what is left of any number of samples.
DOUBLINGS_MAX: Final = 64.0
# No cell remembers more than this many samples, so that a change shows within a few dozen requests.
WEIGHT_MAX: Final = 32.0
# Means need more samples than medians.
MEAN_HALF_LIFE_S: Final = 3600.0
MEAN_WEIGHT_MAX: Final = 256.0
MEAN_STRENGTH: Final = 8.0
# One that takes longer than that has stalled, and what stalls is not what schedules are made of.
MEAN_RATIO_MAX: Final = 10.0
# A spread wider than that is ignorance, and no reason to expect five times the median.
MEAN_VARIANCE_MAX: Final = 1.0
# Nothing that is timed repeats to better than one per cent.
VARIANCE_MIN: Final = 1e-4


def left_after(age_s: float) -> float:
    """The share of what was known that is left after so long: 1 at once, a half after each half-life."""
    return pow(0.5, age_s / HALF_LIFE_S)


def drifted(variance: float, prior_variance: float, age_s: float) -> float:
    """What variance is added where nothing was learned for so long: half of the prior's after HALF_LIFE_S, a rational
    stand-in for forgetting, and in that time no more than is known to be there.

    That is a random walk of the level: in it samples that count half after HALF_LIFE_S are so much apart. A steady link
    is not believed to be another one after a minute's silence.
    """
    share = age_s / HALF_LIFE_S
    walked, faded = share * variance, share / (1.0 + share) * prior_variance
    return walked if walked < faded else faded


def aged(variance: float, prior_variance: float, weight: float, age_s: float) -> float:
    """What variance is added where nothing was learned for so long of what `weight` samples have told.

    They count half after each HALF_LIFE_S, and their mean is known as well as so few tell it: where there was one, its
    variance is there again after that time, where there were thirty, a thirtieth. Real engines wander no faster: two
    answers of theirs are hardly further apart after twenty minutes than after one (docs/explanation/promises.md). It
    fades to the prior's in the end.
    """
    share = age_s / HALF_LIFE_S
    few = variance * (pow(2.0, min(share, DOUBLINGS_MAX)) - 1.0) / max(weight, 1.0)
    faded = share / (1.0 + share) * prior_variance
    return few if few < faded else faded


class Mean(msgspec.Struct):
    """Decayed sums of seconds that work took, and of the medians that were predicted of it: schedules add up means."""

    took_s: float = 0.0
    median_s: float = 0.0
    weight: float = 0.0
    at_s: float = 0.0


def learn_mean(mean: Mean, took_s: float, median_s: float, trust: float, now_s: float) -> None:
    """Work of so long was predicted to take that long in the median, by who knew so much."""
    before: float = mean.weight
    age_s, kept = now_s - mean.at_s, 1.0
    if age_s > 0.0:
        kept = min(pow(0.5, age_s / MEAN_HALF_LIFE_S), MEAN_WEIGHT_MAX / max(before, MEAN_WEIGHT_MAX))
        mean.at_s = now_s
    mean.took_s = kept * mean.took_s + trust * min(took_s, MEAN_RATIO_MAX * median_s)
    mean.median_s = kept * mean.median_s + trust * median_s
    mean.weight = kept * before + trust


def ratio_of(mean: Mean, variance: float) -> float:
    """How many times the median the mean is; at first what it is of a log-normal value of that variance."""
    usual = exp(min(variance, MEAN_VARIANCE_MAX) / 2.0)
    if not mean.weight:
        return usual
    before_s = MEAN_STRENGTH * mean.median_s / mean.weight
    return (mean.took_s + before_s * usual) / (mean.median_s + before_s)


def of_sum(sure: float, sigma: float, deviations: float) -> float:
    """The spread of the logarithm of a sum of which the share `sure` is known and the rest scatters by `sigma`: that
    which puts the quantile where it is, so many `deviations` above the median."""
    return log(sure + (1.0 - sure) * exp(deviations * sigma)) / deviations


def unjudged(kinds: int) -> list[Tracked]:
    """Of all kinds together, and of so many, no promise was judged."""
    return [Tracked() for _ in range(1 + kinds)]


class Promises:
    """How many standard deviations above the median the wanted quantile lies, tracked online by kind of request.

    It rises with every miss and falls a little with every hit, so that the coverage is what it says even where the
    spread is wrong (adaptive conformal inference, Gibbs and Candes 2021). A kind of which little was seen says what
    all of them say. State is sums: promises have no order.
    """

    # One miss moves the bound of all by a tenth of a deviation, nine hits move it back; of its own kind by as much.
    STEP = 0.1
    KIND_STEP = 0.15
    # So many judged promises of one kind count for as much as all others.
    KIND_STRENGTH = 10.0
    DEVIATIONS_MAX = 8.0
    # A bound at the median or below it would call a coin's toss a promise.
    DEVIATIONS_SHARE_MIN = 0.2

    __slots__ = ("_bounds", "_deviations", "_least", "_quantile", "_touched", "kinds")

    def __init__(self, kinds: int, quantile: float, tracked: list[Tracked] | None = None) -> None:
        """What is promised is this `quantile`; `tracked` restores a snapshot: all, then by kind."""
        self._quantile = quantile
        self._deviations = NormalDist().inv_cdf(quantile)
        self._least = self.DEVIATIONS_SHARE_MIN * self._deviations
        self.kinds = tracked if tracked is not None else unjudged(kinds)
        assert len(self.kinds) == kinds + 1, "a snapshot has the kinds of its promises"
        # Between these all of them, and one kind, can show what is added up.
        down, up = self._least - self._deviations, self.DEVIATIONS_MAX - self._deviations
        self._bounds = (down / self.STEP, up / self.STEP), (down / self.KIND_STEP, up / self.KIND_STEP)
        # Those that were added to in this moment, or may have been before a snapshot.
        self._touched = list(range(len(self.kinds)))

    def stretch(self, kind: int) -> float:
        """How many times as wide as a normal value's the spread of this kind is, as far as promises show it."""
        own = self.kinds[1 + kind]
        moved = self.STEP * self.kinds[0].excess
        moved += self.KIND_STEP * own.excess * own.judged / (own.judged + self.KIND_STRENGTH)
        return min(max(self._deviations + moved, self._least), self.DEVIATIONS_MAX) / self._deviations

    def settle(self) -> bool:
        """A moment is over: nothing is added up beyond what can show, or it would take as long to come back. Whether
        anything was."""
        settled = False
        for index in self._touched:
            tracked = self.kinds[index]
            least, most = self._bounds[1] if index else self._bounds[0]
            excess = min(max(tracked.excess, least), most)
            if excess != tracked.excess:
                tracked.excess, settled = excess, True
        self._touched.clear()
        return settled

    def learn(self, kind: int, missed: bool) -> None:
        """Take in whether the actual value exceeded the bound that was promised."""
        excess = (1.0 if missed else 0.0) - (1.0 - self._quantile)
        for index in (0, 1 + kind):
            tracked = self.kinds[index]
            self._touched.append(index)
            tracked.judged += 1.0
            tracked.excess += excess
            if missed:
                tracked.missed += 1.0


def summed(one: Mean, other: Mean) -> Mean:
    """What both have seen, as of the later of the two."""
    at_s = max(one.at_s, other.at_s)
    found = Mean(at_s=at_s)
    for mean in (one, other):
        kept = pow(0.5, (at_s - mean.at_s) / MEAN_HALF_LIFE_S)
        found.took_s += mean.took_s * kept
        found.median_s += mean.median_s * kept
        found.weight += mean.weight * kept
    return found


def added(one: Tracked, other: Tracked) -> Tracked:
    """What both have judged."""
    return Tracked(one.judged + other.judged, one.missed + other.missed, one.excess + other.excess)
