"""A gateway in a process of its own, as a user starts it."""

import asyncio
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

HOST = "127.0.0.1"
LISTENS = """\
[gateway]
listen = "{host}:{port}"
admin = "{host}:{admin}"
log = "log"
journal = "journal"
"""


def free_ports(count: int) -> list[int]:
    """So many ports that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((HOST, 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def served(config: Path) -> Process:
    """It has said that it listens."""
    command = [sys.executable, "-m", "tidegate.cli.main", "serve", "--json", "--config", str(config)]
    gateway = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, start_new_session=True)
    assert gateway.stdout is not None
    assert await gateway.stdout.readline(), "the gateway did not start"
    return gateway
