"""The verb that shows a journal in a browser."""

import argparse
import asyncio
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path

import uvloop

from tidegate.cli.output import print_json
from tidegate.clock import Clock
from tidegate.config.address import Address, is_loopback, parse_address
from tidegate.config.load import read
from tidegate.dashboard.app import Dashboard
from tidegate.dashboard.parent import Parent
from tidegate.telemetry.log import Log
from tidegate.telemetry.reading import JournalError, absent, segments_of

LOW = 5
"""The path of requests comes first."""


class DamagedError(Exception):
    """The index cannot be used any more."""


def run(options: argparse.Namespace) -> int:
    """Show it until SIGTERM or SIGINT; 1 where that is not possible, 2 where it was asked wrongly. ConfigError where
    the configuration cannot be read."""
    if options.beside:
        os.nice(LOW)
        return _ran(_beside())
    try:
        address = parse_address(options.listen)
    except ValueError as error:
        print(f"tidegate dashboard: --listen: {error}; write host:port, as in 127.0.0.1:8403", file=sys.stderr)
        return 2
    if not is_loopback(address.host):
        print(
            "tidegate dashboard: --listen: whoever reaches it sees the journal, so it is for this machine alone; "
            "beyond it, a gateway's dashboard asks for gateway.admin_key",
            file=sys.stderr,
        )
        return 2
    if options.config is not None:
        read(str(options.config), "name the gateway's file, or leave out --config")
    try:
        if segments_of(options.journal) is None:
            raise absent(options.journal, "folder")
    except JournalError as error:
        print(f"tidegate dashboard: {error}", file=sys.stderr)
        return 1
    return _ran(_alone(options, address), "; see --listen and --journal")


def _ran(dashboard: Coroutine[None, None, None], remedy: str = "") -> int:
    """The status that it ends with, once it does; `remedy` is what to do where it cannot start."""
    try:
        uvloop.run(dashboard)
    except OSError as error:
        print(f"tidegate dashboard: cannot start: {error}{remedy}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        place = tempfile.gettempdir()
        print(
            f"tidegate dashboard: cannot start: there can be no index, neither beside the journal nor in {place} "
            f"(see TMPDIR): {error}",
            file=sys.stderr,
        )
        return 1
    except DamagedError as error:
        print(f"tidegate dashboard: {error}", file=sys.stderr)
        return 1
    return 0


async def _alone(options: argparse.Namespace, address: Address) -> None:
    clock = Clock()
    log = Log.to(None, clock)
    stop = asyncio.Event()
    dashboard = Dashboard(options.journal, clock, log, config=options.config, on_damage=stop.set)
    await dashboard.start(address.host, address.port)
    shown = f"http://{Address(address.host, dashboard.port)}/"
    if options.json:
        print_json({"url": shown, "port": dashboard.port}, flush=True)
    else:
        print(f"tidegate dashboard: {shown}", file=sys.stderr, flush=True)
    await _until(dashboard, log, stop)


async def _beside() -> None:
    """As a gateway has it: what there is to show stands on the input, and when that ends, so does this."""
    clock = Clock()
    log = Log.to(None, clock)
    parent = await Parent.meet()
    journal = Path(parent.begun.journal) if parent.begun.journal else None
    config = Path(parent.begun.config) if parent.begun.config else None
    dashboard = Dashboard(journal, clock, log, parent=parent, config=config, on_damage=parent.gone.set)
    await dashboard.start("127.0.0.1", 0)
    parent.ready(dashboard.port)
    await _until(dashboard, log, parent.gone)
    await parent.close()


async def _until(dashboard: Dashboard, log: Log, stop: asyncio.Event) -> None:
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    try:
        await stop.wait()
    finally:
        await dashboard.stop()
        log.close()
    if dashboard.damaged:
        raise DamagedError("its index was damaged, and is removed; started again, it makes it anew")
