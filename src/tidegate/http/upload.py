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
# Later looks are further apart, by a share of the time that it has taken so far: until something is acknowledged, which
# tells the round trip, and from then on. A minute takes about a hundred of them.
LOOK_SHARE_BEFORE, LOOK_SHARE = 1.0 / 16.0, 1.0 / 8.0
# What took less than ten looks, or three of those before, cannot be timed: it took at most so long.
SURE_S, SURE_GAPS = 10.0 * LOOK_S_MIN, 3.0

# Into `struct tcp_info` of linux/tcp.h, where `tcpi_bytes_acked` (Linux 4.1) stands behind eight bytes, twenty-four
# numbers of four and two of eight.
_INFO_BYTES = 128
_ACKNOWLEDGED = struct.Struct("120xQ")

Told = Callable[[int, float, bool], None]
"""What is told: bytes, the seconds they took without the round trip, and whether it was at most so long."""


def acknowledged_bytes(transport: asyncio.BaseTransport, *, closing: bool = False) -> int | None:
    """What the other side has acknowledged of all that was ever sent on this connection; None where nobody knows, and
    unless `closing` is of interest where it is being closed."""
    peer = None if transport.is_closing() and not closing else transport.get_extra_info("socket")
    if sys.platform != "linux" or peer is None:
        return None
    try:
        told = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    if len(told) < _INFO_BYTES:
        return None
    (count,) = _ACKNOWLEDGED.unpack(told)
    return int(count)


class Pace:
    """What was seen of a request of `size_bytes`: when how many of them were acknowledged. Time is an argument."""

    __slots__ = ("_first", "_gap_s", "_last", "_looked_s", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        # When the first bytes were seen to be acknowledged, and the last ones, each with how many it were.
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)
        # Between the look before that, at which nothing had come, and the first ones; infinity where there was none.
        self._gap_s = inf
        self._looked_s = 0.0

    def look(self, now_s: float, done: int) -> None:
        """By `now_s`, counted from its sending, `done` bytes were acknowledged, and not all."""
        if done > 0:
            if self._first is None:
                self._first = now_s, done
                self._gap_s = now_s - self._looked_s if self._looked_s else inf
            self._last = now_s, done
        self._looked_s = now_s

    def again_s(self, now_s: float) -> float:
        """How long from now the next look should be."""
        if self._first is None:
            return max(LOOK_S_MIN, LOOK_SHARE_BEFORE * now_s)
        return max(LOOK_S_MIN, LOOK_SHARE * (now_s - self._first[0]))

    def took(self, now_s: float, done: int) -> tuple[int, float, bool] | None:
        """What there is to tell (see `Told`), now that no more than the `done` bytes are to come; None is nothing.

        Bytes are acknowledged a round trip after they have left, so time counts from the first ones on. They themselves
        took as long as their share of the rest, but no longer than nothing was seen of them. Only where they were there
        at the first look that does not hold: something near has taken them in, which has not carried them yet.
        """
        whole = done == self.size_bytes
        if self._first is None:
            return (done, now_s, True) if whole else None
        first_s, first = self._first
        last_s, last = self._last
        ended_s, seconds = now_s, 0.0
        if whole and last > first:
            # The end lies between two looks: it came at the pace of what was seen.
            ended_s = min(now_s, last_s + (done - last) * (last_s - first_s) / (last - first))
        # Where more than half was there at once, the rest is too little to tell the pace of all.
        if done > (2 * first if self._gap_s == inf else first):
            seconds = ended_s - first_s + min(self._gap_s, first * (ended_s - first_s) / (done - first))
        if seconds >= SURE_S and (seconds >= SURE_GAPS * self._gap_s or self._gap_s == inf):
            return done, seconds, False
        return (done, now_s, True) if whole else None


class Upload:
    """Times one request, and tells once at most."""

    __slots__ = ("_clock", "_pace", "_start_bytes", "_started_s", "_timer", "_told", "_transport")

    def __init__(self, clock: Clock, told: Told) -> None:
        self._clock = clock
        self._told: Told | None = told
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.BaseTransport
        self._pace: Pace
        self._start_bytes = 0
        self._started_s = 0.0

    def begin(self, transport: asyncio.BaseTransport, size_bytes: int) -> None:
        """So many bytes are about to be written there; again, where a first connection was dead."""
        self._stop()
        start_bytes = acknowledged_bytes(transport)
        if self._told is None or start_bytes is None:
            return
        self._transport, self._pace, self._start_bytes = transport, Pace(size_bytes), start_bytes
        self._started_s = self._clock.now_s()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S_MIN, self._look)

    def end(self) -> None:
        """The response has begun, or there will be none: what is known now is all."""
        if self._timer is not None:
            self._look(last=True)
        # It holds who is told, who holds the call: without the cycle memory is freed at once.
        self._told = None

    def _look(self, *, last: bool = False) -> None:
        self._stop()
        count = acknowledged_bytes(self._transport)
        if count is None:
            return
        now_s, pace = self._clock.now_s() - self._started_s, self._pace
        done = min(count - self._start_bytes, pace.size_bytes)
        if last or done == pace.size_bytes:
            told, self._told = self._told, None
            took = pace.took(now_s, done)
            if took is not None and told is not None:
                told(*took)
            return
        pace.look(now_s, done)
        self._timer = asyncio.get_running_loop().call_later(pace.again_s(now_s), self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
