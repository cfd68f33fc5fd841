"""Router and flights together, over minutes of a small world's time."""

import pytest

from tests import make
from tests.core.world import World
from tidegate.core.model import Request, Slo, Wait

LAPTOP = make.endpoint("laptop")
CLOUD = make.endpoint("cloud", local=False)


def where(world: World) -> dict[str, int]:
    found = dict.fromkeys(world.endpoints, 0)
    for endpoint, _ in world.served.values():
        found[endpoint] += 1
    return found


def interactive(name: str, arrived_s: float, *, prompt_tokens: int = 200, residency: str = "anywhere") -> Request:
    return make.request(
        name, residency=residency, ttft_s=4.0, arrived_s=arrived_s, prompt_tokens=prompt_tokens, worth_usd=0.02
    )


def batch(name: str, arrived_s: float) -> Request:
    """Due within the hour, and worth less than the cloud costs."""
    return make.request(name, arrived_s=arrived_s, slo=Slo(e2e_s=3_600.0), worth_usd=0.0001, late_usd_per_s=0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_burst_beyond_our_slots_waits_and_what_cannot_wait_is_sent_away_in_time(seed: int) -> None:
    world = World(LAPTOP, CLOUD, seed=seed)
    for index in range(24):
        world.arrive(interactive(f"r{index}", 0.05 * index))
    world.run()
    assert len(world.served) == 24
    assert where(world)["laptop"] >= 3
    assert where(world)["cloud"] >= 12
    assert any(isinstance(d[0].plan[0], Wait) for d in world.decisions.values())
    late = [name for name, (_, ttft_s) in world.served.items() if ttft_s > 4.0]
    assert len(late) <= 1
    assert world.in_flight_max["laptop"] <= 2


def test_batch_work_waits_at_home_rather_than_paying() -> None:
    world = World(LAPTOP, CLOUD, hold_s_max=3_600.0)
    for index in range(40):
        world.arrive(batch(f"r{index}", 0.0))
    world.run()
    assert where(world) == {"laptop": 40, "cloud": 0}


def test_interactive_work_overtakes_batch_work_that_waits() -> None:
    world = World(LAPTOP, hold_s_max=3_600.0)
    for index in range(10):
        world.arrive(batch(f"b{index}", 0.0))
    world.arrive(interactive("urgent", 1.0))
    world.run()
    assert world.served["urgent"][1] < 4.0
    assert len(world.served) == 11


def test_a_promise_that_only_the_cloud_can_keep_goes_there_at_once() -> None:
    world = World(LAPTOP, CLOUD)
    for index in range(10):
        world.arrive(interactive(f"r{index}", 10.0 * index, prompt_tokens=8_000))
    world.run()
    assert where(world) == {"laptop": 0, "cloud": 10}
    assert all(ttft_s < 4.0 for _, ttft_s in world.served.values())


def test_a_dead_engine_costs_a_few_attempts_and_comes_back_when_it_lives() -> None:
    world = World(LAPTOP, CLOUD)
    for index in range(120):
        world.arrive(interactive(f"r{index}", 2.0 * index))
    world.run(until_s=60.0)
    assert where(world)["cloud"] == 0
    world.dead.add("laptop")
    world.run(until_s=120.0)
    dead = [d for name, d in world.decisions.items() if 60.0 < world.requests[name].arrived_s <= 120.0]
    tried = sum(d[0].plan[0].endpoint == "laptop" for d in dead)
    assert 3 <= tried <= 7
    assert world.router.endpoint("laptop").state.breaker.state == "open"
    world.dead.clear()
    world.run()
    assert len(world.served) == 120
    assert not world.lost
    last = [world.served[f"r{i}"][0] for i in range(110, 120)]
    assert last == ["laptop"] * 10


def test_what_must_stay_local_is_refused_while_its_engine_is_dead_and_never_leaves() -> None:
    world = World(LAPTOP, CLOUD)
    world.dead.add("laptop")
    for index in range(30):
        world.arrive(interactive(f"r{index}", 0.5 * index, residency="local"))
    world.run()
    assert not world.served
    assert len(world.lost) == 30
    assert all(step.endpoint == "laptop" for ds in world.decisions.values() for d in ds for step in d.plan)


@pytest.mark.parametrize("true", [0.7, 1.4])
def test_an_engine_that_is_not_as_declared_is_learned_and_promises_are_kept(true: float) -> None:
    declared = make.endpoint("laptop", prior=make.scaled(LAPTOP.prior, 1.0 / true))
    world = World(declared, CLOUD, seed=4)
    world.endpoints["laptop"] = LAPTOP
    for index in range(200):
        world.arrive(interactive(f"r{index}", 1.1 * index))
    world.run()
    late = sum(world.served[f"r{i}"][1] > 4.0 for i in range(40, 200))
    assert late <= 2
    assert where(world)["laptop"] >= 120
