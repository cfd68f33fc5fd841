"""The highest rate at which times to first token stay within bounds, for each rule, where prompts queue."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import exp, log, sqrt
from random import Random
from statistics import NormalDist, mean, stdev

import msgspec
from scipy.stats import t as student

from bench import prefill_settings as settings
from bench.prefill_model import bins, model, pools, shortest
from bench.prefill_rules import Chosen, Drifting, Everything, Gated, Longer, Ours
from tidegate.core import throughput
from tidegate.core.offload import advised
from tidegate.core.throughput import Pools, fluid, split
from tidegate.sim.chance import Chance
from tidegate.sim.prefill import Link, Rule, Site, open_loop

OURS, SOONEST, DRIFT, NAIVE = "ours", "soonest", "queues as prices", "naive"
RANDOM, LENGTH, GATE = "random split", "threshold", "threshold, gate"
RULES = (OURS, SOONEST, DRIFT, LENGTH, GATE, RANDOM, NAIVE)
Makes = Callable[[Random], Rule]


def lengths(seed: int) -> Iterator[float]:
    """Prompts' tokens, without end."""
    law, random = NormalDist(settings.MU, settings.SIGMA), Chance(seed).at("prefill", "lengths")
    low, high = law.cdf(log(settings.LEAST)), law.cdf(log(settings.MOST))
    while True:
        yield exp(law.inv_cdf(low + (high - low) * random.random()))


def arrivals(seed: int) -> Iterator[float]:
    """Poisson's, at one a second."""
    random = Chance(seed).at("prefill", "arrivals")
    return accumulate(iter(lambda: random.expovariate(1.0), None))


def site(prefill: int, rates: tuple[tuple[float, float], ...]) -> Site:
    """The paper's, behind this link."""
    return Site(
        model=model(),
        remote=settings.REMOTE,
        prefill=prefill,
        slots=settings.SLOTS * (settings.NODES - prefill),
        decode_s=settings.OUTPUT_TOKENS / settings.TOKENS_PER_S,
        link=Link(rates=rates, overlap=settings.OVERLAP, layers=settings.LAYERS),
    )


class Tails:
    """The 90th and 99th percentile of time to first token at any rate, of one rule with one seed."""

    def __init__(self, where: Site, makes: Makes, seed: int) -> None:
        self._where, self._makes, self._seed = where, makes, seed
        count = settings.REQUESTS
        self._tokens = [tokens for tokens, _ in zip(lengths(seed), range(count), strict=False)]
        self._units = [unit for unit, _ in zip(arrivals(seed), range(count), strict=False)]
        self._found: dict[float, tuple[float, float]] = {}

    def at(self, per_s: float) -> tuple[float, float]:
        """In seconds."""
        if per_s not in self._found:
            rule = self._makes(Chance(self._seed).at("prefill", "rule"))
            served = open_loop(self._where, rule, [unit / per_s for unit in self._units], self._tokens)
            waited = sorted(one.ttft_s for one in served if one.arrived_s * per_s >= self._units[settings.WARM])
            self._found[per_s] = waited[int(0.9 * len(waited))], waited[int(0.99 * len(waited))]
        return self._found[per_s]

    def sustained(self, bound_s: float, tail_s: float, most: float) -> float:
        """The highest rate at which both are within their bounds, by bisection to a fortieth of `most`; between the
        last two that were tried their logarithms are taken to be on a line."""

        def excess(per_s: float) -> float:
            p90_s, p99_s = self.at(per_s)
            return max(p90_s / bound_s, p99_s / tail_s)

        # What is known from other bounds narrows it.
        low = max([per_s for per_s in self._found if excess(per_s) <= 1.0], default=0.0)
        high = min([per_s for per_s in self._found if per_s > low and excess(per_s) > 1.0], default=1.25 * most)
        while high - low > most / 40.0:
            middle = (low + high) / 2.0
            low, high = (middle, high) if excess(middle) <= 1.0 else (low, middle)
        if not low:
            return 0.0
        within, beyond = log(excess(low)), log(excess(high))
        return low + (high - low) * within / (within - beyond)


class Knob(msgspec.Struct, frozen=True, order=True):
    """A rule with its knobs and its split of local nodes."""

    rule: str
    prefill: int
    share: float = 1.0
    wait_s: float = 0.0


class Task(msgspec.Struct, frozen=True):
    """A link and a seed."""

    link_gbps: float
    seed: int


Measured = dict[str, float]
"""Of each bound and tail, the rate that is sustained."""


def knobs(link_gbps: float) -> list[Knob]:
    """All that is tried there."""
    start = pools(link_gbps, 3)

    def best(per_s: Callable[[Pools], float]) -> int:
        return round(split(settings.NODES, start, per_s).prefill)

    ours = round(advised(model(), bins(), start).prefill)
    # Where a random split or a threshold would serve most if nothing queued, and where ours are.
    fluids = (
        lambda one: throughput.random_split(model(), bins(), one).per_s,
        lambda one: fluid(model(), bins(), one)[0],
    )
    splits = sorted({ours, *(best(per_s) for per_s in fluids)})
    return [
        Knob(OURS, ours),
        Knob(SOONEST, ours),
        Knob(NAIVE, best(lambda one: throughput.everything(model(), bins(), one).per_s)),
        *(Knob(DRIFT, ours, weight) for weight in settings.DRIFTS),
        *(Knob(rule, prefill, share) for rule in (RANDOM, LENGTH) for prefill in splits for share in settings.SHARES),
        *(Knob(GATE, ours, share, wait_s) for share in settings.SHARES[1::2] for wait_s in settings.GATES_S),
    ]


def makes(knob: Knob, link_gbps: float) -> Makes:
    """Who decides, anew for each run."""
    there = pools(link_gbps, knob.prefill)
    if knob.rule in (OURS, SOONEST):
        return lambda _: Ours(model(), there, priced=knob.rule == OURS)
    if knob.rule == NAIVE:
        return lambda _: Everything()
    if knob.rule == DRIFT:
        return lambda _: Drifting(model(), there, knob.share)
    if knob.rule == RANDOM:
        share = knob.share * throughput.random_split(model(), bins(), there).shares[0]
        return lambda random: Chosen(share, random)
    tokens = shortest(throughput.threshold(model(), bins(), there).shares) * knob.share
    if knob.rule == LENGTH:
        return lambda _: Longer(tokens)
    return lambda _: Gated(tokens, knob.wait_s, there.link_bytes_per_s)


def measure(task: Task) -> tuple[Task, list[tuple[Knob, Measured]]]:
    """All rules."""
    found = []
    for knob in knobs(task.link_gbps):
        there = pools(task.link_gbps, knob.prefill)
        most = fluid(model(), bins(), there)[0]
        tails = Tails(site(knob.prefill, ((0.0, there.link_bytes_per_s),)), makes(knob, task.link_gbps), task.seed)
        rates = {}
        for bound_s in settings.BOUNDS_S:
            rates[_key(bound_s, tail=False)] = tails.sustained(bound_s, float("inf"), most)
            rates[_key(bound_s, tail=True)] = tails.sustained(bound_s, settings.TAIL * bound_s, most)
        found.append((knob, rates))
    return task, found


def _key(bound_s: float, *, tail: bool) -> str:
    return f"p90 {bound_s:g} s" + (f", p99 {settings.TAIL * bound_s:g} s" if tail else "")


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """Of one link and bound: the mean rate of each rule with its best knobs, and ours over the best random split and
    over the best threshold, paired by seed, each with half of its 95 % interval."""

    link_gbps: float
    bound: str
    per_s: dict[str, float]
    knobs: dict[str, Knob]
    over_random: float
    over_random_half: float
    over_threshold: float
    over_threshold_half: float


def sustained(found: Sequence[tuple[Task, list[tuple[Knob, Measured]]]]) -> list[Sustained]:
    """By link and bound."""
    made = []
    for link in settings.LINKS_GBPS:
        of_link = [dict(by_knob) for task, by_knob in found if task.link_gbps == link]
        if not of_link:
            continue
        for bound in of_link[0][next(iter(of_link[0]))]:
            rates = {knob: [one[knob][bound] for one in of_link] for knob in of_link[0]}
            best = {rule: max((k for k in rates if k.rule == rule), key=lambda k: mean(rates[k])) for rule in RULES}
            over, half = paired(rates[best[OURS]], rates[best[RANDOM]])
            over_threshold, half_threshold = paired(rates[best[OURS]], rates[best[LENGTH]])
            made.append(
                Sustained(
                    link_gbps=link,
                    bound=bound,
                    per_s={rule: mean(rates[best[rule]]) for rule in RULES},
                    knobs=best,
                    over_random=over,
                    over_random_half=half,
                    over_threshold=over_threshold,
                    over_threshold_half=half_threshold,
                )
            )
    return made


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """How much more, as a share of their mean, and half of its 95 % interval over seeds (Student's)."""
    over = [(one - other) / mean(theirs) for one, other in zip(ours, theirs, strict=True)]
    half = float(student.ppf(0.975, len(over) - 1)) * stdev(over) / sqrt(len(over)) if len(over) > 1 else 0.0
    return mean(over), half
