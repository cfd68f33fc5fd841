"""The threads of a journal for what may take long, so that no request waits for it."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tidegate.telemetry.packing import Packer, sync_folder
from tidegate.telemetry.segments import prune


class Open(NamedTuple):
    """A segment that is being written: its descriptor, where readers find it, and as many bytes as it was given."""

    fd: int
    path: Path
    size: int


class Worker:
    """One thread for looking, fsync, closing and removing, in order, so that no descriptor is synced after it was
    closed and given to another file; and, where it `packs`, one that packs what is finished, for which no fsync waits.
    """

    def __init__(self, folder: Path, total_bytes: int, *, packs: bool) -> None:
        self._folder = folder
        self._packer = Packer(folder) if packs else None
        self._total_bytes = total_bytes
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-journal")
        self._busy = False  # with looking or syncing: on a disk that hangs, another would only queue up

    def settle(self) -> None:
        """A segment was created: make its name last, and room for it, and pack those that are finished."""
        self._pool.submit(self._settle)

    def sync(self, segment: Open, on_gone: Callable[[], object], on_error: Callable[[OSError], object]) -> bool:
        """Make what was written last, where that is still found; both are called in the thread. While the disk is at
        the one before: False, and what was written meanwhile is still to be made so."""
        if self._busy:
            return False
        self._busy = True
        self._pool.submit(self._fsync, segment, on_gone, on_error)
        return True

    def look(self, segment: Open, on_gone: Callable[[], object]) -> None:
        """See whether a segment is still found that takes nothing; not while the disk is at the last one."""
        if not self._busy:
            self._busy = True
            self._pool.submit(self._look, segment, on_gone)

    def retire(self, fd: int) -> None:
        """Sync and close a segment that is full."""
        self._pool.submit(self._close, fd)

    def close(self) -> None:
        """Wait for all of it, but for what is not packed yet: the next process does that."""
        self._pool.shutdown(wait=True)
        if self._packer is not None:
            self._packer.close()

    def _settle(self) -> None:
        with suppress(OSError):
            sync_folder(self._folder)
        with suppress(OSError):
            prune(self._folder, self._total_bytes)
        if self._packer is not None:
            self._packer.soon()

    def _fsync(self, segment: Open, on_gone: Callable[[], object], on_error: Callable[[OSError], object]) -> None:
        try:
            if _stands(segment):
                os.fsync(segment.fd)
            else:
                on_gone()
        except OSError as error:
            on_error(error)
        finally:
            self._busy = False

    def _look(self, segment: Open, on_gone: Callable[[], object]) -> None:
        try:
            if not _stands(segment):
                on_gone()
        finally:
            self._busy = False

    def _close(self, fd: int) -> None:
        with suppress(OSError):
            os.fsync(fd)
        with suppress(OSError):
            os.close(fd)


def _stands(segment: Open) -> bool:
    """Whether a segment is where readers find it, and as long as it was written."""
    try:
        ours, named = os.fstat(segment.fd), segment.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # A server of files that knows it no more says so. Of all else writing and syncing tell.
        return error.errno != errno.ESTALE
    return os.path.samestat(ours, named) and ours.st_size >= segment.size
