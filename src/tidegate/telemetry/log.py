"""One wide line of JSON for each request, and a line for each event in the gateway's life. Never a prompt."""

import asyncio
import errno
import os
import select
import stat
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from tidegate.clock import Clock, iso
from tidegate.telemetry.event import WideEvent
from tidegate.telemetry.tick import LOG, Tick

# A pipe that nobody reads must not stop the gateway: beyond this, lines are dropped and counted.
BACKLOG_BYTES_MAX = 4 * 1024 * 1024
RETRY_S = 0.1  # a reader that fell behind is given this long, where no other line comes
LOOK_S = 1.0  # for so long lines go on into a file that was renamed


class Log:
    """Writes lines once per tick of the loop, and never waits for whoever reads them."""

    def __init__(self, fd: int, clock: Clock, file: Path | None = None, tick: Tick | None = None) -> None:
        """`file`: the descriptor is that of this file, and is closed with the log. It writes in its step of the `tick`,
        or of one of its own."""
        self._fd, self._sink = fd, Sink(fd)
        self._clock = clock
        self._file = file
        self._encode_lines = msgspec.json.Encoder(enc_hook=str).encode_lines
        self._fresh: list[object] = []  # of this tick, encoded at its end
        self._backlog = bytearray()
        self._tick = tick or Tick()
        # Bound once: each request needs it, and it would be bound anew whenever it is looked up.
        self._flushes: Callable[[], None] = self._flush
        self._again = False
        self._told = 0
        self.dropped = 0

    @classmethod
    def to(cls, file: Path | None, clock: Clock, tick: Tick | None = None) -> "Log":
        """Append to a file, or write to stderr where there is none. Raises `OSError`, as where nobody reads a pipe."""
        if file is None:
            return cls(sys.stderr.fileno(), clock, tick=tick)
        try:
            return cls(_opened(file), clock, file, tick)
        except OSError as error:
            if error.errno == errno.ENXIO and file.is_fifo():
                raise OSError(errno.ENXIO, "nobody reads this pipe", str(file)) from None
            raise

    async def watch(self) -> None:
        """Look now and then whether the file is still the one of that name, for as long as it runs."""
        while self._file is not None:
            await asyncio.sleep(LOOK_S)
            await self._look(self._file)

    def request(self, event: WideEvent) -> None:
        """A request has ended."""
        self._fresh.append(event)
        self._tick.soon(LOG, self._flushes)

    def event(self, level: str, name: str, **fields: str | int | float | bool | None) -> None:
        """Something happened to the gateway itself. Written at once: there may be no next tick."""
        now_s = self._clock.now_s()
        self._fresh.append({"type": "event", "at": iso(now_s), "level": level, "event": name, **fields})
        self._flush()

    def close(self) -> None:
        """Write what is left, as far as it is taken."""
        self._flush()
        self._sink.close()
        if self._file is not None:
            os.close(self._fd)

    async def _look(self, file: Path) -> None:
        """Go on in a new file where the one before was renamed or removed, as it is to rotate logs."""
        # No new one can be made, or no thread: the one before still takes lines, and may be read somewhere.
        with suppress(OSError, RuntimeError):
            # In a thread: a disk that hangs must not stop the gateway.
            fd = await asyncio.to_thread(_next, file, self._fd)
            if fd is not None:
                self._sink.close()
                os.close(self._fd)
                self._fd, self._sink = fd, Sink(fd)

    def _take_in(self) -> None:
        """Encode the fresh lines, or drop and count them: whoever logs is not to fail because of that."""
        fresh, self._fresh = self._fresh, []
        try:
            lines = self._encode_lines(fresh)
            room = BACKLOG_BYTES_MAX - len(self._backlog)
            if len(lines) > room:
                taken = lines[: lines.rfind(b"\n", 0, max(0, room)) + 1]
                self.dropped += len(fresh) - taken.count(b"\n")
                lines = taken
            self._backlog += lines
        except Exception:
            if len(fresh) == 1:
                self.dropped += 1
                return
            for line in fresh:
                self._fresh = [line]
                self._take_in()

    def _flush(self) -> None:
        """Write what is taken now; the rest waits for the next tick, or a moment where there is none."""
        self._take_in()
        backlog = self._backlog
        while backlog and (taken := self._sink.write(backlog)):
            del backlog[:taken]
        if backlog:
            self._later()
        elif self.dropped > self._told:
            dropped, self._told = self.dropped - self._told, self.dropped
            self.event("warning", "log lines dropped", lines=dropped)

    def _later(self) -> None:
        if self._again:
            return
        with suppress(RuntimeError):  # outside the loop the next event tries again
            asyncio.get_running_loop().call_later(RETRY_S, self._retry)
            self._again = True

    def _retry(self) -> None:
        self._again = False
        self._flush()


def where(error: BaseException) -> str:
    """What kind of error it was, and where: never what it says, which may quote anything."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{at}"


def _opened(file: Path) -> int:
    # A pipe that nobody reads would be waited for. To a file the flag means nothing.
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def _next(file: Path, fd: int) -> int | None:
    """What has this name now, opened, if it is another file than the open one; with its mode where there is none."""
    ours = os.fstat(fd)
    made = False
    try:
        if os.path.samestat(ours, file.stat()):
            return None
    except FileNotFoundError:
        made = True
    opened = _opened(file)
    if made:
        with suppress(OSError):  # some file systems have no modes
            os.fchmod(opened, stat.S_IMODE(ours.st_mode))
    return opened


class Sink:
    """A descriptor that is written without waiting.

    A file takes everything. A pipe or terminal is reopened where the system allows it, since the flag that keeps it
    from blocking belongs to the open file, which others share. Where it cannot be reopened, as a socket, it is asked
    first, and given no more than it then certainly takes.
    """

    def __init__(self, fd: int) -> None:
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._own = -1
        if not self._is_file:
            with suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._own = os.open(f"/proc/self/fd/{fd}", flags)
        self._fd = fd if self._own < 0 else self._own
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def write(self, data: bytearray) -> int:
        """How much was taken; nothing where it is full, or gone."""
        try:
            if self._is_file:
                return os.write(self._fd, data)
            if not self._poll.poll(0):
                return 0
            return os.write(self._fd, _piece(data))
        except OSError:  # a full disk, a closed pipe: there is nobody left to tell
            return 0

    def close(self) -> None:
        """Close what was opened here."""
        if self._own >= 0:
            os.close(self._own)


def _piece(data: bytearray) -> bytes:
    """As many whole lines as a pipe takes at once, so that the lines of several processes do not mix."""
    piece = bytes(data[: select.PIPE_BUF])
    return piece[: piece.rfind(b"\n") + 1] or piece
