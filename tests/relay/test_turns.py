"""What is told of turns is no shorter than they were."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from bench.turns import PLACES, STEP_US, Turns, built, steady

COUNTED_MS = PLACES * STEP_US / 1e3
LONG_S = 1.25 * COUNTED_MS / 1e3
LOOP = """
import select, sys, time
loop = select.epoll()
for cpu_s in (float(sys.argv[1]), *[0.0] * 9):
    loop.poll(0)
    until_s = time.thread_time() + cpu_s
    while time.thread_time() < until_s:
        pass
loop.poll(0)
"""


def counted(file: Path, place: int, count: int, longest: int) -> None:
    with file.open("r+b") as opened:
        for at, value in ((place, count), (PLACES, longest)):
            opened.seek(8 * at)
            opened.write(struct.pack("Q", value))


def test_a_turn_is_told_by_the_upper_end_of_its_step(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "turns")
    counted(tmp_path / "turns", 2, 5, 3)
    assert turns.figures() == {"p50_ms": 0.03, "p99_ms": 0.03, "p999_ms": 0.03, "max_ms": 0.03, "turns": 5.0}
    turns.clear()
    assert turns.figures() == {"turns": 0.0}


def test_work_that_is_always_the_same_is_told_as_turns_are_and_leaves_the_process_its_cores() -> None:
    cores = os.sched_getaffinity(0)
    figures = steady(5)
    assert os.sched_getaffinity(0) == cores
    assert figures["turns"] == 5.0
    assert 0.0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["p999_ms"] <= figures["max_ms"]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_a_turn_that_is_longer_than_what_is_counted_is_told_as_long_as_it_was(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "turns")
    loaded = {"LD_PRELOAD": str(built(tmp_path)), "TURNS_FILE": str(tmp_path / "turns")}
    subprocess.run([sys.executable, "-c", LOOP, str(LONG_S)], env={**os.environ, **loaded}, check=True)
    figures = turns.figures()
    assert figures["turns"] == 10.0
    assert figures["max_ms"] == figures["p999_ms"] >= 1e3 * LONG_S > COUNTED_MS
    assert figures["p50_ms"] < figures["max_ms"]
