"""What hedging is worth, on measured latencies of APIs: the tail of the time to first token, and what that costs.

    TIDEGATE_DATA=FOLDER python -m bench.hedging [--holdout]

A vendor has two addresses, at one price. How long each takes to a first token and per token is drawn anew for each
attempt from what 2,245 requests of seven providers took in December 2023 (LLMPerf leaderboard, Apache-2.0): from all
of them, from those of Llama 2 70B, and from each provider's. *Independent* draws are an assumption, which the data
cannot check: where both are slow for one reason, hedging gains less. Lepton's are left out: half of its first tokens
are told to have taken no time.

The promise is what 95 % of single attempts keep. Prompts and answers are as they were measured, 550 and 150 tokens; the
first requests teach and do not count. Each share stands beside what was measured, where nobody gives up, and beside no
share: what shows nothing for ten seconds is tried elsewhere there, too. Written down before hedging was tuned.
"""

import argparse
import csv
import gzip
import os
from math import ceil
from pathlib import Path
from statistics import mean

import msgspec
from rich.console import Console
from rich.table import Table

from bench.record import record
from tidegate.core.model import Endpoint, Policy, Price, Prior, RequestClass, Slo
from tidegate.sim.api import Answer, Api, ApiProfile
from tidegate.sim.arrivals import Poisson
from tidegate.sim.ask import Ask
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.lengths import Constant, Lengths
from tidegate.sim.place import Remote
from tidegate.sim.traffic import Open
from tidegate.sim.world import World

SHARES = (0.0, 0.02, 0.025, 0.05)
"""Of what is paid, what may be lost. What is paid more is a third less, for without hedges, too, attempts are paid for
that nobody waits for any more; so 2.5 % is asked for as well, which comes to less than 2 % more."""
SEEDS, HOLDOUT_SEEDS = (1, 2, 3), (1000, 1001, 1002)
REQUESTS, TAUGHT = 5_200, 200
RATE_PER_S = 0.5
ADDRESSES = ("east", "west")
PROMISED = 0.95
WORTH_USD = 0.01
LENGTHS = Lengths(prompt_tokens=Constant(550.0), output_tokens=Constant(150.0))
PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)
UNMEASURED = "lepton"


class Measured(msgspec.Struct, frozen=True):
    """The time to first token of one request, and per token after it."""

    ttft_s: float
    tpot_s: float


class Redrawn(Api):
    """An API that takes as long as one of those that were measured, drawn for each attempt."""

    def __init__(self, rows: list[Measured], chance: Chance, name: str) -> None:
        super().__init__(ApiProfile(ttft_s=0.0, tpot_s=0.0), chance, name)
        self._rows, self._draw, self._at = rows, chance, name

    def answer(self, job: Job, now_s: float) -> Answer:  # noqa: ARG002 - these know no time of day
        """See `Api`."""
        one = self._draw.at("row", self._at, job.request.id).choice(self._rows)
        return Answer(status=200, ttft_s=one.ttft_s, tpot_s=one.tpot_s)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One case with one share, of all seeds: the share of requests with a second attempt, quantiles of the time to
    first token in seconds, the share of promises kept, and dollars of a request."""

    share: float
    hedged: float
    p50_s: float
    p99_s: float
    kept: float
    usd: float


def measured(data: Path) -> dict[str, list[Measured]]:
    """What is drawn from, by case."""
    cases: dict[str, list[Measured]] = {"all": [], "llama2-70b": []}
    with gzip.open(data / "perf" / "llmperf_api_2023_requests.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["error_code"] or row["provider"] == UNMEASURED:
                continue
            one = Measured(float(row["ttft_s"]), float(row["inter_token_s"]))
            for case in {"all", row["model"], row["provider"]} & {"all", "llama2-70b", row["provider"]}:
                cases.setdefault(case, []).append(one)
    return cases


def quantile(values: list[float], share: float) -> float:
    """The least value that is not below this share of them."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def endpoint(name: str) -> Endpoint:
    """One address of the vendor's, of which little is believed at first."""
    return Endpoint(
        name=name,
        site="cloud",
        local=False,
        shares_compute=False,
        models=("m",),
        context_tokens=8192,
        concurrency=1024,
        price=PRICE,
        prior=Prior(overhead_s=0.5, decode_s_per_token=0.03),
    )


def play(rows: list[Measured], share: float, seed: int) -> list[tuple[float, bool, bool, float]]:
    """Of each request: its time to first token, whether it was hedged, whether its promise was kept, its dollars."""
    chance = Chance(seed)
    promise = Slo(ttft_s=quantile([one.ttft_s for one in rows], PROMISED))
    klass = RequestClass(name="chat", slo=promise, worth_usd=WORTH_USD)
    world = World([endpoint(name) for name in ADDRESSES], Policy(hedge_share=share))
    traffic = Open(
        process=Poisson(rate_per_s=RATE_PER_S),
        lengths=LENGTHS,
        ask=Ask("m", ((klass, 1.0),), output_tokens_max=(150,)),
        chance=chance,
        requests_max=REQUESTS,
    )
    places = {name: Remote(name, Redrawn(rows, chance, name), world.loop, world) for name in ADDRESSES}
    world.run(places, traffic, probe_s=60.0, until_s=1e7)
    outcomes = sorted(world.outcomes, key=lambda one: one.request.arrived_s)[TAUGHT:]
    return [(one.ttft_s or one.e2e_s, one.attempts > 1, one.kept, one.usd) for one in outcomes]


def found(rows: list[Measured], share: float, seeds: tuple[int, ...]) -> Found:
    """All seeds together."""
    of = [one for seed in seeds for one in play(rows, share, seed)]
    times = [ttft_s for ttft_s, _, _, _ in of]
    return Found(
        share=share,
        hedged=mean(hedged for _, hedged, _, _ in of),
        p50_s=quantile(times, 0.5),
        p99_s=quantile(times, 0.99),
        kept=mean(kept for _, _, kept, _ in of),
        usd=mean(usd for _, _, _, usd in of),
    )


def main() -> None:
    """Play all cases, show them, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holdout", action="store_true", help="the seeds that nothing was tuned on")
    parser.add_argument("--only", default="", help="these cases, and nothing is written down")
    options = parser.parse_args()
    cases = measured(Path(os.environ["TIDEGATE_DATA"]))
    asked = options.only.split(",") if options.only else [*cases]
    table = Table("drawn from", "share", "tried twice", "p50", "p99", "against the data", "without", "dollars", "kept")
    results = {}
    for case in asked:
        of = [found(cases[case], share, HOLDOUT_SEEDS if options.holdout else SEEDS) for share in SHARES]
        for one in of:
            table.add_row(
                f"{case} ({len(cases[case])})",
                f"{one.share:.1%}",
                f"{one.hedged:.1%}",
                f"{one.p50_s:.2f} s",
                f"{one.p99_s:.2f} s",
                f"{one.p99_s / quantile([row.ttft_s for row in cases[case]], 0.99) - 1.0:+.0%}",
                f"{one.p99_s / of[0].p99_s - 1.0:+.0%}",
                f"{one.usd / of[0].usd - 1.0:+.1%}",
                f"{one.kept:.2%}",
            )
        results[case] = [msgspec.structs.asdict(one) for one in of]
    Console().print(table)
    if not options.only:
        record("hedging_holdout" if options.holdout else "hedging", {"cases": results})


if __name__ == "__main__":
    main()
