"""How long the gateway's loop of events is held: `make bench-turns`.

    PYTHONPATH=build/compiled python -m bench.turns [--loads "W1 W2 W6"] [--rounds 3]

Whoever comes while the loop is at work waits until its turn ends. What is counted is the CPU of each turn, between two
looks for more (`bench/rig/turns.c`, loaded before the gateway): alone, with one request after the other, where a turn
is what a single step of a request takes; and under the whole load, where it is what all steps take that are due at
once, which is a queue and not a step. The metric `tidegate_loop_lag_seconds` is late by the whole turn, and by
whatever else took the core.

A machine that is lent takes its core back without telling, and that counts as CPU. So each round also does, on the same
core, a piece of work that is the same each time, for two or three milliseconds (`steady`): what is longest of a
thousand of these is not the gateway's doing.
"""

import argparse
import mmap
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.loads import LOADS, Load
from bench.record import chosen, record
from bench.relay import named, raise_file_limit
from bench.relay_figures import Figures, Rows, summed
from bench.relay_sitting import pinned
from bench.relays import TIDEGATE, gateway_of, running
from bench.rig import FLAGS, SOURCES, Rig

ENDPOINTS = 4
PLACES, STEP_US = 20_000, 10  # as turns.c has them
SIZE_BYTES = 8 * (PLACES + 1)
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
WARM_REQUESTS = 200
ALONE_REQUESTS = 1_000
STEADY = "steady"
STEADY_COPIES, STEADY_BYTES = 25, 2_000_000


class Turns:
    """The counts of a gateway under way."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(SIZE_BYTES))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), SIZE_BYTES)

    def clear(self) -> None:
        """Count from now on."""
        self._mapped[:] = bytes(SIZE_BYTES)

    def figures(self) -> Figures:
        """What so many of the turns did not exceed, and the longest, in milliseconds; and how many there were."""
        *counts, longest = struct.unpack(f"{PLACES + 1}Q", self._mapped[:])
        total, found, seen = sum(counts), {}, 0
        left = {name: share * total for name, share in QUANTILES.items()}
        for place, count in enumerate(counts):
            if not count:
                continue
            seen += count
            # A step's upper end, and of the last place the longest's: no turn is told shorter than it was.
            upper_ms = (longest if place == PLACES - 1 else place + 1) * STEP_US / 1e3
            for name in [name for name, rank in left.items() if seen >= rank]:
                found[name] = upper_ms
                del left[name]
            found["max_ms"] = upper_ms
        return {**found, "turns": float(total)}


def steady(pieces: int = ALONE_REQUESTS) -> Figures:
    """The same of pieces of work that are all alike: copies within memory, on the gateway's core."""
    source, target, took_ms = bytes(STEADY_BYTES), bytearray(STEADY_BYTES), list[float]()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        for _ in range(pieces):
            since_ns = time.thread_time_ns()
            for _ in range(STEADY_COPIES):
                target[:] = source
            took_ms.append((time.thread_time_ns() - since_ns) / 1e6)
    finally:
        os.sched_setaffinity(0, cores)
    took_ms.sort()
    found = {name: took_ms[int(share * len(took_ms))] for name, share in QUANTILES.items()}
    return {**found, "max_ms": took_ms[-1], "turns": float(len(took_ms))}


def built(folder: Path) -> Path:
    """What counts them, to be loaded before a program."""
    library = folder / "turns.so"
    command = ["gcc", *FLAGS, "-shared", "-fPIC", "-o", str(library), str(SOURCES / "turns.c")]
    subprocess.run(command, check=True)
    return library


def main() -> None:
    """Load it, print each figure, and write all down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", default="W1 W2 W4 W6", help=f"of {' '.join(LOADS)}")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    raise_file_limit()
    loads = [LOADS[name] for name in named(options.loads, list(LOADS), "load")]
    found: dict[str, dict[str, list[Figures]]] = {load.name: {"alone": [], "all": []} for load in loads}
    found[STEADY] = {"alone": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name, how, figures in _round(Path(folder), loads):
                found[name][how].append(figures)
                told = ", ".join(f"{key} {value:.2f}" for key, value in figures.items())
                print(f"round {number + 1}, {name}, {how}: {told}", flush=True)
    rows: Rows = {name: {how: summed(ones) for how, ones in by_how.items()} for name, by_how in found.items()}
    about = {load.name: load.about for load in loads}
    result = {"rounds": options.rounds, "loads": about, "rows": msgspec.to_builtins(rows)}
    record("turns", result, choice=chosen(parser, options))


def _round(folder: Path, loads: Sequence[Load]) -> list[tuple[str, str, Figures]]:
    """One gateway under each load, alone and all, and what is the same before each: load, which, and figures."""
    library, file = built(folder), folder / "turns"
    turns, rig, found = Turns(file), Rig(folder, pinned(-1)), []
    relay = gateway_of(TIDEGATE, {"LD_PRELOAD": str(library), "TURNS_FILE": str(file)})
    with rig.engine(ENDPOINTS) as engines, running(relay, engines, None, pinned(0)) as one:
        for load in loads:
            body = folder / f"{load.name}.json"
            body.write_bytes(load.body())
            alone = msgspec.structs.replace(
                load.ask, connections=1, requests=max(1, ALONE_REQUESTS // max(1, load.ask.chunks)), ramp_s=0.0
            )
            found.append((STEADY, "alone", steady()))
            for how, ask in (("alone", alone), ("all", load.ask)):
                rig.load(one.port, body, msgspec.structs.replace(ask, requests=WARM_REQUESTS), one.headers)
                turns.clear()
                said = rig.load(one.port, body, ask, one.headers)
                assert not said.failed, f"{load.name}: {said.failed} requests failed: {said.errors}"
                found.append((load.name, how, turns.figures()))
    return found


if __name__ == "__main__":
    main()
