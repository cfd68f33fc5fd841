"""A scenario played: its world is set up, its time passes, and what came of it is told."""

from collections.abc import Callable

import msgspec

from tidegate.core.base import TO
from tidegate.core.model import Endpoint, Line
from tidegate.sim import tally
from tidegate.sim.api import Api
from tidegate.sim.carrier import Carrier
from tidegate.sim.chance import Chance
from tidegate.sim.crowd import crowd
from tidegate.sim.decider import Decider
from tidegate.sim.engine import Engine
from tidegate.sim.network import Link
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.purse import Purse
from tidegate.sim.scenario import Scenario
from tidegate.sim.tally import Tally
from tidegate.sim.trouble import Trouble
from tidegate.sim.world import World

PROGRESS_PARTS = 100


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a scenario. `ends_s` is when the last request was over, and the duration of the scenario at least.

    By endpoint: `busy_s` for which an engine computed, and `usd` that its attempts and loads cost. Of all these dollars
    `warm_ups_usd` were spent on loads for nobody in particular, and are in no outcome.
    """

    outcomes: list[Outcome]
    tally: Tally
    ends_s: float
    busy_s: dict[str, float]
    usd: dict[str, float]
    warm_ups_usd: float
    endpoints: tuple[Endpoint, ...]


def play(
    scenario: Scenario,
    *,
    decider: Decider | None = None,
    journal: Callable[[Line], None] | None = None,
    software: str = "simulated",
    progress: Callable[[float], None] | None = None,
) -> Played:
    """Let it happen, with the scenario's own policy unless somebody else decides.

    `journal` is given every line, whose segment says that this `software` wrote it, and `progress` the share of the
    duration that has passed.
    """
    world_table = scenario.world
    names = tuple(endpoint.name for endpoint in scenario.endpoints)
    counted = Tally(names, scenario.start_s, tally.bin_s(world_table.duration_s + world_table.request_timeout_s))

    def write(line: Line) -> None:
        counted.line(line)
        if journal is not None:
            journal(line)

    world = World(
        scenario.endpoints,
        scenario.policy,
        start_s=scenario.start_s,
        request_timeout_s=world_table.request_timeout_s,
        router=decider,
        software=software,
        purse=Purse(scenario.caps, paced=scenario.paced),
        journal=write,
    )
    places = _places(scenario, world)
    carriers = _carriers(scenario, world)
    trouble = Trouble(world, places, carriers)
    for fault in scenario.faults:
        trouble.arrange(fault)
    if progress is not None:
        _report(world, progress, world_table.duration_s)
    until_s = scenario.start_s + world_table.duration_s + world_table.request_timeout_s
    world.run(places, crowd(scenario), probe_s=world_table.probe_s, until_s=until_s, carriers=carriers)
    ends_s = max((outcome.ended_s for outcome in world.outcomes), default=0.0)
    return Played(
        outcomes=world.outcomes,
        tally=counted,
        ends_s=max(ends_s, scenario.start_s + world_table.duration_s),
        busy_s={name: place.engine.busy_s for name, place in places.items() if isinstance(place, Local)},
        usd=world.usd,
        warm_ups_usd=world.warm_ups_usd,
        endpoints=scenario.endpoints,
    )


def _places(scenario: Scenario, world: World) -> dict[str, Local | Remote]:
    chance = Chance(scenario.world.seed)
    places: dict[str, Local | Remote] = {}
    for name, stands in scenario.stands.items():
        link = None if stands.link is None else Link(stands.link, chance, name)
        if stands.engine is not None:
            engine = Engine(stands.engine, scenario.start_s, reads_by_slot=stands.reads_by_slot)
            places[name] = Local(
                name,
                engine,
                world.loop,
                world,
                link,
                tells_residency=stands.tells_residency,
                tells_memory=stands.tells_memory,
            )
        else:
            assert stands.api is not None
            places[name] = Remote(name, Api(stands.api, chance, name), world.loop, world, link)
    return places


def _carriers(scenario: Scenario, world: World) -> dict[str, Carrier]:
    chance = Chance(scenario.world.seed)
    found = {}
    for source, stands in scenario.stands.items():
        for target, profile in stands.carriers:
            name = source + TO + target
            found[name] = Carrier(profile, Link(profile.link, chance, name), world.loop)
    return found


def _report(world: World, progress: Callable[[float], None], duration_s: float) -> None:
    for part in range(1, PROGRESS_PARTS + 1):
        share = part / PROGRESS_PARTS
        world.loop.at(world.loop.now_s + share * duration_s, progress, share)
