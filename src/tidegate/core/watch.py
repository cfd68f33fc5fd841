"""Notices when what is measured leaves what is believed: two-sided CUSUM on ranks, which knows of no distribution."""

from math import log, sqrt
from statistics import NormalDist

from tidegate.core.histogram import Histogram

# Before so many of a cell were seen, its next one is compared with all cells together; and of these, with nothing.
KNOWN_MIN = 20
# A shift by one deviation is what is looked for, and half of it is taken off each time (Page 1954).
SLACK = 0.5
# How far the sum has to come. Of independent values, one sum in a million values does (Siegmund 1985); but what is
# believed is itself off, and not always by as much. What that comes to is found by simulation:
# tests/core/test_doctor_rates.py.
SUM_MAX = 12.0
# A shift that is sure and so small changes no decision, and may be in what was believed: half of the values since have
# to be off by more than this.
RATIO_MIN = 1.25
# What neighbours have in common is taken from each, as much as the last few hundred had of it, and no more than this.
CORRELATION_MAX = 0.8
_CORRELATION_KEPT = 0.99
_CORRELATION_PRIOR = 20.0

_NORMAL = NormalDist()

Cell = tuple[int, int]
"""A bucket of prompt length and one of load: each is compared with its own kind, where that is known."""


class Alarm:
    """A shift that was noticed with value number `number`: since when, and how far all values since then had moved."""

    __slots__ = ("noticed_s", "number", "seen", "since_s")

    def __init__(self, number: int, noticed_s: float, since_s: float, seen: Histogram) -> None:
        self.number = number
        self.noticed_s = noticed_s
        self.since_s = since_s
        self.seen = seen


class _Sum:
    """One side: how far the ranks have come to lie on it. It begins anew when they do not, or when it was noticed."""

    __slots__ = ("alarm", "alarms", "seen", "since_s", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.since_s = 0.0
        self.seen = Histogram()
        self.alarm: Alarm | None = None
        self.alarms = 0

    def add(self, score: float, moved: float, number: int, at_s: float) -> None:
        if self.total == 0.0:
            self.since_s, self.seen = at_s, Histogram()
        self.total = max(0.0, self.total + score - SLACK)
        self.seen.add(moved)
        if self.total > SUM_MAX and self._matters():
            self.alarm = Alarm(number, at_s, self.since_s, self.seen)
            self.alarms += 1
            self.total = 0.0

    def _matters(self) -> bool:
        ratio = self.seen.ratio
        return max(ratio, 1.0 / ratio) >= RATIO_MIN


class Watch:
    """A series of log(measured / believed), each with its cell.

    Each value is ranked among those of its cell before it, or of all; the ranks, as normal scores, have the same
    distribution whatever that of the values is, while that stays what it is (sequential normal scores: Conover,
    Tercero-Gomez and Cordero-Franco 2017). Two sums add up what lies above and below.
    """

    __slots__ = ("_common", "_last", "_squares", "all", "cells", "faster", "number", "slower")

    def __init__(self) -> None:
        self.all = Histogram()
        self.cells: dict[Cell, Histogram] = {}
        self.number = 0
        self.slower, self.faster = _Sum(), _Sum()
        self._last = self._common = self._squares = 0.0

    def add(self, cell: Cell, log_ratio: float, at_s: float) -> None:
        """Take in the next one."""
        self.number += 1
        known = self.cells.get(cell)
        if known is None:
            known = self.cells[cell] = Histogram()
        like = known if known.total >= KNOWN_MIN else self.all
        if like.total >= KNOWN_MIN:
            score = self._own(_NORMAL.inv_cdf(like.below(log_ratio)))
            moved = log_ratio - log(like.ratio)
            self.slower.add(score, moved, self.number, at_s)
            self.faster.add(-score, moved, self.number, at_s)
        known.add(log_ratio)
        self.all.add(log_ratio)

    def _own(self, score: float) -> float:
        """The part of a score that the one before it does not explain, at the same spread."""
        self._common = _CORRELATION_KEPT * self._common + score * self._last
        self._squares = _CORRELATION_KEPT * self._squares + score * score
        correlation = min(max(self._common / (self._squares + _CORRELATION_PRIOR), 0.0), CORRELATION_MAX)
        own = (score - correlation * self._last) / sqrt(1.0 - correlation * correlation)
        self._last = score
        return own
