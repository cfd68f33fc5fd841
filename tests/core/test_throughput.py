"""What pools can serve where some prompts are prefilled elsewhere: by hand, and as a published paper has it."""

import os
from math import inf

import pytest
from bench.prefill_model import links, table6

from tidegate.core.model import replace
from tidegate.core.throughput import (
    Bin,
    Bound,
    Curve,
    Model,
    Pools,
    beyond,
    counted,
    everything,
    fluid,
    kv_bytes,
    log_normal,
    nothing,
    offloaded,
    random_split,
    split,
    threshold,
    tokens_sent,
    ttft_s,
)

SHORT, LONG = Bin(1_000.0, 0.5), Bin(9_000.0, 0.5)
BINS = (SHORT, LONG)
# A short prompt takes one second here and a half there, a long one nine and three; a token is a kilobyte.
MODEL = Model(
    local_s=Curve(((1_000.0, 1.0), (9_000.0, 9.0))),
    remote_s=Curve(((1_000.0, 0.5), (9_000.0, 3.0))),
    kv_bytes=Curve(((0.0, 0.0), (1_000.0, 1e6))),
)
POOLS = Pools(remote=3.0, prefill=1.0, decode=10.0, decode_per_s=1.0, link_bytes_per_s=1e9)

published = pytest.mark.skipif("TIDEGATE_DATA" not in os.environ, reason="TIDEGATE_DATA names no folder of data")


def test_a_curve_is_straight_between_its_points_and_goes_on_beyond_them() -> None:
    curve = Curve(((100.0, 1.0), (200.0, 3.0), (300.0, 4.0)))
    assert [curve.at(tokens) for tokens in (100.0, 150.0, 200.0, 300.0, 500.0)] == [1.0, 2.0, 3.0, 4.0, 6.0]
    assert curve.at(0.0) == 0.0
    assert Curve(((100.0, 1.0),)).at(7.0) == 1.0


def test_the_rate_is_that_of_the_busiest_pool() -> None:
    all_here = nothing(MODEL, BINS, POOLS)
    assert all_here.per_s == pytest.approx(1.0 / 5.0)
    assert all_here.bound is Bound.PREFILL
    all_away = everything(MODEL, BINS, POOLS)
    assert all_away.per_s == pytest.approx(3.0 / 1.75)
    assert all_away.bound is Bound.REMOTE
    slow = everything(MODEL, BINS, replace(POOLS, link_bytes_per_s=5e6))
    assert slow.per_s == pytest.approx(1.0)
    assert slow.bound is Bound.LINK
    idle = everything(MODEL, BINS, replace(POOLS, decode=1.0, decode_per_s=0.5))
    assert idle.per_s == 0.5
    assert idle.bound is Bound.DECODE


def test_the_long_ones_are_sent_away_and_chance_does_worse() -> None:
    found = threshold(MODEL, BINS, POOLS)
    # With the long ones, which take half of 3 s over three instances, as busy as with the short ones here.
    assert found.shares == pytest.approx((0.0, 1.0))
    assert found.per_s == pytest.approx(2.0)
    assert fluid(MODEL, BINS, POOLS)[0] == pytest.approx(2.0)
    # Five seconds here, or 1.75 over three there.
    assert random_split(MODEL, BINS, POOLS).per_s == pytest.approx(1.0 / 5.0 + 3.0 / 1.75)


def test_prices_send_away_what_the_best_rule_does() -> None:
    for link_bytes_per_s in (1e9, 4e6, 1e6):
        pools = replace(POOLS, link_bytes_per_s=link_bytes_per_s)
        shares = threshold(MODEL, BINS, pools).shares
        prices = fluid(MODEL, BINS, pools)[1]
        for one, share in zip(BINS, shares, strict=True):
            saved = (
                prices.local * MODEL.local_s.at(one.tokens)
                - prices.remote * MODEL.remote_s.at(one.tokens)
                - prices.link * MODEL.kv_bytes.at(one.tokens)
            )
            if share in (0.0, 1.0):
                assert (saved > 0.0) == bool(share)


def test_nothing_is_sent_where_there_is_nobody_or_no_way() -> None:
    for pools in (replace(POOLS, remote=0.0), replace(POOLS, link_bytes_per_s=0.0)):
        assert offloaded(BINS, threshold(MODEL, BINS, pools).shares) == 0.0
        assert offloaded(BINS, random_split(MODEL, BINS, pools).shares) == 0.0
        assert fluid(MODEL, BINS, pools)[0] == pytest.approx(0.2)


def test_all_is_sent_where_nobody_prefills_here() -> None:
    pools = replace(POOLS, prefill=0.0)
    rate, prices = fluid(MODEL, BINS, pools)
    assert rate == pytest.approx(everything(MODEL, BINS, pools).per_s)
    assert threshold(MODEL, BINS, pools).shares == (1.0, 1.0)
    assert prices.remote < inf


def test_what_a_flow_comes_to() -> None:
    found = beyond(MODEL, BINS, POOLS, 5_000.0)
    assert offloaded(BINS, found.shares) == 0.5
    assert tokens_sent(BINS, found.shares) == 9_000.0
    assert kv_bytes(MODEL, BINS, found.shares) == pytest.approx(4.5e6)
    assert ttft_s(MODEL, BINS, found.shares) == (2.0, 3.0)


def test_a_truncated_log_normal_has_its_mean_whatever_its_bins() -> None:
    coarse, fine = (log_normal(9.9, 1.0, 128.0, 131_072.0, bins) for bins in (16, 400))
    for bins in (coarse, fine):
        assert sum(one.share for one in bins) == pytest.approx(1.0)
        assert sum(one.share * one.tokens for one in bins) == pytest.approx(27_485.7, rel=1e-5)
        assert [one.tokens for one in bins] == sorted(one.tokens for one in bins)


def test_what_was_counted_is_shares() -> None:
    assert counted([9_000.0, 1_000.0, 5.0], [3.0, 1.0, 0.0]) == (Bin(1_000.0, 0.25), Bin(9_000.0, 0.75))


def test_of_splits_that_are_as_good_the_one_with_more_decode() -> None:
    decode_bound = Pools(remote=3.0, prefill=0.0, decode=0.0, decode_per_s=0.01, link_bytes_per_s=1e9)
    assert split(4, decode_bound, lambda pools: fluid(MODEL, BINS, pools)[0]).decode == 4.0


@published
def test_the_papers_table_comes_out_within_a_tenth() -> None:
    for row in table6():
        assert abs(row.off) < 0.1, row


@published
def test_other_links_come_out_as_in_the_notes() -> None:
    for rows in links().values():
        for row in rows:
            assert abs(row.off) < 0.01, row
