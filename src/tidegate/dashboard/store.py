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
from tidegate.dashboard.index import Index, connect, is_damage, remove

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

    def __init__(self, folder: Path | None, on_problem: Callable[[str], None], on_damage: Callable[[], None]) -> None:
        """`on_problem` is told why the index is not beside the journal where that cannot be; and, from that thread, why
        nothing more is read, once until it is again, and which segments cannot be. `on_damage` is called from there
        where the index is damaged, and then nothing more is read. sqlite3.Error or OSError where there can be no index.
        """
        self._on_problem = on_problem
        self._on_damage = on_damage
        self._lock = None if folder is None else _locked(folder / f"{FILE}.lock")
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._db = self._connected(folder)
        self.folder = self.file.parent if folder is None else folder
        self.follower = Follower(self.folder, Index(self._db), on_problem)
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

    def discard(self) -> None:
        """It is damaged: read no more, and leave nothing of it to who makes the next one."""
        self._stop.set()
        with suppress(OSError):
            remove(self.file)

    def _connected(self, folder: Path | None) -> sqlite3.Connection:
        if folder is not None and self._lock is not None:
            self.file = folder / FILE
            try:
                return connect(self.file)
            except (OSError, sqlite3.Error) as error:  # the disk may be full
                self._on_problem(
                    f"{self.file} cannot be used, and until the next start the index is in a temporary folder: "
                    f"{type(error).__name__}: {error}"
                )
        self._own = tempfile.TemporaryDirectory(prefix="tidegate-dashboard-")
        self.file = Path(self._own.name) / FILE
        try:
            return connect(self.file)
        except (OSError, sqlite3.Error):
            self._own.cleanup()
            raise

    def _run(self) -> None:
        failing_s = 0.0
        while not self._stop.is_set():
            try:
                more = self.follower.step()
            except Exception as error:  # whatever it is, pages would be answered from what stands still
                if is_damage(error):
                    self._on_damage()
                    return
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
