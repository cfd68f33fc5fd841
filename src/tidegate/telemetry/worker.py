"""The threads of a journal for what may take long, so that no request waits for it."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tidegate.telemetry.packing import Packer
from tidegate.telemetry.segments import prune


class Worker:
    """One thread for fsync, closing and removing, in order, so that no descriptor is synced after it was closed and
    given to another file; and, where it `packs`, one that packs what is finished, for which no fsync waits.
    """

    def __init__(self, folder: Path, total_bytes: int, *, packs: bool) -> None:
        self._folder = folder
        self._packer = Packer(folder) if packs else None
        self._total_bytes = total_bytes
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-journal")
        self._syncing = False

    def settle(self) -> None:
        """A segment was created: make its name last, and room for it, and pack those that are finished."""
        self._pool.submit(self._settle)

    def sync(self, fd: int, on_error: Callable[[OSError], None]) -> bool:
        """Make what was written last. While the disk is still at the last one, another would only queue up: False, and
        what was written meanwhile is still to be made so."""
        if self._syncing:
            return False
        self._syncing = True
        self._pool.submit(self._fsync, fd, on_error)
        return True

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
            fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        with suppress(OSError):
            prune(self._folder, self._total_bytes)
        if self._packer is not None:
            self._packer.soon()

    def _fsync(self, fd: int, on_error: Callable[[OSError], None]) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            on_error(error)
        finally:
            self._syncing = False

    def _close(self, fd: int) -> None:
        with suppress(OSError):
            os.fsync(fd)
        with suppress(OSError):
            os.close(fd)
