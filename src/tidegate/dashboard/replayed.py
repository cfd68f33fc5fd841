"""The router as a journal's end has made it, for pages that ask for one.

To follow it costs more than all else that is kept of a request, and most of the time nobody asks. A segment begins with
all that was known, so whoever asks waits for the replay of one segment at most: a second, with the usual size.
"""

import threading
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec

from tidegate.core.model import Decision, Line, Request
from tidegate.core.replay import Replay, ReplayError
from tidegate.telemetry.packing import DAMAGED, open_segment, up_to_damage
from tidegate.telemetry.reading import NO_LINE
from tidegate.telemetry.segments import LINE_BYTES_MAX


class Replayed:
    """Replays as much of a segment as is asked for, and goes on from there when more is. Any thread may ask."""

    def __init__(self) -> None:
        self._name = ""
        self._offset = 0
        self._replay: Replay | None = None
        self._decoder = msgspec.json.Decoder(Line)
        self._lock = threading.Lock()

    def state(self, path: Path, name: str, end: int) -> msgspec.Raw | None:
        """The router's snapshot after so many bytes of the segment `name`, packed or not, or after more of them.

        None where it is gone, cannot be opened now, was cut off, or cannot be replayed, as one of another version may
        not be.
        """
        with self._lock:
            if name != self._name:
                self._name, self._offset, self._replay = name, 0, Replay()
            if self._replay is None:
                return None
            try:
                self._go_on(self._replay, path, end)
            except OSError:  # as too many open files: it may be over in a moment
                return None
            except (ReplayError, *DAMAGED, *NO_LINE):
                self._replay = None
                return None
            router = self._replay.router
            return None if router is None else router.snapshot()

    def _go_on(self, replay: Replay, path: Path, end: int) -> None:
        if self._offset >= end:
            return
        try:
            with open_segment(path) as file:
                file.seek(self._offset)
                self._feed(replay, file, end)
        except DAMAGED:
            # Behind the end, maybe: more is read at once than is asked for.
            self._feed(replay, BytesIO(up_to_damage(path, self._offset, LINE_BYTES_MAX)), end)

    def _feed(self, replay: Replay, file: BinaryIO, end: int) -> None:
        while self._offset < end:
            raw = file.readline(LINE_BYTES_MAX)
            line = self._decoder.decode(raw)
            # Which requests there are is for decisions to know, and these are not made again.
            if not isinstance(line.fact, Request | Decision):
                replay.feed(line)
            self._offset += len(raw)
