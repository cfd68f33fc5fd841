"""What verbs write: tables, files, journals, bars that show how far they have come, and what becomes of their
status where nothing can be written."""

import errno
import fcntl
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Any, TextIO

import msgspec
import rich.console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tidegate.config.problem import ConfigError, Problem
from tidegate.core.model import Line
from tidegate.telemetry.packing import sync_folder
from tidegate.telemetry.segments import PART, SegmentName, segments

BUFFER_BYTES = 1 << 20  # a journal of some MB a second is written in few calls
WIDTH = 80  # in columns, where nobody says
WIDTH_MAX = 100_000  # of a table
# What systems say where nothing more can be written on a disk.
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

Bar = Callable[[float], None]
"""Moves to a share of the whole."""


class Console(rich.console.Console):
    """One that says when whoever reads has left, and leaves the status to the verb."""

    def __init__(self, **options: Any) -> None:
        """See rich's own."""
        super().__init__(**options)
        # Whoever starts a program without a terminal may say that it has no columns; in none, nothing would be said.
        if not self.width:
            self.width = WIDTH

    def on_broken_pipe(self) -> None:
        """Called where that was noticed. Raises the BrokenPipeError, where rich's own ends the process with 1."""
        raise


def status_of(run: Callable[[], int]) -> int:
    """That of a verb which `run`s: its own where it was interrupted by nobody, and all that it said was written or
    wanted by nobody any more; 2 where it cannot be written."""
    status = 0
    try:
        status = run()
        print(end="", flush=True)  # where nobody reads it, or it cannot be written, that is noticed here
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        pass  # whoever read our output has seen enough
    except OSError as error:
        # What a verb could not write into a file of its own, it has said itself.
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        status = 2
        with suppress(OSError):  # it may go to the same disk
            print(f"tidegate: what it says cannot be written: {error.strerror}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        _drop_what_is_left(stream)
    return status


def _drop_what_is_left(stream: TextIO) -> None:
    """At the exit Python would try once more to write what could not be, and have a status of its own."""
    try:
        print(end="", file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def while_read() -> suppress:
    """For what is printed before a status that tells something: whoever reads may leave, and it is what it is."""
    return suppress(BrokenPipeError)


def refuse(verb: str, option: str, message: str, remedy: str) -> ConfigError:
    """The error for an option of a verb that cannot be followed."""
    return ConfigError([Problem(file=f"tidegate {verb}", path=option, message=message, remedy=remedy)])


def printable(text: str) -> str:
    """What others call things, as a terminal may be given it: nothing in it moves a cursor, or is an order."""
    return "".join(filter(str.isprintable, text))


def print_json(value: object, *, flush: bool = False) -> None:
    """A line of JSON, which is UTF-8 whatever letters a terminal has, and nothing in it is an order to one; before it,
    nothing else may have been printed."""
    try:
        line = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # an argument, or the name of a file, need not be text
        line = msgspec.json.encode(_escaped(msgspec.to_builtins(value))).decode()
    if not line.isprintable():
        line = "".join([one if one.isprintable() else json.dumps(one)[1:-1] for one in line])
    sys.stdout.buffer.write(line.encode() + b"\n")
    if flush:
        sys.stdout.flush()


def _escaped(value: object) -> object:
    """What JSON is made of, with what is not text in its texts as a terminal shows it."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list | tuple) else value


def print_table(console: Console, table: Table) -> None:
    """A table as wide as it is: nothing of it is cut off, and a terminal that is narrower wraps its lines."""
    table.width = console.measure(table, options=console.options.update(max_width=WIDTH_MAX)).maximum
    console.print(table, crop=False)


def check_writable(verb: str, file: Path | None, option: str) -> None:
    """Refuse a file that cannot be written before the work is done whose result it is for. Raises ConfigError."""
    if file is None:
        return
    if os.access(file, os.F_OK):
        can = os.access(file, os.W_OK) and not file.is_dir()
    else:
        can = _may_have_others_beside(file)
    if not can:
        raise refuse(verb, option, f"{file} cannot be written", "name a file in a folder that is there, and yours")


def write(verb: str, file: Path, option: str, content: bytes) -> None:
    """A file as a whole. Raises ConfigError where that cannot be written."""
    try:
        file.write_bytes(content)
    except OSError as error:
        raise refuse(verb, option, f"{file}: {error.strerror}", "name a file that can be written") from None


def print_problems(error: ConfigError) -> None:
    """On stderr, for people: each with its place and its remedy."""
    console = Console(stderr=True, highlight=False)
    for problem in error.problems:
        # Names of tables stand in brackets, which are markup unless it is said that they are not.
        where = f"[bold red]{escape(problem.file)}[/]: [bold]{escape(problem.path or 'file')}[/]"
        said = escape(f"{problem.message}\n    remedy: {problem.remedy}")
        console.print(f"{where}: {said}", soft_wrap=True)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Where to write what takes the place of this file, with its mode, once it is whole; until then, and where that
    fails, the one before stays as it is. A pipe, a device, and a file in a folder where there may be no other, are
    written to themselves. Raises OSError."""
    if file.exists() and not (file.is_file() and _may_have_others_beside(file)):
        yield file
        return
    file = file.resolve()
    # Nobody's: neither another run's nor a file that happens to be called like that.
    beside = file.with_name(f"{file.name}.{secrets.token_hex(4)}.new")
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        if file.exists():
            shutil.copymode(file, beside)
        yield beside
        try:
            beside.replace(file)
        except OSError:
            # One that is mounted, or is somebody else's in a folder like /tmp, may be written to, but not replaced.
            shutil.copyfile(beside, file)
    finally:
        beside.unlink(missing_ok=True)


def _may_have_others_beside(file: Path) -> bool:
    return os.access(file.resolve().parent, os.W_OK | os.X_OK)


def check_no_journal(verb: str, folder: Path | None) -> None:
    """Refuse a folder that has a journal: made-up segments beside real ones would be read as one, by their times, and
    a gateway that writes there counts them among its own. Raises ConfigError."""
    with suppress(OSError):  # where there can be no segment, `segment` says so
        if folder is not None and segments(folder):
            raise refuse(verb, "--journal", f"{folder} has a journal already", "name another folder, or remove that")


def segment(verb: str, folder: Path, start_s: float) -> Path:
    """The segment that a new journal in this folder will be. Raises ConfigError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _part(folder).touch(0o600)
    except OSError as error:
        raise refuse(verb, "--journal", f"{folder}: {error.strerror}", "name a folder that can be written to") from None
    return folder / str(SegmentName.first(start_s))


@contextmanager
def lines_into(segment: Path | None) -> Iterator[Callable[[Line], None] | None]:
    """What writes a line into this segment, which is there once it is whole; nothing without one. Raises ConfigError
    where it cannot be written."""
    if segment is None:
        yield None
        return
    encode, part = msgspec.json.Encoder().encode, _part(segment.parent)
    try:
        with part.open("ab", buffering=BUFFER_BYTES) as file:
            assert isinstance(file, BufferedWriter)
            _begin(file, segment.parent)
            try:
                yield lambda line: _line(file, encode(line))
                file.flush()
                os.fsync(file.fileno())
                part.rename(segment)
            except BaseException:
                with suppress(OSError):
                    part.unlink()
                raise
        sync_folder(segment.parent)
    except OSError as error:
        raise _refused(f"{segment}: {error.strerror}", "name a folder on a disk that has room") from None


def _part(folder: Path) -> Path:
    """Where a journal is written until it is whole: what a kill leaves is none, and the next one takes its place."""
    return folder / f"journal{PART}"


def _begin(file: BufferedWriter, folder: Path) -> None:
    """Nothing of an earlier one is in it, and nobody else writes it. Raises ConfigError where somebody does."""
    taken = False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        taken = True
    except OSError:  # some network file systems have no locks
        pass
    # Whoever had the lock a moment ago may have made a segment of this file.
    if taken or segments(folder):
        raise _refused(f"{folder} has a journal, or another run writes one there", "name another folder")
    file.truncate(0)


def _refused(message: str, remedy: str) -> ConfigError:
    return ConfigError([Problem(file="tidegate", path="--journal", message=message, remedy=remedy)])


def _line(file: BufferedWriter, encoded: bytes) -> None:
    file.write(encoded)
    file.write(b"\n")


@contextmanager
def bars() -> Iterator[Callable[[str], Bar]]:
    """What makes bars that show how far something has come, where there is somebody to see them."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def bar(text: str) -> Bar:
            task = progress.add_task(escape(text), total=1.0)
            return lambda share: progress.update(task, completed=share)

        yield bar
