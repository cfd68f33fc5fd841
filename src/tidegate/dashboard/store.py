"""Where the index is, beside the journal or in a folder of its own where that cannot be, and who keeps it."""

import fcntl
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tidegate.dashboard.follow import Follower
from tidegate.dashboard.index import Index, connect

FILE: Final = "dashboard.sqlite"
# How often it looks for more: twice for each time at which pages are told.
LOOK_S: Final = 0.5
# What keeps it from being read is over in a moment, or lasts: then it is not read from its beginning every second.
AGAIN_S: Final = 1.0
AGAIN_S_MAX: Final = 60.0


class Store:
    """The index of the journal in `folder`, and the thread that brings it up to date.

    One process keeps the one beside the journal. Another that shows the same journal meanwhile makes one for itself,
    as does whoever may not write there. Without a journal there is nothing in it.
    """

    def __init__(self, folder: Path | None, on_problem: Callable[[str], None]) -> None:
        """`on_problem` is told, from that thread, why nothing more is read, once until it is again."""
        self._on_problem = on_problem
        self._lock: int | None = None
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self.file = self._place(folder)
        self.folder = self.file.parent if folder is None else folder
        self._db = connect(self.file)
        self.follower = Follower(self.folder, Index(self._db))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidegate-index", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.follower.close()
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
        if self._own is not None:
            self._own.cleanup()

    def reader(self) -> sqlite3.Connection:
        """A connection that only reads."""
        uri = f"file:{quote(str(self.file.absolute()))}?mode=ro"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA cache_size = -65536")
        return db

    def _place(self, folder: Path | None) -> Path:
        lock = None if folder is None else _locked(folder / f"{FILE}.lock")
        if folder is not None and lock is not None:
            self._lock = lock
            return folder / FILE
        self._own = tempfile.TemporaryDirectory(prefix="tidegate-dashboard-")
        return Path(self._own.name) / FILE

    def _run(self) -> None:
        failing_s = 0.0
        while not self._stop.is_set():
            try:
                more = self.follower.step()
            except Exception as error:  # whatever it is, pages would be answered from what stands still
                if not failing_s:
                    self._on_problem(f"the journal is not read on until this is over: {type(error).__name__}: {error}")
                failing_s = min(max(2.0 * failing_s, AGAIN_S), AGAIN_S_MAX)
                self.follower.anew()
                self._stop.wait(failing_s)
                continue
            if not more:
                failing_s = 0.0
                self._stop.wait(LOOK_S)


def _locked(file: Path) -> int | None:
    """The descriptor of a file that is locked with it; None where another process has it, or it cannot be."""
    with suppress(OSError):
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
        else:
            return lock
    return None
