"""Output length in tokens: what a request of this class is likely to produce."""

from math import erfc, exp, log, sqrt

import msgspec

from tidegate.core.calibration import VARIANCE_MIN, Cell
from tidegate.core.correction import beyond

# Before anything was seen: the Azure conversation trace has a median of 129 output tokens, its code trace 13.
PRIOR_TOKENS = 100.0
PRIOR_SIGMA = 1.0
PRIOR_STRENGTH = 1.0
# One length shows where the middle is, but little of how far others will lie from it.
SPREAD_STRENGTH = 1.0
# Classes are a handful of names times three sizes; beyond this a new one shares its parent's cell.
CLASSES_MAX = 64
# Clients use a handful of bounds; beyond this the memo starts afresh.
MEMO_MAX = 1024


class Length(msgspec.Struct, frozen=True):
    """Output tokens of one completion: expected, and the 95th percentile; neither beyond the client's bound."""

    expected_tokens: float
    high_tokens: float


class LengthModel:
    """Log-normal output length per class; a class without samples says what its parent says."""

    __slots__ = ("_memo", "cells")

    def __init__(self, cells: dict[str, Cell] | None = None) -> None:
        self.cells = cells if cells is not None else {}
        self._memo: dict[tuple[str, int | None], Length] = {}

    def at(self, klass: str, tokens_max: int | None) -> Length:
        """What is believed of this class, cut at the client's own bound. Memoised: it is on every request's path."""
        return self._memo.get((klass, tokens_max)) or self._mix(klass, tokens_max)

    def learn(self, klass: str, tokens: float, now_s: float, *, at_least: bool = False) -> None:
        """Take in one measured length; `at_least` where the client left, or its own bound cut the output."""
        if tokens < 1.0:
            return
        x, within = log(tokens), 0.0
        if at_least:
            mu, variance = self._log_moments(klass)
            inferred = beyond(x, mu, sqrt(variance))
            if inferred is None:
                return
            x, within = inferred
        for name in dict.fromkeys((_parent(klass), klass)):
            cell = self.cells.get(name)
            if cell is None:
                if len(self.cells) >= CLASSES_MAX:
                    continue
                cell = self.cells[name] = Cell()
            cell.learn(x, now_s, within)
        self._memo.clear()

    def _log_moments(self, klass: str) -> tuple[float, float]:
        mu, variance = log(PRIOR_TOKENS), PRIOR_SIGMA**2
        for name in dict.fromkeys((_parent(klass), klass)):
            cell = self.cells.get(name)
            if cell is not None:
                share = cell.weight / (cell.weight + PRIOR_STRENGTH)
                apart = cell.mean - mu
                scatter = cell.weight * cell.variance + PRIOR_STRENGTH * share * apart * apart
                variance = (SPREAD_STRENGTH * variance + scatter) / (SPREAD_STRENGTH + cell.weight)
                mu += share * apart
        return mu, max(variance, VARIANCE_MIN)

    def _mix(self, klass: str, tokens_max: int | None) -> Length:
        mu, variance = self._log_moments(klass)
        sigma = sqrt(variance)
        expected, high = exp(mu + variance / 2.0), exp(mu + 1.645 * sigma)
        if tokens_max is not None:
            # The mean of what the bound leaves, not the bound of the mean: many outputs end before either.
            z = (log(max(tokens_max, 1)) - mu) / sigma
            expected = expected * _normal_below(z - sigma) + tokens_max * (1.0 - _normal_below(z))
            high = min(high, float(tokens_max))
        if len(self._memo) >= MEMO_MAX:
            self._memo.clear()
        made = self._memo[klass, tokens_max] = Length(expected, high)
        return made


def _parent(klass: str) -> str:
    return klass.split("/", 1)[0]


def _normal_below(z: float) -> float:
    return 0.5 * erfc(-z / sqrt(2.0))
