"""Engines whose journals are examined: an own one under a load that comes and goes, and an API."""

import math
from collections.abc import Callable, Iterator
from random import Random

from tests import make
from tests.sim.make import profile
from tidegate.core.model import Endpoint, Line, Request, Slo
from tidegate.sim.api import PRESETS, Api
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.place import Local, Remote
from tidegate.sim.world import World

API = "llmperf-2023-together"
PRIOR_OFF = 0.6
"""What is declared of the own engine is that much of what it takes: to learn it is part of the journal."""


class Poisson:
    """Requests in phases of a few minutes, whose rates differ by as much as five; lengths are log-normal."""

    def __init__(
        self,
        seed: int,
        count: int,
        rates_per_s: tuple[float, float],
        before: Callable[[int], None],
        *,
        stream: bool = True,
    ) -> None:
        """`before` is told the number of each request when the one before it comes."""
        self._draw, self._count, self._rates, self._before = Random(seed), count, rates_per_s, before
        self._stream = stream

    def arrivals(self) -> Iterator[Job]:
        draw, at_s, phase_s, rate = self._draw, 1000.0, 0.0, 0.0
        for number in range(self._count):
            self._before(number)
            if at_s > phase_s:
                phase_s, rate = at_s + draw.uniform(60.0, 300.0), draw.uniform(*self._rates)
            at_s += draw.expovariate(rate)
            estimated = max(8, round(math.exp(draw.gauss(math.log(300), 1.0))))
            tokens = max(8, min(8000, round(estimated * draw.lognormvariate(0.0, 0.07))))
            request = Request(
                id=f"r{number}",
                arrived_s=at_s,
                model="m",
                klass="chat/short" if estimated <= 512 else "chat/medium",
                prompt_tokens=min(estimated, 8000),
                prompt_bytes=4 * tokens,
                slo=Slo(ttft_s=10.0),
                worth_usd=0.01,
                late_usd_per_s=0.001,
                stream=self._stream,
            )
            yield Job(request=request, prompt_tokens=tokens, output_tokens=max(2, round(draw.lognormvariate(4.3, 0.7))))

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


def own() -> Endpoint:
    """An engine with four slots that is declared to be faster than it is."""
    return make.endpoint("laptop", concurrency=4, prior=make.scaled(make.LOCAL_PRIOR, PRIOR_OFF))


def played(
    seed: int,
    count: int,
    told: Callable[[Line], None],
    *,
    slow_from: int | None = None,
    factor: float = 1.5,
    vendor: bool = False,
    stream: bool = True,
) -> None:
    """Have so many requests served by one endpoint, and tell the journal's lines as they are written.

    From request `slow_from` on, everything there takes `factor` times as long. Without `stream` answers come in one
    piece.
    """
    endpoint = make.endpoint("vendor", local=False) if vendor else own()
    world = World((endpoint,), make.policy(hold_s_max=600.0), start_s=1000.0, journal=told)
    place: Local | Remote
    if vendor:
        place = Remote("vendor", Api(PRESETS[API], Chance(seed), "vendor"), world.loop, world)
    else:
        place = Local("laptop", Engine(profile(slots=4), 1000.0), world.loop, world)

    def before(number: int) -> None:
        if number != slow_from:
            return
        if isinstance(place, Local):
            place.slow(factor)
        else:
            place.api.slowdown = factor

    traffic = Poisson(seed, count, (0.05, 2.5) if vendor else (0.15, 0.75), before, stream=stream)
    world.run({endpoint.name: place}, traffic, probe_s=30.0, until_s=1e9)
