"""The same requests, live and simulated: a gateway before engines, and the world that is made of both.

Requests cross real sockets; time is virtual, so that what the machine takes for them counts on neither side.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tests.parity.live import CHARACTERS_PER_TOKEN, LiveEngine
from tests.virtual import VirtualClock
from tidegate.core.model import Ended, Probed, Request, replace
from tidegate.core.replay import replay
from tidegate.core.step import StepTime
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local
from tidegate.sim.world import World

# A laptop that is full when three talk to it, and a fleet that is faster and costs money.
OWN = EngineProfile(
    step=StepTime(base_s=0.012, per_token_s=0.0004, per_sequence_s=0.002), slots=3, batch_tokens=512, kv_tokens=65_536
)
AWAY = EngineProfile(step=StepTime(base_s=0.006, per_token_s=0.00005), slots=64, batch_tokens=4_096, kv_tokens=10**6)
# What is carried on the loopback takes no virtual time: no upload is news.
NEAR = {"rtt_ms": 0, "upload_mbit_per_s": 1e5}
PRIORS: dict[str, dict[str, Any]] = {
    "laptop": {"prefill_tokens_per_s": 2400, "decode_tokens_per_s": 70, "overhead_ms": 12, "sigma": 0.3} | NEAR,
    "cloud": {"prefill_tokens_per_s": 20000, "decode_tokens_per_s": 160, "overhead_ms": 6, "sigma": 0.3} | NEAR,
}
# Prompts of 800 tokens are late at the laptop, and shorter ones in time. Were it promised in about as long as long ones
# take there (400 ms), half a millisecond would turn ties, and even simulated days would differ among themselves.
PROMISE = {"x_tidegate_slo_ttft_ms": "300"}


class Load:
    """What is asked, and when, in seconds from the start."""

    def __init__(self, seed: int, *, count: int, per_s: float) -> None:
        draw, at_s = Random(seed), 0.0
        self.asked: list[tuple[float, int, int]] = []
        for _ in range(count):
            at_s += draw.expovariate(per_s)
            self.asked.append((at_s, draw.choice((60, 200, 800)), draw.choice((8, 30, 80))))


async def lived(home: House, load: Load) -> list[tuple[Request, Ended]]:
    """The load, as it came to a real gateway over real sockets: each request, and how its last attempt ended."""

    async def one(at_s: float, prompt_tokens: int, output_tokens: int) -> None:
        await asyncio.sleep(at_s)
        text = ("word " * prompt_tokens)[: prompt_tokens * CHARACTERS_PER_TOKEN]
        answer = await home.ask(chat(text, stream=True, max_tokens=output_tokens), **PROMISE)
        assert answer.status == 200

    await asyncio.gather(*(one(*asked) for asked in load.asked))
    facts = [line.fact for line in home.journal()]
    ended = {fact.request_id: fact for fact in facts if isinstance(fact, Ended)}
    return [(fact, ended[fact.id]) for fact in facts if isinstance(fact, Request)]


class Again:
    """The requests that came to the gateway, for the world."""

    def __init__(self, lived: list[tuple[Request, Ended]]) -> None:
        self._lived = lived

    def arrivals(self) -> Iterator[Job]:
        for request, ended in self._lived:
            assert ended.prompt_tokens is not None
            assert request.output_tokens_max is not None
            yield Job(request=request, prompt_tokens=ended.prompt_tokens, output_tokens=request.output_tokens_max)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


class Seen(Local):
    """An engine as a gateway sees those that it is lived with: they do not tell how much they have to do, and the first
    look, at all at once, measures no round trip."""

    first = True

    def probe(self) -> Probed:
        seen = replace(super().probe(), running=None, queued=None, rtt_s=None if self.first else 0.0)
        self.first = False
        return seen


def simulated(home: House, lived: list[tuple[Request, Ended]]) -> list[Outcome]:
    built = home.gateway._built
    start_s = home.journal()[0].at_s
    lines: list[Any] = []
    world = World(built.endpoints, built.policy, start_s=start_s, journal=lines.append)
    profiles = {"laptop": OWN, "cloud": AWAY}
    places = {n: Seen(n, Engine(p, start_s), world.loop, world) for n, p in profiles.items()}
    world.run(places, Again(lived), probe_s=3600.0, until_s=start_s + 1e6)
    assert replay(lines).difference is None
    return world.outcomes


RATES = [(1, 3.0), (2, 8.0), (3, 14.0), (5, 20.0), (7, 30.0)]


@pytest.mark.virtual
@pytest.mark.parametrize(("seed", "per_s"), RATES)
async def test_a_simulated_day_is_the_day_that_was_lived(tmp_path: Path, seed: int, per_s: float) -> None:
    load = Load(seed, count=int(per_s * 12), per_s=per_s)
    real, made = await day_and_its_like(tmp_path, load)
    assert len(made) == len(real) == len(load.asked)
    served = {request.id: ended.endpoint for request, ended in real}
    assert {name: outcome.endpoint for name, outcome in made.items()} == served
    # Of a request that was sent twice: of the attempt that won, and from its sending.
    first_s = {request.id: ended.ttft_s for request, ended in real}
    assert {name: outcome.measured_s for name, outcome in made.items()} == pytest.approx(first_s, abs=1e-5)


async def day_and_its_like(folder: Path, load: Load) -> tuple[list[tuple[Request, Ended]], dict[str, Outcome]]:
    """What became of all requests, really and simulated."""
    async with LiveEngine(OWN, VirtualClock()) as laptop, LiveEngine(AWAY, VirtualClock()) as cloud:
        places = {
            "laptop": local(
                url=laptop.url, engine="openai", prior=PRIORS["laptop"], concurrency=3, context_tokens=8192
            ),
            "cloud": remote(url=cloud.url, engine="openai", prior=PRIORS["cloud"], concurrency=64),
        }
        async with house(folder, laptop=places["laptop"], cloud=places["cloud"]) as home:
            real = await lived(home, load)
        return real, {o.request.id: o for o in simulated(home, real)}
