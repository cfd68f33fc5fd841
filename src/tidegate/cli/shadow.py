"""`tidegate shadow`: what Tidegate would have made of what another gateway has served, by its log."""

import argparse
import sys
from functools import partial
from pathlib import Path

from tidegate.cli.figures import print_sheet
from tidegate.cli.output import (
    Bar,
    Console,
    bars,
    check_no_journal,
    check_writable,
    print_json,
    refuse,
    segment,
    write,
)
from tidegate.cli.side_by_side import Play, side_by_side
from tidegate.config.config import Config
from tidegate.config.load import load_unreached
from tidegate.config.problem import nearest
from tidegate.core.replay import ReplayError
from tidegate.sim.adopted import Adopted, AdoptError, adopt
from tidegate.sim.decider import AtOnce
from tidegate.sim.foreign import BadLog, read
from tidegate.sim.observed import ObservedError, known, observe
from tidegate.sim.purse import Purse
from tidegate.sim.shadow import Shadow, as_billed, shadow
from tidegate.sim.shadow_page import headline, page, remarks, sheets, verdict
from tidegate.sim.twin import twin


def run(options: argparse.Namespace) -> int:
    """Play it: 0, 1 where the log does not tell enough, 2 where it cannot be read, or is none. ConfigError where an
    option cannot be followed."""
    check_writable("shadow", options.html, "--html")
    check_no_journal("shadow", options.journal)
    config = load_unreached(options.config)
    at = _places(options.at or [], config)
    try:
        with bars() as bar:
            reading = bar("reading the log")
            adopted = adopt(read(options.log), config, at)
            reading(1.0)
            found = _played(adopted, options.journal, bar("as it was"), bar("Tidegate"))
    except (BadLog, AdoptError, ObservedError, ReplayError) as error:
        print(f"tidegate shadow: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadLog) else 1
    if options.html is not None:
        write("shadow", options.html, "--html", page(found, str(options.log)).encode())
    if options.json:
        print_json(found)
    else:
        show(Console(highlight=False), found)
    return 0


def show(console: Console, found: Shadow) -> None:
    """For people, what it is worth first."""
    console.print(f"[bold]{headline(found)}[/]", soft_wrap=True)
    console.print()
    console.print(verdict(found), soft_wrap=True, markup=False)
    for title, sheet in sheets(found):
        console.print(f"\n[dim]{title}[/]")
        print_sheet(console, sheet)
    console.print()
    for text in remarks(found):
        console.print(text, soft_wrap=True, markup=False)


def _played(adopted: Adopted, folder: Path | None, was: Bar, would: Bar) -> Shadow:
    """As each request was sent, and as Tidegate sends it, which begins with nothing learned."""
    observed = observe(adopted.lines)
    world = twin(observed, known(adopted.lines))
    theirs = Play(policy=adopted.policy, bar=was, decider=partial(AtOnce, adopted.where))
    written = None if folder is None else segment("shadow", folder, world.start_s)
    purse = Purse(adopted.caps, paced=adopted.paced)
    ours = Play(policy=adopted.policy, bar=would, purse=purse, segment=written)
    before, after = side_by_side(world, (theirs, ours))
    return shadow(adopted, as_billed(observed, adopted), before, after)


def _places(told: list[str], config: Config) -> dict[str, str]:
    """Which endpoint each NAME=ENDPOINT names. Raises ConfigError."""
    found = {}
    for one in told:
        name, _, endpoint = one.rpartition("=")
        if not name:
            raise refuse("shadow", "--at", f"`{one}` names no endpoint", "write --at NAME=ENDPOINT")
        if endpoint not in config.endpoints:
            raise refuse("shadow", "--at", f"there is no endpoint `{endpoint}`", nearest(endpoint, config.endpoints))
        found[name] = endpoint
    return found
