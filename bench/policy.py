"""How good the decision is: against what people use, the strongest simple rules, and what nobody can do better than.

    TIDEGATE_DATA=FOLDER python -m bench.policy [--only azure-code,mooncake] [--regimes load-1.00,limits] [--jobs 2]

In each world (`bench/policy_worlds.py`) Tidegate decides once, as it comes, with nothing tuned. Each rule of
`bench/policy_rules.py` decides with every value of its knob, and the best are chosen in hindsight. Above all of them
stand a schedule found by somebody who knows everything (`sim/clairvoyant.py`), and a bound that no schedule exceeds,
whoever made it (`sim/oracle.py`).

A whole run writes bench/results/policy.json and a page to look at, build/policy.html, with `_holdout` in their names
where that is asked for; `--page FILE` makes the page of any run. `--holdout` takes the rows and the seed that nothing
was tuned on, and is for the end. What was found is kept by world, in build/worlds: a run that was stopped goes on where
it was, on the same commit. With `--ray` the worlds are played by all machines of a Ray cluster that have the traces in
the same place (`RAY_ADDRESS`; without one, on this machine).
"""

import argparse
import os
from collections.abc import Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.policy_bounds import bracket
from bench.policy_figures import (
    Interval,
    closed,
    gain,
    hull_at,
    kept_more,
    price_factors,
    regret,
    saving,
    tried,
    unit_usd,
)
from bench.policy_judged import Judged, TakenApart, point, promises
from bench.policy_page import page
from bench.policy_rules import TODAY, rules
from bench.policy_settings import DEVELOPMENT_SEEDS, HOLDOUT_SEEDS, TRACES, Regime
from bench.policy_worlds import Case, chosen, play, scene
from bench.record import RESULTS, commit, machine, record
from tidegate import clock
from tidegate.core.router import Router
from tidegate.sim.binder import Binder

OURS = "tidegate"
ROOT = Path(__file__).parent.parent
PAGES, KEPT = ROOT / "build", ROOT / "build" / "worlds"


class Task(msgspec.Struct, frozen=True):
    """A world that is to be played by all. What is found is kept in a file of that folder, where there is one."""

    data: Path
    case: Case
    bounded: bool
    kept: Path | None = None


def judge_once(task: Task) -> Judged:
    """Compare, unless that was done."""
    if task.kept is None:
        return judge(task)
    file = task.kept / f"{task.case.name.replace(' ', '_')}.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Judged)
    found = judge(task)
    task.kept.mkdir(parents=True, exist_ok=True)
    whole = file.with_suffix(".new")
    whole.write_bytes(msgspec.json.encode(found))
    whole.replace(file)
    return found


def judge(task: Task) -> Judged:
    """Let everybody decide in it, and compare."""
    world = scene(task.data, task.case)
    factors = price_factors(world)
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
    unit = unit_usd(world, factors)
    found, planned = bracket(world, remote, factors, unit) if task.bounded else (None, None)
    value = ours.value_each / unit
    return Judged(
        trace=task.case.trace,
        regime=task.case.regime,
        seed=task.case.seed,
        unit_usd=unit,
        ours=point(ours, unit),
        points=[point(one, unit) for one in rivals],
        best=f"{best.name} {best.knob:g}",
        hull=" + ".join(sorted({f"{one.name} {one.knob:g}" for one in (mixed.first, mixed.second)})),
        saved=saving(ours, mixed, away),
        saved_today=saving(ours, today, away),
        gain=_scaled(gain(ours, best), unit),
        kept=kept_more(ours, most),
        behind_rule=_units(regret(ours, best), unit),
        behind_schedule=None if planned is None else _units(regret(ours, planned), unit),
        bounds=found,
        closed_bound=None if found is None else closed(value, best.value_each / unit, found.bound),
        closed_schedule=None if found is None else closed(value, best.value_each / unit, found.schedule),
    )


def _units(dollars: Sequence[float], unit_usd: float) -> list[float]:
    return [round(usd / unit_usd, 2) for usd in dollars]


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


def run(tasks: Sequence[Task], pool: Pool, console: Console) -> list[Judged]:
    """Play them all, as many at once as there are in the pool."""
    worlds = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("worlds", total=len(tasks))
        for one in pool.imap_unordered(judge_once, tasks):
            worlds.append(one)
            bar.advance(line)
    return sorted(worlds, key=lambda one: one.name)


def _pool(options: argparse.Namespace) -> Pool:
    if not options.ray:
        return get_context("spawn").Pool(options.jobs, maxtasksperchild=8)
    try:
        import ray
        from ray.util.multiprocessing import Pool as RayPool
    except ImportError:
        raise SystemExit("--ray needs Ray: pip install 'tidegate[ray]'") from None
    ray.init(runtime_env={"working_dir": str(ROOT), "excludes": [".git", ".venv", "build"]}, log_to_driver=False)
    pool: Pool = RayPool()
    return pool


def main() -> None:
    """Command line."""
    options = _options()
    data = os.environ.get("TIDEGATE_DATA")
    if not data:
        raise SystemExit("bench.policy reads public traces: name their folder in TIDEGATE_DATA")
    seeds = HOLDOUT_SEEDS if options.holdout else (tuple(options.seed) or DEVELOPMENT_SEEDS)
    cases = [
        Case(trace, regime, seed)
        # A run that is stopped has seen all traces.
        for regime in chosen(options.regimes, list(Regime))
        for trace in chosen(options.only, TRACES)
        for seed in seeds
    ]
    console, begun_s, at = Console(), clock.tick_s(), commit()
    # What is not committed has no name under which it could be found again.
    kept = KEPT / at if options.bounds and not options.ray and not at.endswith("+") else None
    with _pool(options) as pool:
        worlds = run([Task(Path(data), case, options.bounds, kept) for case in cases], pool, console)
    show(console, worlds)
    console.print(f"{len(worlds)} worlds in {clock.tick_s() - begun_s:.0f} s")
    file = options.page
    if not (options.only or options.regimes or options.seed) and options.bounds:
        name = "policy_holdout" if options.holdout else "policy"
        record(name, {"promises": msgspec.to_builtins(promises(worlds)), "worlds": msgspec.to_builtins(worlds)})
        file = file or PAGES / f"{name}.html"
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(at, machine(), worlds, promises(worlds), None if options.holdout else _apart()))
        console.print(f"to look at: {file}", markup=False, soft_wrap=True)


def _apart() -> TakenApart | None:
    """What `bench.policy_terms` has found last."""
    file = RESULTS / "policy_terms.json"
    return msgspec.json.decode(file.read_bytes(), type=TakenApart) if file.exists() else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="traces, by name")
    parser.add_argument("--regimes", default="", help="regimes, by name")
    parser.add_argument("--seed", type=int, action="append", default=[], help="other seeds; may be repeated")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at once")
    parser.add_argument("--holdout", action="store_true", help="the rows and seeds that nothing was tuned on")
    parser.add_argument("--ray", action="store_true", help="on a Ray cluster (the extra `ray`)")
    parser.add_argument("--no-bounds", dest="bounds", action="store_false", help="without oracle and schedule")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where the page goes; a whole run has one anyway")
    return parser.parse_args()


if __name__ == "__main__":
    main()
