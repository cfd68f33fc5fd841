"""One request and every decision about it, recomputed by `tidegate explain` in a process of its own, one at a time."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from tidegate.core.why import WHY_TEXT
from tidegate.dashboard.requests import Row
from tidegate.dashboard.verb import Said, asked
from tidegate.telemetry.explain import may_be_id, says_nowhere
from tidegate.wire.errors import BadRequest

# It takes a core for seconds; twice that where the end of a request is in the segment after its decision.
TIMEOUT_S: Final = 30.0
_RETRY: Final = (b"retry-after", b"1")


class Explained(msgspec.Struct, frozen=True):
    """What is told of a request; `explained` is what the verb prints, None where it did not, for this `problem`."""

    row: Row | None
    explained: msgspec.Raw | None
    why: dict[str, str]
    problem: str


class Explainer:
    """Explains decisions of the journal in `folder`; what is asked meanwhile may come again."""

    def __init__(self, folder: Path, find: Callable[[str], Awaitable[tuple[Row | None, str | None]]]) -> None:
        """`find` gives the row of an id, and the name of the segment that tells its end."""
        self._folder = folder
        self._find = find
        self._busy = False

    async def explain(self, request_id: str) -> bytes:
        """As JSON. Raises BadRequest."""
        if not may_be_id(request_id):
            raise BadRequest("This is no id of a decision.", status=404)
        if self._busy:
            text = "Another decision is being explained; try again in a second."
            raise BadRequest(text, status=503, headers=(_RETRY,))
        self._busy = True
        try:
            row, segment = await self._find(request_id)
            said = await self._said(request_id, segment)
        finally:
            self._busy = False
        if row is None and said.result is None:
            if says_nowhere(said.problem, request_id):
                raise BadRequest("The journal has no decision of this id.", status=404)
            text = f"Whether the journal has this decision could not be told: {said.problem}."
            raise BadRequest(text, status=503, headers=(_RETRY,))
        found = Explained(row, said.result, {why.value: text for why, text in WHY_TEXT.items()}, said.problem)
        return msgspec.json.encode(found)

    async def _said(self, request_id: str, segment: str | None) -> Said:
        said = Said(None)
        for journal in (*(() if segment is None else (self._folder / segment,)), self._folder):
            verb = ("explain", "--json", "--journal", str(journal), request_id)
            said = await asked(verb, timeout_s=TIMEOUT_S)
            if said.result is not None:
                break
        return said
