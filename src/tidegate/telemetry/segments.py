"""Segment files: their names, their order, and which are removed for those that come."""

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

import msgspec

from tidegate.clock import iso
from tidegate.core.model import Record

_NAME = re.compile(r"^journal-(\d{8}T\d{9}Z)-(\d+)-(\d+)\.jsonl(\.zst)?$")
PACKED = ".zst"  # behind the name of a segment that is packed
PART = ".part"  # and behind that, while it is not whole
LINE_BYTES_MAX = 64 * 1024 * 1024  # a snapshot with the learned state of some 10,000 endpoints
# Probes are an hour apart at most, but of engines that unload when nobody asks: what was silent for a day is taken to
# be written by nobody, where no lock can tell.
LEFT_NS = 86_400 * 10**9
CREATE_TRIES = 1000  # two journals of one process in one millisecond are a test; a thousand are a mistake


class JournalStatistics(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Lines taken in, and of these lost; times the disk refused."""

    lines: int
    lost: int
    problems: int


class SegmentName(msgspec.Struct, frozen=True, order=True):
    """`journal-<UTC time>-<process>-<counter>.jsonl`: when and where the journal was opened, and which one of it.

    One that is packed has the same name, and `PACKED` behind it. In order of name the segments of one run follow each
    other, even where runs overlap.
    """

    opened: str
    pid: int
    counter: int

    @classmethod
    def first(cls, at_s: float) -> "SegmentName":
        """The name of the first segment of a run that begins now in this process."""
        digits = "".join(c for c in iso(at_s)[:23] if c.isdigit())
        return cls(f"{digits[:8]}T{digits[8:]}Z", os.getpid(), 0)

    @classmethod
    def parse(cls, name: str) -> "SegmentName | None":
        """The parts of a file's name, None where it is no segment."""
        match = _NAME.match(name)
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    @property
    def run(self) -> tuple[str, int]:
        """Which process's it is: segments of one run follow each other."""
        return self.opened, self.pid

    def next(self) -> "SegmentName":
        """The segment after this one."""
        return SegmentName(self.opened, self.pid, self.counter + 1)

    def create(self, folder: Path) -> tuple["SegmentName", int]:
        """Create this file, or the next that does not exist yet, for appending by us alone; its name and descriptor."""
        name = self
        for _ in range(CREATE_TRIES):
            with suppress(FileExistsError):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                fd = os.open(folder / str(name), flags, 0o600)
                # Held until the process ends, however it does: whoever packs or removes segments skips it. Who asks
                # just now whether it is written has a lock on it for a moment; without ours it would be packed.
                with suppress(OSError):  # some network file systems have no locks; the names are unique there too
                    fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return name, fd
                os.close(fd)  # somebody removed it in that moment
            name = name.next()
        raise FileExistsError(f"{folder / str(self)} and the next {CREATE_TRIES} exist")

    def __str__(self) -> str:
        return f"journal-{self.opened}-{self.pid}-{self.counter:06}.jsonl"


def segments(folder: Path) -> list[Path]:
    """The segments in a folder in the order in which they are read: run after run, and oldest first within each.

    One that was packed and could not be removed yet is there once.
    """
    found = _files(folder)
    # One that is packed meanwhile may have been seen under neither of its names, as folders are read.
    while (again := _files(folder)) != found:
        found = again
    return list(dict(found).values())


def unpacked(folder: Path) -> list[Path]:
    """The segments that are not packed, in order, also those that a kill has left in both forms."""
    return [path for _, path in _files(folder) if path.suffix != PACKED]


def is_written(path: Path) -> bool:
    """Whether somebody writes this segment, as far as the file system knows of locks."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # Whoever packs it has a lock on it, too.
        return not any(path.with_name(path.name + end).exists() for end in (PACKED + PART, PACKED))
    except OSError:  # it is gone, or there are no locks
        return False
    return False


def _files(folder: Path) -> list[tuple[SegmentName, Path]]:
    """All files of segments, in order; where there are two of one, the packed one last."""
    return sorted([(name, path) for path in folder.iterdir() if (name := SegmentName.parse(path.name)) is not None])


def prune(folder: Path, total_bytes: int) -> list[Path]:
    """Remove the segments written to longest ago until the rest fit; those being written stay. What was removed.

    It is asked when a segment has been begun in the folder.
    """
    files, aged = _files(folder), list[tuple[int, SegmentName, Path, int]]()
    last = {name.run: name for name, _ in files}
    for name, path in files:
        with suppress(FileNotFoundError):  # another process prunes too
            status = path.stat()
            aged.append((status.st_mtime_ns, name, path, status.st_size))
    excess = sum(size for _, _, _, size in aged) - total_bytes
    left_ns = folder.stat().st_mtime_ns - LEFT_NS  # the folder's time is now, by the clock of who keeps the files
    removed: list[Path] = []
    for written_ns, name, path, size in sorted(aged):
        if excess <= 0:
            break
        if _remove(path, left=written_ns < left_ns or name != last[name.run]):
            removed.append(path)
            excess -= size
    return removed


def _remove(path: Path, *, left: bool) -> bool:
    """Remove a segment unless somebody writes it; `left`: its process has gone on to another, or is silent."""
    # Opened for writing, though nothing is written: over NFS, nothing else can be locked like that.
    with suppress(OSError), path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # there are no locks: nobody can say whether the last one of a run is written
            if not left:
                return False
        path.unlink()
        return True
    return False
