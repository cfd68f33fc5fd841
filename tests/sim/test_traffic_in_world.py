"""Traffic before the real router: all of it is accounted for, and clients come back when they are answered."""

import pytest

from tests import make as core
from tests.sim.clients import ask
from tests.sim.make import profile
from tidegate.core.model import Ended, Line
from tidegate.core.replay import replay
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.fitted import PresetName, fitted
from tidegate.sim.place import Local
from tidegate.sim.world import World

PRESETS: list[PresetName] = ["azure-code", "azure-conv", "mooncake-conv", "coding-agents", "servegen-large"]


def run(preset: PresetName, until_s: float = 1e9) -> tuple[World, Local, list[Line]]:
    lines: list[Line] = []
    world = World(
        (core.endpoint("desk", concurrency=8, context_tokens=1_000_000),), core.policy(), journal=lines.append
    )
    place = Local("desk", Engine(profile(kv_tokens=1_000_000)), world.loop, world)
    traffic = fitted(preset, ask(), Chance(1), rate_per_s=2.0, requests_max=60, users=4)
    world.run({"desk": place}, traffic, probe_s=5.0, until_s=until_s)
    return world, place, lines


@pytest.mark.lengthy
@pytest.mark.parametrize("preset", PRESETS)
def test_a_world_goes_through_a_preset_and_replay_gets_every_decision_again(preset: PresetName) -> None:
    world, _, lines = run(preset, until_s=2000.0 if preset == "coding-agents" else 1e9)
    report = replay(lines)
    assert report.difference is None
    assert report.decisions >= len(world.outcomes)
    if preset == "coding-agents":
        sessions = {outcome.request.session for outcome in world.outcomes}
        assert len(sessions) >= 4
        assert len(world.outcomes) > len(sessions)
    else:
        assert sorted(o.request.id for o in world.outcomes) == sorted(f"{preset}-{n}" for n in range(60))


def test_later_turns_of_agents_find_their_prefix_in_the_engine() -> None:
    world, _, lines = run("coding-agents", until_s=2000.0)
    ended = {line.fact.request_id: line.fact for line in lines if isinstance(line.fact, Ended)}
    later = [o for o in world.outcomes if o.outcome == "ok" and not o.request.id.endswith(".0")]
    cached = [ended[o.request.id].cached_tokens or 0 for o in later]
    assert sum(cached) / sum(ended[o.request.id].prompt_tokens or 0 for o in later) > 0.8
