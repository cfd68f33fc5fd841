"""Prompts that queue in two places and for the link in between."""

from itertools import repeat

import pytest
from bench.prefill_rules import Chosen, Everything, Gated, Longer, Ours, reversals
from hypothesis import given
from hypothesis import strategies as st

from tests.core.paths import POOLS
from tidegate.core.offload import Backlog
from tidegate.core.throughput import Curve, Model
from tidegate.sim.chance import Chance
from tidegate.sim.prefill import Link, Rule, Site, Wire, closed_loop, open_loop

# A thousand tokens take four seconds here and one there, and are a gigabyte.
MODEL = Model(
    local_s=Curve(((0.0, 0.0), (1_000.0, 4.0))),
    remote_s=Curve(((0.0, 0.0), (1_000.0, 1.0))),
    kv_bytes=Curve(((0.0, 0.0), (1_000.0, 1e9))),
)


def site(rate: float = 1e9, *, overlap: float = 0.0, layers: int = 10, slots: int = 100) -> Site:
    link = Link(rates=((0.0, rate),), overlap=overlap, layers=layers)
    return Site(model=MODEL, remote=1, prefill=1, slots=slots, decode_s=10.0, link=link)


def ttfts_s(where: Site, rule: Rule, times_s: list[float]) -> list[float]:
    return [one.ttft_s for one in open_loop(where, rule, times_s, [1_000.0] * len(times_s))]


def test_alone_a_prompt_takes_its_prefill_and_what_its_cache_takes_to_cross() -> None:
    assert ttfts_s(site(), Longer(1e9), [5.0]) == [4.0]
    assert ttfts_s(site(2e9), Everything(), [5.0]) == [pytest.approx(1.5)]


def test_what_crosses_while_it_is_computed_leaves_the_last_layer() -> None:
    assert ttfts_s(site(2e9, overlap=0.8), Everything(), [5.0]) == [pytest.approx(1.0 + 0.05)]
    # A link that is slower than prefill goes on after it.
    assert ttfts_s(site(0.5e9, overlap=0.8), Everything(), [5.0]) == [pytest.approx(0.2 + 2.0)]


def test_prompts_wait_for_those_before_them() -> None:
    assert ttfts_s(site(), Longer(1e9), [0.0, 1.0]) == [4.0, 7.0]
    # One second for each there, two on the link.
    assert ttfts_s(site(0.5e9), Everything(), [0.0, 0.0, 0.0]) == pytest.approx([3.0, 5.0, 7.0])


def test_the_first_token_waits_for_a_slot() -> None:
    assert ttfts_s(site(slots=1), Longer(1e9), [0.0, 0.0]) == [4.0, 14.0]


def test_a_rule_sees_what_waits() -> None:
    seen: list[Backlog] = []

    class Seeing(Everything):
        def away(self, tokens: float, backlog: Backlog, now_s: float) -> bool:
            seen.append(backlog)
            return tokens > 500.0

    open_loop(site(), Seeing(), [0.0, 0.5, 0.5, 3.0], [1_000.0, 500.0, 1_000.0, 500.0])
    assert seen == [
        Backlog(0.0, 0.0, 0.0),
        Backlog(0.0, 0.5, 1e9),
        Backlog(2.0, 0.5, 1e9),
        # The first cache has crossed; the second is complete at 2, and crosses until 3.
        Backlog(0.0, 0.0, 0.0),
    ]


def test_of_a_link_that_changes_the_rest_crosses_at_the_new_rate() -> None:
    wire = Wire(((0.0, 100.0), (10.0, 1.0), (20.0, 10.0)))
    assert wire.carry(50.0, 0.0) == (0.0, 0.5)
    assert wire.carry(100.0, 9.5) == pytest.approx((9.5, 24.0))
    assert wire.carry(10.0, 0.0) == pytest.approx((24.0, 25.0))


@given(st.floats(0.0, 100.0), st.lists(st.floats(0.1, 100.0), min_size=1, max_size=5))
def test_place_and_time_are_the_same(at_s: float, rates: list[float]) -> None:
    wire = Wire(tuple((10.0 * i, rate) for i, rate in enumerate(rates)))
    assert wire.when(wire.place(at_s)) == pytest.approx(at_s, abs=1e-6)


def test_nobody_is_lost_and_who_always_wait_are_as_many() -> None:
    tokens = [100.0 + i % 900 for i in range(500)]
    for rule in (Everything(), Chosen(0.5, Chance(1).at("rule")), Gated(300.0, 5.0, 1e9), Ours(MODEL, POOLS)):
        served = open_loop(site(), rule, [float(i) for i in range(500)], tokens)
        assert sorted(one.tokens for one in served) == sorted(tokens)
        assert min(one.ttft_s for one in served) > 0.0
    served = closed_loop(site(), Longer(1e9), 3, repeat(1_000.0), 400.0)
    assert len(served) == 100
    assert {one.ttft_s for one in served[2:]} == {12.0}


def test_a_pool_that_always_has_work_serves_what_the_throughput_model_says() -> None:
    served = closed_loop(site(0.25e9), Everything(), 8, repeat(1_000.0), 4_000.0)
    assert len(served) == pytest.approx(4_000.0 * 0.25, rel=0.01)


def test_a_gate_keeps_what_would_wait_for_longer() -> None:
    served = open_loop(site(), Gated(500.0, 0.5, 1e9), [0.0, 0.0], [1_000.0, 1_000.0])
    assert [one.away for one in served] == [True, False]


def test_a_series_turns_round_where_it_comes_back_by_enough() -> None:
    assert reversals([1.0, 2.0, 3.0], 0.25) == 0
    assert reversals([1.0, 1.2, 1.0, 1.2, 1.0], 0.25) == 0
    assert reversals([1.0, 2.0, 1.0, 2.0], 0.25) == 2
    assert reversals([1.0, 2.0, 1.9, 2.1, 1.9, 1.5], 0.25) == 1
