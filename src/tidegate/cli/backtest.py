"""`tidegate backtest`: how far the simulator is from this installation, and whether that is too far."""

import argparse
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from tidegate import clock
from tidegate.cli.figures import print_sheet
from tidegate.cli.output import Bar, Console, bars, check_writable, print_json, refuse, replacing, while_read
from tidegate.core.model import Line
from tidegate.core.overlap import overlap_text
from tidegate.core.replay import ReplayError
from tidegate.sim.backtest import Backtest, Off, backtest, cut_s, parts, world
from tidegate.sim.observed import ObservedError, known, observe
from tidegate.sim.preview_page import points
from tidegate.sim.sheet import Sheet, share
from tidegate.sim.twin import played
from tidegate.telemetry.journal import JournalError, read
from tidegate.telemetry.reading import asked_in, files, read_if_there, written

_SHARES = ("kept", "away")
# For Prometheus' node exporter, which reads such files (`--collector.textfile.directory`).
_METRICS = (
    ("tidegate_simulator_error", "How far the simulator is from this installation, by figure.", "error"),
    ("tidegate_simulator_drifted", "1 where that is further than it may be, beyond chance.", "beyond"),
)


def run(options: argparse.Namespace) -> int:
    """Hold it against what came: 0, 1 where something is too far off, 2 where the journal does not tell enough."""
    check_writable("backtest", options.publish, "--publish")
    try:
        with bars() as bar:
            found = _tested(options, bar("reading the journal"), bar("playing"))
    except (JournalError, ObservedError, ReplayError) as error:
        print(f"tidegate backtest: {error}", file=sys.stderr)
        return 2
    if options.publish is not None:
        _publish(options.publish, found)
    with while_read():
        if options.json:
            print_json(found)
        else:
            show(Console(highlight=False), found)
    return 1 if found.drifted else 0


def show(console: Console, found: Backtest) -> None:
    """For people."""
    console.print(
        f"A twin of {found.fitted} requests, asked the {found.tested} that came from {clock.iso(found.start_s)} to "
        f"{clock.iso(found.end_s)}",
        soft_wrap=True,
    )
    if found.unended:
        console.print(
            f"{found.unended} requests are in neither, since a process or the journal ended before they did.",
            soft_wrap=True,
        )
    columns = ("", "came", "simulated", "off", "from", "to", "may be", "")
    print_sheet(console, Sheet(columns, tuple(_row(one) for one in found.off)))
    alarm = f"[bold red]alarm[/]: {', '.join(found.drifted)}" if found.drifted else "no alarm"
    console.print(alarm)


def _row(one: Off) -> tuple[str, ...]:
    errors = (one.error, one.low, one.high, one.within)
    if one.figure in _SHARES:
        came, simulated, off = share(one.live), share(one.simulated), [points(error) for error in errors]
    else:
        unit = "$" if one.figure == "dollars" else "s"
        came, simulated = f"{one.live:.4g} {unit}", f"{one.simulated:.4g} {unit}"
        off = [f"{error:+.1%}" for error in errors]
    return (one.figure, came, simulated, *off, "too far" if one.beyond else "")


def _tested(options: argparse.Namespace, reading: Bar, playing: Bar) -> Backtest:
    paths = files(options.journal)
    observed = observe(written(options.journal, _lines(paths, reading)))
    if observed.overlapping:
        print(f"tidegate backtest: {overlap_text(observed.overlapping)}", file=sys.stderr)
    at_s = cut_s(observed)
    before, after = parts(observed, at_s)
    # What was known then, from the segment in which that was: each one begins with what was known.
    router = known(takewhile(lambda line: line.at_s < at_s, _lines([_segment(asked_in(paths), at_s)])))
    twin = world(before, after, router)
    outcomes = played(twin, observed.policy, progress=playing)
    return backtest(before, after, outcomes, ratio=options.ratio, share=options.points / 100.0)


def _segment(paths: list[Path], at_s: float) -> Path:
    """The last one that has begun by then."""
    found = paths[0]
    for path in paths:
        first = next(read_if_there(path), None) if len(paths) > 1 else None
        if first is not None and first.at_s < at_s:
            found = path
    return found


def _lines(paths: list[Path], bar: Bar = lambda _: None) -> Iterator[Line]:
    for count, path in enumerate(paths, 1):
        yield from read(path) if len(paths) == 1 else read_if_there(path)
        bar(count / len(paths))


def _publish(file: Path, found: Backtest) -> None:
    lines = []
    for name, text, field in _METRICS:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{figure="{one.figure}"}} {float(getattr(one, field)):.6g}' for one in found.off]
    try:
        # Whoever reads meanwhile reads the one before.
        with replacing(file) as beside:
            beside.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise refuse("backtest", "--publish", f"{file}: {error.strerror}", "name a file that can be written") from None
