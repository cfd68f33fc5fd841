"""Decisions found in a journal and explained: replayed up to where they were made."""

from collections.abc import Iterable
from pathlib import Path

from tidegate.core.model import Decision, Line
from tidegate.core.replay import Explained
from tidegate.core.replay import explain as explain_lines
from tidegate.telemetry.journal import read, segments


def find(journal: Path, request_id: str | None) -> list[Explained]:
    """The decisions about a request, by default the last one made, from the newest segment that has any.

    `journal` is a folder or one segment. Raises `JournalError` or `ReplayError`.
    """
    files = [journal] if journal.is_file() else segments(journal)
    for file in reversed(files):
        wanted = request_id or _last_id(read(file))
        found = explain_lines(read(file), wanted) if wanted else []
        if found:
            return found
    return []


def _last_id(lines: Iterable[Line]) -> str | None:
    last = None
    for line in lines:
        if isinstance(line.fact, Decision):
            last = line.fact.request_id
    return last
