"""How soon decisions are what they would be, once prices, load or the way to a vendor have changed in mid-run.

    TIDEGATE_DATA=FOLDER python -m bench.policy_changes [--only azure-code] [--jobs 2]

Each change is played twice with the same requests: once as it happens, half-way, and once in a world that was like that
all along. Their difference in value, of the requests that come after the change, is what is not found out yet, or what
was done before and cannot be undone: it is told by the time since the change, as a share of what the other world is
worth. A moment's difference of two worlds is chance as well, which the mean over seeds makes smaller, and not none.
Writes bench/results/policy_changes.json.
"""

import argparse
import os
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from itertools import pairwise
from math import isclose
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.policy_settings import LINK_BAD, LOADS, PRICE_STEP, TRACES, VENDOR, WAY, Regime
from bench.policy_worlds import Case, Scene, chosen, play, reprice, scene, tokens_usd
from bench.record import record
from tidegate.core.model import replace
from tidegate.core.router import Router
from tidegate.sim.chance import Chance
from tidegate.sim.network import Link, LinkProfile
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.world import World

SEEDS = (1, 2, 3, 4)
REQUESTS = 3_000
BEFORE, AFTER = Regime.LOAD_080, Regime.LOAD_125
"""Loads before and after more comes; all other changes are at the first of them and, where it matters, the second."""
SPAN_S = 20.0
"""Differences are means of what comes within so long."""
BACK_S, WITHIN = 60.0, 0.05
"""So soon after a change the rest has to be within this share of what it would be."""


class Change(StrEnum):
    """What happens half-way."""

    PRICE_UP = "price twice"
    PRICE_DOWN = "price half"
    LOAD_UP = "load 0.80 to 1.25"
    LOAD_DOWN = "load 1.25 to 0.80"
    LINK_WORSE = "link bad"
    LINK_BETTER = "link good again"


class Task(msgspec.Struct, frozen=True):
    """One change in one trace, by one seed."""

    data: Path
    trace: str
    change: Change
    seed: int


class Course(msgspec.Struct, frozen=True):
    """What each request after a change was worth: how long after it came, as it happened, and had it always been so."""

    trace: str
    change: Change
    after_s: list[float]
    changed_usd: list[float]
    steady_usd: list[float]


class Found(msgspec.Struct, frozen=True):
    """One change in one trace, over all seeds.

    `off` is by spans of `SPAN_S` how far value is from what it would be, as a share of that; `later` the same of all
    that came more than `BACK_S` after. `back_s` is when the last span ended in which it was worse by more than
    `WITHIN`, 0 where none was.
    """

    trace: str
    change: Change
    off: list[float]
    later: float
    back_s: float


def follow(task: Task) -> Course:
    """Play it twice."""
    loaded = AFTER if task.change is not Change.LOAD_DOWN else BEFORE
    world = scene(task.data, Case(task.trace, loaded, task.seed), requests=REQUESTS)
    middle = REQUESTS // 2
    steady, changed = world, world
    if task.change in (Change.LOAD_UP, Change.LOAD_DOWN):
        changed = _first_half_at(world, LOADS[BEFORE if task.change is Change.LOAD_UP else AFTER] / LOADS[loaded])
    factors = {Change.PRICE_UP: (1.0, PRICE_STEP), Change.PRICE_DOWN: (PRICE_STEP, 1.0)}.get(task.change, (1.0, 1.0))
    ways = {Change.LINK_WORSE: (WAY, LINK_BAD), Change.LINK_BETTER: (LINK_BAD, WAY)}.get(task.change, (WAY, WAY))
    change_s = changed.jobs[middle].request.arrived_s
    happened = play(changed, Router, partial(_arrange, factors=factors, ways=ways, change_s=change_s))
    still = partial(_arrange, factors=(factors[1],) * 2, ways=(ways[1],) * 2, change_s=0.0)
    been = play(steady, Router, still)
    return Course(
        trace=task.trace,
        change=task.change,
        after_s=[one.request.arrived_s - change_s for one in happened[middle:]],
        changed_usd=_values(changed, happened, factors[1])[middle:],
        steady_usd=_values(steady, been, factors[1])[middle:],
    )


def found(courses: Sequence[Course]) -> Found:
    """All seeds of one change in one trace."""
    rows = [row for one in courses for row in zip(one.after_s, one.changed_usd, one.steady_usd, strict=True)]
    usual_usd = fmean([steady_usd for _, _, steady_usd in rows])
    # A span counts where all seeds are still there.
    ends_s = min(one.after_s[-1] for one in courses)
    off = [
        _off([row for row in rows if span * SPAN_S <= row[0] < (span + 1) * SPAN_S], usual_usd)
        for span in range(int(ends_s / SPAN_S))
    ]
    worse = [(span + 1) * SPAN_S for span, share in enumerate(off) if share < -WITHIN]
    later = [row for row in rows if BACK_S <= row[0] < ends_s]
    return Found(courses[0].trace, courses[0].change, off, _off(later, usual_usd), max(worse, default=0.0))


def _off(rows: Sequence[tuple[float, float, float]], usual_usd: float) -> float:
    return fmean([changed - steady for _, changed, steady in rows]) / usual_usd if rows else 0.0


def _values(world: Scene, outcomes: Sequence[Outcome], factor: float) -> list[float]:
    """What each was worth less what it took, or what the vendor would have taken for it."""
    values = []
    for job, outcome in zip(world.jobs, outcomes, strict=True):
        away_usd = tokens_usd(world, job)
        paid_usd = outcome.usd if outcome.outcome == "ok" else outcome.usd + factor * away_usd
        values.append(world.worth * away_usd * outcome.kept - paid_usd)
    return values


def _first_half_at(world: Scene, share: float) -> Scene:
    """The same where the first half comes at so many times the rate."""
    middle, at_s = len(world.jobs) // 2, 0.0
    jobs = [world.jobs[0]]
    for place, (one, other) in enumerate(pairwise(world.jobs), 1):
        gap_s = other.request.arrived_s - one.request.arrived_s
        at_s += gap_s / share if place < middle else gap_s
        jobs.append(msgspec.structs.replace(other, request=replace(other.request, arrived_s=at_s)))
    return msgspec.structs.replace(world, jobs=tuple(jobs))


def _arrange(
    scene: Scene,
    world: World,
    _: Local,
    vendor: Remote,
    *,
    factors: tuple[float, float],
    ways: tuple[LinkProfile, LinkProfile],
    change_s: float,
) -> None:
    """The first of each from the beginning, the second from `change_s` on. Our engine is what it was."""
    for at_s, factor, ratio in ((0.0, factors[0], factors[0]), (change_s, factors[1], factors[1] / factors[0])):
        if not isclose(ratio, 1.0) and (at_s or not isclose(factor, 1.0)):
            world.loop.at(at_s, reprice, world, scene.policy, ratio)
    before, after = (Link(way, Chance(scene.case.seed), VENDOR) for way in ways)
    vendor.way = before
    world.loop.at(change_s, setattr, vendor, "way", after)


def show(console: Console, all_found: Sequence[Found]) -> None:
    """For people: what takes longest first."""
    table = Table("trace", "change", "back after", "off later", "off by spans of 20 s")
    for one in sorted(all_found, key=lambda one: (-one.back_s, one.later)):
        spans = " ".join(f"{share:+.0%}" for share in one.off[:9])
        table.add_row(one.trace, one.change, f"{one.back_s:.0f} s", f"{one.later:+.1%}", spans)
    console.print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.policy_changes")
    parser.add_argument("--only", default="", help="traces, with commas between them")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at a time")
    options = parser.parse_args()
    data = os.environ.get("TIDEGATE_DATA")
    if not data:
        raise SystemExit("bench.policy_changes reads public traces: name their folder in TIDEGATE_DATA")
    traces = chosen(options.only, TRACES)
    tasks = [Task(Path(data), trace, change, seed) for trace in traces for change in Change for seed in SEEDS]
    console = Console()
    courses = []
    with (
        get_context("spawn").Pool(options.jobs) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        line = bar.add_task("worlds", total=len(tasks))
        for one in pool.imap_unordered(follow, tasks):
            courses.append(one)
            bar.advance(line)
    pairs = [(trace, change) for trace in traces for change in Change]
    results = [found([c for c in courses if (c.trace, c.change) == pair]) for pair in pairs]
    show(console, results)
    if len(traces) < len(TRACES):
        return
    record(
        "policy_changes",
        {
            "bounds": {"back_s": BACK_S, "within": WITHIN},
            "seeds": SEEDS,
            "requests": REQUESTS,
            "back in time": sum(one.back_s <= BACK_S for one in results),
            "later within": sum(abs(one.later) <= WITHIN for one in results),
            "changes": len(results),
            "found": msgspec.to_builtins(sorted(results, key=lambda one: (-one.back_s, one.later))),
        },
    )


if __name__ == "__main__":
    main()
