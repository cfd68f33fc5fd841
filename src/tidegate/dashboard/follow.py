"""Reads a journal as it is written, and brings its index up to it.

Each run of a gateway has a fold of its own, since runs may overlap. A segment that is in the index as far as it goes is
read once more where it may grow: the fold has to know what is under way, and prices what moved them; only what comes
after that is added. So is what stands before it, for the fold alone: there its requests under way began.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tidegate.core.begun import begun
from tidegate.core.classify import base_of
from tidegate.core.model import JOURNAL_VERSION, Decision, Endpoint, Line, Request, Segment
from tidegate.core.rows import Row, Rows
from tidegate.dashboard.index import LOCAL, MINUTE_S, REMOTE, Index, Place, Price
from tidegate.dashboard.prices import Budget, Prices
from tidegate.dashboard.replayed import Replayed
from tidegate.telemetry.packing import DAMAGED, open_segment, up_to_damage
from tidegate.telemetry.reading import JournalError, read_from, unopened
from tidegate.telemetry.segments import LINE_BYTES_MAX, PACKED, SegmentName, segments

# What is added to the index at once: some hundredths of a second, after which whoever waits has their turn.
STEP_BYTES: Final = 256 * 1024
# Runs that overlap are gateways that share a folder. The one that was silent for longest is read anew where it goes on.
RUNS_MAX: Final = 8
# How many segments are read before the one that it goes on in, at most. Of the usual size, so many hold what eighty
# requests a second come to in the ten minutes that each of them lives, and take four seconds.
BEFORE_MAX: Final = 4
# To look which names are left takes two seconds of a core for a million requests. It is done when segments are gone for
# the first time, and every so many times.
NAMES_EVERY: Final = 16
SAMPLES_MAX: Final = 64  # classes, and models that are served, are configured, and few
BUDGETS_MAX: Final = 64  # those of all first, by name; keys may have hundreds

Run = tuple[str, int]
# What keeps a segment shut until somebody changes it; everything else that is in the way may be over in a moment.
_SHUT = (PermissionError, IsADirectoryError)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _File(msgspec.Struct, frozen=True):
    """A segment: its name whether it is packed or not, and the run that it is of."""

    path: Path
    name: str
    run: Run


class Known(msgspec.Struct, frozen=True):
    """What the journal's end has come to: the settings, the router's snapshot, and when that was.

    `samples` are the latest of the requests of each class and model, those that are most common first.
    """

    segment: Segment
    state: msgspec.Raw
    at_s: float
    samples: tuple[Request, ...]


class _Tail:
    """What is known of one run, up to `offset` of its segment `name`; what lies before `indexed` is in the index.

    Offsets are those of lines, packed or not. The `file` stays open: what is packed can only be read onwards.
    """

    def __init__(self) -> None:
        self.rows = Rows()
        self.prices: Prices | None = None
        self.path = Path()
        self.name = ""
        self.offset = self.indexed = 0
        self.segment: Segment | None = None
        # Those that its endpoints serve: clients ask for any.
        self.models = frozenset[str]()
        self.minute = self.at_s = 0.0
        self.broken = False
        # Whether its process has ended.
        self.over = False
        self.file: BinaryIO | None = None
        # What is still to be read before that, for the fold alone.
        self.before: list[_File] = []

    def turn(self, name: str, indexed: int) -> None:
        """Go on with another segment."""
        self.close()
        self.name, self.offset, self.indexed, self.broken = name, 0, indexed, False

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


class Follower:
    """Brings an index up to the journal in `folder`, a step at a time: one thread takes steps, any may ask."""

    def __init__(self, folder: Path, index: Index, on_problem: Callable[[str], None] = lambda _: None) -> None:
        """`on_problem` is told by a step, once of each segment that may not be opened, or cannot be read to its end."""
        self.share = 0.0
        self.under_way = self.changes = 0
        self.last_s: float | None = None
        self._folder = folder
        self._index = index
        self._on_problem = on_problem
        self._said = set[str]()
        self._tails: dict[Run, _Tail] = {}
        self._newest: _Tail | None = None
        self._replayed = Replayed()
        # By class and model: how many came, and the last of them.
        self._samples: dict[tuple[str, str], tuple[int, Request]] = {}
        # Segments that had nothing more to tell at this size.
        self._told: dict[str, int] = {}
        # What was in the folder, and what it means: a journal has hundreds of segments, and few of them come or go.
        self._listed: list[str] = []
        self._files: list[_File] = []
        self._last: dict[Run, _File] = {}
        # Those that may not be opened. Somebody may change that: they are tried again when others come or go.
        self._shut = set[str]()
        # Of those that are not written any more, for others follow them.
        self._ended: dict[str, os.stat_result] = {}
        # How often the journal had lost segments.
        self._forgot = 0
        self._decoder = msgspec.json.Decoder(Line)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Follow no more."""
        for tail in self._tails.values():
            tail.close()

    def anew(self) -> None:
        """A step has failed: what it has read may not be in the index, so each run is read again up to there."""
        with self._lock:
            self.close()
            self._tails.clear()

    def known(self) -> Known | None:
        """What the run that wrote last has come to; None before anything was read."""
        with self._lock:
            tail = self._newest
            if tail is None or tail.segment is None:
                return None
            place, segment, at_s = (tail.path, tail.name, tail.offset), tail.segment, tail.at_s
            samples = sorted(self._samples.values(), key=lambda one: (-one[0], one[1].klass, one[1].model))
        # It may take a second, in which more is read.
        state = self._replayed.state(*place)
        return None if state is None else Known(segment, state, at_s, tuple(request for _, request in samples))

    def quantile(self) -> float | None:
        """Which quantile of first tokens is promised by the run that wrote last."""
        tail = self._newest
        return None if tail is None or tail.segment is None else tail.segment.policy.quantile

    def budgets(self) -> tuple[Budget, ...]:
        """The budgets of the run that wrote last."""
        with self._lock:
            prices = None if self._newest is None else self._newest.prices
            return () if prices is None else prices.budgets(BUDGETS_MAX)

    def step(self) -> bool:
        """Go on; whether there may be more at once. OSError or sqlite3.Error where that is not possible."""
        self._list()
        found = [(file, status) for file in self._files if (status := self._status(file)) is not None]
        ends = {file.run: (file, status) for file, status in found}
        # The one whose router is asked. When files were written says nothing of a journal that was copied.
        open_ends = [file for file, _ in ends.values() if file.name not in self._shut]
        newest = max(open_ends, key=self._newness, default=None)
        total = read = 0
        more = False
        for file, status in found:
            size, name, last = status.st_size, file.name, file is ends[file.run][0]
            if name in self._shut:
                continue
            read_bytes, over = self._index.read_bytes(name)
            told = self._told.get(name) == size
            # Where file systems know no locks, what was taken for over may go on.
            over = over and size <= self._told.get(name, size)
            if file.path.suffix == PACKED:
                # Its size is that of something else.
                read_bytes = size if over else 0
            elif told:
                # The rest of it is no line yet, or never will be.
                read_bytes = size
            total, read = total + size, read + min(size, read_bytes)
            if more or (over and file is not newest):
                continue
            # Asked before it is read, so that what its process wrote last is.
            left = not over and (not last or (_is_left(file.path) and not self._goes_on(file)))
            if told and not left:
                continue
            if not over and not last and read_bytes >= size:
                # Its process goes on in another.
                self._index.add(name, read_bytes, (), (), over=True)
                continue
            if read_bytes >= size and file is not newest and file.run not in self._tails and not left:
                continue
            more = self._go_on(file, last=last, left=left, over=over)
            if more:
                # What is read once more is not there before that is done: until then the router cannot be asked.
                read -= max(0, min(size, read_bytes) - self._reached(file))
            else:
                self._told[name] = size
                read += max(0, size - read_bytes)
        self.share = read / total if total else 1.0
        return more

    def _newness(self, end: _File) -> tuple[bool, float, str]:
        """Orders the last segments of runs as runs are ordered that have been read."""
        _, over = self._index.read_bytes(end.name)
        return not over, self._index.last_s(end.name), end.name

    def _list(self) -> None:
        """Look which segments there are."""
        listed = [entry.name for entry in os.scandir(self._folder)] if self._folder.is_dir() else []
        if listed == self._listed:
            return
        self._files = [_file(path) for path in segments(self._folder)] if listed else []
        self._last = {file.run: file for file in self._files}
        self._ended.clear()
        self._shut.clear()
        self._forget({file.name for file in self._files})
        self._listed = listed

    def _goes_on(self, file: _File) -> bool:
        """Whether its process has begun another segment since the folder was listed: that is there before the lock on
        this one is let go."""
        others = (_file(path) for path in segments(self._folder))
        return any(other.run == file.run and other.name > file.name for other in others)

    def _status(self, file: _File) -> os.stat_result | None:
        """Its size, and when it was written last; None where it is gone."""
        known = self._ended.get(file.name)
        if known is not None:
            return known
        with suppress(FileNotFoundError):  # the oldest are removed meanwhile
            status = file.path.stat()
            if self._index.read_bytes(file.name)[1] and file is not self._last[file.run]:
                self._ended[file.name] = status
            return status
        return None

    def _forget(self, names: set[str]) -> None:
        gone = [name for name in self._index.segments() if name not in names]
        for name in gone:
            self._index.forget(name)
            self._told.pop(name, None)
        if gone:
            if self._forgot % NAMES_EVERY == 0:
                self._index.forget_names()
                self._place(names)
            self._forgot += 1

    def _place(self, names: set[str]) -> None:
        """The endpoints of those runs that are there: one that nothing was sent to is told of all the same."""
        for tail in self._tails.values():
            if tail.segment is not None and tail.name in names:
                for endpoint in tail.segment.endpoints:
                    self._index.place(_place(endpoint))

    def _go_on(self, segment: _File, *, last: bool, left: bool, over: bool) -> bool:
        """Read on in a segment, the `last` of its run, which nobody writes any more where it is `left`, or known to be
        `over`; whether there may be more to read."""
        with self._lock:
            path, tail = segment.path, self._tail(segment)
            tail.over = last and (left or over)
            if tail.before:
                self._recall(tail)
                return True
            rows, prices, before = list[Row](), list[Price](), tail.offset
            file = None if tail.broken else self._opened(tail, path)
            if segment.name in self._shut:
                # What is not read is not over; the others are looked at without it.
                return True
            if file is not None:
                for line in self._lines(tail, path, file):
                    self._take(tail, line, rows, prices)
            ended = left and tail.offset == before
            if tail.over and tail.offset == before:
                # What is not over by now will never be. Where the segment was known to be, the index has that already.
                rest = tail.rows.rest()
                if ended and tail.offset >= tail.indexed:
                    rows += rest
            if tail.offset > tail.indexed or ended:
                read_bytes = max(tail.offset, tail.indexed)
                self._index.add(tail.name, read_bytes, rows, prices, over=ended, last_s=tail.at_s)
                tail.indexed = max(tail.offset, tail.indexed)
            known = [one for one in self._tails.values() if one.segment is not None]
            self._newest = max(known, key=_newness, default=self._newest)
            if self._newest is not None:
                self.last_s, self.under_way = self._newest.at_s, self._newest.rows.open
            self.changes += tail.offset > before or bool(rows)
            return tail.offset > before

    def _reached(self, segment: _File) -> int:
        """How far a segment that was gone on in has been read; not at all while what stands before it is."""
        tail = self._tails[segment.run]
        return tail.offset if tail.name == segment.name else 0

    def _tail(self, segment: _File) -> _Tail:
        run = segment.run
        tail = self._tails.pop(run, None)
        if tail is None:
            tail = _Tail()
            tail.before = self._before(segment)
        # The one that was asked for last stands last.
        self._tails[run] = tail
        if len(self._tails) > RUNS_MAX:
            oldest = next(iter(self._tails))
            self._tails.pop(oldest).close()
        if tail.name != segment.name and not tail.before:
            tail.turn(segment.name, self._index.read_bytes(segment.name)[0])
        tail.path = segment.path
        return tail

    def _before(self, segment: _File) -> list[_File]:
        """The segments of its run in which the requests were asked that go on in it, oldest first."""
        run = [file for file in self._files if file.run == segment.run]
        found, going_on = list[_File](), _going_on(segment.path)
        # The last one in any case: who has just been answered, or let go, is not under way, and has no row yet.
        for file in reversed(run[: run.index(segment)][-BEFORE_MAX:]):
            found.insert(0, file)
            going_on &= _going_on(file.path)
            if not going_on:
                break
        return found

    def _recall(self, tail: _Tail) -> None:
        """A step through what is in the index, and what the fold has to know."""
        segment = tail.before[0]
        if tail.name != segment.name:
            tail.turn(segment.name, 0)
        before = tail.offset
        if (file := self._opened(tail, segment.path)) is not None:
            for line in self._lines(tail, segment.path, file):
                tail.rows.feed(line)
        if tail.broken or tail.offset == before:
            tail.before.pop(0)

    def _lines(self, tail: _Tail, path: Path, file: BinaryIO) -> Iterator[Line]:
        """The next lines, as many as are one step; `tail.offset` is behind each as it is given."""
        damaged = False
        try:
            step = file.read(STEP_BYTES)
            if not step.endswith(b"\n"):
                step += file.readline(LINE_BYTES_MAX)
        except DAMAGED:
            step, damaged = up_to_damage(path, tail.offset, LINE_BYTES_MAX), True
        except OSError:
            self._break(tail)
            return
        *lines, rest = step.split(b"\n")
        if rest or not step:  # it is being written, or never was
            tail.close()
        decode = self._decoder.decode
        for raw in lines:
            try:
                line = decode(raw)
            except _UNREADABLE:
                self._break(tail)
                return
            if isinstance(line.fact, Segment) and line.fact.version != JOURNAL_VERSION:
                self._break(tail)
                return
            tail.offset += len(raw) + 1
            yield line
        if damaged:
            self._break(tail)

    def _break(self, tail: _Tail) -> None:
        """What follows in its segment is passed over: without what it told, nothing after it can be understood."""
        tail.broken = True
        where = self._folder / tail.name
        self._say(f"{where} cannot be read on, and is left out from there; `tidegate journal ls` says why")

    def _opened(self, tail: _Tail, path: Path) -> BinaryIO | None:
        """Its segment, from where it was read to; None where it is gone, or may not be opened. OSError where that
        cannot be now."""
        if tail.file is None:
            try:
                tail.file = open_segment(path)
                tail.file.seek(tail.offset)
            except FileNotFoundError:
                pass
            except _SHUT as error:
                self._shut.add(tail.name)
                self._say(f"a segment is left out: {unopened(path, error)}")
        return tail.file

    def _say(self, problem: str) -> None:
        if problem not in self._said:
            self._said.add(problem)
            self._on_problem(problem)

    def _take(self, tail: _Tail, line: Line, rows: list[Row], prices: list[Price]) -> None:
        fact, at_s = line.fact, line.at_s
        fresh = tail.offset > tail.indexed
        if at_s >= tail.minute + MINUTE_S:
            if tail.prices is not None and tail.minute and fresh:
                prices += tail.prices.of_minute(tail.minute)
            tail.minute = at_s // MINUTE_S * MINUTE_S
        found = tail.rows.feed(line)
        if found and fresh:
            rows += found
        if isinstance(fact, Request):
            if fact.model in tail.models:
                self._sample(fact)
        elif isinstance(fact, Segment):
            before, tail.segment, tail.prices = tail.prices, fact, _prices(fact)
            tail.models = frozenset(name for endpoint in fact.endpoints for name in endpoint.models)
            if fact.follows and before is not None and tail.prices is not None:
                tail.prices.go_on(before)
            for endpoint in fact.endpoints:
                self._index.place(_place(endpoint))
        elif tail.prices is not None and not isinstance(fact, Decision):
            tail.prices.feed(fact, at_s)
        if at_s > tail.at_s:
            tail.at_s = at_s

    def _sample(self, request: Request) -> None:
        kind = base_of(request.klass), request.model
        if len(self._samples) >= SAMPLES_MAX and kind not in self._samples:
            return
        count, _ = self._samples.get(kind, (0, None))
        self._samples[kind] = count + 1, request


def _newness(tail: _Tail) -> tuple[bool, float, str]:
    """Orders runs by how far their lines go, those that go on behind all that are over: clocks are put back."""
    return not tail.over, tail.at_s, tail.name


def _going_on(path: Path) -> set[str]:
    """The requests that are under way when a segment begins; none where that cannot be read. OSError where it cannot
    be opened now."""
    with suppress(JournalError, FileNotFoundError, *_SHUT), open_segment(path) as file:
        for line in read_from(path, file):
            return begun(line.fact).under_way if isinstance(line.fact, Segment) else set()
    return set()


def _prices(segment: Segment) -> Prices | None:
    """Those that it begins with; None where its state cannot be read."""
    with suppress(msgspec.MsgspecError):
        return Prices(segment)
    return None


def _place(endpoint: Endpoint) -> Place:
    return Place(name=endpoint.name, site=endpoint.site, tier=LOCAL if endpoint.local else REMOTE)


def _file(path: Path) -> _File:
    name = SegmentName.parse(path.name)
    assert name is not None, "only segments are followed"
    return _File(path, path.name.removesuffix(PACKED), name.run)


def _is_left(path: Path) -> bool:
    """Whether nobody writes it any more: whoever does has it locked."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(fd)
        return True
    return False
