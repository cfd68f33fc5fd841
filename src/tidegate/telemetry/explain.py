"""Decisions found in a journal and explained: replayed up to where they were made."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tidegate.core.model import Decision, Line, Request
from tidegate.core.replay import Explained, is_about, is_of_the_model
from tidegate.core.replay import explain as explain_lines
from tidegate.telemetry.reading import (
    JournalError,
    beside,
    files,
    mentions,
    read,
    read_from,
    read_if_there,
    unwritten,
    written,
)

STDIN = Path("-")
# A request lives for minutes, and as many segments of the usual size hold ten of eighty requests a second.
AROUND_MAX: Final = 4
ID_CHARS_MAX: Final = 128
# What the verb says of a journal in which no decision is, whatever its id.
_NOWHERE: Final = (": no journal here; ", ": nothing is written in this journal; ")


def may_be_id(text: str) -> bool:
    """Whether the verb can be asked for it: what begins with a dash would be an option, and a NUL would end it."""
    return 0 < len(text) <= ID_CHARS_MAX and not text.startswith("-") and text.isprintable()


def says_nowhere(problem: str, request_id: str) -> bool:
    """Whether the verb's `problem` is that the journal has no decision about this request."""
    return f"no decision {request_id} in " in problem or any(one in problem for one in _NOWHERE)


def find(journal: Path, request_id: str | None) -> list[Explained]:
    """The decisions about a request, by default the last one made, from the newest segment that has any.

    `journal` is a folder, one segment, or `-` for standard input, where `request_id` has to be said. What became of the
    request is told by the segments around that one, too. Raises `JournalError`, also where nothing is written in it, or
    `ReplayError`.
    """
    if journal == STDIN:
        if request_id is None:
            raise JournalError("standard input is read once; say which decision: tidegate explain --journal - ID")
        given = "standard input"
        return explain_lines(written(given, read_from(given, sys.stdin.buffer)), request_id)
    paths = files(journal)
    lines = read if paths == [journal] else read_if_there
    for file in reversed(paths):
        if request_id is not None and paths != [journal] and not mentions(file, request_id):
            continue
        wanted = request_id or _last_id(lines(file))
        about = [is_of_the_model(line) for line in lines(file) if is_about(line, wanted)] if wanted else []
        if wanted and about:
            earlier, later = beside(file)
            before = () if _began_in(lines(file), wanted) else _from_where_it_began(earlier, wanted)
            after = (line for path in later[:AROUND_MAX] for line in _readable(path))
            found = explain_lines(lines(file), wanted, sum(about), before=before, after=after)
            if found:
                return found
    if not any(True for file in paths for _ in lines(file)):
        raise unwritten(journal)
    return []


def _last_id(lines: Iterable[Line]) -> str | None:
    last = None
    for line in lines:
        if isinstance(line.fact, Decision):
            last = line.fact.request_id
    return last


def _began_in(lines: Iterable[Line], request_id: str) -> bool:
    """Whether it arrived in this segment. In a later one it may be asked for again, as where its rest is."""
    begun_s: float | None = None
    for line in lines:
        begun_s = line.at_s if begun_s is None else begun_s
        if isinstance(line.fact, Request) and line.fact.id == request_id:
            return line.fact.arrived_s >= begun_s
    return False


def _from_where_it_began(earlier: list[Path], request_id: str) -> Iterator[Line]:
    """The lines of these segments, from the one in which it arrived on."""
    at = max(0, len(earlier) - AROUND_MAX)
    for number in range(len(earlier) - 1, at, -1):
        if _began_in(_readable(earlier[number]), request_id):
            at = number
            break
    for path in earlier[at:]:
        yield from _readable(path)


def _readable(path: Path) -> Iterator[Line]:
    """As much of a segment as can be read: it adds to what another one tells."""
    try:
        yield from read_if_there(path)
    except JournalError:
        return
