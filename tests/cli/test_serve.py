"""What the process of a gateway says of its own faults."""

import json
import subprocess
import sys
from pathlib import Path

from tests.config.test_malformed import GOOD

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
