"""Two settings by turns on live traffic: which is better, how sure that is, and when to stop.

Requests of one time share queues, caches and budgets, so that two settings side by side would change each other. By
turns they do not: each has the whole installation for a block of time. Blocks come in pairs, and which setting has the
first of a pair is drawn. If the two are alike, the difference of a pair is then as likely to be so as the other way
round, whatever traffic does and however it scatters. That alone is used: S, a sum of n differences, and V, that of
their squares, keep

    S^2 <= (V + c) (log((V + c) / c) + 2 log(1 / alpha))

at all n at once with probability 1 - alpha (de la Pena's bound for symmetric sums, mixed over a normal), so that who
looks after each pair, and stops when he likes, is wrong no more often than that. `c` says how large differences are,
and comes from the first pairs, which are not used for anything else.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import inf, log, sqrt
from statistics import fmean
from typing import Final

import msgspec

from tidegate.core.explore import uniform
from tidegate.core.model import Record

# Wrong in one of twenty trials at most, of value and of promises together.
ALPHA: Final = 0.05
# Pairs that say how large differences are.
SCALE_PAIRS: Final = 3
# A block with fewer says nothing.
REQUESTS_MIN: Final = 10
# What keeps so few of the other's promises is stopped at once, and not when it is sure to be worse.
COLLAPSE_SHARE, COLLAPSE_REQUESTS = 0.5, 50
# Differences that are smaller are none: dollars of a request, or a share.
_LEAST: Final = 1e-9
_DOUBLINGS: Final = 200
_HALVINGS: Final = 60


class Arm(StrEnum):
    """Which settings are in force."""

    AS_IS = "as_is"
    CANDIDATE = "candidate"


class Verdict(StrEnum):
    """What a trial has come to."""

    GOES_ON = "goes_on"
    HARM = "harm"
    COLLAPSED = "collapsed"
    BETTER = "better"
    UNDECIDED = "undecided"


class Tally(msgspec.Struct):
    """What became of the requests of a block. Dollars are what was paid and what running our own cost; `worth_usd` is
    what promises are worth that were kept, by the settings as they are."""

    requests: int = 0
    kept: int = 0
    usd: float = 0.0
    worth_usd: float = 0.0

    def count(self, *, kept: bool, usd: float, worth_usd: float) -> None:
        """One more."""
        self.requests += 1
        self.kept += kept
        self.usd += usd
        self.worth_usd += worth_usd if kept else 0.0

    def add(self, other: "Tally") -> None:
        """All of those, too."""
        self.requests += other.requests
        self.kept += other.kept
        self.usd += other.usd
        self.worth_usd += other.worth_usd

    @property
    def share(self) -> float:
        """Of promises that were kept."""
        return self.kept / max(1, self.requests)

    @property
    def usd_each(self) -> float:
        """Dollars of a request."""
        return self.usd / max(1, self.requests)

    @property
    def value_usd_each(self) -> float:
        """What a request was worth beyond what it cost."""
        return (self.worth_usd - self.usd) / max(1, self.requests)


class Pair(msgspec.Struct):
    """Two blocks, one after the other."""

    as_is: Tally
    candidate: Tally

    @property
    def counts(self) -> bool:
        """Whether both say something."""
        return min(self.as_is.requests, self.candidate.requests) >= REQUESTS_MIN


class Bounds(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How much more the candidate has: the mean of the pairs that count, and where it is. None while that may be
    anywhere."""

    mean: float
    low: float | None
    high: float | None


class Standing(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Of `pairs` that count, what the candidate has more: value and dollars of a request, and of promises kept as a
    share. `short` pairs had too few requests."""

    verdict: Verdict
    pairs: int
    short: int
    as_is: Tally
    candidate: Tally
    value_usd: Bounds | None
    kept: Bounds | None
    usd: Bounds | None


def order(seed: int, number: int) -> tuple[Arm, Arm]:
    """Which goes first in that pair."""
    first = uniform(seed, "switchback", str(number)) < 0.5
    return (Arm.AS_IS, Arm.CANDIDATE) if first else (Arm.CANDIDATE, Arm.AS_IS)


def standing(pairs: Sequence[Pair], pairs_max: int) -> Standing:
    """What the trial has come to with these pairs, of at most so many."""
    used = [pair for pair in pairs if pair.counts]
    as_is, candidate = Tally(), Tally()
    for pair in used:
        as_is.add(pair.as_is)
        candidate.add(pair.candidate)
    value = _bounds([pair.candidate.value_usd_each - pair.as_is.value_usd_each for pair in used])
    kept = _bounds([pair.candidate.share - pair.as_is.share for pair in used])
    return Standing(
        verdict=_verdict(value, kept, gains=_gains(as_is, candidate), over=len(pairs) >= pairs_max),
        pairs=len(used),
        short=len(pairs) - len(used),
        as_is=as_is,
        candidate=candidate,
        value_usd=value,
        kept=kept,
        usd=_bounds([pair.candidate.usd_each - pair.as_is.usd_each for pair in used]),
    )


def collapsed(block: Tally, as_is: Tally) -> bool:
    """Whether a block of the candidate's is so bad, beside the last one of the other, that nobody waits for its end.
    Chance has no bound here: an outage does that, too."""
    if min(block.requests, as_is.requests) < COLLAPSE_REQUESTS:
        return False
    return block.share < COLLAPSE_SHARE * as_is.share


def confidence(differences: Sequence[float], alpha: float) -> tuple[float, float]:
    """Where the mean difference is, at all times but for a share `alpha` of trials; infinite while nobody can say."""
    if len(differences) <= SCALE_PAIRS:
        return -inf, inf
    first, rest = differences[:SCALE_PAIRS], differences[SCALE_PAIRS:]
    middle = sum(first) / SCALE_PAIRS
    scale = max(sum([(one - middle) ** 2 for one in first]) / (SCALE_PAIRS - 1), _LEAST * _LEAST)
    mean = sum(rest) / len(rest)
    spread = [one - mean for one in rest]
    square = sum([one * one for one in spread])
    return mean - _reach(len(rest), square, scale, alpha), mean + _reach(len(rest), square, scale, alpha)


def _reach(count: int, square: float, scale: float, alpha: float) -> float:
    """How far from the mean the bound is crossed: about the mean, V is `square`, and it grows with the distance."""

    def outside(far: float) -> bool:
        total, v = count * far, square + count * far * far + scale
        return total * total > v * (log(v / scale) + 2.0 * log(1.0 / alpha))

    far = sqrt(scale / count) / 8.0
    for _ in range(_DOUBLINGS):
        if outside(far):
            break
        far *= 2.0
    else:
        return inf
    low, high = 0.0, far
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if outside(middle) else (middle, high)
    return high


def _bounds(differences: Sequence[float]) -> Bounds | None:
    if not differences:
        return None
    # Value and promises are looked at both.
    low, high = confidence(differences, ALPHA / 2.0)
    return Bounds(
        # Of those that the bounds are of, once there are any.
        mean=fmean(differences[SCALE_PAIRS:] or differences),
        low=None if low == -inf else low,
        high=None if high == inf else high,
    )


def _gains(as_is: Tally, candidate: Tally) -> bool:
    """Whether the candidate is better of all requests together, and keeps no fewer promises: pairs weigh alike, however
    many requests are in them, and a rare block in which much was lost is one of many."""
    return candidate.value_usd_each > as_is.value_usd_each and candidate.share >= as_is.share


def _verdict(value: Bounds | None, kept: Bounds | None, *, gains: bool, over: bool) -> Verdict:
    for one in (value, kept):
        if one is not None and one.high is not None and one.high < 0.0:
            return Verdict.HARM
    if gains and value is not None and value.low is not None and value.low > 0.0:
        return Verdict.BETTER
    return Verdict.UNDECIDED if over else Verdict.GOES_ON
