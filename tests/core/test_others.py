"""What an engine reports of its load: less what is ours, believed as far as it agrees, and never taken for zero."""

from random import Random

import msgspec
import pytest

from tests import make
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.load import Gain, Load
from tidegate.core.model import Ended, Ending, FirstToken, Prior, Probed, Request, replace
from tidegate.core.others import NOBODY, Others
from tidegate.core.revive import fault
from tidegate.core.router import Router
from tidegate.core.state import State

NOW_S = 1_000.0
LENGTH = LengthModel().at("chat", 100)


def told(*reports: tuple[int | None, int | None], every_s: float = 5.0) -> Others:
    """An engine that nobody of ours uses, and what it reported."""
    others = Others(Load())
    for number, (running, queued) in enumerate(reports):
        at_s = NOW_S + every_s * number
        others.report(running, queued, (), at_s, at_s)
    return others


def ours(count: int, *, first: bool = False) -> EndpointModel:
    """An endpoint with so many of ours in flight, sent a second ago."""
    model = EndpointModel(make.endpoint("laptop", concurrency=16), 0.9)
    for index in range(count):
        request = make.request(f"r{index}")
        model.started(make.started(request, "laptop"), model.base(request, LENGTH, NOW_S - 1.0), NOW_S - 1.0)
        if first:
            model.first(f"r{index}", NOW_S - 0.5)
    return model


def probed(model: EndpointModel, running: int | None, queued: int | None, now_s: float = NOW_S) -> None:
    model.probed(Probed(endpoint="laptop", up=True, running=running, queued=queued), now_s)


def first_s(model: EndpointModel, now_s: float = NOW_S, request: Request | None = None) -> float:
    return model.base(request or make.request(), LENGTH, now_s).first_s


def test_what_runs_beside_ours_is_somebody_elses() -> None:
    model = ours(3)
    probed(model, 7, 2)
    assert model.others.newest == pytest.approx((4.0, 2.0))


def test_an_engine_that_reports_ours_alone_is_predicted_as_one_that_reports_nothing() -> None:
    telling, silent = ours(2), ours(2)
    for number in range(30):
        now_s = NOW_S + 5.0 * number
        probed(telling, 2, 0, now_s)
        asked, then_s = make.request("x"), now_s + 2.0
        assert make.told(telling.base(asked, LENGTH, then_s)) == make.told(silent.base(asked, LENGTH, then_s))


def test_what_waits_in_the_engine_delays_and_what_runs_there_slows() -> None:
    idle, busy = ours(0), ours(0)
    probed(idle, 0, 0)
    probed(busy, 8, 4)
    assert first_s(busy) > 3.0 * first_s(idle)
    slow = EndpointModel(make.endpoint("laptop", prior=replace(make.LOCAL_PRIOR, batch_slowdown=0.1)), 0.9)
    alone_s = slow.base(make.request(), LENGTH, NOW_S).tpot_s
    probed(slow, 8, 0)
    assert slow.base(make.request(), LENGTH, NOW_S).tpot_s == pytest.approx(1.8 * alone_s)


@pytest.mark.parametrize("said", [(None, None), (None, 3), (3, None), (-1, 3), (3, -1), (2_000_000, 0)])
def test_no_number_half_a_word_and_an_impossible_one_are_no_report(said: tuple[int | None, int | None]) -> None:
    assert not told(said).told
    kept = told((4, 2), said)
    assert kept.newest == told((4, 2)).newest
    assert kept.at(NOW_S + 60.0) == told((4, 2)).at(NOW_S + 60.0)


def test_an_engine_that_stopped_reporting_is_not_idle() -> None:
    others = told(*[(8, q) for q in (3, 5, 4, 6, 5, 7, 4)])
    for _ in range(5):
        others.met(0, 1.5, 1.0, NOW_S + 30.0)
    later = others.at(NOW_S + 600.0)
    assert later.known < 0.01
    assert later.variance > 0.0
    assert others.usual(0, NOW_S + 600.0)[0] > 0.2


def test_what_is_on_its_way_is_neither_missing_nor_somebody_elses() -> None:
    model = EndpointModel(make.endpoint("laptop", prior=replace(make.LOCAL_PRIOR, rtt_s=0.5)), 0.9)
    request = make.request("r")
    model.started(make.started(request, "laptop"), model.base(request, LENGTH, NOW_S - 0.2), NOW_S - 0.2)
    for running in (0, 1):
        probed(model, running, 0)
        assert model.others.at(NOW_S) is NOBODY
    assert model.others.trust == 1.0


def test_a_report_from_before_an_end_counts_what_has_ended_since() -> None:
    model = ours(3)
    probed(model, 3, 0)
    model.ended(Ended(request_id="r0", endpoint="laptop", ending=Ending.OK, e2e_s=1.0), NOW_S + 5.0)
    late = Probed(endpoint="laptop", up=True, running=3, queued=0, measured_s=NOW_S + 4.9)
    model.probed(late, NOW_S + 5.1)
    assert model.others.newest == (0.0, 0.0)
    model.probed(replace(late, measured_s=NOW_S + 9.9), NOW_S + 10.0)
    assert model.others.newest == pytest.approx((1.0, 0.0))


def test_an_answer_with_several_completions_may_run_as_several() -> None:
    model = EndpointModel(make.endpoint("laptop"), 0.9)
    request = make.request("r", completions=4)
    model.started(make.started(request, "laptop"), model.base(request, LENGTH, NOW_S - 1.0), NOW_S - 1.0)
    for running in (1, 4):
        probed(model, running, 0)
        assert model.others.newest == (0.0, 0.0)


def test_an_engine_that_leaves_ours_out_loses_its_word() -> None:
    model = ours(4, first=True)
    for number in range(3):
        probed(model, 0, 0, NOW_S + 5.0 * number)
    assert model.others.trust < 0.01
    assert model.others.at(NOW_S + 10.0).known < 0.01


def test_a_word_that_was_lost_comes_back() -> None:
    model = ours(4, first=True)
    for number in range(3):
        probed(model, 0, 0, NOW_S + 5.0 * number)
    now_s = NOW_S + 10.0
    for _ in range(400):
        now_s += 5.0
        probed(model, 6, 0, now_s)
    assert model.others.trust > 0.5


def test_one_answer_that_was_on_its_way_back_costs_little_trust() -> None:
    model = ours(4, first=True)
    for number in range(40):
        probed(model, 3 if number == 20 else 4, 0, NOW_S + 5.0 * number)
    assert model.others.trust > 0.9


def test_the_same_again_and_again_is_as_old_as_the_first_of_it() -> None:
    draw = Random(1)
    moving = [(draw.randint(4, 8), draw.randint(0, 6)) for _ in range(60)]
    alive, frozen = told(*moving, (8, 6)), told(*moving, *[(8, 6)] * 30)
    assert alive.at(NOW_S + 300.0).known == 1.0
    assert frozen.at(NOW_S + 5.0 * 89).known < 0.2
    # One that changes again is believed after its second word.
    for now_s, queued in ((NOW_S + 450.0, 5), (NOW_S + 455.0, 3)):
        frozen.report(8, queued, (), now_s, now_s)
    assert frozen.at(NOW_S + 455.0).known == 1.0


def test_an_engine_that_is_idle_or_ours_alone_may_say_so_for_ever() -> None:
    busy = [(8, q) for q in (3, 5, 4, 6, 5, 7, 4, 1)]
    others = told(*busy, *[(0, 0)] * 100)
    assert others.at(NOW_S + 5.0 * 107) is NOBODY


def test_how_long_an_engine_stays_busy_is_learned() -> None:
    draw = Random(3)
    hasty = told(*[(8, draw.choice((0, 20))) for _ in range(200)])
    lazy = told(*[(8, 20 * (number // 40 % 2)) for number in range(200)])
    assert hasty._lasts_s < 10.0
    assert lazy._lasts_s > 60.0


def test_a_night_without_a_word_says_nothing_of_how_often_an_engine_is_asked() -> None:
    others = told(*[(8, queued) for queued in (3, 5, 4, 6, 5, 7, 4, 1) * 4])
    for number in range(8):
        at_s = NOW_S + 28_800.0 + 5.0 * number
        others.report(8, number % 5, (), at_s, at_s)
    at_s = NOW_S + 28_835.0
    assert others.at(at_s).known == 1.0
    assert others.at(at_s + 240.0).known < 0.05


def test_an_engine_that_is_asked_once_an_hour_is_known_from_one_word_to_the_next() -> None:
    others = told(*[(8, queued) for queued in (3, 5, 4, 6, 5, 7, 4, 1) * 6], every_s=3600.0)
    assert others.at(NOW_S + 3600.0 * 48).known > 0.9


@pytest.mark.parametrize("unit", [1, 10])
@pytest.mark.parametrize("wait_s", [0.0, 0.2, 0.8, 3.0])
def test_what_a_report_is_worth_in_seconds_is_learned_whatever_its_unit(unit: int, wait_s: float) -> None:
    draw, errors = Random(5), []
    model, now_s = EndpointModel(make.endpoint("laptop", concurrency=8), 0.9), NOW_S
    for number in range(400):
        now_s += 60.0
        queued = draw.choice((0, 2, 5, 11))
        probed(model, 8 * unit, queued * unit, now_s)
        request = make.request(f"r{number}")
        base = model.base(request, LENGTH, now_s)
        model.started(make.started(request, "laptop"), base, now_s)
        ttft_s = (0.25 + wait_s * queued) * draw.lognormvariate(0.0, 0.05)
        errors.append(abs(base.first_s / ttft_s - 1.0))
        model.first(request.id, now_s + ttft_s)
        ended = make.ended(request.id, "laptop", e2e_s=ttft_s + 2.0, ttft_s=ttft_s, output_tokens=100)
        model.ended(ended, now_s + ttft_s + 2.0)
    assert sorted(errors[-200:])[100] < 0.2


@pytest.mark.parametrize("true_gain", [0.0, 0.1, 0.5, 1.0, 3.0, 20.0])
def test_a_gain_is_found_within_some_dozens_of_samples(true_gain: float) -> None:
    gain, draw = Gain(), Random(2)
    for number in range(60):
        added_s = draw.choice((0.0, 0.3, 1.0, 4.0))
        gain.learn(0.3, added_s, (0.3 + true_gain * added_s) * draw.lognormvariate(0.0, 0.3), NOW_S + number)
    assert gain.factor() == pytest.approx(true_gain, rel=0.25, abs=0.07)


def test_one_long_wait_proves_nothing() -> None:
    gain = Gain()
    for number in range(20):
        gain.learn(0.3, 1.0, 1.3, NOW_S + number)
    gain.learn(0.3, 1.0, 500.0, NOW_S + 21.0)
    assert gain.factor() == pytest.approx(1.0, rel=0.1)


def test_a_cancelled_attempt_teaches_nothing_of_others() -> None:
    model = ours(1)
    probed(model, 8, 4)
    before = msgspec.json.encode(model.others.load)
    request = make.request("x")
    model.started(make.started(request, "laptop"), model.base(request, LENGTH, NOW_S), NOW_S)
    model.ended(make.ended("x", "laptop", ending=Ending.CANCELLED, e2e_s=0.01), NOW_S + 0.01)
    assert msgspec.json.encode(msgspec.structs.replace(model.others.load, gone=[])) == before


def test_a_fleet_behind_an_api_is_not_asked_what_runs_in_it() -> None:
    model = EndpointModel(make.endpoint("cloud", local=False), 0.9)
    model.probed(Probed(endpoint="cloud", up=True, running=500, queued=100), NOW_S)
    assert not model.others.told


def test_a_busy_engine_of_others_loses_requests_to_one_that_is_free() -> None:
    router = Router((make.endpoint("a", owned=False), make.endpoint("b", owned=False)), make.policy())
    assert router.decide(make.request("r", ttft_s=0.5), NOW_S).plan[0].endpoint == "a"
    router.observe(Probed(endpoint="a", up=True, running=32, queued=9), NOW_S)
    router.observe(Probed(endpoint="b", up=True, running=3, queued=0), NOW_S)
    assert router.decide(make.request("r", ttft_s=0.5), NOW_S).plan[0].endpoint == "b"


def test_first_content_of_ours_is_told_beside_others_too() -> None:
    router = Router((make.endpoint("a", owned=False),), make.policy())
    router.observe(Probed(endpoint="a", up=True, running=8, queued=3), NOW_S)
    router.observe(make.started(make.request("r"), "a"), NOW_S)
    predicted_s = router.predicted_ttft_s("a", "r")
    assert predicted_s is not None
    assert predicted_s > 3.0
    router.observe(FirstToken(request_id="r", endpoint="a", ttft_s=4.0), NOW_S + 4.0)
    router.observe(make.ended("r", "a", e2e_s=5.0, ttft_s=4.0, output_tokens=50), NOW_S + 5.0)
    assert router.endpoint("a").others.load.usual[0].weight == 1.0


def test_what_adds_nothing_now_is_noticed_when_it_does() -> None:
    gain = Gain()
    for number in range(30):
        gain.learn(0.3, 11.0, 0.3, NOW_S + number)
    assert 0.0 < gain.factor() < 0.02, "nothing, but for what tells whether it still is"


def test_an_engine_that_is_met_behind_a_queue_of_small_requests_is_not_taken_for_a_quick_one() -> None:
    """Each that waits is believed to be a thousand tokens: of 300 that take three seconds together, none is."""
    prior = Prior(overhead_s=0.1, prefill_s_per_token=1.0 / 2_000.0, decode_s_per_token=0.02, rtt_s=0.0, sigma=0.3)
    rented = make.endpoint("rented", local=False, shares_compute=True, concurrency=64, prior=prior)
    router, draw, off = make.router(rented), Random(1), list[float]()
    for number in range(60):
        now_s, rush = NOW_S + 10.0 * number, number < 40
        took_s = (3.0 if rush else 0.6) * draw.lognormvariate(0.0, 0.05)
        queued = 300 if rush else 0
        router.observe(Probed(endpoint="rented", up=True, running=8 if rush else 0, queued=queued), now_s)
        request = make.request(f"r{number}", arrived_s=now_s, prompt_tokens=200, prompt_bytes=800)
        (found,) = router.candidates(request, now_s)
        assert found.estimate is not None
        off.append(found.estimate.ttft_s / took_s)
        router.observe(make.started(request, "rented"), now_s)
        router.observe(FirstToken(request_id=request.id, endpoint="rented", ttft_s=took_s), now_s + took_s)
        told = make.ended(request.id, "rented", ttft_s=took_s, e2e_s=took_s + 1.0, output_tokens=50, prompt_tokens=200)
        router.observe(told, now_s + took_s + 1.0)
    assert all(1.0 / 3.0 < one < 3.0 for one in off[40:]), "once they are gone, it is nearly as it was declared"
    assert all(1.0 / 1.5 < one < 1.5 for one in off[45:])


@pytest.mark.parametrize("queued", [1_000, 1_000_000])
def test_a_queue_beyond_all_reason_is_dear_and_leaves_what_is_learned_whole(queued: int) -> None:
    prior = Prior(overhead_s=0.1, prefill_s_per_token=0.01, decode_s_per_token=0.02, rtt_s=0.0, sigma=0.3)
    rented = make.endpoint("rented", local=False, shares_compute=True, usd_per_s=1e-5, prior=prior)
    router = make.router(rented)
    least_usd = cost_usd(router, NOW_S)
    for number in range(30):
        now_s = NOW_S + 10.0 * number
        router.observe(Probed(endpoint="rented", up=True, running=8, queued=queued), now_s)
        assert cost_usd(router, now_s) >= least_usd
        least_usd = 0.0
        request = make.request(f"r{number}", arrived_s=now_s)
        router.observe(make.started(request, "rented"), now_s)
        router.observe(FirstToken(request_id=request.id, endpoint="rented", ttft_s=0.5), now_s + 0.5)
        router.observe(make.ended(request.id, "rented", ttft_s=0.5, e2e_s=1.0, output_tokens=50), now_s + 1.0)
    state = msgspec.json.decode(router.snapshot(), type=State)
    assert fault(state) == ""


def cost_usd(router: Router, now_s: float) -> float:
    (found,) = router.candidates(make.request(arrived_s=now_s), now_s)
    assert found.estimate is not None
    return found.estimate.cost_usd
