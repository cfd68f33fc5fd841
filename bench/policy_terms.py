"""What the decision's parts are worth, and what is in its way: the same worlds with one thing otherwise.

    TIDEGATE_DATA=FOLDER python -m bench.policy_terms [--only azure-code] [--regimes load-1.00] [--jobs 2]

The chain tells the router one thing more with each step, and each step has all before it: how long outputs will be,
how many tokens are in a prompt, a vendor and a way there without scatter, reports that are not old. What is left
between its last step and the schedule of who knows everything (`bench/policy.py`) is not to know who comes next.

An ablation takes one thing out of the decision, and nothing else: what is lost is what it is worth there.

Parts are replaced while the package runs, so that nothing in it is there for a benchmark alone; that works on the
package as it is written, and not on the compiled one. Writes bench/results/policy_terms.json, with the regimes that
were left out. All of them take half an hour on two cores; what was found is kept by world, in build/worlds.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from math import inf
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest import mock

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.kept import kept_at, once
from bench.policy_figures import price_factors, tried, unit_usd
from bench.policy_judged import Ablated, Chained, Terms, lost, point
from bench.policy_settings import DEVELOPMENT_SEEDS, TRACES, Regime
from bench.policy_worlds import Case, Makes, Scene, chosen, play, scene
from bench.record import record
from tidegate import clock
from tidegate.core import estimator, hold, router, starts
from tidegate.core.cached import NOTHING
from tidegate.core.length import LengthModel
from tidegate.core.model import Endpoint, Policy, Request, replace
from tidegate.core.output import Length
from tidegate.core.prefix import Prefixes
from tidegate.core.router import Router
from tidegate.core.timing import Timing
from tidegate.core.waiting import Waiting
from tidegate.sim.api import Spread
from tidegate.sim.binder import Binder
from tidegate.sim.practice import MostValue

REGIMES = (
    Regime.LOAD_080,
    Regime.LOAD_100,
    Regime.LOAD_125,
    Regime.CLASSES,
    Regime.SURPRISE,
    Regime.LIMITS,
    Regime.STEP_140,
    Regime.STEP_DRIFT,
    Regime.PREFIX,
    Regime.POOLS,
)
FRESH_PROBE_S = 0.25
"""Reports as old as that are not old: no promise here is shorter."""
# Known to a token, a length still has a spread, since logarithms are taken of it.
_KNOWN_SIGMA = 0.02


class Task(msgspec.Struct, frozen=True):
    """A world that is to be taken apart."""

    data: Path
    case: Case
    kept: Path | None = None


class Told(LengthModel):
    """Knows how long each output will be, and learns nothing."""

    def __init__(self, world: Scene) -> None:
        super().__init__()
        self._tokens = {job.request.id: job.target for job in world.jobs}

    def of(self, request: Request) -> Length:
        """The truth."""
        tokens = float(self._tokens[request.id])
        return Length(tokens, tokens, tokens, _KNOWN_SIGMA, int(tokens))


class Knowing(Router):
    """The router, told how long outputs will be."""

    def __init__(self, world: Scene, endpoints: tuple[Endpoint, ...], policy: Policy) -> None:
        super().__init__(endpoints, policy)
        self._known.lengths = self._known.waiting._lengths = Told(world)


Without = Callable[[ExitStack], Makes]
"""Takes something out, until the stack is left, and tells who decides then."""


def _with(target: object, name: str, otherwise: object) -> Without:
    def takes(stack: ExitStack) -> Makes:
        stack.enter_context(mock.patch.object(target, name, otherwise))
        return Router

    return takes


def _deciding(makes: Makes) -> Without:
    return lambda _: makes


def _unlearned(stack: ExitStack) -> Makes:
    for name in ("first", "judge", "learn", "learn_silence"):
        stack.enter_context(mock.patch.object(Timing, name, _nothing))
    return Router


def _nothing(*_: object, **__: object) -> None:
    """Is not learned."""


ABLATIONS: dict[str, Without] = {
    "holding: each is bound as it comes": _deciding(partial(Binder, MostValue())),
    "order: who came first starts first": _with(hold, "turn", lambda item, _: item.request.arrived_s),
    "making way: only who is late leaves": _with(hold.Table, "_make_way", lambda *_: ([], 0.0)),
    "leaving: who waits stays": _with(hold.Table, "_relieve", lambda *_: False),
    "who is late lets others go first": _with(hold, "turn", lambda item, _: 2 if item.latest_start_s == inf else 0),
    "the slot that is left to who cannot wait": _with(Waiting, "headroom", lambda *_: False),
    "the margin on waits": _with(starts, "LONGER", 0.0),
    "the bound on prompts ahead": _with(estimator, "AHEAD_TOKENS", inf),
    "quantiles: three promises in five are enough": _deciding(
        lambda endpoints, policy: Router(endpoints, replace(policy, quantile=0.6))
    ),
    "learning of times": _unlearned,
    "learning of lengths": _with(LengthModel, "learn", _nothing),
    "what is cached": _with(Prefixes, "cached", lambda *_: NOTHING),
}
"""What is taken out, and how."""


def chain(task: Task) -> Iterator[tuple[str, Scene, Makes]]:
    """One thing more is known with each step."""
    world = scene(task.data, task.case)
    yield "as it is", world, Router
    yield "output lengths", world, partial(Knowing, world)
    world = scene(task.data, task.case, bytes_sigma=0.0)
    yield "tokens of prompts", world, partial(Knowing, world)
    sold = replace(world.sold, ttft_spread=Spread(), tpot_spread=Spread())
    world = msgspec.structs.replace(world, sold=sold, ways=tuple(replace(way, jitter=0.0) for way in world.ways))
    yield "vendor and network", world, partial(Knowing, world)
    yield "reports", msgspec.structs.replace(world, probe_s=FRESH_PROBE_S), partial(Knowing, world)


def take_apart_once(task: Task) -> Terms:
    """All steps and all ablations, unless that was done."""
    return once(task.kept, task.case.name, Terms, lambda: take_apart(task))


def take_apart(task: Task) -> Terms:
    """All steps and all ablations of one world."""
    world = scene(task.data, task.case)
    factors = price_factors(world)
    unit = unit_usd(world, factors)

    def reached(name: str, world: Scene, makes: Makes) -> Chained:
        found = tried(world, name, 0.0, play(world, makes), factors)
        return Chained(knows=name, reached=point(found, unit))

    steps = [reached(name, known, makes) for name, known, makes in chain(task)]
    ablations = []
    for name, without in ABLATIONS.items():
        if name == "what is cached" and task.case.regime is not Regime.PREFIX:
            continue
        with ExitStack() as stack:
            found = reached(name, world, without(stack)).reached
        ablations.append(Ablated(without=name, reached=found))
    return Terms(trace=task.case.trace, regime=task.case.regime, seed=task.case.seed, chain=steps, ablations=ablations)


# --- all of them --------------------------------------------------------------------------------------------------


def show(console: Console, worlds: Sequence[Terms]) -> None:
    """For people."""
    table = Table("without", "worth in the median", "least", "most", "worlds in which it loses")
    for name, by_world in lost(worlds).items():
        found = [value for _, value in by_world]
        losing = sum(value < -0.001 for value in found)
        table.add_row(
            name, f"{median(found):+.4f}", f"{min(found):+.3f}", f"{max(found):+.3f}", f"{losing} of {len(found)}"
        )
    console.print(table)
    names = [step.knows for step in worlds[0].chain]
    table = Table("world", *names)
    for world in worlds:
        first = world.chain[0].reached.value
        rest = [f"{step.reached.value - first:+.3f}" for step in world.chain[1:]]
        table.add_row(world.name, f"{first:.3f}", *rest)
    console.print(table)


def main() -> None:
    """Command line."""
    options = _options()
    data = os.environ.get("TIDEGATE_DATA")
    if not data:
        raise SystemExit("bench.policy_terms reads public traces: name their folder in TIDEGATE_DATA")
    if router.__file__.endswith(".so"):
        raise SystemExit("bench.policy_terms replaces parts of the package: run it without the compiled one")
    regimes = chosen(options.regimes, list(Regime)) if options.regimes else REGIMES
    kept = kept_at("policy_terms")
    tasks = [
        Task(Path(data), Case(trace, regime, seed), kept)
        for regime in regimes
        for trace in chosen(options.only, TRACES)
        for seed in DEVELOPMENT_SEEDS
    ]
    console, begun_s, worlds = Console(), clock.tick_s(), []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task("worlds", total=len(tasks))
        with get_context("spawn").Pool(options.jobs, maxtasksperchild=8) as pool:
            for one in pool.imap_unordered(take_apart_once, tasks):
                worlds.append(one)
                bar.advance(line)
    worlds.sort(key=lambda one: one.name)
    show(console, worlds)
    console.print(f"{len(worlds)} worlds in {clock.tick_s() - begun_s:.0f} s")
    if not options.only:
        left = [regime.value for regime in REGIMES if regime not in regimes]
        record("policy_terms", {"regimes_left": left, "worlds": msgspec.to_builtins(worlds)})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="traces, by name")
    parser.add_argument("--regimes", default="", help="regimes, by name")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="worlds at once")
    return parser.parse_args()


if __name__ == "__main__":
    main()
