"""How good the decision is: against what people use, the strongest simple rules, and what nobody can do better than.

    TIDEGATE_DATA=FOLDER python -m bench.policy [--only azure-code,mooncake] [--regimes load-1.00,limits] [--jobs 2]

In each world (`bench/policy_worlds.py`) Tidegate decides once, as it comes, with nothing tuned. Each rule of
`bench/policy_rules.py` decides with every value of its knob, and the best are chosen in hindsight. Above all of them
stand a schedule found by somebody who knows everything (`sim/clairvoyant.py`), and a bound that no schedule exceeds,
whoever made it (`sim/oracle.py`).

A whole run writes bench/results/policy.json and a page to look at, build/policy.html, with `_holdout` in their names
where that is asked for; `--page FILE` makes the page of any run. `--holdout` takes the rows and the seed that nothing
was tuned on, and is for the end. What was found is kept by world, in build/worlds: a run that was stopped goes on where
it was, on the same commit. With `--ray` the worlds are played by all machines of a Ray cluster (`RAY_ADDRESS`; without
one, by this machine), which need the package, and the traces in the same place.
"""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.kept import kept_at
from bench.policy_judge import Task, judge_once
from bench.policy_judged import Judged, TakenApart, promises
from bench.policy_page import page
from bench.policy_settings import DEVELOPMENT_SEEDS, HOLDOUT_SEEDS, TRACES, Regime
from bench.policy_worlds import Case, chosen
from bench.record import RESULTS, commit, machine, record
from tidegate import clock

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build"


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


def run(found: Iterable[Judged], count: int, console: Console) -> list[Judged]:
    """Wait for them all."""
    worlds = []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("worlds", total=count)
        for one in found:
            worlds.append(one)
            bar.advance(line)
    return sorted(worlds, key=lambda one: one.name)


def _here(tasks: Sequence[Task], jobs: int) -> Iterator[Judged]:
    """By processes on this machine."""
    with get_context("spawn").Pool(jobs, maxtasksperchild=8) as pool:
        yield from pool.imap_unordered(judge_once, tasks)


def _on_ray(tasks: Sequence[Task]) -> Iterator[Judged]:
    """By all machines of a cluster."""
    try:
        import ray
    except ImportError:
        raise SystemExit("--ray needs Ray: pip install 'tidegate[ray]'") from None
    ray.init(runtime_env={"working_dir": str(ROOT), "excludes": [".git", ".venv", "build"]}, log_to_driver=False)
    remote = ray.remote(judge_once)
    left = [remote.remote(task) for task in tasks]
    while left:
        done, left = ray.wait(left)
        yield from ray.get(done)


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
    console, begun_s = Console(), clock.tick_s()
    kept = kept_at("policy") if options.bounds and not options.ray else None
    tasks = [Task(Path(data), case, options.bounds, kept) for case in cases]
    worlds = run(_on_ray(tasks) if options.ray else _here(tasks, options.jobs), len(tasks), console)
    show(console, worlds)
    console.print(f"{len(worlds)} worlds in {clock.tick_s() - begun_s:.0f} s")
    file = options.page
    if not (options.only or options.regimes or options.seed) and options.bounds:
        name = "policy_holdout" if options.holdout else "policy"
        record(name, {"promises": msgspec.to_builtins(promises(worlds)), "worlds": msgspec.to_builtins(worlds)})
        file = file or PAGES / f"{name}.html"
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(commit(), machine(), worlds, promises(worlds), None if options.holdout else _apart()))
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
