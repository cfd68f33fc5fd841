"""Laws of worth that follows a target: misses never lower it, kept promises never raise it, a moment has no order, and
who has no target is touched by nothing."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.storm import Storm
from tidegate.core.dual import BEGINS, LEAST, SILENCE_S, Dual, combined
from tidegate.core.model import Judged, replace

targets = st.sampled_from((0.5, 0.8, 0.9, 0.97, 0.999))
found = st.lists(st.booleans(), max_size=60)
seeds = st.integers(0, 10_000)


def learned(seed: int) -> Dual:
    """Moments of several requests, some seconds apart."""
    draw, dual, at_s = Random(seed), Dual(), 1e9
    for _ in range(draw.randint(0, 30)):
        at_s += draw.choice((0.5, 5.0, 900.0))
        share = draw.random()
        for _ in range(draw.randint(1, 20)):
            dual.learn(draw.random() < share, 0.9, at_s)
    return dual


duals = seeds.map(learned)


@given(duals, found, targets, st.randoms())
def test_what_is_known_in_a_moment_has_no_order(dual: Dual, kept: list[bool], target: float, draw: Random) -> None:
    mixed, made = kept.copy(), []
    draw.shuffle(mixed)
    for order in (kept, mixed):
        one = replace(dual)
        for each in order:
            one.learn(each, target, dual.at_s + 1.0)
        made.append(one)
    assert made[0] == made[1]


@given(duals, st.booleans(), targets, st.lists(st.floats(0.0, SILENCE_S), min_size=1, max_size=60))
def test_it_never_falls_while_all_are_missed_and_never_rises_while_all_are_kept(
    dual: Dual, kept: bool, target: float, gaps_s: list[float]
) -> None:
    at_s, dual = dual.at_s, replace(dual)
    for gap_s in gaps_s:
        at_s += gap_s
        before = dual.level_at(at_s)
        dual.learn(kept, target, at_s)
        after = dual.level_at(at_s)
        assert after <= before if kept else after >= before
        assert LEAST <= after <= 0.0


@given(duals, st.floats(0.0, 1e7), st.floats(0.0, 1e7))
def test_silence_alone_brings_it_back_to_where_it_began(dual: Dual, age_s: float, later_s: float) -> None:
    one = dual.level_at(dual.at_s + age_s)
    other = dual.level_at(dual.at_s + age_s + later_s)
    assert abs(other - BEGINS) <= abs(one - BEGINS) + 1e-12
    assert (one - BEGINS) * (other - BEGINS) >= 0.0
    if age_s <= SILENCE_S:
        assert one == dual.level_at(dual.at_s)


@given(duals, duals)
def test_two_make_one_whichever_comes_first(a: Dual, b: Dual) -> None:
    one = combined(a, b)
    assert one == combined(b, a)
    assert one.level == max(each.level_at(one.at_s) for each in (a, b))
    assert combined(a, a).level == a.level_at(a.at_s)


@given(duals, duals, duals, st.tuples(*[st.floats(0.0, SILENCE_S)] * 3))
def test_three_that_live_make_one_in_any_order(a: Dual, b: Dual, c: Dual, times: tuple[float, ...]) -> None:
    for each, at_s in zip((a, b, c), times, strict=True):
        each.at_s = at_s
    assert combined(combined(a, b), c) == combined(a, combined(b, c))


@given(seeds, st.integers(20, 120))
def test_what_becomes_of_targets_changes_nothing_for_who_has_none(seed: int, steps: int) -> None:
    storm = Storm(seed).run(steps)
    request = replace(storm.requests["r1"], id="new", arrived_s=storm.now_s, attainment=None, klass="chat")
    if storm.router.held:
        # Who is held beside it may go elsewhere at another worth, and so may it then.
        return
    before = storm.router.decide(request, storm.now_s)
    for number in range(50):
        storm.router.observe(
            Judged(request_id=f"x{number}", klass="chat", attainment=0.9, kept=number % 5 == 0), storm.now_s
        )
    assert storm.router.decide(request, storm.now_s) == before


@pytest.mark.lengthy
@given(seeds)
def test_nobody_is_overdue_that_is_over_or_has_no_target(seed: int) -> None:
    storm = Storm(seed).run(150)
    told = {line.fact.request_id for line in storm.lines if isinstance(line.fact, Judged)}
    overdue = storm.router.state.overdue
    assert not overdue.keys() & told
    assert all(storm.requests[name].attainment is not None for name in overdue)
