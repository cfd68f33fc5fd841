"""What processes take of the machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)  # it has ended between two looks
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Seconds on a core of every thread of a process, by the kernel's count."""
    return sum(_threads_ns(pid).values()) / 1e9


def family(pid: int) -> list[int]:
    """A process and those that it has started, with theirs, as far as they run."""
    found = [pid]
    for one in found:  # grows meanwhile
        found += _children(one)
    return found


def family_cpu_ns(pid: int) -> dict[int, int]:
    """Nanoseconds on a core of each thread of a family, by its id."""
    return {thread: ns for one in family(pid) for thread, ns in _threads_ns(one).items()}


def family_rss_mb(pid: int) -> float:
    """Resident memory of a family in MB of 10^6 bytes; pages that several have are counted for each."""
    return sum(_resident_pages(one) for one in family(pid)) * _PAGE_BYTES / 1e6


def spent_us(before: dict[int, int], after: dict[int, int]) -> float:
    """Microseconds between two readings of `family_cpu_ns`. A thread that ended meanwhile is missing."""
    return sum(ns - before.get(thread, 0) for thread, ns in after.items()) / 1e3


def _threads_ns(pid: int) -> dict[int, int]:
    return {int(task.name): int(said.split()[0]) for task, said in _tasks(pid, "schedstat")}


def _children(pid: int) -> list[int]:
    return [int(child) for _, said in _tasks(pid, "children") for child in said.split()]


def _resident_pages(pid: int) -> int:
    with suppress(*_GONE):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return 0


def _tasks(pid: int, file: str) -> Iterator[tuple[Path, str]]:
    """The threads of a process, with what the file says of each."""
    with suppress(*_GONE):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_GONE):
                yield task, (task / file).read_text()
