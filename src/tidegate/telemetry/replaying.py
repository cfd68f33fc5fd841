"""Journals reproduced, segment by segment, on all cores."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tidegate.core.model import Request
from tidegate.core.replay import Part, parts, undecided
from tidegate.telemetry.journal import read
from tidegate.telemetry.reading import files


def reproduce(journal: Path, jobs: int = 1) -> tuple[int, Iterator[Part]]:
    """How many segments there are in a folder, or one file, and what replay finds in each, in their order.

    Every segment begins with all that was known, so that they need not wait for each other. Raises `JournalError`, and
    the iterator that or `ReplayError`.
    """
    paths = files(journal)
    return len(paths), _found(paths, min(jobs, len(paths)))


def _found(paths: Sequence[Path], jobs: int) -> Iterator[Part]:
    if jobs <= 1:
        requests: Mapping[str, Request] = {}
        for path in paths:
            yield from parts(read(path), requests)
            requests = undecided(read(path))
        return
    with get_context("spawn").Pool(jobs) as pool:
        for found in pool.imap(partial(_replayed, paths), range(len(paths))):
            yield from found


def _replayed(paths: Sequence[Path], index: int) -> list[Part]:
    """One of them. What was asked before it, and is decided in it, stands at the end of the one before."""
    return list(parts(read(paths[index]), undecided(read(paths[index - 1])) if index else {}))
