"""Output length in tokens: what a request of this class is likely to produce."""

from math import exp, log, sqrt

import msgspec

from tidegate.core.calibration import Cell

# Before anything was seen: the Azure conversation trace has a median of 129 output tokens, its code trace 13.
PRIOR_TOKENS = 100.0
PRIOR_SIGMA = 1.0
PRIOR_STRENGTH = 1.0
# Classes are a handful of names times three sizes; beyond this a new one shares its parent's cell.
CLASSES_MAX = 64


class Length(msgspec.Struct, frozen=True):
    """Output tokens of one completion: expected, and the 95th percentile; neither beyond the client's bound."""

    expected_tokens: float
    high_tokens: float


class LengthModel:
    """Log-normal output length per class; a class without samples says what its parent says."""

    __slots__ = ("_memo", "cells")

    def __init__(self, cells: dict[str, Cell] | None = None) -> None:
        self.cells = cells if cells is not None else {}
        self._memo: dict[str, tuple[float, float]] = {}

    def at(self, klass: str, tokens_max: int | None) -> Length:
        """What is believed of this class, cut at the client's own bound."""
        mean, high = self._memo.get(klass) or self._mix(klass)
        if tokens_max is None:
            return Length(mean, high)
        return Length(mean if mean < tokens_max else tokens_max, high if high < tokens_max else tokens_max)

    def learn(self, klass: str, tokens: int, now_s: float, *, at_least: bool = False) -> None:
        """Take in one measured length; `at_least` where the client left, or its own bound cut the output."""
        if tokens < 1:
            return
        x = log(tokens)
        if at_least:
            mu, _ = self._log_moments(klass)
            # A bound below what is believed says nothing; above it, it is the best there is.
            if x <= mu:
                return
        parent = klass.split("/", 1)[0]
        for name in dict.fromkeys((parent, klass)):
            cell = self.cells.get(name)
            if cell is None:
                if len(self.cells) >= CLASSES_MAX:
                    continue
                cell = self.cells[name] = Cell()
            cell.learn(x, now_s)
        self._memo.clear()

    def _log_moments(self, klass: str) -> tuple[float, float]:
        mu, variance = log(PRIOR_TOKENS), PRIOR_SIGMA**2
        for name in dict.fromkeys((klass.split("/", 1)[0], klass)):
            cell = self.cells.get(name)
            if cell is not None:
                share = cell.weight / (cell.weight + PRIOR_STRENGTH)
                variance += share * (cell.variance - variance) + share * (1 - share) * (cell.mean - mu) ** 2
                mu += share * (cell.mean - mu)
        return mu, variance

    def _mix(self, klass: str) -> tuple[float, float]:
        mu, variance = self._log_moments(klass)
        made = (exp(mu + variance / 2.0), exp(mu + 1.645 * sqrt(variance)))
        if len(self._memo) < CLASSES_MAX:
            self._memo[klass] = made
        return made
