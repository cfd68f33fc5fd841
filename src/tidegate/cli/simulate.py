"""`tidegate simulate`: a scenario played, and what came of it as a table, as JSON and as a page."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import get_args

import msgspec
from rich.console import Console
from rich.progress import Progress

from tidegate import __version__
from tidegate.cli.figures import print_report
from tidegate.config.problem import ConfigError, Problem, nearest
from tidegate.core.baseline import BASELINES
from tidegate.core.model import Line
from tidegate.sim.page import page
from tidegate.sim.recorded import TraceFormat
from tidegate.sim.report import report
from tidegate.sim.rival import Rival
from tidegate.sim.scenario import Scenario, load
from tidegate.sim.stage import Played, play
from tidegate.sim.traces import BadTrace
from tidegate.telemetry.segments import SegmentName

STDOUT = Path("-")
BUFFER_BYTES = 1 << 20  # a journal of some MB a second is written in few calls
_OWN = "own"


def simulate(options: argparse.Namespace) -> int:
    """Play it: 0 where every bound holds, 1 where one is broken, 2 where it was asked wrongly."""
    baseline = options.policy if options.policy in BASELINES else None
    scenario = _load(options, baseline)
    decider = None if baseline is None else Rival(BASELINES[baseline], scenario.endpoints, scenario.policy)
    with _journal(options.journal, scenario) as write, _progress(scenario) as progress:
        played = _play(scenario, decider, write, progress)
    name = _OWN if options.policy is None else options.policy
    found = report(scenario, name, played)
    if options.html is not None:
        _write(options.html, "--html", page(found).encode())
    encoded = msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    if options.json == STDOUT:
        sys.stdout.write(encoded.decode())
        return 0 if found.holds else 1
    if options.json is not None:
        _write(options.json, "--json", encoded)
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
    write: Callable[[Line], None] | None,
    progress: Callable[[float], None] | None,
) -> Played:
    try:
        software = f"tidegate {__version__}"
        return play(scenario, decider=decider, journal=write, software=software, progress=progress)
    except BadTrace as error:
        raise _refuse("--trace", str(error), "repair the trace, or name its format") from None


@contextmanager
def _journal(folder: Path | None, scenario: Scenario) -> Iterator[Callable[[Line], None] | None]:
    """What writes a line into a new segment in this folder; nothing without one."""
    if folder is None:
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _, fd = SegmentName.first(scenario.start_s).create(folder)
    except OSError as error:
        raise _refuse("--journal", f"{folder}: {error.strerror}", "name a folder that can be written to") from None
    encode = msgspec.json.Encoder().encode
    with os.fdopen(fd, "wb", buffering=BUFFER_BYTES) as file:
        assert isinstance(file, BufferedWriter)
        yield lambda line: _line(file, encode(line))


def _line(file: BufferedWriter, encoded: bytes) -> None:
    file.write(encoded)
    file.write(b"\n")


@contextmanager
def _progress(scenario: Scenario) -> Iterator[Callable[[float], None] | None]:
    """What moves the bar, where there is somebody to see it."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(scenario.name, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _write(file: Path, option: str, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise _refuse(option, f"{file}: {error.strerror}", "name a file that can be written") from None


def _refuse(option: str, message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file="tidegate simulate", path=option, message=message, remedy=remedy)])
