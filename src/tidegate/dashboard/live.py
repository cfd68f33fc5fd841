"""What changes, told to pages that are open: once a second at most."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from tidegate.dashboard.pages import SAFE
from tidegate.http.server import Exchange
from tidegate.wire.errors import BadRequest

EVERY_S: Final = 1.0
QUIET_S: Final = 15.0  # proxies take silence of half a minute for an end
# Each costs a look at the index a second, unless it looks at what another one does.
STREAMS_MAX: Final = 8
_HEADERS: Final = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), *SAFE)
_RETRY: Final = (b"retry-after", b"5")
# A comment would do for proxies; pages see events alone, and have to know that somebody is still there.
_STILL: Final = b"event: still\ndata: {}\n\n"


class Ask(Protocol):
    """Has something asked in the thread of the index."""

    def __call__(self, ask: "Callable[[], Tick]", /) -> "asyncio.Future[Tick] | None":
        """None where too much waits."""


Tick = tuple[bytes, int]
"""What is told, and the number of the newest row in it."""


class _Stream:
    """One page that is open; it has been told of the rows up to number `after`."""

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes
        self.after = 0
        self.paused = False
        self.told_s = 0.0


class Live:
    """Streams of events to pages. Who reads too slowly misses some: each event has all figures."""

    def __init__(
        self, ask: Ask, tick: Callable[[int, int], Tick], changes: Callable[[], int], now_s: Callable[[], float]
    ) -> None:
        """`tick` says what is new to a page that shows so many minutes, since a row's number; `changes` counts what was
        read."""
        self._ask = ask
        self._tick = tick
        self._changes = changes
        self._now_s = now_s
        self._streams: dict[Exchange, _Stream] = {}
        self._seen = -1
        self._timer: asyncio.TimerHandle | None = None
        self._asking = 0

    def start(self) -> None:
        """Look every second from now on."""
        self._look()

    def close(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()
        for exchange in list(self._streams):
            exchange.end()
        self._streams.clear()

    def begin(self, exchange: Exchange, minutes: int) -> None:
        """Tell one more page, from now on. Raises BadRequest."""
        if len(self._streams) >= STREAMS_MAX:
            text = f"{STREAMS_MAX} pages are told already; close one, or look without."
            raise BadRequest(text, status=503, headers=(_RETRY,))
        stream = _Stream(minutes)
        exchange.on_left = lambda: self._left(exchange)
        exchange.on_pause = lambda: setattr(stream, "paused", True)
        exchange.on_resume = lambda: setattr(stream, "paused", False)
        exchange.start(200, _HEADERS)
        exchange.write(b"retry: 3000\n\n")
        if exchange.method == "HEAD":
            exchange.end()
            return
        self._streams[exchange] = stream
        self._tell([exchange], minutes, after=0)

    def _left(self, exchange: Exchange) -> None:
        self._streams.pop(exchange, None)

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._look)
        changes, now_s = self._changes(), self._now_s()
        if changes != self._seen and self._streams and not self._asking:
            self._seen = changes
            # Those that want the same are told the same: mostly all of them.
            alike: dict[tuple[int, int], list[Exchange]] = {}
            for exchange, stream in self._streams.items():
                if not stream.paused:
                    alike.setdefault((stream.minutes, stream.after), []).append(exchange)
            for (minutes, after), exchanges in alike.items():
                self._tell(exchanges, minutes, after)
        for exchange, stream in self._streams.items():
            if now_s - stream.told_s >= QUIET_S and not stream.paused:
                stream.told_s = now_s
                exchange.write(_STILL)

    def _tell(self, exchanges: list[Exchange], minutes: int, after: int) -> None:
        future = self._ask(lambda: self._tick(minutes, after))
        if future is None:
            return
        self._asking += 1

        def done(future: "asyncio.Future[Tick]") -> None:
            self._asking -= 1
            if future.cancelled():
                return
            if (error := future.exception()) is not None:
                context = {"message": "what has changed cannot be told", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
                return
            data, last = future.result()
            for exchange in exchanges:
                stream = self._streams.get(exchange)
                if stream is not None:
                    stream.told_s, stream.after = self._now_s(), last
                    exchange.write(b"event: tick\ndata: %b\n\n" % data)

        future.add_done_callback(done)
