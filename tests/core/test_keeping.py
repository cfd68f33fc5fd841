"""What takes a beginning from an endpoint's cache is found out: room, time, size, or chance."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.keeping import Keeping, age_cell, distance_cell, fault, size_cell
from tidegate.core.prior import CachePrior
from tidegate.core.prompts import Kept, Span

Cache = Callable[[int, float, float, Random], bool]
"""Whether a beginning is still there: by tokens put there since, seconds since, its size, and chance."""


def room(distance: int, age_s: float, size: float, draw: Random) -> bool:
    return distance < 500_000


def time(distance: int, age_s: float, size: float, draw: Random) -> bool:
    return age_s < 250.0


def both(distance: int, age_s: float, size: float, draw: Random) -> bool:
    return distance < 500_000 and age_s < 250.0


def long(distance: int, age_s: float, size: float, draw: Random) -> bool:
    return size >= 1024


def luck(distance: int, age_s: float, size: float, draw: Random) -> bool:
    return draw.random() < 0.7


def all_of_it(distance: int, age_s: float, size: float, draw: Random) -> bool:
    return long(distance, age_s, size, draw) and both(distance, age_s, size, draw) and luck(distance, age_s, size, draw)


def kept_p(keeping: Keeping, distance: int, age_s: float, size: float) -> float:
    odds = keeping.odds
    return odds.by_distance[distance_cell(distance)] * odds.by_age[age_cell(age_s)] * odds.by_size[size_cell(size)]


def taught(cache: Cache, samples: int, seed: int = 1) -> Keeping:
    """One that has seen traffic of all sizes and gaps, once a second. Distance and age go together, as they do."""
    keeping, draw = Keeping(CachePrior(), Kept()), Random(seed)
    for index in range(samples):
        age_s = draw.lognormvariate(4.5, 2.0)
        distance, size = int(age_s * draw.lognormvariate(7.5, 1.0)), draw.lognormvariate(7.0, 1.5) + 1.0
        observe(keeping, cache(distance, age_s, size, draw), distance, age_s, size, float(index))
    keeping.settle(samples + 1.0)
    return keeping


def observe(keeping: Keeping, hit: bool, distance: int, age_s: float, size: float, now_s: float) -> None:
    odds, d, a = keeping.odds, distance_cell(distance), age_cell(age_s)
    span = Span(size, d, a, odds.by_distance[d], odds.by_age[a])
    keeping.learn((span,), odds.by_size[size_cell(size)], 2.0 * size, size if hit else 0.0, now_s)


@pytest.mark.parametrize("cache", [room, time, both, long, luck, all_of_it])
def test_what_is_there_is_told_from_what_is_not(cache: Cache) -> None:
    """Squared error, beside that of the best guess that knows nothing of the single case: what was there on average."""
    keeping, draw = taught(cache, 1_500), Random(2)
    errors, truths, least = [], [], []
    for _ in range(1_000):
        age_s = draw.lognormvariate(4.5, 2.0)
        distance, size = int(age_s * draw.lognormvariate(7.5, 1.0)), draw.lognormvariate(7.0, 1.5) + 1.0
        here = [cache(distance, age_s, size, draw) for _ in range(20)]
        truth = sum(here) / 20
        errors.append((kept_p(keeping, distance, age_s, size) - truth) ** 2)
        truths.append(truth)
        least.append(truth)
    mean = sum(truths) / len(truths)
    spread = sum((t - mean) ** 2 for t in truths) / len(truths)
    # Cells are a factor of two wide, and the edge lies within one of them; where there is nothing to tell, nothing is.
    assert sum(errors) / len(errors) < max(0.35 * spread, 0.02)


def test_what_is_expected_in_total_is_what_comes() -> None:
    for cache in (room, time, both, long, luck, all_of_it):
        keeping, draw = Keeping(CachePrior(), Kept()), Random(3)
        expected = came = 0.0
        for index in range(3_000):
            age_s = draw.lognormvariate(4.5, 2.0)
            distance, size = int(age_s * draw.lognormvariate(7.5, 1.0)), draw.lognormvariate(7.0, 1.5) + 1.0
            hit = cache(distance, age_s, size, draw)
            if index >= 500:
                expected += kept_p(keeping, distance, age_s, size) * size
                came += size * hit
            observe(keeping, hit, distance, age_s, size, float(index))
        assert expected == pytest.approx(came, rel=0.1)


def test_a_cache_that_becomes_smaller_is_followed() -> None:
    keeping = taught(room, 500)
    before = kept_p(keeping, 200_000, 30.0, 4_096.0)
    for index in range(60):
        observe(keeping, False, 200_000, 30.0, 4_096.0, 4_000.0 + index)
    keeping.settle(5_000.0)
    assert before > 0.9
    assert kept_p(keeping, 200_000, 30.0, 4_096.0) < 0.5


def test_where_nothing_was_seen_what_is_believed_at_first_holds() -> None:
    prior = CachePrior(share=0.9, tokens=100_000.0, lifetime_s=60.0, tokens_min=1024)
    keeping = Keeping(prior, Kept())
    assert kept_p(keeping, 0, 0.0, 2_048.0) == pytest.approx(0.9, rel=0.03)
    assert kept_p(keeping, 100_000, 0.0, 2_048.0) == pytest.approx(0.4, abs=0.1)
    assert kept_p(keeping, 0, 60.0, 2_048.0) == pytest.approx(0.45, abs=0.1)
    assert kept_p(keeping, 0, 0.0, 900.0) == 0.0


def test_a_surplus_beyond_what_is_known_is_learned_as_a_share() -> None:
    keeping = Keeping(CachePrior(), Kept())
    for index in range(200):
        keeping.learn((), 1.0, 1_000.0, 300.0 if index % 2 else 0.0, float(index))
    keeping.settle(201.0)
    mean, sd = keeping.expected([], 10_000.0, 201.0)
    assert mean == pytest.approx(1_500.0, rel=0.1)
    assert sd > 1_000.0


def test_a_size_that_was_not_seen_for_days_leaves_no_probability_that_is_none() -> None:
    keeping = Keeping(CachePrior(share=0.55, lifetime_s=600.0, tokens_min=1024), kept := Kept())
    days_s = 40 * 3600.0
    observe(keeping, True, 0, 10.0, 9_000.0, 0.0)
    observe(keeping, True, 0, 10.0, 3_000.0, days_s)
    for later_s in (1.0, 5.0, 60.0, 3600.0):
        keeping.settle(days_s + later_s)
        assert fault(kept) == ""


@given(st.lists(st.tuples(st.floats(0.0, 2e5), st.floats(300.0, 60_000.0), st.booleans()), max_size=12))
def test_whatever_was_seen_whenever_is_believed_to_some_degree(seen: list[tuple[float, float, bool]]) -> None:
    keeping, now_s = Keeping(CachePrior(share=0.55, lifetime_s=600.0, tokens_min=1024), kept := Kept()), 0.0
    for after_s, size, hit in seen:
        now_s += after_s
        observe(keeping, hit, int(size), 10.0, size, now_s)
        assert fault(kept) == ""
