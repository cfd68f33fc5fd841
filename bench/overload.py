"""What is served, and what is said, when three times as much comes as an engine can do, and clients try again.

    python -m bench.overload [--holdout]

An engine of ours and nobody else; chats, by Poisson's law: two minutes at four fifths of what it can do, ten at three
times that, and three at four fifths again. Whoever is refused tries again as OpenAI's SDK does, twice at most: after
`retry-after` where that is within a minute, after half a second and a second, give or take, where nothing was said, and
not at all where it was told not to (`x-should-retry`), as the gateway tells it beyond a minute. One of twenty is more
patient, and comes back when it was told to, however long that is. What it can do is what it does where so many wait
that no place is ever free (`capacity`), in requests whose promise is not looked at.

Told are promises kept by the second of the ten minutes, as a share of that; how soon refusals come (the moment of a
decision is no time in a simulated world: what is counted is waiting first and being refused then); how many of those
who came back when they were told to were served; and after how many seconds from the end of the overload the first
window of ten begins in which all that comes is served in time. Written down before anything was tuned for it, but for
the engine: a laptop's was first, on which an answer takes twenty seconds, so that no ten of them tell anything; and for
the patient, who came when SDKs began to be told that a minute is not enough.
"""

import argparse
from collections.abc import Iterator, Sequence
from math import floor
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from bench.policy_worlds import own_endpoint
from bench.predict_worlds import believed
from bench.record import record
from tidegate.core.model import Decision, Endpoint, Line, Policy, RequestClass, Slo, replace
from tidegate.gateway.reply import SDK_RETRY_AFTER_S_MAX
from tidegate.sim import engines
from tidegate.sim.arrivals import Poisson
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.lengths import Lengths, LogNormal
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local
from tidegate.sim.traffic import Open
from tidegate.sim.world import World

SEEDS, HOLDOUT_SEEDS = (1, 2, 3), (1000, 1001, 1002)
ENGINE = engines.PRESETS["gpu-8b"]
CONTEXT_TOKENS = 16_384
LENGTHS = Lengths(
    prompt_tokens=LogNormal(median=600.0, sigma=0.6, most=4000.0),
    output_tokens=LogNormal(median=120.0, sigma=0.6, most=600.0),
)
KLASS = RequestClass(name="chat", slo=Slo(ttft_s=10.0), worth_usd=0.01)
PHASES_S, LOADS = (120.0, 600.0, 180.0), (0.8, 3.0, 0.8)
RETRIES, BACKOFF_S, PATIENT = 2, 0.5, 0.05
SOON_S, WINDOW_S = 0.05, 10.0


class Clients:
    """Open traffic whose clients try again."""

    def __init__(self, jobs: list[Job], chance: Chance) -> None:
        self._jobs, self._chance = jobs, chance
        self._tries: dict[str, int] = {}
        # After how long who was refused was told to come back, None where nothing was said.
        self.back_s: dict[str, float | None] = {}
        # Those who came back when they were told to.
        self.told: set[str] = set()

    def read(self, line: Line) -> None:
        """A line of the journal."""
        fact = line.fact
        if isinstance(fact, Decision) and not fact.plan:
            self.back_s[fact.request_id] = fact.retry_after_s

    def arrivals(self) -> Iterator[Job]:
        """See `Traffic`."""
        return iter(self._jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """See `Traffic`."""
        tries = self._tries.get(job.request.id, 0)
        if served or tries == RETRIES:
            return None
        after_s = self.back_s.get(job.request.id)
        name, is_told = f"{job.request.id}+", after_s is not None
        draw = self._chance.at("client", job.request.id)
        if after_s is None:
            after_s = BACKOFF_S * 2.0**tries * (1.0 - 0.25 * draw.random())
        elif after_s > SDK_RETRY_AFTER_S_MAX and draw.random() >= PATIENT:
            return None
        self._tries[name] = tries + 1
        if is_told:
            self.told.add(name)
        again = replace(job.request, id=name, arrived_s=ended_s + after_s, retry=tries + 1)
        return msgspec.structs.replace(job, request=again)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One seed: what it can do in requests a second; see above for the rest."""

    seed: int
    capacity_per_s: float
    goodput: float
    refusals: int
    refused_soon: float
    retry_after_s_median: float
    served_when_told: float
    recovered_s: float | None


def endpoint() -> Endpoint:
    """The engine, as it is believed to be."""
    return own_endpoint("own", ENGINE, CONTEXT_TOKENS, believed(ENGINE))


def jobs(chance: Chance, rates_per_s: tuple[float, ...], phases_s: tuple[float, ...]) -> list[Job]:
    """What comes, phase by phase."""
    found: list[Job] = []
    begins_s = 0.0
    ask = Ask("m", ((KLASS, 1.0),), output_tokens_max=(600,))
    for number, (rate_per_s, seconds) in enumerate(zip(rates_per_s, phases_s, strict=True)):
        traffic = Open(
            process=Poisson(rate_per_s=rate_per_s),
            lengths=LENGTHS,
            ask=ask,
            chance=chance,
            name=f"p{number}",
            begins_s=begins_s,
            space=number,
        )
        for job in traffic.arrivals():
            if job.request.arrived_s >= begins_s + seconds:
                break
            found.append(job)
        begins_s += seconds
    return found


def play(came: list[Job], seed: int, policy: Policy) -> tuple[list[Outcome], Clients]:
    """One world."""
    clients = Clients(came, Chance(seed))
    world = World((endpoint(),), policy, request_timeout_s=3600.0, journal=clients.read)
    place = Local("own", Engine(ENGINE), world.loop, world, tells_memory=True)
    world.run({"own": place}, clients, probe_s=5.0, until_s=1e6)
    return world.outcomes, clients


def capacity_per_s(seed: int) -> float:
    """What it does where work never runs out, over the middle of that."""
    patient = Policy(held_max=10_000, hold_s_max=3600.0)
    late = RequestClass(name="batch", slo=Slo(e2e_s=3600.0), worth_usd=0.01)
    came = [
        msgspec.structs.replace(job, request=replace(job.request, arrived_s=0.0, klass=late.name, slo=late.slo))
        for job in jobs(Chance(seed), (10.0,), (60.0,))
    ]
    ended_s = sorted(one.ended_s for one in play(came, seed, patient)[0] if one.outcome == "ok")
    low, high = len(ended_s) // 5, 4 * len(ended_s) // 5
    return (high - low) / (ended_s[high] - ended_s[low])


def found(seed: int) -> Found:
    """One seed."""
    capacity = capacity_per_s(seed)
    came = jobs(Chance(seed), tuple(load * capacity for load in LOADS), PHASES_S)
    outcomes, clients = play(came, seed, Policy())
    begins_s, ends_s = PHASES_S[0], PHASES_S[0] + PHASES_S[1]
    kept = [one for one in outcomes if one.kept and begins_s <= one.ended_s < ends_s]
    refused = [one for one in outcomes if one.outcome == "refused"]
    told = [one for one in outcomes if one.request.id in clients.told]
    return Found(
        seed=seed,
        capacity_per_s=capacity,
        goodput=len(kept) / PHASES_S[1] / capacity,
        refusals=len(refused),
        refused_soon=sum(one.e2e_s <= SOON_S for one in refused) / max(1, len(refused)),
        retry_after_s_median=median(after_s for after_s in clients.back_s.values() if after_s is not None),
        served_when_told=sum(one.outcome == "ok" for one in told) / max(1, len(told)),
        recovered_s=recovered_s(outcomes, ends_s),
    )


def recovered_s(outcomes: Sequence[Outcome], ends_s: float) -> float | None:
    """So long after the overload's end the first window begins in which all that comes is served in time; None where
    there is none in which anything comes."""
    came = [(one.request.arrived_s - ends_s, one.kept) for one in outcomes if one.request.arrived_s >= ends_s]
    for after_s in range(floor(max((at_s for at_s, _ in came), default=-1.0)) + 1):
        window = [kept for at_s, kept in came if after_s <= at_s < after_s + WINDOW_S]
        if window and all(window):
            return float(after_s)
    return None


def main() -> None:
    """All seeds, shown and written down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holdout", action="store_true", help="the seeds that nothing was tuned on")
    options = parser.parse_args()
    results = [found(seed) for seed in (HOLDOUT_SEEDS if options.holdout else SEEDS)]
    table = Table(
        "seed", "can do", "goodput", "refusals", "within 50 ms", "told to come after", "then served", "recovered"
    )
    for one in results:
        table.add_row(
            str(one.seed), f"{one.capacity_per_s:.2f}/s", f"{one.goodput:.1%}", str(one.refusals),
            f"{one.refused_soon:.1%}", f"{one.retry_after_s_median:.1f} s", f"{one.served_when_told:.1%}",
            "never" if one.recovered_s is None else f"{one.recovered_s:.0f} s",
        )  # fmt: skip
    Console().print(table)
    record(
        "overload_holdout" if options.holdout else "overload", {"worlds": [msgspec.structs.asdict(r) for r in results]}
    )


if __name__ == "__main__":
    main()
