"""Medians, thirds and shares of any number of values, in bounded memory."""

from math import exp, log
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.histogram import LOG_MAX, STEP, Coverage, Histogram, Stretch, log_ratio

logs = st.floats(-2.0, 2.0)


def counted(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(logs, min_size=1, max_size=99).filter(lambda values: len(values) % 2 == 1))
def test_medians_are_right_to_half_a_step(values: list[float]) -> None:
    histogram = counted(values)
    assert log(histogram.ratio) == pytest.approx(median(values), abs=STEP / 2 + 1e-9)
    assert histogram.bias == pytest.approx(
        exp(-median(values)) - 1.0, rel=0.02, abs=exp(-median(values)) * STEP / 2 + 1e-3
    )
    off = median(abs(exp(-value) - 1.0) for value in values)
    assert histogram.error == pytest.approx(off, rel=0.02, abs=(1.0 + off) * STEP / 2 + 1e-3)


@given(st.lists(logs, max_size=50), st.lists(logs, max_size=50))
def test_adding_two_up_is_seeing_what_either_has_seen(one: list[float], other: list[float]) -> None:
    both = counted(one)
    both.take(counted(other))
    assert both.counts == counted(one + other).counts
    assert both.total == len(one) + len(other)


@given(st.lists(logs, max_size=50), logs)
def test_a_rank_is_never_certain_and_rises_with_the_value(values: list[float], value: float) -> None:
    histogram = counted(values)
    assert 0.0 < histogram.below(value) <= histogram.below(value + 2 * STEP) < 1.0


def test_however_many_are_counted_there_are_a_thousand_steps() -> None:
    draw, histogram = Random(1), Histogram()
    for _ in range(20_000):
        histogram.add(draw.gauss(0.0, 50.0))
    assert len(histogram.counts) <= 2 * LOG_MAX / STEP + 1


@given(st.integers(1, 5_000))
def test_a_stretch_of_any_length_knows_its_first_and_last_third(count: int) -> None:
    stretch = Stretch()
    for number in range(count):
        stretch.add(0.0 if number < count / 2 else 1.0)
    assert stretch.whole().total == count
    if count < 100:
        return
    first, last = stretch.thirds()
    assert first.ratio == 1.0
    assert last.ratio == pytest.approx(exp(1.0))
    assert count / 4 < first.total < 0.4 * count
    assert count / 4 < last.total < 0.4 * count


def test_an_interval_holds_the_share_and_narrows_with_what_was_seen() -> None:
    few, many = Coverage(9, 10).interval(1.96), Coverage(900, 1000).interval(1.96)
    assert few[0] < many[0] < 0.9 < many[1] < few[1]
    assert many == pytest.approx((0.880, 0.917), abs=0.001)
    assert Coverage(10, 10).interval(1.96)[1] == 1.0


@pytest.mark.parametrize(
    ("measured", "predicted", "expected"),
    [(0.0, 0.0, 0.0), (1.0, 0.0, LOG_MAX), (0.0, 1.0, -LOG_MAX), (2.0, 1.0, log(2.0))],
)
def test_what_takes_no_time_has_a_ratio_too(measured: float, predicted: float, expected: float) -> None:
    assert log_ratio(measured, predicted) == expected
