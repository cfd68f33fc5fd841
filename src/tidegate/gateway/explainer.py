"""Has decisions explained by `tidegate explain`, in a process of its own: the relay needs this one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from tidegate.telemetry.verb import run

# It takes a core for a second or two.
TIMEOUT_S = 30.0
STDIN = Path("-")
LOW = 10  # answers to clients go first
BUSY = "Another decision is being explained; try again in a second."
RETRY = (b"retry-after", b"1")

Then = Callable[[msgspec.Raw | None, str], None]


class Explainer:
    """One at a time: what is asked meanwhile may come again."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._asking is not None

    def begin(self, decision_id: str, then: Then, *, journal: Path = STDIN, lines: bytes = b"") -> None:
        """Explain this decision from a journal, or from the lines of one, and call `then` with what is said, or with
        None where that does not come to an answer, and why."""
        assert self._asking is None, "one at a time"
        task = asyncio.get_running_loop().create_task(self._ask(decision_id, then, journal, lines))
        # Also of one that is cancelled before it has begun.
        task.add_done_callback(self._over)
        self._asking = task

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self._asking is not None:
            self._asking.cancel()

    async def close(self) -> None:
        """Explain nothing any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self, decision_id: str, then: Then, journal: Path, lines: bytes) -> None:
        verb = ("explain", "--json", "--journal", str(journal), decision_id)
        printed = await run(verb, timeout_s=TIMEOUT_S, lines=lines, niceness=LOW)
        # Of a decision that does not come out again it says so in what it prints, and by its status, too.
        said = printed.out.strip()
        then(msgspec.Raw(said) if said and printed.status in (0, 1) else None, printed.problem)

    def _over(self, _: "asyncio.Task[None]") -> None:
        self._asking = None
