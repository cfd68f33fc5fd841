"""The ledger's file: its format, its lock, its transactions. It knows rows, not rules."""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import astuple

APPLICATION_ID = 0x54474C47  # "TGLG": no other program's database passes for a ledger
FORMAT = 1
DAYS_KEPT = 400  # a year and a month: what was spent in this month of last year can still be looked up

_SCHEMA = f"""
BEGIN;
CREATE TABLE lease (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, nusd INTEGER NOT NULL, day INTEGER NOT NULL, made_s REAL NOT NULL,
    expired INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE spent (
    day INTEGER, key TEXT, endpoint TEXT, nusd INTEGER NOT NULL, settled INTEGER NOT NULL, overruns INTEGER NOT NULL,
    PRIMARY KEY (day, key, endpoint)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""
_ADD = """
INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, key, endpoint) DO UPDATE SET
    nusd = nusd + excluded.nusd, settled = settled + excluded.settled, overruns = overruns + excluded.overruns
"""


class LedgerError(Exception):
    """The ledger cannot be opened or written; the message says where, why and what to do."""


class LeaseRow(msgspec.Struct, frozen=True):
    """A reservation that is not settled. Money in nano-dollars; `day` is the UTC day it is attributed to."""

    id: str
    key: str
    nusd: int
    day: int
    made_s: float
    expired: bool


class SpentRow(msgspec.Struct, frozen=True):
    """What was settled for one key at one endpoint on one day, in nano-dollars; `day` counts from the epoch."""

    day: int
    key: str
    endpoint: str
    nusd: int
    settled: int
    overruns: int


class Store:
    """An open file. The lock on it goes with the process, however that ends.

    Write-ahead log with `synchronous = NORMAL`: what was committed survives the death of the process. A power cut may
    lose what was committed since the kernel last wrote the log out, half a minute by its defaults, and never breaks
    the file: reservations and settled bills of that time are then missing, so that as much may be spent once more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ExitStack() as opened:
            self._lock = opened.enter_context(closing(Lock(path)))
            with _explained(path):
                if not path.exists():
                    _create(path)
                self._db = opened.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
                self._check()
                self._db.execute("PRAGMA synchronous = NORMAL")
            self._opened = opened.pop_all()

    def _check(self) -> None:
        if self._pragma("application_id") != APPLICATION_ID:
            raise LedgerError(f"{self.path}: this is no ledger, or its beginning is lost; {_remedy(self.path)}")
        if (found := self._pragma("user_version")) != FORMAT:
            raise LedgerError(
                f"{self.path}: the ledger has format {found}, and this version of Tidegate reads {FORMAT}; "
                f"start the version that wrote it, or {_AFRESH}"
            )
        fault = str(self._pragma("quick_check(1)")).splitlines()[-1]
        if fault != "ok":
            raise LedgerError(f"{self.path}: the ledger is damaged ({fault}); {_remedy(self.path)}")

    def _pragma(self, name: str) -> object:
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    def leases(self) -> list[LeaseRow]:
        """All that is not settled, the oldest first. Raises LedgerError."""
        with _explained(self.path):
            rows = self._db.execute("SELECT id, key, nusd, day, made_s, expired FROM lease ORDER BY made_s, id")
            return [LeaseRow(name, key, nusd, day, made_s, bool(old)) for name, key, nusd, day, made_s, old in rows]

    def spent(self, days: int) -> list[SpentRow]:
        """What was settled on the latest `days` days on which anything was, in order. Raises LedgerError."""
        query = "SELECT * FROM spent WHERE day >= ? ORDER BY day, key, endpoint"
        with _explained(self.path):
            return [SpentRow(*row) for row in self._db.execute(query, (self._oldest(days),))]

    def _oldest(self, days: int) -> int:
        # By rank rather than counted back from today: a clock that jumps ahead and back again takes nothing with it.
        query = "SELECT min(day) FROM (SELECT DISTINCT day FROM spent ORDER BY day DESC LIMIT ?)"
        found: int | None = self._db.execute(query, (days,)).fetchone()[0]
        return found or 0

    def write(self, put: Iterable[LeaseRow], drop: Iterable[str], spent: Iterable[SpentRow], *, prune: bool) -> None:
        """All of it in one transaction: leases as they are now, those that are gone, and what to add to the spent.

        Raises LedgerError, and then nothing of it is written.
        """
        db = self._db
        with _explained(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?)", map(astuple, put))
                db.executemany("DELETE FROM lease WHERE id = ?", ((lease_id,) for lease_id in drop))
                db.executemany(_ADD, map(astuple, spent))
                if prune:
                    oldest = self._oldest(DAYS_KEPT)
                    db.execute("DELETE FROM spent WHERE day < ?", (oldest,))
                    db.execute("DELETE FROM lease WHERE expired AND day < ?", (oldest,))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite takes some errors back by itself
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._opened.close()


class Lock:
    """One process at a time. The kernel lets go of it when the process ends.

    On a file of its own: closing any descriptor of the database's file would drop the locks that SQLite has on it.
    """

    def __init__(self, path: Path) -> None:
        file = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerError(f"{file}: {error.strerror}; see that its folder exists and can be written") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            reason = f"it cannot be locked: {error.strerror}; keep the ledger on a local disk"
            if isinstance(error, BlockingIOError):
                reason = "the ledger is open in another process; stop that, or give each gateway a ledger of its own"
            raise LedgerError(f"{path}: {reason}") from None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def _create(path: Path) -> None:
    """Empty books. They get their name when they are whole: what stands under it and is not is damaged, not new."""
    new = path.with_name(path.name + ".new")
    # A log that outlived its database would be taken for that of the next one.
    for leftover in (new, *(file.with_name(file.name + end) for file in (new, path) for end in ("-wal", "-shm"))):
        leftover.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"{path}: {error}; {_remedy(path)}") from None


_AFRESH = "move it away with all that is named after it, to start with empty books"


def _remedy(path: Path) -> str:
    return f"see that {path.parent} can be written and the disk has room, put back a copy of the file, or {_AFRESH}"
