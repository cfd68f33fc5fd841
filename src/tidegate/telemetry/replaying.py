"""Journals reproduced, segment by segment, on all cores."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tidegate.core.model import replace
from tidegate.core.replay import Part, ReplayError, parts, undecided
from tidegate.telemetry.cores import LostError, on_cores
from tidegate.telemetry.packing import is_there
from tidegate.telemetry.reading import absent, files, read_if_there
from tidegate.telemetry.segments import SegmentName


def reproduce(journal: Path, jobs: int = 1) -> tuple[int, Iterator[Part]]:
    """How many segments there are in a folder, or one file, and what replay finds in each, in their order.

    Every segment begins with all that was known, so that they need not wait for each other. Raises `JournalError`, and
    the iterator that or `ReplayError`.
    """
    paths = files(journal)
    return len(paths), _found(paths, min(jobs, len(paths)))


def _found(paths: Sequence[Path], jobs: int) -> Iterator[Part]:
    if jobs <= 1:
        for index in range(len(paths)):
            yield from _replayed(paths, index)
        return
    try:
        for found in on_cores(partial(_replayed, paths), range(len(paths)), jobs):
            yield from found
    except LostError:
        raise ReplayError("a process ended before it had replayed its segment; is there memory enough?") from None


def _replayed(paths: Sequence[Path], index: int) -> list[Part]:
    """One of them. What was asked before it, and is decided in it, stands at the end of the one before."""
    path, before = paths[index], paths[index - 1] if index else None
    if len(paths) == 1 and not is_there(path):
        raise absent(path, "file or folder")
    requests = {} if before is None else undecided(read_if_there(before))
    found = list(parts(read_if_there(path), requests))
    if found and (before is None or not _one_run(before, path)):
        # The one that it follows is not there any more, being the oldest: another run's stands before it.
        found[0] = replace(found[0], follows=False)
    return found


def _one_run(one: Path, other: Path) -> bool:
    """Whether one process wrote both."""
    first, second = SegmentName.parse(one.name), SegmentName.parse(other.name)
    return first is not None and second is not None and first.run == second.run
