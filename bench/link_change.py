"""How soon TTFT is predicted again after a link has changed: `make bench-link_change`.

A simulated fleet at the end of a link serves requests one by one or a few at a time. After `BEFORE` of them the link is
another one from one moment to the next: its round trip or its rate is ten times what it was, or a tenth. The error is
|predicted / measured - 1| of TTFT, as predicted when the request was sent. Of each case are reported the median error
of requests 20 to 60 after the change, of those before it, and after how many requests the median error over all seeds,
smoothed over five requests, is below 15 % and stays so for the next twenty. Losing cases come first.

Rules were chosen on the seeds 1 to 5; what is reported is of the seeds from 101 on.
"""

import argparse
from collections.abc import Iterator
from random import Random
from statistics import median

import msgspec

from bench.record import record
from tidegate.core.model import Endpoint, Policy, Prior, Request, Slo
from tidegate.core.step import StepTime
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.job import Job
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.place import Local
from tidegate.sim.world import World

BEFORE, AFTER = 150, 80
WITHIN = 20
ERROR_MAX = 0.15
SMOOTH = 5
PROBE_S = 5.0
SEEDS, TUNING_SEEDS = range(101, 111), range(1, 6)
ENGINE = EngineProfile(
    step=StepTime(base_s=0.02, per_token_s=1e-5, per_sequence_s=1e-4), slots=64, batch_tokens=8192, kv_tokens=2_000_000
)
# Round trip in seconds, and bytes a second.
LINKS = {"near": (0.01, 12.5e6), "wan": (0.05, 1.25e6), "far": (0.15, 0.5e6)}
CHANGES = {"rtt x10": (10.0, 1.0), "rate /10": (1.0, 0.1), "rtt /10": (0.1, 1.0), "rate x10": (1.0, 10.0)}
# Median of the prompt in tokens, of four bytes each, and how many come in a second.
PROMPTS = {"chat": (1_000, (0.5, 4.0)), "documents": (8_000, (0.2, 0.5))}


class Case(msgspec.Struct, kw_only=True):
    """One kind of change. `back_after` counts requests; None is never."""

    link: str
    change: str
    prompts: str
    per_s: float
    back_after: int | None
    error_before: float
    error_after: float


class Change:
    """A way that is another one from some time on."""

    def __init__(self, before: Link, after: Link) -> None:
        self.down = False
        self._before, self._after = before, after
        self.at_s = float("inf")

    def _now(self, now_s: float) -> Link:
        return self._before if now_s < self.at_s else self._after

    def sent(self, payload_bytes: int, now_s: float) -> float:
        """See `Way`."""
        return self._now(now_s).sent(payload_bytes, now_s)

    def upload_s(self, payload_bytes: int, now_s: float) -> float:
        """See `Way`."""
        return self._now(now_s).upload_s(payload_bytes, now_s)

    def answered(self, now_s: float) -> float:
        """See `Way`."""
        return self._now(now_s).answered(now_s)

    def rtt_s(self, now_s: float) -> float:
        """See `Way`."""
        return self._now(now_s).rtt_s(now_s)


class Users:
    """Requests at random times; the way changes between two of them."""

    def __init__(self, seed: int, prompt_tokens: int, per_s: float, way: Change) -> None:
        self._draw = Random(seed)
        self._median, self._per_s, self._way = prompt_tokens, per_s, way

    def arrivals(self) -> Iterator[Job]:
        """See `Traffic`."""
        at_s, draw = 0.0, self._draw
        for number in range(BEFORE + AFTER):
            at_s += draw.expovariate(self._per_s)
            if number == BEFORE:
                self._way.at_s = at_s - 1e-3
            tokens = min(60_000, max(20, round(self._median * draw.lognormvariate(0.0, 0.7))))
            request = Request(
                id=f"r{number}",
                arrived_s=at_s,
                model="m",
                klass="chat",
                prompt_tokens=tokens,
                prompt_bytes=4 * tokens,
                output_tokens_max=None,
                slo=Slo(ttft_s=30.0),
                worth_usd=0.01,
            )
            yield Job(request=request, prompt_tokens=tokens, output_tokens=draw.randint(5, 60))

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        """See `Traffic`."""


def _link(rtt_s: float, rate: float, seed: int) -> Link:
    profile = LinkProfile(rtt_s=rtt_s, upload_bytes_per_s=rate, download_bytes_per_s=rate, jitter=0.1)
    return Link(profile, Chance(seed), "link")


def errors(link: str, change: str, prompts: str, per_s: float, seed: int) -> list[float]:
    """Of each request in its order; one that was not answered counts as wrong by all."""
    (rtt_s, rate), (rtt_by, rate_by) = LINKS[link], CHANGES[change]
    way = Change(_link(rtt_s, rate, seed), _link(rtt_s * rtt_by, rate * rate_by, seed + 1))
    prior = Prior(
        overhead_s=0.02, prefill_s_per_token=1.2e-5, decode_s_per_token=0.02, rtt_s=rtt_s, upload_bytes_per_s=rate
    )
    endpoint = Endpoint(
        name="cloud",
        site="away",
        local=False,
        models=("m",),
        context_tokens=200_000,
        concurrency=64,
        shares_compute=False,
        prior=prior,
    )
    world = World((endpoint,), Policy())
    places = {"cloud": Local("cloud", Engine(ENGINE), world.loop, world, way)}
    world.run(places, Users(seed, PROMPTS[prompts][0], per_s, way), probe_s=PROBE_S, until_s=1e6)
    found = {}
    for outcome in world.outcomes:
        predicted_s, measured_s = outcome.predicted_s, outcome.measured_s
        error = 1.0 if predicted_s is None or measured_s is None else abs(predicted_s / measured_s - 1.0)
        found[int(outcome.request.id[1:])] = error
    return [found[number] for number in range(BEFORE + AFTER)]


def case(link: str, change: str, prompts: str, per_s: float, seeds: range) -> Case:
    """All seeds of one case."""
    runs = [errors(link, change, prompts, per_s, seed) for seed in seeds]
    at = [median(run[n] for run in runs) for n in range(BEFORE + AFTER)]
    smooth = [median(at[n : n + SMOOTH]) for n in range(BEFORE, BEFORE + AFTER - SMOOTH)]
    good = (n for n in range(AFTER - SMOOTH - WITHIN) if max(smooth[n : n + WITHIN]) < ERROR_MAX)
    return Case(
        link=link,
        change=change,
        prompts=prompts,
        per_s=per_s,
        back_after=next(good, None),
        error_before=round(median(at[BEFORE - 50 : BEFORE]), 3),
        error_after=round(median(at[BEFORE + WITHIN : BEFORE + 60]), 3),
    )


def main() -> None:
    """All cases; `--tune` on the seeds for choosing rules, which writes nothing down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    asked = parser.parse_args()
    seeds = TUNING_SEEDS if asked.tune else SEEDS
    cases = [case(*which, seeds) for which in _cases()]
    cases.sort(key=lambda c: -AFTER if c.back_after is None else -c.back_after)
    missed = sum(c.back_after is None or c.back_after > WITHIN for c in cases)
    for c in cases:
        print(
            f"{c.link:5} {c.change:9} {c.prompts:10} {c.per_s:4}/s  back after {c.back_after!s:>5}  "
            f"error before {c.error_before:.3f}, after {c.error_after:.3f}"
        )
    print(f"{len(cases) - missed} of {len(cases)} within {WITHIN} requests")
    if not asked.tune:
        record("link_change", {"seeds": len(seeds), "missed": missed, "cases": msgspec.to_builtins(cases)})


def _cases() -> Iterator[tuple[str, str, str, float]]:
    for link in LINKS:
        for change in CHANGES:
            for prompts in PROMPTS:
                for per_s in PROMPTS[prompts][1]:
                    yield link, change, prompts, per_s


if __name__ == "__main__":
    main()
