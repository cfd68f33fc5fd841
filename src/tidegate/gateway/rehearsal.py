"""Has the simulator held against what came, by `tidegate backtest`, in a process of its own at the lowest priority."""

import asyncio
from pathlib import Path

import msgspec

from tidegate.clock import Clock
from tidegate.core.model import Record
from tidegate.telemetry.log import Log
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.verb import run

# Of 200,000 requests, on a core that others need.
TIMEOUT_S = 3600.0
# After the start nobody is in a hurry.
FIRST_S = 900.0
# Its exit status where a figure is too far off; beyond it, the journal does not tell enough.
_DRIFTED = 1
_LOWEST = 19


class Figure(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How far off one figure is, as `tidegate backtest` tells it, and how far it may be."""

    figure: str
    error: float
    low: float
    high: float
    within: float


class Rehearsed(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The last look. `problem` is why it says nothing, if so."""

    at_s: float = 0.0
    off: tuple[Figure, ...] = ()
    drifted: tuple[str, ...] = ()
    problem: str = ""


class Rehearsal:
    """One look each `every_s`; 0 is never. `last` is what it said, None before the first."""

    def __init__(self, journal: Path | None, every_s: float, *, clock: Clock, log: Log, metrics: Metrics) -> None:
        self._journal, self._every_s = journal, every_s
        self._clock, self._log, self._metrics = clock, log, metrics
        self.last: Rehearsed | None = None

    async def watch(self) -> None:
        """Look now and then, for as long as it runs."""
        if self._journal is None or not self._every_s:
            return
        # Who is restarted each night has a look at it, too.
        await asyncio.sleep(min(self._every_s, FIRST_S))
        while True:
            await self.look(self._journal)
            await asyncio.sleep(self._every_s)

    async def look(self, journal: Path) -> None:
        """Once, and tell what it came to."""
        found = msgspec.structs.replace(await _asked(journal), at_s=self._clock.now_s())
        self.last = found
        if found.problem:
            # What is no longer known is no longer told.
            self._metrics.simulated({})
            self._log.event("info", "simulator not held against the journal", reason=found.problem)
            return
        self._metrics.simulated({one.figure: (one.error, one.figure in found.drifted) for one in found.off})
        if found.drifted:
            off = {one.figure: one.error for one in found.off if one.figure in found.drifted}
            self._log.event("warning", "simulator drifted: previews and audits are off", **off)


async def _asked(journal: Path) -> Rehearsed:
    """What the command says."""
    printed = await run(("backtest", "--json", str(journal)), timeout_s=TIMEOUT_S, niceness=_LOWEST)
    if printed.status not in (0, _DRIFTED):
        return Rehearsed(problem=printed.problem)
    try:
        return msgspec.json.decode(printed.out, type=Rehearsed)
    except msgspec.DecodeError:
        # Python's own status of who died of an exception is that of who drifted.
        return Rehearsed(problem=printed.problem)
