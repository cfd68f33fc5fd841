"""How long a load takes: one is as long as the next, unless it turns out that they are not."""

from math import exp, log
from random import Random

import pytest

from tidegate.core.loading import Loads


def learned(seconds: list[float]) -> Loads:
    loads = Loads()
    for index, load_s in enumerate(seconds):
        loads.learn(1.0, load_s, float(index))
    return loads


def test_before_any_load_it_may_be_off_by_several_times() -> None:
    median_s, sigma = Loads().median_and_sigma(10.0)
    assert (median_s, sigma) == pytest.approx((10.0, 1.0))


def test_the_first_load_is_most_of_what_is_believed_and_may_still_be_off() -> None:
    median_s, sigma = learned([40.0]).median_and_sigma(10.0)
    assert 25.0 < median_s < 40.0
    assert median_s * exp(1.645 * sigma) > 40.0


def test_loads_that_were_all_alike_are_expected_to_be_so_again_whatever_was_believed() -> None:
    median_s, sigma = learned([40.0] * 20).median_and_sigma(4.0)
    assert median_s == pytest.approx(40.0, rel=0.05)
    assert sigma < 0.1


def test_loads_of_two_kinds_stay_as_uncertain_as_they_are() -> None:
    draw = Random(1)
    loads = learned([draw.choice((4.0, 40.0)) for _ in range(50)])
    assert loads.median_and_sigma(10.0)[1] == pytest.approx(log(40.0 / 4.0) / 2.0, rel=0.15)
