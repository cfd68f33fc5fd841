"""When a model is loaded for nobody in particular."""

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import Storm
from tidegate.core.inflight import begins_s
from tidegate.core.model import (
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Overrides,
    Probed,
    Run,
    Warmed,
    Warming,
    replace,
)
from tidegate.core.prefills import left_s
from tidegate.core.reserve import Reservation
from tidegate.core.revive import revived
from tidegate.core.router import Router
from tidegate.core.state import State, WarmUp

SWAPS = replace(make.LOCAL_PRIOR, load_s=30.0, unload_after_s=60.0)


def laptop(name: str = "laptop", **changes: object) -> Endpoint:
    return replace(make.endpoint(name, prior=SWAPS, warms_up=True), **changes)


@dataclass
class Played:
    """An engine of ours that says whether its model is loaded, and a vendor."""

    router: Router = field(default_factory=lambda: make.router(laptop(), make.endpoint("cloud", local=False)))
    now_s: float = 0.0

    def told(self, *, resident: bool, endpoint: str = "laptop") -> None:
        self.router.observe(Probed(endpoint=endpoint, up=True, resident=resident), self.now_s)

    def asks(self, *, ttft_s: float = 3.0, model: str = "m") -> str:
        """One request, sent where it is decided to go; it is served there in half a second, unless it waits."""
        request = make.request(arrived_s=self.now_s, ttft_s=ttft_s, model=model, late_usd_per_s=0.0)
        step = self.router.decide(request, self.now_s).plan[0]
        assert isinstance(step, Run)
        self.router.observe(make.started(request, step.endpoint), self.now_s)
        if step.endpoint == "cloud":
            self.now_s += 0.5
            self.router.observe(FirstToken(request_id=request.id, endpoint="cloud", ttft_s=0.5), self.now_s)
            self.router.observe(make.ended(request.id, "cloud", ttft_s=0.5, output_tokens=20), self.now_s)
        return step.endpoint

    def serves(self, endpoint: str, model: str) -> None:
        """One request is served there in half a second."""
        request = make.request(arrived_s=self.now_s, model=model)
        self.router.observe(make.started(request, endpoint), self.now_s)
        self.now_s += 0.5
        self.router.observe(make.ended(request.id, endpoint, ttft_s=0.5, output_tokens=10), self.now_s)

    @property
    def due(self) -> list[str]:
        return self.router.warm_ups(self.now_s)

    def begins(self, endpoint: str = "laptop") -> None:
        self.router.observe(Warming(endpoint=endpoint), self.now_s)

    def ends(self, took_s: float, *, served: bool = True, given_up: bool = False, endpoint: str = "laptop") -> None:
        self.now_s += took_s
        fact = Warmed(endpoint=endpoint, took_s=took_s, served=served, given_up=given_up)
        self.router.observe(fact, self.now_s)


def test_nobody_is_loaded_who_is_not_missed() -> None:
    played = Played()
    played.told(resident=False)
    assert played.due == []


def test_a_load_that_was_given_up_is_held_against_nobody() -> None:
    played = Played()
    played.told(resident=False)
    played.asks()
    played.begins()
    played.ends(1.0, served=False, given_up=True)
    assert played.due == ["laptop"]


def test_who_is_missed_is_loaded_once_and_serves_then() -> None:
    played = Played()
    played.told(resident=False)
    assert played.asks() == "cloud"
    assert played.due == ["laptop"]
    played.begins()
    assert played.due == []
    assert played.asks() == "cloud"
    assert played.due == []
    played.ends(30.0)
    assert played.due == []
    assert played.asks() == "laptop"


def test_who_is_missed_while_another_of_ours_is_full_is_loaded_as_well() -> None:
    desk = make.endpoint("desk", concurrency=1)
    played = Played(make.router(desk, laptop(), make.endpoint("cloud", local=False)))
    played.told(resident=False)
    played.router.observe(make.started(make.request(output_tokens_max=8_000), "desk"), 0.0)
    assert played.asks() == "cloud"
    assert played.due == ["laptop"]


def test_who_is_missed_while_others_are_held_is_loaded_as_well() -> None:
    desk = make.endpoint("desk", concurrency=1, models=("n",))
    played = Played(make.router(desk, laptop(), make.endpoint("cloud", local=False)))
    played.told(resident=False)
    played.router.observe(make.started(make.request(model="n"), "desk"), 0.0)
    played.router.observe(Held(request=make.request(model="n")), 0.0)
    assert played.asks() == "cloud"
    assert played.due == ["laptop"]


def test_who_waits_for_a_load_has_one_beside_that_nobody_ends() -> None:
    played = Played(make.router(laptop()))
    played.told(resident=False)
    assert played.asks(ttft_s=300.0) == "laptop"
    assert played.due == ["laptop"]
    played.begins()
    (waits,) = played.router.endpoint("laptop").state.reservations
    played.now_s += 5.0
    played.router.observe(Ended(request_id=waits, endpoint="laptop", ending=Ending.CANCELLED, e2e_s=5.0), played.now_s)
    # The load goes on: who comes now waits for the rest of it.
    left = played.router.endpoint("laptop").cold.at(played.now_s, 0)
    assert left.load_s == pytest.approx(25.0)


def test_who_comes_during_a_load_teaches_nothing_of_how_long_loads_take() -> None:
    played = Played()
    played.told(resident=False)
    played.asks()
    played.begins()
    played.now_s += 25.0
    request = make.request(arrived_s=played.now_s, ttft_s=300.0)
    played.router.observe(make.started(request, "laptop"), played.now_s)
    played.ends(20.0)
    played.router.observe(FirstToken(request_id=request.id, endpoint="laptop", ttft_s=20.0), played.now_s)
    played.router.observe(make.ended(request.id, "laptop", ttft_s=20.0, e2e_s=21.0, output_tokens=10), played.now_s)
    cold = played.router.endpoint("laptop").cold
    assert cold.load_s_mean(played.now_s) > 20.0
    assert cold.state.loads.count == pytest.approx(1.0, abs=0.1)


def waiting(*, came_s: float, prompt_tokens: int = 4_000) -> tuple[Played, Reservation]:
    """A request that came so long after a load for nobody in particular had begun; its prompt takes four seconds."""
    played = Played(make.router(laptop(concurrency=1)))
    played.told(resident=False)
    played.begins()
    played.now_s += came_s
    request = make.request("waits", arrived_s=played.now_s, prompt_tokens=prompt_tokens, ttft_s=300.0)
    played.router.observe(make.started(request, "laptop"), played.now_s)
    return played, played.router.endpoint("laptop").state.reservations["waits"]


@pytest.mark.parametrize("took_s", [8.0, 45.0])
def test_when_the_model_is_there_those_that_wait_are_expected_to_wait_no_longer(took_s: float) -> None:
    played, waits = waiting(came_s=5.0)
    model = played.router.endpoint("laptop")
    assert begins_s(waits, 5.0) > 30.0
    played.ends(took_s - played.now_s)
    assert begins_s(waits, took_s) <= took_s + 5.0
    assert model.slots_free_s(took_s)[0] < took_s + 10.0
    assert left_s(model.state.prefills, took_s) == pytest.approx(waits.prefill_s)
    assert left_s(model.state.prefills, took_s + 3.0) == pytest.approx(waits.prefill_s - 3.0)


def test_one_that_came_during_a_load_in_vain_is_put_right_once_somebody_is_served() -> None:
    played, waits = waiting(came_s=5.0)
    played.ends(1.0, served=False)
    assert begins_s(waits, played.now_s) > 30.0
    other = make.request("other", arrived_s=played.now_s)
    played.router.observe(make.started(other, "laptop"), played.now_s)
    played.now_s += 2.0
    played.router.observe(FirstToken(request_id="other", endpoint="laptop", ttft_s=2.0), played.now_s)
    assert begins_s(waits, played.now_s) < played.now_s + 5.0


def test_who_is_given_up_after_the_load_that_it_waited_for_says_nothing_of_an_engine_that_is_away() -> None:
    played, waits = waiting(came_s=5.0)
    played.ends(120.0)
    played.now_s += waits.ttft_s_high
    left = make.ended("waits", "laptop", ending=Ending.CANCELLED, e2e_s=played.now_s - 5.0)
    played.router.observe(left, played.now_s)
    assert played.router.endpoint("laptop").state.breaker.strikes == 0.0


def test_a_load_that_failed_is_followed_by_a_rest_that_doubles() -> None:
    played, rests_s = Played(), []
    for _ in range(9):
        played.told(resident=False)
        played.asks()
        assert played.due == ["laptop"]
        played.begins()
        played.ends(1.0, served=False)
        rest_s = played.router.endpoint("laptop").state.cold.warm_up.not_before_s - played.now_s
        rests_s.append(rest_s)
        played.told(resident=False)
        played.asks()
        assert played.due == []
        played.now_s += rest_s
    assert rests_s == pytest.approx([10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0])


def test_a_model_that_is_in_use_is_not_swapped_out_for_one_that_is_missed() -> None:
    mine = laptop("laptop", beside=("other",))
    other = laptop("other", models=("n",), beside=("laptop",))
    played = Played(make.router(mine, other, make.endpoint("cloud", local=False)))
    played.told(resident=False)
    played.told(resident=True, endpoint="other")
    used = make.request(model="n", arrived_s=played.now_s)
    played.router.observe(make.started(used, "other"), played.now_s)
    played.router.observe(FirstToken(request_id=used.id, endpoint="other", ttft_s=0.3), played.now_s + 0.3)
    played.now_s += 0.5
    assert played.asks() == "cloud"
    assert played.due == []
    played.router.observe(make.ended(used.id, "other", ttft_s=0.3, output_tokens=10), played.now_s)
    assert played.due == []
    played.now_s += 31.0
    played.told(resident=False)
    assert played.asks() == "cloud"
    assert played.due == ["laptop"]


def test_a_model_that_is_in_use_is_not_swapped_out_for_one_that_is_to_stay_loaded() -> None:
    mine = laptop("laptop", beside=("other",), kept_usd_per_s=0.0)
    other = laptop("other", models=("n",), beside=("laptop",), warms_up=False)
    played = Played(make.router(mine, other))
    played.serves("laptop", "m")
    played.now_s += 49.0
    assert played.due == ["laptop"]
    used = make.request(model="n", arrived_s=played.now_s)
    played.router.observe(make.started(used, "other"), played.now_s)
    assert played.due == []
    played.now_s += 0.5
    played.router.observe(make.ended(used.id, "other", ttft_s=0.3, output_tokens=10), played.now_s)
    assert played.due == []
    # Nor where its user pauses for longer than a load takes.
    played.now_s += 8.0
    assert played.due == []


@pytest.mark.parametrize("waits", [False, True])
def test_of_two_models_of_one_engine_that_are_missed_one_is_loaded_after_the_other(waits: bool) -> None:
    mine = laptop("laptop", beside=("other",))
    other = laptop("other", models=("n",), beside=("laptop",))
    cloud = make.endpoint("cloud", local=False, models=("m", "n"))
    played = Played(make.router(mine, other, cloud))
    played.told(resident=False)
    played.told(resident=False, endpoint="other")
    assert [played.asks(model=model) for model in ("m", "n")] == ["cloud", "cloud"]
    assert played.due == ["laptop"]
    played.begins()
    if waits:
        # Its turn in the engine comes after this load.
        sent = make.request(arrived_s=played.now_s, model="n")
        played.router.observe(make.started(sent, "other"), played.now_s)
    assert played.due == []
    played.ends(20.0)
    played.now_s += 31.0
    assert played.due == ["other"]


@pytest.mark.parametrize("hindrance", ["down", "drained", "static", "breaker", "off"])
def test_nothing_is_loaded_where_it_could_not_be_used(hindrance: str) -> None:
    mine = laptop(warms_up=hindrance != "off")
    played = Played(make.router(mine, make.endpoint("cloud", local=False)))
    played.told(resident=False)
    assert played.asks() == "cloud"
    if hindrance == "down":
        played.router.observe(Probed(endpoint="laptop", up=False), played.now_s)
    elif hindrance == "drained":
        played.router.observe(Overrides(drained=("laptop",)), played.now_s)
    elif hindrance == "static":
        played.router.observe(Overrides(static=True), played.now_s)
    elif hindrance == "breaker":
        for number in range(4):
            request = make.request(f"f{number}", arrived_s=played.now_s)
            played.router.observe(make.started(request, "laptop"), played.now_s)
            failed = make.ended(request.id, "laptop", ending=Ending.FAILED, e2e_s=0.1)
            played.router.observe(failed, played.now_s)
    assert played.due == []


def test_a_restart_forgets_a_load_that_ended_with_the_process() -> None:
    played = Played()
    played.told(resident=False)
    played.asks()
    played.begins()
    state = msgspec.json.decode(played.router.snapshot(), type=State)
    assert state.endpoints["laptop"].cold.warm_up.sent is not None
    assert revived(state, {"laptop"}, played.now_s).endpoints["laptop"].cold.warm_up == WarmUp()


@pytest.mark.lengthy
@given(st.integers(0, 1000))
def test_whatever_happens_no_load_begins_beside_another_or_where_none_may(seed: int) -> None:
    storm = Storm(seed)
    names = [e.name for e in storm.endpoints if e.owned]
    endpoints = tuple(replace(e, warms_up=e.owned) for e in storm.endpoints)
    storm.router = Router(endpoints, storm.policy)
    under_way: set[str] = set()
    for step in range(60):
        storm.run(2)
        for name in storm.router.warm_ups(storm.now_s):
            assert name in names
            assert name not in under_way
            under_way.add(name)
            storm.router.observe(Warming(endpoint=name), storm.now_s)
        if under_way and step % 3 == 0:
            name = under_way.pop()
            storm.router.observe(Warmed(endpoint=name, took_s=1.0, served=step % 2 == 0), storm.now_s)
