"""`tidegate switchback`: how two policies compare that are tried by turns on live traffic."""

import argparse
import sys

from msgspec.structs import asdict

from tidegate.cli.figures import print_sheet
from tidegate.cli.output import Console, print_json, while_read
from tidegate.config.load import load_unreached
from tidegate.core.model import replace
from tidegate.core.switchback import Bounds, Standing, Tally, Verdict, standing
from tidegate.gateway.trial import FileError, read, settings_of
from tidegate.sim.sheet import MISSING, Sheet, number, share

_SAID = {
    Verdict.GOES_ON: "It is not known yet which is better.",
    Verdict.HARM: "The candidate does harm beyond chance, and was stopped.",
    Verdict.COLLAPSED: "The candidate kept less than half as many promises as the policy of the file, in two of its "
    "blocks in a row, and was stopped.",
    Verdict.BETTER: "The candidate is better beyond chance. Write it into the configuration to keep it.",
    Verdict.UNDECIDED: "All pairs are over, and it is not known which is better.",
}


class Told(Standing, frozen=True, kw_only=True, omit_defaults=False):
    """What is printed as JSON. `problem` is why the gateway stopped the trial before a verdict; empty where it did
    not."""

    problem: str


def run(options: argparse.Namespace) -> int:
    """Show what is written down: 0, or 1 where nothing is, harm was done, or the trial was stopped."""
    config = load_unreached(options.config)
    file = config.file.parent / config.switchback.file
    try:
        kept = read(file)
    except FileError as error:
        print(f"tidegate switchback: {error}", file=sys.stderr)
        return 1
    if kept is None:
        remedy = "no pair of blocks is over" if config.switchback.policy else "write [switchback] policy, and serve"
        print(f"tidegate switchback: there is no {file}: {remedy}", file=sys.stderr)
        return 1
    if kept.settings != settings_of(config):
        print(f"tidegate switchback: {file} is of other settings than {config.file} and its candidate", file=sys.stderr)
        return 1
    found = standing(kept.pairs, config.switchback.pairs_max)
    if kept.verdict is not Verdict.GOES_ON:
        found = replace(found, verdict=kept.verdict)
    with while_read():
        if options.json:
            print_json(Told(**asdict(found), problem=kept.problem))
        else:
            show(Console(highlight=False), found, kept.problem)
    return 1 if kept.problem or found.verdict in (Verdict.HARM, Verdict.COLLAPSED) else 0


def show(console: Console, found: Standing, problem: str = "") -> None:
    """For people. `problem` is why it does not go on, if so."""
    short = f", and {found.short} with too few requests" if found.short else ""
    if problem:
        console.print(f"It was stopped: {problem}.", soft_wrap=True, markup=False, style="bold red")
    console.print(f"[bold]{_SAID[found.verdict]}[/] {found.pairs} pairs of blocks{short}.", soft_wrap=True)
    arms = tuple(_arm(name, one) for name, one in (("as is", found.as_is), ("candidate", found.candidate)))
    print_sheet(console, Sheet(("", "requests", "kept", "$/1k", "value, $/1k"), arms))
    rows = (
        ("value, $/1k", _cells(found.value_usd, 1000.0)),
        ("dollars, $/1k", _cells(found.usd, 1000.0)),
        ("kept, points", _cells(found.kept, 100.0)),
    )
    console.print()
    print_sheet(console, Sheet(("candidate - as is", "", "from", "to"), tuple((name, *cells) for name, cells in rows)))


def _arm(name: str, one: Tally) -> tuple[str, ...]:
    return (
        name,
        number(one.requests),
        share(one.share),
        f"{1000.0 * one.usd_each:.4g}",
        f"{1000.0 * one.value_usd_each:.4g}",
    )


def _cells(bounds: Bounds | None, factor: float) -> tuple[str, ...]:
    if bounds is None:
        return MISSING, MISSING, MISSING
    return tuple(MISSING if one is None else f"{factor * one:+.4g}" for one in (bounds.mean, bounds.low, bounds.high))
