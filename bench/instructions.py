"""Instructions of decisions, of learning and of a simulated world: the figure that nothing else on a machine moves.

    python -m bench.instructions            prints a table and writes bench/results/instructions.json

What `bench.decide`, `bench.learn` and `bench.simulate` time is done once more under valgrind (callgrind), each case in
a process of its own that has itself counted from when all is ready. Of the kernel nothing is counted, and a miss of a
cache counts as little as a hit: it tells whether a change does more or less, and CPU time what that costs.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench import decide, simulate
from bench.record import record

DECISIONS = 500
HELD_DECISIONS = 50
LEARNED = 500
CANDIDATES = 16
LEARN, SIMULATE = "learn", "simulate"
COUNT_S = 1_800.0


@contextmanager
def counted() -> Iterator[None]:
    """What is done inside counts, where valgrind watches this process."""
    _instrument("on")
    try:
        yield
    finally:
        _instrument("off")


def _instrument(mode: str) -> None:
    subprocess.run(["callgrind_control", "-i", mode, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)


def deciding(case: str, count: int, held: int) -> int:
    """Decide: how many times."""
    router, asked = decide.prepared(case, count, held)
    decisions = HELD_DECISIONS if held else DECISIONS
    for one in asked:
        router.decide(one, decide.NOW_S)
    with counted():
        for number in range(decisions):
            router.decide(asked[number % len(asked)], decide.NOW_S + (number + 1) * decide.MOMENT_S)
    return decisions


def learning() -> int:
    """Take in start, first token and end: of how many requests."""
    draw = Random(7)
    router = decide.seasoned(CANDIDATES, 0, draw)
    names = [one.name for one in decide.endpoints(CANDIDATES)]
    told = [decide.facts(decide.request(i, draw), names[i % CANDIDATES], draw) for i in range(LEARNED)]
    with counted():
        for number, (started, first, ended) in enumerate(told):
            at_s = decide.NOW_S + number
            router.observe(started, at_s)
            router.observe(first, at_s + 0.5)
            router.observe(ended, at_s + 0.9)
    return LEARNED


def simulating() -> int:
    """Play the world of `bench.simulate`: of how many requests."""
    trace = Path(os.environ["TIDEGATE_DATA"]) / simulate.TRACE
    with counted():
        return simulate.run(trace).requests


def _cases() -> dict[str, tuple[str, Callable[[], int]]]:
    """By the name that it goes by here: what it is of, and what is done."""
    found: dict[str, tuple[str, Callable[[], int]]] = {}
    for case, count, held in decide.CASES:
        told = f"{case}, {count} endpoints"
        found[f"{case}-{count}"] = told, partial(deciding, case, count, held)
    found[LEARN] = "start, first token and end", learning
    if "TIDEGATE_DATA" in os.environ:
        found[SIMULATE] = "a simulated request", simulating
    return found


def _count(name: str) -> int:
    """Instructions of each time that this case is done."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "counted"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        # Where things lie in a table depends on their hashes.
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        said = subprocess.run(
            [*valgrind, sys.executable, "-m", "bench.instructions", name],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            timeout=COUNT_S,
        )
        totals = re.search(r"^totals: (\d+)", out.read_text(), re.MULTILINE)
        assert totals is not None, f"callgrind has counted nothing: {said.stderr[-500:]}"
        return round(int(totals[1]) / int(said.stdout.split()[-1]))


def main() -> None:
    """Count all, or do what one is of while that is counted."""
    cases = _cases()
    if len(sys.argv) > 1:
        print(cases[sys.argv[1]][1]())
        return
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not on this machine: install it (apt-get install valgrind)")
    counts = {}
    for name, (told, _) in cases.items():
        counts[name] = _count(name)
        print(f"{counts[name]:>12,}  {told}", flush=True)
    record("instructions", {"instructions": counts})


if __name__ == "__main__":
    main()
