"""`tidegate journal`: the segments of a journal, its requests and facts, as they come, and as files for others."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from heapq import nlargest
from pathlib import Path
from typing import get_args

from tidegate import clock
from tidegate.cli.export import write_csv, write_parquet
from tidegate.cli.output import print_json, printable, refuse, replacing, while_read
from tidegate.config.extra import installs
from tidegate.core.classify import base_of
from tidegate.core.model import Fact, Line, Record, Segment
from tidegate.core.rows import Came, Row, Rows
from tidegate.core.why import Why
from tidegate.telemetry.following import Following
from tidegate.telemetry.packing import is_there
from tidegate.telemetry.reading import JournalError, absent, files, read, read_if_there, segments_of
from tidegate.telemetry.requests import requests
from tidegate.telemetry.segments import PACKED, is_written

Verb = Callable[..., argparse.ArgumentParser]
Told = Callable[[Following], Iterator[tuple[float, Line | Row]]]

# How long a line is on the disk at most before it is shown; to look takes a list of the folder.
LOOK_S = 0.25
KINDS = tuple(sorted(str(one.__struct_config__.tag) for one in get_args(Fact)))
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": clock.DAY_S}
_HEAD = (
    f"{'arrived (UTC)':23}  {'id':16}  {'class':18}  {'tokens':>13}  {'endpoint':14}  {'outcome':12}  "
    f"{'ttft s':>7}  {'e2e s':>7}  {'usd':>9}  why"
)


def declare(parser: argparse.ArgumentParser, verb: Verb, journal: Path) -> None:
    """The verbs of `tidegate journal`; `verb` declares one, `journal` is the folder by default."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    listed = verb(verbs, "ls", "list the segments of a journal", _ls)
    shown = verb(verbs, "show", "print its requests, one a line, or facts", _show)
    tailed = verb(verbs, "tail", "print its newest requests, or facts, and more as they come", _tail)
    exported = verb(verbs, "export", "write its requests, one row each, for other programs", _export)

    tailed.add_argument("-f", "--follow", action="store_true", help="go on, from segment to segment")
    tailed.add_argument("-n", type=_number, default=10, metavar="N", help="so many at first (default: %(default)s)")
    exported.add_argument("--parquet", type=Path, metavar="FILE", help="as Parquet, for DuckDB, pandas and others")
    exported.add_argument("--csv", type=Path, metavar="FILE", help="as CSV, with the names of the columns first")
    for one in (listed, shown, tailed, exported):
        one.add_argument("journal", type=Path, nargs="?", default=journal, help="default: %(default)s")
    for one in (shown, tailed, exported):
        _declare_filters(one)
    for one in (shown, tailed):
        one.add_argument("--kind", choices=("all", *KINDS), metavar="FACT", help=f"facts: all, {', '.join(KINDS)}")


def _declare_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--id", default="", help="those whose id begins like that")
    parser.add_argument("--class", dest="klass", metavar="CLASS", help="those of this class, with its subclasses")
    parser.add_argument("--endpoint", metavar="NAME", help="those that it answered, or was asked for last")
    parser.add_argument("--why", choices=[why.value for why in Why], metavar="REASON", help="those decided for that")
    parser.add_argument("--outcome", choices=[came.value for came in Came], metavar="OUTCOME", help="ok, failed, ...")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="UTC, as 2026-11-27T10:00, or so long ago: 90m")
    parser.add_argument("--until", type=_moment, metavar="TIME", help="the same")


class Listed(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One segment: from its first line to its last, and what it takes on the disk. `written`: somebody writes it.

    `unread` is why no more `lines` of it can be read; empty where all can.
    """

    name: str
    from_s: float | None
    until_s: float | None
    lines: int
    bytes: int
    packed: bool
    written: bool
    software: str
    unread: str


def _ls(options: argparse.Namespace) -> int:
    try:
        paths = _there(options.journal)
        found = [listed for path in paths if (listed := _listed(path)) is not None]
    except JournalError as error:
        return _refused(error)
    unread = [one.unread for one in found if one.unread]
    with while_read():
        if options.json:
            print_json(found)
        else:
            _print_listed(found)
    if not options.json:
        for reason in unread:
            print(f"tidegate journal: {reason}", file=sys.stderr)
    return 1 if unread else 0


def _print_listed(found: Sequence[Listed]) -> None:
    print(f"{'segment':54}  {'from (UTC)':19}  {'until':19}  {'lines':>8}  {'KiB':>8}  by")
    for one in found:
        print(
            f"{one.name:54}  {_time(one.from_s):19}  {_time(one.until_s):19}  {one.lines:8}  {one.bytes / 1024:8.0f}  "
            f"{printable(one.software)}{', being written' if one.written else ''}"
            f"{f', cannot be read from line {one.lines + 1} on' if one.unread else ''}"
        )
    total_bytes = sum(one.bytes for one in found)
    print(f"{len(found)} segments, {sum(one.lines for one in found)} lines, {total_bytes / (1 << 20):.1f} MiB")


def _there(journal: Path) -> list[Path]:
    """Its files. Raises `JournalError` where it has none."""
    paths = files(journal)
    if paths == [journal] and not is_there(journal):
        raise absent(journal, "file or folder")
    return paths


def _listed(path: Path) -> Listed | None:
    """None where it was removed meanwhile."""
    first: Line | None = None
    last: Line | None = None
    count, unread = 0, ""
    try:
        for line in read_if_there(path):
            first, last, count = first or line, line, count + 1
    except JournalError as error:
        unread = str(error)
    if not os.path.lexists(path):
        # It is known by the name that it had before it was packed.
        path = path.with_name(path.name + PACKED)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError:  # as a link that leads nowhere else than to itself
        size = 0
    return Listed(
        name=path.name,
        from_s=None if first is None else first.at_s,
        until_s=None if last is None else last.at_s,
        lines=count,
        bytes=size,
        packed=path.suffix == PACKED,
        written=is_written(path),
        software=first.fact.software if first is not None and isinstance(first.fact, Segment) else "",
        unread=unread,
    )


def _show(options: argparse.Namespace) -> int:
    try:
        if options.kind is not None:
            wanted = _facts(options)
            for line in read(options.journal):
                if wanted(line):
                    print_json(line)
            return 0
        wants = _rows(options)
        if not options.json:
            print(_HEAD)
        for row in requests(options.journal):
            if wants(row):
                _print_row(row, as_json=options.json)
    except JournalError as error:
        return _refused(error)
    return 0


def _tail(options: argparse.Namespace) -> int:
    try:
        if segments_of(options.journal) is None:
            return _refused(absent(options.journal, "folder"))
        if not options.follow:
            files(options.journal)  # of a folder without a journal, nothing is the newest
        with closing(Following(options.journal)) as following:
            newest, told = _newest(following, options)
            if options.kind is None and not options.json:
                print(_HEAD)
            for one in newest:
                _print(one, as_json=options.json)
            while options.follow:
                sys.stdout.flush()
                clock.sleep_s(LOOK_S)
                for _, one in told(following):
                    _print(one, as_json=options.json)
    except JournalError as error:
        return _refused(error)
    return 0


def _newest(following: Following, options: argparse.Namespace) -> tuple[list[Line | Row], Told]:
    """So many of what is wanted as there are to be at first, oldest first, and what tells more of it.

    An older segment that cannot be read ends the search. Raises `JournalError` where that is one of the newest.
    """
    unread: JournalError | None = None
    while True:
        told = _told(options)
        try:
            # Runs come one after the other, also where they overlap: the newest are so by time. All lines are read,
            # also where none of them is to be shown.
            found = nlargest(max(options.n, 1), enumerate(told(following)), key=_when)
        except JournalError as error:
            if not following.nearer():
                raise
            unread = error
            continue
        if len(found) >= options.n or not following.further():
            break
    if unread is not None and len(found) < options.n:
        print(f"tidegate journal: what is older is not shown: {unread}", file=sys.stderr)
    return [one for _, (_, one) in reversed(found[: options.n])], told


def _when(numbered: tuple[int, tuple[float, Line | Row]]) -> tuple[float, int]:
    number, (at_s, _) = numbered
    return at_s, number


def _told(options: argparse.Namespace) -> Told:
    """What makes of new lines what is wanted of them, and when it was told: the requests that have ended with them, or
    with their run, or themselves."""
    if options.kind is not None:
        wanted = _facts(options)
        return lambda following: ((line.at_s, line) for _, line in following.lines() if wanted(line))
    wants, folds, last_s = _rows(options), dict[tuple[str, int] | None, Rows](), dict[tuple[str, int] | None, float]()

    def told(following: Following) -> Iterator[tuple[float, Row]]:
        for run, line in following.lines():
            fold = folds.get(run)
            if fold is None:
                fold = folds[run] = Rows()
            last_s[run] = line.at_s
            yield from ((line.at_s, row) for row in filter(wants, fold.feed(line)))
        for run in following.ended():
            at_s = last_s.pop(run)
            yield from ((at_s, row) for row in filter(wants, folds.pop(run).rest()))

    return told


def _export(options: argparse.Namespace) -> int:
    if (options.parquet is None) == (options.csv is None):
        print("tidegate journal export: give --parquet FILE or --csv FILE", file=sys.stderr)
        return 2
    file, write = (options.parquet, write_parquet) if options.csv is None else (options.csv, write_csv)
    try:
        # Of a journal that is none, or is damaged, nothing is written, and what was exported before stays.
        _there(options.journal)
        with replacing(file) as beside:
            count = write(beside, filter(_rows(options), requests(options.journal)))
    except JournalError as error:
        return _refused(error)
    except ModuleNotFoundError as error:
        print(f"tidegate journal export needs {error.name}: {installs('parquet')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"tidegate journal export: {file}: {error.strerror}; name a file that can be written", file=sys.stderr)
        return 1
    if options.json:
        print_json({"file": str(file), "rows": count})
    else:
        print(f"{count} requests in {file}")
    return 0


def _rows(options: argparse.Namespace) -> Callable[[Row], bool]:
    """Whether a request is one of those that are asked for."""
    since_s, until_s = options.since or 0.0, options.until or float("inf")

    def wants(row: Row) -> bool:
        return (
            row.id.startswith(options.id)
            and options.klass in (None, row.klass, base_of(row.klass))
            and options.endpoint in (None, row.endpoint)
            and options.why in (None, row.why)
            and options.outcome in (None, row.outcome)
            and since_s <= row.arrived_s < until_s
        )

    return wants


def _facts(options: argparse.Namespace) -> Callable[[Line], bool]:
    """The same of facts, which have no more than an id, a class, an endpoint and a reason, if any. Raises ConfigError
    where an outcome is asked for."""
    if options.outcome is not None:
        raise refuse("journal", "--outcome", "requests have one, and facts have none", "leave out --outcome or --kind")
    since_s, until_s = options.since or 0.0, options.until or float("inf")
    kind = None if options.kind == "all" else options.kind

    def wanted(line: Line) -> bool:
        fact = line.fact
        about = getattr(fact, "request", fact)
        request_id: str = getattr(about, "id", "") or getattr(fact, "request_id", "")
        return (
            kind in (None, fact.__struct_config__.tag)
            and request_id.startswith(options.id)
            and options.klass in (None, klass := getattr(about, "klass", ""), base_of(klass))
            and options.endpoint in (None, getattr(fact, "endpoint", ""))
            and options.why in (None, getattr(fact, "why", ""))
            and since_s <= line.at_s < until_s
        )

    return wanted


def _print(one: Line | Row, *, as_json: bool) -> None:
    if isinstance(one, Row):
        _print_row(one, as_json=as_json)
    else:
        print_json(one)


def _print_row(row: Row, *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    tokens = f"{row.prompt_tokens}>{'-' if row.output_tokens is None else row.output_tokens}"
    print(
        f"{clock.iso(row.arrived_s)[:23]}  {printable(row.id):16}  {printable(row.klass):18}  {tokens:>13}  "
        f"{printable(row.endpoint) or '-':14}  {row.outcome.value:12}  {_seconds(row.ttft_s):>7}  "
        f"{_seconds(row.e2e_s):>7}  {row.usd:9.6f}  {'-' if row.why is None else row.why.value}"
    )


def _time(at_s: float | None) -> str:
    return "-" if at_s is None else clock.iso(at_s)[:19]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _refused(error: JournalError) -> int:
    print(f"tidegate journal: {error}", file=sys.stderr)
    return 2


def _number(text: str) -> int:
    count = int(text) if text.isdecimal() else -1
    if not 0 <= count <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number up to 1,000,000")
    return count


def _moment(text: str) -> float:
    """A time in UTC as seconds since the epoch, or so long ago."""
    try:
        if text[-1:] in _UNITS and text[:-1].isdecimal():
            return clock.Clock().now_s() - int(text[:-1]) * _UNITS[text[-1]]
        return clock.since_epoch_s(clock.Moment.fromisoformat(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time, as 2026-11-27T10:00, or 90m, 12h, 3d ago") from None
