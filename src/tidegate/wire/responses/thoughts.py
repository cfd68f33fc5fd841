"""What a model of this dialect thought, as the hub's details have it: piece by piece, each thought up to its seal."""

from collections.abc import Iterable

import msgspec

from tidegate.wire.hub import RESPONSES, Detail, Said


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """A thought: the parts of its summary, its text where that may be read, and the whole of it `sealed`."""

    id: str | None = None
    summary: tuple[str, ...] = ()
    text: str = ""
    sealed: str | None = None


def thoughts(details: Iterable[Detail]) -> list[Thought]:
    """Those of this dialect among the details of a message; its text stands elsewhere."""
    found: list[Thought] = []
    parts: list[list[str]] = []
    index: int | None = None
    for detail in details:
        if detail.format != RESPONSES:
            continue
        if detail.summary:
            if not parts or detail.index != index:
                parts.append([])
            parts[-1].append(detail.summary)
            index = detail.index
        if detail.data:
            found.append(Thought(id=detail.id, summary=_joined(parts), sealed=detail.data))
            parts = []
    if parts:
        found.append(Thought(summary=_joined(parts)))
    return found


def thoughts_of(said: Said) -> list[Thought]:
    """All that a message of the hub's says of its thinking. What has no summary is told by its text."""
    found = thoughts(said.reasoning_details or ())
    if not said.thought or any(thought.summary for thought in found):
        return found
    first, *rest = found or [Thought()]
    return [msgspec.structs.replace(first, text=said.thought), *rest]


def _joined(parts: list[list[str]]) -> tuple[str, ...]:
    return tuple("".join(pieces) for pieces in parts)
