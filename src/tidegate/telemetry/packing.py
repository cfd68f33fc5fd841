"""Finished segments are packed with zstd: the same lines in an eighth of the room, for some 2 us of a core a request.

What is packed is written under another name, synced, renamed, and only then is the segment removed. So a kill at any
instant leaves a whole segment, in one form or in both, of which whoever reads takes one.
"""

import fcntl
import io
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import BinaryIO, cast

from tidegate.telemetry.segments import LINE_BYTES_MAX, PACKED, PART, unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What reading a segment that is damaged raises, besides OSError.
DAMAGED = (EOFError, zstd.ZstdError)

# Lines repeat those before them: levels up to 6 take up to six times the CPU and come to hardly less, or to more.
LEVEL = 1
# A piece takes some 12 ms of a core, without the interpreter's lock; after it, whoever needs that core has it. Where
# cores are scarce, taking the lock is what others may wait for: so there are few pieces, and at no lower priority.
PIECE_BYTES = 4 << 20
PAUSE_S = 0.05
READ_BYTES = 1 << 16
# What is left of a damaged segment is read in pieces of such sizes: quickly, and then to the last byte.
SALVAGED_BYTES = (4096, 1)
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}


def open_segment(path: Path) -> BinaryIO:
    """A segment's lines as bytes, packed or not. Raises OSError; FileNotFoundError where it is there in neither form.

    Reading may raise `DAMAGED`.
    """
    if path.suffix != PACKED:
        try:
            return path.open("rb")
        except FileNotFoundError:
            # It was there a moment ago, and may have been packed since.
            path = _packed(path)
    return io.BufferedReader(zstd.ZstdFile(path, "rb"), READ_BYTES)


def lines_up_to_damage(path: Path, offset: int) -> list[bytes]:
    """The whole lines from `offset` to the place at which a packed segment is damaged."""
    return [line for line in io.BytesIO(up_to_damage(path, offset, LINE_BYTES_MAX)) if line.endswith(b"\n")]


def up_to_damage(path: Path, offset: int, bytes_max: int) -> bytes:
    """What stands from `offset` to the place at which a packed segment is damaged, or as many bytes of it, and hardly
    more. A read that meets the place loses all that it was asked for, and buffers ask for more than is wanted."""
    found = bytearray()
    for piece_bytes in SALVAGED_BYTES:
        with suppress(OSError, *DAMAGED), open_segment(path) as file:
            # Below the buffer of the file. That has another, which is passed by where it is asked like that.
            packed = cast("io.BufferedIOBase", cast("io.BufferedReader", file).raw)
            packed.seek(offset + len(found))
            while len(found) < bytes_max and (piece := packed.read1(piece_bytes)):
                found += piece
    return bytes(found)


def is_there(path: Path) -> bool:
    """Whether there is such a segment, packed or not."""
    return path.exists() or (path.suffix != PACKED and _packed(path).exists())


def pack(path: Path, goes_on: Callable[[], bool] = lambda: True) -> bool:
    """Put a packed segment in the place of this one; False, and nothing is changed, where that may not be, or fails.

    It may not while somebody writes it, or packs or removes it, nor where the file system has no locks to tell that.
    `goes_on` is asked after each piece.
    """
    packed, part = _packed(path), path.with_name(path.name + PACKED + PART)
    try:
        # For writing, though it is only read: over NFS, nothing else can be locked like that.
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file.fileno())
            if not status.st_nlink or not status.st_size:
                # Somebody has removed it; or it is being made, and its writer has the lock in a moment.
                return False
            if not packed.exists():
                try:
                    if not _write(file, part, goes_on):
                        return False
                    # Which segment was written to longest ago is told by this.
                    os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
                    part.rename(packed)
                finally:
                    part.unlink(missing_ok=True)
            sync_folder(path.parent)  # before the old one goes
            path.unlink()
    except OSError:
        # The disk is full, or somebody has it: what is not packed is still a segment.
        return False
    return True


def sync_folder(folder: Path) -> None:
    """What has a new name in it is to outlast a power cut. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Packer:
    """One thread that packs whatever is finished in a folder, when it is told that there may be more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-packer")
        self._pending = False
        self._closed = Event()

    def soon(self) -> None:
        """Another segment may be finished."""
        if not self._pending:
            self._pending = True
            self._pool.submit(self._pack_all)

    def close(self) -> None:
        """Stop after the piece that is being packed."""
        self._closed.set()
        self._pool.shutdown(wait=True)

    def _pack_all(self) -> None:
        self._pending = False
        with suppress(OSError):
            for part in self._folder.glob(f"*{PACKED}{PART}"):
                # Left by a process that was killed; while the segment is there, whoever packs it writes that anew.
                if not part.with_suffix("").with_suffix("").exists():
                    part.unlink(missing_ok=True)
            for path in unpacked(self._folder):
                if not self._closed.is_set():
                    pack(path, self._goes_on)

    def _goes_on(self) -> bool:
        return not self._closed.wait(PAUSE_S)


def _packed(path: Path) -> Path:
    return path.with_name(path.name + PACKED)


def _write(file: BinaryIO, part: Path, goes_on: Callable[[], bool]) -> bool:
    """The whole of it into `part`, and on the disk; False where it was told to stop."""
    packer = zstd.ZstdCompressor(options=_OPTIONS)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
        while piece := file.read(PIECE_BYTES):
            out.write(packer.compress(piece))
            if not goes_on():
                return False
        out.write(packer.flush())
        out.flush()
        os.fsync(out.fileno())
    return True
