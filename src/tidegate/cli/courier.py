"""The verb that runs a courier."""

import argparse
import asyncio
import signal
import sys

import uvloop

from tidegate.cli.output import print_json
from tidegate.clock import Clock
from tidegate.config.courier import CourierConfig, load
from tidegate.courier.app import Courier
from tidegate.courier.folder import FolderError
from tidegate.telemetry.log import Log


def run(options: argparse.Namespace) -> int:
    """Run it until SIGTERM or SIGINT; 1 where it cannot start."""
    config = load(options.config)
    try:
        uvloop.run(_serve(config, as_json=options.json))
    except (OSError, FolderError) as error:
        print(f"tidegate courier: cannot start: {error}; see [courier] in {config.file}", file=sys.stderr)
        return 1
    return 0


async def _serve(config: CourierConfig, *, as_json: bool) -> None:
    stop = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    clock = Clock()
    courier, log = Courier(config, clock), Log.to(None, clock)
    await courier.start(log)
    try:
        if as_json:
            print_json({"name": config.courier.name, "port": courier.port}, flush=True)
        else:
            host, name = config.listen.host, config.courier.name
            print(f"tidegate courier {name}: https://{host}:{courier.port}", file=sys.stderr, flush=True)
        await stop.wait()
    finally:
        await courier.stop()
        log.close()
