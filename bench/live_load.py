"""A real llama.cpp behind a real gateway, and people who send it requests under load that changes.

What is sent, and when, is a function of the seed: see bench/predict_live.py for what it is for.
"""

import asyncio
import math
import os
from asyncio.subprocess import Process
from pathlib import Path
from pydoc_data.topics import topics
from random import Random

import msgspec

from bench.gateway import HOST, LISTENS, free_ports, served
from bench.llama_parity import cpu_s
from bench.record import machine
from tidegate.clock import Clock
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec
from tidegate.sim.chance import Chance

SEED = 31
SLOTS, CONTEXT_TOKENS = 4, 2048
CHARACTERS_PER_TOKEN = 4.2
TURNS, TURN_TOKENS, THINK_S = 4, (60, 200), 3.0  # of a conversation; its first turn brings a page of 300 tokens
OPENING_TOKENS = 300
ANSWER_S_MAX = 240.0
MODEL = "smollm2"


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """So many seconds of requests, or of conversations, at this rate; lengths in tokens, log-uniform."""

    name: str
    seconds: float
    per_s: float
    prompt_tokens: tuple[int, int] = (30, 100)
    output_tokens: tuple[int, int] = (10, 30)
    talks: bool = False


PHASES = (
    Phase(name="short, light", seconds=70, per_s=0.45),
    Phase(name="mixed, light", seconds=60, per_s=0.15, prompt_tokens=(30, 1500), output_tokens=(10, 120)),
    Phase(name="short, medium", seconds=40, per_s=0.7),
    Phase(name="short, busy", seconds=15, per_s=1.4),
    Phase(name="short, light again", seconds=60, per_s=0.45),
    Phase(name="mixed, light again", seconds=50, per_s=0.15, prompt_tokens=(30, 1500), output_tokens=(10, 120)),
    Phase(name="conversations", seconds=35, per_s=0.08, talks=True),
    Phase(name="short, light, once more", seconds=50, per_s=0.45),
)

_CONFIG = (
    LISTENS
    + """\
journal_segment_mib = 1024
journal_total_mib = 2048
[site.home]
local = true
[endpoint.local]
site = "home"
engine = "llamacpp"
url = "{url}"
serves = ["smollm2"]
concurrency = {slots}
probe_s = 5
"""
)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, or the beginning of a conversation with so many `turns`, each text with a bound for its answer."""

    at_s: float
    phase: int
    turns: tuple[tuple[str, int], ...]


class Load(msgspec.Struct, kw_only=True):
    """What the journal does not tell: the phase of each request, and the engine's CPU seconds as time passed."""

    phases: dict[str, int] = {}
    cpu: list[tuple[float, float]] = []
    lost: int = 0
    machine: str = ""


class Text:
    """The manual, no word of which is given out twice."""

    def __init__(self) -> None:
        found = {" ".join(part.split()): None for name in sorted(topics) for part in topics[name].split("\n\n")}
        self._parts = [part for part in found if len(part) >= 80]
        Chance(SEED).at("text").shuffle(self._parts)

    def take(self, tokens: int) -> str:
        """About so many tokens."""
        wanted, taken = round(tokens * CHARACTERS_PER_TOKEN), ""
        while len(taken) < wanted:
            taken += self._parts.pop() + "\n"
        return taken[:wanted]


def asks() -> list[Ask]:
    """All of the load, in the order of time."""
    text, began_s, found = Text(), 0.0, []
    for number, phase in enumerate(PHASES):
        draw, at_s = Chance(SEED).at("load", number), began_s
        while (at_s := at_s + draw.expovariate(phase.per_s)) < began_s + phase.seconds:
            found.append(Ask(at_s=at_s, phase=number, turns=_turns(text, draw, phase)))
        began_s += phase.seconds
    return found


def _turns(text: Text, draw: Random, phase: Phase) -> tuple[tuple[str, int], ...]:
    if phase.talks:
        sizes = [OPENING_TOKENS + _between(draw, TURN_TOKENS), *(_between(draw, TURN_TOKENS) for _ in range(TURNS - 1))]
    else:
        sizes = [_between(draw, phase.prompt_tokens)]
    return tuple((text.take(size), _between(draw, phase.output_tokens)) for size in sizes)


def _between(draw: Random, ends: tuple[int, int]) -> int:
    return round(math.exp(draw.uniform(math.log(ends[0]), math.log(ends[1]))))


# --- running --------------------------------------------------------------------------------------------------------


async def run(folder: Path) -> None:
    """Serve the load, and leave `journal/` and `load.json` in the folder."""
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) > 1, "the engine has one core, all else another"
    spec = Spec(model=weights.fetch(), context_tokens=CONTEXT_TOKENS, slots=SLOTS, cpu=cpus[0])
    clock, load = Clock(), Load(machine=machine())
    async with Engine(spec, folder / "engine.log") as engine:
        os.sched_setaffinity(0, {cpus[-1]})  # and with us the gateway, our child
        gateway, port = await _gateway(folder, engine.url)
        pool = Pool(Origin(HOST, port), clock=clock, connections_max=256)
        watch = asyncio.ensure_future(_watch(engine.pid, clock, load))
        try:
            began_s = clock.now_s()
            every = asks()
            print(f"{len(every)} begin", flush=True)
            await asyncio.gather(*(_talk(pool, clock, began_s, ask, load) for ask in every))
        finally:
            watch.cancel()
            await pool.close()
            gateway.terminate()
            await gateway.wait()
            (folder / "load.json").write_bytes(msgspec.json.encode(load))


async def _gateway(folder: Path, url: str) -> tuple[Process, int]:
    """As a user runs it, and the port at which it listens."""
    config, (port, admin) = folder / "tidegate.toml", free_ports(2)
    config.write_text(_CONFIG.format(host=HOST, port=port, admin=admin, url=url, slots=SLOTS))
    return await served(config), port


async def _watch(pid: int, clock: Clock, load: Load) -> None:
    while True:
        load.cpu.append((clock.now_s(), cpu_s(pid)))
        await asyncio.sleep(1.0)


async def _talk(pool: Pool, clock: Clock, began_s: float, ask: Ask, load: Load) -> None:
    """Send it when it is due, whatever became of the others; the turns of a conversation after each other."""
    await asyncio.sleep(began_s + ask.at_s - clock.now_s())
    said: list[dict[str, str]] = []
    for number, (text, tokens_max) in enumerate(ask.turns):
        if number:
            await asyncio.sleep(THINK_S)
        # At the very beginning: what a template puts before a user's words is the same each time, and cached.
        said.append({"role": "user" if number else "system", "content": text})
        body = {
            "model": MODEL,
            "messages": said,
            "max_tokens": tokens_max,
            "seed": number,
            "stream": True,
        }
        try:
            status, headers, raw = await fetch(
                pool, b"POST", b"/v1/chat/completions", ((b"content-type", b"application/json"),),
                msgspec.json.encode(body), ANSWER_S_MAX, 1 << 22,
            )  # fmt: skip
        except TransportError:
            status, headers, raw = 0, {}, b""
        if status != 200:
            load.lost += 1
            return
        load.phases[headers[b"x-tidegate-decision"].decode()] = ask.phase
        said.append({"role": "assistant", "content": _content(raw)})


def _content(raw: bytes) -> str:
    """The words of an answer that was streamed."""
    found = ""
    for line in raw.split(b"\n"):
        if line.startswith(b"data: {"):
            choices = msgspec.json.decode(line[6:])["choices"]
            found += "".join(choice["delta"].get("content") or "" for choice in choices)
    return found
