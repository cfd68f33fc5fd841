"""The index of a journal: one row a request, and sums by minute and hour, in a file that can be made anew at any time.

Both are kept by segment: what the journal loses with its oldest segment, the index loses with it. What is asked for
first is summed from sums; a search walks one index in the order of time that holds all that can be asked for.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from tidegate.core.model import Record
from tidegate.core.rows import Came, Row

FORMAT: Final = 4
OUTCOMES: Final = tuple(Came)
MINUTE_S: Final = 60.0
HOUR_S: Final = 3600.0

_SCHEMA = """
CREATE TABLE word (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (kind, text));
CREATE TABLE place (name TEXT PRIMARY KEY, site TEXT NOT NULL, tier TEXT NOT NULL);
CREATE TABLE segment (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, read_bytes INTEGER NOT NULL, rows INTEGER NOT NULL,
  over INTEGER NOT NULL, last_s REAL NOT NULL);
CREATE TABLE request (
  n INTEGER PRIMARY KEY, segment INTEGER NOT NULL, id TEXT NOT NULL, at_s REAL NOT NULL, ended_s REAL NOT NULL,
  klass INTEGER NOT NULL, model INTEGER NOT NULL, key INTEGER NOT NULL, endpoint INTEGER NOT NULL,
  why INTEGER NOT NULL, outcome INTEGER NOT NULL, kept INTEGER, tier INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER, output_tokens INTEGER,
  ttft_s REAL, tpot_s REAL, e2e_s REAL NOT NULL, sent_s REAL, predicted_s REAL, predicted_s_high REAL,
  slo_ttft_s REAL, slo_tpot_s REAL, slo_e2e_s REAL,
  usd REAL NOT NULL, paid_usd REAL NOT NULL, remote_usd REAL,
  attempts INTEGER NOT NULL, hedged INTEGER NOT NULL, held_s REAL NOT NULL, handover TEXT NOT NULL, handover_s REAL);
CREATE INDEX by_time ON request (at_s, n, klass, model, key, endpoint, why, outcome, kept, tier);
CREATE INDEX by_endpoint ON request (endpoint, ended_s);
CREATE INDEX by_segment ON request (segment);
CREATE INDEX by_id ON request (id);
CREATE TABLE sum (
  step_s INTEGER NOT NULL, at_s INTEGER NOT NULL, segment INTEGER NOT NULL, klass INTEGER NOT NULL,
  endpoint INTEGER NOT NULL, tier INTEGER NOT NULL, requests INTEGER NOT NULL,
  ok INTEGER NOT NULL, refused INTEGER NOT NULL, failed INTEGER NOT NULL,
  failed_mid_stream INTEGER NOT NULL, client_left INTEGER NOT NULL, client_error INTEGER NOT NULL,
  unknown INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  spent_usd REAL NOT NULL, running_usd REAL NOT NULL, remote_usd REAL NOT NULL, saved_usd REAL NOT NULL,
  kept INTEGER NOT NULL, judged INTEGER NOT NULL, covered INTEGER NOT NULL, predicted INTEGER NOT NULL,
  held INTEGER NOT NULL, hedged INTEGER NOT NULL, handover INTEGER NOT NULL,
  PRIMARY KEY (step_s, at_s, segment, klass, endpoint, tier)) WITHOUT ROWID;
CREATE TABLE price (
  at_s INTEGER NOT NULL, what TEXT NOT NULL, name TEXT NOT NULL, segment INTEGER NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (at_s, what, name)) WITHOUT ROWID;
"""
SUMS: Final = (
    "requests",
    *OUTCOMES,
    "prompt_tokens",
    "output_tokens",
    "spent_usd",
    "running_usd",
    "remote_usd",
    "saved_usd",
    "kept",
    "judged",
    "covered",
    "predicted",
    "held",
    "hedged",
    "handover",
)
"""What is summed, in the order of its columns."""
_ADD = (
    f"INSERT INTO sum VALUES (?, ?, ?, ?, ?, ?, {', '.join('?' * len(SUMS))}) "  # noqa: S608  # names of our own
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)
_Parts = tuple[float, ...]
"""What one row adds to these, or several."""
_NUMBER: Final = {came: number for number, came in enumerate(OUTCOMES)}
_CAME: Final = {came: tuple(int(came is outcome) for outcome in OUTCOMES) for came in OUTCOMES}
_COLUMNS: Final = 33
_NAMED: Final = "klass, model, key, endpoint, why"  # columns that hold numbers of names
_UNREAD: Final = (0, False, 0.0)
LOCAL, REMOTE = "local", "remote"
TIERS: Final = (None, LOCAL, REMOTE)
"""Where a request was served, by the number that the index has for it."""


class Price(Record, frozen=True, kw_only=True):
    """What something was worth at the end of a minute: `what` is `budget`, `worth` or `hedge`, and `name` of which."""

    at_s: float
    what: str
    name: str
    value: float


class Place(Record, frozen=True, kw_only=True):
    """Where an endpoint stands, as it was told last."""

    name: str
    site: str
    tier: str


def places_of(db: sqlite3.Connection) -> dict[str, Place]:
    """Where each endpoint stands, by its name."""
    found = db.execute("SELECT name, site, tier FROM place")
    return {name: Place(name=name, site=site, tier=tier) for name, site, tier in found}


def connect(file: Path) -> sqlite3.Connection:
    """A connection to an index, made anew where there is none that this software reads. sqlite3.Error or OSError where
    there can be none just now; what is there stays then."""
    try:
        return _opened(file)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        remove(file)
        return _opened(file)


def remove(file: Path) -> None:
    """Remove an index, so that the next one is made anew. OSError where that cannot be."""
    for each in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        each.unlink(missing_ok=True)


def is_damage(error: BaseException | None) -> bool:
    """Whether a file is no index any more, as after a power cut: nothing waits for the disk. SQLite tells all else by
    classes of their own: a disk that is full, a lock, a mistake of ours."""
    return type(error) is sqlite3.DatabaseError


def _opened(file: Path) -> sqlite3.Connection:
    if not file.exists():
        file.touch(mode=0o600)  # SQLite gives the files beside it the same
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN; {_SCHEMA}; PRAGMA user_version = {FORMAT}; COMMIT;")
        elif found != FORMAT:
            raise sqlite3.DatabaseError("another format")
        # It can be made anew: nothing waits for the disk.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -65536")
        Index(db)  # what it begins with may be damaged
    except BaseException:
        db.close()
        raise
    return db


class Words:
    """Names as small numbers, by kind; 0 is the empty one."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[tuple[str, str], int] = {}

    def number(self, kind: str, text: str | None) -> int:
        """That of a name, which is taken up where it is new."""
        if not text:
            return 0
        known = self._known.get((kind, text))
        if known is None:
            self._db.execute("INSERT OR IGNORE INTO word (kind, text) VALUES (?, ?)", (kind, text))
            found = self._db.execute("SELECT id FROM word WHERE kind = ? AND text = ?", (kind, text)).fetchone()
            known = self._known[kind, text] = int(found[0])
        return known


class Index:
    """Writes the index; one thread of one process does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._words = Words(db)
        self._places: dict[str, Place] = {}
        # Rows are numbered as they are added, whichever segment they are of.
        self._last = int(db.execute("SELECT coalesce(max(n), 0) FROM request").fetchone()[0])
        # Nobody else writes: each is asked for twice a second, and a journal has hundreds.
        self._read = {
            str(name): (int(read_bytes), bool(over), float(last_s))
            for name, read_bytes, over, last_s in db.execute("SELECT name, read_bytes, over, last_s FROM segment")
        }

    def read_bytes(self, segment: str) -> tuple[int, bool]:
        """How much of a segment is in it, and whether that is all there will be."""
        read_bytes, over, _ = self._read.get(segment, _UNREAD)
        return read_bytes, over

    def last_s(self, segment: str) -> float:
        """The time of the last line of a segment that is in it; 0 where there is none."""
        return self._read.get(segment, _UNREAD)[2]

    def segments(self) -> list[str]:
        """Those that are in it, in whole or in part."""
        return list(self._read)

    def place(self, place: Place) -> None:
        """An endpoint is where it is told to be last."""
        if self._places.get(place.name) != place:
            self._db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?)", (place.name, place.site, place.tier))
            self._places[place.name] = place

    def add(
        self,
        segment: str,
        read_bytes: int,
        rows: Sequence[Row],
        prices: Iterable[Price],
        *,
        over: bool = False,
        last_s: float = 0.0,
    ) -> None:
        """What was found in a segment up to there, where the last line is of `last_s`; all of it or nothing."""
        last_s = max(last_s, self.last_s(segment))
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(
                "INSERT OR IGNORE INTO segment (name, read_bytes, rows, over, last_s) VALUES (?, 0, 0, 0, 0)",
                (segment,),
            )
            number = int(db.execute("SELECT id FROM segment WHERE name = ?", (segment,)).fetchone()[0])
            entries = [self._entry(n, number, row) for n, row in enumerate(rows, self._last + 1)]
            db.executemany(f"INSERT INTO request VALUES ({', '.join('?' * _COLUMNS)})", entries)  # noqa: S608
            db.executemany(_ADD, self._sums(number, rows))
            db.executemany(
                "INSERT OR REPLACE INTO price VALUES (?, ?, ?, ?, ?)",
                [(int(one.at_s), one.what, one.name, number, one.value) for one in prices],
            )
            db.execute(
                "UPDATE segment SET read_bytes = ?, rows = rows + ?, over = ?, last_s = ? WHERE id = ?",
                (read_bytes, len(rows), over, last_s, number),
            )
            db.execute("COMMIT")
            self._last += len(rows)
            self._read[segment] = read_bytes, over, last_s
        except BaseException:
            # Names that were taken up in it are not there any more.
            self._words = Words(db)
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def forget(self, segment: str) -> None:
        """The journal has it no more."""
        db = self._db
        found = db.execute("SELECT id FROM segment WHERE name = ?", (segment,)).fetchone()
        if found is None:
            return
        number = int(found[0])
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("DELETE FROM request WHERE segment = ?", (number,))
            db.execute("DELETE FROM sum WHERE segment = ?", (number,))
            db.execute("DELETE FROM price WHERE segment = ?", (number,))
            db.execute("DELETE FROM segment WHERE id = ?", (number,))
            db.execute("COMMIT")
            self._read.pop(segment, None)
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def forget_names(self) -> None:
        """Those that no request has any more, and the places of endpoints among them."""
        db = self._db
        used = {id for row in db.execute(f"SELECT DISTINCT {_NAMED} FROM request") for id in row}  # noqa: S608
        db.execute("BEGIN IMMEDIATE")
        try:
            unused = [(id,) for (id,) in db.execute("SELECT id FROM word").fetchall() if id not in used]
            db.executemany("DELETE FROM word WHERE id = ?", unused)
            db.execute("DELETE FROM place WHERE name NOT IN (SELECT text FROM word WHERE kind = 'endpoint')")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._words = Words(db)
        self._places.clear()

    def _entry(self, n: int, segment: int, row: Row) -> tuple[object, ...]:
        number = self._words.number
        return (
            n,
            segment,
            row.id,
            row.arrived_s,
            row.arrived_s + row.e2e_s,
            number("class", row.klass),
            number("model", row.model),
            number("key", row.key),
            number("endpoint", row.endpoint),
            number("why", row.why),
            _NUMBER[row.outcome],
            row.kept,
            _tier(row),
            row.prompt_tokens,
            row.cached_tokens,
            row.output_tokens,
            row.ttft_s,
            row.tpot_s,
            row.e2e_s,
            row.sent_s,
            row.predicted_ttft_s,
            row.predicted_ttft_s_high,
            row.slo_ttft_s,
            row.slo_tpot_s,
            row.slo_e2e_s,
            row.usd,
            row.paid_usd,
            row.remote_usd,
            row.attempts,
            row.hedged,
            row.held_s,
            row.handover,
            row.handover_s,
        )

    def _sums(self, segment: int, rows: Sequence[Row]) -> list[tuple[float, ...]]:
        """The rows of the table: summed here first, since many of one batch are of one minute, and so of one hour.

        What nobody has answered is of no endpoint, whoever was asked. Where an endpoint stands may change: each sum is
        of one tier.
        """
        minutes: dict[tuple[float, str, str, int], list[_Parts]] = {}
        for row in rows:
            served = "" if row.local is None else row.endpoint
            key = ((row.arrived_s + row.e2e_s) // MINUTE_S * MINUTE_S, row.klass, served, _tier(row))
            minutes.setdefault(key, []).append(_parts(row))
        hours: dict[tuple[float, str, str, int], list[_Parts]] = {}
        for (at_s, klass, endpoint, tier), parts in minutes.items():
            total = minutes[at_s, klass, endpoint, tier] = [_added(parts)]
            hours.setdefault((at_s // HOUR_S * HOUR_S, klass, endpoint, tier), []).extend(total)
        number = self._words.number
        return [
            (step_s, at_s, segment, number("class", klass), number("endpoint", endpoint), tier, *_added(parts))
            for step_s, sums in ((MINUTE_S, minutes), (HOUR_S, hours))
            for (at_s, klass, endpoint, tier), parts in sums.items()
        ]


def _tier(row: Row) -> int:
    """Where it was served, as `TIERS` are numbered."""
    return 0 if row.local is None else 1 if row.local else 2


def _added(parts: list[_Parts]) -> _Parts:
    return parts[0] if len(parts) == 1 else tuple(map(sum, zip(*parts, strict=True)))


def _parts(row: Row) -> _Parts:
    saved_usd = 0.0 if row.remote_usd is None else row.remote_usd - row.usd
    covered = None
    if row.ttft_s is not None and row.predicted_ttft_s_high is not None:
        covered = row.ttft_s <= row.predicted_ttft_s_high
    return (
        1,
        *_CAME[row.outcome],
        row.prompt_tokens,
        row.output_tokens or 0,
        row.paid_usd,
        row.usd - row.paid_usd,
        row.remote_usd or 0.0,
        saved_usd,
        row.kept is True,
        row.kept is not None,
        covered is True,
        covered is not None,
        row.held_s > 0.0,
        row.hedged,
        row.handover != "",
    )
