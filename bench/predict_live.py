"""How far predictions are from what a real engine then did, under load that changes.

    make bench-predict_live                           # llama.cpp behind a gateway, six minutes; then the figures
    python -m bench.predict_live --journal FOLDER     # the figures of a journal that is there, by the software of now

Laid down before anything was tuned: the seed, the phases, what is asked, the figures and the bounds. SmolLM2 on one
thread with four slots has one core, the gateway and the load have another. The gateway is told nothing of the engine
but its address and its slots. Requests come by Poisson's law in phases: prompts of 30 to 1,500 tokens, answers of 10 to
120 tokens at most. No text comes twice, so that no prefix is kept, but in the conversations, whose turns bring all
that was said before; a turn is sent when its people have read the last answer.

Text is that of Python's own reference manual, paragraph by paragraph in an order that is drawn: prose with code in it,
of 3.7 to 4.7 characters a token.

Predictions are those that the router made when it sent: the journal is replayed, line by line, and each attempt's
prediction is put beside what came of it. The error of a figure is |predicted / measured - 1|; its median is taken over
all requests that were sent after the first 50, and by phase. Beside it stand the prior's, which learns nothing, and
that of the best constant, which is chosen afterwards: both as the others, over the same requests.

A run counts where the engine had its core: its CPU time over the time in which it had work.
"""

import argparse
import asyncio
import math
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from statistics import median
from typing import Any

import msgspec

from bench.llama_parity import cpu_s
from bench.record import machine, record
from tidegate.clock import Clock
from tidegate.core.hindsight import Compared, Hindsight
from tidegate.core.model import JOURNAL_VERSION, Ending, Line, Segment, Started, replace
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec
from tidegate.sim.chance import Chance
from tidegate.telemetry.segments import segments

SEED = 31
FIRST = 50  # requests that are learned from and not counted
ERROR_MAX = 0.10  # median, of both
ENGINE_SHARE_MIN = 0.95
SLOTS, CONTEXT_TOKENS = 4, 2048
CHARACTERS_PER_TOKEN = 4.2
TURNS, TURN_TOKENS, THINK_S = 4, (60, 200), 3.0  # of a conversation; its first turn brings a page of 300 tokens
OPENING_TOKENS = 300
DRAIN_S_MAX = 120.0
ANSWER_S_MAX = 240.0
HOST, MODEL = "127.0.0.1", "smollm2"


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """So many seconds of requests at this rate, each of them `burst` at once; lengths in tokens, log-uniform."""

    name: str
    seconds: float
    per_s: float
    prompt_tokens: tuple[int, int] = (30, 150)
    output_tokens: tuple[int, int] = (10, 60)
    burst: int = 1
    talks: bool = False


PHASES = (
    Phase(name="short, alone", seconds=40, per_s=0.6),
    Phase(name="mixed, light", seconds=50, per_s=0.25, prompt_tokens=(30, 1500), output_tokens=(10, 120)),
    Phase(name="short, busy", seconds=40, per_s=1.1),
    Phase(name="mixed, busy", seconds=60, per_s=0.4, prompt_tokens=(30, 1500), output_tokens=(10, 120)),
    Phase(name="conversations", seconds=50, per_s=0.2, output_tokens=(10, 60), talks=True),
    Phase(name="long", seconds=45, per_s=0.2, prompt_tokens=(500, 1500), output_tokens=(10, 120)),
    Phase(name="bursts of four", seconds=40, per_s=0.25, prompt_tokens=(30, 300), burst=4),
    Phase(name="short again", seconds=35, per_s=0.9, output_tokens=(10, 120)),
)

_CONFIG = """\
[gateway]
listen = "{host}:{port}"
admin = "{host}:{admin}"
log = "log"
journal = "journal"
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
            found += [Ask(at_s=at_s, phase=number, turns=_turns(text, draw, phase)) for _ in range(phase.burst)]
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


# --- running ----------------------------------------------------------------------------------------------------------


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


async def _gateway(folder: Path, url: str) -> tuple[asyncio.subprocess.Process, int]:
    """As a user runs it, and the port at which it listens."""
    config, (port, admin) = folder / "tidegate.toml", _free_ports(2)
    config.write_text(_CONFIG.format(host=HOST, port=port, admin=admin, url=url, slots=SLOTS))
    command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--json", "--config", str(config)]
    gateway = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    assert gateway.stdout is not None
    assert await gateway.stdout.readline(), "the gateway did not start"
    return gateway, port


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((HOST, 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


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


# --- figures ----------------------------------------------------------------------------------------------------------


def lines(journal: Path) -> Iterator[Line]:
    """A journal from its beginning, whichever version wrote it, for a router that knows nothing yet.

    The state at its beginning is that of a gateway that has just started, and is left out. Later segments begin with
    what the software of then had learned: they are passed over.
    """
    decoder, begun = msgspec.json.Decoder(Line), False
    for path in segments(journal):
        for raw in path.read_bytes().splitlines():
            line = decoder.decode(raw)
            if isinstance(line.fact, Segment):
                if begun:
                    continue
                begun = True
                fresh = replace(line.fact, version=JOURNAL_VERSION, state=msgspec.Raw(b"{}"))
                line = replace(line, fact=fresh)
            yield line


def compared(journal: Path, *, learns: bool = True) -> list[Compared]:
    """All that ended well, in the order of sending; with `learns=False`, as the prior predicts it."""
    hindsight, found = Hindsight(), []
    for line in lines(journal):
        one = hindsight.feed(line)
        if one is not None and one.ended.ending is Ending.OK:
            found.append(one)
        if not learns and isinstance(line.fact, Started):
            assert hindsight.replay.router is not None
            model = hindsight.replay.router.endpoint(line.fact.endpoint)
            model.state.reservations[line.fact.request_id].teaches = False
    return sorted(found, key=lambda one: one.sent_s)


Pairs = list[tuple[float, float]]
"""Predicted and measured."""


def pairs(rows: Sequence[Compared], figure: str) -> Pairs:
    """Of those of which it could be measured."""
    found = []
    for one in rows:
        measured: float | None = getattr(one, figure)
        if measured is not None:
            found.append((float(getattr(one.predicted, figure)), measured))
    return found


def error(found: Pairs) -> float | None:
    """The median error; None of nothing."""
    return round(median(abs(predicted / measured - 1.0) for predicted, measured in found), 4) if found else None


def best_constant(found: Pairs) -> float | None:
    """The median error of whichever measured value is the best prediction of all."""
    errors = [error([(constant, measured) for _, measured in found]) for _, constant in found]
    return min((one for one in errors if one is not None), default=None)


def summary(rows: Sequence[Compared]) -> dict[str, object]:
    """The figures of these requests."""
    ttft, tpot = pairs(rows, "ttft_s"), pairs(rows, "tpot_s")
    inside = [one.predicted.ttft_s_high >= one.ttft_s for one in rows if one.ttft_s is not None]
    return {
        "requests": len(rows),
        "ttft_error": error(ttft),
        "tpot_error": error(tpot),
        "ttft_bias": _bias(ttft),
        "tpot_bias": _bias(tpot),
        "within_bound": round(sum(inside) / len(inside), 3) if inside else None,
    }


def _bias(found: Pairs) -> float | None:
    return round(median(predicted / measured - 1.0 for predicted, measured in found), 4) if found else None


def figures(folder: Path) -> dict[str, object]:
    """All figures of what a run left in its folder."""
    load = msgspec.json.decode((folder / "load.json").read_bytes(), type=Load)
    journal = folder / "journal"
    rows = compared(journal)
    prior = compared(journal, learns=False)[FIRST:]
    counted = rows[FIRST:]
    found = summary(counted)
    within = all(isinstance(one := found[name], float) and one <= ERROR_MAX for name in ("ttft_error", "tpot_error"))
    shares = _shares(rows, load)
    phases = {}
    for number, phase in enumerate(PHASES):
        these = [one for one in counted if load.phases.get(one.ended.request_id) == number]
        phases[phase.name] = {**summary(these), "engine_share": shares.get(number)}
    return {
        "bounds": {"median_error": ERROR_MAX, "after_requests": FIRST, "engine_share": ENGINE_SHARE_MIN},
        "within": within,
        **found,
        "engine_share": shares[None],
        "undisturbed": (shares[None] or 0.0) >= ENGINE_SHARE_MIN,
        "run_on": load.machine,
        "lost": load.lost,
        "references": {
            "prior": {"ttft_error": error(pairs(prior, "ttft_s")), "tpot_error": error(pairs(prior, "tpot_s"))},
            "best constant": {
                "ttft_error": best_constant(pairs(counted, "ttft_s")),
                "tpot_error": best_constant(pairs(counted, "tpot_s")),
            },
        },
        "first requests": summary(rows[:FIRST]),
        "phases": phases,
        "columns": "phase prompt cached output load | ttft_s predicted high | tpot_s predicted; tokens are as told",
        "rows": [_row(one, load.phases.get(one.ended.request_id)) for one in rows],
    }


def _row(one: Compared, phase: int | None) -> str:
    ended, predicted = one.ended, one.predicted
    tokens = f"{ended.prompt_tokens} {ended.cached_tokens} {ended.output_tokens} {predicted.load}"
    ttft = f"{one.ttft_s:.4f} {predicted.ttft_s:.4f} {predicted.ttft_s_high:.4f}"
    tpot = "-" if one.tpot_s is None else f"{one.tpot_s:.5f}"
    return f"{'-' if phase is None else phase} {tokens} | {ttft} | {tpot} {predicted.tpot_s:.5f}"


def _shares(rows: Sequence[Compared], load: Load) -> dict[int | None, float | None]:
    """What of its core the engine had while there was work, by the phase in which that was sent; None is all of it."""
    busy: list[list[float]] = []
    for one in rows:
        if busy and one.sent_s <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], one.ended_s)
        else:
            busy.append([one.sent_s, one.ended_s])

    def share(begin_s: float, end_s: float) -> float | None:
        worked_s = sum(max(0.0, min(end_s, b) - max(begin_s, a)) for a, b in busy)
        cpu_s = _at(load.cpu, end_s) - _at(load.cpu, begin_s)
        return round(cpu_s / worked_s, 3) if worked_s > 1.0 else None

    found: dict[int | None, float | None] = {None: share(rows[0].sent_s, max(one.ended_s for one in rows))}
    for number in range(len(PHASES)):
        sent_s = [one.sent_s for one in rows if load.phases.get(one.ended.request_id) == number]
        if sent_s:
            found[number] = share(min(sent_s), max(sent_s))
    return found


def _at(samples: Sequence[tuple[float, float]], at_s: float) -> float:
    """What had been used by then, between the samples by a straight line."""
    before, after = samples[0], samples[-1]
    for one in samples:
        if one[0] <= at_s:
            before = one
        else:
            after = one
            break
    if after[0] <= before[0]:
        return before[1]
    share = min(max((at_s - before[0]) / (after[0] - before[0]), 0.0), 1.0)
    return before[1] + share * (after[1] - before[1])


def main() -> None:
    """Run, unless there is a journal; print; write down what was run."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict_live")
    parser.add_argument("--journal", type=Path, metavar="FOLDER", help="what a run left, with journal/ and load.json")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave it there (it is emptied first)")
    options = parser.parse_args()
    if options.journal is not None:
        found: dict[str, Any] = figures(options.journal)
        for name, value in found.items():
            if name != "rows":
                print(name, value)
        return
    folder = options.keep or weights.cache_dir() / "predict_live"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    asyncio.run(run(folder))
    record("predict_live", figures(folder))


if __name__ == "__main__":
    main()
