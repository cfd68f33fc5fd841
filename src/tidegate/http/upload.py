"""How long the bytes of a request take: timed by what the other side's kernel acknowledges.

Writing says nothing of that: kernels on both sides take much more than the network has carried. So the connection is
asked now and then how many bytes were acknowledged (`TCP_INFO`), more seldom the longer it takes. Where the kernel does
not tell, nothing is timed.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from math import inf

from tidegate.clock import Clock

# The first look and the least between two: timers are no finer.
LOOK_S_MIN = 0.001
# Later looks come after an eighth of the time that it has taken so far: a minute takes less than a hundred of them.
LOOK_SHARE = 1.0 / 8.0
# What took less than ten looks cannot be timed to ten per cent: it took at most so long.
SURE_S = 10.0 * LOOK_S_MIN

# Into `struct tcp_info` of linux/tcp.h, where `tcpi_bytes_acked` (Linux 4.1) stands behind eight bytes, twenty-four
# numbers of four and two of eight.
_INFO_BYTES = 128
_ACKNOWLEDGED = struct.Struct("120xQ")

Told = Callable[[int, float, bool], None]
"""What is told: bytes, the seconds they took without the round trip, and whether it was at most so long."""


def acknowledged_bytes(transport: asyncio.BaseTransport) -> int | None:
    """What the other side has acknowledged of all that was ever sent on this connection; None where nobody knows."""
    if sys.platform != "linux" or transport.is_closing():
        return None
    try:
        told = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    if len(told) < _INFO_BYTES:
        return None
    (count,) = _ACKNOWLEDGED.unpack(told)
    return int(count)


class Upload:
    """Times one request, and tells once at most."""

    __slots__ = (
        "_clock",
        "_first",
        "_gap_s",
        "_last",
        "_looked_s",
        "_size_bytes",
        "_start_bytes",
        "_started_s",
        "_timer",
        "_told",
        "_transport",
    )

    def __init__(self, clock: Clock, told: Told) -> None:
        self._clock = clock
        self._told: Told | None = told
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.BaseTransport
        self._size_bytes = self._start_bytes = 0
        self._started_s = self._looked_s = self._gap_s = 0.0
        # When the first bytes were seen to be acknowledged, and the last ones, each with how many it were.
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)

    def begin(self, transport: asyncio.BaseTransport, size_bytes: int) -> None:
        """So many bytes are about to be written there; again, where a first connection was dead."""
        self._stop()
        start_bytes = acknowledged_bytes(transport)
        if self._told is None or start_bytes is None:
            return
        self._transport, self._size_bytes, self._start_bytes = transport, size_bytes, start_bytes
        self._first, self._looked_s, self._started_s = None, 0.0, self._clock.now_s()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S_MIN, self._look)

    def end(self) -> None:
        """The response has begun, or there will be none: what is known now is all."""
        if self._timer is not None:
            self._look(last=True)
        self._told = None

    def _look(self, *, last: bool = False) -> None:
        self._stop()
        count = acknowledged_bytes(self._transport)
        if count is None:
            return
        now_s, size = self._clock.now_s() - self._started_s, self._size_bytes
        done = min(count - self._start_bytes, size)
        if last or done == size:
            self._tell(now_s, done)
            return
        if done > 0:
            if self._first is None:
                self._first = now_s, done
                # From the last look at which nothing had come: first bytes that are there at once have no such time.
                self._gap_s = now_s - self._looked_s if self._looked_s else inf
            self._last = now_s, done
        self._looked_s = now_s
        self._timer = asyncio.get_running_loop().call_later(max(LOOK_S_MIN, LOOK_SHARE * now_s), self._look)

    def _tell(self, now_s: float, done: int) -> None:
        """All that is to come has come: `done` bytes were acknowledged by now, which is a round trip after they left.

        From the first acknowledged bytes on, time does not count the round trip. They themselves took as long as their
        share of the rest, but no longer than nothing was seen of them. Only where they were there at the first look
        that does not hold: something near has taken them in, which has not carried them yet.
        """
        told, self._told = self._told, None
        whole = done == self._size_bytes
        if told is None or (self._first is None and not whole):
            return
        seconds = 0.0
        if self._first is not None:
            first_s, first = self._first
            last_s, last = self._last
            ended_s = now_s
            if whole and last > first:
                # The end lies between two looks: it came at the pace of what was seen.
                ended_s = min(now_s, last_s + (done - last) * (last_s - first_s) / (last - first))
            # Where more than half was there at once, the rest is too little to tell the pace of all.
            if done > (2 * first if self._gap_s == inf else first):
                seconds = ended_s - first_s + min(self._gap_s, first * (ended_s - first_s) / (done - first))
        if seconds >= SURE_S:
            told(done, seconds, False)
        elif whole:
            told(done, now_s, True)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
