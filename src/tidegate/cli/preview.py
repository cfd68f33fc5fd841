"""`tidegate preview`: another policy on yesterday's traffic, in a twin of the installation."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress

from tidegate.cli.figures import table
from tidegate.config.problem import ConfigError, Problem
from tidegate.core.model import Line, Policy, Record
from tidegate.core.replay import ReplayError
from tidegate.sim.changed import Changed, changed
from tidegate.sim.observed import Observed, ObservedError, known, observe
from tidegate.sim.outcome import Outcome
from tidegate.sim.preview import Preview, preview
from tidegate.sim.preview_page import affected, changes, figures, headline, notes, page, robust_text
from tidegate.sim.robust import Robust, robust
from tidegate.sim.twin import Twin, played, twin
from tidegate.telemetry.journal import JournalError, read
from tidegate.telemetry.reading import files, read_if_there

_Bar = Callable[[float], None]


class Previewed(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is printed as JSON. `robust` is None where nothing was explored."""

    preview: Preview
    robust: Robust | None


def run(options: argparse.Namespace) -> int:
    """Preview it: 0, or 1 where the journal does not tell enough. ConfigError where the policy is wrong."""
    console = Console(stderr=True)
    try:
        paths = files(options.journal)
        with _bars(console) as bar:
            observed = observe(_lines(paths, bar("reading the journal")))
            other = changed(
                options.policy, observed.policy, observed.endpoints, (one.request for one in observed.asked)
            )
            world = twin(observed, known(read(paths[-1])))
            before, after = _both(world, observed.policy, other, bar("as it was"), bar("as it would be"))
        estimate = _by_trying(paths[-1], observed, other)
    except (JournalError, ObservedError, ReplayError) as error:
        print(f"tidegate preview: {error}", file=sys.stderr)
        return 1
    found = preview(observed, before, after)
    if options.html is not None:
        _write(options.html, page(found, estimate, str(options.policy)).encode())
    if options.json:
        print(msgspec.json.encode(Previewed(preview=found, robust=estimate)).decode())
    else:
        show(Console(highlight=False), found, estimate)
    return 0


def show(console: Console, found: Preview, estimate: Robust | None) -> None:
    """For people, what it is worth first."""
    console.print(f"[bold]{headline(found)}[/]", soft_wrap=True)
    for sheet in (figures(found), changes(found), affected(found)):
        console.print()
        console.print(table(sheet))
    console.print()
    for text in (robust_text(estimate), *notes(found)):
        console.print(text, soft_wrap=True, markup=False)


def _lines(paths: Sequence[Path], bar: _Bar) -> Iterator[Line]:
    for number, path in enumerate(paths):
        yield from read(path) if len(paths) == 1 else read_if_there(path)
        bar((number + 1) / len(paths))


def _by_trying(last: Path, observed: Observed, other: Changed) -> Robust | None:
    """From the last segment alone: it has as many decisions as there is time for."""
    if not observed.policy.explore_share:
        return None
    return robust(read(last), other, (one.outcome for one in observed.asked))


def _both(world: Twin, policy: Policy, other: Changed, was: _Bar, would: _Bar) -> tuple[list[Outcome], list[Outcome]]:
    """What it comes to under both, side by side in processes of their own."""
    context = get_context("spawn")
    bars: dict[Connection, _Bar] = {}
    done: dict[Connection, list[Outcome]] = {}
    processes = []
    for bar, asked, change in ((was, policy, None), (would, other.policy, other)):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_play, args=(there, world, asked, change), daemon=True)
        process.start()
        there.close()
        bars[here] = bar
        processes.append(process)
    order = list(bars)
    try:
        while len(done) < len(order):
            for pipe in wait([one for one in order if one not in done]):
                assert isinstance(pipe, Connection)
                try:
                    told = pipe.recv()
                except EOFError:
                    raise ObservedError("a simulation ended before its end; is there memory enough?") from None
                if isinstance(told, float):
                    bars[pipe](told)
                else:
                    done[pipe] = told
    finally:
        for process in processes:
            process.kill()
    return done[order[0]], done[order[1]]


def _play(pipe: Connection, world: Twin, policy: Policy, change: Changed | None) -> None:
    pipe.send(played(world, policy, changed=change, progress=pipe.send))


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str], _Bar]]:
    """What makes bars that show how far something has come, where there is somebody to see them."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def bar(text: str) -> _Bar:
            task = progress.add_task(text, total=1.0)
            return lambda share: progress.update(task, completed=share)

        yield bar


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        problem = Problem(
            file="tidegate preview",
            path="--html",
            message=f"{file}: {error.strerror}",
            remedy="name a file that can be written",
        )
        raise ConfigError([problem]) from None
