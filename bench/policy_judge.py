"""One world, in which everybody decides."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from bench.kept import once
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
from bench.policy_judged import Judged, point
from bench.policy_rules import TODAY, rules
from bench.policy_worlds import Case, play, scene
from tidegate.core.router import Router
from tidegate.sim.binder import Binder

OURS = "tidegate"


class Task(msgspec.Struct, frozen=True):
    """A world that is to be played by all. What is found is kept in a file of that folder, where there is one."""

    data: Path
    case: Case
    bounded: bool
    kept: Path | None = None


def judge_once(task: Task) -> Judged:
    """Compare, unless that was done."""
    return once(task.kept, task.case.name, Judged, lambda: judge(task))


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
