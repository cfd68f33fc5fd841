"""Loads for nobody in particular, in simulated worlds: others serve while a model is loaded, and then it does."""

from collections.abc import Iterator

import pytest

from tests import make as core
from tests.sim.make import job, profile
from tidegate.core.model import Line, Price, Slo, Warmed, Warming, replace
from tidegate.core.replay import replay
from tidegate.sim.api import Api, ApiProfile, Spread
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Place, Remote
from tidegate.sim.world import World

LOAD_S, UNLOAD_AFTER_S, LIMIT_S = 30.0, 60.0, 3.0
API = ApiProfile(ttft_s=0.4, ttft_s_per_uncached_token=5e-5, ttft_spread=Spread(sigma=0.1), tpot_s=0.01)


class Bouts:
    """A request every three seconds for two minutes, and then nobody for five; again and again."""

    def __init__(self, bouts: int, *, limit_s: float = LIMIT_S) -> None:
        self.jobs = [
            job(
                f"r{bout}-{number}",
                prompt_tokens=200,
                output_tokens=20,
                arrived_s=10.0 + 420.0 * bout + 3.0 * number,
                prompt_bytes=800,
                slo=Slo(ttft_s=limit_s),
                late_usd_per_s=0.0,
            )
            for bout in range(bouts)
            for number in range(40)
        ]

    def arrivals(self) -> Iterator[Job]:
        return iter(self.jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


class Played:
    """An engine of ours that unloads its model, and a vendor, who may be away."""

    def __init__(
        self,
        *,
        bouts: int = 4,
        limit_s: float = LIMIT_S,
        tells: bool = True,
        knows: bool = True,
        vendor: bool = True,
        crash_s: float | None = None,
        **own: object,
    ) -> None:
        prior = replace(core.LOCAL_PRIOR, load_s=20.0, unload_after_s=UNLOAD_AFTER_S) if knows else core.LOCAL_PRIOR
        laptop = replace(core.endpoint("laptop", concurrency=4, prior=prior, warms_up=True), **own)
        endpoints = (laptop, core.endpoint("cloud", local=False))[: 1 + vendor]
        self.lines: list[Line] = []
        self.world = world = World(endpoints, core.policy(), journal=self.lines.append)
        engine = Engine(profile(slots=4, load_s=LOAD_S, unload_after_s=UNLOAD_AFTER_S))
        home = Local("laptop", engine, world.loop, world, tells_residency=tells)
        places: dict[str, Place] = {"laptop": home}
        if vendor:
            places["cloud"] = Remote("cloud", Api(API, Chance(1), "cloud"), world.loop, world)
        if crash_s is not None:
            world.loop.at(crash_s, home.crash, crash_s + 1.0)
        world.run(places, Bouts(bouts, limit_s=limit_s), probe_s=5.0, until_s=1e9)

    @property
    def outcomes(self) -> list[Outcome]:
        return sorted(self.world.outcomes, key=lambda one: one.request.arrived_s)

    def times(self, fact: type[Warming | Warmed]) -> list[float]:
        return [line.at_s for line in self.lines if isinstance(line.fact, fact)]


def test_while_it_is_loaded_the_vendor_serves_and_no_promise_is_missed() -> None:
    played = Played()
    assert [one.request.id for one in played.outcomes if not one.kept] == []


def test_within_a_second_of_being_there_it_serves() -> None:
    played = Played()
    there_s = played.times(Warmed)
    assert len(there_s) == 4
    for one in played.outcomes:
        loading = any(begun_s <= one.request.arrived_s < done_s for begun_s, done_s in zip(
            played.times(Warming), there_s, strict=True))  # fmt: skip
        after_s = min((one.request.arrived_s - at_s for at_s in there_s if at_s <= one.request.arrived_s), default=-1.0)
        if loading:
            assert one.endpoint == "cloud"
        elif 1.0 <= after_s < 80.0:
            assert one.endpoint == "laptop"


def test_without_warm_ups_nobody_would_load_it() -> None:
    played = Played(warms_up=False)
    assert {one.endpoint for one in played.outcomes} == {"cloud"}
    assert Played().world.usd["cloud"] < 0.4 * played.world.usd["cloud"]


def test_an_engine_that_tells_nothing_is_found_out_and_then_warmed_up() -> None:
    played = Played(bouts=12, tells=False, knows=False)
    assert [one.request.id for one in played.outcomes if not one.kept] == []
    assert sum(one.endpoint == "laptop" for one in played.outcomes) > 0.6 * len(played.outcomes)


def test_a_load_that_has_a_price_begins_once_that_much_was_missed() -> None:
    free, dear = Played(bouts=1), Played(bouts=1, usd_per_s=0.0002)
    assert free.times(Warming)[0] < dear.times(Warming)[0]
    # Each request that goes to the vendor costs a tenth of a cent, nearly.
    missed = sum(one.usd for one in dear.outcomes if one.request.arrived_s < dear.times(Warming)[0])
    assert 0.0002 * 15.0 < missed < 0.0002 * 60.0


def test_what_costs_more_to_load_than_is_ever_missed_is_never_loaded() -> None:
    played = Played(bouts=1, usd_per_s=10.0)
    assert played.times(Warming) == []
    assert {one.endpoint for one in played.outcomes} == {"cloud"}


def test_where_clients_wait_for_a_load_it_is_done_for_nobody_as_well() -> None:
    played = Played(bouts=2, limit_s=600.0, vendor=False)
    assert {one.outcome for one in played.outcomes} == {"ok"}
    assert len(played.times(Warming)) == len(played.times(Warmed)) == 2


def test_one_is_under_way_at_a_time_and_after_one_that_failed_there_is_a_rest() -> None:
    played = Played(bouts=1, crash_s=20.0)
    begun_s, done_s = played.times(Warming), played.times(Warmed)
    assert len(begun_s) == len(done_s)
    failed = [line.at_s for line in played.lines if isinstance(line.fact, Warmed) and not line.fact.served]
    assert failed
    assert all(begin_s >= failed[0] + 10.0 for begin_s in begun_s if begin_s > failed[0])
    assert all(done <= begin for done, begin in zip(done_s, begun_s[1:], strict=False))
    assert [one.request.id for one in played.outcomes if not one.kept] == []


def test_what_is_kept_loaded_is_there_after_a_pause() -> None:
    kept = Played(kept_usd_per_s=0.0)
    assert len([one for one in kept.outcomes if one.endpoint == "cloud"]) < 15
    assert [one.request.id for one in kept.outcomes if not one.kept] == []


def test_what_costs_more_to_keep_than_its_absence_is_let_go() -> None:
    dear = Played(kept_usd_per_s=0.01)
    assert len([one for one in dear.outcomes if one.endpoint == "cloud"]) > 30


@pytest.mark.parametrize("kept_usd_per_s", [None, 0.0])
def test_it_is_replayed(kept_usd_per_s: float | None) -> None:
    played = Played(bouts=2, kept_usd_per_s=kept_usd_per_s)
    assert replay(played.lines).difference is None


def test_a_vendor_that_charges_is_warmed_up_where_operators_say_so() -> None:
    """The mirror image: it scales to zero, and costs less than to run the engine of ours."""
    dear = core.endpoint("laptop", concurrency=4, usd_per_s=0.002)
    prior = replace(core.REMOTE_PRIOR, load_s=20.0, unload_after_s=60.0)
    cheap = Price(usd_per_input_token=1e-7, usd_per_output_token=4e-7)
    counts = []
    for warms_up in (False, True):
        cloud = core.endpoint("cloud", local=False, prior=prior, price=cheap, warms_up=warms_up)
        world = World((dear, cloud), core.policy())
        api = replace(API, idle_s=60.0, cold_start_s=20.0)
        engine = Engine(profile(slots=4))
        places: dict[str, Place] = {
            "laptop": Local("laptop", engine, world.loop, world),
            "cloud": Remote("cloud", Api(api, Chance(1), "cloud"), world.loop, world),
        }
        world.run(places, Bouts(3, limit_s=4.0), probe_s=5.0, until_s=1e9)
        assert sum(one.kept for one in world.outcomes) >= 115
        counts.append(sum(one.endpoint == "cloud" for one in world.outcomes))
        spent_usd = sum(one.usd for one in world.outcomes) + world.warm_ups_usd
        assert spent_usd == pytest.approx(sum(world.usd.values()))
        assert (world.warm_ups_usd > 0.0) == warms_up
    assert counts[0] < 10 < 60 < counts[1]
