"""Laws of the size of a batch: a moment has no order, misses never make it larger, time forgets, and two make one."""

from math import isclose
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.batch import HALF_LIFE_S, LESS_MAX, Batch, combined

misses = st.lists(st.booleans(), max_size=60)
slots = st.integers(1, 512)


def learned(seed: int) -> Batch:
    """Moments of several answers, some seconds apart."""
    draw, batch, at_s = Random(seed), Batch(), 1e9
    for _ in range(draw.randint(0, 30)):
        at_s += draw.choice((0.5, 5.0, 600.0))
        share = draw.random()
        for _ in range(draw.randint(1, 8)):
            batch.learn(draw.random() < share, at_s)
    return batch


batches = st.integers(0, 10_000).map(learned)


@given(batches, misses, st.randoms())
def test_the_answers_of_a_moment_have_no_order(batch: Batch, found: list[bool], draw: Random) -> None:
    mixed = found.copy()
    draw.shuffle(mixed)
    made = []
    for order in (found, mixed):
        one = Batch(batch.less, batch.fresh, batch.at_s)
        for missed in order:
            one.learn(missed, batch.at_s + 1.0)
        one.settle(batch.at_s + 2.0)
        made.append(one.less)
    assert isclose(made[0], made[1], abs_tol=1e-12)


@given(batches, misses, slots)
def test_a_miss_never_makes_it_larger_and_a_kept_promise_never_smaller(
    batch: Batch, found: list[bool], size: int
) -> None:
    at_s = batch.at_s
    for place, missed in enumerate(found):
        before = batch.of(size)
        batch.learn(missed, at_s + place // 3 * 1e-6)
        assert 1 <= batch.of(size) <= size
        # What a moment forgets is less than a slot, or one where the edge is near.
        assert batch.of(size) <= before + 1 if missed else batch.of(size) >= before


@given(batches, slots, st.floats(0.0, 1e6))
def test_time_alone_forgets(batch: Batch, size: int, age_s: float) -> None:
    before, used = batch.bounded, batch.of(size)
    batch.settle(batch.at_s + age_s)
    assert batch.bounded <= before * 0.5 ** (age_s / HALF_LIFE_S) + 1e-9
    assert batch.of(size) >= used
    assert 0.0 <= batch.bounded <= LESS_MAX


@given(batches, batches, batches)
def test_two_make_one_whichever_comes_first(a: Batch, b: Batch, c: Batch) -> None:
    assert combined(a, b) == combined(b, a)
    left, right = combined(combined(a, b), c), combined(a, combined(b, c))
    assert left.at_s == right.at_s
    assert isclose(left.bounded, right.bounded, abs_tol=1e-9)
    assert combined(a, a).bounded == a.bounded
