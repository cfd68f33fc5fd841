"""What was measured against what was predicted: corrections with honest spread."""

from math import erfc, exp, inf, pi, sqrt

import msgspec

from tidegate.core.calibration import HALF_LIFE_S, VARIANCE_MIN, Cell

# A residual beyond this is a fault of the clock or the engine, not a property of either.
LOG_RATIO_MAX = 5.0
# The 0.9 quantile, in deviations: promises are judged about there.
BOUND_DEVIATIONS = 1.2816
# A bound this many deviations below what is believed rules out so little that it says nothing.
BOUND_DEVIATIONS_MIN = -2.0


class Mix(msgspec.Struct, gc=False):
    """What a correction says of one cell: `predicted * factor` is the median, `* factor * mean_ratio` the mean.

    `variance` is that of the logarithm, `at_s` when anything was last learned.
    """

    bias: float
    variance: float
    at_s: float
    factor: float
    mean_ratio: float


class Correction:
    """Multiplicative correction of one predicted quantity: cells that shrink towards their row, rows towards the whole.

    A cell with few samples says what its row says, and a row what the endpoint says; before any sample the factor
    is one and the spread is the prior's. Each level is the normal-inverse-gamma posterior whose prior is the coarser
    level (Gelman, Bayesian Data Analysis, 3.3).
    """

    # How many samples of the whole, the row, the cell weigh as much as the median of what is coarser. The prior is
    # weak: a declared speed is often off by half, and one measurement beats it.
    WHOLE_STRENGTH = 0.3
    ROW_STRENGTH = 1.0
    CELL_STRENGTH = 2.0
    # And its spread: one sample shows where the median is, but nothing of how far others will lie from it.
    SPREAD_STRENGTH = 3.0

    __slots__ = ("_columns", "_levels", "_mixed", "_prior_variance", "_unmixed", "cells")

    def __init__(self, rows: int, columns: int, prior_sigma: float, cells: list[Cell] | None = None) -> None:
        """Rows and columns of cells; `cells` restores a snapshot: whole, then rows, then cells row by row."""
        count = 1 + rows + rows * columns
        self.cells = cells if cells is not None else [Cell() for _ in range(count)]
        assert len(self.cells) == count, "a snapshot has the shape of its correction"
        self._columns = columns
        self._prior_variance = max(prior_sigma * prior_sigma, VARIANCE_MIN)
        self._levels = [
            self._path(1 + row, 1 + rows + row * columns + column) for row in range(rows) for column in range(columns)
        ]
        self._unmixed: list[Mix | None] = [None] * (rows * columns)
        self._mixed = self._unmixed.copy()

    def at(self, row: int, column: int, now_s: float) -> tuple[Mix, float]:
        """What is believed of this cell, and the spread of the logarithm at `now_s`.

        What was learned long ago is trusted less, not shifted. Memoised: the arithmetic is on every request's path.
        """
        index = row * self._columns + column
        mix = self._mixed[index] or self._mix(index)
        age_s = now_s - mix.at_s
        # A rational stand-in for the half-life: half of the prior's spread is back after HALF_LIFE_S.
        faded = age_s / (age_s + HALF_LIFE_S) if age_s > 0.0 else 0.0
        return mix, sqrt(mix.variance + faded * self._prior_variance)

    def learn(self, row: int, column: int, log_ratio: float, now_s: float) -> None:
        """Take in log(actual / predicted before correction)."""
        x = min(max(log_ratio, -LOG_RATIO_MAX), LOG_RATIO_MAX)
        for level, _ in self._levels[row * self._columns + column]:
            level.learn(x, now_s)
        self._mixed = self._unmixed.copy()

    def learn_at_least(self, row: int, column: int, log_ratio: float, now_s: float) -> None:
        """Take in a censored sample: the true value is at least this.

        It counts as what is believed of values beyond the bound. Dropping such samples would bias the model towards
        optimism, and so would letting one pull down a level that already expects more, or take it for certainty: it is
        passed over where it would lower the bound that nine in ten are below.
        """
        mix, sigma = self.at(row, column, now_s)
        inferred = beyond(min(log_ratio, LOG_RATIO_MAX), mix.bias, sigma)
        if inferred is None:
            return
        x, within = inferred
        believed = 0.0
        levels = self._levels[row * self._columns + column]
        before = [(level.weight, level.mean, level.variance, level.at_s) for level, _ in levels]
        for level, strength in levels:
            weight = level.weight_at(now_s)
            believed += weight / (weight + strength) * (level.mean - believed)
            if x >= believed and (x >= level.mean or not level.weight):
                level.learn(x, now_s, within)
        self._mixed = self._unmixed.copy()
        later, wider = self.at(row, column, now_s)
        if later.bias + BOUND_DEVIATIONS * wider < mix.bias + BOUND_DEVIATIONS * sigma:
            for (level, _), known in zip(levels, before, strict=True):
                level.weight, level.mean, level.variance, level.at_s = known
            self._mixed = self._unmixed.copy()

    def _path(self, row: int, cell: int) -> tuple[tuple[Cell, float], ...]:
        """The levels from coarse to fine, each with its strength."""
        return (
            (self.cells[0], self.WHOLE_STRENGTH),
            (self.cells[row], self.ROW_STRENGTH),
            (self.cells[cell], self.CELL_STRENGTH),
        )

    def _mix(self, index: int) -> Mix:
        levels = self._levels[index]
        # Every sample reaches the whole, so its time is that of the newest. A finer level that has seen nothing
        # since then has aged against it.
        whole = levels[0][0]
        bias, variance, spread_strength = 0.0, self._prior_variance, self.SPREAD_STRENGTH
        for level, strength in levels:
            weight = level.weight if level.at_s >= whole.at_s else level.weight_at(whole.at_s)
            share = weight / (weight + strength)
            apart = level.mean - bias
            # What two levels disagree on is uncertainty too.
            scatter = weight * level.variance + strength * share * apart * apart
            variance = (spread_strength * variance + scatter) / (spread_strength + weight)
            bias += share * apart
        variance = max(variance, VARIANCE_MIN)
        at_s = whole.at_s if whole.weight else inf
        mix = self._mixed[index] = Mix(bias, variance, at_s, exp(bias), exp(variance / 2.0))
        return mix


def beyond(bound: float, mean: float, sigma: float) -> tuple[float, float] | None:
    """What a normal value is expected to be given that it exceeds `bound`, and its variance; None: no news.

    The variance is never taken so small that a bound below the mean would narrow what is believed.
    """
    z = (bound - mean) / sigma
    if z < BOUND_DEVIATIONS_MIN:
        return None
    # The inverse Mills ratio; its asymptote where the tail is too thin for floats.
    ratio = z + 1.0 / z if z > 6.0 else exp(-z * z / 2.0) / sqrt(2.0 * pi) / (0.5 * erfc(z / sqrt(2.0)))
    within = max(1.0 + z * ratio, 1.0) - ratio * ratio
    return mean + sigma * ratio, sigma * sigma * max(within, 0.0)
