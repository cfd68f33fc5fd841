"""Laws of the way to an endpoint: order within an instant, units, bounds, and what replicas know together."""

from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.network import SAMPLES_MAX, NetworkModel, combined
from tidegate.core.state import Network, Sample

DECLARED_S, DECLARED_BYTES_PER_S = 0.05, 1e6
rtts_s = st.floats(0.0, 5.0)
transfers = st.tuples(st.integers(1, 10_000_000), st.floats(1e-4, 100.0))
sizes = st.integers(0, 50_000_000)
gaps_s = st.sampled_from([0.0, 0.5, 5.0, 600.0])
bounds = st.tuples(st.integers(1, 10_000_000), st.floats(1e-4, 1.0), st.just(True))
# What is told, and how long after what was told before.
facts = st.lists(st.tuples(gaps_s, st.one_of(rtts_s, transfers, bounds)), max_size=40)
Fact = float | tuple[int, float] | tuple[int, float, bool]


def tell(network: NetworkModel, fact: Fact, now_s: float) -> None:
    if isinstance(fact, float):
        network.learn_rtt(fact, now_s)
    else:
        network.learn_upload(fact[0], fact[1], now_s, at_most=len(fact) == 3)


def told(known: list[tuple[float, Fact]]) -> tuple[NetworkModel, float]:
    network, now_s = NetworkModel(DECLARED_S, DECLARED_BYTES_PER_S, Network()), 0.0
    for gap_s, fact in known:
        now_s += gap_s
        tell(network, fact, now_s)
    return network, now_s


def belief(network: NetworkModel, now_s: float) -> tuple[float, ...]:
    return (*network.moments(1_000, now_s), *network.moments(1_000_000, now_s), network.telling_bytes)


@given(facts, st.lists(st.one_of(rtts_s, transfers), max_size=8), st.integers(0, 99))
def test_the_order_of_what_is_told_at_one_instant_is_irrelevant(
    known: list[tuple[float, Fact]], instant: list[Fact], seed: int
) -> None:
    found = []
    for order in (instant, Random(seed).sample(instant, len(instant))):
        network, now_s = told(known)
        for fact in order:
            tell(network, fact, now_s + 1.0)
        found.append(network.state)
    assert found[0] == found[1]


@given(st.lists(transfers, max_size=8), st.lists(st.one_of(transfers, bounds), max_size=8), st.integers(0, 99))
def test_nor_is_that_of_bounds_among_them(known: list[Fact], instant: list[Fact], seed: int) -> None:
    found = []
    for order in (instant, Random(seed).sample(instant, len(instant))):
        network, now_s = told([(1.0, fact) for fact in known])
        for fact in order:
            tell(network, fact, now_s + 1.0)
        found.append(belief(network, now_s + 1.0))
    assert found[0] == found[1]


@given(facts, sizes, sizes)
def test_more_bytes_never_take_less_time(known: list[tuple[float, Fact]], low: int, more: int) -> None:
    network, now_s = told(known)
    (less_s, less_s2), (more_s, more_s2) = (network.moments(size, now_s) for size in (low, low + more))
    assert less_s <= more_s
    assert less_s2 <= more_s2


@given(facts, transfers, st.floats(1.0, 100.0), sizes)
def test_a_slower_transfer_never_predicts_less_time(
    known: list[tuple[float, Fact]], transfer: tuple[int, float], slower: float, size: int
) -> None:
    (quick, now_s), (slow, _) = told(known), told(known)
    quick.learn_upload(*transfer, now_s + 1.0)
    slow.learn_upload(transfer[0], transfer[1] * slower, now_s + 1.0)
    assert slow.seconds(size) >= quick.seconds(size)


@given(facts, rtts_s, st.floats(0.0, 5.0))
def test_a_longer_round_trip_never_predicts_less_time(
    known: list[tuple[float, Fact]], rtt_s: float, more_s: float
) -> None:
    (near, now_s), (far, _) = told(known), told(known)
    near.learn_rtt(rtt_s, now_s + 1.0)
    far.learn_rtt(rtt_s + more_s, now_s + 1.0)
    assert far.rtt_s >= near.rtt_s


@given(facts, st.lists(transfers, min_size=1, max_size=20))
def test_what_was_too_quick_to_be_timed_never_makes_a_link_look_slower(
    known: list[tuple[float, Fact]], quick: list[tuple[int, float]]
) -> None:
    network, now_s = told(known)
    for size_bytes, seconds in quick:
        now_s += 1.0
        before = network.upload_bytes_per_s
        network.learn_upload(size_bytes, seconds, now_s, at_most=True)
        assert network.upload_bytes_per_s >= before


@given(st.lists(st.tuples(gaps_s, st.one_of(transfers, bounds)), max_size=40), st.integers(0, 8), sizes)
def test_the_unit_of_bytes_does_not_matter(known: list[tuple[float, Fact]], power: int, size: int) -> None:
    k = 2**power
    network, now_s = told(known)
    scaled, at_s = NetworkModel(DECLARED_S, DECLARED_BYTES_PER_S * k, Network()), 0.0
    for gap_s, fact in known:
        at_s += gap_s
        assert isinstance(fact, tuple)
        tell(scaled, (fact[0] * k, *fact[1:]), at_s)
    assert scaled.moments(size * k, now_s) == pytest.approx(network.moments(size, now_s))


@given(facts, st.floats(0.0, 1e6), st.floats(0.0, 1e6), sizes)
def test_age_moves_no_median_and_narrows_nothing(
    known: list[tuple[float, Fact]], age_s: float, more_s: float, size: int
) -> None:
    network, now_s = told(known)
    (young_s, young_s2), (old_s, old_s2) = (network.moments(size, now_s + a) for a in (age_s, age_s + more_s))
    assert young_s == old_s
    assert 0.0 < young_s2 <= old_s2


@given(st.lists(st.tuples(gaps_s, rtts_s), max_size=10), st.floats(0.01, 5.0))
def test_recent_round_trips_rule(known: list[tuple[float, Fact]], rtt_s: float) -> None:
    network, now_s = told(known)
    for number in range(SAMPLES_MAX):
        network.learn_rtt(rtt_s, now_s + 1.0 + number)
    assert network.rtt_s == rtt_s


@given(facts)
def test_what_is_kept_is_bounded_in_order_and_enough(known: list[tuple[float, Fact]]) -> None:
    network, now_s = told(known)
    state = network.state
    for samples in (state.rtts, state.uploads):
        assert len(samples) <= SAMPLES_MAX
        assert samples == sorted(samples)
    again = msgspec.json.decode(msgspec.json.encode(state), type=Network)
    assert belief(NetworkModel(DECLARED_S, DECLARED_BYTES_PER_S, again), now_s) == belief(network, now_s)


times_s, values = st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.floats(0.001, 9.0)
samples = st.lists(st.builds(Sample, times_s, values), max_size=SAMPLES_MAX)
networks = st.builds(Network, samples.map(sorted), samples.map(sorted))


@given(networks, networks, networks)
def test_what_replicas_know_together_depends_neither_on_order_nor_on_grouping(
    a: Network, b: Network, c: Network
) -> None:
    assert combined(a, b) == combined(b, a)
    assert combined(combined(a, b), c) == combined(a, combined(b, c))
    assert combined(a, Network()) == a


@given(st.lists(st.tuples(st.floats(0.0, 100.0), rtts_s, st.booleans()), max_size=30))
def test_replicas_together_know_what_one_would_that_had_seen_it_all(seen: list[tuple[float, float, bool]]) -> None:
    one, parts = NetworkModel(0.1, 1e6, Network()), [NetworkModel(0.1, 1e6, Network()) for _ in range(2)]
    for at_s, rtt_s, which in sorted(seen):
        one.learn_rtt(rtt_s, at_s)
        parts[which].learn_rtt(rtt_s, at_s)
    assert combined(parts[0].state, parts[1].state) == one.state
