"""The same requests, live and simulated: a gateway before engines, and the world that is made of both.

Requests cross real sockets; time is virtual, so that what the machine takes for them counts on neither side.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tests.parity.live import TALK_TOKENS_MAX, LiveApi, LiveEngine, NumberedApi, job, prompt
from tests.virtual import VirtualClock
from tidegate.core.model import Decision, Ended, FirstToken, Held, Line, Probed, Released, Request, Started, replace
from tidegate.core.replay import replay
from tidegate.core.step import StepTime
from tidegate.sim.api import ApiProfile, CacheProfile, Spread
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.job import Job
from tidegate.sim.place import Local, Place, Remote
from tidegate.sim.purse import Purse
from tidegate.sim.world import World

# A laptop that is full when three talk to it, and a fleet that is faster and costs money.
OWN = EngineProfile(
    step=StepTime(base_s=0.012, per_token_s=0.0004, per_sequence_s=0.002), slots=3, batch_tokens=512, kv_tokens=65_536
)
AWAY = EngineProfile(step=StepTime(base_s=0.006, per_token_s=0.00005), slots=64, batch_tokens=4_096, kv_tokens=10**6)
API = ApiProfile(
    ttft_s=0.05,
    ttft_s_per_uncached_token=0.00005,
    ttft_spread=Spread(sigma=0.3, tail=0.05, tail_sigma=1.0),
    tpot_s=0.006,
)
# What is carried on the loopback takes no virtual time: no upload is news.
NEAR = {"rtt_ms": 0, "upload_mbit_per_s": 1e5}
PRIORS: dict[str, dict[str, Any]] = {
    "laptop": {"prefill_tokens_per_s": 2400, "decode_tokens_per_s": 70, "overhead_ms": 12, "sigma": 0.3} | NEAR,
    "cloud": {"prefill_tokens_per_s": 20000, "decode_tokens_per_s": 160, "overhead_ms": 6, "sigma": 0.3} | NEAR,
    "other": {"prefill_tokens_per_s": 20000, "decode_tokens_per_s": 160, "overhead_ms": 20, "sigma": 0.3} | NEAR,
}
PRICES = {
    "cloud": {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 4},
    "other": {"usd_per_1m_input_tokens": 2, "usd_per_1m_output_tokens": 6},
}
PROBE_S = 5.0
# Prompts of 800 tokens are late at the laptop, and shorter ones in time.
PROMISE = {"x_tidegate_slo_ttft_ms": "300"}
PROMISES = (PROMISE, {"x_tidegate_slo_e2e_ms": "1500"}, {"x_tidegate_class": "batch"})


class Asked(msgspec.Struct, frozen=True):
    """One request, so many seconds from the start, of a conversation, which most have to themselves."""

    at_s: float
    talk: int
    prompt_tokens: int
    output_tokens: int
    stream: bool
    promise: dict[str, str]


def load(case: "Case") -> list[Asked]:
    """Twelve seconds."""
    draw, at_s, asked = Random(case.seed), 0.0, list[Asked]()
    said = dict[int, int]()
    for number in range(int(case.per_s * 12)):
        at_s += draw.expovariate(case.per_s)
        tokens, output_tokens = draw.choice((60, 200, 800)), draw.choice((8, 30, 80))
        stream, promise = draw.random() >= case.whole, draw.choice(PROMISES if case.mixed else (PROMISE,))
        talk = number
        if case.talks:
            talk = draw.randrange(case.talks)
            tokens = said[talk] = min(said.get(talk, 0) + tokens, TALK_TOKENS_MAX)
            promise = promise | ({"x_tidegate_session": f"talk-{talk}"} if case.sessions else {})
        asked.append(Asked(at_s, talk, tokens, output_tokens, stream=stream, promise=promise))
    return asked


async def lived(home: House, load: list[Asked]) -> list[Line]:
    """The journal of the load, as it came to a real gateway over real sockets."""

    async def one(number: int, asked: Asked) -> None:
        await asyncio.sleep(asked.at_s)
        text, said = prompt(asked.talk, asked.prompt_tokens), {"seed": number, "max_tokens": asked.output_tokens}
        body = chat(text, stream=asked.stream, **said)
        assert (await home.ask(body, **asked.promise)).status in (200, 402, 429, 500, 502, 503, 504)

    await asyncio.gather(*(one(*numbered) for numbered in enumerate(load)))
    await home.quiet()
    return home.journal()


class Again:
    """The requests that came to the gateway, for the world."""

    def __init__(self, came: list[Request], load: list[Asked]) -> None:
        self._jobs = [
            job(request, asked.talk, asked.prompt_tokens, asked.output_tokens)
            for request, asked in zip(came, load, strict=True)
        ]

    def arrivals(self) -> Iterator[Job]:
        yield from self._jobs

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


class _Watched:
    """As a gateway sees those that it is lived with: they do not tell how much they have to do, and the first look, at
    all at once, measures no round trip."""

    first = True

    def probe(self) -> Probed:
        seen: Probed = super().probe()  # type: ignore[misc]
        rtt_s, self.first = None if self.first else 0.0, False
        return replace(seen, running=None, queued=None, rtt_s=rtt_s)


class WatchedLocal(_Watched, Local):
    """An engine."""


class WatchedRemote(_Watched, Remote):
    """A fleet behind an API."""


Away = EngineProfile | ApiProfile


class Case(msgspec.Struct, frozen=True):
    """What is lived: so many requests a second, this share of them with answers in one piece, before a laptop and what
    is away: `cloud`, and a dearer `other` where there is one. With `mixed` promises. The laptop has
    `trouble`: it crashes or freezes after so many seconds, for so long. There are so many `talks`, whose prompts grow,
    and which are named where they are `sessions`; 0 is one for each request."""

    seed: int
    per_s: float
    cloud: Away
    other: Away | None = None
    whole: float = 0.0
    mixed: bool = False
    trouble: tuple[str, float, float] | None = None
    budget: dict[str, Any] = {}
    own: EngineProfile = OWN
    talks: int = 0
    sessions: bool = False

    @property
    def away(self) -> dict[str, Away]:
        return {"cloud": self.cloud} | ({} if self.other is None else {"other": self.other})


def simulated(home: House, journal: list[Line], case: Case) -> list[Line]:
    """The journal of the same requests in a world of the same endpoints."""
    built, start_s = home.gateway._built, journal[0].at_s
    # Each as it came: once its answer broke off, or more may be spent, it is asked for anew.
    came: dict[str, Request] = {}
    for line in journal:
        if isinstance(line.fact, Request):
            came.setdefault(line.fact.id, line.fact)
    numbers = {name: str(number) for number, name in enumerate(came)}
    lines = list[Line]()
    purse = Purse(built.caps, paced=built.paced)
    world = World(built.endpoints, built.policy, start_s=start_s, purse=purse, journal=lines.append)
    own = WatchedLocal("laptop", Engine(case.own, start_s), world.loop, world)
    places: dict[str, Place] = {"laptop": own}
    for name, profile in case.away.items():
        if isinstance(profile, EngineProfile):
            places[name] = WatchedLocal(name, Engine(profile, start_s), world.loop, world)
        else:
            places[name] = WatchedRemote(name, NumberedApi(profile, numbers), world.loop, world)
    if case.trouble is not None:
        what, after_s, for_s = case.trouble
        world.loop.at(start_s + after_s, getattr(own, what), start_s + after_s + for_s)
    world.run(places, Again(list(came.values()), load(case)), probe_s=PROBE_S, until_s=start_s + 1e6)
    assert replay(lines).difference is None
    return lines


TOLD = (Request, Decision, Held, Released, Started, FirstToken, Ended)


def told(journal: list[Line]) -> dict[str, list[tuple[str, ...]]]:
    """What became of each request, in its order: what, where, how it ended, and when, to a tenth of a millisecond."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in journal:
        fact = line.fact
        if not isinstance(fact, TOLD):
            continue
        name = fact.id if isinstance(fact, Request) else fact.request.id if isinstance(fact, Held) else fact.request_id
        where = getattr(fact, "endpoint", "")
        ending = f"{fact.ending} {fact.cause}" if isinstance(fact, Ended) else ""
        why = str(fact.why) if isinstance(fact, Decision) else ""
        found.setdefault(name, []).append((type(fact).__name__, where, ending, why, f"{line.at_s:.4f}"))
    return found


TURNS_AWAY = replace(API, errors=0.3, error_status=503, refusal_s=0.02)
FAILS = replace(API, errors=0.3, refusal_s=0.02)
CACHES = replace(API, cache=CacheProfile(tokens_min=256, block_tokens=64, met=0.8), ttft_s_per_cached_token=0.000005)
LOADS = replace(OWN, load_s=1.2, unload_after_s=1.0)
CASES = {
    "light": Case(1, 3.0, AWAY),
    "lighter": Case(1, 0.8, AWAY),
    "busy": Case(2, 8.0, AWAY),
    "full": Case(3, 14.0, AWAY),
    "fuller": Case(5, 20.0, AWAY),
    "whole": Case(1, 8.0, AWAY, whole=0.4),
    "api": Case(2, 8.0, API),
    "api, full": Case(2, 14.0, API),
    "turns away": Case(2, 8.0, TURNS_AWAY),
    "fails": Case(1, 8.0, FAILS),
    "limited": Case(2, 8.0, replace(API, requests_per_minute=30.0, refusal_s=0.02)),
    "crowded": Case(7, 14.0, replace(API, concurrency=3, retry_after_s=1.0, refusal_s=0.02)),
    "mixed": Case(1, 8.0, API, whole=0.3, mixed=True),
    "mixed, full": Case(2, 14.0, API, whole=0.3, mixed=True),
    "crashes": Case(1, 8.0, API, trouble=("crash", 4.37, 3.21)),
    "freezes": Case(1, 8.0, API, trouble=("freeze", 4.37, 3.21)),
    "capped": Case(13, 8.0, API, mixed=True, budget={"usd_per_day": 0.012, "pace": False}),
    "paced": Case(1, 8.0, API, mixed=True, budget={"usd_per_day": 0.05}),
    "talks": Case(1, 5.0, AWAY, talks=6),
    "talks, api": Case(1, 8.0, CACHES, talks=12, mixed=True),
    "sessions": Case(1, 8.0, CACHES, talks=12, mixed=True, sessions=True, whole=0.2),
    "cold": Case(1, 0.8, AWAY, own=LOADS),
    "cold, busy": Case(1, 3.0, API, own=LOADS, mixed=True),
    "two": Case(1, 14.0, FAILS, API, whole=0.3, mixed=True),
}


@pytest.mark.lengthy
@pytest.mark.virtual
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_simulated_day_is_the_day_that_was_lived(tmp_path: Path, case: Case) -> None:
    real, made = await day_and_its_like(tmp_path, case)
    assert told(made) == told(real)


async def day_and_its_like(folder: Path, case: Case) -> tuple[list[Line], list[Line]]:
    """What became of all requests, really and simulated."""
    clock, urls = VirtualClock(), dict[str, str]()
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(LiveEngine(case.own, clock))
        for name, profile in case.away.items():
            kind = LiveEngine(profile, clock) if isinstance(profile, EngineProfile) else LiveApi(profile, clock)
            urls[name] = (await stack.enter_async_context(kind)).url
        common: dict[str, Any] = {"engine": "openai", "context_tokens": 8192, "probe_s": PROBE_S}
        places: dict[str, Any] = {"laptop": local(url=own.url, prior=PRIORS["laptop"], concurrency=3, **common)}
        for name, url in urls.items():
            priced: dict[str, Any] = {"prior": PRIORS[name], "price": PRICES[name], "concurrency": 64}
            places[name] = remote(url=url, **priced, **common)
        home = await stack.enter_async_context(house(folder, budget=case.budget, **places))
        # What chance decides, as who is hedged, follows from ids: each time the same.
        home.gateway._handler._instance = "day"
        real, _ = await asyncio.gather(lived(home, load(case)), troubled(own, case))
        return real, simulated(home, real, case)


async def troubled(own: LiveEngine, case: Case) -> None:
    if case.trouble is not None:
        what, after_s, for_s = case.trouble
        await asyncio.sleep(after_s)
        await getattr(own, what)(for_s)
