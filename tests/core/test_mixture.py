"""A time to first content with or without a load: its quantiles and shares are those of the two, weighed."""

from math import exp, log
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import make
from tidegate.core.base import Base
from tidegate.core.latency import Sent
from tidegate.core.mixture import Mixture, quantile_s, share_below
from tidegate.core.model import Request, Slo, replace
from tidegate.core.output import Length
from tidegate.core.value import attainment, estimate, lateness_s, net_usd

sigmas = st.floats(0.05, 2.0)
seconds = st.floats(0.01, 100.0)
shares = st.floats(0.001, 0.999)
mixtures = st.builds(Mixture, warm_s=seconds, warm_sigma=sigmas, cold_share=shares, load_s=seconds, load_sigma=sigmas)
SENT = Sent([0.4], 0.4, 0.4, 1.05, 0.3, 1.0, 0, 0)
LENGTH = Length(expected_tokens=100.0, high_tokens=200.0, median_tokens=100.0, sigma=0.6)
BASE = Base(
    network_s=0.05, queue_s=0.0, prefill_s=0.4, prefill_s_mean=0.42, first_s=0.45, sigma=0.3, deviations=1.3,
    tpot_s=0.02, tpot_sigma=0.3, decode_s=2.0, decode_s_mean=2.1, length=LENGTH, cost_usd=0.001,
    ttft=SENT, tpot=SENT, sure_s=0.45, warm_s=0.45,
)  # fmt: skip


def with_load(share: float, load_s: float = 20.0, load_sigma: float = 0.4) -> Base:
    first_s = BASE.first_s + (load_s if share > 0.5 else 0.0)
    found = BASE.copied()
    found.first_s, found.cold_share, found.load_s, found.load_sigma = first_s, share, load_s, load_sigma
    return found


def below(mixture: Mixture, limit_s: float) -> float:
    """The share that is below, from its parts."""
    warm = share_below((log(limit_s) - log(mixture.warm_s)) / mixture.warm_sigma)
    cold = share_below((log(limit_s) - log(mixture.cold_s)) / mixture.cold_sigma)
    return (1.0 - mixture.cold_share) * warm + mixture.cold_share * min(warm, cold)


@given(mixtures, st.floats(-2.0, 4.0))
def test_below_a_quantile_is_the_share_that_it_stands_for(mixture: Mixture, deviations: float) -> None:
    assert below(mixture, mixture.quantile_s(deviations)) == pytest.approx(share_below(deviations), abs=2e-5)


@given(mixtures, st.floats(-2.0, 4.0), st.floats(0.0, 0.5))
def test_a_likelier_load_raises_every_quantile(mixture: Mixture, deviations: float, more: float) -> None:
    likelier = replace(mixture, cold_share=mixture.cold_share + more * (1.0 - mixture.cold_share))
    warm_s = mixture.warm_s * exp(deviations * mixture.warm_sigma)
    assert warm_s * (1.0 - 1e-3) <= mixture.quantile_s(deviations)
    # Where hardly anything lies between the two, a quantile there means little.
    assert below(likelier, mixture.quantile_s(deviations)) <= share_below(deviations) + 2e-5


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
@pytest.mark.parametrize(("load_s", "load_sigma"), [(20.0, 0.3), (3.0, 0.6), (0.5, 0.2)])
def test_quantiles_are_those_of_many_draws(share: float, load_s: float, load_sigma: float) -> None:
    mixture, draw = Mixture(0.5, 0.3, share, load_s, load_sigma), Random(7)
    drawn = sorted(
        draw.lognormvariate(log(0.5), 0.3)
        + (draw.lognormvariate(log(load_s), load_sigma) if draw.random() < share else 0.0)
        for _ in range(20_000)
    )
    for deviations in (-1.0, 0.0, 1.2816, 2.0):
        found = mixture.quantile_s(deviations)
        actual = sum(x <= found for x in drawn) / len(drawn)
        assert actual == pytest.approx(share_below(deviations), abs=0.025)


@given(mixtures, seconds, seconds)
def test_a_longer_wait_makes_a_load_no_less_likely(mixture: Mixture, one_s: float, other_s: float) -> None:
    sooner, later = sorted((one_s, other_s))
    assert mixture.cold_share <= mixture.waiting_share(sooner) * (1 + 1e-12)
    assert mixture.waiting_share(sooner) <= mixture.waiting_share(later) * (1 + 1e-12)


@given(mixtures, seconds)
def test_a_load_is_responsible_for_what_is_longer_than_it_explains_as_for_what_it_does(
    mixture: Mixture, more_s: float
) -> None:
    assert mixture.responsibility(mixture.cold_s + more_s) == mixture.responsibility(mixture.cold_s)
    assert mixture.responsibility(mixture.warm_s) == 0.0


@given(st.lists(st.tuples(seconds, st.integers(1, 9), sigmas), min_size=1, max_size=6), st.floats(0.1, 4.0))
@example([(1.0, 1, 1.0), (5.0, 1, 1.0), (5.0, 1, 2.0), (18.0, 4, 0.125), (19.0, 4, 1.0)], 0.375)
def test_a_quantile_of_many_causes_has_their_shares_below_it(
    drawn: list[tuple[float, int, float]], deviations: float
) -> None:
    total = sum(weight for _, weight, _ in drawn)
    causes = [(median_s, weight / total, sigma) for median_s, weight, sigma in sorted(drawn)]
    x, found, least = log(quantile_s(causes, deviations)), 0.0, 1.0
    for median_s, p, sigma in causes:
        least = min(least, share_below((x - log(median_s)) / sigma))
        found += p * least
    assert found == pytest.approx(share_below(deviations), abs=2e-5)
    assert x <= max(log(median_s) + deviations * sigma for median_s, _, sigma in causes) + 1e-9


@given(st.lists(st.tuples(seconds, st.integers(1, 9), sigmas), min_size=2, max_size=6), st.floats(-1.0, 4.0))
def test_what_the_rest_takes_lies_within_its_bounds(drawn: list[tuple[float, int, float]], deviations: float) -> None:
    total = sum(weight for _, weight, _ in drawn)
    base = BASE.copied()
    base.deviations = deviations
    base.outcomes = tuple((median_s, weight / total, sigma) for median_s, weight, sigma in sorted(drawn, reverse=True))
    least_s, most_s = base.rest_s_bounds
    assert least_s <= base.e2e_s_high - base.warm_s_high <= most_s


def test_what_may_be_cached_or_not_has_a_quantile_between_the_two() -> None:
    """Of ten seconds or a half: how likely it must be to be in time says which."""
    base = BASE.copied()
    base.sure_s, base.outcomes, highs_s = 10.0, ((10.0, 0.1, 0.1), (0.45, 0.9, 0.1)), {}
    for share in (0.5, 0.85, 0.95, 0.99):
        base.deviations = log(share / (1.0 - share)) / 1.702
        highs_s[share] = base.warm_s_high
    assert highs_s[0.5] == pytest.approx(0.453, abs=0.01)
    assert highs_s[0.85] < 0.6
    assert highs_s[0.95] == pytest.approx(10.0, rel=0.01)
    assert 10.0 < highs_s[0.99] < 10.0 * exp(0.1 * log(0.99 / 0.01) / 1.702)
    assert base.first_s_high == base.warm_s_high
    assert base.e2e_s_high > base.first_s_high


# --- what a decision makes of it ------------------------------------------------------------------------------------

ASKED = [
    make.request(slo=Slo(ttft_s=1.0)),
    make.request(slo=Slo(ttft_s=30.0, tpot_s=0.03)),
    make.request(slo=Slo(e2e_s=10.0)),
    make.request(slo=Slo(ttft_s=5.0, e2e_s=25.0)),
    make.request(slo=Slo()),
]


@pytest.mark.parametrize("asked", ASKED)
def test_attainment_is_that_of_a_model_that_is_there_and_of_one_that_is_not_weighed(asked: Request) -> None:
    warm = attainment(asked, BASE, 0.5)
    cold_s, cold_sigma = with_load(0.3).mixture.cold_s, with_load(0.3).mixture.cold_sigma
    loaded = BASE.copied()
    loaded.first_s, loaded.sigma = cold_s, cold_sigma
    cold = attainment(asked, loaded, 0.5)
    for share in (0.3, 0.9):
        expected = (1.0 - share) * warm + share * min(warm, cold)
        assert attainment(asked, with_load(share), 0.5) == pytest.approx(expected)


def test_lateness_is_expected_over_both() -> None:
    asked = make.request(slo=Slo(ttft_s=2.0))
    assert lateness_s(asked, BASE, 0.0) == 0.0
    assert lateness_s(asked, with_load(0.25), 0.0) == pytest.approx(0.25 * (20.45 - 2.0))
    assert lateness_s(asked, with_load(0.75), 0.0) == pytest.approx(0.75 * (20.45 - 2.0))


def test_the_median_has_the_load_in_it_where_that_is_likelier_than_not_and_the_mean_its_share() -> None:
    for share in (0.3, 0.7):
        base = with_load(share)
        assert base.warm_s == pytest.approx(BASE.first_s)
        assert base.cold_s == pytest.approx(BASE.first_s + 20.0)
        assert base.first_s_mean == pytest.approx(BASE.first_s_mean + share * 20.0 * exp(0.08))
        assert base.occupies_s == pytest.approx(BASE.occupies_s + share * 20.0 * exp(0.08))


@given(st.floats(0.0, 20.0), st.floats(0.1, 60.0))
def test_without_a_load_every_number_is_what_it_is_without_these_words(spent_s: float, ttft_s: float) -> None:
    asked = make.request(slo=Slo(ttft_s=ttft_s, e2e_s=2 * ttft_s))
    never = with_load(0.0)
    assert BASE.first_s_high == BASE.warm_s_high == BASE.first_s * exp(BASE.deviations * BASE.sigma)
    assert BASE.first_s_mean == BASE.network_s + BASE.queue_s + BASE.prefill_s_mean
    assert BASE.occupies_s == BASE.network_s + BASE.queue_s + BASE.prefill_s_mean + BASE.decode_s_mean
    for base in (BASE, never):
        assert net_usd(asked, base, 0.01, spent_s, attainment(asked, base, spent_s)) == net_usd(
            asked, BASE, 0.01, spent_s, attainment(asked, BASE, spent_s)
        )
        assert base.first_s_high == BASE.first_s_high


def test_an_estimate_tells_the_chance_of_a_load_and_what_it_takes() -> None:
    told = estimate(make.request(), with_load(0.3), 0.0, 0.0)
    assert (told.cold_share, told.load_s, told.ttft_s) == (0.3, 20.0, BASE.first_s)
    assert told.ttft_s_high > 10.0
