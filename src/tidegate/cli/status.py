"""`tidegate status`: how a running gateway is, at a glance and for monitors."""

import argparse
import sys

from rich.markup import escape
from rich.table import Table

from tidegate.cli.live import Live, Shown, UnreachableError, address, look
from tidegate.cli.output import Console, print_json, print_table, while_read
from tidegate.telemetry.counts import RATIOS

WELL, UNWELL, UNREACHABLE = 0, 1, 2
_COLOURS = {"up": "green", "down": "bold red", "broken": "bold red", "drained": "yellow"}


def run(options: argparse.Namespace) -> int:
    """Print it: 0 where all is well, 1 where it is not ready, nothing can be paid for or an endpoint does not serve, 2
    where it is not reached.

    ConfigError where nobody says where it is.
    """
    at = address(options.admin, options.config)
    try:
        live = look(at)
    except UnreachableError as error:
        with while_read():
            if options.json:
                print_json({"unreachable": str(error)})
            else:
                print(f"tidegate status: {error}", file=sys.stderr)
        return UNREACHABLE
    with while_read():
        if options.json:
            print_json(live)
        else:
            show(Console(highlight=False), live)
    return WELL if live.well else UNWELL


def show(console: Console, live: Live) -> None:
    """For people: what holds of all, then each endpoint, and why it is down. Colours repeat what words say."""
    console.print(headline(live), soft_wrap=True, style="bold" if live.well else "bold red")
    if live.spending_problem:
        console.print(live.spending_problem, soft_wrap=True, markup=False)
    table = Table(
        "endpoint", "side", "state", "in flight", "queued", "ttft s", "of predicted", "failed", "usd",
        box=None, header_style="bold", padding=(0, 1, 0, 0),
    )  # fmt: skip
    for one in live.endpoints:
        cells = [escape(cell) for cell in row(one)]
        colour = _COLOURS.get(one.state, "yellow")
        cells[2] = f"[{colour}]{cells[2]}[/]"
        table.add_row(*cells)
    print_table(console, table)
    for reason in reasons(live):
        console.print(escape(reason), soft_wrap=True)


def reasons(live: Live) -> list[str]:
    """Why those are down that are, a line for each."""
    return [f"{one.name} is down: {one.down_because}" for one in live.endpoints if one.down_because]


def headline(live: Live) -> str:
    """What holds of all of it, in a line."""
    said = ["ready" if live.ready else "not ready"]
    if live.static:
        said.append("static rule")
    if live.spending_problem:
        said.append("nothing can be paid for")
    said += [f"{live.in_flight} in flight", f"{live.held} held"]
    if live.offloaded is not None:
        said.append(f"{live.offloaded:.0%} offloaded")
    if live.usd_today is not None:
        said.append(f"${live.usd_today:.4f} of ${live.usd_per_day:.2f} today")
    said.append(f"${live.usd:.4f} since start")
    return ", ".join(said)


def _times(ratio: float) -> str:
    """Beyond its last step a histogram tells nothing."""
    return f"x{ratio:.2f}" if ratio < RATIOS[-1] else f">x{RATIOS[-1]:g}"


def row(one: Shown) -> list[str]:
    """The cells of one endpoint, in the order of the table."""
    return [
        one.name,
        "local" if one.local else "remote",
        one.state + (", pinned" if one.pinned else ""),
        f"{one.in_flight}/{one.at_once}",
        "-" if one.queued is None else f"{one.queued:.0f}",
        "-" if one.ttft_s is None else f"{one.ttft_s:.3g}",
        "-" if one.actual_to_predicted is None else _times(one.actual_to_predicted),
        f"{one.failed}/{one.attempts}",
        f"{one.usd:.4f}",
    ]
