"""CPU of the gateway per request and per streamed chunk, everything on: `make bench-relay RIG=FOLDER`.

The rig is a folder with `mock.c` (an upstream), `lg.c` (a load generator) and `mkbodies.py`. The gateway has the first
core, the rig the last. CPU is what the kernel counted for all threads of the gateway while the load ran, divided by the
requests or events that completed. In turn with it run the same gateway interpreted, and the bare relay of
`bench/passthrough.py`.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.cpu import cpu_s
from bench.record import record
from tidegate.clock import sleep_s, tick_s

CONFIG = """
[gateway]
listen = "127.0.0.1:{port}"
admin = "127.0.0.1:{admin}"
journal = "{folder}/journal"
log = "{folder}/log"
[site.rack]
local = true
[endpoint.a]
site = "rack"
engine = "openai"
url = "http://127.0.0.1:{mock}"
serves = ["mock-model"]
context_tokens = 1000000
concurrency = 600
[site.cloud]
local = false
[endpoint.b]
site = "cloud"
engine = "openai"
url = "http://127.0.0.1:{mock}"
serves = ["mock-model"]
context_tokens = 1000000
price = {{ usd_per_1m_input_tokens = 1.0, usd_per_1m_output_tokens = 2.0 }}
"""

KINDS = ("tidegate", "tidegate interpreted", "passthrough")
LOADS = {
    "W1": (["-b", "w1.json", "-c", "32", "-n", "30000"], "ok"),
    "W2": (["-b", "w2.json", "-c", "32", "-n", "3000"], "ok"),
    "W4": (["-S", "-b", "w4.json", "-c", "500", "-n", "1500"], "events"),
}


def main() -> None:
    """Run every load against both, in turn, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rig", type=Path, required=True, help="folder with mock.c, lg.c and mkbodies.py")
    parser.add_argument("--compiled", type=Path, required=True, help="folder of the compiled package")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not (options.rig / "mock.c").is_file():
        sys.exit(f"no mock.c in {options.rig}; name the rig's folder with RIG=...")
    found: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in LOADS}
    with tempfile.TemporaryDirectory() as folder, _rig(options.rig, Path(folder)) as (rig, mock):
        for number in range(options.rounds):
            for relay in KINDS:
                with _relay(relay, mock, rig, options.compiled) as (port, pid):
                    _load(rig, port, LOADS["W1"][0][:-1] + ["2000"])  # warm
                    for name, (arguments, unit) in LOADS.items():
                        before_s = cpu_s(pid)
                        said = _load(rig, port, arguments)
                        us = (cpu_s(pid) - before_s) * 1e6 / said[unit]
                        found[name][relay].append(us)
                        print(f"round {number + 1} {relay:22} {name}: {us:7.1f} us, {said['err']} errors", flush=True)
    rows = {
        name: {
            relay: {"us_median": round(median(v), 1), "us_min": round(min(v), 1), "us_max": round(max(v), 1)}
            for relay, v in by.items()
        }
        for name, by in found.items()
    }
    record("relay", {"cpu_us": rows, "units": {"W1": "request", "W2": "request", "W4": "chunk"}})


@contextmanager
def _rig(source: Path, folder: Path) -> Iterator[tuple[Path, int]]:
    """Build the rig in a copy, and run its mock on the last core."""
    rig = folder / "rig"
    shutil.copytree(source, rig)
    for name in ("mock", "lg"):
        subprocess.run(["gcc", "-O2", "-w", "-o", name, f"{name}.c"], cwd=rig, check=True)
    subprocess.run([sys.executable, "mkbodies.py"], cwd=rig, check=True)
    port = _free_port()
    mock = subprocess.Popen([*_pinned(-1), "./mock", str(port)], cwd=rig, stderr=subprocess.DEVNULL)
    try:
        _await_port(port)
        yield rig, port
    finally:
        mock.kill()
        mock.wait()


@contextmanager
def _relay(kind: str, mock: int, rig: Path, compiled: Path) -> Iterator[tuple[int, int]]:
    """The gateway, or the bare relay, on the first core."""
    port = _free_port()
    environment = os.environ | ({"PYTHONPATH": str(compiled.resolve())} if kind == "tidegate" else {})
    with tempfile.TemporaryDirectory(dir=rig) as folder:
        if kind != "passthrough":
            config = Path(folder) / "tidegate.toml"
            config.write_text(CONFIG.format(port=port, admin=_free_port(), folder=folder, mock=mock))
            command = ["-m", "tidegate.cli.main", "serve", "--config", str(config)]
        else:
            command = ["-m", "bench.passthrough", "--listen", str(port), "--upstream", str(mock)]
        child = subprocess.Popen([*_pinned(0), sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
        try:
            _await_port(port)
            yield port, child.pid
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()


def _load(rig: Path, port: int, arguments: list[str]) -> dict[str, Any]:
    said = subprocess.run(
        [*_pinned(-1), "./lg", "-p", str(port), *arguments], cwd=rig, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def _pinned(index: int) -> list[str]:
    return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[index])]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    until_s = tick_s() + 15.0
    while tick_s() < until_s:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            sleep_s(0.05)
        else:
            return
    sys.exit(f"nothing listens on port {port}")


if __name__ == "__main__":
    main()
