"""What the compiled package does most, for the C compiler, which lays it out by that: part of `make compiled`.

    PYTHONPATH=build/traced python -m bench.training

The package that this runs counts which way each branch goes, and writes it down when a process ends. It is given the
loads that relays are measured under, and decisions and facts as `bench.decide` has them: what is never run here counts
as never run, and is made small instead of fast.
"""

import tempfile
from pathlib import Path

import msgspec

from bench import decide
from bench.loads import LOADS
from bench.relay import raise_file_limit
from bench.relay_sitting import WARM, pinned
from bench.relays import ours, running
from bench.rig import Rig

TRAINED = ("W1", "W2", "W3", "W4", "W6")
ENDPOINTS = 4
CONNECTIONS_MAX = 100  # two files each, also where no more than the usual 1,024 may be open
DECISIONS = 2_000
HELD_DECISIONS = 50


def main() -> None:
    """Do all of it, one after the other."""
    raise_file_limit()
    for case, count, held in decide.CASES:
        router, asked = decide.prepared(case, count, held)
        for number in range(HELD_DECISIONS if held else DECISIONS):
            router.decide(asked[number % len(asked)], decide.NOW_S + number * decide.MOMENT_S)
    decide.learn_us()
    relay()


def relay() -> None:
    """The loads, through the gateway."""
    with tempfile.TemporaryDirectory() as name:
        body = Path(name) / "body"
        rig = Rig(Path(name), pinned(-1))
        with rig.engine(ENDPOINTS) as engines, running(ours()[0], engines, None, pinned(0)) as one:
            for load in (*WARM.values(), *(LOADS[name] for name in TRAINED)):
                body.write_bytes(load.body())
                ask = msgspec.structs.replace(load.ask, connections=min(load.ask.connections, CONNECTIONS_MAX))
                said = rig.load(one.port, body, ask, one.headers)
                assert said.ok > said.failed, f"{load.name} went wrong: {said.errors}"


if __name__ == "__main__":
    main()
