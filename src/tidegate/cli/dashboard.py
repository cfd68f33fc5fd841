"""The verb that shows a journal in a browser."""

import argparse
import asyncio
import signal
import sys

import msgspec
import uvloop

from tidegate.clock import Clock
from tidegate.config.address import Address, is_loopback, parse_address
from tidegate.dashboard.app import Dashboard
from tidegate.telemetry.log import Log


def run(options: argparse.Namespace) -> int:
    """Show it until SIGTERM or SIGINT; 1 where that is not possible, 2 where it was asked wrongly."""
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
    if not options.journal.is_dir():
        print(f"tidegate dashboard: {options.journal}: there is no such folder; see gateway.journal", file=sys.stderr)
        return 1
    try:
        uvloop.run(_serve(options, address))
    except OSError as error:
        print(f"tidegate dashboard: cannot start: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace, address: Address) -> None:
    stop = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    clock = Clock()
    log = Log.to(None, clock)
    dashboard = Dashboard(options.journal, clock, log)
    await dashboard.start(address.host, address.port)
    try:
        shown = f"http://{Address(address.host, dashboard.port)}/"
        if options.json:
            print(msgspec.json.encode({"url": shown, "port": dashboard.port}).decode(), flush=True)
        else:
            print(f"tidegate dashboard: {shown}", file=sys.stderr, flush=True)
        await stop.wait()
    finally:
        await dashboard.stop()
        log.close()
