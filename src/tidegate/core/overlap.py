"""Whether the runs in a journal were at work at the same time: they are read one after the other."""

from math import inf
from typing import Final

from tidegate.core.model import Line, Request, Segment

# A run that goes down takes what still comes on its connections for a second, beside the next one.
GOING_DOWN_S: Final = 1.0


class Overlap:
    """Feed it a journal, line by line; `runs` overlap in it so far, 0 where all come one after the other.

    A run is seen to overlap one before it by its requests: a header alone is of a process that has served nobody.
    """

    def __init__(self) -> None:
        self._later = 0
        # When the last request came in the runs before this one, and in all.
        self._before_s = self._last_s = -inf

    def feed(self, line: Line) -> None:
        """Take in one line."""
        fact = line.fact
        if isinstance(fact, Segment):
            if not fact.follows:
                self._before_s = self._last_s
        elif isinstance(fact, Request):
            if line.at_s + GOING_DOWN_S < self._before_s:
                self._later += 1
                self._before_s = -inf
            self._last_s = max(self._last_s, fact.arrived_s)

    @property
    def runs(self) -> int:
        """How many there are, the first of them with the others."""
        return self._later + 1 if self._later else 0


def overlap_text(runs: int) -> str:
    """What is to be said of so many runs."""
    return (
        f"{runs} runs overlap in this folder, and are read as one installation, one after the other; "
        "give one at a time, in a folder of its own."
    )
