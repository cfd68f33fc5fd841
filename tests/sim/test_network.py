"""The way to an endpoint."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.sim.chance import Chance
from tidegate.sim.network import PRESETS, Changing, Link, LinkProfile, Regimes, kv_bytes, prompt_bytes

NOW_S = 1_700_000_000.0
presets = st.sampled_from(sorted(PRESETS))
seeds = st.integers(0, 2**32)
payloads = st.integers(0, 50_000_000)
times = st.floats(0.0, 1e6)


def link(profile: LinkProfile | str = "ocean", seed: int = 1) -> Link:
    return Link(PRESETS[profile] if isinstance(profile, str) else profile, Chance(seed), "way")


def plain(**changes: float) -> LinkProfile:
    """A megabyte a second both ways, and nothing else."""
    made = LinkProfile(rtt_s=0.0, upload_bytes_per_s=1e6, download_bytes_per_s=1e6)
    return msgspec.structs.replace(made, **changes)


@given(presets, seeds, st.lists(st.tuples(st.floats(0.0, 100.0), payloads), min_size=1, max_size=8), times)
def test_an_upload_takes_what_is_said_of_it_and_saying_so_changes_nothing(
    preset: str, seed: int, sent: list[tuple[float, int]], now_s: float
) -> None:
    asked, alone = link(preset, seed), link(preset, seed)
    for gap_s, payload in sent:
        now_s += gap_s
        upload_s = asked.upload_s(payload, now_s)
        arrives_s = asked.sent(payload, now_s)
        assert arrives_s == alone.sent(payload, now_s)
        # What is left of it is half a round trip, however long that was just then.
        assert arrives_s - now_s - upload_s >= 0.5 * PRESETS[preset].rtt_s - 1e-6


@given(presets, seeds, payloads, payloads, times)
def test_more_bytes_never_arrive_sooner(preset: str, seed: int, one: int, other: int, now_s: float) -> None:
    low, high = sorted((one, other))
    assert link(preset, seed).sent(low, now_s) <= link(preset, seed).sent(high, now_s)


@given(presets, seeds, payloads, times)
def test_nothing_arrives_sooner_than_half_a_round_trip(preset: str, seed: int, payload: int, now_s: float) -> None:
    least_s = now_s + 0.5 * PRESETS[preset].rtt_s
    way = link(preset, seed)
    assert way.sent(payload, now_s) >= least_s
    assert way.answered(now_s) >= least_s
    assert way.rtt_s(now_s) >= PRESETS[preset].rtt_s


@given(presets, seeds, st.lists(payloads, min_size=1, max_size=20), times)
def test_payloads_sent_at_once_take_as_long_as_one_of_them_all(
    preset: str, seed: int, parts: list[int], now_s: float
) -> None:
    profile = msgspec.structs.replace(PRESETS[preset], loss=0.0)
    shared, whole = link(profile, seed), link(profile, seed)
    last_s = max(shared.sent(part, now_s) for part in parts)
    assert last_s - now_s == pytest.approx(whole.sent(sum(parts), now_s) - now_s, rel=1e-6, abs=1e-6)


@given(seeds, st.lists(st.tuples(st.floats(0.0, 2.0), payloads), min_size=1, max_size=20))
def test_a_link_carries_no_more_than_its_rate_and_is_not_idle_while_there_is_work(
    seed: int, sent: list[tuple[float, int]]
) -> None:
    way, at_s, backlog_s = link(plain(), seed), 0.0, 0.0
    for gap_s, payload in sent:
        at_s += gap_s
        backlog_s = max(at_s, backlog_s) + payload / 1e6
        assert way.sent(payload, at_s) == pytest.approx(backlog_s, rel=1e-9, abs=1e-9)


@given(presets, seeds, st.lists(st.floats(0.0, 1e7), min_size=1, max_size=30))
def test_the_regime_of_a_time_does_not_depend_on_what_was_asked_before(
    preset: str, seed: int, asked: list[float]
) -> None:
    regimes = PRESETS[preset].rate_regimes
    used = Changing(regimes, seed)
    assert [used.at(now_s) for now_s in asked] == [Changing(regimes, seed).at(now_s) for now_s in asked]


@given(st.floats(0.01, 1e5), seeds, st.floats(0.0, 1e9))
def test_a_regime_holds_until_it_says_and_the_next_one_begins_then(hold_s: float, seed: int, now_s: float) -> None:
    changing = Changing(Regimes(hold_s=hold_s, quantiles=((0.0, 0.1), (1.0, 10.0))), seed)
    for _ in range(5):
        _, until_s = changing.at(now_s)
        assert now_s < until_s <= now_s + 1.81 * hold_s
        now_s = until_s


@given(presets, seeds, st.lists(st.tuples(st.floats(0.0, 100.0), payloads), max_size=10))
def test_probes_and_answers_change_nothing_of_what_is_sent(
    preset: str, seed: int, sent: list[tuple[float, int]]
) -> None:
    probed, alone = link(preset, seed), link(preset, seed)
    at_s = NOW_S
    for gap_s, payload in sent:
        at_s += gap_s
        probed.rtt_s(at_s + 50.0)
        probed.answered(at_s)
        assert probed.sent(payload, at_s) == alone.sent(payload, at_s)


def test_two_links_of_one_profile_have_chance_of_their_own() -> None:
    one, other = (Link(PRESETS["metro"], Chance(1), name) for name in ("one", "other"))
    assert one.rtt_s(NOW_S) != other.rtt_s(NOW_S)
    assert one.rtt_s(NOW_S) != Link(PRESETS["metro"], Chance(2), "one").rtt_s(NOW_S)


def test_a_payload_feels_the_regimes_that_it_lasts_through() -> None:
    """Sixty times as long as a regime, it gets the mean of the rates."""
    regimes = Regimes(hold_s=1.0, quantiles=((0.0, 0.5), (0.5, 0.5), (0.501, 1.5), (1.0, 1.5)))
    way = link(msgspec.structs.replace(plain(), rate_regimes=regimes))
    assert way.sent(600_000_000, 0.0) == pytest.approx(600.0, rel=0.1)


def test_loss_slows_one_connection_down_to_what_mathis_says_and_leaves_the_rest_to_others() -> None:
    way = link(plain(rtt_s=0.1, loss=0.01, upload_bytes_per_s=1e8))
    alone_s = way.sent(1_788_126, 0.0)
    assert alone_s == pytest.approx(10.0 + 0.05, rel=0.001)  # 1460 B / 0.1 s * sqrt(1.5) / sqrt(0.01) = 178.8 kB/s
    assert way.sent(0, 0.1) == pytest.approx(0.15)


def test_nothing_arrives_over_a_link_that_is_down_and_what_comes_later_does_not_wait_for_it() -> None:
    way = link(plain())
    way.down = True
    assert way.sent(10_000_000, 0.0) == way.answered(0.0) == way.rtt_s(0.0) == math.inf
    way.down = False
    assert way.sent(1_000_000, 1.0) == 2.0


def test_answers_do_not_wait_for_what_is_sent() -> None:
    way = link(plain(rtt_s=0.2))
    way.sent(10_000_000, 0.0)
    assert way.answered(1.0) == 1.1
    assert way.answered(1.0, 1_000_000) == 2.1


def test_payloads_are_as_large_as_the_design_counts_them() -> None:
    assert prompt_bytes(131_072) == 524_288
    assert kv_bytes(131_072, 327_680) == pytest.approx(43e9, rel=0.01)
    assert kv_bytes(131_072, 17_138, 182.5e6) == pytest.approx(2316.3 * 2**20, rel=0.01)


@pytest.mark.parametrize(
    "said",
    [
        '{"rtt_s": -1, "upload_bytes_per_s": 1, "download_bytes_per_s": 1}',
        '{"rtt_s": 0, "upload_bytes_per_s": 0, "download_bytes_per_s": 1}',
        '{"rtt_s": 0, "upload_bytes_per_s": 1, "download_bytes_per_s": 1, "loss": 1}',
        '{"rtt_s": 0, "upload_bytes_per_s": 1, "download_bytes_per_s": 1, "lag_s": 1}',
        '{"rtt_s": 0, "upload_bytes_per_s": 1, "download_bytes_per_s": 1,'
        ' "rtt_regimes": {"hold_s": 1, "quantiles": [[0, 0.5]]}}',
    ],
)
def test_a_profile_that_cannot_be_is_refused(said: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(said, type=LinkProfile)


@pytest.mark.parametrize(
    "quantiles", ["[]", "[[0.5, 1], [0.5, 2]]", "[[0, 2], [1, 1]]", "[[0, 0]]", "[[0, 1], [2, 1]]"]
)
def test_quantiles_out_of_order_are_refused(quantiles: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="quantiles"):
        msgspec.json.decode(f'{{"hold_s": 1, "quantiles": {quantiles}}}', type=Regimes)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_profile_can_be_written_down_and_read_again(preset: str) -> None:
    assert msgspec.json.decode(msgspec.json.encode(PRESETS[preset]), type=LinkProfile) == PRESETS[preset]
