"""What long benchmarks have found so far, by world: a run that was stopped goes on where it was, on the same commit."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from bench.record import commit

KEPT = Path(__file__).parent.parent / "build" / "worlds"

Found = TypeVar("Found")


def kept_at(bench: str) -> Path | None:
    """Where it is kept; nowhere where files were changed: that has no name under which it could be found again."""
    at = commit()
    return None if at.endswith("+") else KEPT / at / bench


def once(kept: Path | None, name: str, kind: type[Found], find: Callable[[], Found]) -> Found:
    """What was found of that name in that folder, or is now and then kept there."""
    if kept is None:
        return find()
    file = kept / f"{name.replace(' ', '_')}.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=kind)
    found = find()
    kept.mkdir(parents=True, exist_ok=True)
    whole = file.with_suffix(".new")
    whole.write_bytes(msgspec.json.encode(found))
    whole.replace(file)
    return found
