"""What was measured against what was predicted: corrections with honest spread."""

from collections.abc import Collection
from math import erfc, exp, inf, log, pi, pow, sqrt
from typing import Final

import msgspec

from tidegate.core.calibration import HALF_LIFE_S, SPREAD_HALF_LIFE_S, VARIANCE_MIN, WEIGHT_MAX, aged

# A residual beyond this is a fault of the clock or the engine, not a property of either.
LOG_RATIO_MAX: Final = 5.0
# The 0.9 quantile, in deviations: promises are judged about there.
BOUND_DEVIATIONS: Final = 1.2816
# A bound this many deviations below what is believed rules out so little that it says nothing.
BOUND_DEVIATIONS_MIN: Final = -2.0
# How many samples of the whole weigh as much as the prior, which is weak: a declared speed is often off by half, and
# one measurement beats it.
WHOLE_STRENGTH: Final = 0.3
# How far answers of one endpoint lie from its own level before any have shown it. What a wider prior leaves open beyond
# that is the level, which the first answers tell.
SCATTER_VARIANCE: Final = 0.16
# How many samples there must have been for errors to be those of the engine rather than of ignorance.
TRUST_STRENGTH: Final = 3.0
# No sum of parts is nothing; it keeps logarithms finite where all factors were found to be.
_PARTS_MIN: Final = 1e-6


class Residual(msgspec.Struct):
    """Decayed means over samples of one kind: of log(actual / predicted), of parts / predicted, of squared errors.

    `mean` and `x` are relative to what was predicted when the sample was sent, so that what they say of today's
    prediction can be told whatever that is. Errors count for as much as was known: one sample shows where the median
    is, and nothing of the spread around it. `errors` is the weight behind `spread`, which lasts: how far answers of an
    engine lie from their middle is the same for longer than that middle is.
    """

    weight: float = 0.0
    mean: float = 0.0
    x: list[float] = []
    spread: float = 0.0
    at_s: float = 0.0
    errors: float = 0.0

    def infer(self, residual: float, x: list[float], factors: list[float], within: float, now_s: float) -> None:
        """Take in a sample that was inferred to be off today's prediction by `residual`, with that much variance."""
        weight = _count(self, now_s, 1.0)
        if not self.x:
            self.x = list(x)
        now = residual_of(self, factors) if weight > 1.0 else 0.0
        moved = (residual - now) / weight
        self.mean = moved + now + log_parts(factors, self.x)
        apart = (residual - now) * (residual - now) + within
        self.spread += (apart - self.spread) / self.errors

    def weight_at(self, now_s: float) -> float:
        """Effective number of recent samples; falls towards zero as knowledge ages."""
        age_s = now_s - self.at_s
        return self.weight * pow(0.5, age_s / HALF_LIFE_S) if age_s > 0.0 else self.weight


class Mix:
    """What a correction says of one cell.

    `predicted * exp(bias)` is the median. `variance` is that of the logarithm, `at_s` when anything was last learned,
    `weight` of how many samples, `trust` how much is known, from 0 to 1.
    """

    __slots__ = ("at_s", "bias", "trust", "variance", "weight")

    def __init__(self, bias: float, variance: float, at_s: float, weight: float) -> None:
        self.bias = bias
        self.variance = variance
        self.at_s = at_s
        self.weight = weight
        self.trust = weight / (weight + TRUST_STRENGTH)


class Correction:
    """Multiplicative correction of one predicted quantity: cells that shrink towards their row, rows towards the whole.

    A cell with few samples says what its row says, and a row what the endpoint says; before any sample the factor
    is one and the spread is the prior's. Each level is the normal-inverse-gamma posterior whose prior is the coarser
    level (Gelman, Bayesian Data Analysis, 3.3).
    """

    # How many samples of the row, the cell weigh as much as the median of what is coarser.
    ROW_STRENGTH = 1.0
    CELL_STRENGTH = 2.0
    # And its spread: one sample shows where the median is, but nothing of how far others will lie from it.
    SPREAD_STRENGTH = 3.0

    __slots__ = ("_columns", "_factors", "_levels", "_mixed", "_prior_variance", "_unmixed", "cells")

    def __init__(
        self,
        rows: int,
        columns: int,
        prior_sigma: float,
        cells: list[Residual] | None = None,
        factors: list[float] | None = None,
    ) -> None:
        """Rows and columns of cells; `cells` restores a snapshot: whole, then rows, then cells row by row.

        `factors` are those of the parts that a prediction is the sum of; without them it has one part.
        """
        count = 1 + rows + rows * columns
        self.cells = cells if cells is not None else [Residual() for _ in range(count)]
        assert len(self.cells) == count, "a snapshot has the shape of its correction"
        self._columns = columns
        self._factors = [1.0] if factors is None else factors
        self._prior_variance = max(prior_sigma * prior_sigma, VARIANCE_MIN)
        self._levels = [
            self._path(1 + row, 1 + rows + row * columns + column) for row in range(rows) for column in range(columns)
        ]
        self._unmixed: list[Mix | None] = [None] * (rows * columns)
        self._mixed = self._unmixed.copy()

    def at(self, row: int, column: int, now_s: float) -> tuple[Mix, float]:
        """What is believed of this cell, and the spread of the logarithm at `now_s`.

        What was learned long ago is trusted less, not shifted.
        """
        mix = self.mixed(row, column)
        age_s = now_s - mix.at_s
        if age_s <= 0.0:
            return mix, sqrt(mix.variance)
        return mix, sqrt(mix.variance + aged(mix.variance, self._prior_variance, mix.weight, age_s))

    def mixed(self, row: int, column: int) -> Mix:
        """What is believed of this cell as of when anything was last learned. Memoised until then."""
        index = row * self._columns + column
        return self._mixed[index] or self._mix(index)

    def learn(
        self,
        row: int,
        column: int,
        log_ratio: float,
        now_s: float,
        *,
        x: list[float] | None = None,
        error: float | None = None,
        trust: float = 1.0,
        telling: float = 1.0,
    ) -> None:
        """Take in log(actual / predicted before correction), where the prediction was the sum of parts.

        `x` are these parts over what was predicted, before factors and corrections, `error` is by how much the
        logarithm of the corrected prediction missed, and `trust` how much was known then. Of its own kind it tells as
        much as any other, and of the whole endpoint as so much of one.
        """
        ratio = min(max(log_ratio, -LOG_RATIO_MAX), LOG_RATIO_MAX)
        if error is None:
            error = ratio - self.at(row, column, now_s)[0].bias
        parts = [1.0] if x is None else x
        for level, _ in self._levels[row * self._columns + column]:
            _learn(level, ratio, parts, error, trust, now_s, telling if level is self.cells[0] else 1.0)
        self._mixed = self._unmixed.copy()

    def amend(self, row: int, column: int, changes: list[float]) -> None:
        """One of the samples of this cell was not what it was taken for: its `x` are to change by so much."""
        for level, _ in self._levels[row * self._columns + column]:
            if level.x:
                weight = max(level.weight, 1.0)
                level.x = [max(0.0, x + change / weight) for x, change in zip(level.x, changes, strict=True)]
        self._mixed = self._unmixed.copy()

    def learn_at_least(
        self, row: int, column: int, log_ratio: float, now_s: float, *, x: list[float] | None = None
    ) -> None:
        """Take in a censored sample: the true value is at least this; `log_ratio` is to today's prediction.

        It counts as what is believed of values beyond the bound. Dropping such samples would bias the model towards
        optimism, and so would letting one pull down a level that already expects more, or take it for certainty: it is
        passed over where it would lower the bound that nine in ten are below.
        """
        mix, sigma = self.at(row, column, now_s)
        inferred = beyond(min(log_ratio, LOG_RATIO_MAX), mix.bias, sigma)
        if inferred is None:
            return
        residual, within = inferred
        believed = 0.0
        parts = [1.0] if x is None else x
        levels = self._levels[row * self._columns + column]
        before = [msgspec.structs.replace(level) for level, _ in levels]
        for level, strength in levels:
            weight = level.weight_at(now_s)
            now = residual_of(level, self._factors) if level.weight else 0.0
            believed += weight / (weight + strength) * (now - believed)
            if residual >= believed and (residual >= now or not level.weight):
                level.infer(residual, parts, self._factors, within, now_s)
        self._mixed = self._unmixed.copy()
        later, wider = self.at(row, column, now_s)
        if later.bias + BOUND_DEVIATIONS * wider < mix.bias + BOUND_DEVIATIONS * sigma:
            for (level, _), known in zip(levels, before, strict=True):
                level.weight, level.mean, level.x, level.at_s = known.weight, known.mean, known.x, known.at_s
                level.spread, level.errors = known.spread, known.errors
            self._mixed = self._unmixed.copy()

    def refer(self, factors: list[float]) -> None:
        """Correct what these factors predict from now on."""
        self._factors = factors
        for cell in self.cells:
            if cell.weight:
                _refer(cell, factors)
        self._mixed = self._unmixed.copy()

    def forget(self, kept: float, ratio: float, measured: Collection[int] = ()) -> None:
        """All times have changed by that ratio, and with them the predictions: of what was known little is kept.
        Parts in `measured` are made of such times, and have grown with them.

        Of each cell the same share: one that is seldom met would outlive many changes, some of them false alarms that
        were taken back little by little, and which it has never heard of.
        """
        share = kept / max(kept, *[cell.weight for cell in self.cells])
        for cell in self.cells:
            if cell.weight:
                cell.mean += log(ratio)
                if measured:
                    cell.x = [x * ratio if i in measured else x for i, x in enumerate(cell.x)]
                cell.weight *= share
                cell.errors *= share
        self._mixed = self._unmixed.copy()

    def _path(self, row: int, cell: int) -> tuple[tuple[Residual, float], ...]:
        """The levels from coarse to fine, each with its strength."""
        return (
            (self.cells[0], WHOLE_STRENGTH),
            (self.cells[row], self.ROW_STRENGTH),
            (self.cells[cell], self.CELL_STRENGTH),
        )

    def _mix(self, index: int) -> Mix:
        levels = self._levels[index]
        # Every sample reaches the whole, so its time is that of the newest. A finer level that has seen nothing
        # since then has aged against it.
        whole = levels[0][0]
        bias, variance, spread_strength = 0.0, min(self._prior_variance, SCATTER_VARIANCE), self.SPREAD_STRENGTH
        unknown = self._prior_variance - variance
        factors, most = self._factors, 0.0
        for level, strength in levels:
            if not level.weight:
                continue
            weight, errors = _left(level, whole.at_s)
            most = max(most, weight)
            share = weight / (weight + strength)
            apart = residual_of(level, factors) - bias
            # What two levels disagree on is uncertainty too.
            scatter = errors * level.spread + strength * share * apart * apart
            variance = (spread_strength * variance + scatter) / (spread_strength + errors)
            bias += share * apart
        # Of a level of which nobody knew but that it varies by so much, each answer tells as well as it repeats.
        level_variance = unknown * variance / (variance + most * unknown)
        variance = max(level_variance + variance, VARIANCE_MIN)
        at_s = whole.at_s if whole.weight else inf
        mix = self._mixed[index] = Mix(bias, variance, at_s, most)
        return mix


# Each answer has three levels learn of two kinds of time: functions take half as long as methods of a record do where
# this is compiled.
def residual_of(level: Residual, factors: list[float]) -> float:
    """Mean of log(actual / what these factors predict)."""
    mean: float = level.mean
    return mean - log_parts(factors, level.x)


def _learn(
    level: Residual, log_ratio: float, x: list[float], error: float, trust: float, now_s: float, telling: float
) -> None:
    """Take one sample in."""
    share = telling / _count(level, now_s, telling)
    errors: float = level.errors
    mean: float = level.mean
    spread: float = level.spread
    known: list[float] = level.x
    level.mean = mean + (log_ratio - mean) * share
    level.x = [k + (x[i] - k) * share for i, k in enumerate(known)] if known else list(x)
    level.spread = spread + (trust * error * error - spread) * telling / errors


def _count(level: Residual, now_s: float, telling: float) -> float:
    """One more sample: what it weighs together with what is left of those before it.

    What time has passed over is forgotten, and what is more than the most; within one moment nothing.
    """
    weight: float = level.weight
    errors: float = level.errors
    age_s = now_s - level.at_s
    if age_s > 0.0:
        level.at_s = now_s
        if weight:
            weight = min(weight * pow(0.5, age_s / HALF_LIFE_S), WEIGHT_MAX - 1.0)
            errors = min(errors * pow(0.5, age_s / SPREAD_HALF_LIFE_S), WEIGHT_MAX - 1.0)
    weight += telling
    level.weight, level.errors = weight, errors + telling
    return weight


def _left(level: Residual, now_s: float) -> tuple[float, float]:
    """What is left of its weight, and of that behind its spread."""
    weight: float = level.weight
    errors: float = level.errors
    age_s = now_s - level.at_s
    if age_s <= 0.0:
        return weight, errors
    return level.weight_at(now_s), errors * pow(0.5, age_s / SPREAD_HALF_LIFE_S)


def _refer(cell: Residual, factors: list[float]) -> None:
    """Tell the same as if all samples had been predicted by these factors.

    The mean of parts that were predicted ten times apart would be that of the largest.
    """
    x: list[float] = cell.x
    mean: float = cell.mean
    total = log_parts(factors, x)
    scale = exp(-total)
    cell.x = [part * scale for part in x]
    cell.mean = mean - total


def level_of(whole: Residual, believed: list[float]) -> float:
    """How many times as long all parts together take as is believed of them."""
    if not whole.weight:
        return 1.0
    residual = min(max(residual_of(whole, believed), -LOG_RATIO_MAX), LOG_RATIO_MAX)
    return exp(whole.weight / (whole.weight + WHOLE_STRENGTH) * residual)


def combined(one: Residual, other: Residual, factors: list[float]) -> Residual:
    """What both have seen, as of the later of the two, told as if these factors had predicted it."""
    one, other = (msgspec.structs.replace(each) for each in (one, other))
    for each in (one, other):
        if each.weight:
            _refer(each, factors)
    if not one.weight or not other.weight:
        return one if one.weight else other
    at_s = max(one.at_s, other.at_s)
    (mine, mine_errors), (its, its_errors) = _left(one, at_s), _left(other, at_s)
    weight, errors = mine + its, mine_errors + its_errors
    return Residual(
        weight=weight,
        mean=(mine * one.mean + its * other.mean) / weight,
        x=[(mine * a + its * b) / weight for a, b in zip(one.x, other.x, strict=True)],
        spread=(mine_errors * one.spread + its_errors * other.spread) / errors if errors else 0.0,
        at_s=at_s,
        errors=errors,
    )


def log_parts(factors: list[float], x: list[float]) -> float:
    """The logarithm of a sum of parts, each times its factor."""
    total = 0.0
    for i, factor in enumerate(factors):
        total += factor * x[i]
    return log(total) if total > _PARTS_MIN else log(_PARTS_MIN)


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
