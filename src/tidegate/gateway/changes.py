"""The audit log: what operators have changed, who they were, and when; in a file of its own beside the journal."""

import asyncio
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from errno import ENOSPC
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tidegate.clock import Clock
from tidegate.core.model import replace
from tidegate.gateway import daemon
from tidegate.telemetry.log import Log
from tidegate.telemetry.packing import sync_folder
from tidegate.wire.changes import FILE, FILE_BYTES_MAX, Changed, Setting

# Of one change; a file that was replaced differs in all of its settings, and the first hundred tell that.
SETTINGS_MAX = 100
# What is cut down keeps so much, and so the newest line whole.
KEPT_BYTES = FILE_BYTES_MAX // 2
# Of each value of a change that is longer than that: a hundred, before and after, fit in whatever they are.
VALUE_BYTES_MAX = 1000
# So many gather where the disk hangs alone: operators change things one by one.
WAITING_MAX = 100
# A disk that works takes a line within milliseconds, and one that was asleep wakes in a few seconds.
WRITTEN_S, CLOSE_S = 1.0, 10.0


class Changes:
    """Appends to the file in `folder`, one after the other; without one, the log alone is told."""

    def __init__(self, folder: Path | None, *, clock: Clock, log: Log) -> None:
        self._file = None if folder is None else folder / FILE
        self._clock = clock
        self._log = log
        self._waiting: deque[bytes] = deque()
        self._writing: asyncio.Task[None] | None = None

    def add(self, who: str, what: str, changes: Iterable[Setting], *, applied: bool) -> None:
        """One more. A disk that does not take it is told of, and one that hangs keeps nobody from what was wanted."""
        made = Changed(
            at_s=self._clock.now_s(), who=who, what=what, changes=tuple(changes)[:SETTINGS_MAX], applied=applied
        )
        self._log.event("info", "changed by operators", who=who, what=what, applied=applied)
        if self._file is None:
            return
        if len(self._waiting) == WAITING_MAX:
            self._log.event("error", f"{self._file} cannot be written: the disk does not answer")
            return
        self._waiting.append(_line(made))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(self._file))

    async def written(self, within_s: float = WRITTEN_S) -> bool:
        """Whether all that was added is in the file, or was refused; waits so long for that."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=within_s)
        return self._writing is None or self._writing.done()

    async def close(self) -> None:
        """Have it written, unless the disk hangs."""
        if await self.written(CLOSE_S) or self._writing is None:
            return
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        self._log.event("error", f"{self._file} cannot be written: the disk does not answer")

    async def _write(self, file: Path) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            try:
                await asyncio.wrap_future(daemon.begin(partial(_append, file, line), "changes"))
            except OSError as error:
                self._log.event("error", f"{file} cannot be written: {error.strerror}")


def _append(file: Path, line: bytes) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        taken = os.write(fd, line)
        size = os.fstat(fd).st_size
        if taken < len(line):
            # With half of one before it, the next could not be read either.
            os.ftruncate(fd, size - taken)
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(fd)
    if size > FILE_BYTES_MAX:
        _cut_down(file)


def _cut_down(file: Path) -> None:
    # Whoever reads meanwhile has the whole of one or the other, and after a power cut that is left.
    content = file.read_bytes()
    kept = content[content.find(b"\n", len(content) - KEPT_BYTES - 1) + 1 :]
    new = file.with_name(file.name + ".new")
    with suppress(FileNotFoundError):
        new.unlink()
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(kept)
        stream.flush()
        os.fsync(fd)
    new.replace(file)
    sync_folder(file.parent)


def _line(made: Changed) -> bytes:
    line = msgspec.json.encode(made) + b"\n"
    if len(line) > KEPT_BYTES:
        told = [replace(one, before=_beginning(one.before), after=_beginning(one.after)) for one in made.changes]
        line = msgspec.json.encode(replace(made, changes=tuple(told))) + b"\n"
    return line


def _beginning(value: Any) -> Any:
    """The value, or how it begins where it is a long one."""
    text = msgspec.json.encode(value)
    return value if len(text) <= VALUE_BYTES_MAX else f"{text[:VALUE_BYTES_MAX].decode(errors='ignore')}..."
