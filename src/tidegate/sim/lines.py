"""Text files of others, plain or gzipped, line by line; what cannot be read is said with file, line and remedy."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

# A session of a day is a line of 170 kB in runs, and some megabytes with its blocks one by one; a prompt is as much.
LINE_BYTES_MAX = 64 * 2**20


class BadFile(ValueError):
    """A file that cannot be read; its text names file, line and what is expected there."""

    @classmethod
    def at(cls, path: Path, number: int, expected: str) -> "BadFile":
        """In that line something else was `expected`."""
        return cls(f"{path}:{number}: expected {expected}")


def read_lines(path: Path, what: str, bad: type[BadFile]) -> Iterator[tuple[int, bytes]]:
    """See `lines_of`; a file has one at least."""
    number = 0
    for number, line in lines_of(path, what, bad):
        yield number, line
    if not number:
        raise bad.at(path, 1, f"the first line of a {what}; the file is empty")


def lines_of(path: Path, what: str, bad: type[BadFile]) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers, without their ends.

    `what` the file is stands in the error, which is a `bad` one.
    """
    number = 0
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            while line := file.readline(LINE_BYTES_MAX):
                number += 1
                if len(line) == LINE_BYTES_MAX:
                    raise bad.at(path, number, f"a line shorter than {LINE_BYTES_MAX} bytes")
                stripped = line.strip()
                if stripped:
                    yield number, stripped
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise bad.at(
            path, number + 1, "more of a gzip archive, which is cut or damaged; fetch the file again"
        ) from None
    except OSError as e:
        raise bad(f"{path}: cannot be read ({e.strerror}); name a {what} file that is there and yours to read") from e
