"""What a killed process leaves on the disk."""

import sqlite3
from contextlib import closing
from pathlib import Path


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
