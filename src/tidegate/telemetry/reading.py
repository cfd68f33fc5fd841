"""Reads journals, from a running process or from what one left behind."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from tidegate.core.model import JOURNAL_VERSION, Line, Request
from tidegate.telemetry.packing import DAMAGED, is_there, lines_up_to_damage, open_segment
from tidegate.telemetry.segments import LINE_BYTES_MAX, SegmentName, segments

# What decoding raises where it is given no line.
NO_LINE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class JournalError(Exception):
    """A journal cannot be read. The message names file, line and reason, and may be given to a terminal whatever others
    have written there."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(filter(str.isprintable, message)))


class _Head(msgspec.Struct):
    """As much of a segment's first line as every version has."""

    class Fact(msgspec.Struct):
        type: str
        version: int = 0
        software: str = "unknown software"

    fact: Fact


def files(source: Path) -> list[Path]:
    """The files of a journal, in order: one segment, or all of a folder. Raises `JournalError` where it has none."""
    paths = segments_of(source)
    if paths is None:
        return [source]
    if not paths:
        raise JournalError(f"{source}: no journal here; the configuration's gateway.journal names the folder")
    return paths


def asked_in(paths: list[Path]) -> list[Path]:
    """Those of these segments in which anybody asked for anything, all of them where nobody did. A process that could
    not start has left no more than a header, and the newest of all. Raises `JournalError` where one cannot be read."""
    return [path for path in paths if any(isinstance(one.fact, Request) for one in read_if_there(path))] or paths


def absent(source: Path, what: str) -> JournalError:
    """The error for a journal that is not there; `what` is what it could be."""
    remedy = "name it (--journal, or as the argument): gateway.journal is relative to its configuration"
    return JournalError(f"{source}: there is no such {what}; {remedy}")


def unwritten(source: Path | str) -> JournalError:
    """The error for a journal in which no line is, or none that is whole."""
    return JournalError(
        f"{source}: nothing is written in this journal; see that its gateway serves, and that its disk has room"
    )


def written(source: Path | str, lines: Iterable[Line]) -> Iterator[Line]:
    """The lines of a journal. Raises `JournalError` where there are none."""
    line = None
    for line in lines:
        yield line
    if line is None:
        raise unwritten(source)


def unopened(path: Path, error: OSError) -> JournalError:
    """The error for a folder, or a segment, that the system does not let us open."""
    remedy = ""
    if isinstance(error, PermissionError):
        remedy = "; do this as the gateway's user, or let this user read it"
    elif isinstance(error, IsADirectoryError):
        remedy = "; no segment is one: move it away"
    return JournalError(f"{path}: {error.strerror}{remedy}")


def segments_of(folder: Path) -> list[Path] | None:
    """Its segments, in order; None where it is no folder. Raises `JournalError` where nobody may look into it."""
    try:
        return segments(folder) if folder.is_dir() else None
    except OSError as error:
        raise unopened(folder, error) from None


def beside(file: Path) -> tuple[list[Path], list[Path]]:
    """The segments of its run that stand before it and after it, in order, as far as they are there."""
    name = SegmentName.parse(file.name)
    earlier, later = list[Path](), list[Path]()
    try:
        found = segments_of(file.parent) or ()
    except JournalError:  # who may read a file may not look into every folder
        found = ()
    for path in found:
        other = SegmentName.parse(path.name)
        if name is not None and other is not None and other.run == name.run and other != name:
            (earlier if other < name else later).append(path)
    return earlier, later


def read_if_there(path: Path) -> Iterator[Line]:
    """The lines of one segment of a folder; none where it was removed meanwhile, being the oldest."""
    try:
        file = open_segment(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unopened(path, error) from None
    with file:
        yield from read_from(path, file)


def mentions(path: Path, text: str) -> bool:
    """Whether a segment has this text anywhere: sooner told than by reading it. None has it that was removed."""
    wanted = msgspec.json.encode(text)[1:-1]
    try:
        file = open_segment(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unopened(path, error) from None
    with file:
        for number, raw in enumerate(raw_lines(path, file), 1):
            if number == 1 and raw.endswith(b"\n"):
                check_head(path, raw)
            if wanted in raw:
                return True
    return False


def read(source: Path) -> Iterator[Line]:
    """The lines of one segment, or of all in a folder, in order; one of them at a time is in memory.

    A last line without its end is passed over: the process was killed, or is writing it. Everything else that is no
    line is a JournalError.
    """
    for path in files(source):
        if path == source and not is_there(path):
            raise absent(path, "file or folder")
        yield from read_if_there(path)


def read_from(path: Path | str, file: BinaryIO) -> Iterator[Line]:
    """The lines of one segment that somebody has opened; `path` is its name in errors."""
    decoder = msgspec.json.Decoder(Line)
    for number, raw in enumerate(raw_lines(path, file), 1):
        if not raw.endswith(b"\n"):
            if len(raw) == LINE_BYTES_MAX:
                raise unreadable(path, number, f"the line is longer than {LINE_BYTES_MAX} bytes")
            return
        if number == 1:
            check_head(path, raw)
        try:
            line = decoder.decode(raw)
        except NO_LINE as error:
            raise unreadable(path, number, error) from None
        yield line


def raw_lines(path: Path | str, file: BinaryIO, number: int = 0, offset: int = 0) -> Iterator[bytes]:
    """The lines from where `file` stands, after so many and so many bytes, as they are; the last may be without its
    end. Where the segment is damaged, all that stand before that. Raises `JournalError`."""
    try:
        while raw := file.readline(LINE_BYTES_MAX):
            number, offset = number + 1, offset + len(raw)
            yield raw
    except DAMAGED as error:
        # What is packed is whole when it gets its name: whoever copied it has lost a part.
        damage = f"the segment is damaged: {error}"
    except OSError as error:
        raise unreadable(path, number + 1, f"it cannot be read: {error.strerror}") from None
    else:
        return
    # The read that met the place has lost all that it was to bring.
    for raw in lines_up_to_damage(Path(path), offset):
        number += 1
        yield raw
    raise unreadable(path, number + 1, damage)


def unreadable(path: Path | str, number: int, reason: object) -> JournalError:
    """The error for a segment that is damaged in this line. What stands before it has been read, and is good."""
    return JournalError(f"{path}:{number}: {reason}; move this segment away, or name the others one by one")


def check_head(path: Path | str, raw: bytes) -> None:
    """Refuse another version before its fields are looked at: they may mean something else there."""
    try:
        head = msgspec.json.decode(raw, type=_Head).fact
    except NO_LINE:
        raise unreadable(path, 1, "a segment begins with a segment line") from None
    if head.type != "segment":
        raise unreadable(path, 1, f"a segment begins with a segment line, this is `{head.type}`")
    if head.version != JOURNAL_VERSION:
        raise JournalError(
            f"{path}:1: journal format {head.version}, this is {JOURNAL_VERSION}: "
            f"read it with the software that wrote it ({head.software})"
        )
