"""A simulated world: the journal of a gateway, every request accounted for, and the same again from the same seed."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from hashlib import blake2b

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import make as core
from tests.sim.days import LONG_S, Listed, Stage, Way
from tests.sim.make import job, profile
from tidegate.config.cap import Cap, Period
from tidegate.core.model import Decision, Ended, Ending, Endpoint, Held, Line, Released, Request, Run, Started, replace
from tidegate.core.replay import replay
from tidegate.core.why import Why
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.chance import Chance
from tidegate.sim.decider import AtOnce, Follower
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.network import PRESETS, Link
from tidegate.sim.place import Local, Remote
from tidegate.sim.purse import Purse
from tidegate.sim.world import World

seeds = st.integers(0, 10_000)
# Each is a whole day.
days = settings(max_examples=25)


@pytest.mark.lengthy
@days
@given(seeds, st.booleans())
def test_every_decision_of_a_simulated_journal_comes_out_again_in_replay(seed: int, trouble: bool) -> None:
    report = replay(Stage(seed, trouble=trouble).lines)
    assert report.difference is None
    assert report.decisions >= 60


@pytest.mark.lengthy
@days
@given(seeds, st.booleans())
def test_every_request_comes_to_one_end_and_nothing_is_left_under_way(seed: int, trouble: bool) -> None:
    stage = Stage(seed, trouble=trouble)
    outcomes = stage.world.outcomes
    assert sorted(o.request.id for o in outcomes) == sorted(f"r{n}" for n in range(60))
    assert not any(stage.world.in_flight.values())
    for place in stage.places.values():
        assert (place.engine.running, place.engine.queued, place.engine.kv.used) == (0, 0, 0)
    assert stage.world.router.held == 0
    assert stage.api._open == {}


@pytest.mark.lengthy
@days
@given(seeds)
def test_each_attempt_that_began_has_ended_once_and_each_hold_too(seed: int) -> None:
    begun: dict[tuple[str, str], int] = {}
    held: set[str] = set()
    for fact in Stage(seed, trouble=True).facts:
        match fact:
            case Started():
                begun[fact.request_id, fact.endpoint] = begun.get((fact.request_id, fact.endpoint), 0) + 1
                held.discard(fact.request_id)
            case Ended():
                begun[fact.request_id, fact.endpoint] -= 1
            case Held():
                held.add(fact.request.id)
            case Released():
                held.remove(fact.request_id)
    assert set(begun.values()) <= {0}
    assert held == set()


@pytest.mark.lengthy
@days
@given(seeds)
def test_without_trouble_all_that_is_not_refused_is_served(seed: int) -> None:
    stage = Stage(seed)
    assert {o.outcome for o in stage.world.outcomes} <= {"ok", "refused"}
    for outcome in stage.world.outcomes:
        if outcome.outcome == "ok":
            bound = outcome.request.output_tokens_max
            assert outcome.output_tokens >= 1
            assert bound is None or outcome.output_tokens <= bound
            assert outcome.ttft_s is not None
            assert 0.0 < outcome.ttft_s <= outcome.e2e_s


@pytest.mark.lengthy
@days
@given(seeds)
def test_what_must_stay_local_is_never_sent_away_whatever_breaks(seed: int) -> None:
    stage = Stage(seed, trouble=True)
    local = {f.id for f in stage.facts if isinstance(f, Request) and f.residency == ("local",)}
    sent = [f for f in stage.facts if isinstance(f, Started)]
    assert not any(f.endpoint in ("cloud", "vendor") for f in sent if f.request_id in local)


@pytest.mark.lengthy
def test_trouble_is_trouble() -> None:
    endings: dict[Ending, int] = {}
    for seed in range(20):
        for fact in Stage(seed, trouble=True).facts:
            if isinstance(fact, Ended):
                endings[fact.ending] = endings.get(fact.ending, 0) + 1
    assert endings[Ending.FAILED] > 10
    assert endings[Ending.TIMED_OUT] + endings.get(Ending.CANCELLED, 0) > 5


def test_clients_of_a_closed_loop_come_back_after_their_answers() -> None:
    stage = Stage(3, count=10, turns=2)
    by_id = {o.request.id: o for o in stage.world.outcomes}
    assert len(by_id) == 30
    for number in range(10):
        first, second = by_id[f"r{number}"], by_id[f"r{number}+"]
        assert second.request.arrived_s == pytest.approx(first.request.arrived_s + first.e2e_s + 1.0)


def test_news_comes_back_as_late_as_the_way_is_long() -> None:
    stage = Stage(1, count=1)
    near = stage.world.outcomes[0]
    stage = Stage(1, count=1)
    alone = World((core.endpoint("cloud", local=False),), core.policy())
    way = Local("cloud", Engine(profile(slots=64)), alone.loop, alone, Way(0.5))
    job = Job(request=replace(near.request, residency=("anywhere",)), prompt_tokens=20, output_tokens=3)
    alone.run({"cloud": way}, Listed([job]), probe_s=5.0, until_s=LONG_S)
    here = World((core.endpoint("cloud", local=False),), core.policy())
    engine = Local("cloud", Engine(profile(slots=64)), here.loop, here)
    here.run({"cloud": engine}, Listed([job]), probe_s=5.0, until_s=LONG_S)
    (far,), (close,) = alone.outcomes, here.outcomes
    assert far.ttft_s == pytest.approx((close.ttft_s or 0.0) + 0.5)
    assert far.e2e_s == pytest.approx(close.e2e_s + 0.5)


def test_of_one_answer_nothing_comes_before_what_was_sent_before_it() -> None:
    # Tokens follow one another more quickly than round trips vary.
    chance, quick = Chance(1), ApiProfile(ttft_s=0.165, tpot_s=0.0053)
    world = World((core.endpoint("cloud", local=False),), core.policy())
    way = Link(PRESETS["home-broadband"], chance, "cloud")
    cloud = Remote("cloud", Api(quick, chance, "cloud"), world.loop, world, way)
    jobs = [job(f"r{number}", output_tokens=2, arrived_s=float(number)) for number in range(300)]
    world.run({"cloud": cloud}, Listed(jobs), probe_s=5.0, until_s=LONG_S)
    assert [one.outcome for one in world.outcomes] == ["ok"] * len(jobs)
    assert all(one.ttft_s is not None and one.ttft_s <= one.e2e_s for one in world.outcomes)


def test_what_fails_before_anything_came_is_free_and_what_was_given_is_not() -> None:
    def paid(made: Callable[[World], Remote | Local]) -> list[tuple[str, float]]:
        world = World((core.endpoint("cloud", local=False),), core.policy())
        job = Job(request=core.request("r"), prompt_tokens=20, output_tokens=50)
        world.run({"cloud": made(world)}, Listed([job]), probe_s=5.0, until_s=LONG_S)
        return [(o.outcome, o.usd) for o in world.outcomes]

    def vendor(world: World, **changes: float) -> Remote:
        api = Api(ApiProfile(ttft_s=0.2, tpot_s=0.01, **changes), Chance(0), "cloud")  # type: ignore[arg-type]
        return Remote("cloud", api, world.loop, world, Way(0.02))

    def crashing(world: World, at_s: float) -> Local:
        place = Local("cloud", Engine(profile()), world.loop, world, Way(0.02))
        world.loop.at(at_s, place.crash, 100.0)
        return place

    assert paid(partial(vendor, errors=1.0)) == [("failed", 0.0)]
    assert paid(partial(crashing, at_s=0.015)) == [("failed", 0.0)]
    ((how, usd),) = paid(partial(crashing, at_s=0.3))
    assert how == "failed_mid_stream"
    assert usd > 0.0
    assert paid(vendor) == [("ok", core.REMOTE_PRICE.usd(20, 50, 0))]


def test_who_is_sent_where_others_sent_him_may_break_our_rules_and_waits_as_long_as_he_may() -> None:
    endpoints = (core.endpoint("cloud", local=False),)
    router = AtOnce({}, endpoints, core.policy(), usual="cloud")
    world = World(endpoints, core.policy(), router=router, request_timeout_s=5_000.0)
    place = Local("cloud", Engine(profile(slots=1)), world.loop, world)
    jobs = [job(f"r{number}", output_tokens=60_000, residency=("local",)) for number in range(2)]
    world.run({"cloud": place}, Listed(jobs), probe_s=5.0, until_s=LONG_S)
    first, second = world.outcomes
    assert (first.outcome, second.outcome) == ("ok", "ok")
    assert second.ttft_s is not None
    assert second.ttft_s > 600.0


class Steps(Follower):
    """Decides the same of everybody."""

    def __init__(self, endpoints: tuple[Endpoint, ...], plan: tuple[Run, ...]) -> None:
        super().__init__(endpoints, core.policy())
        self._plan = plan

    def decide(self, request: Request, now_s: float) -> Decision:
        return Decision(request_id=request.id, plan=self._plan, why=Why.STATIC_RULE)

    def due(self, now_s: float) -> list[Request]:
        return []


def test_after_a_step_that_a_budget_forbids_the_next_one_has_its_own_time_out() -> None:
    endpoints = (core.endpoint("dear", local=False), core.endpoint("own"))
    plan = (Run(endpoint="dear", timeout_s=40.0), Run(endpoint="own", timeout_s=10.0))
    world = World(
        endpoints,
        core.policy(),
        router=Steps(endpoints, plan),
        purse=Purse([Cap(usd=1e-9, period=Period.DAY)]),
    )
    places = {name: Local(name, Engine(profile()), world.loop, world) for name in ("dear", "own")}
    world.loop.at(0.0, places["own"].freeze, 100.0)
    job = Job(request=core.request("r", arrived_s=1.0), prompt_tokens=20, output_tokens=3)
    world.run(places, Listed([job]), probe_s=5.0, until_s=LONG_S)
    (outcome,) = world.outcomes
    assert (outcome.outcome, outcome.sent) == ("failed", ("own",))
    assert outcome.e2e_s == pytest.approx(10.0)
    # Nothing was sent for the first step.
    assert outcome.attempts == 1


@pytest.mark.parametrize(
    ("plan", "came", "attempts"),
    [(("dear",), "refused", 0), (("own", "dear"), "refused", 1), (("dear", "own"), "failed", 1)],
)
def test_whose_last_step_a_budget_forbids_is_refused_and_not_failed(
    plan: tuple[str, ...], came: str, attempts: int
) -> None:
    endpoints = (core.endpoint("dear", local=False), core.endpoint("own"))
    router = Steps(endpoints, tuple(Run(endpoint=name, timeout_s=10.0) for name in plan))
    world = World(endpoints, core.policy(), router=router, purse=Purse([Cap(usd=1e-9, period=Period.DAY)]))
    places = {name: Local(name, Engine(profile()), world.loop, world) for name in ("dear", "own")}
    # Who crashed answers nobody.
    world.loop.at(0.0, places["own"].crash, 100.0)
    world.run(places, Listed([job("r", arrived_s=1.0)]), probe_s=5.0, until_s=LONG_S)
    (outcome,) = world.outcomes
    assert (outcome.outcome, outcome.attempts, outcome.usd) == (came, attempts, 0.0)


def test_without_caps_a_request_has_what_was_left_of_others_when_it_came() -> None:
    endpoints = (core.endpoint("own", concurrency=1), core.endpoint("cloud", local=False, price=core.REMOTE_PRICE))
    lines: list[Line] = []
    world = World(endpoints, core.policy(), journal=lines.append)
    places = {name: Local(name, Engine(profile(slots=1)), world.loop, world) for name in ("own", "cloud")}
    poor = [replace(core.request(f"r{number}", arrived_s=1.0), budget_usd=0.0) for number in range(3)]
    world.loop.at(1.5, places["own"].crash, 20.0)
    jobs = [Job(request=one, prompt_tokens=20, output_tokens=300) for one in poor]
    world.run(places, Listed(jobs), probe_s=5.0, until_s=LONG_S)
    assert any(isinstance(line.fact, Held) for line in lines)
    assert {line.fact.budget_usd for line in lines if isinstance(line.fact, Request)} == {0.0}
    assert "cloud" not in {line.fact.endpoint for line in lines if isinstance(line.fact, Started)}


def digest(seed: int) -> str:
    """Of the journal of a stage with trouble."""
    lines = Stage(seed, trouble=True, turns=1).lines
    return blake2b(b"\n".join(map(msgspec.json.encode, lines)), digest_size=16).hexdigest()


def test_who_may_wait_no_longer_is_let_go_for_that_and_has_not_left() -> None:
    lines: list[Line] = []
    endpoints = (core.endpoint("own", concurrency=1),)
    world = World(endpoints, core.policy(), request_timeout_s=5.0, journal=lines.append)
    place = Local("own", Engine(profile(slots=1)), world.loop, world)
    jobs = [job(f"r{number}", output_tokens=10_000) for number in range(2)]
    world.run({"own": place}, Listed(jobs), probe_s=5.0, until_s=LONG_S)
    assert [one.outcome for one in world.outcomes] == ["timed_out", "timed_out"]
    (gone,) = [line.fact for line in lines if isinstance(line.fact, Released)]
    assert (gone.request_id, gone.cause) == ("r1", "request_timeout")


@pytest.mark.lengthy
def test_the_same_seed_writes_the_same_journal_in_every_process() -> None:
    code = "from tests.sim.test_world import digest; print(digest(11))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
        ).stdout.strip()
        for seed in ("0", "1", "77")
    }
    assert said == {digest(11)}
    assert digest(11) != digest(12)


def test_others_who_use_the_same_engine_delay_ours_and_are_told_by_its_probes() -> None:
    def first_s(others: int) -> tuple[float, int | None]:
        world = World((core.endpoint("desk", concurrency=4),), core.policy())
        place = Local("desk", Engine(profile(slots=1)), world.loop, world)
        jobs = [
            Job(request=core.request(f"o{number}", arrived_s=0.1), prompt_tokens=500, output_tokens=50)
            for number in range(others)
        ]
        place.share(iter(jobs))
        mine = Job(request=core.request("mine", arrived_s=0.2), prompt_tokens=200, output_tokens=10)
        told: list[int | None] = []
        world.loop.at(0.15, lambda: told.append(place.probe().running))
        world.run({"desk": place}, Listed([mine]), probe_s=5.0, until_s=LONG_S)
        assert [o.request.id for o in world.outcomes] == ["mine"]
        ttft_s = world.outcomes[0].ttft_s
        assert ttft_s is not None
        return ttft_s, told[0]

    (alone_s, nobody), (beside_s, running) = first_s(0), first_s(3)
    assert beside_s > 2.0 * alone_s
    assert (nobody, running) == (0, 1)
