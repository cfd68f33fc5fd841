"""What is served while the link changes, as a share of what the fluid model could with the link as it is."""

from collections.abc import Iterator, Sequence
from statistics import mean

import msgspec

from bench import prefill_settings as settings
from bench.prefill_model import bins, model, pools, shortest
from bench.prefill_queues import LENGTH, OURS, RANDOM, RULES, SOONEST, arrivals, lengths, paired, site
from bench.prefill_rules import Chosen, Longer, Ours, Watched, reversals
from bench.prefill_settings import Load
from tidegate.core import throughput
from tidegate.core.bins import BINS, bin_of
from tidegate.core.throughput import counted, fluid
from tidegate.sim.chance import Chance
from tidegate.sim.prefill import Rule, Served, closed_loop, open_loop


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A rule in one world: of each phase, what was served as a share of the most, and the 90th percentile of TTFT; how
    often its threshold turned round, where it has one that moves."""

    load: Load
    seed: int
    rule: str
    served: list[float]
    ttft_s_p90: list[float]
    reversals: int


def phases() -> list[tuple[float, float, float]]:
    """Gigabits a second, from when on, and what can be served at most."""
    return [
        (gbps, i * settings.PHASE_S, fluid(model(), bins(), pools(gbps, settings.CHANGES_PREFILL))[0])
        for i, gbps in enumerate(settings.CHANGES_GBPS)
    ]


def play(rule: Rule, load: Load, seed: int) -> tuple[list[Served], list[float]]:
    """What is served, and when who was asked for came."""
    where = site(settings.CHANGES_PREFILL, tuple((at_s, gbps * 1e9 / 8.0) for gbps, at_s, _ in phases()))
    ends_s = settings.PHASE_S * len(settings.CHANGES_GBPS)
    if load is Load.SATURATING:
        served = closed_loop(where, rule, settings.AT_ONCE, lengths(seed), ends_s)
        return served, [one.arrived_s for one in served]
    times_s = list(_near(seed))
    tokens = [size for size, _ in zip(lengths(seed), times_s, strict=False)]
    return open_loop(where, rule, times_s, tokens), times_s


def _near(seed: int) -> Iterator[float]:
    """Arrivals whose rate is the same share of what can be served in each phase."""
    begun, coming = 0.0, arrivals(seed)
    unit = next(coming)
    for _, at_s, most in phases():
        per_s = settings.NEAR * most
        while unit < begun + per_s * settings.PHASE_S:
            yield at_s + (unit - begun) / per_s
            unit = next(coming)
        begun += per_s * settings.PHASE_S


def change(rule: Rule, name: str, load: Load, seed: int) -> Changed:
    """One rule in one world."""
    served, times_s = play(rule, load, seed)
    shares, tails, turned = [], [], 0
    for gbps, at_s, _ in phases():
        since_s, until_s = at_s + settings.SETTLE_S, at_s + settings.PHASE_S
        done = [one for one in served if since_s <= one.arrived_s + one.ttft_s < until_s]
        if load is Load.SATURATING:
            most = (until_s - since_s) * _most(done, gbps)
        else:
            most = float(sum(since_s <= at_s < until_s for at_s in times_s))
        shares.append(len(done) / most)
        waited = sorted(one.ttft_s for one in served if since_s <= one.arrived_s < until_s)
        tails.append(waited[int(0.9 * len(waited))] if waited else float("inf"))
        if isinstance(rule, Watched):
            turned += reversals([one for t, one in rule.thresholds if since_s <= t < until_s], settings.REVERSAL)
    return Changed(load=load, seed=seed, rule=name, served=shares, ttft_s_p90=tails, reversals=turned)


def _most(done: Sequence[Served], gbps: float) -> float:
    """What can be served of the very prompts that were: chance in their lengths is nobody's merit."""
    counts, tokens = [0.0] * BINS, [0.0] * BINS
    for one in done:
        counts[bin_of(one.tokens)] += 1.0
        tokens[bin_of(one.tokens)] += one.tokens
    seen = [i for i in range(BINS) if counts[i]]
    came = counted([tokens[i] / counts[i] for i in seen], [counts[i] for i in seen])
    return fluid(model(), came, pools(gbps, settings.CHANGES_PREFILL))[0]


def changes(task: tuple[Load, int]) -> list[Changed]:
    """All rules in one world; thresholds and shares from that of the slowest link to that of the fastest."""
    load, seed = task
    there = pools(settings.CHANGES_GBPS[0], settings.CHANGES_PREFILL)
    grid = [settings.LEAST * (settings.MOST / settings.LEAST) ** (i / 512) for i in range(513)]
    found = [change(Watched(Ours(model(), there), model(), grid), OURS, load, seed)]
    found.append(change(Ours(model(), there, priced=False), SOONEST, load, seed))
    by_link = [pools(gbps, settings.CHANGES_PREFILL) for gbps, _, _ in phases()]
    tokens = [shortest(throughput.threshold(model(), bins(), one).shares) for one in by_link]
    shares = [throughput.random_split(model(), bins(), one).shares[0] for one in by_link]
    for i in range(settings.STATIC):
        part = i / (settings.STATIC - 1)
        length = min(tokens) * (max(tokens) / min(tokens)) ** part
        found.append(change(Longer(length), f"{LENGTH} {length:,.0f}", load, seed))
        share = min(shares) + part * (max(shares) - min(shares))
        random = Chance(seed).at("prefill", "rule")
        found.append(change(Chosen(share, random), f"{RANDOM} {share:.2f}", load, seed))
    return found


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, over all seeds: of each phase the mean share of the most that was served, with half of its 95 % interval,
    the least of all seeds, and the mean of the 90th percentiles of TTFT; its reversals, of all phases and seeds."""

    load: Load
    rule: str
    served: list[float]
    half: list[float]
    least: list[float]
    ttft_s_p90: list[float]
    reversals: int


def changed(found: Sequence[Changed]) -> list[Change]:
    """Ours, and of each simple rule the one with the best mean of all phases in hindsight."""
    made = []
    for load in Load:
        of_load = [one for one in found if one.load is load]
        best: dict[str, tuple[float, list[Changed]]] = {}
        for name in sorted({one.rule for one in of_load}):
            mine = [one for one in of_load if one.rule == name]
            # More than was asked for is what an earlier phase left.
            score = mean(min(share, 1.0) for one in mine for share in one.served)
            kind = next(rule for rule in RULES if name.startswith(rule))
            best[kind] = max(best.get(kind, (0.0, mine)), (score, mine), key=lambda each: each[0])
        for rule in (rule for rule in RULES if rule in best):
            mine = best[rule][1]
            columns = list(zip(*(one.served for one in mine), strict=True))
            made.append(
                Change(
                    load=load,
                    rule=mine[0].rule,
                    served=[mean(column) for column in columns],
                    half=[paired(column, [1.0] * len(column))[1] for column in columns],
                    least=[min(column) for column in columns],
                    ttft_s_p90=[mean(column) for column in zip(*(one.ttft_s_p90 for one in mine), strict=True)],
                    reversals=sum(one.reversals for one in mine),
                )
            )
    return made
