"""The verb that runs a provider which misbehaves."""

import argparse
import asyncio
import signal
import sys

from rich.table import Table

from tidegate.cli.output import Console, print_json, print_table
from tidegate.engines.faults import EXPECTED, FAULTS, Kind
from tidegate.lab.chaos import Chaos, Row

_AIM = """\
Give a base URL to any client or gateway that speaks the OpenAI protocol, with any key and any model:

    curl {url}/chat/completions -d '{{"model": "any", "messages": [], "stream": true}}'

A provider without a fault is at {good}; what was seen of each is at {seen}."""


def chaos(options: argparse.Namespace) -> int:
    """Run it until it is interrupted; 1 where a port cannot be had."""
    try:
        asyncio.run(_run(options))
    except BrokenPipeError:
        raise  # whoever reads the list has seen enough, which says nothing of a port
    except OSError as error:
        print(f"tidegate chaos: cannot start: {error}; choose other ports with --port", file=sys.stderr)
        return 1
    return 0


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with Chaos(port=options.port) as provider:
        rows = [row for row in provider.rows() if not options.only or row.fault in options.only]
        if options.json:
            print_json(rows, flush=True)
        else:
            show(Console(highlight=False), rows, provider.base_url())
        await stop.wait()


def show(console: Console, rows: list[Row], good: str) -> None:
    """For people. `good` is the base URL of the provider without a fault."""
    for kind in Kind:
        found = [row for row in rows if row.kind is kind]
        if not found:
            continue
        console.print(f"[bold]{kind.value.replace('_', ' ')}[/]: {EXPECTED[kind]}", soft_wrap=True)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 2))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True, style="cyan")
        table.add_column()
        for row in found:
            table.add_row(row.fault.value, row.base_url, row.meaning)
        print_table(console, table)
    # The example is one that answers, and soon.
    answering = (row.base_url for row in rows if not row.waits and not FAULTS[row.fault].below_http)
    seen = good.removesuffix("/v1") + "/seen"
    console.print(_AIM.format(url=next(answering, good), good=good, seen=seen), soft_wrap=True, markup=False)
