"""The worlds in which policies are judged: four traces, each in 23 regimes. The same seed is the same world for all.

Arrivals are an open loop: nobody waits for an answer before asking. One engine is ours, and what it does is paid
already; a commercial API takes what is sent there for dollars. The regime `pools` has a second, slower engine of ours.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.policy_settings import (
    BATCH_TTFT_S,
    CACHED_PRICE_SHARE,
    CLASSES,
    DRIFT_PARTS,
    DRIFT_TO,
    LIMIT_SHARE,
    LINK_BAD,
    LINK_HOLDS_S,
    LOADS,
    MEMORY_SEQUENCES,
    OTHERS_LOAD,
    OUTAGE_S,
    OUTPUTS_LONGER,
    OWN,
    OWN_LOAD_S,
    OWN_UNLOAD_S,
    PRICE_STEP,
    PRICE_USD,
    PROBE_S,
    RELAXED_TTFT_FACTOR,
    REQUESTS,
    SECOND,
    STALE_PROBE_S,
    TPOT_S,
    TRACES,
    VENDOR,
    VENDOR_IDLE_S,
    VENDOR_LOAD_S,
    WAY,
    WORTH,
    WORTH_CHEAP,
    Regime,
    Setting,
)
from bench.predict_settings import DEVELOPMENT_SHARE, HOLDOUT
from bench.predict_traffic import DATA, Given, capacity_per_s
from bench.predict_worlds import believed
from tidegate.core.model import Endpoint, Line, Policy, Price, Prior, RequestClass, Slo, replace
from tidegate.core.router import Router
from tidegate.sim import api
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.ask import BYTES_SIGMA, Ask
from tidegate.sim.binder import Binder
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.fitted import fitted
from tidegate.sim.job import Job
from tidegate.sim.kv import BLOCK_TOKENS
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.planned import Planned
from tidegate.sim.recorded import TraceFormat, recorded
from tidegate.sim.world import World

DAY_S = 86_400.0
_Named = TypeVar("_Named", bound=str)
_FILES: dict[str, tuple[str, TraceFormat]] = {
    "azure-code": ("AzureLLMInferenceTrace_code.csv.gz", "azure"),
    "azure-conv": ("AzureLLMInferenceTrace_conv.csv.gz", "azure"),
    "mooncake": ("mooncake_conversation_trace.jsonl.gz", "mooncake"),
}
Decides = Router | Binder | Planned
Makes = Callable[[tuple[Endpoint, ...], Policy], Decides]
"""From endpoints and settings to who decides."""
Arrange = Callable[["Scene", World, Local, Remote], None]
"""Puts what changes into a world's time: our engine, and the vendor."""


class Case(msgspec.Struct, frozen=True):
    """One world: which trace, which regime, which seed."""

    trace: str
    regime: Regime
    seed: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.trace} {self.regime} {self.seed}"


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A world before anything has happened in it: who asks for what and when, and what stands behind which endpoint.

    The way to the vendor is the first of `ways`; where links change, they take turns. Engines are asked for their load
    each `probe_s`.
    """

    case: Case
    setting: Setting
    jobs: tuple[Job, ...]
    others: tuple[Job, ...]
    endpoints: tuple[Endpoint, ...]
    pools: dict[str, EngineProfile]
    sold: ApiProfile
    ways: tuple[LinkProfile, ...]
    probe_s: float

    @property
    def ends_s(self) -> float:
        """When the last request comes."""
        return self.jobs[-1].request.arrived_s

    @property
    def worth(self) -> float:
        """What a kept promise is worth, in what the vendor takes for the same tokens."""
        return _worth(self.case.regime)

    @property
    def policy(self) -> Policy:
        """The settings of whoever decides: nobody is given up or refused for the length of a queue."""
        return Policy(seed=self.case.seed, hold_s_max=600.0, held_max=4096)


def scene(data: Path, case: Case, *, bytes_sigma: float = BYTES_SIGMA, requests: int = REQUESTS) -> Scene:
    """Set it up, for so many `requests`; how many tokens stand in a prompt's bytes scatters by `bytes_sigma`."""
    regime, setting, chance = case.regime, TRACES[case.trace], Chance(case.seed)
    pools = {OWN: setting.own if regime is Regime.PREFIX else replace(setting.own, keeps_prefixes=False)}
    sold = api.PRESETS[setting.vendor]
    if regime is not Regime.PREFIX:
        sold = replace(sold, cache=None)
    ask = _ask(regime, setting, bytes_sigma)
    jobs = _jobs(data, case, ask, chance, requests)
    if regime is Regime.SURPRISE:
        jobs = [_longer(job) if place >= requests // 2 else job for place, job in enumerate(jobs)]
    if regime is Regime.POOLS:
        pools[SECOND] = _slower(setting.own)
    if regime is Regime.MEMORY:
        mean = sum(job.prompt_tokens + job.target for job in jobs) / len(jobs)
        most = max(job.prompt_tokens + job.target for job in jobs)
        pools[OWN] = replace(pools[OWN], kv_tokens=int(max(MEMORY_SEQUENCES * mean, 1.2 * most)))
    per_s = sum(capacity_per_s(profile, jobs) for profile in pools.values())
    duration_s = len(jobs) / (LOADS.get(regime, 1.0) * per_s)
    if regime is Regime.COLD:
        pools[OWN] = replace(pools[OWN], load_s=OWN_LOAD_S, unload_after_s=OWN_UNLOAD_S)
        sold = replace(sold, idle_s=VENDOR_IDLE_S, cold_start_s=VENDOR_LOAD_S)
    elif regime is Regime.LIMITS:
        sold = replace(sold, requests_per_minute=LIMIT_SHARE * len(jobs) / duration_s * 60.0)
    placed = tuple(_spread(jobs, duration_s))
    others: tuple[Job, ...] = ()
    if regime is Regime.STALE:
        more = _jobs(data, case, ask, Chance(case.seed + 1), requests)
        count = int(OTHERS_LOAD * per_s * duration_s)
        others = tuple(_spread([more[i % len(more)] for i in range(count)], duration_s, "others"))
    return Scene(
        case=case,
        setting=setting,
        jobs=placed,
        others=others,
        endpoints=_endpoints(case.regime, setting, pools, sold),
        pools=pools,
        sold=sold,
        ways={Regime.LINK_BAD: (LINK_BAD,), Regime.LINK_CHANGING: (WAY, LINK_BAD)}.get(regime, (WAY,)),
        probe_s=STALE_PROBE_S if regime is Regime.STALE else PROBE_S,
    )


def play(
    scene: Scene,
    makes: Makes,
    arrange: Arrange | None = None,
    journal: Callable[[Line], None] | None = None,
) -> list[Outcome]:
    """Let it happen; what came of each request, in the order of their arrival. Meanwhile happens what belongs to its
    regime, or what somebody else does `arrange`. `journal` is given every line."""
    regime, chance = scene.case.regime, Chance(scene.case.seed)
    router = makes(scene.endpoints, scene.policy)
    world = World(scene.endpoints, scene.policy, router=router, journal=journal)
    link = Link(scene.ways[0], chance, VENDOR)
    places: dict[str, Local | Remote] = {
        name: Local(name, Engine(profile), world.loop, world, tells_memory=regime is Regime.MEMORY)
        for name, profile in scene.pools.items()
    }
    places[VENDOR] = vendor = Remote(VENDOR, Api(scene.sold, chance, VENDOR), world.loop, world, link)
    own = places[OWN]
    assert isinstance(own, Local)
    own.share(iter(scene.others))
    (arrange or _arrange)(scene, world, own, vendor)
    world.run(places, Given(list(scene.jobs)), probe_s=scene.probe_s, until_s=100 * DAY_S)
    places_of = {job.request.id: place for place, job in enumerate(scene.jobs)}
    return sorted(world.outcomes, key=lambda outcome: places_of[outcome.request.id])


def reprice(world: World, policy: Policy, factor: float) -> None:
    """The vendor takes so many times its price from now on."""
    vendor = world.endpoints[VENDOR]
    price = vendor.price
    other = Price(
        usd_per_input_token=factor * price.usd_per_input_token,
        usd_per_output_token=factor * price.usd_per_output_token,
    )
    world.endpoints[VENDOR] = replace(vendor, price=other)
    endpoints, decider = tuple(world.endpoints.values()), world.router
    if isinstance(decider, Router):
        world.router = Router(endpoints, policy, decider.state)
    elif isinstance(decider, Binder):
        decider.reprice(endpoints)
    # A plan knows of prices what it has to.


def own_endpoint(name: str, profile: EngineProfile, context_tokens: int, prior: Prior) -> Endpoint:
    """An engine of ours, as it is believed to be."""
    return Endpoint(
        name=name,
        site="home",
        local=True,
        owned=True,
        models=("m",),
        context_tokens=context_tokens,
        concurrency=profile.slots,
        prior=prior,
        # As is usual where the capacity is ours and tokens are free.
        warms_up=True,
    )


def vendor_endpoint(sold: ApiProfile, context_tokens: int, price: Price) -> Endpoint:
    """A commercial API, as it is believed to be."""
    return Endpoint(
        name=VENDOR,
        site="cloud",
        local=False,
        shares_compute=False,
        models=("m",),
        context_tokens=context_tokens,
        concurrency=1024,
        price=price,
        prior=Prior(
            overhead_s=sold.ttft_s,
            prefill_s_per_token=sold.ttft_s_per_uncached_token,
            decode_s_per_token=sold.tpot_s,
            rtt_s=WAY.rtt_s,
        ),
    )


def chosen(asked: str, known: Iterable[_Named]) -> list[_Named]:
    """Those of what there is whose names stand in a list with commas; all where it is empty."""
    names, there = [name for name in asked.split(",") if name], list(known)
    unknown = sorted(set(names) - {str(one) for one in there})
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(there)}")
    return [one for one in there if not names or str(one) in names]


def tokens_usd(scene: Scene, job: Job) -> float:
    """What the vendor takes for it at first, with nothing of it cached."""
    price = next(one for one in scene.endpoints if not one.owned).price
    return price.usd(job.prompt_tokens, float(job.target), 0.0)


# --- what happens meanwhile ---------------------------------------------------------------------------------------


def _arrange(scene: Scene, world: World, own: Local, vendor: Remote) -> None:
    """Put what changes into the world's time."""
    at, span_s = world.loop.at, scene.ends_s
    match scene.case.regime:
        case Regime.PRICE_STEP:
            at(span_s / 2.0, reprice, world, scene.policy, PRICE_STEP)
        case Regime.LINK_CHANGING:
            ways = [Link(profile, Chance(scene.case.seed), VENDOR) for profile in scene.ways]
            for turn in range(1, int(span_s / LINK_HOLDS_S) + 1):
                at(turn * LINK_HOLDS_S, setattr, vendor, "way", ways[turn % 2])
        case Regime.OUTAGE:
            at(span_s / 3.0, lambda: own.crash(world.loop.now_s + OUTAGE_S))
            at(span_s * 2.0 / 3.0, setattr, vendor.api, "down", True)
            at(span_s * 2.0 / 3.0 + OUTAGE_S, setattr, vendor.api, "down", False)
        case Regime.STEP_DRIFT:
            for part in range(1, DRIFT_PARTS + 1):
                at(span_s * part / (DRIFT_PARTS + 1), own.slow, DRIFT_TO ** (part / DRIFT_PARTS))
        case _:
            pass


# --- who asks -----------------------------------------------------------------------------------------------------


def _worth(regime: Regime) -> float:
    return WORTH_CHEAP if regime in (Regime.CHEAP_080, Regime.CHEAP_125) else WORTH


def _ask(regime: Regime, setting: Setting, bytes_sigma: float) -> Ask:
    worth_usd = 1000.0 * _worth(regime) * PRICE_USD

    def klass(name: str, ttft_s: float) -> RequestClass:
        return RequestClass(name=name, slo=Slo(ttft_s=ttft_s, tpot_s=TPOT_S), worth_usd_per_1k_tokens=worth_usd)

    if regime is not Regime.CLASSES:
        return Ask("m", [(klass("usual", setting.ttft_s), 1.0)], bytes_sigma=bytes_sigma)
    limits = {"tight": setting.ttft_s, "relaxed": RELAXED_TTFT_FACTOR * setting.ttft_s, "batch": BATCH_TTFT_S}
    return Ask("m", [(klass(name, limits[name]), share) for name, share in CLASSES.items()], bytes_sigma=bytes_sigma)


def _jobs(data: Path, case: Case, ask: Ask, chance: Chance, requests: int) -> list[Job]:
    """Requests in a row, from somewhere in the part of the trace that this seed may see."""
    if case.trace == "servegen":
        return list(fitted("servegen-large", ask, chance, rate_per_s=1.0, requests_max=requests).arrivals())
    file, kind = _FILES[case.trace]
    jobs = list(recorded(data / DATA / file, kind, ask, chance, name=case.trace).arrivals())
    split = int(DEVELOPMENT_SHARE * len(jobs))
    first, last = (split, len(jobs)) if case.seed >= HOLDOUT else (0, split)
    begin = first + chance.at("policy", case.trace, "begin").randrange(last - first - requests + 1)
    return jobs[begin : begin + requests]


def _spread(jobs: Sequence[Job], duration_s: float, name: str = "") -> list[Job]:
    """The same in so much time, beginning at once, with the gaps that they had; repeated ones follow on."""
    gaps = [max(0.0, b.request.arrived_s - a.request.arrived_s) for a, b in pairwise(jobs)]
    scale = duration_s / sum(gaps) if sum(gaps) else 0.0
    at_s, placed = 0.0, []
    for place, (job, gap_s) in enumerate(zip(jobs, [0.0, *gaps], strict=True)):
        at_s += scale * gap_s
        request = replace(job.request, arrived_s=at_s, id=f"{name}-{place}" if name else job.request.id)
        placed.append(msgspec.structs.replace(job, request=request))
    return placed


def _longer(job: Job) -> Job:
    return msgspec.structs.replace(job, output_tokens=int(OUTPUTS_LONGER * job.output_tokens) + 1)


# --- endpoints ----------------------------------------------------------------------------------------------------


def _slower(profile: EngineProfile) -> EngineProfile:
    """A second engine: half as fast, half as large, with another shape."""
    step = profile.step
    other = replace(
        step,
        base_s=1.5 * step.base_s,
        per_token_s=2.0 * step.per_token_s,
        per_sequence_s=2.0 * step.per_sequence_s,
        per_context_token_s=2.0 * step.per_context_token_s,
    )
    kv_tokens = profile.kv_tokens // 2 // BLOCK_TOKENS * BLOCK_TOKENS
    return replace(profile, step=other, slots=max(2, profile.slots // 2), kv_tokens=kv_tokens, keeps_prefixes=False)


def _endpoints(
    regime: Regime, setting: Setting, pools: dict[str, EngineProfile], sold: ApiProfile
) -> tuple[Endpoint, ...]:
    off = {Regime.STEP_070: 0.7, Regime.STEP_140: 1.4}.get(regime, 1.0)
    owned = [
        own_endpoint(
            name,
            profile,
            setting.context_tokens,
            _shapeless(profile) if regime is Regime.STEP_SHAPE else believed(profile, off, off),
        )
        for name, profile in pools.items()
    ]
    cached = PRICE_USD * CACHED_PRICE_SHARE if regime is Regime.PREFIX else None
    price = Price(usd_per_input_token=PRICE_USD, usd_per_output_token=PRICE_USD, usd_per_cached_token=cached)
    return (*owned, vendor_endpoint(sold, setting.context_tokens, price))


def _shapeless(profile: EngineProfile) -> Prior:
    """As fast as it is with one request, and nothing said of others or of contexts; twice as slow to begin."""
    prior = believed(profile)
    return replace(prior, batch_slowdown=0.0, overhead_s=2.0 * profile.step.base_s)
