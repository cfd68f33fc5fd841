"""The figures that policies are judged by say what they are called."""

import pytest
from bench.policy_figures import Tried, closed, gain, hull_at, kept_more, saving


def policy(kept: int, usd: float, *, name: str = "rule", of: int = 100) -> Tried:
    """Of so many requests that are worth a dollar each the first ones are kept, each for so much."""
    return Tried(
        name=name,
        knob=0.0,
        kept=[place % of < kept for place in range(of)],
        usd=[usd] * of,
        worth_usd=[1.0] * of,
        ours=0.5,
        unserved=0,
    )


def test_the_hull_mixes_two_where_that_is_cheaper() -> None:
    cheap, dear, waste = policy(60, 0.1), policy(100, 0.5), policy(80, 0.45)
    mixed = hull_at([cheap, dear, waste], 0.8)
    assert mixed.share == pytest.approx(0.5)
    assert mixed.attainment == pytest.approx(0.8)
    assert mixed.usd_each == pytest.approx(0.3)


def test_the_hull_does_not_mix_where_one_alone_is_cheapest() -> None:
    found = hull_at([policy(90, 0.1), policy(95, 0.4), policy(50, 0.2)], 0.8)
    assert found.usd_each == pytest.approx(0.1)
    assert found.attainment == pytest.approx(0.9)


def test_where_nobody_keeps_as_many_it_is_who_keeps_most() -> None:
    assert hull_at([policy(50, 0.1), policy(70, 0.3)], 0.9).usd_each == pytest.approx(0.3)


def test_a_saving_is_of_a_kept_promise_and_none_against_oneself() -> None:
    ours, remote = policy(90, 0.18), policy(100, 1.0)
    half = saving(ours, hull_at([policy(90, 0.36)], 0.9), remote)
    assert half.figure == pytest.approx(0.5)
    itself = saving(ours, hull_at([ours], 0.9), remote)
    assert (itself.figure, itself.low, itself.high) == (0.0, 0.0, 0.0)


def test_where_the_hull_is_for_free_a_saving_is_held_against_little_of_all() -> None:
    found = saving(policy(90, 0.01), hull_at([policy(90, 0.0)], 0.9), policy(100, 1.0))
    assert found.figure == pytest.approx(-0.01 / 0.9 / 0.02)


def test_gains_and_promises_come_with_an_interval_around_them() -> None:
    ours, rival = policy(90, 0.2), policy(70, 0.2)
    for found in (gain(ours, rival), kept_more(ours, rival)):
        assert found.figure == pytest.approx(0.2)
        assert found.low <= found.figure <= found.high
        assert found.low < found.high


def test_a_gap_is_closed_by_shares_and_none_is_none() -> None:
    assert closed(0.8, 0.6, 1.0) == pytest.approx(0.5)
    assert closed(0.5, 0.6, 1.0) == pytest.approx(-0.25)
    assert closed(1.0, 1.0, 1.0) is None
