"""When requests arrive."""

from itertools import islice, pairwise
from math import exp, lgamma, sqrt
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.sim.arrivals import (
    HOUR_S,
    ArrivalProcess,
    Diurnal,
    Gamma,
    Part,
    Poisson,
    Renewal,
    Replay,
    Sum,
    Weibull,
    weibull_shape,
)
from tidegate.sim.chance import Chance
from tidegate.sim.lengths import SHARES, Quantiles

EXPONENTIAL = Quantiles(tuple(min(s / (1.0 - min(s, 0.9999)), 50.0) for s in SHARES))
rates = st.floats(0.01, 1000.0)
cvs = st.floats(0.2, 6.0)
day = st.lists(st.floats(0.05, 5.0), min_size=24, max_size=24).map(tuple)
laws = st.one_of(
    st.builds(Poisson, rate_per_s=rates),
    st.builds(Gamma, rate_per_s=rates, cv=cvs),
    st.builds(Weibull, rate_per_s=rates, cv=cvs),
    st.builds(Renewal, rate_per_s=rates, gaps_s=st.just(EXPONENTIAL)),
    st.builds(
        Sum,
        rate_per_s=rates,
        parts=st.lists(
            st.builds(Part, share=st.floats(0.1, 1.0), cv=cvs, weibull=st.booleans()), min_size=1, max_size=4
        ).map(tuple),
    ),
)
processes = st.one_of(laws, st.builds(Diurnal, process=laws, factors=day, starts_h=st.integers(0, 23)))


def times_s(process: ArrivalProcess, n: int, seed: int = 1) -> list[float]:
    return list(islice(process.times(Chance(seed).at("arrivals")), n))


@given(processes, st.integers(0, 99))
def test_times_never_fall_and_the_same_seed_gives_the_same(process: ArrivalProcess, seed: int) -> None:
    found = times_s(process, 200, seed)
    assert len(found) == 200
    assert found[0] >= 0.0
    assert all(early <= late for early, late in pairwise(found))
    assert found == times_s(process, 200, seed)


@pytest.mark.parametrize("rate_per_s", [0.5, 200.0])
@pytest.mark.parametrize(
    ("law", "cv"),
    [(Gamma, 0.3), (Gamma, 1.0), (Gamma, 3.0), (Weibull, 0.3), (Weibull, 1.0), (Weibull, 3.0), (Poisson, 1.0)],
)
def test_gaps_have_the_rate_and_the_cv_that_were_asked_for(law: type, cv: float, rate_per_s: float) -> None:
    process = law(rate_per_s=rate_per_s) if law is Poisson else law(rate_per_s=rate_per_s, cv=cv)
    n = 40_000
    found = times_s(process, n)
    gaps_s = [late - early for early, late in pairwise([0.0, *found])]
    # Four standard errors of a mean of n gaps; the CV's own error grows with the tail, a tenth is five of the largest.
    assert mean(gaps_s) * rate_per_s == pytest.approx(1.0, abs=4.0 * cv / sqrt(n))
    assert pstdev(gaps_s) / mean(gaps_s) == pytest.approx(cv, rel=0.1)


@given(st.floats(0.2, 20.0))
def test_a_weibull_shape_has_the_cv_it_was_made_for(cv: float) -> None:
    k = weibull_shape(cv)
    assert sqrt(exp(lgamma(1.0 + 2.0 / k) - 2.0 * lgamma(1.0 + 1.0 / k)) - 1.0) == pytest.approx(cv, rel=1e-6)


def test_a_table_of_gaps_keeps_its_pattern_at_any_rate() -> None:
    slow, fast = (Renewal(rate_per_s=r, gaps_s=EXPONENTIAL) for r in (1.0, 10.0))
    assert times_s(fast, 50) == pytest.approx([t / 10.0 for t in times_s(slow, 50)])
    assert times_s(slow, 40_000)[-1] == pytest.approx(40_000, rel=0.05)


@given(st.lists(st.floats(0.1, 1.0), min_size=2, max_size=5))
def test_a_sum_has_the_rate_of_its_parts_together(shares: list[float]) -> None:
    process = Sum(rate_per_s=7.0, parts=tuple(Part(share=share, cv=1.0) for share in shares))
    assert 4000 / times_s(process, 4000)[-1] == pytest.approx(7.0, rel=4.0 / sqrt(4000))


def test_what_one_part_of_a_sum_does_changes_nothing_for_another() -> None:
    calm, wild = Part(share=1.0, cv=0.5), Part(share=1.0, cv=9.0)
    alone = set(times_s(Sum(rate_per_s=2.0, parts=(calm, calm)), 400))
    beside = set(times_s(Sum(rate_per_s=2.0, parts=(calm, wild)), 400))
    assert len(alone & beside) > 100


@given(st.lists(st.floats(0.0, 1e6), max_size=30).map(sorted), st.floats(0.1, 10.0))
def test_given_times_are_replayed_and_end(given_s: list[float], speed: float) -> None:
    assert times_s(Replay(times_s=tuple(given_s), speed=speed), 100) == [t / speed for t in given_s]


@pytest.mark.lengthy
@given(day, st.integers(0, 23), st.integers(0, 3))
def test_a_day_has_its_hours_in_proportion_and_the_rate_of_its_process(
    factors: tuple[float, ...], starts_h: int, seed: int
) -> None:
    regular = Replay(times_s=tuple(i * 10.0 for i in range(2 * 8640)))
    found = times_s(Diurnal(process=regular, factors=factors, starts_h=starts_h), 20_000, seed)
    assert len(found) == 2 * 8640
    counts = [0] * 48
    for at_s in found:
        counts[int(at_s / HOUR_S)] += 1
    for hour, count in enumerate(counts):
        expected = 360.0 * factors[(starts_h + hour) % 24] / mean(factors)
        assert count == pytest.approx(expected, abs=1.01)
