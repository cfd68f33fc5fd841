"""A shift is noticed, and what is none is not."""

from collections.abc import Callable
from math import log
from random import Random

import pytest

from tidegate.core.watch import Watch

ONE = (0, 0)
Draw = Callable[[Random], float]

SHAPES: dict[str, Draw] = {
    "narrow": lambda draw: draw.gauss(0.0, 0.1),
    "biased": lambda draw: draw.gauss(0.4, 0.3),
    "with a heavy tail": lambda draw: draw.gauss(0.0, 0.1) + (draw.expovariate(1.0) if draw.random() < 0.3 else 0.0),
    "of two kinds": lambda draw: draw.choice((-0.5, 0.5)) + draw.gauss(0.0, 0.05),
}


def watched(draw: Draw, count: int, shift: float = 0.0, seed: int = 1) -> Watch:
    """So many values, and then a hundred that lie by `shift` higher."""
    chance, watch = Random(seed), Watch()
    for number in range(count + 100):
        watch.add(ONE, draw(chance) + (shift if number >= count else 0.0), float(number))
    return watch


@pytest.mark.parametrize("shape", SHAPES)
def test_what_stays_as_it_is_is_hardly_ever_a_shift_whatever_its_distribution(shape: str) -> None:
    watches = [watched(SHAPES[shape], 1_500, seed=seed) for seed in range(4)]
    # 12,800 sums of independent values: one in four such tests is expected to see an alarm.
    assert sum(watch.slower.alarms + watch.faster.alarms for watch in watches) <= 1


@pytest.mark.parametrize("shape", ["narrow", "biased", "with a heavy tail"])
def test_a_shift_is_noticed_on_its_side_with_its_time_and_size(shape: str) -> None:
    slower, faster = watched(SHAPES[shape], 300, log(1.6)), watched(SHAPES[shape], 300, -log(1.6))
    assert slower.slower.alarm is not None
    assert slower.faster.alarm is None
    assert 290 <= slower.slower.alarm.since_s <= slower.slower.alarm.noticed_s < 400
    assert slower.slower.alarm.seen.ratio > 1.2
    assert faster.faster.alarm is not None
    assert faster.slower.alarm is None


def test_a_shift_that_is_sure_and_small_is_none() -> None:
    watch = watched(lambda draw: draw.gauss(0.0, 0.005), 300, log(1.05))
    assert watch.slower.alarm is None


def test_what_comes_at_other_times_is_compared_with_its_own_kind() -> None:
    """Long prompts are worse predicted than short ones; that there are more of them now is no shift."""
    chance, watch = Random(2), Watch()
    for number in range(600):
        long = chance.random() < (0.2 if number < 400 else 0.9)
        watch.add((1 if long else 0, 0), chance.gauss(0.5 if long else 0.0, 0.05), float(number))
    assert watch.slower.alarm is None


def test_neighbours_that_are_alike_are_not_as_many_witnesses() -> None:
    for seed in range(5):
        chance, watch, common = Random(seed), Watch(), 0.0
        for number in range(1_000):
            common = 0.7 * common + chance.gauss(0.0, 0.2)
            watch.add(ONE, common, float(number))
        assert watch.slower.alarms + watch.faster.alarms <= 1
