"""Scenarios as tests of a policy: whether all bounds hold, and what another policy makes of them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidegate.config.load import document, policy_tables, read
from tidegate.config.problem import ConfigError, Problem, join
from tidegate.core.model import Endpoint, Record, replace
from tidegate.sim.outcome import Outcome, side_by_side
from tidegate.sim.preview import (
    Figures,
    Interval,
    blocks_of,
    dear_usd,
    figures_of,
    gained,
    interval,
    judged_by_both,
    pairs_of,
)
from tidegate.sim.report import Mark, report
from tidegate.sim.scenario import OWN, Scenario, load
from tidegate.sim.stage import play
from tidegate.sim.traces import BadTrace


class Tested(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One scenario with one seed: its bounds, or why it could not be played."""

    scenario: str
    seed: int
    marks: tuple[Mark, ...] = ()
    problem: str = ""

    @property
    def broken(self) -> tuple[Mark, ...]:
        """The bounds that do not hold."""
        return tuple(mark for mark in self.marks if not mark.holds)

    @property
    def passed(self) -> bool:
        """Whether it was played, and all of them hold."""
        return not self.problem and not self.broken


class Compared(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One scenario under two policies, all its seeds together. Differences are of the new one, per request, in nine of
    ten runs like these; `broken` bounds held before, and `mended` ones did not. Promises `kept` are of the requests of
    which that is known under both; who is refused for ever by one policy alone is let down by that. Dollars have those
    in them that loads for nobody in particular cost."""

    scenario: str
    seeds: int
    old: Figures
    new: Figures
    saved_usd_per_1k: Interval
    kept_more: Interval
    broken: tuple[str, ...]
    mended: tuple[str, ...]


class Setting(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One setting of a policy that differs; None is not written."""

    path: str
    old: Any
    new: Any


def scenarios(paths: Sequence[Path]) -> list[Path]:
    """The scenarios among these files, and in these folders. ConfigError where there is none, or no file."""
    found = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        found += [file for file in sorted(path.rglob("*.toml")) if _is_scenario(file)]
    if not found:
        shown = ", ".join(os.fspath(path) for path in paths)
        raise ConfigError(
            [Problem(file=shown, path="", message="there is no scenario here", remedy="name a file that has [world]")]
        )
    return found


def _is_scenario(file: Path) -> bool:
    """What is no TOML is said so when it is played."""
    try:
        tables = document(read(os.fspath(file)), os.fspath(file))
    except ConfigError:
        return True
    return not tables.keys().isdisjoint(OWN)


def tested(file: Path, seed: int | None, policy: Path | None) -> Tested:
    """Play it; `seed` and `policy` are its own where they are None."""
    try:
        scenario = load(file, seed=seed, policy=policy)
        played = play(scenario)
    except (ConfigError, BadTrace) as error:
        return Tested(scenario=file.stem, seed=seed or 0, problem=str(error))
    return Tested(scenario=file.stem, seed=scenario.world.seed, marks=report(scenario, "", played).bounds)


def compared(file: Path, seeds: Sequence[int | None], old: Path | None, new: Path | None) -> Compared:
    """Play it under both, with each of the seeds. Raises ConfigError or BadTrace."""
    runs = [_both(file, seed, old, new) for seed in seeds]
    every, judged = _Paired(), _Paired()
    befores: list[Outcome] = []
    afters: list[Outcome] = []
    marks: list[tuple[Mark, Mark]] = []
    for before, after in runs:
        ours, theirs = side_by_side(before.outcomes, after.outcomes)
        befores += ours
        afters += theirs
        pairs = pairs_of(ours, theirs)
        every.add(pairs)
        judged.add(judged_by_both(pairs))
        marks += zip(before.marks, after.marks, strict=True)
    warm_ups_usd = [sum(run.warm_ups_usd for run in some) for some in zip(*runs, strict=True)]
    # What was spent for none of them in particular is shared by all.
    share_usd = (warm_ups_usd[0] - warm_ups_usd[1]) / max(1, len(every.pairs))
    saved = [1000.0 * (a.usd - b.usd + share_usd) for a, b in every.pairs]
    away = {endpoint.name for endpoint in runs[0][1].endpoints if not endpoint.local}
    return Compared(
        scenario=file.stem,
        seeds=len(seeds),
        old=_figures(befores, [a for a, _ in judged.pairs], away, warm_ups_usd[0]),
        new=_figures(afters, [b for _, b in judged.pairs], away, warm_ups_usd[1]),
        saved_usd_per_1k=interval(saved, every.blocks, least=dear_usd(befores)),
        kept_more=interval([float(gained(a, b)) for a, b in judged.pairs], judged.blocks, least=1.0, most=1.0),
        broken=_changed(marks, was=True),
        mended=_changed(marks, was=False),
    )


def settings(old: Path | None, new: Path | None) -> tuple[Setting, ...]:
    """What differs between two policies as they are written. Raises ConfigError."""
    before, after = ({} if policy is None else policy_tables(policy) for policy in (old, new))
    found = _differences((), before, after)
    names = [[one.get("name") for one in policy.get("rule", ())] for policy in (before, after)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        # The first that holds gives the class.
        found.append(Setting(path="rule", old=names[0], new=names[1]))
    return tuple(found)


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario came to, by arrival, and its bounds. Loads for nobody in particular cost `warm_ups_usd`."""

    outcomes: list[Outcome]
    endpoints: tuple[Endpoint, ...]
    warm_ups_usd: float
    marks: tuple[Mark, ...]


class _Paired(msgspec.Struct):
    """The same requests under both policies, and in which stretch of which run each came."""

    pairs: list[tuple[Outcome, Outcome]] = []
    blocks: list[int] = []

    def add(self, pairs: Sequence[tuple[Outcome, Outcome]]) -> None:
        """Those of one more run: its stretches are alike, and those of another are others."""
        first = max(self.blocks, default=-1) + 1
        self.blocks += [first + block for block in blocks_of([a.request.arrived_s for a, _ in pairs])]
        self.pairs += pairs


def _both(file: Path, seed: int | None, old: Path | None, new: Path | None) -> tuple[_Run, _Run]:
    before, after = (load(file, seed=seed, policy=policy) for policy in (old, new))
    return _played(before), _played(after)


def _played(scenario: Scenario) -> _Run:
    played = play(scenario)
    return _Run(
        outcomes=sorted(played.outcomes, key=lambda one: (one.request.arrived_s, one.request.id)),
        endpoints=played.endpoints,
        warm_ups_usd=played.warm_ups_usd,
        marks=report(scenario, "", played).bounds,
    )


def _figures(outcomes: Sequence[Outcome], judged: Sequence[Outcome], away: set[str], warm_ups_usd: float) -> Figures:
    """Of one policy; promises are of those that are `judged` under both."""
    of_judged = figures_of(judged, away)
    found = figures_of(outcomes, away, besides_usd=warm_ups_usd)
    return replace(found, judged=of_judged.judged, kept=of_judged.kept)


def _changed(marks: Sequence[tuple[Mark, Mark]], *, was: bool) -> tuple[str, ...]:
    """Bounds that held with every seed or did not, and with the other policy the other way round."""
    paths = dict.fromkeys(before.path for before, _ in marks)
    found = []
    for path in paths:
        before = all(one.holds for one, _ in marks if one.path == path)
        after = all(one.holds for _, one in marks if one.path == path)
        if before is was and after is not was:
            found.append(path)
    return tuple(found)


def _differences(path: tuple[str, ...], old: Any, new: Any) -> list[Setting]:
    tables = [one for one in (old, new) if isinstance(one, dict)]
    if tables and all(one is None or isinstance(one, dict) for one in (old, new)):
        old, new = old or {}, new or {}
        return [
            found
            for key in sorted(old.keys() | new.keys())
            for found in _differences((*path, key), _by_name(old.get(key)), _by_name(new.get(key)))
        ]
    return [] if old == new else [Setting(path=join(*path), old=old, new=new)]


def _by_name(table: Any) -> Any:
    """Rules have names, by which they are told apart."""
    if isinstance(table, list) and all(isinstance(one, dict) and "name" in one for one in table):
        return {one["name"]: {key: value for key, value in one.items() if key != "name"} for one in table}
    return msgspec.to_builtins(table)
