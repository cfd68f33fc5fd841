"""How far a simulated llama.cpp is from a real one that was calibrated once, under open-loop load.

Laid down before anything was compared: the seed, the levels, what is asked, and the bounds. A run counts where the
engine had its core: its CPU time over the time in which it had work. One that did not is repeated, whatever came of it;
where others use the machine all the time, it is also compared with the same engine slowed down by what it lacked.
"""

import asyncio
import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from bench.record import record
from tidegate.cli.calibrate import measure
from tidegate.clock import Clock
from tidegate.config.address import Url, parse_url
from tidegate.config.endpoint import EngineKind
from tidegate.core.model import Request
from tidegate.lab import weights
from tidegate.lab.asking import Answered, Asker
from tidegate.lab.calibrate import fresh_prompt
from tidegate.lab.llama import Engine as Real
from tidegate.lab.llama import Spec
from tidegate.lab.purse import Budget
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, Kind
from tidegate.sim.job import Job
from tidegate.sim.profile import Profile, toml

# Not the one of the run in which the three tokens were noticed that every prompt begins with: see `simulated`.
SEED = 21
LEVELS = {"light": 0.3, "half": 0.75, "near saturation": 1.2}  # requests per second; about 1.4 are all it can do
REQUESTS = 80  # of a level
WORDS = (16, 240)  # of prompts, with the logarithm uniform between; a template and a task add 36 tokens
OUTPUT_TOKENS = (8, 48)
CALIBRATION = Budget(seconds=150.0, tokens=60_000)
SLOTS, CONTEXT_TOKENS = 4, 2048
SHARE_MIN = 0.95  # of its core, that the engine must have had
ATTEMPTS = 2
ANSWER_S_MAX = 120.0
MEDIAN_ERROR_MAX, P95_ERROR_MAX = 0.10, 0.20


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and when, since the beginning."""

    at_s: float
    words: int
    output_tokens: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One level before the real engine: when each request was really sent, and what came of it."""

    began_s: float
    answers: list[Answered]
    share: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What clients see."""

    ttft_s: list[float]
    tpot_s: list[float]


def asks(level: str) -> list[Ask]:
    """The requests of a level: Poisson's arrivals."""
    draw, at_s, found = Chance(SEED).at("parity", level), 0.0, []
    for _ in range(REQUESTS):
        at_s += draw.expovariate(LEVELS[level])
        words = round(math.exp(draw.uniform(math.log(WORDS[0]), math.log(WORDS[1]))))
        found.append(Ask(at_s=at_s, words=words, output_tokens=draw.randint(*OUTPUT_TOKENS)))
    return found


async def load(url: Url, pid: int, level: str, clock: Clock) -> Run:
    """Send them when they are due, whatever became of those before."""
    async with Asker(url, EngineKind.LLAMACPP, "smollm2", (), clock) as asker:
        began_s, began_cpu_s = clock.now_s(), cpu_s(pid)

        async def one(ask: Ask) -> Answered:
            await asyncio.sleep(began_s + ask.at_s - clock.now_s())
            return await asker.ask(fresh_prompt(ask.words), ask.output_tokens, ANSWER_S_MAX)

        answers = await asyncio.gather(*(one(ask) for ask in asks(level)))
        took_cpu_s = cpu_s(pid) - began_cpu_s
    return Run(began_s=began_s, answers=answers, share=took_cpu_s / busy_s(answers))


def busy_s(answers: Sequence[Answered]) -> float:
    """For how long there was work."""
    total = until_s = 0.0
    for one in sorted(answers, key=lambda one: one.sent_s):
        total += max(0.0, one.token_s[-1] - max(until_s, one.sent_s))
        until_s = max(until_s, one.token_s[-1])
    return total


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def simulated(profile: Profile, run: Run, slowdown: float) -> Figures:
    """The same requests before the simulated engine, with the tokens that the engine counted and computed.

    Every prompt begins with the same three tokens of the template. llama.cpp keeps prefixes token by token, the
    simulated engine in blocks of sixteen, which no two of these prompts have in common.
    """
    engine, told, jobs = Engine(profile.engine, reads_by_slot=True), [], []
    engine.slow(slowdown, 0.0)
    for number, one in sorted(enumerate(run.answers), key=lambda pair: pair[1].sent_s):
        at_s = one.sent_s - run.began_s
        tokens = one.prompt_tokens - (one.cached_tokens or 0)
        request = Request(
            id=str(number),
            model="smollm2",
            klass="chat",
            prompt_bytes=4 * tokens,
            arrived_s=at_s,
            prompt_tokens=tokens,
        )
        job = Job(request=request, prompt_tokens=tokens, output_tokens=one.output_tokens)
        told += engine.advance(at_s)
        assert engine.submit(job, at_s), "llama.cpp refuses nothing"
        jobs.append(job)
    while engine.next_s < math.inf:
        told += engine.advance(engine.next_s)
    first = {one.sequence.job.request.id: one.at_s for one in told if one.kind is Kind.FIRST}
    done = {one.sequence.job.request.id: one.at_s for one in told if one.kind is Kind.DONE}
    way_s = profile.network.link.rtt_s
    return Figures(
        ttft_s=[first[job.request.id] - job.request.arrived_s + way_s for job in jobs],
        tpot_s=[(done[job.request.id] - first[job.request.id]) / (job.target - 1) for job in jobs],
    )


def p95(values: Sequence[float]) -> float:
    """What one in twenty is above."""
    return sorted(values)[int(0.95 * (len(values) - 1))]


def errors(run: Run, made: Figures) -> dict[str, object]:
    """Real beside simulated, and the relative errors."""
    pairs = {
        "ttft_s": ([one.ttft_s for one in run.answers], made.ttft_s),
        "tpot_s": ([one.tpot_s for one in run.answers], made.tpot_s),
    }
    found: dict[str, object] = {}
    within = True
    for name, (real, sim) in pairs.items():
        for which, figure, bound in (("median", median, MEDIAN_ERROR_MAX), ("p95", p95, P95_ERROR_MAX)):
            error = figure(sim) / figure(real) - 1.0
            within = within and abs(error) <= bound
            found[f"{name}_{which}"] = {
                "real": round(figure(real), 4),
                "simulated": round(figure(sim), 4),
                "error": round(error, 4),
            }
    return {**found, "within": within}


def row(run: Run, profile: Profile, share: float) -> dict[str, object]:
    """As calibrated; where the engine lacked its core, also slowed down by what it had less than while calibrated."""
    found: dict[str, object] = {"engine_share": round(run.share, 3), **errors(run, simulated(profile, run, 1.0))}
    if min(share, run.share) < SHARE_MIN:
        found["with what it lacked"] = errors(run, simulated(profile, run, share / run.share))
    return found


async def calibrated(url: Url, pid: int, clock: Clock) -> tuple[Profile, float, int]:
    """The profile, what share of a core the engine had, and how many attempts it took."""
    share, attempt = 0.0, 0
    while share < SHARE_MIN and attempt < ATTEMPTS:
        attempt += 1
        began_s, began_cpu_s = clock.now_s(), cpu_s(pid)
        profile = await measure(url, None, (), CALIBRATION, clock, lambda _: None)
        share = (cpu_s(pid) - began_cpu_s) / (clock.now_s() - began_s)
        print(f"calibrated: share {share:.3f}, {profile}", flush=True)
    return profile, share, attempt


async def compare(folder: Path) -> dict[str, object]:
    """Calibrate once, then each level."""
    clock = Clock()
    async with Real(Spec(model=weights.fetch(), context_tokens=CONTEXT_TOKENS, slots=SLOTS), folder / "log") as real:
        url = parse_url(real.url)
        profile, share, attempts = await calibrated(url, real.pid, clock)
        (folder / "profile.toml").write_text(toml(profile), encoding="utf-8")
        rows: dict[str, object] = {}
        for level in LEVELS:
            for attempt in range(1, ATTEMPTS + 1):
                run = await load(url, real.pid, level, clock)
                rows[level] = {"requests_per_s": LEVELS[level], "attempt": attempt, **row(run, profile, share)}
                print(level, rows[level], flush=True)
                (folder / f"{level}-{attempt}.json").write_bytes(msgspec.json.encode(run))
                if run.share >= SHARE_MIN:
                    break
    return {
        "bounds": {"median": MEDIAN_ERROR_MAX, "p95": P95_ERROR_MAX, "engine_share": SHARE_MIN},
        "calibration": {"engine_share": round(share, 3), "attempts": attempts, **msgspec.to_builtins(profile)},
        "levels": rows,
        "load_average": [round(one, 2) for one in os.getloadavg()],
    }


def main() -> None:
    """Compare, print, write down."""
    with TemporaryDirectory() as folder:
        record("llama_parity", asyncio.run(compare(Path(os.environ.get("TIDEGATE_RUNS", folder)))))


if __name__ == "__main__":
    main()
