"""`tidegate simulate`: a scenario played, and what came of it as a table, as JSON and as a page."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec

from tidegate import __version__
from tidegate.cli.figures import print_report
from tidegate.cli.output import (
    Bar,
    Console,
    bars,
    check_no_journal,
    check_writable,
    lines_into,
    refuse,
    segment,
    while_read,
    write,
)
from tidegate.config.problem import ConfigError, nearest
from tidegate.core.baseline import BASELINES
from tidegate.core.model import Line
from tidegate.sim.page import page
from tidegate.sim.recorded import TraceFormat
from tidegate.sim.report import report
from tidegate.sim.rival import Rival
from tidegate.sim.scenario import Scenario, load
from tidegate.sim.stage import Played, play
from tidegate.sim.traces import BadTrace

STDOUT = Path("-")
_OWN = "own"


def simulate(options: argparse.Namespace) -> int:
    """Play it: 0 where every bound holds, 1 where one is broken, 2 where it was asked wrongly."""
    baseline = options.policy if options.policy in BASELINES else None
    scenario = _load(options, baseline)
    check_writable("simulate", options.html, "--html")
    check_writable("simulate", None if options.json == STDOUT else options.json, "--json")
    check_no_journal("simulate", options.journal)
    decider = None if baseline is None else Rival(BASELINES[baseline], scenario.endpoints, scenario.policy)
    written = None if options.journal is None else segment("simulate", options.journal, scenario.start_s)
    with lines_into(written) as line, bars() as bar:
        played = _play(scenario, decider, line, bar(scenario.name))
    name = _OWN if options.policy is None else options.policy
    found = report(scenario, name, played)
    if options.html is not None:
        write("simulate", options.html, "--html", page(found).encode())
    encoded = msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    if options.json not in (None, STDOUT):
        write("simulate", options.json, "--json", encoded)
    with while_read():
        if options.json == STDOUT:
            sys.stdout.buffer.write(encoded)
        else:
            print_report(Console(highlight=False), found)
    return 0 if found.holds else 1


def _load(options: argparse.Namespace, baseline: str | None) -> Scenario:
    formats = get_args(TraceFormat)
    if options.trace_format not in (None, *formats):
        raise _refuse("--trace-format", "there is no such format", nearest(options.trace_format, formats))
    if (options.trace is None) != (options.trace_format is None):
        raise _refuse("--trace", "a trace and its format go together", "give --trace FILE --trace-format FORMAT")
    if baseline is not None and options.journal is not None:
        raise _refuse(
            "--journal", "a baseline's decisions are none that replay could reproduce", "leave out one of the two"
        )
    policy = None if options.policy is None or baseline is not None else Path(options.policy)
    if policy is not None and not policy.exists():
        raise _refuse(
            "--policy", f"`{policy}` is neither a file nor a baseline", f"baselines are {', '.join(BASELINES)}"
        )
    trace = None if options.trace is None else (options.trace, options.trace_format)
    return load(options.scenario, policy=policy, trace=trace, seed=options.seed)


def _play(
    scenario: Scenario,
    decider: Rival | None,
    line: Callable[[Line], None] | None,
    progress: Bar,
) -> Played:
    try:
        software = f"tidegate {__version__}"
        return play(scenario, decider=decider, journal=line, software=software, progress=progress)
    except BadTrace as error:
        raise _refuse("--trace", str(error), "repair the trace, or name its format") from None


def _refuse(option: str, message: str, remedy: str) -> ConfigError:
    return refuse("simulate", option, message, remedy)
