"""`tidegate test` and `tidegate policy diff`: scenarios as tests of a policy, in the CI of whoever writes it."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from xml.etree.ElementTree import Element, SubElement, tostring

import msgspec
from rich.markup import escape

from tidegate.cli.figures import print_sheet
from tidegate.cli.output import Bar, Console, bars, check_writable, print_json, refuse, while_read, write
from tidegate.core.model import Record
from tidegate.sim.preview import Interval
from tidegate.sim.preview_page import points
from tidegate.sim.sheet import MISSING, Sheet, mark, share
from tidegate.sim.suite import Compared, Setting, Tested, compared, scenarios, settings, tested
from tidegate.sim.traces import BadTrace
from tidegate.telemetry.cores import LostError, on_cores

# The policy that a scenario has itself.
OWN = "-"
_Work = TypeVar("_Work")
_Played = TypeVar("_Played")


class Difference(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is printed as JSON."""

    settings: tuple[Setting, ...]
    scenarios: tuple[Compared, ...]


def test(options: argparse.Namespace) -> int:
    """Play them: 0 where every bound of every scenario holds with every seed, else 1. Raises ConfigError."""
    check_writable("test", options.junit, "--junit")
    files = scenarios(options.scenarios)
    work = [(file, seed, options.policy) for file in files for seed in _seeds(options.seeds)]
    found = _side_by_side("test", _tested, work, options.jobs)
    if options.junit is not None:
        write("test", options.junit, "--junit", junit(found))
    with while_read():
        if options.json:
            print_json(found)
        else:
            show(Console(highlight=False), found)
    return 0 if all(one.passed for one in found) else 1


def diff(options: argparse.Namespace) -> int:
    """Play them under both: 1 where the new policy breaks a bound that held, else 0. Raises ConfigError."""
    check_writable("policy diff", options.markdown, "--markdown")
    old, new = _policy("OLD", options.old), _policy("NEW", options.new)
    differs = settings(old, new)
    files = scenarios(options.scenarios)
    work = [(file, _seeds(options.seeds), old, new) for file in files]
    try:
        found = _side_by_side("policy diff", _compared, work, options.jobs)
    except BadTrace as error:
        raise refuse("policy diff", "SCENARIO", str(error), "repair the trace, or name its format") from None
    if options.markdown is not None:
        write("policy diff", options.markdown, "--markdown", markdown(differs, found).encode())
    with while_read():
        if options.json:
            print_json(Difference(settings=differs, scenarios=tuple(found)))
        else:
            show_diff(Console(highlight=False), differs, found)
    return 1 if any(one.broken for one in found) else 0


# --- what was found -----------------------------------------------------------------------------------------------


def show(console: Console, found: Sequence[Tested]) -> None:
    """A line for each, and under it what is broken."""
    for one in found:
        word = "[green]passed[/]" if one.passed else "[bold red]failed[/]"
        console.print(f"{word}  {escape(one.scenario)}, seed {one.seed}: {len(one.marks)} bounds", soft_wrap=True)
        for broken in one.broken:
            console.print(f"        {mark(broken)}", soft_wrap=True, markup=False)
        if one.problem:
            console.print(f"        {one.problem}", soft_wrap=True, markup=False)
    failed = sum(not one.passed for one in found)
    console.print(f"{len(found) - failed} passed, {failed} failed")


def junit(found: Sequence[Tested]) -> bytes:
    """As build servers read results of tests."""
    failures = sum(bool(one.broken) for one in found)
    errors = sum(bool(one.problem) for one in found)
    suite = Element(
        "testsuite", name="tidegate test", tests=str(len(found)), failures=str(failures), errors=str(errors)
    )
    for one in found:
        case = SubElement(suite, "testcase", classname=one.scenario, name=f"seed {one.seed}")
        if one.problem:
            SubElement(case, "error", message=one.problem)
        elif one.broken:
            SubElement(case, "failure", message="; ".join(mark(broken) for broken in one.broken))
    written: bytes = tostring(suite, encoding="utf-8", xml_declaration=True)
    return written


def show_diff(console: Console, differs: Sequence[Setting], found: Sequence[Compared]) -> None:
    """What is written otherwise, and what comes of it."""
    for one in differs:
        console.print(f"{one.path}: {_written(one.old)} -> {_written(one.new)}", soft_wrap=True, markup=False)
    if not differs:
        console.print("nothing is written otherwise")
    console.print()
    print_sheet(console, sheet(found))
    for word, bounds in _bounds(found):
        console.print(f"{word}: {bounds}", soft_wrap=True, markup=False)


def markdown(differs: Sequence[Setting], found: Sequence[Compared]) -> str:
    """The same for the discussion of a change."""
    rows = sheet(found)
    lines = ["### What this policy changes", ""]
    lines += [f"- `{one.path}`: {_written(one.old)} → {_written(one.new)}" for one in differs]
    lines += [] if differs else ["Nothing is written otherwise."]
    lines += ["", _row(rows.columns), _row(["---"] * len(rows.columns)), *(_row(row) for row in rows.rows), ""]
    lines += [f"**{word}**: {bounds}" for word, bounds in _bounds(found)]
    return "\n".join(lines) + "\n"


def sheet(found: Sequence[Compared]) -> Sheet:
    """Old and new of each scenario, and the differences with their intervals."""
    columns = ("", "requests", "kept", "new", "away", "new", "$/1k", "new", "kept more", "saved, $/1k")
    rows = [
        (
            one.scenario,
            str(one.new.requests),
            _share(one.old.kept),
            _share(one.new.kept),
            share(one.old.away),
            share(one.new.away),
            f"{one.old.usd_per_1k:.4g}",
            f"{one.new.usd_per_1k:.4g}",
            _between(one.kept_more, points),
            _between(one.saved_usd_per_1k, lambda usd: f"{usd:+.3g}"),
        )
        for one in found
    ]
    return Sheet(columns, tuple(rows))


def _share(value: float | None) -> str:
    return MISSING if value is None else share(value)


def _between(one: Interval, said: Callable[[float], str]) -> str:
    return f"{said(one.figure)} ({said(one.low)} to {said(one.high)})"


def _bounds(found: Sequence[Compared]) -> Iterator[tuple[str, str]]:
    for word, named in (("broken", "broken"), ("mended", "mended")):
        bounds = [f"{one.scenario} {path}" for one in found for path in getattr(one, named)]
        if bounds:
            yield word, ", ".join(bounds)


def _written(value: object) -> str:
    return "(not written)" if value is None else msgspec.json.encode(value).decode()


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- playing ------------------------------------------------------------------------------------------------------


def _seeds(count: int | None) -> list[int | None]:
    """A scenario's own, or so many."""
    return [None] if count is None else list(range(count))


def _policy(name: str, text: str) -> Path | None:
    if text == OWN:
        return None
    path = Path(text)
    if not path.is_file():
        remedy = f"name a file with [policy], [class] and [[rule]], or `{OWN}` for the scenarios' own"
        raise refuse("policy diff", name, f"there is no file {text}", remedy)
    return path


def _side_by_side(verb: str, play: Callable[[_Work], _Played], work: Sequence[_Work], jobs: int) -> list[_Played]:
    """In the order in which they were asked, on so many cores. Raises what `play` does, or ConfigError."""
    found = []
    with bars() as bar:
        moved: Bar = bar("playing")
        try:
            for count, one in enumerate(on_cores(play, work, min(jobs, len(work))), 1):
                found.append(one)
                moved(count / len(work))
        except LostError:
            message = "a simulation ended before its end; is there memory enough?"
            raise refuse(verb, "--jobs", message, "play fewer at once") from None
    return found


def _tested(work: tuple[Path, int | None, Path | None]) -> Tested:
    return tested(*work)


def _compared(work: tuple[Path, list[int | None], Path | None, Path | None]) -> Compared:
    return compared(*work)
