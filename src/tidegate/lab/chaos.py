"""A provider that misbehaves to order: aim a client or a gateway at it, and see what becomes of its requests.

A real server with a protocol of its own, since correct HTTP is the first thing that it has to break. The fault is the
first part of the path, so that any base URL can choose one: `http://127.0.0.1:8480/cut/v1`. Without one it behaves.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self, cast

import httptools
import msgspec

from tidegate.clock import Clock
from tidegate.core.model import Record
from tidegate.engines.faults import EXPECTED, FAULTS, Fault, Kind
from tidegate.engines.words import Words
from tidegate.lab.misdeeds import JSON, Asked, Pace, Step, Then, play, respond

# A stall that nobody ends, and a trickle that nobody stops, end after as long as SDKs wait for an answer.
ANSWER_S_MAX = 600.0
LOOK_S = 0.1  # whether who is not read from is still there: a system call for each
# The gateway's own bound on a request; a head is part of it.
REQUEST_BYTES_MAX = 32 * 1024 * 1024
# Beyond it the connection is dropped: a test aims with some hundred clients.
CONNECTIONS_MAX = 1024
MODEL = "chaos"
# Never registered, by RFC 6761.
_NO_NAME = "http://nobody.invalid/v1"
# The states of net/tcp_states.h in which the peer has left: CLOSE and CLOSE_WAIT.
_GONE = frozenset({7, 8})


class Row(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One fault as it can be aimed at. `waits`: only the caller's own time-out ends it."""

    fault: Fault
    kind: Kind
    base_url: str
    meaning: str
    expected: str
    waits: bool


class Tally(msgspec.Struct):
    """What was seen of one fault: requests (below HTTP: connections), those whose client left, those under way."""

    requests: int = 0
    left: int = 0
    in_flight: int = 0


class Chaos:
    """`async with Chaos() as chaos:` then `chaos.base_url(Fault.CUT)`. `seen` counts, by fault.

    With a `port`, the faults that need one of their own take those that follow it; 0 leaves all to the system.
    Entering raises `OSError` if a port cannot be had.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, pace: Pace | None = None) -> None:
        self.clock = Clock()
        self.pace = pace or Pace()
        self.seen: dict[Fault | None, Tally] = {fault: Tally() for fault in (None, *Fault)}
        self.playing: set[_Playing] = set()
        self._connections: set[asyncio.Transport] = set()
        self._emptied = asyncio.Event()
        self._host = host
        self._port = port
        self._listeners: list[asyncio.Server] = []
        self._ports: dict[Fault, int] = {}
        self._deaf = socket.socket()
        self._unread: _Unread | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            self._deaf.bind((self._host, self._port and self._port + 1))  # bound, and never listening: so it refuses
            self._ports[Fault.REFUSED] = self._deaf.getsockname()[1]
            main = await loop.create_server(lambda: _Connection(self), self._host, self._port)
            self._listeners.append(main)
            server = await loop.create_server(lambda: _Mute(self), self._host, self._port and self._port + 2)
            self._listeners.append(server)
            self._ports[Fault.TLS_STALL] = server.sockets[0].getsockname()[1]
            self._unread = _Unread(self.seen[Fault.UNREAD], self._host, self._port and self._port + 3)
            self._ports[Fault.UNREAD] = self._unread.port
        except OSError:
            await self.__aexit__(None, None, None)
            raise
        self._port = main.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deaf.close()
        if self._unread is not None:
            self._unread.close()
        for server in self._listeners:
            server.close()
        for playing in list(self.playing):
            playing.stop()
        for transport in list(self._connections):
            transport.abort()
        if self._connections:
            await self._emptied.wait()

    def base_url(self, fault: Fault | None = None) -> str:
        """What a client is given as its base URL, to meet this fault; None is the provider that behaves."""
        if fault is Fault.DNS:
            return _NO_NAME
        if fault is not None and fault in self._ports:
            scheme = "https" if fault is Fault.TLS_STALL else "http"
            return f"{scheme}://{self._host}:{self._ports[fault]}/v1"
        prefix = "" if fault is None else f"/{fault.value}"
        return f"http://{self._host}:{self._port}{prefix}/v1"

    def rows(self) -> list[Row]:
        """Every fault, in the order of the list."""
        return [
            Row(
                fault=fault,
                kind=told.kind,
                base_url=self.base_url(fault),
                meaning=told.text,
                expected=EXPECTED[told.kind],
                waits=told.waits,
            )
            for fault, told in FAULTS.items()
        ]

    def admit(self, transport: asyncio.Transport) -> None:
        """For a new connection."""
        self._connections.add(transport)
        self._emptied.clear()
        if len(self._connections) > CONNECTIONS_MAX:
            transport.abort()

    def forget(self, transport: asyncio.Transport) -> None:
        """For a lost connection."""
        self._connections.discard(transport)
        if not self._connections:
            self._emptied.set()

    def seen_json(self) -> bytes:
        """The answer to `/seen`: what was seen of each fault that was met."""
        met = {fault.value if fault else "none": tally for fault, tally in self.seen.items() if tally.requests}
        return msgspec.json.encode(met)


class _Unread:
    """Accepts, and never reads nor says anything.

    It has plain sockets, as a transport of uvloop reads before it can be told not to. Who leaves is seen by the state
    of the connection, unless more is under way than it takes: then nothing tells until `ANSWER_S_MAX` is over.
    """

    def __init__(self, tally: Tally, host: str, port: int) -> None:
        """Raises `OSError` if the port cannot be had."""
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._open: dict[socket.socket, asyncio.TimerHandle] = {}
        self._listening = socket.create_server((host, port), backlog=CONNECTIONS_MAX)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """End all of it."""
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for one in list(self._open):
            self._end(one)

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionError):  # who came has left already
            one, _ = self._listening.accept()
            if len(self._open) == CONNECTIONS_MAX:
                one.close()
                return
            self._tally.requests += 1
            self._tally.in_flight += 1
            self._look(one, self._loop.time() + ANSWER_S_MAX)

    def _look(self, one: socket.socket, until_s: float) -> None:
        left_s = until_s - self._loop.time()
        self._open[one] = self._loop.call_later(min(LOOK_S, left_s), self._look, one, until_s)
        state = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]  # the first byte of struct tcp_info
        if left_s <= 0.0 or state in _GONE:
            self._end(one)

    def _end(self, one: socket.socket) -> None:
        self._open.pop(one).cancel()
        one.close()
        self._tally.in_flight -= 1
        self._tally.left += 1


class _Mute(asyncio.Protocol):
    """Accepts, and never says anything."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._tally = chaos.seen[Fault.TLS_STALL]
        self._transport: asyncio.Transport
        self._bound: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._chaos.admit(self._transport)
        self._tally.requests += 1
        self._tally.in_flight += 1
        # What comes is read and dropped, so that a peer that leaves is noticed.
        self._bound = asyncio.get_running_loop().call_later(ANSWER_S_MAX, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._bound.cancel()
        self._tally.in_flight -= 1
        self._tally.left += 1
        self._chaos.forget(self._transport)


class _Connection(asyncio.Protocol):
    """Takes one request after the other, and plays the script of its fault."""

    transport: asyncio.Transport

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._body = bytearray()
        self._received = 0
        self._playing: _Playing | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._chaos.admit(self.transport)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        # This serves callers that wait for an answer before they ask again.
        if self._received > REQUEST_BYTES_MAX or self._playing is not None:
            self.transport.abort()
            return
        with suppress(httptools.HttpParserUpgrade):
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError:
                self._answer(400, {"error": {"message": "this is not HTTP/1.1", "type": "invalid_request_error"}})
                self.transport.close()

    def eof_received(self) -> None:
        """The peer has left: so does this side."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._chaos.forget(self.transport)
        if self._playing is not None:
            self._playing.left()

    def pause_writing(self) -> None:
        if self._playing is not None:
            self._playing.paused = True

    def resume_writing(self) -> None:
        if self._playing is not None:
            self._playing.resume()

    # ------------------------------------------------------------------ the parser calls

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        target, body = self._target.decode("ascii", "replace").partition("?")[0], bytes(self._body)
        self._target = b""
        self._body.clear()
        self._received = 0
        if self._playing is not None:
            self.transport.abort()
            return
        fault, path = _aim(target)
        posted = self._parser.get_method() == b"POST"
        if posted and path in ("/v1/chat/completions", "/v1/completions"):
            self._play(fault, path, body)
        elif path == "/v1/models" and not posted:
            self._answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "tidegate"}]})
        elif path == "/health" and not posted:
            self._answer(200, {"status": "ok"})
        elif path == "/seen" and not posted:
            self.transport.write(respond(200, JSON, self._chaos.seen_json()))
        else:
            message = f"there is no {path}; try /FAULT/v1/chat/completions, with a fault of `tidegate chaos --json`"
            self._answer(404, {"error": {"message": message, "type": "invalid_request_error"}})

    # ------------------------------------------------------------------ answering

    def played(self, then: Then | None) -> None:
        """For the playing: the script has ended."""
        self._playing = None
        if then is Then.CLOSE:
            self.transport.close()

    def _play(self, fault: Fault | None, path: str, body: bytes) -> None:
        try:
            asked = msgspec.json.decode(body, type=_Body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self._answer(400, {"error": {"message": "the body is no request", "type": "invalid_request_error"}})
            return
        words = Words(model=asked.model, chat=path.endswith("/chat/completions"), body_bytes=len(body))
        made = Asked(words=words, streamed=asked.stream, now_s=self._chaos.clock.now_s())
        playing = self._playing = _Playing(self._chaos, self, fault, play(fault, made, self._chaos.pace))
        playing.go_on()

    def _answer(self, status: int, value: object) -> None:
        self.transport.write(respond(status, JSON, msgspec.json.encode(value)))


class _Body(msgspec.Struct):
    model: str = ""
    stream: bool = False


def _aim(target: str) -> tuple[Fault | None, str]:
    """The fault that a path chooses, and the path behind it."""
    first, _, rest = target.removeprefix("/").partition("/")
    try:
        fault = Fault(first)
    except ValueError:
        return None, target
    return (None, target) if FAULTS[fault].below_http else (fault, f"/{rest}")


class _Playing:
    """A script being played to a connection, or to nobody, where the fault is that it goes on all the same."""

    def __init__(self, chaos: Chaos, connection: _Connection, fault: Fault | None, script: Iterator[Step]) -> None:
        self.paused = False
        self._stalled = False
        self._chaos = chaos
        self._connection: _Connection | None = connection
        self._deaf = fault is Fault.IGNORES_CANCEL
        self._script = script
        self._tally = chaos.seen[fault]
        self._waiting: asyncio.TimerHandle | None = None
        self._bound = asyncio.get_running_loop().call_later(ANSWER_S_MAX, connection.transport.abort)
        self._tally.requests += 1
        self._tally.in_flight += 1
        chaos.playing.add(self)

    def go_on(self) -> None:
        """Play until there is something to wait for."""
        self._waiting = None
        for step in self._script:
            if isinstance(step, bytes):
                if self._connection is not None:
                    self._connection.transport.write(step)
                if self.paused:
                    return
            elif isinstance(step, float):
                self._waiting = asyncio.get_running_loop().call_later(step, self.go_on)
                return
            elif step is Then.STALL:
                self._stalled = True
                return
            else:
                self._end(step)
                return
        self._end(None)

    def resume(self) -> None:
        """The peer reads again."""
        self.paused = False
        if self._waiting is None and not self._stalled:
            self._waiting = asyncio.get_running_loop().call_later(0.0, self.go_on)

    def left(self) -> None:
        """Nobody is there any more."""
        self._tally.left += 1
        if not self._deaf:
            self.stop()
            return
        self._connection = None
        if self.paused:
            self.resume()

    def stop(self) -> None:
        """Play no further."""
        self._end(None)

    def _end(self, then: Then | None) -> None:
        self._bound.cancel()
        if self._waiting is not None:
            self._waiting.cancel()
        self._tally.in_flight -= 1
        self._chaos.playing.discard(self)
        if self._connection is not None:
            self._connection.played(then)
