"""Who asks in the worlds in which predictions are judged: requests of public traces, at rates that make a load."""

import gzip
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from pathlib import Path

import msgspec

from bench.predict_settings import (
    CAMPUS,
    COLD_GAP_S,
    DEVELOPMENT_SHARE,
    HERE_SHARE,
    HOLDOUT,
    LOADS,
    OWN,
    REQUESTS,
    SHARES,
    THINK_S_MAX,
    VENDOR,
    Regime,
    Setting,
)
from tidegate.core.model import RequestClass, Slo, replace
from tidegate.sim.arrivals import Diurnal, Gamma
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile, Kind
from tidegate.sim.fitted import BURSTGPT_HOURS, fitted
from tidegate.sim.job import Job, Traffic
from tidegate.sim.lengths import Lengths, LogNormal
from tidegate.sim.recorded import RecordedSessions, TraceFormat, recorded
from tidegate.sim.traffic import Open

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
DATA = Path("requests")
SATURATING = 400
DAY_S = 86_400.0


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


def traffic(
    data: Path, trace: str, regime: Regime, setting: Setting, seed: int, bytes_sigma: float, folder: Path
) -> Traffic:
    """That of one world; `folder` is for files that it needs meanwhile."""
    chance = Chance(seed)
    if trace == "agents":
        return _agents(data, regime, setting, seed, bytes_sigma, folder)
    asked = Ask("m", [one for each in _classes(setting).values() for one in each], bytes_sigma=bytes_sigma)
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


def _agents(data: Path, regime: Regime, setting: Setting, seed: int, bytes_sigma: float, folder: Path) -> Traffic:
    """Coding agents, in three closed loops: as many, and with such pauses, that the rate is what it is to be."""
    chance = Chance(seed)
    lines = _sessions(data / DATA / _FILES["agents"], setting.context_tokens)
    first, last = _part(len(lines), seed)
    lines = lines[first:last]
    chance.at("predict", "agents", "order").shuffle(lines)
    loops: dict[str, Paced] = {}
    own_per_s = 1.0 / COLD_GAP_S
    for index, (name, classes) in enumerate(_classes(setting).items()):
        path = folder / f"{name}.jsonl"
        path.write_bytes(b"".join(lines[index :: len(SHARES)]))

        ask = Ask("m", classes, bytes_sigma=bytes_sigma)

        def loop(
            users: int, path: Path = path, ask: Ask = ask, name: str = name, space: int = index
        ) -> RecordedSessions:
            return RecordedSessions(path, ask, chance, name=name, space=space, users=users, pause_s=THINK_S_MAX)

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
