"""The end of a tick of the loop: what all that came in it have in common is done there, one step for all after another.

What a request takes is more code than a core's caches hold: where the same step is done for thirty in turn, its code is
fetched once and not thirty times. And what is written, is written once for all of them.
"""

import asyncio
from collections.abc import Callable
from typing import Final

# The steps, in their order. First comes what makes room, then who waits for it, then who has just come; then what all
# of those have to have written before anything is sent, and before an answer ends.
ANSWERED: Final = 0
HELD: Final = 1
ASKED: Final = 2
LEDGER: Final = 3
JOURNAL: Final = 4
LOG: Final = 5
_STEPS: Final = 6


class Tick:
    """Calls what was left for a step once, at the end of the loop's tick in which that was left first."""

    __slots__ = ("_acts", "_pending")

    def __init__(self) -> None:
        self._acts: list[Callable[[], None] | None] = [None] * _STEPS
        self._pending = False

    def soon(self, step: int, act: Callable[[], None]) -> None:
        """Have `act` called in this step; whoever has called for the same step before must mean the same by it."""
        self._acts[step] = act
        if not self._pending:
            self._pending = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        acts = self._acts
        for step in range(_STEPS):
            act = acts[step]
            if act is not None:
                acts[step] = None
                run(act)
        # A step may leave something for one that was before it: that is of the next tick.
        self._pending = any(act is not None for act in acts)
        if self._pending:
            asyncio.get_running_loop().call_soon(self._run)


def run(act: Callable[[], None]) -> None:
    """Call something that waited. One that fails must not keep the others waiting."""
    try:
        act()
    except Exception as error:
        failed(error)


def failed(error: Exception) -> None:
    """Have the log say what was wrong with something that waited."""
    context = {"message": "a step at the end of a tick failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
