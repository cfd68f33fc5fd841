"""A time to first content that has two causes: the model is where it is needed, or it has to be loaded first."""

from collections.abc import Sequence
from math import exp, log, pi, sqrt
from typing import Final

from tidegate.core.record import Fixed

# A cold start that is less responsible than this for what was measured is none.
RESPONSIBLE_MIN: Final = 0.1
# One in fifty times without a load is drawn from a spread that is three times as wide, and as wide as this: there are
# tails, stalls and hangs, and not every outlier is a cold start.
_WILD_SHARE: Final = 0.02
# And one in three where nothing was measured yet: what was declared is often off by as much.
_UNMEASURED_SHARE: Final = 1.0 / 3.0
_WILD_FACTOR: Final = 3.0
_WILD_SIGMA: Final = 1.5
# Before a wait is a tenth of the load, whatever else stalls explains it as well.
_NEWS_SHARE: Final = 0.1
# By how much the share below a quantile may be off, and how soon that is found.
CLOSE: Final = 1e-9
_ROUNDS_MAX: Final = 40
# Where one cause takes the place of another the curve has a corner, about which Newton's method may go to and fro.
_NEWTON_ROUNDS_MAX: Final = 10


def share_below(deviations: float) -> float:
    """P(X <= `deviations`) of a standard normal value.

    The logistic curve stands in for the normal one: within 0.01 of it, and half the price.
    """
    if deviations > 18.0:
        return 1.0
    return 1.0 / (1.0 + exp(-1.702 * deviations)) if deviations > -18.0 else 0.0


class Mixture(Fixed, frozen=True):
    """`warm_s`, and with the chance `cold_share` `load_s` more; both are medians with the deviation of their
    logarithms.

    The sum of both is taken for log-normal too. That fails where the one is uncertain and the other is not: then what
    is below it is at most what is below `warm_s` alone, since no load saves time. `measured`: `warm_s` was not only
    declared.
    """

    warm_s: float
    warm_sigma: float
    cold_share: float
    load_s: float
    load_sigma: float
    measured: bool = True

    @property
    def cold_s(self) -> float:
        """The median with a load in it: taken for the sum of both."""
        return self.warm_s + self.load_s

    @property
    def cold_sigma(self) -> float:
        """The deviation of its logarithm."""
        warm, load = self.warm_s * self.warm_sigma, self.load_s * self.load_sigma
        return sqrt(warm * warm + load * load) / (self.warm_s + self.load_s)

    def quantile_s(self, deviations: float) -> float:
        """The quantile at which a normal value has these `deviations`."""
        warm = (self.warm_s, 1.0 - self.cold_share, self.warm_sigma)
        return quantile_s((warm, (self.cold_s, self.cold_share, self.cold_sigma)), deviations)

    # --- which of the two it was --------------------------------------------------------------------------------

    def responsibility(self, ttft_s: float) -> float:
        """How likely it is that there was a load in this time to first content, 0 where it is hardly.

        What is even longer than a load explains is no less of one.
        """
        if ttft_s <= self.warm_s or self.cold_share <= 0.0:
            return 0.0
        cold_s, cold_sigma = self.cold_s, self.cold_sigma
        log_s = log(min(ttft_s, cold_s))
        over, sigma, wild_sigma, wild = log_s - log(self.warm_s), self.warm_sigma, self._wild_sigma, self._wild_share
        warm = (1.0 - wild) * _density(over / sigma) / sigma
        warm += wild * _density(over / wild_sigma) / wild_sigma
        found = self._posterior(_density((log_s - log(cold_s)) / cold_sigma) / cold_sigma, warm)
        return found if found >= RESPONSIBLE_MIN else 0.0

    def waiting_share(self, waited_s: float) -> float:
        """How likely it is that there is a load where nothing has come for so long; not less than at first."""
        if waited_s <= _NEWS_SHARE * self.load_s or self.cold_share <= 0.0:
            return self.cold_share
        # A load is taken not to be over before its median, and later no news: else a long wait would speak against it.
        under, wild = log(self.warm_s) - log(min(waited_s, self.cold_s)), self._wild_share
        warm = (1.0 - wild) * share_below(under / self.warm_sigma)
        warm += wild * share_below(under / self._wild_sigma)
        return self._posterior(1.0, warm)

    @property
    def _wild_share(self) -> float:
        return _WILD_SHARE if self.measured else _UNMEASURED_SHARE

    @property
    def _wild_sigma(self) -> float:
        return max(_WILD_FACTOR * self.warm_sigma, _WILD_SIGMA)

    def _posterior(self, cold: float, warm: float) -> float:
        """By Bayes; where neither explains what was measured, a cold start does."""
        cold, warm = self.cold_share * cold, (1.0 - self.cold_share) * warm
        return cold / (cold + warm) if cold + warm > 0.0 else 1.0


def quantile_s(causes: Sequence[tuple[float, float, float]], deviations: float) -> float:
    """The quantile, at which a normal value has these `deviations`, of a time that has one of several causes.

    They are medians in seconds, each with its probability and the deviation of its logarithm, from the quickest to the
    slowest; none is quicker than the one before it, whatever their spreads say.

    It lies between those of the causes, where Newton's method finds it, and bisection where that would leave, or does
    not come to an end.
    """
    first_s, likely, first_sigma = causes[0]
    low = high = log(first_s) + deviations * first_sigma
    places = []
    for median_s, p, sigma in causes:
        place = log(median_s)
        places.append((place, p, sigma))
        if place + deviations * sigma > high:
            high = place + deviations * sigma
    wanted = share_below(deviations)
    x = low + (1.0 - likely) * (high - low)
    for count in range(_ROUNDS_MAX):
        excess, slope, least, steep = -wanted, 0.0, 1.0, 0.0
        for place, p, sigma in places:
            share = share_below((x - place) / sigma)
            if share < least:
                least, steep = share, share * (1.0 - share) / sigma
            excess += p * least
            slope += p * steep
        if -CLOSE < excess < CLOSE:
            break
        if excess < 0.0:
            low = x
        else:
            high = x
        step = excess / (1.702 * slope) if slope > 0.0 and count < _NEWTON_ROUNDS_MAX else high - low
        x = x - step if low < x - step < high else (low + high) / 2.0
    return exp(x)


def _density(z: float) -> float:
    return exp(-z * z / 2.0) / sqrt(2.0 * pi)
