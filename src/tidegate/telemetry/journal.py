"""The journal on disk: what happened, line by line, written before the world is told that it did.

Facts are gathered and written at the end of the loop's tick in which the end of an answer waits for them, or a few
milliseconds later where none does; then the callbacks run that release the final bytes of answers. So a killed process
loses nothing of an answer whose end a client has seen. Once a second a thread calls fsync, so that a power cut loses at
most the last second; and it is looked whether the file is still there, so that a hand that removes it does no more.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tidegate.clock import Clock
from tidegate.core.model import Fact, Line, Segment, replace
from tidegate.telemetry.log import where
from tidegate.telemetry.reading import JournalError, read, read_from
from tidegate.telemetry.segments import JournalStatistics, SegmentName, segments
from tidegate.telemetry.tick import JOURNAL, Tick, run
from tidegate.telemetry.worker import Open, Worker

__all__ = ["Journal", "JournalError", "read", "read_from", "segments"]

BACKLOG_BYTES_MAX = 8 * 1024 * 1024  # what a disk that takes nothing may cost in memory: 7,000 requests
SYNC_S = 1.0  # what a power cut may cost; fsync takes milliseconds, which no request should wait for
RETRY_S = 1.0  # a full disk is not emptied sooner
WRITE_S: Final = 0.005  # what nobody waits for is not written between a request and its first content

Release = Callable[[], None]


class Journal:
    """Writes segments into a folder, which several processes may share.

    A segment begins with `header`: configuration and state as all facts appended until then have made them. It is
    called here, and between ticks when a segment is full, never between a fact and its writing. OSError says that the
    folder cannot be used. Later on nothing raises: what the disk does not take is kept and tried again, and beyond a
    bound it is dropped, counted, and followed by a new segment, so that every segment replays. So is a segment that
    others remove, move away or cut off.
    """

    __slots__ = (
        "_backlog",
        "_clock",
        "_encode_lines",
        "_fd",
        "_flushes",
        "_fresh",
        "_gap",
        "_header",
        "_header_size",
        "_kept",
        "_lines",
        "_lost",
        "_name",
        "_on_problem",
        "_paused",
        "_problems",
        "_reported",
        "_rotation_paused",
        "_segment_bytes",
        "_size",
        "_sync_failed",
        "_sync_reported",
        "_tick",
        "_timers",
        "_waiting",
        "_worker",
        "folder",
    )

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        total_bytes: int,
        clock: Clock,
        header: Callable[[], Segment],
        packs: bool = False,
        on_problem: Callable[[str], None] = lambda _: None,
        tick: Tick | None = None,
    ) -> None:
        """`packs`: segments that are finished are compressed. `on_problem` is told what is wrong, once until it is
        right again; it must not raise. It writes in its step of the `tick`, or of one of its own."""
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._header = header
        self._on_problem = on_problem
        self._encode_lines = msgspec.json.Encoder().encode_lines
        self._fresh: list[Line] = []  # not encoded yet; being frozen, they can be later
        self._backlog = bytearray()
        self._waiting: list[Release] = []
        self._tick = tick or Tick()
        # Bound once: each request needs it, and it would be bound anew whenever it is looked up.
        self._flushes: Callable[[], None] = self.flush
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._gap = False  # lines were dropped, so the next that is written has to begin a segment
        self._paused = False  # the disk refused a write, or a new file, less than RETRY_S ago
        self._rotation_paused = False
        self._reported = ""
        # Apart from that: a disk may take every write, and make none of them last.
        self._sync_reported, self._sync_failed = "", False
        self._lines = self._lost = self._problems = 0
        self._kept = 0  # lines in the segments before this one
        # Room for the segment that is being written.
        self._worker = Worker(folder, total_bytes - segment_bytes, packs=packs)
        try:
            self._name, self._fd, self._size = self._create(SegmentName.first(clock.now_s()), follows=False)
            self._header_size = self._size
        except OSError as error:
            raise OSError(error.errno, f"the journal's folder {folder} cannot be used: {error.strerror}") from None
        self._worker.settle()

    @property
    def path(self) -> Path:
        """The segment that is being written."""
        return self.folder / str(self._name)

    def append(self, fact: Fact, at_s: float) -> None:
        """Take in a fact; it is written before what `after_write` is then given, and within `WRITE_S`."""
        self._lines += 1
        self._fresh.append(Line(at_s=at_s, fact=fact))
        if "write" not in self._timers:
            self._later("write", WRITE_S, self._flushes)

    def after_write(self, release: Release) -> None:
        """Call `release` at the end of this tick: all that was appended so far is with the kernel, or has failed."""
        self._waiting.append(release)
        self._tick.soon(JOURNAL, self._flushes)

    def flush(self) -> None:
        """Write what was appended so far; then call who waits for it, even where that failed: clients do not wait for
        disks."""
        try:
            self._take_in()
            if not self._paused:
                self._write()
        finally:
            waiting, self._waiting = self._waiting, []
            for release in waiting:
                run(release)

    def turn(self, change: Callable[[], None]) -> None:
        """Begin a segment after `change`: what was appended so far stands before it, and `header` tells what it made.

        While the disk takes no new segment, what is appended is lost: under other settings it would not replay.
        """
        self._take_in()
        if not self._paused:
            self._write()
        change()
        self._gap = True
        if not self._paused:
            self._rotate()

    def statistics(self) -> JournalStatistics:
        """Counts since the start."""
        return JournalStatistics(lines=self._lines, lost=self._lost, problems=self._problems)

    async def close(self) -> None:
        """Write and sync what is left, and let everyone go who waits for it."""
        self._paused = False
        self.flush()
        self._lost += self._backlog.count(b"\n")
        self._backlog.clear()
        self._gap = self._rotation_paused = True  # what still comes is lost
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._worker.retire(self._fd)
        await asyncio.get_running_loop().run_in_executor(None, self._worker.close)

    def _take_in(self) -> None:
        """Encode what is fresh; beyond the bound it is lost, and with it all until a new segment begins."""
        fresh = self._fresh
        if not fresh:  # as where the timer comes after an answer has had all written
            return
        self._fresh = []
        if self._gap:
            self._lost += len(fresh)
            return
        try:
            lines = self._encode_lines(fresh)
            room = BACKLOG_BYTES_MAX - len(self._backlog)
            if len(lines) > room:
                self._gap = True
                taken = lines[: lines.rfind(b"\n", 0, max(0, room)) + 1]
                self._lost += len(fresh) - taken.count(b"\n")
                lines = taken
            self._backlog += lines
        except Exception as error:  # a request must not fail because of what is written down about it
            if len(fresh) == 1:
                self._lost += 1
                self._trouble(f"a fact cannot be encoded: {where(error)}")
                return
            for line in fresh:
                self._fresh = [line]
                self._take_in()

    def _write(self) -> None:
        backlog = self._backlog
        if backlog:
            try:
                while backlog:  # a disk that is nearly full takes a part; the rest of a line goes where it belongs
                    taken = os.write(self._fd, backlog)
                    del backlog[:taken]
                    self._size += taken
            except OSError as error:
                self._paused = True
                self._later("resume", RETRY_S, self._resume)
                self._trouble(f"{self.path} cannot be written: {error.strerror}")
                self._worker.look(self._open(), self._gone())
                return
            self._later("sync", SYNC_S, self._sync)
        # Its header does not count, however long that is: a journal of headers would have nothing to tell.
        if not self._gap and self._size - self._header_size < self._segment_bytes:
            self._reported = ""
        elif not self._rotation_paused:
            self._rotate()

    def _rotate(self) -> None:
        """Begin the next segment. While that fails, the old one grows on, unless lines are missing in it."""
        assert not self._backlog, "a header comes after all the facts that are in its state"
        old_fd = self._fd
        try:
            self._name, self._fd, self._size = self._create(self._name.next(), follows=not self._gap)
            self._header_size = self._size
        except Exception as error:  # with a broken header, too, answers have to be released
            self._rotation_paused = True
            self._later("resume", RETRY_S, self._resume)
            self._trouble(f"no new segment in {self.folder}: {error}")
            return
        self._gap = False
        self._reported = ""
        self._kept = self._lines - self._lost
        self._worker.retire(old_fd)
        self._worker.settle()

    def _create(self, wanted: SegmentName, *, follows: bool) -> tuple[SegmentName, int, int]:
        """A new segment with its header in it: its name, descriptor and size. OSError leaves nothing behind."""
        header = replace(self._header(), follows=follows)
        line = msgspec.json.encode(Line(at_s=self._clock.now_s(), fact=header)) + b"\n"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name, fd = wanted.create(self.folder)
        try:
            written = 0
            while written < len(line):
                written += os.write(fd, line[written:])
        except OSError:
            (self.folder / str(name)).unlink(missing_ok=True)
            os.close(fd)
            raise
        return name, fd, written

    def _leave(self, name: SegmentName) -> None:
        """Begin another segment after the one of this name: nobody finds, or can read, what it was given."""
        if name != self._name:
            return
        self._trouble(f"{self.path} was removed, moved away or cut off by another program; a new segment begins")
        self._take_in()
        self._backlog.clear()
        self._lost = self._lines - self._kept
        self._gap = True
        if not (self._paused or self._rotation_paused):
            self._rotate()

    def _sync(self) -> None:
        failed = partial(self._unsynced, asyncio.get_running_loop(), self.path)
        if not self._worker.sync(self._open(), self._gone(), failed):
            self._later("sync", SYNC_S, self._sync)
            return
        # The one before is over, and has told where it failed.
        if not self._sync_failed:
            self._sync_reported = ""
        self._sync_failed = False

    def _unsynced(self, loop: asyncio.AbstractEventLoop, path: Path, error: OSError) -> None:
        loop.call_soon_threadsafe(self._sync_trouble, f"{path} cannot be synced: {error.strerror}")

    def _open(self) -> Open:
        return Open(self._fd, self.path, self._size)

    def _gone(self) -> Callable[[], object]:
        """What says from another thread that this segment is not found any more."""
        return partial(asyncio.get_running_loop().call_soon_threadsafe, self._leave, self._name)

    def _resume(self) -> None:
        self._paused = self._rotation_paused = False
        self._tick.soon(JOURNAL, self._flushes)

    def _later(self, what: str, delay_s: float, act: Callable[[], None]) -> None:
        if what not in self._timers:
            self._timers[what] = asyncio.get_running_loop().call_later(delay_s, self._fire, what, act)

    def _fire(self, what: str, act: Callable[[], None]) -> None:
        del self._timers[what]
        act()

    def _sync_trouble(self, message: str) -> None:
        self._sync_failed = True
        self._problems += 1
        if message != self._sync_reported:
            self._sync_reported = message
            self._on_problem(f"journal: {message}")

    def _trouble(self, message: str) -> None:
        self._problems += 1
        if message != self._reported:
            self._reported = message
            self._on_problem(f"journal: {message}")
