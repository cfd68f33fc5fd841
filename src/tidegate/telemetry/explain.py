"""Decisions found in a journal and explained: replayed up to where they were made."""

import sys
from collections.abc import Iterable
from pathlib import Path

from tidegate.core.model import Decision, Line
from tidegate.core.replay import Explained, is_about
from tidegate.core.replay import explain as explain_lines
from tidegate.telemetry.reading import JournalError, read, read_from, segments_of

STDIN = Path("-")


def find(journal: Path, request_id: str | None) -> list[Explained]:
    """The decisions about a request, by default the last one made, from the newest segment that has any.

    `journal` is a folder, one segment, or `-` for standard input, where `request_id` has to be said. Raises
    `JournalError` or `ReplayError`.
    """
    if journal == STDIN:
        if request_id is None:
            raise JournalError("standard input is read once; say which decision: tidegate explain --journal - ID")
        return explain_lines(read_from("standard input", sys.stdin.buffer), request_id)
    files = segments_of(journal)
    for file in reversed([journal] if files is None else files):
        wanted = request_id or _last_id(read(file))
        count = sum(is_about(line, wanted) for line in read(file)) if wanted else 0
        found = explain_lines(read(file), wanted, count) if wanted and count else []
        if found:
            return found
    return []


def _last_id(lines: Iterable[Line]) -> str | None:
    last = None
    for line in lines:
        if isinstance(line.fact, Decision):
            last = line.fact.request_id
    return last
