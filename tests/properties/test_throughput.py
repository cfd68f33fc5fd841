"""Laws of the throughput model: more never serves less, no rule exceeds the bound, and bins have no order."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from tidegate.core.model import replace
from tidegate.core.throughput import (
    Bin,
    Curve,
    Flow,
    Model,
    Pools,
    beyond,
    counted,
    everything,
    flow,
    fluid,
    nothing,
    random_split,
    split,
    threshold,
)

TOKENS = (100.0, 1_000.0, 8_000.0, 30_000.0, 100_000.0)
costs = st.lists(st.floats(0.01, 20.0), min_size=5, max_size=5).map(sorted)
weights = st.lists(st.floats(0.1, 1.0), min_size=5, max_size=5)
some = st.just(0.0) | st.floats(0.1, 8.0)
pools = st.builds(
    Pools,
    remote=some,
    prefill=some,
    decode=st.floats(1.0, 8.0),
    decode_per_s=st.floats(0.1, 10.0),
    link_bytes_per_s=some,
)
factors = st.floats(1.0, 10.0)


def _beyond(model: Model, bins: Sequence[Bin], there: Pools) -> float:
    return beyond(model, bins, there, 5_000.0).per_s


def _fluid(model: Model, bins: Sequence[Bin], there: Pools) -> float:
    return fluid(model, bins, there)[0]


def _of(rule: Callable[[Model, Sequence[Bin], Pools], Flow]) -> Callable[[Model, Sequence[Bin], Pools], float]:
    return lambda model, bins, there: rule(model, bins, there).per_s


RATES = (*map(_of, (everything, nothing, random_split, threshold)), _beyond, _fluid)


def curve(values: list[float]) -> Curve:
    return Curve(tuple(zip(TOKENS, values, strict=True)))


models = st.builds(
    lambda local, remote, size: Model(local_s=curve(local), remote_s=curve(remote), kv_bytes=curve(size)),
    costs,
    costs,
    costs,
)
lengths = weights.map(lambda found: counted(TOKENS, found))


@st.composite
def rising(draw: st.DrawFn) -> Model:
    """The longer, the more of local seconds are saved for what is taken of the others."""
    remote, size = draw(costs), draw(costs)
    slowdowns = draw(costs)
    local = [max(r, s) * slower for r, s, slower in zip(remote, size, slowdowns, strict=True)]
    # As many local seconds for each remote one and for each byte, or more, as for the length before.
    for i in range(1, len(local)):
        local[i] = max(local[i], *(local[i - 1] / one[i - 1] * one[i] for one in (remote, size)))
    return Model(local_s=curve(local), remote_s=curve(remote), kv_bytes=curve(size))


@given(models, lengths, pools, st.sampled_from(("remote", "prefill", "decode", "link_bytes_per_s")), factors)
def test_more_of_anything_never_serves_less(
    model: Model, bins: tuple[Bin, ...], there: Pools, what: str, factor: float
) -> None:
    more = replace(there, **{what: getattr(there, what) * factor + (factor - 1.0)})
    for rate in RATES:
        assert rate(model, bins, more) >= rate(model, bins, there) * (1.0 - 1e-6)


@given(models, lengths, pools, st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5))
def test_no_rule_exceeds_the_bound(model: Model, bins: tuple[Bin, ...], there: Pools, shares: list[float]) -> None:
    most = fluid(model, bins, there)[0] * (1.0 + 1e-6)
    assert flow(model, bins, there, shares).per_s <= most
    for rate in RATES:
        assert rate(model, bins, there) <= most


@given(rising(), lengths, pools)
def test_a_threshold_reaches_the_bound_where_length_is_what_counts(
    model: Model, bins: tuple[Bin, ...], there: Pools
) -> None:
    best = threshold(model, bins, there).per_s
    assert best >= random_split(model, bins, there).per_s * (1.0 - 1e-6)
    assert best == pytest.approx(fluid(model, bins, there)[0], rel=1e-5)


@given(models, lengths, pools)
def test_the_bound_is_that_of_a_linear_program(model: Model, bins: tuple[Bin, ...], there: Pools) -> None:
    # The rate, and that of each bin which is sent away; what takes what there is none of is not sent.
    local, remote, size = (
        [one.share * taken.at(one.tokens) for one in bins] for taken in (model.local_s, model.remote_s, model.kv_bytes)
    )
    cut = [[-1.0] + [float(i == j) for j in range(len(bins))] for i in range(len(bins))]
    rows = [[0.0, *remote], [0.0, *size], [sum(local), *[-each for each in local]], *cut]
    limits = [there.remote, there.link_bytes_per_s, there.prefill, *[0.0] * len(bins)]
    solved = linprog([-1.0] + [0.0] * len(bins), A_ub=rows, b_ub=limits, method="highs")
    most = min(-solved.fun, there.decode * there.decode_per_s)
    assert fluid(model, bins, there)[0] == pytest.approx(most, rel=1e-5, abs=1e-9)


@given(models, lengths, pools, st.randoms())
def test_bins_have_no_order(model: Model, bins: tuple[Bin, ...], there: Pools, draw: Random) -> None:
    mixed = list(bins)
    draw.shuffle(mixed)
    assert [one.tokens for one in counted([one.tokens for one in mixed], [one.share for one in mixed])] == list(TOKENS)
    assert fluid(model, mixed, there)[0] == pytest.approx(fluid(model, bins, there)[0])
    assert random_split(model, mixed, there).per_s == pytest.approx(random_split(model, bins, there).per_s)


@given(models, lengths, pools, factors)
def test_what_takes_twice_as_long_is_served_half_as_often(
    model: Model, bins: tuple[Bin, ...], there: Pools, factor: float
) -> None:
    slower = Model(
        local_s=Curve(tuple((n, factor * x) for n, x in model.local_s.points)),
        remote_s=Curve(tuple((n, factor * x) for n, x in model.remote_s.points)),
        kv_bytes=Curve(tuple((n, factor * x) for n, x in model.kv_bytes.points)),
    )
    there = replace(there, decode=1e6)
    for rate in RATES:
        assert rate(slower, bins, there) * factor == pytest.approx(rate(model, bins, there), rel=1e-6)


@given(models, lengths, pools, st.integers(1, 12))
def test_no_other_split_of_local_nodes_serves_more(
    model: Model, bins: tuple[Bin, ...], there: Pools, nodes: int
) -> None:
    def rate(one: Pools) -> float:
        return fluid(model, bins, one)[0]

    best = rate(split(nodes, there, rate))
    for prefill in range(nodes):
        assert rate(replace(there, prefill=float(prefill), decode=float(nodes - prefill))) <= best * (1.0 + 1e-6)
