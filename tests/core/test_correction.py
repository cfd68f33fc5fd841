"""How wide predictions are while little is known."""

from math import log

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tidegate.core.correction import Correction, combined


def taught(prior_sigma: float, ratios: list[float]) -> Correction:
    """A correction that three answers in one row have taught, a moment apart."""
    correction = Correction(2, 1, prior_sigma)
    for now_s, ratio in enumerate(ratios):
        trust = correction.mixed(0, 0).trust
        correction.learn(0, 0, log(ratio), float(now_s), trust=trust)
    return correction


def test_an_engine_of_unknown_speed_is_known_after_three_answers_that_agree() -> None:
    correction = taught(1.0, [4.0, 4.2, 3.9])
    for row in (0, 1):
        mix, sigma = correction.at(row, 0, 2.0)
        assert mix.bias == pytest.approx(log(4.0), abs=0.15)
        assert sigma < 0.5


def test_before_any_answer_the_spread_is_the_priors() -> None:
    for prior_sigma in (0.2, 0.7, 1.0, 3.0):
        assert Correction(2, 1, prior_sigma).at(0, 0, 0.0)[1] == pytest.approx(prior_sigma)


def test_answers_that_disagree_leave_it_wide() -> None:
    _, close = taught(1.0, [4.0, 4.2, 3.9]).at(0, 0, 2.0)
    _, apart = taught(1.0, [1.0, 8.0, 3.0]).at(0, 0, 2.0)
    assert apart > 1.5 * close


@given(prior=st.floats(0.05, 3.0), ratios=st.lists(st.floats(0.2, 5.0), min_size=3, max_size=12))
def test_silence_widens_what_is_known_and_never_beyond_what_was_not(prior: float, ratios: list[float]) -> None:
    correction = taught(prior, ratios)
    known_s = float(len(ratios) - 1)
    _, known = correction.at(0, 0, known_s)
    spreads = [correction.at(0, 0, known_s + age_s)[1] for age_s in (0.0, 1.0, 60.0, 600.0, 86_400.0, 1e9)]
    assert spreads == sorted(spreads)
    assert spreads[-1] ** 2 <= (known**2 + prior**2) * (1.0 + 1e-9)


def test_an_engine_whose_answers_all_take_alike_is_still_known_after_minutes_of_silence() -> None:
    alike, apart = (taught(1.0, [2.0, 2.0 * scatter, 2.0 / scatter] * 8) for scatter in (1.02, 2.0))
    _, known = alike.at(0, 0, 23.0)
    assert alike.at(0, 0, 23.0 + 300.0)[1] < 1.25 * known
    assert apart.at(0, 0, 23.0 + 7200.0)[1] > apart.at(0, 0, 23.0)[1] + 0.05


def test_what_many_answers_have_told_is_known_for_longer_than_what_few_have() -> None:
    few, many = (taught(0.5, [2.0, 2.2, 1.9] * times) for times in (1, 10))
    _, fresh = many.at(0, 0, 29.0)
    assert many.at(0, 0, 29.0 + 1800.0)[1] < 1.2 * fresh
    widened = [one.at(0, 0, 29.0 + 1800.0)[1] ** 2 - one.at(0, 0, 29.0)[1] ** 2 for one in (few, many)]
    assert widened[0] > 3.0 * widened[1]


def test_nothing_is_known_after_a_day_of_silence() -> None:
    correction = taught(0.5, [2.0, 2.2, 1.9] * 10)
    assert correction.at(0, 0, 86_400.0)[1] > 0.95 * 0.5


def test_a_kind_that_was_not_met_for_a_day_does_not_overrule_how_uneven_all_others_are_now() -> None:
    correction = Correction(2, 1, 0.5)
    for number in range(30):
        correction.learn(0, 0, 0.01 * (-1.0) ** number, float(number), trust=1.0)
    steady = correction.at(0, 0, 29.0)[1]
    for number in range(30):
        correction.learn(1, 0, (-1.0) ** number, 86_400.0 + number, trust=1.0)
    uneven = correction.at(1, 0, 86_429.0)[1]
    assert steady < 0.2 < 0.8 * uneven < correction.at(0, 0, 86_429.0)[1]


def test_how_even_times_were_for_one_process_a_day_ago_does_not_overrule_how_uneven_they_are_for_another_now() -> None:
    then, now = Correction(1, 1, 0.5), Correction(1, 1, 0.5)
    for number in range(30):
        then.learn(0, 0, 0.01 * (-1.0) ** number, float(number), trust=1.0)
        now.learn(0, 0, (-1.0) ** number, 86_400.0 + number, trust=1.0)
    both = Correction(1, 1, 0.5, [combined(a, b, [1.0]) for a, b in zip(then.cells, now.cells, strict=True)])
    alone = now.at(0, 0, 86_429.0)[1]
    assert alone > 0.8
    assert both.at(0, 0, 86_429.0)[1] == pytest.approx(alone, rel=0.01)
