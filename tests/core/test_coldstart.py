"""Cold starts of one endpoint: what is told, what is inferred, and who waits for whose load."""

from math import log
from random import Random

import msgspec
import pytest

from tests import make
from tidegate.core.coldstart import WARM, ColdModel
from tidegate.core.endpoint import EndpointModel
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hazard import slower_from
from tidegate.core.inflight import ends_s
from tidegate.core.latency import PARTS
from tidegate.core.length import LengthModel
from tidegate.core.loading import LOAD_S, usual_load_s
from tidegate.core.model import Ended, Ending, Endpoint, Fingerprint, FirstToken, Machine, Probed, replace
from tidegate.core.router import Router
from tidegate.core.state import EndpointState

WARM_S, SIGMA = 0.3, 0.3
HOUR_S = 3600.0


def attempt(model: ColdModel, at_s: float, ttft_s: float) -> float:
    """One attempt alone, sent and answered at once: what a cold start is responsible for."""
    sent = model.started(WARM_S, SIGMA, at_s, 0)
    model.used(at_s + ttft_s)
    model.ended(0, at_s + ttft_s)
    assert sent is not None
    return model.learn(sent, ttft_s, at_s + ttft_s)


def habit(model: ColdModel, times: int, *, every_s: float, ttft_s: float, from_s: float = 0.0) -> float:
    """The same again and again; when the last was over."""
    at_s = from_s
    for _ in range(times):
        at_s += every_s
        attempt(model, at_s, ttft_s)
        at_s += ttft_s
    return at_s


def test_most_engines_never_unload_and_are_expected_to_be_there() -> None:
    model = ColdModel(LOAD_S, None)
    assert model.at(0.0, 0) is WARM
    model.used(0.0)
    for idle_s in (1.0, 60.0, HOUR_S, 30 * 86_400.0):
        assert model.at(idle_s, 0) is WARM


def test_where_a_kind_unloads_it_is_expected_to_have_after_that_time_and_not_before() -> None:
    model = ColdModel(12.0, 300.0)
    model.used(0.0)
    assert model.at(250.0, 0) is WARM
    assert model.at(350.0, 0).share > 0.5
    assert model.at(350.0, 0).load_s == pytest.approx(12.0)
    # Nobody knows since when it has been idle.
    assert ColdModel(12.0, 300.0).at(0.0, 0).share > 0.5


def test_a_few_cold_starts_after_the_same_idle_time_make_it_expected_and_shorter_pauses_stay_warm() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    at_s = habit(model, 4, every_s=600.0, ttft_s=25.0)
    cold = model.at(at_s + 600.0, 0)
    assert cold.share > 0.75
    assert cold.load_s == pytest.approx(25.0, rel=0.1)
    assert model.at(at_s + HOUR_S, 0).share >= cold.share
    for pause_s in (1.0, 60.0, 200.0):
        assert model.at(at_s + pause_s, 0) is WARM


def test_one_outlier_among_many_attempts_is_no_habit() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    at_s = habit(model, 60, every_s=60.0, ttft_s=0.3)
    attempt(model, at_s + 60.0, 30.0)
    at_s = habit(model, 20, every_s=60.0, ttft_s=0.3, from_s=at_s + 90.0)
    assert model.at(at_s + 60.0, 0).share < 0.1


def test_a_morning_of_cold_starts_is_no_news_after_a_day_of_short_pauses() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    at_s = habit(model, 40, every_s=200.0, ttft_s=WARM_S)
    at_s = habit(model, 2, every_s=200.0, ttft_s=25.0, from_s=at_s)
    just_s = at_s + 1.0
    attempt(model, just_s, WARM_S)
    recent = model.at(just_s + 200.0, 0).share
    later_s = habit(model, 2000, every_s=9.0, ttft_s=WARM_S, from_s=just_s)
    assert model.at(later_s + 200.0, 0).share < 0.06 < 0.1 < recent  # two of 42


def test_an_engine_that_unloads_sooner_from_now_on_is_found_out_within_the_hour() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    at_s = habit(model, 300, every_s=400.0, ttft_s=0.3)
    assert model.at(at_s + 400.0, 0) is WARM
    at_s = habit(model, 8, every_s=400.0, ttft_s=25.0, from_s=at_s)
    assert model.at(at_s + 400.0, 0).share > 0.5


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_chance_is_the_share_of_cold_starts_where_chance_decides(share: float) -> None:
    """As where somebody else's requests make an engine swap the model out."""
    model, draw = ColdModel(LOAD_S, None), Random(3)
    model.used(0.0)
    at_s, predicted = 0.0, []
    for index in range(300):
        at_s += 120.0
        if index >= 100:
            predicted.append(model.at(at_s, 0).share)
        ttft_s = WARM_S * draw.lognormvariate(0.0, SIGMA)
        if draw.random() < share:
            ttft_s += draw.lognormvariate(log(8.0), 0.3)
        attempt(model, at_s, ttft_s)
        at_s += ttft_s
    assert sum(predicted) / len(predicted) == pytest.approx(share, abs=0.08)
    assert model.at(at_s + 120.0, 0).load_s == pytest.approx(8.0, rel=0.15)


def test_what_is_asked_for_once_a_week_leaves_a_trace() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    at_s = habit(model, 4, every_s=7 * 86_400.0, ttft_s=40.0)
    assert model.at(at_s + 7 * 86_400.0, 0).share > 0.5


def test_a_slow_engine_that_is_in_use_is_no_cold_one() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    at_s = 0.0
    for _ in range(50):
        at_s += 2.0
        assert attempt(model, at_s, 10 * WARM_S) < 0.5
        at_s += 10 * WARM_S
    assert model.at(at_s + 2.0, 0) is WARM


def test_an_engine_of_which_nothing_was_measured_yet_is_rather_slow_than_cold() -> None:
    """What was declared may be off by as much; once it was measured, it is not."""
    for measured in (False, True):
        model = ColdModel(LOAD_S, None)
        sent = model.started(WARM_S, SIGMA, 0.0, 0, measured=measured)
        assert sent is not None
        assert (model.learn(sent, 10.0, 10.0) > 0.5) is measured


def test_what_was_loaded_for_somebody_who_left_makes_no_unload_look_later() -> None:
    model, now_s = cold_habit()
    before = model.at(now_s, 0)
    for _ in range(5):
        sent = model.started(WARM_S, SIGMA, now_s, 0)
        model.ended(0, now_s + 25.0)
        assert sent is not None
        model.learn_silence(sent, 25.0, now_s + 25.0)
        attempt(model, now_s + 40.0, WARM_S)
        now_s += 640.0
    assert model.at(now_s, 0).share >= before.share - 0.02


# --- who waits for whose load ---------------------------------------------------------------------------------------


def cold_habit() -> tuple[ColdModel, float]:
    """A model that is known to be unloaded after ten minutes, and to take 30 s; and when it is, the next time."""
    model = ColdModel(30.0, None)
    model.used(0.0)
    return model, habit(model, 10, every_s=600.0, ttft_s=30.3) + 600.0


def test_who_comes_during_a_load_waits_for_what_is_left_of_it() -> None:
    model, now_s = cold_habit()
    all_of_it = model.at(now_s, 0)
    model.started(WARM_S, SIGMA, now_s, 0)
    later = model.at(now_s + 20.0, 1)
    assert later.share > 0.9
    assert later.load_s == pytest.approx(all_of_it.load_s - 20.0)
    overdue = model.at(now_s + 60.0, 1)
    assert overdue.load_s == pytest.approx(12.0)
    model.used(now_s + 61.0)
    assert model.at(now_s + 61.0, 2) is WARM


def test_silence_alone_makes_a_load_likely_where_none_was_expected() -> None:
    model = ColdModel(LOAD_S, None)
    model.used(0.0)
    model.started(WARM_S, SIGMA, 500.0, 0)
    # A tenth of a load may have any cause.
    assert model.at(501.0, 1) is WARM
    assert model.at(508.0, 1).share > 0.5


def test_who_joins_a_load_teaches_nothing_of_idle_times_and_loads() -> None:
    model, now_s = cold_habit()
    before = msgspec.json.encode((model.state.idle, model.state.loads))
    model.started(WARM_S, SIGMA, now_s, 0)
    joined = model.started(WARM_S, SIGMA, now_s + 25.0, 1)
    assert joined is not None
    model.used(now_s + 30.0)
    assert model.learn(joined, 5.2, now_s + 30.2) > 0.5
    assert msgspec.json.encode((model.state.idle, model.state.loads)) == before


def test_when_nobody_waits_any_more_the_next_one_expects_all_of_the_load() -> None:
    model, now_s = cold_habit()
    before = model.at(now_s, 0)
    sent = model.started(WARM_S, SIGMA, now_s, 0)
    assert sent is not None
    model.ended(0, now_s + 10.0)
    model.learn_silence(sent, 10.0, now_s + 10.0)
    after = model.at(now_s + 10.0, 0)
    assert after.share >= before.share
    assert after.load_s >= before.load_s


def test_a_load_that_was_waited_for_in_vain_takes_at_least_as_long_until_one_is_seen() -> None:
    model, now_s = cold_habit()
    sent = model.started(WARM_S, SIGMA, now_s, 0)
    assert sent is not None
    model.ended(0, now_s + 120.0)
    model.learn_silence(sent, 120.0, now_s + 120.0)
    assert model.at(now_s + 900.0, 0).load_s == pytest.approx(120.0 - WARM_S)
    attempt(model, now_s + 900.0, 30.3)
    assert model.at(now_s + 1_800.0, 0).load_s == pytest.approx(30.0, rel=0.05)


# --- what engines tell ----------------------------------------------------------------------------------------------


def test_what_an_engine_tells_goes_before_what_was_learned_while_it_is_fresh() -> None:
    model, now_s = cold_habit()
    model.told(True, now_s)
    assert model.at(now_s + 5.0, 0) is WARM
    assert 0.3 < model.at(now_s + 60.0, 0).share < model.at(now_s + 600.0, 0).share
    model.told(False, now_s + 601.0)
    assert model.at(now_s + 602.0, 0).share > 0.9


def test_an_engine_that_tells_nothing_changes_nothing() -> None:
    model, now_s = cold_habit()
    before = msgspec.json.encode(model.state)
    model.told(None, now_s)
    assert msgspec.json.encode(model.state) == before


@pytest.mark.parametrize("loading", [False, True])
def test_what_an_engine_told_while_it_was_down_is_void_once_it_is_up(loading: bool) -> None:
    """A vLLM that sleeps is down, and so is a llama.cpp that loads; neither says of itself that this is over."""
    router = make.router()
    router.observe(Probed(endpoint="laptop", up=False, resident=False, loading=loading), 0.0)
    router.observe(Probed(endpoint="laptop", up=True), 1.0)
    assert router.endpoint("laptop").cold.at(1.0, 0) is WARM
    assert router.decide(make.request(arrived_s=1.0), 1.0).plan[0].endpoint == "laptop"


def test_an_engine_that_says_it_is_away_when_it_is_up_again_is_believed() -> None:
    router = make.router()
    router.observe(Probed(endpoint="laptop", up=False), 0.0)
    router.observe(Probed(endpoint="laptop", up=True, resident=False), 1.0)
    assert router.endpoint("laptop").cold.at(1.0, 0).share > 0.9


def test_a_load_that_goes_on_when_the_engine_is_up_again_began_when_that_was_told() -> None:
    router = make.router()
    router.observe(Probed(endpoint="laptop", up=False, resident=False, loading=True), 0.0)
    router.observe(Probed(endpoint="laptop", up=True, loading=True), 4.0)
    assert router.endpoint("laptop").cold.at(4.0, 0).load_s == pytest.approx(LOAD_S - 4.0)


def test_what_was_told_before_the_last_use_is_void() -> None:
    model = ColdModel(LOAD_S, None)
    model.told(False, 0.0)
    assert model.at(0.5, 0).share > 0.9
    model.used(1.0)
    assert model.at(1.5, 0) is WARM
    model.told(False, 2.0)
    assert model.at(2.5, 0).share > 0.9


def test_an_engine_that_lies_is_believed_less_and_less() -> None:
    model = ColdModel(20.0, None)
    model.used(0.0)
    at_s = 0.0
    for _ in range(20):
        at_s += 60.0
        model.told(True, at_s - 1.0)
        attempt(model, at_s, 20.3)
        at_s += 20.3
    model.told(True, at_s + 59.0)
    assert model.at(at_s + 60.0, 0).share > 0.5


def test_an_engine_that_lists_what_it_loads_does_not_make_it_loaded() -> None:
    model, now_s = cold_habit()
    model.started(WARM_S, SIGMA, now_s, 0)
    model.told(True, now_s + 5.0)
    assert model.at(now_s + 5.0, 1).share > 0.9
    model.ended(0, now_s + 6.0)
    assert model.at(now_s + 6.0, 0).share > 0.5


def test_of_a_load_that_the_engine_tells_of_what_is_left_is_waited_for() -> None:
    model = ColdModel(30.0, None)
    model.told(False, 100.0, loading=True)
    model.told(False, 105.0, loading=True)
    assert model.at(110.0, 0).load_s == pytest.approx(20.0)
    sent = model.started(WARM_S, SIGMA, 110.0, 0)
    assert sent is not None
    model.used(130.3)
    model.ended(0, 130.3)
    before = msgspec.json.encode(model.state.loads)
    model.learn(sent, 20.3, 130.3)
    assert msgspec.json.encode(model.state.loads) == before


# --- in the model of an endpoint ------------------------------------------------------------------------------------


class Served:
    """An endpoint that serves one request at a time, after which it is idle for a while."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self.endpoint = endpoint or make.endpoint("laptop")
        self.model, self.lengths = EndpointModel(self.endpoint, 0.9), LengthModel()
        self.now_s, self.count = 0.0, 0

    def warmed(self) -> "Served":
        """It was in use, and is as fast as was declared."""
        for _ in range(5):
            self.serve(0.25, idle_s=1.0)
        return self

    def predicted_s(self, idle_s: float = 0.0) -> float:
        asked = make.request(prompt_tokens=200)
        return self.model.base(asked, self.lengths.at("chat", 100), self.now_s + idle_s).first_s

    def serve(self, ttft_s: float, *, idle_s: float = 0.0, ending: Ending = Ending.OK) -> None:
        self.now_s += idle_s
        self.count += 1
        asked = make.request(f"r{self.count}", prompt_tokens=200)
        base = self.model.base(asked, self.lengths.at("chat", 100), self.now_s)
        self.model.started(make.started(asked, "laptop"), base, self.now_s)
        self.now_s += ttft_s
        content = ending is Ending.OK
        if content:
            self.model.first(asked.id, self.now_s)
        fact = Ended(
            request_id=asked.id,
            endpoint="laptop",
            ending=ending,
            e2e_s=ttft_s,
            ttft_s=ttft_s if content else None,
            output_tokens=1 if content else None,
        )
        self.model.ended(fact, self.now_s)


def test_a_cold_start_is_not_learned_as_a_slow_engine() -> None:
    served = Served()
    for _ in range(30):
        served.serve(0.25, idle_s=1.0)
    ttft = served.model.timing.ttft
    before, learned = served.predicted_s(), ttft.learned
    bound, factors = ttft.predict([0.1] * PARTS, 1, 0, served.now_s).sigma, list(ttft.factors)
    for _ in range(6):
        served.serve(25.25, idle_s=1_000.0)
        for _ in range(5):
            served.serve(0.25, idle_s=1.0)
    assert served.predicted_s(idle_s=1.0) == pytest.approx(before, rel=0.05)
    assert ttft.predict([0.1] * PARTS, 1, 0, served.now_s).sigma <= bound + 0.01
    assert ttft.factors == pytest.approx(factors, rel=0.1)
    assert served.model.timing.ttft is ttft
    assert ttft.learned is learned
    assert served.predicted_s(idle_s=1_000.0) == pytest.approx(25.25, rel=0.1)


def test_whose_first_requests_were_all_cold_starts_is_found_to_unload() -> None:
    served, draw = Served(), Random(8)
    for _ in range(2):
        served.serve(8.6 * draw.lognormvariate(0.0, 0.02), idle_s=1_200.0)
    for _ in range(12):
        for _ in range(3):
            served.serve(0.25 * draw.lognormvariate(0.0, 0.3), idle_s=100.0)
        served.serve(8.6 * draw.lognormvariate(0.0, 0.02), idle_s=1_200.0)
    assert served.predicted_s(idle_s=100.0) == pytest.approx(0.25, rel=0.25)
    assert served.predicted_s(idle_s=1_200.0) == pytest.approx(8.6, rel=0.05)


def test_who_is_uneven_whatever_the_time_without_use_is_not_thought_to_unload() -> None:
    served, draw = Served(), Random(9)
    for _ in range(60):
        served.serve(draw.choice((0.25, 8.6)), idle_s=draw.choice((1.0, 100.0, 1_200.0)))
    assert slower_from(served.model.cold.state.levels) is None


def test_what_was_expected_of_those_that_wait_is_put_right_when_the_model_is_there() -> None:
    served = Served().warmed()
    for _ in range(8):
        served.serve(30.2, idle_s=1_000.0)
    model, now_s = served.model, served.now_s + 1_000.0
    for index in range(2):
        asked = make.request(f"w{index}", prompt_tokens=200)
        base = model.base(asked, served.lengths.at("chat", 100), now_s + index)
        model.started(make.started(asked, "laptop"), base, now_s + index)
    waits = model.state.reservations["w1"]
    assert waits.load_s == pytest.approx(29.0, rel=0.1)
    assert min(ends_s(waits, now_s + 11.0)) > now_s + 28.0
    model.first("w0", now_s + 10.0)
    assert max(ends_s(waits, now_s + 11.0)) < now_s + 15.0
    asked = make.request("next", prompt_tokens=200)
    assert model.base(asked, served.lengths.at("chat", 100), now_s + 10.0).queue_s < 2.0


def test_who_waits_for_a_slot_comes_after_somebody_for_whom_the_model_was_there() -> None:
    served = Served(make.endpoint("laptop", concurrency=1)).warmed()
    for _ in range(8):
        served.serve(30.2, idle_s=1_000.0)
    now_s = served.now_s + 1_000.0
    asked = make.request("first")
    length = served.lengths.at("chat", 100)
    first = served.model.base(asked, length, now_s)
    served.model.started(make.started(asked, "laptop"), first, now_s)
    second = served.model.base(make.request("second"), length, now_s)
    assert (first.cold_share > 0.5, second.cold_share) == (True, 0.0)
    assert served.model.slots_free_s(now_s)[0] > now_s + 28.5


def test_a_running_engine_costs_while_it_loads() -> None:
    served = Served(make.endpoint("laptop", usd_per_s=0.01, prior=replace(make.LOCAL_PRIOR, unload_after_s=60.0)))
    length = served.lengths.at("chat", 100)
    cold = served.model.base(make.request(prompt_tokens=200), length, 0.0)
    served.model.cold.used(0.0)
    warm = served.model.base(make.request(prompt_tokens=200), length, 0.0)
    assert cold.cost_usd - warm.cost_usd == pytest.approx(0.01 / 2 * cold.load_s_mean)


LLAMA = Fingerprint(weights="gguf:llama-3.1-8b.gguf:16060000000:8030000000")


def test_what_a_load_takes_at_first_is_as_written_or_as_the_size_of_the_weights_has_it() -> None:
    written = replace(make.LOCAL_PRIOR, load_s=7.0, unload_after_s=60.0)
    assert Served(make.endpoint(prior=written)).model.cold.at(0.0, 0).load_s == pytest.approx(7.0)
    told = Served(make.endpoint(prior=replace(written, load_s=None)))
    assert told.model.cold.at(0.0, 0).load_s == pytest.approx(LOAD_S)
    told.model.probed(Probed(endpoint="laptop", up=True, fingerprint=LLAMA), 0.0)
    assert told.model.cold.at(0.0, 0).load_s == pytest.approx(16.06e9 / 3.4e9, rel=0.01)
    assert usual_load_s(1e6) == 1.0


def test_another_model_behind_the_endpoint_has_loads_of_its_own() -> None:
    served = Served()
    served.model.probed(Probed(endpoint="laptop", up=True, fingerprint=LLAMA), 0.0)
    served.warmed()
    for _ in range(6):
        served.serve(60.2, idle_s=1_000.0)
    share = served.model.cold.at(served.now_s + 1_000.0, 0).share
    other = Fingerprint(weights="gguf:other.gguf:3400000000:1700000000")
    served.model.probed(Probed(endpoint="laptop", up=True, fingerprint=other), served.now_s)
    assert served.model.cold.at(served.now_s + 1_000.0, 0).load_s == pytest.approx(1.0)
    assert served.model.cold.at(served.now_s + 1_000.0, 0).share == share


def test_a_request_goes_elsewhere_while_the_model_here_is_cold_and_stays_once_it_is_there() -> None:
    prior = replace(make.LOCAL_PRIOR, load_s=60.0)
    router = make.router(make.endpoint("laptop", prior=prior), make.endpoint("cloud", local=False))
    asked = make.request(ttft_s=3.0)
    router.observe(Probed(endpoint="laptop", up=True, resident=False), 0.0)
    assert router.decide(asked, 0.0).plan[0].endpoint == "cloud"
    router.observe(Probed(endpoint="laptop", up=True, resident=True), 5.0)
    assert router.decide(replace(asked, arrived_s=5.0), 5.0).plan[0].endpoint == "laptop"


def test_an_attempt_is_not_given_up_before_the_load_that_is_to_be_expected() -> None:
    router = make.router(make.endpoint("laptop", prior=replace(make.LOCAL_PRIOR, load_s=60.0)))
    router.observe(Probed(endpoint="laptop", up=True, resident=False), 0.0)
    (run,) = router.decide(make.request(), 0.0).plan
    assert run.timeout_s > 120.0  # type: ignore[union-attr]


def test_a_snapshot_of_before_is_read_as_knowing_nothing_of_cold_starts() -> None:
    router = make.router(make.endpoint("laptop"))
    told = msgspec.json.decode(router.snapshot())["endpoints"]["laptop"]
    del told["cold"]
    state = msgspec.json.decode(msgspec.json.encode(told), type=EndpointState)
    assert ColdModel(LOAD_S, None, state.cold).at(HOUR_S, 0) is WARM


def test_what_is_under_way_outlives_a_snapshot() -> None:
    endpoint = make.endpoint("laptop", prior=replace(make.LOCAL_PRIOR, unload_after_s=60.0))
    router = make.router(endpoint)
    asked = make.request("r")
    router.decide(asked, 100.0)
    router.observe(make.started(asked, "laptop"), 100.0)
    state = msgspec.json.decode(router.snapshot(), type=type(router.state))
    again = Router((endpoint,), make.policy(), state)
    for one in (router, again):
        one.observe(FirstToken(request_id="r", endpoint="laptop", ttft_s=12.0), 112.0)
        one.observe(make.ended("r", "laptop", ttft_s=12.0, e2e_s=13.0, output_tokens=50), 113.0)
    assert again.snapshot() == router.snapshot()
    assert again.state.endpoints["laptop"].cold.loads.count > 0.5


def test_a_machine_that_is_declared_says_how_large_the_model_is() -> None:
    machine = Machine(accelerator=ACCELERATORS["h100-sxm"], model=MODELS["llama-3.1-8b"])
    endpoint = make.endpoint(machine=machine, prior=replace(make.LOCAL_PRIOR, unload_after_s=60.0))
    assert Served(endpoint).model.cold.at(0.0, 0).load_s == pytest.approx(4.72, rel=0.01)
