"""What an emulated link does to bytes: a road that connections share, and a pipe for each direction of one.

A piece waits its turn on the road, takes size/rate to pass, flies for half a round trip plus jitter, and is
handed over in the order in which it came. Time is `tick_s`, not the loop's, which under uvloop is a
millisecond coarse: no byte may be early.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, StrEnum, auto
from hashlib import blake2b

import msgspec

from tidegate.clock import tick_s

PIECE_BYTES_MIN = 1460  # what a packet carries
PIECE_BYTES_MAX = 16 * 1024  # smaller ones would cost the relay too much where the rate is high
TURN_S = 0.005  # a piece takes so long to pass, within these bounds: 16 KiB would take 0.13 s at 1 Mbit/s
RTT_S_MAX = 60.0  # beyond a minute no client waits; a slip of the unit is more likely


class Mark(Enum):
    """What passes through a pipe besides bytes, in order with them."""

    END = auto()  # the sender writes no more
    RESET = auto()  # the sender is gone


class Outage(StrEnum):
    """What a link does instead of carrying bytes. Existing connections stall in either case."""

    NONE = "none"
    HANG = "hang"  # new connections are accepted, as if the SYN had got lost, and go on when it is over
    REFUSE = "refuse"  # new connections are refused


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A path through a network, the same in both directions."""

    rtt_s: float = 0.0
    jitter_s: float = 0.0  # each way takes up to this much more, evenly distributed
    rate_bytes_per_s: float | None = None  # of each direction, shared by all connections; None: unlimited
    outage: Outage = Outage.NONE

    def __post_init__(self) -> None:
        if not 0.0 <= self.rtt_s <= RTT_S_MAX:
            raise ValueError(f"the round trip must be between 0 and {RTT_S_MAX:.0f} s")
        if not 0.0 <= self.jitter_s <= RTT_S_MAX:
            raise ValueError(f"the jitter must be between 0 and {RTT_S_MAX:.0f} s")
        if self.rate_bytes_per_s is not None and not self.rate_bytes_per_s > 0.0:
            raise ValueError("the rate must be above 0; for no traffic at all, set an outage")

    def one_way_s(self, chance: float) -> float:
        """How long a piece flies, by a chance from [0, 1)."""
        return self.rtt_s / 2 + self.jitter_s * chance


def uniform(seed: int, purpose: str, key: str) -> float:
    """A reproducible draw from [0, 1)."""
    digest = blake2b(f"{seed}|{purpose}|{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class Alarm:
    """Calls back once, never before it is due."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    @property
    def is_set(self) -> bool:
        """Whether it is going to ring."""
        return self._handle is not None

    def set(self, due_s: float) -> None:
        """Ring at this time, unless it is going to ring already."""
        if self._handle is None:
            self._due_s = due_s
            self._wait()

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _wait(self) -> None:
        left_s = max(0.0, self._due_s - tick_s())
        self._handle = asyncio.get_running_loop().call_later(left_s, self._wake)

    def _wake(self) -> None:
        if tick_s() < self._due_s:
            self._wait()  # the loop rounds
            return
        self._handle = None
        self._ring()


class Road:
    """One direction of a link: pieces of all connections pass in turn, one connection after the other."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[Pipe] = deque()
        self._free_s = 0.0  # when the last piece has passed
        self._alarm = Alarm(self._run)

    @property
    def piece_bytes(self) -> int:
        """How much may pass in one turn."""
        rate = self._link.rate_bytes_per_s
        return PIECE_BYTES_MAX if rate is None else min(PIECE_BYTES_MAX, max(PIECE_BYTES_MIN, int(rate * TURN_S)))

    def change(self, link: Link) -> None:
        """A piece that is passing begins again, under the new rate."""
        self._link = link
        self._free_s = tick_s()
        self._alarm.cancel()
        self._run()

    def join(self, pipe: "Pipe") -> None:
        """This pipe, not waiting so far, has something to send."""
        if not self._waiting:
            self._free_s = max(self._free_s, tick_s())
        self._waiting.append(pipe)
        self._run()

    def leave(self, pipe: "Pipe") -> None:
        """This pipe has nothing to send any more."""
        if pipe in self._waiting:
            self._waiting.remove(pipe)

    def _run(self) -> None:
        if self._alarm.is_set or self._link.outage is not Outage.NONE:
            return
        rate = self._link.rate_bytes_per_s
        while self._waiting:
            pipe = self._waiting[0]
            passed_s = self._free_s + (0.0 if rate is None else pipe.next_bytes / rate)
            if passed_s > tick_s():
                self._alarm.set(passed_s)
                return
            self._waiting.popleft()
            self._free_s = passed_s
            if pipe.depart(passed_s, self._link):
                self._waiting.append(pipe)


class Pipe:
    """One direction of one connection. Holds at most `in_flight_bytes_max` and one piece.

    Reading from `source` stops when that is reached; a reader that does not read thereby stops the writer. It stops
    too while a piece waits for its turn on the road: the sender's kernel is told no sooner than on a real link that
    bytes have gone, but for half a round trip, and so sees the pace of the road.
    """

    def __init__(self, road: Road, chance: Callable[[int], float], in_flight_bytes_max: int) -> None:
        self.in_flight_bytes = 0
        self.delivered_bytes = 0
        self.source: asyncio.Transport | None = None
        self._sink: asyncio.Transport | None = None
        self._on_mark: Callable[[Mark], None] = _ignore
        self._road = road
        self._chance = chance
        self._in_flight_bytes_max = in_flight_bytes_max
        self._sent_bytes = 0
        self._queued: deque[bytes | Mark] = deque()
        self._source_paused = False
        self._flying: deque[tuple[float, bytes | Mark]] = deque()
        self._last_due_s = 0.0
        self._alarm = Alarm(self._arrive)
        self._stalled = False
        self._sink_paused = False

    @property
    def piece_bytes(self) -> int:
        """How much to read at once, so that no piece holds the road up for long."""
        return self._road.piece_bytes

    @property
    def next_bytes(self) -> int:
        """Size of the piece whose turn is next."""
        return _size(self._queued[0])

    def open(self, sink: asyncio.Transport, on_mark: Callable[[Mark], None]) -> None:
        """The far end is there; what has waited for it sets out."""
        self._sink = sink
        self._on_mark = on_mark
        if self._queued:
            self._road.join(self)

    def take(self, piece: bytes | Mark) -> None:
        """A piece from the source."""
        self._queued.append(piece)
        self.in_flight_bytes += _size(piece)
        if len(self._queued) == 1 and self._sink is not None:
            self._road.join(self)
        self._heed()

    def depart(self, at_s: float, link: Link) -> bool:
        """The next piece has passed the road. Whether there is another one."""
        piece = self._queued.popleft()
        due_s = at_s + link.one_way_s(self._chance(self._sent_bytes))
        self._sent_bytes += _size(piece)
        # Jitter must not reorder: a stream of bytes has one order.
        self._last_due_s = max(self._last_due_s, due_s)
        self._flying.append((self._last_due_s, piece))
        self._arrive()
        self._heed()
        return bool(self._queued)

    def stall(self, stalled: bool) -> None:
        """Hold what is under way, or let it go on."""
        self._stalled = stalled
        self._arrive()

    def pause_sink(self, paused: bool) -> None:
        """The far end does not read, or reads again."""
        self._sink_paused = paused
        self._arrive()

    def drop(self) -> None:
        """Nobody is left to hand anything to."""
        self._road.leave(self)
        self._alarm.cancel()
        self._queued.clear()
        self._flying.clear()
        self.in_flight_bytes = 0
        self._sink = None

    def _arrive(self) -> None:
        while self._flying and self._sink is not None and not self._stalled and not self._sink_paused:
            due_s, piece = self._flying[0]
            if due_s > tick_s():
                self._alarm.set(due_s)
                return
            self._flying.popleft()
            self._hand_over(self._sink, piece)

    def _hand_over(self, sink: asyncio.Transport, piece: bytes | Mark) -> None:
        if isinstance(piece, Mark):
            self._on_mark(piece)
            return
        self.in_flight_bytes -= len(piece)
        self.delivered_bytes += len(piece)
        self._heed()
        sink.write(piece)

    def _heed(self) -> None:
        """Read from the source while there is room for what it says."""
        full = len(self._queued) > 1 or self.in_flight_bytes >= self._in_flight_bytes_max
        if full == self._source_paused or self.source is None:
            return
        self._source_paused = full
        if full:
            self.source.pause_reading()
        else:
            self.source.resume_reading()


def _size(piece: bytes | Mark) -> int:
    return 0 if isinstance(piece, Mark) else len(piece)


def _ignore(_mark: Mark) -> None:
    """Nothing to end yet."""
