"""File descriptors: each connection takes one, and shells and service managers grant few unless they are asked."""

import asyncio
import errno
import fcntl
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from tidegate.config.config import Config
from tidegate.core.model import Endpoint
from tidegate.gateway.app import Gateway
from tidegate.gateway.fleet import PROBE_CONNECTIONS
from tidegate.gateway.outage import MORE_FILES
from tidegate.telemetry.log import Log

# Files, listeners, operators' connections and the pipes of other processes: those that are not counted one by one.
OTHERS: Final = 200
LEAST: Final = 64  # with fewer the loop does not even begin, or nobody is served
LOOK_S: Final = 1.0  # nobody notices for so long that none are left


def raise_limit() -> None:
    """Have as many as this process may give itself. OSError where these are too few for anything."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems grant fewer than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < LEAST and limit != resource.RLIM_INFINITY:
        raise OSError(errno.EMFILE, f"it may open {limit} files, and {LEAST} are the least")


def reserve(config: Config, endpoints: tuple[Endpoint, ...]) -> None:
    """Have the kernel make its table of them as large as it may become, which is 8 bytes each.

    It doubles when more are opened, and once there are threads that stops whoever opens one for 10 to 30 ms, and all
    streams of the loop with it. So this is to be called before there are any.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _needed(config, endpoints)
    last = (needed if limit == resource.RLIM_INFINITY else min(needed, limit)) - 1
    with suppress(OSError), Path(os.devnull).open("rb") as file:
        os.close(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, last))


def check(config: Config, endpoints: tuple[Endpoint, ...], log: Log) -> None:
    """Warn where they are too few for all the connections that may be open at once."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if (needed := _needed(config, endpoints)) > limit != resource.RLIM_INFINITY:
        remedy = f"{MORE_FILES}, or lower gateway.connections_max"
        log.event("warning", "file descriptors may run out", needed=needed, limit=limit, remedy=remedy)


async def watches(gateway: Gateway) -> None:
    """Have it told when none are left, until this is cancelled: who connects then is cut off before it is seen here."""
    while True:
        if _spent():
            gateway.dispatch.lacks_descriptors(gateway.clock.now_s())
        await asyncio.sleep(LOOK_S)


def _needed(config: Config, endpoints: tuple[Endpoint, ...]) -> int:
    pools = sum(endpoint.concurrency + PROBE_CONNECTIONS for endpoint in endpoints)
    return config.gateway.connections_max + pools + OTHERS


def _spent() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
