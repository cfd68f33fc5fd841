"""What was measured against what was predicted: corrections with honest spread, and calibrated quantiles."""

from math import erfc, exp, log, pi, sqrt
from typing import ClassVar

import msgspec

# A sample counts half after ten minutes: short against the daily cycle of vendor latency, yet long
# enough to hold ten samples at one request a minute.
HALF_LIFE_S = 600.0
# No cell remembers more than this many samples, so that a change shows within a few dozen requests.
WEIGHT_MAX = 32.0
# A residual beyond this is a fault of the clock or the engine, not a property of either.
LOG_RATIO_MAX = 5.0


class Cell(msgspec.Struct):
    """Decayed mean and variance of log(actual / predicted)."""

    weight: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    at_s: float = 0.0

    def learn(self, x: float, now_s: float) -> None:
        """Take one sample in."""
        if self.weight:
            self.weight *= 0.5 ** (max(0.0, now_s - self.at_s) / HALF_LIFE_S)
        self.weight = min(self.weight + 1.0, WEIGHT_MAX)
        self.at_s = now_s
        before = x - self.mean
        self.mean += before / self.weight
        self.variance += (before * (x - self.mean) - self.variance) / self.weight


class Mix(msgspec.Struct, frozen=True):
    """What a correction says of one cell: shift and variance of the logarithm, and when it was last fed."""

    bias: float
    variance: float
    at_s: float


class Correction:
    """Multiplicative correction of one predicted quantity: cells that shrink towards their row, rows towards the whole.

    `predicted * exp(bias)` is the median of what will be measured. A cell with few samples says what its row says, and
    a row what the endpoint says; before any sample, bias is zero and the spread is the prior's.
    """

    # How many samples of a finer level weigh as much as the coarser one. The prior is weak: a declared
    # speed is often off by half, and one measurement beats it.
    WHOLE_STRENGTH = 0.3
    ROW_STRENGTH = 1.0
    CELL_STRENGTH = 2.0

    __slots__ = ("_columns", "_mixed", "_prior_variance", "cells")

    def __init__(self, rows: int, columns: int, prior_sigma: float, cells: list[Cell] | None = None) -> None:
        """Rows and columns of cells; `cells` restores a snapshot: whole, then rows, then cells row by row."""
        count = 1 + rows + rows * columns
        self.cells = cells if cells is not None else [Cell() for _ in range(count)]
        assert len(self.cells) == count, "a snapshot has the shape of its correction"
        self._columns = columns
        self._prior_variance = prior_sigma * prior_sigma
        self._mixed: list[Mix | None] = [None] * (rows * columns)

    def at(self, row: int, column: int) -> Mix:
        """What is believed of this cell. Memoised: the arithmetic is on every request's path."""
        index = row * self._columns + column
        return self._mixed[index] or self._mix(index, row)

    def variance_at(self, mix: Mix, now_s: float) -> float:
        """The spread of `mix` at `now_s`: what was learned long ago is trusted less, not shifted."""
        faded = 1.0 - 0.5 ** ((now_s - mix.at_s) / HALF_LIFE_S) if now_s > mix.at_s else 0.0
        return mix.variance + faded * self._prior_variance

    def learn(self, row: int, column: int, log_ratio: float, now_s: float) -> None:
        """Take in log(actual / predicted before correction)."""
        x = min(max(log_ratio, -LOG_RATIO_MAX), LOG_RATIO_MAX)
        rows = len(self._mixed) // self._columns
        for index in (0, 1 + row, 1 + rows + row * self._columns + column):
            self.cells[index].learn(x, now_s)
        self._mixed = [None] * len(self._mixed)

    def learn_at_least(self, row: int, column: int, log_ratio: float, now_s: float) -> None:
        """Take in a censored sample: the true value is at least this.

        It counts as the mean of what is believed, given that it exceeds the bound; a bound well below what is
        believed says nothing. Dropping such samples would bias the model towards optimism.
        """
        mix = self.at(row, column)
        sigma = sqrt(self.variance_at(mix, now_s)) or 1e-6
        z = (log_ratio - mix.bias) / sigma
        if z > -1.0:
            self.learn(row, column, mix.bias + sigma * _mean_beyond(z), now_s)

    def _mix(self, index: int, row: int) -> Mix:
        rows = len(self._mixed) // self._columns
        whole, middle, cell = self.cells[0], self.cells[1 + row], self.cells[1 + rows + index]
        bias, variance, at_s = 0.0, self._prior_variance, 0.0
        for level, strength in (
            (whole, self.WHOLE_STRENGTH),
            (middle, self.ROW_STRENGTH),
            (cell, self.CELL_STRENGTH),
        ):
            share = level.weight / (level.weight + strength)
            # Between two levels lies what they disagree on, and that is uncertainty too.
            variance += share * (level.variance - variance) + share * (1.0 - share) * (level.mean - bias) ** 2
            bias += share * (level.mean - bias)
            at_s = max(at_s, level.at_s)
        mix = self._mixed[index] = Mix(bias, variance, at_s if whole.weight else float("inf"))
        return mix


def _mean_beyond(z: float) -> float:
    """Mean of a standard normal, given that it exceeds `z` (inverse Mills ratio)."""
    if z > 6.0:
        return z + 1.0 / z
    return exp(-z * z / 2.0) / sqrt(2.0 * pi) / (0.5 * erfc(z / sqrt(2.0)))


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


def probability_below(limit: float, median: float, sigma: float) -> float:
    """P(X <= limit) for a value whose logarithm spreads around that of `median`.

    The logistic curve stands in for the normal one: within 0.01 of it, and half the price.
    """
    if limit <= 0.0:
        return 0.0
    if median <= 0.0:
        return 1.0
    z = 1.702 * log(limit / median) / sigma
    if z > 30.0:
        return 1.0
    return 1.0 / (1.0 + exp(-z)) if z > -30.0 else 0.0
