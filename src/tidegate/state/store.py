"""The ledger's file: its tables and its transactions. It knows rows, not rules."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import astuple

from tidegate.state.database import Database, Kind

# A year and a month, for who reads the file: of days that are closed, the gateway itself counts the overruns alone.
DAYS_KEPT = 400

_SCHEMA = """
CREATE TABLE lease (
    id TEXT PRIMARY KEY, key TEXT NOT NULL, nusd INTEGER NOT NULL, day INTEGER NOT NULL, made_s REAL NOT NULL,
    expired INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE spent (
    day INTEGER, key TEXT, endpoint TEXT, nusd INTEGER NOT NULL, settled INTEGER NOT NULL, overruns INTEGER NOT NULL,
    PRIMARY KEY (day, key, endpoint)
) WITHOUT ROWID
"""
_ADD = """
INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, key, endpoint) DO UPDATE SET
    nusd = nusd + excluded.nusd, settled = settled + excluded.settled, overruns = overruns + excluded.overruns
"""


class LedgerError(Exception):
    """The ledger cannot be opened or written; the message says where, why and what to do."""


LEDGER = Kind(
    noun="ledger",
    afresh="start with empty books",
    application_id=0x54474C47,  # "TGLG": no other program's database passes for a ledger
    format=1,
    schema=_SCHEMA,
    error=LedgerError,
)


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
    """The ledger's open file. What a power cut takes, reservations and settled bills, may be spent once more."""

    def __init__(self, path: Path) -> None:
        self._file = Database(path, LEDGER)

    def leases(self) -> list[LeaseRow]:
        """All that is not settled, the oldest first. Raises LedgerError."""
        query = "SELECT id, key, nusd, day, made_s, expired FROM lease ORDER BY made_s, id"
        with self._file.explained():
            rows = self._file.connection.execute(query)
            return [LeaseRow(name, key, nusd, day, made_s, bool(old)) for name, key, nusd, day, made_s, old in rows]

    def spent_since(self, day: int) -> list[SpentRow]:
        """What was settled on that day and later, in order. Raises LedgerError."""
        query = "SELECT * FROM spent WHERE day >= ? ORDER BY day, key, endpoint"
        with self._file.explained():
            return [SpentRow(*row) for row in self._file.connection.execute(query, (day,))]

    def overruns(self, days: int) -> int:
        """How many bills exceeded their bound on the latest `days` days. Raises LedgerError."""
        query = "SELECT coalesce(sum(overruns), 0) FROM spent WHERE day >= ?"
        with self._file.explained():
            found: int = self._file.connection.execute(query, (self.oldest(days),)).fetchone()[0]
        return found

    def oldest(self, days: int) -> int:
        """The first of the latest `days` days on which anything was settled; 0 where there were fewer, and nothing is
        older than they go back. Raises LedgerError."""
        # By rank rather than counted back from today: a clock that jumps ahead and back again takes nothing with it.
        query = "SELECT DISTINCT day FROM spent ORDER BY day DESC LIMIT 1 OFFSET ?"
        with self._file.explained():
            found: tuple[int] | None = self._file.connection.execute(query, (days - 1,)).fetchone()
        return 0 if found is None else found[0]

    def write(self, put: Iterable[LeaseRow], drop: Iterable[str], spent: Iterable[SpentRow], *, prune: bool) -> None:
        """All of it in one transaction: leases as they are now, those that are gone, and what to add to the spent.

        Raises LedgerError, and then nothing of it is written.
        """
        with self._file.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?, ?)", map(astuple, put))
            db.executemany("DELETE FROM lease WHERE id = ?", ((lease_id,) for lease_id in drop))
            db.executemany(_ADD, map(astuple, spent))
            if prune:
                oldest = self.oldest(DAYS_KEPT)
                db.execute("DELETE FROM spent WHERE day < ?", (oldest,))
                db.execute("DELETE FROM lease WHERE expired AND day < ?", (oldest,))

    def touch(self) -> None:
        """Write one page, with what is in it. Raises LedgerError."""
        with self._file.transaction() as db:
            db.execute(f"PRAGMA user_version = {LEDGER.format}")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
