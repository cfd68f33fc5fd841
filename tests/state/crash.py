"""What a killed process leaves on the disk."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tidegate.state.ledger import Ledger
from tidegate.state.store import SpentRow

# With so little room in memory, what it has changed is in the file before it commits.
_CHANGE = """
import os, signal, sqlite3, sys

db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size = 1")
db.execute("BEGIN IMMEDIATE")
db.executemany("INSERT INTO key VALUES (?, 'no profile')", [(str(number),) for number in range(1000)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def leave(path: Path, to: Path, log: bytes | None = None) -> Path:
    """Copy an open database as it stands, or with `log` for its write-ahead log."""
    to.write_bytes(path.read_bytes())
    if log is None:
        log = wal(path).read_bytes() if wal(path).exists() else b""
    wal(to).write_bytes(log)
    return to


def open_leases(path: Path) -> dict[str, bool]:
    """The leases in the file, and whether they have expired."""
    with closing(sqlite3.connect(path)) as db:
        return {name: bool(expired) for name, expired in db.execute("SELECT id, expired FROM lease")}


def bills(ledger: Ledger) -> list[SpentRow]:
    """What was settled, as it stands in the file, in order of days."""
    return ledger._store.spent_since(0)


def cut_short(path: Path) -> None:
    """Leave a file of keys, and the journal beside it, as a writer does who is killed within a change."""
    child = subprocess.run([sys.executable, "-c", _CHANGE, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert path.with_name(path.name + "-journal").exists()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("SELECT count(*) FROM key")
