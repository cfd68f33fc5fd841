"""Simulated days: traffic that is written down, a way of one length, and a stage with engines, an API and trouble."""

from collections.abc import Iterator
from random import Random
from typing import TypeVar

import msgspec

from tests import make as core
from tests.sim.make import profile
from tidegate.core.model import Line, Overrides, Slo, replace
from tidegate.sim.api import PRESETS, Api
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.world import World

F = TypeVar("F")
LONG_S = 1e9


class Listed:
    """Traffic that is written down; with `turns`, each client comes back so often after its answer."""

    def __init__(self, jobs: list[Job], turns: int = 0) -> None:
        self.jobs, self.turns = jobs, turns

    def arrivals(self) -> Iterator[Job]:
        return iter(self.jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        if job.turn >= self.turns:
            return None
        request = replace(job.request, id=f"{job.request.id}+", arrived_s=ended_s + 1.0)
        return msgspec.structs.replace(job, request=request, turn=job.turn + 1)


class Way:
    """A network that always takes as long."""

    def __init__(self, rtt_s: float) -> None:
        self.down, self._rtt_s = False, rtt_s

    def sent(self, payload_bytes: int, now_s: float) -> float:
        return now_s + self._rtt_s / 2

    def upload_s(self, payload_bytes: int, now_s: float) -> float:
        return 0.0

    def answered(self, now_s: float) -> float:
        return now_s + self._rtt_s / 2

    def rtt_s(self, now_s: float) -> float:
        return self._rtt_s


class OneAnswer:
    """A world of one request that is over."""

    world: World
    lines: list[Line]

    @property
    def outcome(self) -> Outcome:
        (outcome,) = self.world.outcomes
        return outcome

    def facts(self, kind: type[F]) -> list[F]:
        return [line.fact for line in self.lines if isinstance(line.fact, kind)]


class Stage:
    """Two engines of our own, unequal, a dear one behind a network, an API; random traffic, and trouble if wanted."""

    def __init__(
        self, seed: int, *, count: int = 60, trouble: bool = False, turns: int = 0, **settings: object
    ) -> None:
        draw = Random(seed)
        self.lines: list[Line] = []
        endpoints = (
            core.endpoint("desk", concurrency=4),
            core.endpoint("lap", concurrency=1, context_tokens=4_096),
            core.endpoint("cloud", local=False),
            core.endpoint("vendor", local=False),
        )
        self.world = world = World(endpoints, core.policy(**settings), journal=self.lines.append)
        self.api = Api(PRESETS["llmperf-2023-lepton" if trouble else "llmperf-2023-groq"], Chance(seed), "vendor")
        vendor = Remote("vendor", self.api, world.loop, world, Way(0.02))
        self.places = {
            "desk": Local("desk", Engine(profile(slots=4)), world.loop, world),
            "lap": Local("lap", Engine(profile(slots=1)), world.loop, world),
            "cloud": Local(
                "cloud", Engine(profile(slots=64, queue_max=4 if trouble else None)), world.loop, world, Way(0.06)
            ),
        }
        at_s, jobs = 0.0, []
        for number in range(count):
            at_s += draw.expovariate(4.0)
            tokens = draw.choice((20, 300, 2_000, 6_000))
            request = core.request(
                f"r{number}",
                arrived_s=at_s,
                prompt_tokens=int(tokens * draw.uniform(0.8, 1.3)),
                prompt_bytes=4 * tokens,
                output_tokens_max=draw.choice((None, 16, 400)),
                slo=draw.choice((Slo(ttft_s=0.5), Slo(ttft_s=5.0, tpot_s=0.05), Slo(e2e_s=60.0))),
                residency=draw.choice((("anywhere",), ("anywhere",), ("local",))),
            )
            jobs.append(Job(request=request, prompt_tokens=tokens, output_tokens=draw.choice((3, 40, 300))))
        if trouble:
            for _ in range(6):
                self._trouble(draw, draw.uniform(0.0, at_s))
        world.run({**self.places, "vendor": vendor}, Listed(jobs, turns), probe_s=5.0, until_s=LONG_S)

    def _trouble(self, draw: Random, at_s: float) -> None:
        place = self.places[draw.choice(sorted(self.places))]
        engine, loop = place.engine, self.world.loop
        match draw.choice(("crash", "freeze", "slow", "hands")):
            case "crash":
                loop.at(at_s, lambda: place.crash(loop.now_s + 3.0))
            case "freeze":
                loop.at(at_s, lambda: engine.freeze(loop.now_s, loop.now_s + 20.0))
            case "slow":
                loop.at(at_s, lambda: engine.slow(5.0, loop.now_s))
            case "hands":
                names = tuple(draw.sample(sorted(self.places), 1))
                loop.at(at_s, self.world.override, Overrides(drained=names, static=draw.random() < 0.3))
                loop.at(at_s + 5.0, self.world.override, Overrides())

    @property
    def facts(self) -> list[object]:
        return [line.fact for line in self.lines]
