"""The worlds in which predictions are judged: six traces, each in six regimes, with three endpoints.

`own` is an engine here, `campus` another one of ours behind a wide-area network, `vendor` a commercial API. The real
router decides. Most requests may go anywhere; some may go to the campus or to the vendor alone, so that each endpoint
gets enough of them in every regime.

What is drawn by chance (which part of a trace, how far the configured priors are off) follows from the seed. Seeds from
1,001 on are held out: they read the last 40 % of what there is of each trace, the others the first 60 %.
"""

import gzip
import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from heapq import merge
from itertools import islice
from pathlib import Path
from random import Random

import msgspec

from bench.predict_tap import Row, Tap
from tidegate.core.model import Endpoint, Policy, Price, Prior, RequestClass, Slo, replace
from tidegate.core.router import Router
from tidegate.core.step import StepTime
from tidegate.sim import api, engines, network
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.arrivals import Diurnal, Gamma
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile, Kind
from tidegate.sim.fitted import BURSTGPT_HOURS, fitted
from tidegate.sim.job import Job, Traffic
from tidegate.sim.lengths import Lengths, LogNormal
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.place import Local, Remote
from tidegate.sim.recorded import RecordedSessions, TraceFormat, recorded
from tidegate.sim.traffic import Open
from tidegate.sim.world import World

HOLDOUT = 1001
DEVELOPMENT_SHARE = 0.6
REQUESTS = 3000
# A regime changes when the endpoint that it is about has had so many.
CHANGE_AFTER = 400
OWN, CAMPUS, VENDOR = "own", "campus", "vendor"
SHARES = {OWN: 0.46, CAMPUS: 0.27, VENDOR: 0.27}
# Of what is meant for our own engine, this share may go nowhere else.
HERE_SHARE = 0.4
QUANTILE = 0.95
PRIOR_FACTOR_MIN, PRIOR_FACTOR_MAX = 0.6, 1.6
SLOWER = 3.0
LINK_WORSE = 10.0
# Rare requests: of each endpoint's some are further apart than it keeps its model for.
COLD_GAP_S, UNLOAD_AFTER_S, LOAD_S, API_COLD_S = 120.0, 300.0, 20.0, 8.0
# People's and agents' pauses have no end in a trace; here an agent is away for a minute at most.
THINK_S_MAX = 60.0
SATURATING = 400
DAY_S = 86_400.0
DATA = Path("requests")


class Regime(StrEnum):
    """What happens in a world."""

    LIGHT = "light"
    BUSY = "busy"
    OVERLOADED = "overloaded"
    SLOW_ENGINE = "slow-engine"
    SLOW_LINK = "slow-link"
    COLD = "cold"


LOADS = {
    Regime.LIGHT: 0.3,
    Regime.BUSY: 0.8,
    Regime.OVERLOADED: 1.2,
    Regime.SLOW_ENGINE: 0.6,
    Regime.SLOW_LINK: 0.6,
}

# A model of 8 billion weights of 4 bits in llama.cpp on a card of 24 GB, roughly.
_WORKSTATION = EngineProfile(
    step=StepTime(base_s=0.014, per_token_s=2.2e-4, per_sequence_s=4e-4, per_context_token_s=2.5e-7, per_pair_s=2e-9),
    slots=8,
    batch_tokens=512,
    kv_tokens=131_072,
)
# One of 70 billion on four fast accelerators, as in bench/simulate.py.
_FOUR_GPUS = EngineProfile(
    step=StepTime(base_s=0.012, per_token_s=1.5e-5, per_sequence_s=2e-5, per_context_token_s=1e-8, per_pair_s=3e-10),
    slots=48,
    batch_tokens=8192,
    kv_tokens=2_000_000,
)
_WAN = LinkProfile(
    rtt_s=0.03,
    upload_bytes_per_s=2.5e6,
    download_bytes_per_s=12.5e6,
    jitter=0.2,
    rate_regimes=network.PRESETS["continent"].rate_regimes,
    rtt_regimes=network.PRESETS["continent"].rtt_regimes,
)
_METRO = network.PRESETS["metro"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What serves a trace's requests. The campus has an engine of the same kind with other proportions."""

    own: EngineProfile
    vendor: str
    context_tokens: int
    ttft_s: float

    @property
    def campus(self) -> EngineProfile:
        """Slower to begin an iteration, faster for each token of a prompt, dearer contexts."""
        step = self.own.step
        other = replace(
            step,
            base_s=1.4 * step.base_s,
            per_token_s=0.8 * step.per_token_s,
            per_context_token_s=1.5 * step.per_context_token_s,
        )
        return replace(self.own, step=other)


SETTINGS = {
    "azure-code": Setting(own=_WORKSTATION, vendor="llmperf-2023-fireworks", context_tokens=16_384, ttft_s=10.0),
    "azure-conv": Setting(
        own=replace(engines.PRESETS["gpu-8b"], slots=32),
        vendor="llmperf-2023-together",
        context_tokens=32_768,
        ttft_s=5.0,
    ),
    "mooncake": Setting(own=_FOUR_GPUS, vendor="commercial-long-context", context_tokens=160_000, ttft_s=20.0),
    "agents": Setting(own=_FOUR_GPUS, vendor="commercial-long-context", context_tokens=200_000, ttft_s=20.0),
    "servegen": Setting(
        own=replace(engines.PRESETS["two-gpus-32b"], slots=48),
        vendor="llmperf-2023-groq",
        context_tokens=65_536,
        ttft_s=10.0,
    ),
    "burstgpt": Setting(
        own=engines.PRESETS["laptop-8b"], vendor="llmperf-2023-perplexity", context_tokens=8_192, ttft_s=20.0
    ),
}
_FILES = {
    "azure-code": "AzureLLMInferenceTrace_code.csv.gz",
    "azure-conv": "AzureLLMInferenceTrace_conv.csv.gz",
    "mooncake": "mooncake_conversation_trace.jsonl.gz",
    "agents": "kvct_agentic_traces_rle.jsonl.gz",
}
# BurstGPT's rows are not to be had, only its hours. Its lengths are an assumption of the order of its paper's means.
_BURSTGPT_LENGTHS = Lengths(
    prompt_tokens=LogNormal(median=350.0, sigma=0.9, most=4000.0),
    output_tokens=LogNormal(median=120.0, sigma=0.9, most=1000.0),
)


class Played(msgspec.Struct, kw_only=True):
    """What came of a world. `changed_s` is when its regime changed, None where it does not."""

    trace: str
    regime: str
    seed: int
    rows: dict[str, list[Row]]
    requests: int
    refused: int
    duration_s: float
    busy_share: dict[str, float]
    prior_factors: dict[str, float]
    changed_s: float | None


def play(data: Path, trace: str, regime: Regime, seed: int) -> Played:
    """Let it happen."""
    setting, chance = SETTINGS[trace], Chance(seed)
    cold = regime is Regime.COLD
    profiles = {OWN: setting.own, CAMPUS: setting.campus}
    if cold:
        profiles = {name: replace(one, load_s=LOAD_S, unload_after_s=UNLOAD_AFTER_S) for name, one in profiles.items()}
    sold = api.PRESETS[setting.vendor]
    if cold:
        sold = replace(sold, idle_s=UNLOAD_AFTER_S, cold_start_s=API_COLD_S)
    off = _factors(chance.at("predict", trace, regime, "priors"))
    endpoints = _endpoints(setting, profiles, sold, off)
    policy = Policy(seed=seed, quantile=QUANTILE, held_max=32, hold_s_max=60.0)
    tap = Tap(Router(endpoints, policy))
    world = World(endpoints, policy, router=tap)
    links = {
        name: Link(profile, chance, name) for name, profile in ((CAMPUS, _WAN), (VENDOR, network.PRESETS["metro"]))
    }
    places: dict[str, Local | Remote] = {
        OWN: Local(OWN, Engine(profiles[OWN]), world.loop, world),
        CAMPUS: Local(CAMPUS, Engine(profiles[CAMPUS]), world.loop, world, links[CAMPUS]),
        VENDOR: Remote(VENDOR, Api(sold, chance, VENDOR), world.loop, world, links[VENDOR]),
    }
    changes = _Change(world, places, chance)
    if regime is Regime.SLOW_ENGINE:
        tap.after(OWN, CHANGE_AFTER, changes.engine)
    elif regime is Regime.SLOW_LINK:
        tap.after(CAMPUS, CHANGE_AFTER, changes.link)
    traffic = _traffic(data, trace, regime, setting, seed)
    world.run(places, traffic, probe_s=30.0 if cold else 5.0, until_s=100 * DAY_S)
    ends_s = max(outcome.ended_s for outcome in world.outcomes)
    return Played(
        trace=trace,
        regime=regime,
        seed=seed,
        rows=tap.rows,
        requests=len(world.outcomes),
        refused=sum(outcome.outcome == "refused" for outcome in world.outcomes),
        duration_s=ends_s,
        busy_share={name: place.engine.busy_s / ends_s for name, place in places.items() if isinstance(place, Local)},
        prior_factors=off,
        changed_s=changes.at_s,
    )


class _Change:
    """The regime changes, once, as soon as what happens now has happened."""

    def __init__(self, world: World, places: dict[str, Local | Remote], chance: Chance) -> None:
        self.at_s: float | None = None
        self._world, self._places, self._chance = world, places, chance

    def engine(self) -> None:
        """Our own engine becomes slower."""
        own = self._places[OWN]
        assert isinstance(own, Local)
        self._soon(lambda: own.slow(SLOWER))

    def link(self) -> None:
        """The way to the campus becomes worse."""
        worse = replace(
            _WAN,
            rtt_s=LINK_WORSE * _WAN.rtt_s,
            upload_bytes_per_s=_WAN.upload_bytes_per_s / LINK_WORSE,
            download_bytes_per_s=_WAN.download_bytes_per_s / LINK_WORSE,
        )
        campus = self._places[CAMPUS]
        assert isinstance(campus, Local)
        self._soon(lambda: setattr(campus, "way", Link(worse, self._chance, CAMPUS)))

    def _soon(self, change: Callable[[], None]) -> None:
        self.at_s = self._world.loop.now_s
        self._world.loop.at(self.at_s, change)


# --- endpoints ----------------------------------------------------------------------------------------------------


def _factors(draw: Random) -> dict[str, float]:
    """How many times as long as it is each time is believed to be at first."""
    low, high = PRIOR_FACTOR_MIN, PRIOR_FACTOR_MAX
    names = [f"{name}.{part}" for name in (OWN, CAMPUS, VENDOR) for part in ("prefill", "decode", "network")]
    return {name: low * (high / low) ** draw.random() for name in names}


def _endpoints(
    setting: Setting, profiles: dict[str, EngineProfile], sold: ApiProfile, off: dict[str, float]
) -> tuple[Endpoint, ...]:
    ours = [
        Endpoint(
            name=name,
            site="home" if name == OWN else CAMPUS,
            local=name == OWN,
            owned=True,
            models=("m",),
            context_tokens=setting.context_tokens,
            concurrency=profile.slots,
            usd_per_s=0.0001 if name == OWN else 0.0002,
            prior=_prior(profile, None if name == OWN else _WAN, off, name),
        )
        for name, profile in profiles.items()
    ]
    vendor = Endpoint(
        name=VENDOR,
        site=VENDOR,
        local=False,
        shares_compute=False,
        models=("m",),
        context_tokens=setting.context_tokens,
        concurrency=256,
        price=Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6),
        prior=Prior(
            overhead_s=sold.ttft_s * off["vendor.prefill"],
            prefill_s_per_token=sold.ttft_s_per_uncached_token * off["vendor.prefill"],
            decode_s_per_token=sold.tpot_s * off["vendor.decode"],
            rtt_s=_METRO.rtt_s * off["vendor.network"],
        ),
    )
    return (*ours, vendor)


def _prior(profile: EngineProfile, link: LinkProfile | None, off: dict[str, float], name: str) -> Prior:
    """What a configuration would say: prompt and output tokens a second, and how others slow them, each a bit off."""
    step, slots = profile.step, profile.slots
    alone_s, full_s = step.takes_s(0, 0.0, 1, 0), step.takes_s(0, 0.0, slots, 0)
    chunk = profile.batch_tokens
    prior = Prior(
        prefill_s_per_token=step.takes_s(chunk, 0.0, 0, 0) / chunk * off[f"{name}.prefill"],
        decode_s_per_token=alone_s * off[f"{name}.decode"],
        batch_slowdown=(full_s / alone_s - 1.0) / (slots - 1),
    )
    if link is None:
        return prior
    factor = off[f"{name}.network"]
    return replace(prior, rtt_s=link.rtt_s * factor, upload_bytes_per_s=link.upload_bytes_per_s / factor)


# --- traffic ------------------------------------------------------------------------------------------------------


def _klass(name: str, setting: Setting, residency: tuple[str, ...]) -> RequestClass:
    return RequestClass(
        name=name,
        slo=Slo(ttft_s=setting.ttft_s, tpot_s=0.2),
        worth_usd=0.02,
        late_usd_per_s=0.001,
        residency=residency,
    )


def _classes(setting: Setting) -> dict[str, list[tuple[RequestClass, float]]]:
    """By the endpoint for which they are meant, with their weights."""
    own = SHARES[OWN]
    return {
        OWN: [
            (_klass("interactive", setting, ("anywhere",)), own * (1.0 - HERE_SHARE)),
            (_klass("private", setting, ("local",)), own * HERE_SHARE),
        ],
        CAMPUS: [(_klass("campus", setting, (CAMPUS,)), SHARES[CAMPUS])],
        VENDOR: [(_klass("vendor", setting, (VENDOR,)), SHARES[VENDOR])],
    }


def _traffic(data: Path, trace: str, regime: Regime, setting: Setting, seed: int) -> Traffic:
    chance = Chance(seed)
    if trace == "agents":
        return _agents(data, regime, setting, seed)
    asked = Ask("m", [one for each in _classes(setting).values() for one in each])
    jobs = _jobs(data, trace, asked, chance, seed)
    if regime is Regime.COLD:
        duration_s = len(jobs) * SHARES[OWN] * COLD_GAP_S
    else:
        duration_s = len(jobs) * SHARES[OWN] / (LOADS[regime] * capacity_per_s(setting.own, jobs))
    return Given([_at(job, share * duration_s) for share, job in zip(_shares(jobs), jobs, strict=True)])


def _jobs(data: Path, trace: str, ask: Ask, chance: Chance, seed: int) -> list[Job]:
    """The requests of a world; of a recorded trace, some in a row."""
    match trace:
        case "azure-code" | "azure-conv" | "mooncake":
            kind: TraceFormat = "mooncake" if trace == "mooncake" else "azure"
            jobs = list(recorded(data / DATA / _FILES[trace], kind, ask, chance, name=trace).arrivals())
            first, last = _part(len(jobs), seed)
            count = min(REQUESTS, last - first)
            begin = first + chance.at("predict", trace, "begin").randrange(last - first - count + 1)
            return jobs[begin : begin + count]
        case "servegen":
            return list(fitted("servegen-large", ask, chance, rate_per_s=1.0, requests_max=REQUESTS).arrivals())
        case _:
            day = Diurnal(
                process=Gamma(rate_per_s=REQUESTS / DAY_S, cv=1.5), factors=BURSTGPT_HOURS, starts_h=seed % 24
            )
            open_loop = Open(
                process=day, lengths=_BURSTGPT_LENGTHS, ask=ask, chance=chance, name=trace, requests_max=REQUESTS
            )
            return list(open_loop.arrivals())


def _part(count: int, seed: int) -> tuple[int, int]:
    """The part of so many rows that this seed may see."""
    split = int(DEVELOPMENT_SHARE * count)
    return (split, count) if seed >= HOLDOUT else (0, split)


def _shares(jobs: list[Job]) -> list[float]:
    """When they arrive, as shares of the time from the first to the last."""
    first_s, last_s = jobs[0].request.arrived_s, jobs[-1].request.arrived_s
    return [(job.request.arrived_s - first_s) / (last_s - first_s) for job in jobs]


def _at(job: Job, at_s: float) -> Job:
    return msgspec.structs.replace(job, request=replace(job.request, arrived_s=at_s))


class Given:
    """Requests at their times, and nobody waits for an answer."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs

    def arrivals(self) -> Iterator[Job]:
        """In their order."""
        return iter(self._jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:  # noqa: ARG002 # nobody waits
        """Nothing."""
        return None


class Paced:
    """A closed loop with other pauses: each is cut at `THINK_S_MAX` and then multiplied. It ends with its number."""

    def __init__(self, traffic: Traffic, stretch: float, requests_max: int) -> None:
        self._traffic, self._stretch, self._left = traffic, stretch, requests_max

    def arrivals(self) -> Iterator[Job]:
        """The first turns."""
        for job in self._traffic.arrivals():
            self._left -= 1
            yield job

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """The next turn, sooner or later."""
        following = self._traffic.follows(job, ended_s, served=served)
        if following is None or self._left <= 0:
            return None
        self._left -= 1
        pause_s = min(following.request.arrived_s - ended_s, THINK_S_MAX)
        return _at(following, ended_s + self._stretch * pause_s)


class Mixed:
    """Several traffics, by the names that their requests' ids begin with."""

    def __init__(self, traffics: dict[str, Paced]) -> None:
        self._traffics = traffics

    def arrivals(self) -> Iterator[Job]:
        """Of all, in order of arrival."""
        return merge(*(one.arrivals() for one in self._traffics.values()), key=lambda job: job.request.arrived_s)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """What the same client asks next."""
        return self._traffics[job.request.id.partition("-")[0]].follows(job, ended_s, served=served)


class _Line(msgspec.Struct):
    requests: list[dict[str, object]]


def _agents(data: Path, regime: Regime, setting: Setting, seed: int) -> Traffic:
    """Coding agents, in three closed loops: as many, and with such pauses, that the rate is what it is to be."""
    chance = Chance(seed)
    lines = _sessions(data / DATA / _FILES["agents"], setting.context_tokens)
    first, last = _part(len(lines), seed)
    lines = lines[first:last]
    chance.at("predict", "agents", "order").shuffle(lines)
    loops: dict[str, Paced] = {}
    own_per_s = 1.0 / COLD_GAP_S
    for index, (name, classes) in enumerate(_classes(setting).items()):
        path = _file(lines[index :: len(SHARES)])

        def loop(users: int, path: Path = path, name: str = name, index: int = index) -> RecordedSessions:
            ask = Ask("m", _classes(setting)[name])
            return RecordedSessions(path, ask, chance, name=name, space=index, users=users, pause_s=THINK_S_MAX)

        del classes
        sample = _sample(loop(8), SATURATING)
        if name == OWN and regime is not Regime.COLD:
            own_per_s = LOADS[regime] * capacity_per_s(setting.own, [job for job, _ in sample])
        rate_per_s = own_per_s * SHARES[name] / SHARES[OWN]
        pause_s = sum(min(pause, THINK_S_MAX) for _, pause in sample) / len(sample)
        # What an answer takes beside others, very roughly: a step of the batch for each token.
        answer_s = 2.0 * setting.own.step.base_s * sum(job.target for job, _ in sample) / len(sample) + 1.0
        users = max(1, round(rate_per_s * (pause_s + answer_s)))
        stretch = max(0.02, (users / rate_per_s - answer_s) / pause_s)
        loops[name] = Paced(loop(users), stretch, int(SHARES[name] * REQUESTS))
    return Mixed(loops)


def _sessions(path: Path, context_tokens: int) -> list[bytes]:
    """The lines of sessions that fit the window."""
    decode = msgspec.json.Decoder(_Line).decode
    with gzip.open(path, "rb") as file:
        return [
            line
            for line in file
            if max((int(str(one.get("in") or 0)) for one in decode(line).requests), default=0) < 0.9 * context_tokens
        ]


def _file(lines: list[bytes]) -> Path:
    """A trace of its own; the system's folder for such files is cleared by others."""
    with tempfile.NamedTemporaryFile(prefix="tidegate-predict-", suffix=".jsonl", delete=False) as file:
        file.writelines(lines)
    return Path(file.name)


def _sample(traffic: RecordedSessions, count: int) -> list[tuple[Job, float]]:
    """Turns as they would come if answers took no time, all users in turn, with the pauses before them."""
    found: list[tuple[Job, float]] = []
    current = [(job, 0.0) for job in traffic.arrivals()]
    while current and len(found) < count:
        found += current
        following = [(traffic.follows(job, 0.0, served=True), job) for job, _ in current]
        current = [(job, job.request.arrived_s) for job, _ in following if job is not None]
    return list(islice(found, count))


def capacity_per_s(profile: EngineProfile, jobs: list[Job]) -> float:
    """Requests that the engine finishes each second while it has more than it can take."""
    engine, done = Engine(profile), 0
    for job in jobs[:SATURATING]:
        engine.submit(job, 0.0)
    at_s = 0.0
    while engine.queued:
        at_s = engine.next_s
        done += sum(told.kind is Kind.DONE for told in engine.advance(at_s))
    return done / at_s
