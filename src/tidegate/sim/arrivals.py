"""When requests arrive: renewal processes, sums of them, the hours of a day, and given times."""

from collections.abc import Iterator
from heapq import merge
from itertools import accumulate
from math import exp, gamma, lgamma
from random import Random
from typing import Protocol

import msgspec

from tidegate.sim.lengths import Quantiles

# Beyond these a solution is no more than the limits of floating point: a Weibull shape of 0.1 has a CV of 429.
_WEIBULL_SHAPE_MIN, _WEIBULL_SHAPE_MAX = 0.1, 100.0
HOUR_S = 3600.0


class ArrivalProcess(Protocol):
    """A law of arrival times."""

    def times(self, random: Random) -> Iterator[float]:
        """Seconds from the beginning, never falling. Endless, but where the times are given."""


class Poisson(msgspec.Struct, frozen=True, kw_only=True):
    """Many clients who know nothing of each other: gaps with a CV of one."""

    rate_per_s: float

    def __post_init__(self) -> None:
        assert self.rate_per_s > 0.0

    def times(self, random: Random) -> Iterator[float]:
        """Exponential gaps."""
        at_s, draw, rate_per_s = 0.0, random.expovariate, self.rate_per_s
        while True:
            at_s += draw(rate_per_s)
            yield at_s


class Gamma(msgspec.Struct, frozen=True, kw_only=True):
    """Gaps of a Gamma distribution: `cv` above one is bursts, below one is a rhythm."""

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        assert self.rate_per_s > 0.0
        assert self.cv > 0.0

    def times(self, random: Random) -> Iterator[float]:
        """Gaps of shape 1 / CV^2."""
        shape = self.cv**-2
        at_s, draw, scale_s = 0.0, random.gammavariate, 1.0 / (shape * self.rate_per_s)
        while True:
            at_s += draw(shape, scale_s)
            yield at_s


class Weibull(msgspec.Struct, frozen=True, kw_only=True):
    """Gaps of a Weibull distribution: of the same CV as Gamma's, its bursts are looser and its pauses longer."""

    rate_per_s: float
    cv: float

    def __post_init__(self) -> None:
        assert self.rate_per_s > 0.0
        assert self.cv > 0.0

    def times(self, random: Random) -> Iterator[float]:
        """Gaps of the shape that has this CV."""
        shape = weibull_shape(self.cv)
        at_s, draw, scale_s = 0.0, random.weibullvariate, 1.0 / (self.rate_per_s * gamma(1.0 + 1.0 / shape))
        while True:
            at_s += draw(scale_s, shape)
            yield at_s


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """Independent gaps from a table of quantiles, stretched to the rate: for bursts that no two-parameter law has."""

    rate_per_s: float
    gaps_s: Quantiles

    def __post_init__(self) -> None:
        assert self.rate_per_s > 0.0

    def times(self, random: Random) -> Iterator[float]:
        """The table's gaps."""
        at_s, draw, of, stretch = 0.0, random.random, self.gaps_s.at, 1.0 / (self.rate_per_s * self.gaps_s.mean)
        while True:
            at_s += of(draw()) * stretch
            yield at_s


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One client among others: its share of the rate, and how its gaps scatter."""

    share: float
    cv: float
    weibull: bool = False


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """A few clients of different habits at once; each keeps its CV at any rate."""

    rate_per_s: float
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        assert self.rate_per_s > 0.0
        assert self.parts

    def times(self, random: Random) -> Iterator[float]:
        """The parts' times merged; each part has a stream of chance of its own."""
        whole = sum(part.share for part in self.parts)
        streams = []
        for part in self.parts:
            rate_per_s = self.rate_per_s * part.share / whole
            own = Random(random.getrandbits(64))
            law = Weibull if part.weibull else Gamma
            streams.append(law(rate_per_s=rate_per_s, cv=part.cv).times(own))
        return merge(*streams)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Times as they were: seconds from the beginning, never falling. `speed` 2 is twice as fast."""

    times_s: tuple[float, ...]
    speed: float = 1.0

    def __post_init__(self) -> None:
        assert self.speed > 0.0
        assert all(early <= late for early, late in zip(self.times_s, self.times_s[1:], strict=False))

    def times(self, random: Random) -> Iterator[float]:  # noqa: ARG002 # as given
        """The given times; chance has no part in them."""
        return (at_s / self.speed for at_s in self.times_s)


class Diurnal(msgspec.Struct, frozen=True, kw_only=True):
    """Another process with the hours of a day: its time runs faster in busy hours, so its bursts stay bursts.

    `factors` are the 24 hours' rates relative to the mean; they are scaled to a mean of one, so that over whole days
    the rate stays that of `process`. The beginning is the full hour `starts_h`.
    """

    process: ArrivalProcess
    factors: tuple[float, ...]
    starts_h: int = 0

    def __post_init__(self) -> None:
        assert len(self.factors) == 24
        assert min(self.factors) > 0.0
        assert 0 <= self.starts_h < 24

    def times(self, random: Random) -> Iterator[float]:
        """The process's times, each moved to where as much of the day's work has passed."""
        mean = sum(self.factors) / 24
        rates = [f / mean for f in self.factors[self.starts_h :] + self.factors[: self.starts_h]]
        ends_s = list(accumulate(rate * HOUR_S for rate in rates))
        # The sum of scaled factors may miss 24 by a rounding; the day must not.
        ends_s[-1] = 24 * HOUR_S
        day, hour, begun_s = 0, 0, 0.0
        for work_s in self.process.times(random):
            while work_s - day * 24 * HOUR_S >= ends_s[hour]:
                begun_s = ends_s[hour]
                hour += 1
                if hour == 24:
                    day, hour, begun_s = day + 1, 0, 0.0
            within_s = work_s - day * 24 * HOUR_S - begun_s
            yield (day * 24 + hour) * HOUR_S + min(within_s / rates[hour], HOUR_S)


def weibull_shape(cv: float) -> float:
    """The shape whose CV this is, by bisection: CV falls as the shape grows."""
    low, high = _WEIBULL_SHAPE_MIN, _WEIBULL_SHAPE_MAX
    for _ in range(60):
        shape = (low + high) / 2.0
        # CV^2 + 1 = G(1 + 2/k) / G(1 + 1/k)^2, whose parts overflow long before their ratio does.
        if exp(lgamma(1.0 + 2.0 / shape) - 2.0 * lgamma(1.0 + 1.0 / shape)) - 1.0 > cv * cv:
            low = shape
        else:
            high = shape
    return (low + high) / 2.0
