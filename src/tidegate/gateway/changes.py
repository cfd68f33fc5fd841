"""The audit log: what operators have changed, who they were, and when; in a file of its own beside the journal."""

import os
from collections.abc import Iterable
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any

import msgspec

from tidegate.clock import Clock
from tidegate.core.model import replace
from tidegate.telemetry.log import Log
from tidegate.telemetry.packing import sync_folder
from tidegate.wire.changes import FILE, FILE_BYTES_MAX, Changed, Setting

# Of one change; a file that was replaced differs in all of its settings, and the first hundred tell that.
SETTINGS_MAX = 100
# What is cut down keeps so much, and so the newest line whole.
KEPT_BYTES = FILE_BYTES_MAX // 2
# Of each value of a change that is longer than that: a hundred, before and after, fit in whatever they are.
VALUE_BYTES_MAX = 1000


class Changes:
    """Appends to the file in `folder`; without one, the log alone is told."""

    def __init__(self, folder: Path | None, *, clock: Clock, log: Log) -> None:
        self._file = None if folder is None else folder / FILE
        self._clock = clock
        self._log = log

    def add(self, who: str, what: str, changes: Iterable[Setting], *, applied: bool) -> None:
        """One more. A disk that does not take it is told of, and keeps nobody from what was wanted."""
        made = Changed(
            at_s=self._clock.now_s(), who=who, what=what, changes=tuple(changes)[:SETTINGS_MAX], applied=applied
        )
        self._log.event("info", "changed by operators", who=who, what=what, applied=applied)
        if self._file is None:
            return
        try:
            self._append(self._file, _line(made))
        except OSError as error:
            self._log.event("error", f"{self._file} cannot be written: {error.strerror}")

    def _append(self, file: Path, line: bytes) -> None:
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
