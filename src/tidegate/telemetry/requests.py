"""The requests of a journal, one row each, run after run."""

from collections.abc import Iterator
from pathlib import Path

from tidegate.core.rows import Row, Rows
from tidegate.telemetry.reading import files, read, read_if_there
from tidegate.telemetry.segments import SegmentName, is_written


def requests(source: Path) -> Iterator[Row]:
    """The rows of a folder or one segment, as requests ended. Raises `JournalError`.

    What is under way in a run that goes on has none yet.
    """
    paths, fold = files(source), Rows()
    for index, path in enumerate(paths):
        for line in read(path) if len(paths) == 1 else read_if_there(path):
            yield from fold.feed(line)
        if index + 1 == len(paths) or run_of(paths[index + 1]) != run_of(path):
            if not is_written(path):
                yield from fold.rest()
            fold = Rows()


def run_of(path: Path) -> tuple[str, int] | None:
    """Whose segment this is; None where its name does not say so."""
    name = SegmentName.parse(path.name)
    return None if name is None else name.run
