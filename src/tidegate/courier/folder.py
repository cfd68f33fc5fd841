"""The folder that a courier shares with its engine: in memory, private, bounded, and empty of what nobody knows.

What lies in it is a prompt in another form. A name is random, and known to whoever may use it alone.
"""

import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

from tidegate.courier.refusal import RefusalError
from tidegate.wire.courier import Why

_OURS = re.compile(r"^[0-9a-f]{32}$")
_IN_MEMORY = ("tmpfs", "ramfs")
# More than an engine is asked to save while it is busy with one answer; what is older it has forgotten.
LATE_MAX = 256


class FolderError(Exception):
    """The folder cannot be used. The message says why and what to do about it."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is whole and verified: what is in it, of which model, since when."""

    size_bytes: int
    tokens: int
    fingerprint: str
    since_s: float


class Folder:
    """Names for blobs, and the space they take. Time is an argument."""

    def __init__(self, path: Path, space_bytes: int, unclaimed_s: float) -> None:
        self.path = path
        self.space_bytes = space_bytes
        self._unclaimed_s = unclaimed_s
        self._under_way: dict[str, int] = {}  # by name: what each may come to
        self._held: dict[str, Held] = {}  # the oldest first
        self._late: dict[str, None] = {}  # what an engine may still write; the oldest first
        self._lock: int | None = None

    @property
    def free_bytes(self) -> int:
        """Room without evicting anything."""
        return self.space_bytes - sum(self._under_way.values()) - sum(one.size_bytes for one in self._held.values())

    @property
    def _room_bytes(self) -> int:
        """Room where all that waits to be restored makes some."""
        return self.space_bytes - sum(self._under_way.values())

    @property
    def held(self) -> int:
        """Blobs that wait to be restored."""
        return len(self._held)

    def open(self) -> None:
        """Make it, or see that it is as it has to be, and nobody else's; what an earlier process left goes.

        Raises `FolderError`, also where another courier uses it: each would remove what the other one holds.
        """
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            found = self.path.lstat()
            left = [entry.name for entry in os.scandir(self.path)]
        except OSError as error:
            raise FolderError(f"{self.path} cannot be used: {error.strerror}; name a folder under /dev/shm") from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
            raise FolderError(f"{self.path} is open to others; make it a folder of this user alone: chmod 700")
        if kind_of(self.path) not in _IN_MEMORY:
            raise FolderError(f"{self.path} is on a disk, which remembers; name a folder in memory, under /dev/shm")
        if strangers := [name for name in left if not _OURS.match(name)]:
            raise FolderError(f"{self.path} holds {len(strangers)} files of others; name a folder for nothing else")
        self._lock = self._locked()
        self.sweep(0.0)

    def _locked(self) -> int:
        """The folder's descriptor. The kernel lets go of the lock when the process ends."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            reason = f"{self.path} is used by another courier; stop that one, or give each a folder of its own"
            raise FolderError(reason) from None
        return fd

    def at(self, name: str) -> Path:
        """Where the blob of that name lies."""
        return self.path / name

    def reserve(self, size_bytes: int) -> str:
        """A new name, with room for so much; what waits to be restored makes room, the oldest first.

        Raises `RefusalError` where what is under way leaves none.
        """
        if size_bytes > self._room_bytes:
            raise RefusalError(Why.FULL, "there is no room for a blob of this size now")
        while size_bytes > self.free_bytes:
            self.release(next(iter(self._held)))
        name = secrets.token_hex(16)
        self._under_way[name] = size_bytes
        return name

    def reserve_for(self, bytes_max: int) -> str:
        """As `reserve`, for a blob that has so much at most: with what room there is, until it `comes_to` something."""
        return self.reserve(max(1, min(bytes_max, self._room_bytes)))

    def comes_to(self, name: str, size_bytes: int) -> None:
        """What is under way has so much, and needs no more room; raises `RefusalError` where it has less."""
        if size_bytes > self._under_way[name]:
            raise RefusalError(Why.FULL, "there is no room for a blob of this size now")
        self._under_way[name] = size_bytes

    def hold(self, name: str, held: Held) -> str:
        """What was under way is whole. Its new name, under which it can be claimed."""
        told = secrets.token_hex(16)
        self.at(name).rename(self.at(told))
        del self._under_way[name]
        self._held[told] = held
        return told

    def claim(self, name: str) -> Held:
        """Take one out of what may be evicted, to be restored once; raises `RefusalError` where there is none."""
        held = self._held.pop(name, None)
        if held is None:
            raise RefusalError(Why.GONE, "there is no such blob here: restored, evicted, expired or never sent")
        self._under_way[name] = held.size_bytes
        return held

    def release(self, name: str) -> None:
        """Nobody needs it any more."""
        self.at(name).unlink(missing_ok=True)
        self._under_way.pop(name, None)
        self._held.pop(name, None)

    def give_up(self, name: str) -> None:
        """As `release`, of what an engine was asked to write: it may come to that when nobody waits any more."""
        self.release(name)
        self._late[name] = None
        if len(self._late) > LATE_MAX:
            del self._late[next(iter(self._late))]

    def sweep(self, now_s: float) -> int:
        """Remove what has waited too long and what nobody knows; how many had waited.

        An engine that was asked to save writes when it comes to that, whether or not anybody still waits for it.
        """
        late = [name for name, held in self._held.items() if now_s - held.since_s >= self._unclaimed_s]
        for name in late:
            self.release(name)
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not _OURS.match(entry.name) or entry.name in self._held or entry.name in self._under_way:
                    continue
                if entry.is_dir(follow_symlinks=False):  # as `close` leaves them
                    self.at(entry.name).rmdir()
                    continue
                self.release(entry.name)
                self._late.pop(entry.name, None)
        return len(late)

    def close(self) -> None:
        """Remove everything of ours, and let no engine write later what nobody would remove."""
        if self._lock is None:
            return
        self._under_way.clear()
        self._held.clear()
        # Should somebody have removed it, there is nothing left to remove.
        with suppress(FileNotFoundError):
            self.sweep(0.0)
            for name in self._late:
                self._bar(name)
        self._late.clear()
        os.close(self._lock)
        self._lock = None

    def _bar(self, name: str) -> None:
        """An empty folder in place of a file: who comes to write that cannot."""
        while True:
            self.at(name).unlink(missing_ok=True)
            with suppress(FileExistsError):  # it was written just now
                self.at(name).mkdir()
                return


def kind_of(path: Path) -> str:
    """The kind of file system that a folder is on."""
    # Of folders' names nobody knows in which letters they are.
    mounts = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    lines = (line.split(" ") for line in mounts.split("\n") if line)
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((fields[fields.index("-") + 1] for fields in lines if fields[2] == wanted), "unknown")
