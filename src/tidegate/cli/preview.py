"""`tidegate preview`: another policy on yesterday's traffic, in a twin of the installation."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tidegate.cli.figures import print_sheet
from tidegate.cli.output import Bar, Console, bars, check_writable, print_json, write
from tidegate.cli.side_by_side import Play, side_by_side
from tidegate.core.model import Line, Record
from tidegate.core.replay import ReplayError
from tidegate.sim.changed import Changed, changed
from tidegate.sim.observed import Observed, ObservedError, known, observe
from tidegate.sim.preview import Preview, preview
from tidegate.sim.preview_page import affected, changes, figures, headline, notes, page, robust_text
from tidegate.sim.robust import Robust, robust
from tidegate.sim.twin import twin
from tidegate.telemetry.journal import JournalError, read
from tidegate.telemetry.reading import asked_in, files, read_if_there, written


class Previewed(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is printed as JSON. `robust` is None where nothing was explored."""

    preview: Preview
    robust: Robust | None


def run(options: argparse.Namespace) -> int:
    """Preview it: 0, 1 where the journal does not tell enough, 2 where it cannot be read, or nothing is
    written in it. ConfigError where the policy is wrong."""
    check_writable("preview", options.html, "--html")
    try:
        paths = files(options.journal)
        with bars() as bar:
            observed = observe(written(options.journal, _lines(paths, bar("reading the journal"))))
            other = changed(
                options.policy, observed.policy, observed.endpoints, (one.request for one in observed.asked)
            )
            last = asked_in(paths)[-1]
            world = twin(observed, known(read(last)))
            was = Play(policy=observed.policy, bar=bar("as it was"))
            would = Play(policy=other.policy, bar=bar("as it would be"), changed=other)
            before, after = side_by_side(world, (was, would))
        estimate = _by_trying(last, observed, other)
    except JournalError as error:
        print(f"tidegate preview: {error}", file=sys.stderr)
        return 2
    except (ObservedError, ReplayError) as error:
        print(f"tidegate preview: {error}", file=sys.stderr)
        return 1
    found = preview(observed, before, after)
    if options.html is not None:
        write("preview", options.html, "--html", page(found, estimate, str(options.policy)).encode())
    if options.json:
        print_json(Previewed(preview=found, robust=estimate))
    else:
        show(Console(highlight=False), found, estimate)
    return 0


def show(console: Console, found: Preview, estimate: Robust | None) -> None:
    """For people, what it is worth first."""
    console.print(f"[bold]{headline(found)}[/]", soft_wrap=True)
    for sheet in (figures(found), changes(found), affected(found)):
        console.print()
        print_sheet(console, sheet)
    console.print()
    for text in (robust_text(estimate), *notes(found)):
        console.print(text, soft_wrap=True, markup=False)


def _lines(paths: Sequence[Path], bar: Bar) -> Iterator[Line]:
    for number, path in enumerate(paths):
        yield from read(path) if len(paths) == 1 else read_if_there(path)
        bar((number + 1) / len(paths))


def _by_trying(last: Path, observed: Observed, other: Changed) -> Robust | None:
    """From the last segment alone: it has as many decisions as there is time for."""
    if not observed.policy.explore_share:
        return None
    return robust(read(last), other, (one.outcome for one in observed.asked))
