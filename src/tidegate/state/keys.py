"""The file of client keys: who may ask for what, by the digests of their secrets, and who changed it when.

The command line writes it while gateways read it. Of a secret nothing is kept but its digest. It is plain SHA-256: a
secret has 192 random bits, which no dictionary holds and nobody counts through, so that salt, pepper or a slow
function would protect nothing and cost every request.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from math import inf
from os import fsencode, stat_result
from pathlib import Path
from urllib.parse import quote

import msgspec

from tidegate.clock import iso
from tidegate.core.model import replace
from tidegate.core.profile import Profile
from tidegate.state.cap import Cap, Period

APPLICATION_ID = 0x54474B59  # "TGKY"
FORMAT = 1
KEYS_MAX = 10_000  # live at once: each costs the gateway a few hundred bytes, and a listing is read by people
SECRET_PREFIX = "tk-"  # noqa: S105 - what secret scanners and people tell it by
# Any writer is done within milliseconds; one that stands for so long is stuck.
BUSY_S = 5.0

_SCHEMA = (
    "CREATE TABLE key (id TEXT PRIMARY KEY, profile TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE secret (digest BLOB PRIMARY KEY, key TEXT NOT NULL REFERENCES key, until_s REAL) WITHOUT ROWID",
    "CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, who TEXT NOT NULL, "
    "key TEXT NOT NULL, what TEXT NOT NULL)",
    "CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END",
    "CREATE TRIGGER audit_is_so BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)
_profile = msgspec.json.Decoder(Profile).decode


class KeysError(Exception):
    """The keys cannot be read or changed as asked; the message says where, why and what to do."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that opens, by its digest, what it opens, and until when (infinity: for good)."""

    digest: bytes
    profile: Profile
    until_s: float


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One change: when, by which user of the system, to which key, and what."""

    number: int
    at_s: float
    who: str
    key: str
    what: str


def new_secret() -> str:
    """A secret: 32 random characters that need no quoting anywhere, after the prefix."""
    return SECRET_PREFIX + secrets.token_urlsafe(24)


def new_id(name: str) -> str:
    """An id that tells people whose it is, and differs from that of an earlier key of this name."""
    return f"{name}-{secrets.token_hex(4)}"


def digest(secret: bytes) -> bytes:
    """What is kept of a secret, and looked up."""
    return sha256(secret).digest()


def caps(profiles: Iterable[Profile]) -> tuple[Cap, ...]:
    """The budgets of these keys, as the ledger takes them; a key goes by its id there."""
    found = []
    for profile in profiles:
        for usd, period in ((profile.usd_per_day, Period.DAY), (profile.usd_per_month, Period.MONTH)):
            if usd is not None:
                found.append(Cap(usd=usd, period=period, key=profile.id))
    return tuple(found)


class KeyFile:
    """The open file. Its owner may call it from one thread after the other, and `close` it from any.

    A rollback journal, not a write-ahead log: a reader then needs no right to write, neither to the file nor beside
    it, unless a writer was killed within a change; and a change that was confirmed survives a power cut. Raises
    KeysError, as do all methods.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """`write`: to change it, and to make it if it is not there."""
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] | None = None
        self._closed = False
        self._mode = "rw" if write else "ro"
        with _explained(path):
            # A file without a byte in it is what is left where making it was cut short.
            if write and not (path.exists() and path.stat().st_size):
                _create(path)
            elif path.is_dir():
                raise KeysError(f"{path}: this is a folder; name the file in it")
            elif not path.is_file():
                raise KeysError(f"{path}: there is no such file; `tidegate keys create NAME --file {path}` makes it")
            self._db = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            return self._opened(self._mode)
        except sqlite3.OperationalError as error:
            if not _cut_short(error):
                raise
        try:
            # Whoever reads the file to write to it takes back what a killed writer had begun, a mere reader cannot.
            self._opened("rw").close()
        except sqlite3.OperationalError:
            raise KeysError(
                f"{self.path}: a change to it was cut short; `tidegate keys list --file {self.path}` as the user who "
                "writes it takes that back"
            ) from None
        return self._opened(self._mode)

    def _opened(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"file:{quote(fsencode(self.path.absolute()))}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_S,
            check_same_thread=False,
        )
        try:
            if _pragma(db, "application_id") != APPLICATION_ID:
                raise KeysError(f"{self.path}: this is no file of keys, or its beginning is lost; {_REMEDY}")
            if (found := _pragma(db, "user_version")) != FORMAT:
                raise KeysError(
                    f"{self.path}: the file has format {found}, and this version of Tidegate reads {FORMAT}; "
                    "use the version that wrote it"
                )
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Let go of the file. Where a thread is reading it, that one does, once it has; where it hangs at its disk, the
        process's end."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._db.close()
            self._lock.release()

    # --- reading ----------------------------------------------------------------------------------------------------

    def changed(self) -> list[Known] | None:
        """Every secret that opens something, if the file has changed since the last call, else None."""
        try:
            with self._lock, _explained(self.path):
                try:
                    return self._changed()
                except sqlite3.OperationalError as error:
                    if not _cut_short(error):
                        raise
                self._reconnect()
                return self._changed()
        finally:
            if self._closed:
                self.close()

    def _changed(self) -> list[Known] | None:
        state = self.path.stat()
        if self._seen is not None and self._seen[1:] != _identity(state):
            # Another file was put in its place, or written over it, as a restored copy is. SQLite would take it for the
            # one whose pages it has, where as many changes were made to both.
            self._reconnect()
        # Before the rows: what changes in between is seen the next time.
        seen = (_pragma(self._db, "data_version"), *_identity(state))
        if seen == self._seen:
            return None
        rows = self._db.execute("SELECT digest, until_s, profile FROM secret JOIN key ON key.id = secret.key")
        known = [_known(*row) for row in rows]
        self._seen = seen
        return known

    def _reconnect(self) -> None:
        db = self._connect()
        self._db.close()
        self._db = db

    def profiles(self) -> list[Profile]:
        """Every key there ever was, in order of creation."""
        with _explained(self.path):
            return sorted(
                (_profile(text) for (text,) in self._db.execute("SELECT profile FROM key")),
                key=lambda profile: (profile.created_s, profile.id),
            )

    def find(self, name: str) -> Profile:
        """The key of this id, or the live one of this name."""
        found = [p for p in self.profiles() if p.id == name or (p.name == name and p.revoked_s is None)]
        if not found:
            raise KeysError(f"{self.path}: there is no key `{name[:80]}`; `tidegate keys list` shows those there are")
        return found[0]

    def audit(self, last: int) -> list[AuditRow]:
        """The latest changes, the oldest of them first."""
        query = "SELECT number, at_s, who, key, what FROM audit ORDER BY number DESC LIMIT ?"
        with _explained(self.path):
            rows = self._db.execute(query, (last,)).fetchall()
        return [AuditRow(number=n, at_s=at, who=who, key=key, what=what) for n, at, who, key, what in reversed(rows)]

    # --- changing ---------------------------------------------------------------------------------------------------

    def create(self, profile: Profile, secret: str, who: str) -> None:
        """Add a key with this secret. Its name must not be that of a live one, nor any one's id."""
        with self._transaction() as db:
            profiles = list(self.profiles())
            live = [p for p in profiles if p.revoked_s is None]
            if any(profile.name == p.name for p in live):
                raise KeysError(
                    f"{self.path}: there is a key `{profile.name}` already; revoke it or choose another name"
                )
            if any(profile.name == p.id for p in profiles):
                # Also of one that is revoked: by this name it would be that one that is found.
                raise KeysError(f"{self.path}: `{profile.name}` is the id of a key; choose another name")
            if len(live) >= KEYS_MAX:
                raise KeysError(f"{self.path}: there are {KEYS_MAX} keys; revoke those that nobody uses")
            db.execute("INSERT INTO key VALUES (?, ?)", (profile.id, _encoded(profile)))
            db.execute("INSERT INTO secret VALUES (?, ?, NULL)", (digest(secret.encode()), profile.id))
            self._note(profile.created_s, who, profile.id, f"created: {_told(profile)}")

    def revoke(self, name: str, now_s: float, who: str) -> Profile:
        """Nothing opens by this key any more."""
        with self._transaction() as db:
            profile = replace(self._live(name), revoked_s=now_s)
            db.execute("UPDATE key SET profile = ? WHERE id = ?", (_encoded(profile), profile.id))
            db.execute("DELETE FROM secret WHERE key = ?", (profile.id,))
            self._note(now_s, who, profile.id, "revoked")
        return profile

    def rotate(self, name: str, secret: str, now_s: float, grace_s: float, who: str) -> Profile:
        """Give the key another secret; those it has work for `grace_s` more, and no longer than they would have.

        One that has expired gets none: by no secret would it open anything.
        """
        with self._transaction() as db:
            profile = self._live(name)
            if profile.expires_s is not None and profile.expires_s <= now_s:
                expired = f"the key `{profile.id}` expired {iso(profile.expires_s)[:10]}"
                raise KeysError(f"{self.path}: {expired}, whatever its secret; revoke it and create another")
            until = "UPDATE secret SET until_s = min(coalesce(until_s, ?1), ?1) WHERE key = ?2"
            db.execute(until, (now_s + grace_s, profile.id))
            db.execute("DELETE FROM secret WHERE key = ? AND until_s <= ?", (profile.id, now_s))
            db.execute("INSERT INTO secret VALUES (?, ?, NULL)", (digest(secret.encode()), profile.id))
            self._note(now_s, who, profile.id, f"rotated, the old secret works for {grace_s:g} s")
        return profile

    def weigh(self, name: str, weight: float, now_s: float, who: str) -> Profile:
        """Give the key another share of our engines beside others."""
        with self._transaction() as db:
            profile = replace(self._live(name), weight=weight)
            db.execute("UPDATE key SET profile = ? WHERE id = ?", (_encoded(profile), profile.id))
            self._note(now_s, who, profile.id, f"changed: weight {weight:g}")
        return profile

    def _live(self, name: str) -> Profile:
        profile = self.find(name)
        if profile.revoked_s is not None:
            raise KeysError(f"{self.path}: the key `{profile.id}` was revoked, and stays so; create another")
        return profile

    def _note(self, now_s: float, who: str, key: str, what: str) -> None:
        # Within the transaction of the change: neither is there without the other.
        self._db.execute("INSERT INTO audit (at_s, who, key, what) VALUES (?, ?, ?, ?)", (now_s, who, key, what))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        with _explained(self.path):
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite takes some errors back by itself
                    db.execute("ROLLBACK")
                raise


def _known(digest: bytes, until_s: float | None, text: str) -> Known:
    profile = _profile(text)
    ends = (until_s, profile.expires_s, profile.revoked_s)
    return Known(digest=digest, profile=profile, until_s=min((end for end in ends if end is not None), default=inf))


def _told(profile: Profile) -> str:
    """What the audit says of a new key: all that it may do."""
    granted = {k: v for k, v in msgspec.structs.asdict(profile).items() if v is not None and k not in ("id", "name")}
    return msgspec.json.encode(granted).decode()


def _encoded(profile: Profile) -> str:
    return msgspec.json.encode(profile).decode()


def _identity(state: stat_result) -> tuple[int, ...]:
    """What is another where anybody has written to the file, also past SQLite; a copy may keep its time, but not that
    of its last change of state."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _cut_short(error: sqlite3.Error) -> bool:
    """Whether a writer was killed within a change, and this connection may not take back what is in the file of it."""
    # Those that Python raises by itself have no code.
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK


def _pragma(db: sqlite3.Connection, name: str) -> object:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def _create(path: Path) -> None:
    """A file for its owner alone, without keys. Where two make it at once, one of them finds it made."""
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)) as db:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in _SCHEMA:
                db.execute(statement)
        db.execute("COMMIT")


_REMEDY = "name the right file, or put back a copy of it"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise KeysError(
            f"{path}: {error}; see that this user can read it, or to change it write it and its folder, that the disk "
            "has room, or put back a copy of it"
        ) from None
    except msgspec.MsgspecError as error:
        raise KeysError(f"{path}: a key's profile is damaged ({error}); {_REMEDY}") from None
