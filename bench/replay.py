"""Whether every decision of a long journal comes out again, and how many a second.

    python -m bench.replay

Simulated days with faults, one after the other, each of which begins as after a restart: with what was learned, and
nothing under way. Segments are as long as a gateway's by default. What is measured is `tidegate replay` of that folder,
on one core and on all.
"""

import os
import tempfile
from itertools import cycle
from pathlib import Path
from time import perf_counter

import msgspec

from bench.record import record
from tidegate.core.model import JOURNAL_VERSION, Line, Request, Segment
from tidegate.core.replay import Report, summed
from tidegate.core.revive import revived
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.sim.scenario import Scenario, load
from tidegate.sim.stage import play
from tidegate.telemetry.replaying import reproduce
from tidegate.telemetry.segments import SegmentName

SCENARIOS = ("crash-at-peak", "rack-and-burst", "rate-limited-vendor", "laptop-and-cloud", "slow-wan")
REQUESTS = 100_000
SEGMENT_BYTES = 64 * 1024 * 1024
GAP_S = 60.0


class Folder:
    """A journal's, written as a gateway writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = SegmentName.first(0.0)
        self._encode = msgspec.json.Encoder().encode
        self._lines = bytearray()
        self.requests = self.segments = 0
        self.router: Router | None = None

    def write(self, line: Line) -> None:
        """One line; where the segment is full, the next one begins after it."""
        if isinstance(line.fact, Segment):
            self.close()
        elif isinstance(line.fact, Request):
            self.requests += 1
        self._lines += self._encode(line) + b"\n"
        if len(self._lines) >= SEGMENT_BYTES:
            router = self.router
            assert router is not None
            header = Segment(
                version=JOURNAL_VERSION,
                software="bench",
                policy=router.policy,
                endpoints=router.endpoints,
                state=router.snapshot(),
                follows=True,
            )
            self.close()
            self._lines += self._encode(Line(at_s=line.at_s, fact=header)) + b"\n"

    def close(self) -> None:
        """The segment is over."""
        if self._lines:
            (self._folder / str(self._name)).write_bytes(self._lines)
            self._name = self._name.next()
            self._lines.clear()
            self.segments += 1


def days(folder: Folder) -> int:
    """So many days, each after a restart of what decided in the last one of its scenario."""
    known: dict[str, Router] = {}
    start_s = 1_700_000_000.0
    for count, name in enumerate(cycle(SCENARIOS)):
        if folder.requests >= REQUESTS:
            return count
        scenario: Scenario = load(Path("scenarios") / f"{name}.toml")
        world = msgspec.structs.replace(scenario.world, seed=count)
        scenario = msgspec.structs.replace(scenario, world=world, start_s=start_s)
        state = State()
        if name in known:
            kept = {endpoint.name for endpoint in scenario.endpoints}
            state = revived(msgspec.json.decode(known[name].snapshot(), type=State), kept, start_s)
        folder.router = known[name] = Router(scenario.endpoints, scenario.policy, state)
        start_s = play(scenario, decider=folder.router, journal=folder.write).ends_s + GAP_S
    raise AssertionError("it goes round and round")


def main() -> None:
    """Write it, replay it, and write down what came of it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        folder = Folder(path)
        restarts = days(folder)
        folder.close()
        size = sum(file.stat().st_size for file in path.iterdir())
        found: dict[str, object] = {}
        report: Report | None = None
        for jobs in (1, os.cpu_count() or 1):
            began_s = perf_counter()
            report = summed(reproduce(path, jobs)[1])
            found[f"decisions_per_s_{jobs}"] = round(report.decisions / (perf_counter() - began_s))
            assert report.difference is None, report.difference
            assert report.parted_s is None
        assert report is not None
        told = {"decisions": report.decisions, "observations": report.observations, "segments": report.segments}
    record("replay", {"requests": folder.requests, "restarts": restarts, "bytes": size, **told, **found})


if __name__ == "__main__":
    main()
