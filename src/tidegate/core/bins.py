"""Output lengths in bins: what was counted of groups, each a part of the one before, says of how long one will be."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import erfc, exp, log, sqrt
from typing import Final

from tidegate.core.edges import place_of

# Before anything was seen: the Azure conversation trace has a median of 129 output tokens, its code trace 13.
PRIOR_TOKENS: Final = 100.0
PRIOR_SIGMA: Final = 1.0
# A bin ends a quarter above its beginning, and at the next whole token at least: 48 of them reach 133,000 tokens. With
# 32 the outputs of the Azure conversation trace, many of them nearly equal, are predicted worse by 3 %, with 64 by none
# better (bench/length.py, on the part that warms).
BINS: Final = 48
RATIO: Final = 1.267
# Where what is expected of an output that is longer is told: at no token, and then twice at least for each fourfold, or
# the first of many that end alike is expected too late.
AHEAD_BINS: Final[tuple[int, ...]] = (0, 10, 13, 16, 18, 20, 22, 24, 26, 28, 31, 34, 37)

Shares = list[float]
"""The probability of each bin; together they are one."""
Ahead = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""What `ahead` says of the shortest, the middle and the longest third."""
Level = tuple[float, float, dict[int, int], dict[int, int]]
"""A group of a chain: as how many outputs its larger group counts and as how many each of its own; those that ended in
a bin, and those that passed it and were cut."""


def _edges() -> tuple[float, ...]:
    edges = [0.0]
    for _ in range(BINS):
        edges.append(max(edges[-1] + 1.0, edges[-1] * RATIO))
    return tuple(edges)


EDGES: Final = _edges()
AHEAD_TOKENS: Final = tuple(EDGES[place] for place in AHEAD_BINS)
# The first bins are one whole token each.
_WHOLE: Final = sum(high - low == 1.0 for low, high in pairwise(EDGES))
# Within the others logarithms are taken to be even: how wide they are in these, and their mean in tokens.
_WIDTHS: Final = [0.0] * _WHOLE + [log(high / low) for low, high in pairwise(EDGES[_WHOLE:])]
_MEANS: Final = list(EDGES[1 : _WHOLE + 1]) + [(high - low) / log(high / low) for low, high in pairwise(EDGES[_WHOLE:])]
# The means where lengths end at a client's bound, by that. Clients use a handful of bounds; beyond this many the memo
# starts afresh.
_BOUNDS_MAX: Final = 64
_bounded_means: Final[dict[int, list[float]]] = {}


def _prior() -> Shares:
    below = [0.5 * erfc(-(log(edge / PRIOR_TOKENS) / PRIOR_SIGMA) / sqrt(2.0)) if edge else 0.0 for edge in EDGES]
    return [(high - low) / below[-1] for low, high in pairwise(below)]


def _hazards(shares: Shares) -> list[float]:
    """Of each bin the chance to end there of what has come so far."""
    reached = list(accumulate(reversed(shares)))
    return [share / left for share, left in zip(shares, reversed(reached), strict=True)]


_PRIOR_HAZARDS: Final = _hazards(_prior())


def bin_of(tokens: float) -> int:
    """The bin of a length; what is beyond all bins is in the last one."""
    return min(max(place_of(EDGES, tokens) - 1, 0), BINS - 1)


def last_passed(tokens: float) -> int:
    """The last bin that an output of at least this length has passed, all of it or more than half; -1 for none."""
    place = bin_of(tokens)
    return place if _part_below(place, tokens) > 0.5 else place - 1


def believed(levels: Sequence[Level]) -> Shares:
    """What a chain of groups, the largest first, says of the smallest one.

    Of each bin the hazard is believed, the chance to end there of what has come so far. A group's is the posterior mean
    of a beta process: its prior are some outputs at risk, with the hazards of the larger group (Hjort, 1990). So where
    few of a group came so far, the larger one tells how it goes on. An output that was cut was at risk in the bins that
    it passed, and ended in none (Kaplan and Meier, 1958): it makes every length more likely to be exceeded.
    """
    hazards = _PRIOR_HAZARDS.copy()
    for strength, unit, ended, cut in levels:
        # From the last of those in which any was counted down to the first bin: as many are at risk in all between two.
        at_risk, places = strength, [-1, *sorted(ended | cut if cut else ended)]
        for index in range(len(places) - 1, 0, -1):
            place = places[index]
            here = ended.get(place, 0) * unit
            at_risk += here
            if cut:
                at_risk += cut.get(place, 0) * unit
            hazards[place] = (strength * hazards[place] + here) / at_risk
            for between in range(places[index - 1] + 1, place):
                hazards[between] = strength * hazards[between] / at_risk
    reached, shares = 1.0, hazards
    for place, hazard in enumerate(hazards):
        share = reached * hazard
        shares[place] = share
        reached -= share
    shares[BINS - 1] += reached
    return shares


def quantiles(shares: Shares, wanted: Sequence[float]) -> list[float]:
    """The lengths that so many are not beyond, in tokens; each of these shares is more than the one before it."""
    found: list[float] = []
    place, below = 0, 0.0
    for share in wanted:
        while place < BINS - 1 and below + shares[place] < share:
            below += shares[place]
            place += 1
        if place < _WHOLE:
            found.append(EDGES[place + 1])
        else:
            part = min((share - below) / shares[place], 1.0) if shares[place] > 0.0 else 1.0
            found.append(EDGES[place] * exp(_WIDTHS[place] * part))
    return found


def mean(shares: Shares, tokens_max: int | None) -> float:
    """In tokens, of lengths that end at the client's bound."""
    means, total = _means(tokens_max), 0.0
    for place, share in enumerate(shares):
        total += share * means[place]
    return total


def _means(tokens_max: int | None) -> list[float]:
    """Of each bin, where lengths end at the client's bound."""
    if tokens_max is None:
        return _MEANS
    means = _bounded_means.get(tokens_max)
    if means is None:
        if len(_bounded_means) >= _BOUNDS_MAX:
            _bounded_means.clear()
        means = _bounded_means[tokens_max] = _means_within(tokens_max)
    return means


def _means_within(tokens_max: int) -> list[float]:
    bound = max(float(tokens_max), 1.0)
    end = bin_of(bound)
    # In the bin of the bound, some end before it and the others at it.
    low, inside = EDGES[end], _part_below(end, bound)
    middle = inside * (bound - low) / log(bound / low) if inside > 0.0 else 0.0
    return [*_MEANS[:end], middle + (1.0 - inside) * bound, *[bound] * (BINS - 1 - end)]


def _part_below(place: int, tokens: float) -> float:
    """How much of a bin is below this length; a whole token's is at its end."""
    if place < _WHOLE:
        return 1.0 if tokens > EDGES[place + 1] else 0.0
    return min(log(tokens / EDGES[place]) / _WIDTHS[place], 1.0)


def beyond(shares: Shares, streamed: float) -> Shares:
    """The shares of lengths beyond what has streamed; of its bin, what is left of that."""
    place = bin_of(streamed)
    found = [0.0] * BINS
    # A whole token that has streamed has passed its bin.
    found[place] = 0.0 if streamed >= 1.0 and place < _WHOLE else shares[place] * (1.0 - _part_below(place, streamed))
    found[place + 1 :] = shares[place + 1 :]
    left = sum(found)
    if left <= 0.0:
        found[BINS - 1] = left = 1.0
    return [share / left for share in found]


def ahead(shares: Shares, tokens_max: int | None, mean_tokens: float) -> Ahead:
    """How long outputs are in all that are longer than each of `AHEAD_TOKENS`: the mean of the shortest third of these,
    that of the middle one and that of the longest. None of them falls from one to the next. `mean_tokens` is the `mean`
    of them all.
    """
    means = _means(tokens_max)
    every = 0.0
    for share in shares:
        every += share
    short: list[int] = []
    middle: list[int] = []
    long: list[int] = []
    # The bin of the beginning, and those in which the first third ends, and the second, each with what is in all bins
    # before it, shares and tokens: none of them comes before that of a shorter beginning. Added up from the first bin
    # on, so that what two of them have in common is the same to the last bit.
    at = one = two = 0
    below = below_one = below_two = 0.0
    tokens = tokens_one = tokens_two = 0.0
    for first in AHEAD_BINS:
        while at < first:
            share = shares[at]
            below += share
            tokens += share * means[at]
            at += 1
        third = (every - below) / 3.0
        if third < 1e-9:
            usual = _whole_tokens(means[first])
            short.append(usual)
            middle.append(usual)
            long.append(usual)
            continue
        if one < first:
            one, below_one, tokens_one = first, below, tokens
        end = below + third
        while one < BINS - 1 and below_one + (share := shares[one]) < end:
            below_one += share
            tokens_one += share * means[one]
            one += 1
        # Of the bin in which a third ends, what of it is in the third.
        upto = tokens_one + (end - below_one) * means[one]
        short.append(_whole_tokens((upto - tokens) / third))
        if two < one:
            two, below_two, tokens_two = one, below_one, tokens_one
        end = below + third * 2
        while two < BINS - 1 and below_two + (share := shares[two]) < end:
            below_two += share
            tokens_two += share * means[two]
            two += 1
        last = tokens_two + (end - below_two) * means[two]
        middle.append(_whole_tokens((last - upto) / third))
        long.append(_whole_tokens((mean_tokens - last) / third))
    return tuple(short), tuple(middle), tuple(long)


def _whole_tokens(tokens: float) -> int:
    """To the nearest: `round` looks for what it rounds to even, at ten times the price where this is compiled."""
    return int(tokens + 0.5)
