"""How good the decision is: against what people use, the strongest simple rules, and what nobody can do better than.

    TIDEGATE_DATA=FOLDER python -m bench.policy [--only azure-code,mooncake] [--regimes load-1.00,limits] [--jobs 2]

In each world (`bench/policy_worlds.py`) Tidegate decides once, as it comes, with nothing tuned. Each rule of
`bench/policy_rules.py` decides with every value of its knob, and the best are chosen in hindsight. Above all of them
stand a schedule found by somebody who knows everything (`sim/clairvoyant.py`), and a bound that no schedule exceeds,
whoever made it (`sim/oracle.py`).

A whole run writes bench/results/policy.json and a page to look at, build/policy.html, with `_holdout` in their names
where that is asked for; `--page FILE` makes the page of any run. `--holdout` takes the rows and the seed that nothing
was tuned on, and is for the end.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.policy_bounds import bracket
from bench.policy_figures import Interval, Tried, closed, gain, hull_at, kept_more, saving, tried
from bench.policy_judged import Judged, Point, promises
from bench.policy_page import page
from bench.policy_rules import TODAY, rules
from bench.policy_settings import DEVELOPMENT_SEEDS, HOLDOUT_SEEDS, PRICE_STEP, TRACES, WARM_UP, Regime
from bench.policy_worlds import Case, Scene, play, scene, tokens_usd
from bench.record import commit, machine, record
from tidegate import clock
from tidegate.core.router import Router
from tidegate.sim.binder import Binder

OURS = "tidegate"
PAGES = Path(__file__).parent.parent / "build"


class Task(msgspec.Struct, frozen=True):
    """A world that is to be played by all."""

    data: Path
    case: Case
    bounded: bool


def judge(task: Task) -> Judged:
    """Let everybody decide in it, and compare."""
    world = scene(task.data, task.case)
    factors = _factors(world)
    ours = tried(world, OURS, 0.0, play(world, Router), factors)
    rivals = []
    remote = None
    for name, knob, rule in rules(world):
        outcomes = play(world, partial(Binder, rule))
        rivals.append(tried(world, name, knob, outcomes, factors))
        if name == "remote-only":
            remote = outcomes
    assert remote is not None, "sending everything away is one of the rules"
    away = next(one for one in rivals if one.name == "remote-only")
    best = max(rivals, key=lambda one: one.value_each)
    mixed = hull_at(rivals, ours.attainment)
    today = hull_at([one for one in rivals if one.name in TODAY], ours.attainment)
    no_dearer = [one for one in rivals if one.usd_each <= ours.usd_each]
    most = max(no_dearer, key=lambda one: one.attainment, default=away)
    usd = [factor * tokens_usd(world, job) for factor, job in zip(factors, world.jobs[WARM_UP:], strict=True)]
    unit_usd = sum(usd) / len(usd)
    found = bracket(world, remote, factors, unit_usd) if task.bounded else None
    value = ours.value_each / unit_usd
    return Judged(
        trace=task.case.trace,
        regime=task.case.regime,
        seed=task.case.seed,
        unit_usd=unit_usd,
        ours=_point(ours, unit_usd),
        points=[_point(one, unit_usd) for one in rivals],
        best=f"{best.name} {best.knob:g}",
        hull=" + ".join(sorted({f"{one.name} {one.knob:g}" for one in (mixed.first, mixed.second)})),
        saved=saving(ours, mixed, away),
        saved_today=saving(ours, today, away),
        gain=_scaled(gain(ours, best), unit_usd),
        kept=kept_more(ours, most),
        bounds=found,
        closed_bound=None if found is None else closed(value, best.value_each / unit_usd, found.bound),
        closed_schedule=None if found is None else closed(value, best.value_each / unit_usd, found.schedule),
    )


def _factors(world: Scene) -> list[float]:
    """What the vendor's price is multiplied by when each request comes that counts."""
    arrivals = [job.request.arrived_s for job in world.jobs[WARM_UP:]]
    changes = world.case.regime is Regime.PRICE_STEP
    return [PRICE_STEP if changes and at_s >= world.ends_s / 2.0 else 1.0 for at_s in arrivals]


def _point(one: Tried, unit_usd: float) -> Point:
    return Point(
        name=one.name,
        knob=one.knob,
        attainment=round(one.attainment, 4),
        usd=round(one.usd_each / unit_usd, 4),
        value=round(one.value_each / unit_usd, 4),
        ours=round(one.ours, 4),
        unserved=one.unserved,
    )


def _scaled(interval: Interval, unit: float) -> Interval:
    return Interval(interval.figure / unit, interval.low / unit, interval.high / unit)


# --- all of them --------------------------------------------------------------------------------------------------


def show(console: Console, worlds: Sequence[Judged]) -> None:
    """For people: what is lost first."""
    table = Table("world", "kept", "dollars", "saved", "best rule", "gain in value", "bound", "schedule", "gap closed")
    for one in sorted(worlds, key=lambda one: one.gain.figure):
        table.add_row(
            one.name,
            f"{one.ours.attainment:.1%}",
            f"{one.ours.usd:.3f}",
            f"{one.saved.figure:+.0%} ({one.saved.low:+.0%} to {one.saved.high:+.0%})",
            one.best,
            f"{one.gain.figure:+.3f} ({one.gain.low:+.3f} to {one.gain.high:+.3f})",
            "" if one.bounds is None else f"{one.bounds.bound:.3f}",
            "" if one.bounds is None else f"{one.bounds.schedule:.3f}",
            "" if one.closed_bound is None else f"{one.closed_bound:+.0%}",
        )
    console.print(table)
    for promise in promises(worlds):
        console.print(f"[{'green' if promise.kept else 'red'}]{promise.promise}[/]: {promise.found}")
        for name in promise.losing[:8]:
            console.print(f"    {name}")


def run(tasks: Sequence[Task], jobs: int, console: Console) -> list[Judged]:
    """Play them all, as many at once as there are cores."""
    worlds = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("worlds", total=len(tasks))
        with get_context("spawn").Pool(jobs, maxtasksperchild=8) as pool:
            for one in pool.imap_unordered(judge, tasks):
                worlds.append(one)
                bar.advance(line)
    return sorted(worlds, key=lambda one: one.name)


def main() -> None:
    """Command line."""
    options = _options()
    data = os.environ.get("TIDEGATE_DATA")
    if not data:
        raise SystemExit("bench.policy reads public traces: name their folder in TIDEGATE_DATA")
    seeds = HOLDOUT_SEEDS if options.holdout else (tuple(options.seed) or DEVELOPMENT_SEEDS)
    cases = [
        Case(trace, regime, seed)
        for trace in _chosen(options.only, TRACES)
        for regime in _chosen(options.regimes, list(Regime))
        for seed in seeds
    ]
    console, begun_s = Console(), clock.tick_s()
    worlds = run([Task(Path(data), case, options.bounds) for case in cases], options.jobs, console)
    show(console, worlds)
    console.print(f"{len(worlds)} worlds in {clock.tick_s() - begun_s:.0f} s")
    file = options.page
    if not (options.only or options.regimes or options.seed) and options.bounds:
        name = "policy_holdout" if options.holdout else "policy"
        record(name, {"promises": msgspec.to_builtins(promises(worlds)), "worlds": msgspec.to_builtins(worlds)})
        file = file or PAGES / f"{name}.html"
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(commit(), machine(), worlds, promises(worlds)))
        console.print(f"to look at: {file}", markup=False, soft_wrap=True)


def _chosen(asked: str, known: Iterable[str]) -> list:  # type: ignore[type-arg]
    names = [name for name in asked.split(",") if name]
    unknown = sorted(set(names) - {str(one) for one in known})
    if unknown:
        raise SystemExit(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return [one for one in known if not names or str(one) in names]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="traces, by name")
    parser.add_argument("--regimes", default="", help="regimes, by name")
    parser.add_argument("--seed", type=int, action="append", default=[], help="other seeds; may be repeated")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at once")
    parser.add_argument("--holdout", action="store_true", help="the rows and seeds that nothing was tuned on")
    parser.add_argument("--no-bounds", dest="bounds", action="store_false", help="without oracle and schedule")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where the page goes; a whole run has one anyway")
    return parser.parse_args()


if __name__ == "__main__":
    main()
