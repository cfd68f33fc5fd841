"""Two settings by turns: whoever looks after each pair is wrong no more often than was said."""

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.switchback import (
    ALPHA,
    COLLAPSE_REQUESTS,
    REQUESTS_MIN,
    SCALE_PAIRS,
    Arm,
    Pair,
    Tally,
    Verdict,
    collapsed,
    confidence,
    order,
    standing,
)

differences = st.lists(st.floats(-100.0, 100.0).map(lambda one: round(one, 3)), min_size=SCALE_PAIRS + 1, max_size=40)


def tally(requests: int = 100, kept: int = 90, usd: float = 0.1, worth_usd: float = 1.0) -> Tally:
    return Tally(requests, kept, usd, worth_usd)


def pairs(draw: Random, count: int, more: float, spread: float = 0.1) -> list[Pair]:
    """Value differs by so much of a request, and as much again by chance."""
    return [
        Pair(tally(worth_usd=100.0), tally(worth_usd=100.0 + 100.0 * draw.gauss(more, spread))) for _ in range(count)
    ]


def test_which_goes_first_is_a_coin_that_falls_the_same_way_again() -> None:
    firsts = [order(7, number)[0] for number in range(400)]
    assert firsts == [order(7, number)[0] for number in range(400)]
    assert 160 < firsts.count(Arm.CANDIDATE) < 240
    assert all(set(order(seed, 3)) == set(Arm) for seed in range(20))
    assert len({order(seed, 3) for seed in range(20)}) == 2


@given(differences)
def test_the_mean_of_what_counts_is_within_its_bounds(found: list[float]) -> None:
    low, high = confidence(found, ALPHA)
    rest = found[SCALE_PAIRS:]
    assert low <= sum(rest) / len(rest) + 1e-9
    assert high >= sum(rest) / len(rest) - 1e-9


@given(differences, st.floats(-50.0, 50.0), st.sampled_from((0.5, 2.0, 8.0)))
def test_bounds_move_grow_and_turn_with_the_differences(found: list[float], shift: float, factor: float) -> None:
    low, high = confidence(found, ALPHA)
    if high - low in (0.0, inf) or high - low < 1e-5:
        return
    moved = confidence([one + shift for one in found], ALPHA)
    assert moved == pytest.approx((low + shift, high + shift), rel=1e-4, abs=1e-4)
    grown = confidence([factor * one for one in found], ALPHA)
    assert grown == pytest.approx((factor * low, factor * high), rel=1e-4, abs=1e-4)
    turned = confidence([-one for one in found], ALPHA)
    assert turned == pytest.approx((-high, -low), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("heavy", [False, True])
def test_of_two_that_are_alike_one_in_twenty_is_called_better_or_worse_at_most(heavy: bool) -> None:
    draw, wrong, trials, most = Random(3), 0, 200, 60

    def noise() -> float:
        # Now and then a block is ten times as far off.
        return draw.gauss(0.0, 1.0) * (10.0 if heavy and draw.random() < 0.05 else 1.0)

    for _ in range(trials):
        found = [noise() for _ in range(most)]
        bounds = [confidence(found[:count], ALPHA) for count in range(SCALE_PAIRS + 1, most, 4)]
        wrong += any(low > 0.0 or high < 0.0 for low, high in bounds)
    assert wrong <= ALPHA * trials


@pytest.mark.parametrize(("more", "verdict"), [(0.2, Verdict.BETTER), (-0.2, Verdict.HARM)])
def test_a_difference_as_large_as_blocks_scatter_is_found_within_a_day(more: float, verdict: Verdict) -> None:
    found = pairs(Random(1), 48, more)
    told = [standing(found[:count], 1000).verdict for count in range(1, 49)]
    assert told[-1] is verdict
    # Once it is known it is no more another.
    assert set(told) == {Verdict.GOES_ON, verdict}


def test_promises_that_are_lost_are_harm_whatever_is_saved() -> None:
    draw = Random(2)
    found = [
        Pair(tally(kept=95 + draw.randint(-2, 2), usd=1.0), tally(kept=80 + draw.randint(-2, 2), usd=0.0))
        for _ in range(30)
    ]
    told = standing(found, 1000)
    assert told.verdict is Verdict.HARM
    assert told.kept is not None
    assert told.kept.high is not None
    assert told.kept.high < 0.0
    assert told.usd is not None
    assert told.usd.mean == pytest.approx(-0.01)


def test_what_is_alike_goes_on_until_the_pairs_are_over() -> None:
    found = pairs(Random(4), 20, 0.0)
    assert standing(found, 21).verdict is Verdict.GOES_ON
    assert standing(found, 20).verdict is Verdict.UNDECIDED
    assert standing([], 20).verdict is Verdict.GOES_ON
    assert standing([], 20).value_usd is None


def test_pairs_with_few_requests_are_counted_and_say_nothing() -> None:
    few = Pair(tally(requests=REQUESTS_MIN - 1), tally(worth_usd=0.0))
    told = standing([few] * 30, 1000)
    assert (told.pairs, told.short, told.verdict) == (0, 30, Verdict.GOES_ON)


def test_what_keeps_next_to_nothing_is_seen_before_its_block_is_over() -> None:
    as_is = tally(requests=COLLAPSE_REQUESTS, kept=45)
    assert collapsed(tally(requests=COLLAPSE_REQUESTS, kept=22), as_is)
    assert not collapsed(tally(requests=COLLAPSE_REQUESTS, kept=23), as_is)
    assert not collapsed(tally(requests=COLLAPSE_REQUESTS - 1, kept=0), as_is)
    assert not collapsed(tally(requests=COLLAPSE_REQUESTS, kept=0), tally(requests=COLLAPSE_REQUESTS - 1, kept=9))
    assert not collapsed(tally(requests=COLLAPSE_REQUESTS, kept=0), tally(requests=COLLAPSE_REQUESTS, kept=0))
