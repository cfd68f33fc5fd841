"""Least squares with signs: the best there is among constants that are not negative."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.lab.fit import Point, Timing, error, fit, non_negative

ALONE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
numbers = st.floats(-10.0, 10.0)
problems = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=8),
        st.lists(numbers, min_size=8, max_size=8),
        st.lists(st.floats(0.0, 10.0), min_size=width, max_size=width),
    )
)


def squares(rows: list[list[float]], target: list[float], x: list[float]) -> float:
    return sum((sum(a * b for a, b in zip(row, x, strict=True)) - t) ** 2 for row, t in zip(rows, target, strict=True))


@settings(max_examples=100)
@given(problems)
def test_no_other_constants_from_zero_explain_more(
    problem: tuple[list[list[float]], list[float], list[float]],
) -> None:
    rows, target, other = problem
    target = target[: len(rows)]
    found = non_negative(rows, target)
    assert min(found) >= 0.0
    assert squares(rows, target, found) <= squares(rows, target, other) + 1e-6 * (1.0 + squares(rows, target, other))


@given(st.lists(st.floats(0.001, 10.0), min_size=3, max_size=3))
def test_constants_that_explain_everything_are_found(truth: list[float]) -> None:
    counts = [(1.0, 0.0, 2.0), (1.0, 5.0, 0.0), (2.0, 1.0, 1.0), (1.0, 9.0, 4.0)]
    points = [
        Point(
            name=str(count),
            timings=(Timing(seconds=sum(c * t for c, t in zip(count, truth, strict=True)), counts=count),),
        )
        for count in counts
    ]
    found = fit(points, ALONE)
    assert [one.value for one in found] == pytest.approx(truth, rel=1e-6)
    assert [one.low for one in found] == [one.high for one in found] == [one.value for one in found]
    assert error(points, truth) == pytest.approx(0.0, abs=1e-9)


def test_what_can_only_be_negative_is_nothing() -> None:
    assert non_negative([[1.0, 0.0], [1.0, 1.0]], [2.0, 1.0]) == pytest.approx([1.5, 0.0])


def test_of_columns_that_say_the_same_one_is_used() -> None:
    found = non_negative([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0])
    assert sorted(found)[0] == 0.0
    assert found[0] + 2.0 * found[1] == pytest.approx(1.0)


def test_a_disturbed_repeat_widens_the_interval_and_leaves_the_constant() -> None:
    calm = tuple(Timing(seconds=seconds, counts=(1.0,)) for seconds in (1.0, 1.01, 0.99))
    disturbed = (*calm, Timing(seconds=3.0, counts=(1.0,)), Timing(seconds=4.0, counts=(1.0,)))
    (alone,) = fit([Point(name="calm", timings=calm)], [[1.0]])
    (beside,) = fit([Point(name="disturbed", timings=disturbed)], [[1.0]])
    assert alone.low <= alone.value <= alone.high < 1.02
    assert beside.value == pytest.approx(alone.value, rel=0.02)
    assert beside.high >= 3.0


def test_a_constant_that_goes_with_another_is_no_larger_than_its_share() -> None:
    points = [Point(name=str(n), timings=(Timing(seconds=float(n * n), counts=(n, n * n)),)) for n in (1, 2, 3, 10)]
    one, squared = fit(points, [[1.0, 0.0], [1.0, 0.1]])
    assert 0.0 < squared.value == pytest.approx(0.1 * one.value)
