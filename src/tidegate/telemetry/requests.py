"""The requests of a journal, one row each, run after run."""

from collections.abc import Iterator
from pathlib import Path

from tidegate.core.rows import Row, Rows
from tidegate.telemetry.reading import beside, files, read, read_if_there
from tidegate.telemetry.segments import SegmentName, is_written


def requests(source: Path) -> Iterator[Row]:
    """The rows of a folder or one segment, as requests ended. Raises `JournalError`.

    What is under way in a run that goes on has none yet; which segments there are is looked up once.
    """
    paths, fold = files(source), Rows()
    for index, path in enumerate(paths):
        last = index + 1 == len(paths) or run_of(paths[index + 1]) != run_of(path)
        # Asked before it is read: what is appended until nobody writes it any more is read then.
        left = last and not is_written(path)
        for line in read(path) if path == source else read_if_there(path):
            yield from fold.feed(line)
        if last:
            if left and (path == source or not _goes_on(path)):
                yield from fold.rest()
            fold = Rows()


def _goes_on(path: Path) -> bool:
    """Whether its process has gone on to another segment, which it makes before it lets go of this one; or in this one
    itself: it locks what it has made a moment later."""
    return bool(beside(path)[1]) or is_written(path)


def run_of(path: Path) -> tuple[str, int] | None:
    """Whose segment this is; None where its name does not say so."""
    name = SegmentName.parse(path.name)
    return None if name is None else name.run
