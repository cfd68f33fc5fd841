"""The process of a gateway: what it says of its own faults, and how it ends."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.test_malformed import GOOD
from tests.http.harness import eventually

CONFIG = (
    '[gateway]\nlisten = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\nlog = "log"\ndrain_s = 0\ndashboard = false\n' + GOOD
)
# A gateway with a fault: a task of its loop fails, and then it goes down as by a signal.
FAULTY = """
import asyncio, os, signal, sys
from tidegate.cli.main import main
from tidegate.gateway.app import Gateway

begin = Gateway.start

async def start(gateway):
    await begin(gateway)
    asyncio.get_running_loop().call_soon(int, "what a client has said")
    asyncio.get_running_loop().call_later(0.0, os.kill, os.getpid(), signal.SIGTERM)

Gateway.start = start
sys.exit(main(["serve", "--config", sys.argv[1]]))
"""


# One whose disk hangs when the journal is to be made to last.
HUNG = """
import sys, threading
from tidegate.cli.main import main
from tidegate.telemetry.worker import Worker

Worker._settle = lambda worker: threading.Event().wait()
sys.exit(main(["serve", "--config", sys.argv[1]]))
"""


def test_its_log_says_what_kind_of_fault_it_was_and_nobody_what_that_quotes(tmp_path: Path) -> None:
    config = tmp_path / "tidegate.toml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", FAULTY, str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "log").read_text()
    faults = [line for line in map(json.loads, log.splitlines()) if line["event"] == "fault of ours"]
    assert [line["error"].split()[0] for line in faults] == ["ValueError"]
    assert "what a client has said" not in log + done.stderr


@pytest.mark.lengthy
async def test_a_second_signal_ends_it_at_once_also_where_its_disk_hangs(tmp_path: Path) -> None:
    config, log = tmp_path / "tidegate.toml", tmp_path / "log"
    config.write_text(CONFIG)

    def listens() -> bool:
        return log.exists() and '"listening"' in log.read_text()

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HUNG, str(config), stderr=subprocess.DEVNULL)
    try:
        await eventually(listens)
        port = next(line["port"] for line in map(json.loads, log.read_text().splitlines()) if "port" in line)
        process.send_signal(signal.SIGTERM)
        await eventually_refused(port)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20.0) == 128 + signal.SIGTERM
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def eventually_refused(port: int) -> None:
    """Return once nobody listens there any more."""
    async with asyncio.timeout(20.0):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
