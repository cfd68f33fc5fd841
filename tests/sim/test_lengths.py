"""How large things are."""

from math import exp
from random import Random
from statistics import correlation, mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.sim.lengths import SHARES, Constant, Distribution, Lengths, LogNormal, Quantiles

tables = st.lists(st.floats(0.0, 1e6), min_size=len(SHARES), max_size=len(SHARES)).map(
    lambda values: Quantiles(tuple(sorted(values)))
)
distributions = st.one_of(
    tables,
    st.builds(LogNormal, median=st.floats(1.0, 1e5), sigma=st.floats(0.0, 3.0), most=st.floats(1.0, 1e6)),
    st.builds(Constant, st.floats(0.0, 1e6)),
)
shares = st.floats(0.0, 1.0)


@given(distributions, shares, shares)
def test_a_larger_share_never_lies_below_a_smaller_value(law: Distribution, one: float, other: float) -> None:
    assert law.at(min(one, other)) <= law.at(max(one, other)) * (1.0 + 1e-12)


@given(tables)
def test_a_table_goes_through_its_knots(table: Quantiles) -> None:
    for share, value in zip(SHARES, table.values, strict=True):
        assert table.at(share) == pytest.approx(value)


@pytest.mark.lengthy
@given(tables)
def test_the_mean_of_a_table_is_that_of_what_is_drawn(table: Quantiles) -> None:
    drawn = mean(table.at((i + 0.5) / 20_000) for i in range(20_000))
    assert table.mean == pytest.approx(drawn, rel=0.01, abs=1e-3)


def test_a_lognormal_has_its_median_its_spread_and_its_bound() -> None:
    law = LogNormal(median=100.0, sigma=1.0, most=300.0)
    assert law.at(0.5) == pytest.approx(100.0)
    assert law.at(0.8413) == pytest.approx(100.0 * exp(1.0), rel=1e-3)
    assert law.at(1.0) == 300.0


def test_a_lognormal_made_of_mean_and_cv_has_them() -> None:
    law = LogNormal.of(mean=50.0, cv=0.8)
    drawn = [law.at((i + 0.5) / 100_000) for i in range(100_000)]
    assert mean(drawn) == pytest.approx(50.0, rel=0.01)
    assert mean(x * x for x in drawn) / mean(drawn) ** 2 - 1.0 == pytest.approx(0.64, rel=0.05)


@pytest.mark.lengthy
@pytest.mark.parametrize("tied", [-0.9, -0.3, 0.0, 0.5, 1.0])
def test_prompt_and_output_are_correlated_as_asked(tied: float) -> None:
    law = Quantiles(tuple(1000.0 * share + 1.0 for share in SHARES))
    lengths, random = Lengths(prompt_tokens=law, output_tokens=law, correlation=tied), Random(1)
    drawn = [lengths.draw(random) for _ in range(20_000)]
    # The ranks' correlation is a little below that of the normal scores, by 0.02 at most.
    assert correlation(*zip(*drawn, strict=True)) == pytest.approx(tied, abs=0.04)


@given(distributions, distributions, st.floats(-1.0, 1.0), st.integers(0, 999))
def test_tokens_are_whole_and_one_at_least(prompt: Distribution, output: Distribution, tied: float, seed: int) -> None:
    drawn = Lengths(prompt_tokens=prompt, output_tokens=output, correlation=tied).draw(Random(seed))
    assert min(drawn) >= 1
    assert drawn == tuple(int(tokens) for tokens in drawn)
