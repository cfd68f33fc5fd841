"""How well cached tokens are predicted, and what knowing them is worth.

    TIDEGATE_DATA=FOLDER make bench-prefix

Recorded conversations (Mooncake) and coding agents (kv-cache-tester, 16 at once) before simulated engines and an API.
Of each attempt that was served, what was expected to be cached when it was sent is compared with what was reported.
Beside it stand two simpler ways: that nothing is cached, and that all is that was ever seen to begin alike, as far as
it is remembered. Errors are in tokens and as a share of the prompt; `bias` is the sum of what was expected over that of
what was reported, less one.

Then the same traffic before two equal engines, with the digests of prompts and without: whether conversations go back
to the engine that has their beginning, and what that comes to in cached tokens and in the time to first token.

Each trace is cut in two. Constants were chosen on the first half (`tune`), with one seed; the second one (`test`), with
another, is what counts. The whole of Mooncake before an engine that forgets nothing is both: there, the share of tokens
that are reused is known exactly (tests/sim/test_traces.py).
"""

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, quantiles
from tempfile import TemporaryDirectory

import msgspec

from bench.record import record
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    Endpoint,
    Held,
    Observation,
    Policy,
    Prior,
    Request,
    RequestClass,
    Slo,
    Started,
    replace,
)
from tidegate.core.router import Router
from tidegate.core.step import StepTime
from tidegate.sim.api import Api, ApiProfile, CacheProfile
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.place import Local, Place, Remote
from tidegate.sim.recorded import TraceFormat, recorded
from tidegate.sim.world import World

MOONCAKE = Path("requests") / "mooncake_conversation_trace.jsonl.gz"
AGENTS = Path("requests") / "kvct_agentic_traces_rle.jsonl.gz"
SEEDS = {"tune": 1, "test": 2, "whole": 1}
# A 70B model on four fast accelerators, roughly.
STEP = StepTime(base_s=0.012, per_token_s=1.5e-5, per_sequence_s=2e-5, per_context_token_s=1e-8, per_pair_s=3e-10)
PRIOR = Prior(overhead_s=0.02, prefill_s_per_token=2e-5, decode_s_per_token=0.015)
KLASS = RequestClass(name="interactive", worth_usd=0.01, late_usd_per_s=0.0005)
# A promise of the first token alone. With one of the time per token, that decides which of two equal engines is chosen
# as soon as it is the less likely one to be kept: it depends on who else is there, and not on what is cached.
FIRST = Slo(ttft_s=3.0)
EVERYTHING = 10**9
API = ApiProfile(ttft_s=0.4, ttft_s_per_uncached_token=3e-5, tpot_s=0.02)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic, and what it meets: so many engines with memory for so many tokens each, or an API that keeps prompts."""

    name: str
    trace: Path
    format: TraceFormat
    kv_tokens: int = 0
    engines: int = 1
    cache: CacheProfile | None = None
    speed: float = 1.0
    rows_max: int | None = None
    slo: Slo = Slo(ttft_s=10.0, tpot_s=0.1)
    users: int = 16


def _mooncake(name: str, **what: object) -> Case:
    return msgspec.structs.replace(Case(name=f"mooncake, {name}", trace=MOONCAKE, format="mooncake", speed=0.5), **what)


def _agents(name: str, **what: object) -> Case:
    return msgspec.structs.replace(
        Case(name=f"agents, {name}", trace=AGENTS, format="kvct", rows_max=3_000, engines=2), **what
    )


CASES = (
    _mooncake("engine of 8M tokens", kv_tokens=8_000_000),
    _mooncake("engine of 2M tokens", kv_tokens=2_000_000),
    _mooncake("engine of 500k tokens", kv_tokens=500_000),
    _mooncake("API, 300 s", cache=CacheProfile(ttl_s=300.0)),
    _mooncake("API, 30 s, 7 in 10", cache=CacheProfile(ttl_s=30.0, met=0.7)),
    _agents("two engines of 8M tokens", kv_tokens=8_000_000),
    _agents("two engines of 2M tokens", kv_tokens=2_000_000),
    _agents("two engines of 700k tokens", kv_tokens=700_000),
    _agents("API, 300 s", engines=1, cache=CacheProfile(ttl_s=300.0)),
    _agents("API, 60 s, 7 in 10", engines=1, cache=CacheProfile(ttl_s=60.0, met=0.7)),
)
WHOLE = _mooncake("engine that forgets nothing", kv_tokens=EVERYTHING)
AFFINITY = (
    _mooncake("two engines of 2M tokens", kv_tokens=2_000_000, engines=2, speed=1.5),
    _mooncake("two engines of 2M tokens, half the load", kv_tokens=2_000_000, engines=2, speed=0.75),
    _agents("two engines of 2M tokens", kv_tokens=2_000_000),
    _agents("four engines of 700k tokens", kv_tokens=700_000, engines=4),
    _mooncake("two engines of 2M tokens, TTFT", kv_tokens=2_000_000, engines=2, speed=1.5, slo=FIRST),
    _mooncake("two engines of 2M tokens, half the load, TTFT", kv_tokens=2_000_000, engines=2, speed=0.75, slo=FIRST),
    _agents("two engines of 2M tokens, fast, TTFT", kv_tokens=2_000_000, speed=20.0, slo=FIRST),
    _agents("four engines of 700k tokens, fast, TTFT", kv_tokens=700_000, engines=4, speed=20.0, slo=FIRST),
    _agents("200 on two engines of 8M tokens, fast, TTFT", kv_tokens=8_000_000, users=200, speed=20.0, slo=FIRST),
    _agents(
        "200 on four engines of 4M tokens, fast, TTFT",
        kv_tokens=4_000_000,
        engines=4,
        users=200,
        speed=20.0,
        slo=FIRST,
        rows_max=6_000,
    ),
    _agents(
        "200 on four engines of 8M tokens, fast, TTFT",
        kv_tokens=8_000_000,
        engines=4,
        users=200,
        speed=20.0,
        slo=FIRST,
        rows_max=6_000,
    ),
)


class Seen(msgspec.Struct):
    """Of one attempt, in estimated tokens: its prompt, what was expected, all that began alike, what was reported."""

    prompt: float
    expected: float
    alike: float
    reported: float


class Watched(Router):
    """A router that keeps what it expected beside what came."""

    def watch(self, seen: list[Seen]) -> "Watched":
        """From now on into this list."""
        self.seen = seen
        return self

    def observe(self, fact: Observation, now_s: float) -> None:
        """See `Router`."""
        if isinstance(fact, Ended) and fact.ending is Ending.OK and fact.prompt_tokens:
            given = self.endpoint(fact.endpoint).state.reservations[fact.request_id].given
            assert given is not None, "a prompt was sent"
            reported = given.tokens * (fact.cached_tokens or 0) / fact.prompt_tokens
            alike = sum(span.tokens for span in given.spans)
            self.seen.append(Seen(given.tokens, given.cached, alike, reported))
        super().observe(fact, now_s)


class Blind(Router):
    """A router that is not told how prompts begin."""

    def decide(self, request: Request, now_s: float) -> Decision:
        """See `Router`."""
        return super().decide(replace(request, prefix=()), now_s)

    def observe(self, fact: Observation, now_s: float) -> None:
        """See `Router`."""
        if isinstance(fact, Started):
            fact = replace(fact, prefix=None)
        elif isinstance(fact, Held):
            fact = replace(fact, request=replace(fact.request, prefix=()))
        elif isinstance(fact, Ended):
            fact = replace(fact, cached_tokens=0)
        super().observe(fact, now_s)


def played(case: Case, trace: Path, seed: int, router: Callable[[tuple[Endpoint, ...], Policy], Router]) -> World:
    """The case, until all of it is done."""
    endpoints = tuple(_endpoint(case, number) for number in range(case.engines))
    world = World(endpoints, Policy(), router=router(endpoints, Policy()))
    chance = Chance(seed)
    places: dict[str, Place] = {}
    for endpoint in endpoints:
        name = endpoint.name
        if case.cache is None:
            profile = EngineProfile(step=STEP, slots=128, batch_tokens=8192, kv_tokens=case.kv_tokens)
            places[name] = Local(name, Engine(profile), world.loop, world)
        else:
            places[name] = Remote(name, Api(replace(API, cache=case.cache), chance, name), world.loop, world)
    traffic = recorded(
        trace,
        case.format,
        Ask("m", [(KLASS, 1.0)], slos=[(case.slo, 1.0)]),
        chance,
        speed=case.speed,
        rows_max=case.rows_max,
        users=case.users,
    )
    world.run(places, traffic, probe_s=5.0, until_s=1e9)
    return world


def _endpoint(case: Case, number: int) -> Endpoint:
    owned = case.cache is None
    return Endpoint(
        name=f"place-{number}",
        site="there",
        local=owned,
        owned=owned,
        shares_compute=owned,
        models=("m",),
        context_tokens=1_000_000,
        concurrency=64 if owned else 512,
        prior=PRIOR,
    )


def predicted(case: Case, trace: Path, seed: int) -> dict[str, float]:
    """The errors of one case."""
    seen: list[Seen] = []
    played(case, trace, seed, lambda endpoints, policy: Watched(endpoints, policy).watch(seen))
    prompts, reported = sum(s.prompt for s in seen), sum(s.reported for s in seen)
    found: dict[str, float] = {"attempts": len(seen), "reported_share": reported / prompts}
    ways: dict[str, Callable[[Seen], float]] = {
        "expected": lambda s: s.expected,
        "all that began alike": lambda s: s.alike,
        "nothing": lambda _: 0.0,
    }
    for name, way in ways.items():
        errors = [abs(way(s) - s.reported) for s in seen]
        found[f"{name}: median tokens"] = median(errors)
        found[f"{name}: mean tokens"] = fmean(errors)
        found[f"{name}: median share"] = median(e / s.prompt for e, s in zip(errors, seen, strict=True))
        found[f"{name}: mean share"] = fmean(e / s.prompt for e, s in zip(errors, seen, strict=True))
        found[f"{name}: bias"] = sum(way(s) for s in seen) / reported - 1.0 if reported else 0.0
    return _rounded(found)


def affinity(case: Case, trace: Path, seed: int) -> dict[str, dict[str, float]]:
    """The same case with the digests of prompts, and without."""
    return {
        name: _rounded(_served(played(case, trace, seed, router)))
        for name, router in (("with", Router), ("without", Blind))
    }


def _served(world: World) -> dict[str, float]:
    outcomes = world.outcomes
    ttfts_s = [o.ttft_s for o in outcomes if o.ttft_s is not None]
    return {
        "requests": len(outcomes),
        "cached_share": sum(o.cached_tokens for o in outcomes) / sum(o.prompt_tokens for o in outcomes),
        "ttft_s_mean": fmean(ttfts_s),
        "ttft_s_p50": median(ttfts_s),
        "ttft_s_p90": quantiles(ttfts_s, n=10)[-1],
        "kept_share": sum(o.kept for o in outcomes) / len(outcomes),
    }


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in found.items()}


def halves(path: Path, folder: Path) -> dict[str, Path]:
    """The trace in two files, by lines."""
    with gzip.open(path, "rb") as file:
        lines = file.readlines()
    found = {}
    for part, some in (("tune", lines[: len(lines) // 2]), ("test", lines[len(lines) // 2 :])):
        found[part] = folder / f"{part}-{path.name}"
        with gzip.open(found[part], "wb", compresslevel=1) as file:
            file.writelines(some)
    return found


def found(parts: tuple[str, ...]) -> dict[str, object]:
    """All that is recorded, of these halves."""
    data = Path(os.environ["TIDEGATE_DATA"])
    result: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        files = {trace: halves(data / trace, Path(folder)) for trace in (MOONCAKE, AGENTS)}
        for part in parts:
            seed = SEEDS[part]
            result[part] = {
                "predicted": {case.name: predicted(case, files[case.trace][part], seed) for case in CASES},
                "affinity": {case.name: affinity(case, files[case.trace][part], seed) for case in AFFINITY},
            }
    result["whole"] = {WHOLE.name: predicted(WHOLE, data / MOONCAKE, SEEDS["whole"])}
    return result


def main() -> None:
    """Play, compare, record; with `tune` as argument the first halves alone, and nothing is recorded."""
    if sys.argv[1:] == ["tune"]:
        print(msgspec.json.format(msgspec.json.encode(found(("tune",)))).decode())
        return
    record("prefix", found(("tune", "test")))


if __name__ == "__main__":
    main()
