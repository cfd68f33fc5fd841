"""A simple rule that binds on arrival, by what it may see: in order, with patience, and within the hard rules."""

from collections.abc import Iterator

import pytest

from tests import make
from tests.sim.make import job, profile
from tidegate.core.model import Held, Probed, Request, Run, Slo, Wait
from tidegate.core.why import Why
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.binder import Binder, Rule
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.practice import (
    CheapestOnTime,
    LeastTtft,
    LeastWork,
    OursOnly,
    Patience,
    QueueGate,
    RandomSplit,
    RemoteGate,
    RemoteOnly,
    Threshold,
    ThresholdByTime,
)
from tidegate.sim.world import World

LAPTOP = make.endpoint("laptop", owned=True, concurrency=2)
CLOUD = make.endpoint("cloud", local=False, owned=False, concurrency=64)
ENDPOINTS = (LAPTOP, CLOUD)
EVERY_RULE: tuple[Rule, ...] = (
    OursOnly(),
    RemoteOnly(),
    RandomSplit(0.5),
    Threshold(300.0),
    ThresholdByTime(((0.0, 100.0), (5.0, 400.0))),
    QueueGate(200.0, 1.0),
    RemoteGate(200.0, 4),
    LeastTtft(2.0),
    LeastWork(1.0),
    Patience(0.5),
    CheapestOnTime(0.9),
)


def binder(rule: Rule) -> Binder:
    return Binder(rule, ENDPOINTS, make.policy())


def names(one: Binder, request: Request, now_s: float = 0.0) -> list[str]:
    plan = one.decide(request, now_s).plan
    return [("wait " if isinstance(step, Wait) else "") + step.endpoint for step in plan]


def fill(one: Binder, endpoint: str, count: int) -> None:
    for _ in range(count):
        one.observe(make.started(make.request(), endpoint), 0.0)


def bind(one: Binder, request: Request, now_s: float = 0.0) -> None:
    """Decided to wait, and told that it does."""
    assert isinstance(one.decide(request, now_s).plan[0], Wait)
    one.observe(Held(request=request), now_s)


def test_who_is_bound_waits_in_order_and_nobody_overtakes() -> None:
    one = binder(OursOnly())
    fill(one, "laptop", 1)
    sent = make.request("sent")
    one.observe(make.started(sent, "laptop"), 0.0)
    first, second = make.request("first"), make.request("second")
    bind(one, first)
    bind(one, second)
    assert one.due(1.0) == []
    one.observe(make.ended("sent", "laptop"), 2.0)
    assert [request.id for request in one.due(2.0)] == ["first"]
    assert names(one, make.request("third"), 2.0) == ["wait laptop"]
    assert names(one, second, 2.0) == ["wait laptop"]
    assert names(one, first, 2.0) == ["laptop", "cloud"]


def test_patience_ends_and_then_another_gets_it() -> None:
    one = binder(Patience(3.0))
    idle = one.decide(make.request(), 0.0).plan
    assert [step.endpoint for step in idle] == ["laptop", "cloud"]
    assert isinstance(idle[0], Run)
    assert idle[0].timeout_s == pytest.approx(3.0)
    fill(one, "laptop", 2)
    waits = make.request("waits", arrived_s=0.0)
    bind(one, waits)
    assert one.due(2.9) == []
    assert [request.id for request in one.due(3.0)] == ["waits"]
    assert names(one, waits, 3.0) == ["cloud"]


def test_thresholds_look_at_the_length() -> None:
    short, long = make.request(prompt_tokens=100), make.request(prompt_tokens=900)
    assert names(binder(Threshold(300.0)), short)[0] == "laptop"
    assert names(binder(Threshold(300.0)), long) == ["cloud"]
    by_time = binder(ThresholdByTime(((0.0, 50.0), (10.0, 500.0))))
    assert names(by_time, make.request(prompt_tokens=100, arrived_s=1.0)) == ["cloud"]
    assert names(by_time, make.request(prompt_tokens=100, arrived_s=11.0))[0] == "laptop"


def test_gates_look_at_who_is_there() -> None:
    one, long = binder(QueueGate(300.0, 1.0)), make.request(prompt_tokens=900)
    assert names(one, long)[0] == "laptop"
    fill(one, "laptop", 2)
    assert names(one, long) == ["cloud"]
    assert names(one, make.request(prompt_tokens=100)) == ["wait laptop"]
    other = binder(RemoteGate(300.0, 2))
    assert names(other, long) == ["cloud"]
    fill(other, "cloud", 2)
    assert names(other, long)[0] == "laptop"


def test_work_and_times_are_compared_with_a_factor_on_what_is_not_ours() -> None:
    assert names(binder(LeastTtft(1000.0)), make.request())[0] == "laptop"
    assert names(binder(LeastTtft(1e-6)), make.request()) == ["cloud"]
    one = binder(LeastWork(1.0))
    fill(one, "laptop", 1)
    assert names(one, make.request()) == ["cloud"]
    fill(one, "cloud", 3)
    assert names(one, make.request())[0] == "laptop"


def test_the_cheapest_on_time_counts_the_wait() -> None:
    one, hurried = binder(CheapestOnTime(0.9)), make.request(slo=Slo(ttft_s=20.0))
    assert names(one, hurried)[0] == "laptop"
    fill(one, "laptop", 2)
    for number in range(40):
        patient = make.request(f"patient-{number}", slo=Slo())
        assert one.decide(patient, 0.0).plan
        bind(one, patient)
    assert names(one, hurried) == ["cloud"]


def test_what_must_stay_is_never_sent_away_and_what_is_down_is_passed_over() -> None:
    private = make.request(residency="local")
    assert names(binder(RemoteOnly()), private) == ["laptop"]
    one = binder(OursOnly())
    one.observe(Probed(endpoint="laptop", up=False), 0.0)
    assert names(one, make.request()) == ["cloud"]
    refused = one.decide(private, 0.0)
    assert (refused.plan, refused.why) == ((), Why.DOWN)


def test_who_waits_for_what_goes_down_is_bound_anew() -> None:
    one = binder(OursOnly())
    fill(one, "laptop", 2)
    waits = make.request("waits")
    bind(one, waits)
    one.observe(Probed(endpoint="laptop", up=False), 1.0)
    assert [request.id for request in one.due(1.0)] == ["waits"]
    assert names(one, waits, 1.0) == ["cloud"]


@pytest.mark.lengthy
@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: type(rule).__name__)
def test_in_a_world_every_request_is_served_by_every_rule(rule: Rule) -> None:
    outcomes = played(rule)
    assert len(outcomes) == 120
    assert {outcome.outcome for outcome in outcomes} == {"ok"}
    assert [(o.endpoint, o.e2e_s) for o in outcomes] == [(o.endpoint, o.e2e_s) for o in played(rule)]


def played(rule: Rule) -> list[Outcome]:
    policy = make.policy(hold_s_max=600.0)
    world = World(ENDPOINTS, policy, router=Binder(rule, ENDPOINTS, policy))
    places: dict[str, Local | Remote] = {
        "laptop": Local("laptop", Engine(profile(slots=2)), world.loop, world),
        "cloud": Remote("cloud", Api(ApiProfile(ttft_s=0.3, tpot_s=0.01), Chance(0), "cloud"), world.loop, world),
    }
    jobs = [
        job(f"r{i}", prompt_tokens=50 + 37 * i % 900, output_tokens=5 + i % 20, arrived_s=0.05 * i, slo=Slo(ttft_s=1.0))
        for i in range(120)
    ]
    world.run(places, Given(jobs), probe_s=5.0, until_s=10_000.0)
    return world.outcomes


class Given:
    """Requests at their times."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs

    def arrivals(self) -> Iterator[Job]:
        return iter(self._jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> None:
        return None
