"""`tidegate audit`: how far from the best possible the decisions of a journal are, and what would bring most."""

import argparse
import sys

from rich.progress import Progress

from tidegate import clock
from tidegate.cli.figures import print_sheet
from tidegate.cli.output import Console, print_json
from tidegate.core.overlap import overlap_text
from tidegate.core.replay import ReplayError
from tidegate.sim.audit import Audit, Row, audit
from tidegate.sim.observed import ObservedError, known, observe
from tidegate.sim.preview_page import points
from tidegate.sim.sheet import Sheet, share
from tidegate.sim.twin import twin
from tidegate.telemetry.journal import JournalError, read
from tidegate.telemetry.reading import asked_in, files, written

SHOWN = 5
"""Rules and changes, the best of them."""
HANDED = (
    "Prompts may be computed elsewhere here and handed over. Neither the bound nor the schedule knows of that: whoever "
    "does it may exceed the bound"
)
"""A limit of what nobody exceeds."""


def run(options: argparse.Namespace) -> int:
    """Audit it: 0, 1 where the journal does not tell enough, 2 where it cannot be read, or nothing is
    written in it."""
    stderr = Console(stderr=True)
    try:
        paths = files(options.journal)
        observed = observe(written(options.journal, read(options.journal)))
        if observed.overlapping:
            print(f"tidegate audit: {overlap_text(observed.overlapping)}", file=sys.stderr)
        world = twin(observed, known(read(asked_in(paths)[-1])))
        with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
            task = bar.add_task("playing", total=1.0)
            found = audit(world, observed.policy, lambda part: bar.update(task, completed=part))
    except JournalError as error:
        print(f"tidegate audit: {error}", file=sys.stderr)
        return 2
    except (ObservedError, ReplayError) as error:
        print(f"tidegate audit: {error}", file=sys.stderr)
        return 1
    if options.json:
        print_json(found)
    else:
        show(Console(highlight=False), found)
    return 0


def show(console: Console, found: Audit) -> None:
    """For people."""
    console.print(
        f"The busiest {found.requests} requests, {clock.iso(found.start_s)} to {clock.iso(found.end_s)}, in a "
        "simulated twin of this installation",
        soft_wrap=True,
    )
    rows = [found.policy, *found.rules[:SHOWN], found.reached]
    names = [one.name for one in rows[:-1]] + [f"the best that was reached ({found.reached.name})"]
    columns = ("", "value, $/1k", "kept", "$/1k", "better, $/1k", "from", "to")
    cells = [_cells(name, one) for name, one in zip(names, rows, strict=True)]
    cells.append(("nobody exceeds", f"{found.bound_per_1k:.4g}", "", "", "", "", ""))
    console.print()
    print_sheet(console, Sheet(columns, tuple(cells)))
    console.print()
    console.print(gap_text(found), soft_wrap=True, markup=False)
    console.print(recommended_text(found), soft_wrap=True, markup=False)
    if found.handed:
        console.print(HANDED, soft_wrap=True, markup=False)


def gap_text(found: Audit) -> str:
    """What is between the policy and the bound, and of what it consists."""
    gap, missing = found.gap, found.bound_per_1k - found.policy.value_per_1k
    return (
        f"${missing:.3g} of a thousand requests are missing to what nobody exceeds: {gap.staleness:+.3g} for reports "
        f"of load that are old, {gap.prediction:+.3g} for lengths that nobody knows, {gap.myopia:+.3g} for not knowing "
        f"who comes next, and {gap.slack:+.3g} that nobody was seen to reach ({share(found.wide)} of the bound)"
    )


def recommended_text(found: Audit) -> str:
    """The one change that is better beyond chance, or that there is none."""
    if found.recommended is None:
        return "No other setting that was tried is better beyond chance"
    change = next(one for one in found.changes if one.name == found.recommended)
    return (
        f"Recommended: {change.name}, worth ${change.better.figure:+.3g} of a thousand requests "
        f"({change.better.low:+.3g} to {change.better.high:+.3g}), {points(change.kept - found.policy.kept)} of "
        "promises kept; tidegate preview shows whom it changes"
    )


def _cells(name: str, one: Row) -> tuple[str, ...]:
    better = one.better
    return (
        name,
        f"{one.value_per_1k:.4g}",
        share(one.kept),
        f"{one.usd_per_1k:.4g}",
        f"{better.figure:+.3g}",
        f"{better.low:+.3g}",
        f"{better.high:+.3g}",
    )
