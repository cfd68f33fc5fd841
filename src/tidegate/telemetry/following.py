"""Follows a journal that is being written, from segment to segment."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from tidegate.core.model import Line
from tidegate.telemetry.packing import open_segment
from tidegate.telemetry.reading import NO_LINE, check_head, raw_lines, segments_of, unopened, unreadable
from tidegate.telemetry.requests import run_of
from tidegate.telemetry.segments import PACKED, is_written

# So many of the last segments are read before what is appended, of the newest run and of each that goes on: in these
# its requests under way began.
BACK = 2
# Nobody goes further back once so many lines are read: some seconds.
LINES_MAX = 200_000


class _Opened(msgspec.Struct):
    """A segment, and how many lines and bytes of it were read."""

    file: BinaryIO
    lines: int = 0
    bytes: int = 0


class Following:
    """The lines of a folder from its newest segments on; ask again and again for those that have come since.

    Of several runs, each line comes with the one that it belongs to. What of a line is not written yet comes later.
    Raises `JournalError` where nobody may look into the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, _Opened] = {}
        self._decoder = msgspec.json.Decoder(Line)
        self._begin(0)

    def _begin(self, back: int) -> None:
        """With so many last segments, whosever they are, and the last of the newest run and of each that goes on."""
        paths = segments_of(self._folder) or []
        by_run: dict[tuple[str, int] | None, list[Path]] = {}
        for path in paths:
            by_run.setdefault(run_of(path), []).append(path)
        newest = set(paths[max(len(paths) - back, 0) :])
        for ours in by_run.values():
            if ours[-1] == paths[-1] or not _is_over(ours[-1]):
                newest.update(ours[-BACK:])
        self._done = {_name(path) for path in paths if path not in newest}
        # Of these runs, a segment was read to its end.
        self._finished = set[tuple[str, int] | None]()
        self._back, self._lines, self._after, self._left_out = back, 0, 0, bool(self._done)

    def further(self) -> bool:
        """Begin again with twice as many segments; False where there are no more, or enough was read."""
        if not self._left_out or self._lines >= LINES_MAX:
            return False
        self.close()
        self._begin(2 * max(self._back, BACK))
        return True

    def nearer(self) -> bool:
        """Begin again after the segment that could not be read, and go no further; False where it is one of those that
        are read in any case."""
        if self._after >= self._back:
            return False
        self.close()
        self._begin(self._after)
        self._left_out = False
        return True

    def lines(self) -> Iterator[tuple[tuple[str, int] | None, Line]]:
        """What there is by now that was not given yet, with its run. Raises `JournalError`."""
        paths = segments_of(self._folder) or []
        self._done &= {_name(path) for path in paths}
        for self._after, path in zip(reversed(range(len(paths))), paths, strict=True):
            name = _name(path)
            if name in self._done:
                continue
            # Asked before it is read: what is appended until nobody writes it any more is read then.
            over = _is_over(path)
            if name not in self._open:
                try:
                    self._open[name] = _Opened(open_segment(path))
                except FileNotFoundError:
                    self._done.add(name)
                    continue
                except OSError as error:
                    raise unopened(path, error) from None
            opened, run = self._open[name], run_of(path)
            for line in self._new(path, opened):
                yield run, line
            if over and opened.lines:
                self._open.pop(name).file.close()
                self._done.add(name)
                self._finished.add(run)

    def ended(self) -> list[tuple[str, int] | None]:
        """The runs of which no more lines will come, each once; ask after `lines`. Raises `JournalError`."""
        if not self._finished:
            return []
        # Whoever goes on in another segment makes that before they let go of the one that is finished.
        last = {run_of(path): _name(path) for path in segments_of(self._folder) or []}
        finished, self._finished = self._finished, set()
        return [run for run in finished if run not in last or last[run] in self._done]

    def close(self) -> None:
        """Follow no more."""
        for opened in self._open.values():
            opened.file.close()
        self._open.clear()

    def _new(self, path: Path, opened: _Opened) -> Iterator[Line]:
        for raw in raw_lines(path, opened.file, opened.lines, opened.bytes):
            if not raw.endswith(b"\n"):
                if path.suffix != PACKED:
                    opened.file.seek(-len(raw), os.SEEK_CUR)
                return
            opened.lines += 1
            opened.bytes += len(raw)
            self._lines += 1
            if opened.lines == 1:
                check_head(path, raw)
            try:
                line = self._decoder.decode(raw)
            except NO_LINE as error:
                raise unreadable(path, opened.lines, error) from None
            yield line


def _is_over(path: Path) -> bool:
    """Whether nobody writes this segment any more, as far as the file system knows of locks."""
    with suppress(OSError):  # it may be gone, or packed
        # Whoever has made a segment locks it a moment later, and then begins it.
        if path.stat().st_size == 0:
            return False
    return not is_written(path)


def _name(path: Path) -> str:
    """The same for a segment, packed or not."""
    return path.name.removesuffix(PACKED)
