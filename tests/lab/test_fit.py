"""Constants with their intervals, from what was timed once or more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.lab.fit import Point, Timing, error, fit

ALONE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@pytest.mark.lengthy
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
