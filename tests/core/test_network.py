"""The way to an endpoint: what holds since the last change, and what is known of a request that is under way."""

from math import exp, log
from random import Random

import msgspec
import pytest

from tests import make
from tidegate.core.correction import level_of
from tidegate.core.endpoint import EndpointModel
from tidegate.core.fingerprint import Fingerprint
from tidegate.core.late import LATE_MAX
from tidegate.core.length import LengthModel
from tidegate.core.model import Ended, Ending, FirstToken, Probed, Uploaded, replace
from tidegate.core.network import (
    LOOK_S,
    RATE_LOOK_BYTES,
    SAMPLES_MAX,
    UPLOAD_BYTES_ALWAYS,
    UPLOAD_BYTES_MIN,
    NetworkModel,
)
from tidegate.core.router import Router
from tidegate.core.state import EndpointState, Network

QUANTILE = 0.9
LENGTHS = LengthModel()
EVERY_S = 5.0


def way(rtt_s: float = 0.05, rate: float = 1e6) -> NetworkModel:
    return NetworkModel(rtt_s, rate, Network())


def noisy(value: float, sigma: float, count: int, seed: int = 1) -> list[float]:
    draw = Random(seed)
    return [value * draw.lognormvariate(0.0, sigma) for _ in range(count)]


def probed(network: NetworkModel, rtts_s: list[float], from_s: float = 0.0) -> float:
    """Told of these round trips, one every five seconds; when the last one was."""
    for number, rtt_s in enumerate(rtts_s):
        network.learn_rtt(rtt_s, from_s + EVERY_S * number)
    return from_s + EVERY_S * (len(rtts_s) - 1)


def test_what_is_declared_holds_until_something_is_measured() -> None:
    network = way(0.05, 1e6)
    assert network.seconds(2_000_000) == 2.05
    network.learn_rtt(0.2, 0.0)
    network.learn_upload(100_000, 0.2, 0.0)
    assert (network.rtt_s, network.upload_bytes_per_s) == (0.2, 500_000.0)


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_two_probes_after_a_change_the_new_round_trip_rules(sigma: float, factor: float) -> None:
    network = way()
    at_s = probed(network, noisy(0.1, sigma, 40))
    assert network.rtt_s == pytest.approx(0.1, rel=2.0 * sigma)
    probed(network, noisy(0.1 * factor, sigma, 2, seed=2), at_s + EVERY_S)
    assert network.rtt_s == pytest.approx(0.1 * factor, rel=3.0 * sigma)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_two_transfers_after_a_change_the_new_rate_rules(factor: float) -> None:
    network = way()
    for number, rate in enumerate([*noisy(1e6, 0.2, 30), *noisy(1e6 * factor, 0.2, 2, seed=2)]):
        network.learn_upload(100_000, 100_000 / rate, 60.0 * number)
    assert network.upload_bytes_per_s == pytest.approx(1e6 * factor, rel=0.5)


@pytest.mark.parametrize("factor", [0.05, 20.0])
def test_one_value_that_is_far_off_moves_nothing_and_casts_doubt(factor: float) -> None:
    network = way()
    at_s = probed(network, noisy(0.1, 0.05, 20))
    before_s, (_, sure) = network.rtt_s, network.moments(0, at_s)
    network.learn_rtt(0.1 * factor, at_s + EVERY_S)
    assert network.rtt_s == pytest.approx(before_s, rel=0.05)
    assert network.unsettled
    assert network.moments(0, at_s + EVERY_S)[1] > 2.0 * sure
    network.learn_rtt(0.1, at_s + 2.0 * EVERY_S)
    assert not network.unsettled
    assert network.rtt_s == pytest.approx(before_s, rel=0.05)


def test_outliers_on_both_sides_are_no_change() -> None:
    network = way()
    at_s = probed(network, noisy(0.1, 0.05, 20))
    probed(network, [1.0, 0.01, 0.1], at_s + EVERY_S)
    assert network.rtt_s == pytest.approx(0.1, rel=0.1)


def test_a_link_that_is_itself_again_is_believed_after_two_probes() -> None:
    network = way()
    at_s = probed(network, [0.1] * 10 + [1.0, 1.0])
    assert network.rtt_s == 1.0
    probed(network, [0.1, 0.1], at_s + EVERY_S)
    assert network.rtt_s == 0.1


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5])
def test_a_link_that_is_only_unsteady_seldom_seems_to_have_changed(sigma: float) -> None:
    network, wrong = way(), 0
    for number, rtt_s in enumerate(noisy(0.1, sigma, 1_000)):
        network.learn_rtt(rtt_s, EVERY_S * number)
        wrong += number > SAMPLES_MAX and abs(log(network.rtt_s / 0.1)) > sigma
    assert wrong <= 30


def test_differences_of_a_millisecond_are_no_changes() -> None:
    network = way(0.0)
    probed(network, [0.0002] * 10 + [0.0006, 0.0007, 0.0006])
    assert not network.unsettled
    assert network.rtt_s == 0.0


@pytest.mark.parametrize("sigma", [0.1, 0.3])
def test_the_variance_is_that_of_the_round_trips_themselves(sigma: float) -> None:
    network = way()
    at_s = probed(network, noisy(0.1, sigma, 400))
    _, variance_s2 = network.moments(0, at_s)
    assert variance_s2**0.5 == pytest.approx(0.1 * sigma, rel=0.5)


def test_what_was_measured_long_ago_is_trusted_less_and_not_shifted() -> None:
    network = way()
    at_s = probed(network, noisy(0.1, 0.05, 20))
    network.learn_upload(100_000, 0.1, at_s)
    found = [network.moments(1_000_000, at_s + age_s) for age_s in (0.0, 60.0, 600.0, 1e6)]
    assert len({median_s for median_s, _ in found}) == 1
    variances = [variance_s2 for _, variance_s2 in found]
    assert variances == sorted(variances)
    assert variances[-1] > 4.0 * variances[0]


def test_a_rate_that_was_found_steady_is_still_known_after_ten_minutes() -> None:
    steady, unsteady = way(), way()
    for at_s, rate in enumerate(noisy(1e6, 0.02, 8)):
        steady.learn_upload(1_000_000, 1_000_000 / rate, float(at_s))
    for at_s, rate in enumerate(noisy(1e6, 0.4, 8)):
        unsteady.learn_upload(1_000_000, 1_000_000 / rate, float(at_s))
    for network, least, most in ((steady, 0.0, 0.2), (unsteady, 0.3, 1.0)):
        seconds, variance_s2 = network.moments(100_000_000, 7.0 + 600.0)
        assert least < variance_s2**0.5 / seconds < most


def test_of_what_is_old_the_next_measurement_says_more() -> None:
    network = way()
    at_s = probed(network, [0.1] * SAMPLES_MAX)
    network.learn_rtt(0.12, at_s + 4 * 3600.0)
    assert network.rtt_s == 0.12


def test_a_transfer_too_quick_to_be_timed_raises_a_rate_that_was_thought_lower() -> None:
    network = way(rate=1e6)
    for number in range(4):
        network.learn_upload(100_000, 0.1, float(number))
    for number in range(2):
        network.learn_upload(100_000, 0.002, 10.0 + number, at_most=True)
    assert network.upload_bytes_per_s == 5e7


def test_a_transfer_too_quick_to_be_timed_says_nothing_where_the_rate_is_thought_higher() -> None:
    network = way(rate=1e9)
    network.learn_upload(100_000, 0.002, 0.0, at_most=True)
    assert network.state.uploads == []
    assert not network.is_news(100_000, 0.002, at_most=True)
    assert network.is_news(100_000, 0.002, at_most=False)


def test_a_transfer_of_nothing_or_in_no_time_teaches_nothing() -> None:
    network = way()
    for size_bytes, seconds in ((0, 1.0), (10, 0.0), (10, -1.0), (10, float("inf")), (10, float("nan"))):
        network.learn_upload(size_bytes, seconds, 0.0)
    assert network.state.uploads == []


@pytest.mark.parametrize(
    ("rate", "telling_bytes"), [(1e9, UPLOAD_BYTES_ALWAYS), (5e6, 10_000), (1e3, UPLOAD_BYTES_MIN)]
)
def test_transfers_are_timed_that_are_large_or_long(rate: float, telling_bytes: int) -> None:
    assert way(rate=rate).telling_bytes == telling_bytes


# --- in the model of an endpoint --------------------------------------------------------------------------------------


def sent(model: EndpointModel, request_id: str, prompt_bytes: int = 100_000, now_s: float = 0.0) -> None:
    request = make.request(request_id, prompt_tokens=prompt_bytes // 4, prompt_bytes=prompt_bytes)
    base = model.base(request, LENGTHS.at("chat", 100), now_s)
    model.started(make.started(request, model.name), base, now_s)


def cloud(**prior: object) -> EndpointModel:
    endpoint = make.endpoint("cloud", local=False)
    return EndpointModel(replace(endpoint, prior=replace(endpoint.prior, **prior)), QUANTILE)


def level(model: EndpointModel) -> float:
    """How many times as long as declared the engine is found to take."""
    return level_of(model.timing.ttft.learned.cells[0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])


def ended(request_id: str, ttft_s: float) -> Ended:
    return make.ended(request_id, "cloud", ttft_s=ttft_s, e2e_s=ttft_s + 1.0)


def uploaded(request_id: str, seconds: float, *, at_most: bool = False) -> Uploaded:
    return Uploaded(request_id=request_id, endpoint="cloud", upload_bytes=100_000, seconds=seconds, at_most=at_most)


def test_a_slow_upload_that_was_timed_is_no_fault_of_the_engine() -> None:
    timed, blamed = (cloud(rtt_s=0.05, upload_bytes_per_s=1e6) for _ in range(2))
    ttft_s = 0.05 + 5.0 + 0.3 + 25_000 * 0.00005
    for model in (timed, blamed):
        sent(model, "r")
    timed.uploaded(uploaded("r", 5.0), 5.05)
    for model in (timed, blamed):
        model.ended(ended("r", ttft_s), ttft_s)
    assert level(timed) == pytest.approx(1.0, rel=0.01)
    assert level(blamed) > 2.0


def test_an_upload_too_quick_to_be_timed_took_no_longer_than_that() -> None:
    model = cloud(rtt_s=0.05, upload_bytes_per_s=1e5)
    sent(model, "r")
    model.uploaded(uploaded("r", 0.2, at_most=True), 0.2)
    assert model.state.reservations["r"].network_s == pytest.approx(0.25)
    model.uploaded(uploaded("r", 30.0, at_most=True), 0.2)
    assert model.state.reservations["r"].network_s == pytest.approx(0.25)


def test_a_slot_is_free_later_by_what_the_upload_took_longer() -> None:
    model = EndpointModel(make.endpoint("laptop", concurrency=1, prior=replace(make.LOCAL_PRIOR)), QUANTILE)
    sent(model, "r")
    (before_s,) = model.slots_free_s(0.0)
    model.uploaded(uploaded("r", 3.0), 0.0)
    assert model.slots_free_s(0.0)[0] == pytest.approx(before_s + 3.0 - 100_000 / 12.5e6)


def test_a_round_trip_that_is_another_one_is_no_fault_of_the_engine_for_what_is_under_way() -> None:
    model = cloud(rtt_s=0.05)
    for number in range(4):
        model.probed(Probed(endpoint="cloud", up=True, rtt_s=0.05), -20.0 + 5.0 * number)
    sent(model, "before", 400)
    sent(model, "after", 400)
    engine_s = 0.3 + 100 * 0.00005
    for request_id, first_s in (("before", 0.05 + engine_s), ("after", 1.0 + engine_s)):
        model.first(request_id, first_s)
    for at_s in (2.0, 3.0):
        model.probed(Probed(endpoint="cloud", up=True, rtt_s=1.0), at_s)
    for request_id, network_s in (("before", 0.05), ("after", 1.0)):
        assert model.state.reservations[request_id].network_s == pytest.approx(network_s, abs=1e-3)
        model.ended(ended(request_id, network_s + engine_s), 4.0)
        assert level(model) == pytest.approx(1.0, rel=0.01)


def probed_cloud(rtt_s: float = 0.05) -> EndpointModel:
    """One whose round trip was measured in the last twenty seconds."""
    model = cloud(rtt_s=rtt_s)
    for number in range(4):
        model.probed(Probed(endpoint="cloud", up=True, rtt_s=rtt_s), -20.0 + 5.0 * number)
    return model


@pytest.mark.parametrize(("rtt_s", "least", "most"), [(1.0, 0.99, 1.01), (0.05, 2.0, 5.0)], ids=["network", "engine"])
def test_what_was_late_and_over_before_a_probe_could_tell_waits_for_one(
    rtt_s: float, least: float, most: float
) -> None:
    """By what that measures, it was the network that took the second, or the engine."""
    model = probed_cloud()
    engine_s = 0.3 + 100 * 0.00005
    for number in range(3):
        sent(model, f"r{number}", 400)
        model.first(f"r{number}", 1.0 + engine_s)
        model.ended(ended(f"r{number}", 1.0 + engine_s), 1.1 + engine_s)
    assert len(model.state.late) == 3
    assert level(model) == 1.0
    for at_s in (2.0, 3.0):
        model.probed(Probed(endpoint="cloud", up=True, rtt_s=rtt_s), at_s)
    assert model.state.late == []
    assert least < level(model) < most


def test_what_waits_for_a_probe_teaches_nothing_of_another_model() -> None:
    model = probed_cloud()
    for number, weights in enumerate(("one", "another")):
        model.probed(Probed(endpoint="cloud", up=True, fingerprint=Fingerprint(weights=weights)), float(number))
        assert model.state.late == []
        sent(model, f"r{number}", 400, float(number))
        model.ended(ended(f"r{number}", 2.0), 2.0 + number)
        assert len(model.state.late) == 1


def test_where_nobody_measures_what_is_late_is_the_engines_at_once() -> None:
    model = cloud(rtt_s=0.05)
    sent(model, "r", 400)
    model.ended(ended("r", 2.0), 2.0)
    assert model.state.late == []
    assert level(model) > 1.0


def test_no_more_wait_for_a_probe_than_there_is_room_for() -> None:
    model = probed_cloud()
    for number in range(LATE_MAX + 1):
        sent(model, f"r{number}", 400)
        model.ended(ended(f"r{number}", 2.0), 2.0)
    assert len(model.state.late) == LATE_MAX
    assert level(model) > 1.0


def test_a_first_content_sooner_than_the_network_allows_says_nothing_of_the_engine() -> None:
    model = cloud(rtt_s=2.0)
    sent(model, "r", 400)
    model.ended(ended("r", 0.4), 0.4)
    assert all(not cell.weight for cell in model.timing.ttft.learned.cells)


def test_two_promises_in_a_row_that_were_missed_cast_doubt_until_a_probe_has_looked() -> None:
    model = cloud()
    for number, (times, doubts) in enumerate([(1.1, False), (0.9, False), (1.1, False), (1.1, True)]):
        sent(model, f"r{number}", 400)
        model.first(f"r{number}", times * model.state.reservations[f"r{number}"].ttft_s_high)
        assert model.late.doubts_network == doubts
    model.probed(Probed(endpoint="cloud", up=True, rtt_s=0.05), 1.0)
    assert not model.late.doubts_network


@pytest.mark.parametrize("ttft_s", [30.0, 0.001])
def test_what_comes_much_too_late_or_sooner_than_it_can_casts_doubt_alone(ttft_s: float) -> None:
    model = cloud()
    sent(model, "r", 400)
    model.first("r", ttft_s)
    assert model.late.doubts_network


def test_what_is_given_up_before_any_content_is_a_surprise_where_it_was_late() -> None:
    model = cloud()
    for number, (waited_s, doubts) in enumerate([(0.1, False), (600.0, True)]):
        sent(model, f"r{number}", 400)
        gone = make.ended(f"r{number}", "cloud", ending=Ending.TIMED_OUT, e2e_s=waited_s)
        model.ended(gone, waited_s)
        assert model.late.doubts_network == doubts


def test_the_bound_of_a_prediction_is_wider_where_the_network_is_not_known() -> None:
    known, unknown = cloud(), cloud()
    for number in range(20):
        known.probed(Probed(endpoint="cloud", up=True, rtt_s=0.05), float(number))
    request, length = make.request(), LENGTHS.at("chat", 100)
    bases = [model.base(request, length, 20.0) for model in (known, unknown)]
    assert bases[0].first_s == bases[1].first_s
    assert bases[0].first_s_high < bases[1].first_s_high


def test_of_an_endpoint_that_is_gone_an_upload_teaches_nothing() -> None:
    router = Router((make.endpoint("laptop"),), make.policy())
    before = bytes(router.snapshot())
    router.observe(uploaded("r", 1.0), 0.0)
    router.observe(FirstToken(request_id="r", endpoint="cloud", ttft_s=1.0), 0.0)
    assert bytes(router.snapshot()) == before
    assert router.network("cloud") is None
    assert not router.doubts_network("cloud")


def test_a_state_from_before_uploads_were_timed_is_read() -> None:
    old = {"network": {"rtt_s": 0.1, "upload_bytes_per_s": 1e6, "probed": True}}
    made = msgspec.to_builtins(EndpointModel(make.endpoint("laptop"), QUANTILE).state)
    assert msgspec.convert(made | old, EndpointState).network == Network()


def test_medians_of_noisy_links_are_medians() -> None:
    network, below, draw = way(), 0, Random(5)
    for number in range(2_000):
        rtt_s = exp(draw.gauss(log(0.1), 0.3))
        below += number >= SAMPLES_MAX and rtt_s <= network.rtt_s
        network.learn_rtt(rtt_s, EVERY_S * number)
    assert below / 2_000 == pytest.approx(0.5, abs=0.04)


# --- the rate of a link that nobody uses ------------------------------------------------------------------------------


def slowed(slow_s: float) -> tuple[NetworkModel, float]:
    """A link that carried a megabyte a second, and for so long has carried a tenth of that."""
    network = way(rate=1e6)
    for at_s in (0.0, 5.0, 10.0):
        network.learn_upload(1_000_000, 1.0, at_s)
    at_s = 15.0
    for at_s in (15.0, 20.0, 15.0 + slow_s):
        network.learn_upload(100_000, 1.0, at_s)
    return network, at_s


def test_a_link_that_is_as_quick_as_it_was_is_not_looked_at() -> None:
    network = way(rate=1e6)
    assert not network.doubts_rate(1e6)
    for at_s in (0.0, 5.0):
        network.learn_upload(1_000_000, 1.0, at_s)
    assert not network.doubts_rate(1e6)


@pytest.mark.parametrize(("slow_s", "after_s"), [(10.0, 5.0), (80.0, 10.0), (800.0, 100.0), (3500.0, 300.0)])
def test_a_link_that_became_slow_is_looked_at_the_more_seldom_the_longer_it_is(slow_s: float, after_s: float) -> None:
    network, at_s = slowed(slow_s)
    assert network.upload_bytes_per_s == pytest.approx(1e5)
    assert not network.doubts_rate(at_s + 0.99 * after_s)
    assert network.doubts_rate(at_s + 1.01 * after_s)


def test_what_was_seen_once_is_looked_at_again_within_a_second() -> None:
    network, at_s = slowed(80.0)
    network.learn_upload(RATE_LOOK_BYTES, 0.001, at_s + 11.0, at_most=True)
    assert network.upload_bytes_per_s == pytest.approx(1e5)
    assert network.doubts_rate(at_s + 11.0 + LOOK_S)
    network.learn_upload(RATE_LOOK_BYTES, 0.001, at_s + 12.0, at_most=True)
    assert network.upload_bytes_per_s > 1e6
    assert not network.doubts_rate(at_s + 13.0)


def test_a_link_that_is_slower_than_it_was_declared_is_looked_at_as_well() -> None:
    network = way(rate=1e7)
    for at_s in (0.0, 5.0):
        network.learn_upload(100_000, 1.0, at_s)
    assert network.doubts_rate(11.0)
