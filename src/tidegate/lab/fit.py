"""Least squares with physical signs: what seconds are made of, and how sure that is."""

from collections.abc import Sequence
from math import sqrt
from random import Random

import msgspec

from tidegate.core.leastsquares import non_negative

DRAWS = 200  # of the bootstrap: the ends of an interval of nine in ten rest on ten of them each
OUTSIDE = 0.05  # on either side of an interval


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Something took `seconds`, and was made of so many of each thing that takes time."""

    seconds: float
    counts: tuple[float, ...]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The same thing timed once or more. Its median counts, so that a disturbance does not."""

    name: str
    timings: tuple[Timing, ...]

    @property
    def median(self) -> Timing:
        """The timing in the middle, the faster of two."""
        return _median(self.timings)

    @property
    def spread(self) -> float:
        """How far repeats are from each other: the middle distance from the median, as a share of it."""
        middle_s = self.median.seconds
        distances = sorted(abs(timing.seconds - middle_s) for timing in self.timings)
        return distances[len(distances) // 2] / middle_s


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """One constant: its value, and the interval that holds nine in ten of its bootstrapped values."""

    value: float
    low: float
    high: float


def fit(points: Sequence[Point], rays: Sequence[Sequence[float]], seed: int = 0) -> tuple[Fit, ...]:
    """The constants, one for each count, that explain the medians best: relative errors are least in their squares.

    They are a sum of `rays`, none of them taken less than no times: with a ray for each constant alone, all that is
    asked is that none is negative; one that goes with another can be no larger than its share of that.

    Intervals are from the bootstrap over the repeats of each point: what was timed once seems surer than it is.
    """
    draw = Random(seed)  # noqa: S311 - the same measurements give the same intervals
    best = _solve([point.median for point in points], rays)
    drawn = [
        _solve([_median(draw.choices(point.timings, k=len(point.timings))) for point in points], rays)
        for _ in range(DRAWS)
    ]
    fits = []
    for number, value in enumerate(best):
        values = sorted(constants[number] for constants in drawn)
        low, high = values[int(OUTSIDE * len(values))], values[-1 - int(OUTSIDE * len(values))]
        fits.append(Fit(value=value, low=min(low, value), high=max(high, value)))
    return tuple(fits)


def error(points: Sequence[Point], constants: Sequence[float]) -> float:
    """How far the constants are from the medians: the root of the mean square of relative errors."""
    total = 0.0
    for point in points:
        timing = point.median
        made = sum(count * constant for count, constant in zip(timing.counts, constants, strict=True))
        total += (made / timing.seconds - 1.0) ** 2
    return sqrt(total / len(points))


def _median(timings: Sequence[Timing]) -> Timing:
    return sorted(timings, key=lambda timing: timing.seconds)[(len(timings) - 1) // 2]


def _solve(timings: Sequence[Timing], rays: Sequence[Sequence[float]]) -> list[float]:
    """Least squares of relative errors."""
    rows = [[_dot(timing.counts, ray) / timing.seconds for ray in rays] for timing in timings]
    times = non_negative(rows, [1.0] * len(rows))
    return [_dot(times, parts) for parts in zip(*rays, strict=True)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
