"""A file of ours in SQLite: how it is made, told from others, locked, and what is said where it cannot be used."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import msgspec

# Any other program is done within milliseconds; one that stands for so long is stuck, and the loop waits for it.
BUSY_S = 1.0


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds. `noun` is what messages call it, `afresh` what becomes of moving it away.

    `schema` makes its tables; `error` is raised with the place, the reason and the remedy.
    """

    noun: str
    afresh: str
    application_id: int
    format: int
    schema: str
    error: type[Exception]


class Database:
    """An open file. The lock on it goes with the process, however that ends.

    Write-ahead log with `synchronous = NORMAL`: what was committed survives the death of the process. A power cut may
    lose what was committed since the kernel last wrote the log out, half a minute by its defaults, and never breaks
    the file. Once others have removed or replaced the file or its log, nothing more is written. Any thread may use it,
    one at a time.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        self.path = path
        self._kind = kind
        with ExitStack() as opened:
            self._lock = Lock(path, kind.noun, kind.error)
            opened.callback(self._unlock)
            with self.explained():
                if not path.exists():
                    _create(_target(path), kind)
                connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
                self.connection = opened.enter_context(closing(connection))
                self._check()
                self._pragma("journal_mode = WAL")  # of a copy that was made without
                self.connection.execute("PRAGMA synchronous = NORMAL")
                self._note_version()
                log = Path(f"{_target(path)}-wal")  # SQLite puts it there, too
                self._files = [(file, file.stat()) for file in (path, log)]
            self._opened = opened.pop_all()

    def _check(self) -> None:
        path, kind = self.path, self._kind
        if self._pragma("application_id") != kind.application_id:
            raise kind.error(f"{path}: this is no {kind.noun}, or its beginning is lost; {_remedy(kind)}")
        if (found := self._pragma("user_version")) != kind.format:
            raise kind.error(
                f"{path}: the {kind.noun} has format {found}, and this version of Tidegate reads {kind.format}; "
                f"start the version that wrote it, or {_away(kind)}"
            )
        fault = str(self._pragma("quick_check(1)")).splitlines()[-1]
        if fault != "ok":
            raise kind.error(f"{path}: the {kind.noun} is damaged ({fault}); {_remedy(kind)}")

    def _pragma(self, name: str) -> object:
        return self.connection.execute(f"PRAGMA {name}").fetchone()[0]

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What goes wrong within is raised as this kind's error."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._kind.error(f"{self.path}: {error}; {_remedy(self._kind)}") from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written within, or nothing of it where this raises."""
        db = self.connection
        with self.explained():
            self._check_place()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite takes some errors back by itself
                    db.execute("ROLLBACK")
                raise
            finally:
                self._note_version()

    def _check_place(self) -> None:
        """What is written to a file that was removed is lost, and a lock on one keeps nobody off."""
        for path, status in self._files:
            if not _leads_to(path, status):
                raise self._taken(path)
        if not _leads_to(self._lock.path, self._lock.status):
            self._lock_anew()

    def _lock_anew(self) -> None:
        """Nothing is lost with a lock, unless another process had the file meanwhile."""
        lock = Lock(self.path, self._kind.noun, self._kind.error)
        try:
            if self._pragma("data_version") != self._version:
                raise self._taken(lock.path)
        except BaseException:
            lock.close()
            raise
        self._unlock()
        self._lock = lock

    def _note_version(self) -> None:
        """It rises where others have written, and at failures of our own: what was seen under our lock is no news."""
        with suppress(sqlite3.Error):
            self._version = self._pragma("data_version")

    def _unlock(self) -> None:
        self._lock.close()

    def _taken(self, path: Path) -> Exception:
        noun = self._kind.noun
        return self._kind.error(
            f"{path}: another program removed or replaced this file, or a link on the way to it was switched, while "
            f"the {noun} was open; move the very files back, or stop the gateway, put back a copy of the {noun} if it "
            "is gone, and start the gateway again"
        )

    def close(self) -> None:
        """Let go of the file."""
        self._opened.close()


class Lock:
    """One process at a time, by whatever name it has the file. The kernel lets go of it when the process ends.

    On a file of its own: closing any descriptor of the database's file would drop the locks that SQLite has on it.
    """

    def __init__(self, path: Path, noun: str, error: type[Exception]) -> None:
        self.path = Path(f"{_target(path)}.lock")
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise error(f"{self.path}: {fault.strerror}; see that its folder exists and can be written") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            os.close(self._descriptor)
            reason = f"it cannot be locked: {fault.strerror}; keep the {noun} on a local disk"
            if isinstance(fault, BlockingIOError):
                reason = f"the {noun} is open in another process; stop that, or give each gateway a {noun} of its own"
            raise error(f"{path}: {reason}") from None
        self.status = os.fstat(self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


def _create(path: Path, kind: Kind) -> None:
    """An empty file. It gets its name when it is whole: what stands under it and is not is damaged, not new."""
    new = path.with_name(path.name + ".new")
    # A log that outlived its database would be taken for that of the next one.
    for leftover in (new, *(file.with_name(file.name + end) for file in (new, path) for end in ("-wal", "-shm"))):
        leftover.unlink(missing_ok=True)
    new.touch(mode=0o600)  # SQLite gives the files beside it the same
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(
            f"BEGIN; {kind.schema}; PRAGMA application_id = {kind.application_id}; "
            f"PRAGMA user_version = {kind.format}; COMMIT;"
        )
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _target(path: Path) -> Path:
    """What a link leads to, whether or not it is there; beside it stands what belongs to the file."""
    return Path(os.path.realpath(path))  # which a circle of links leaves as it is


def _leads_to(path: Path, status: os.stat_result) -> bool:
    """Whether this is still the name of the file that had this status."""
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def _away(kind: Kind) -> str:
    return f"move it away with all that is named after it, to {kind.afresh}"


def _remedy(kind: Kind) -> str:
    return f"see that its folder can be written and the disk has room, put back a copy of the file, or {_away(kind)}"
