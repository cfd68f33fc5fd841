"""An emulated wide-area network in front of one address, changeable while it runs.

In a process: `async with Wan((LOCAL, 0), upstream, Link(rtt_s=0.1)) as wan: await wan.change(rtt_s=0.3)`.
As a command: `python -m tidegate.lab.wan --listen 8001 --to 127.0.0.1:8000 --rtt-ms 100 --control 8002`, then
`curl -X PUT localhost:8002/link -d '{"rtt_ms": 300}'`.
"""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Self

import msgspec
import uvloop
from msgspec import UNSET, UnsetType

from tidegate.clock import Clock, tick_s
from tidegate.http.server import Exchange, Limits, Server
from tidegate.lab.link import PIECE_BYTES_MIN, RTT_S_MAX, Alarm, Link, Outage, Pipe, Road, uniform
from tidegate.lab.relay import Connection, End

__all__ = ["Address", "Control", "Link", "Outage", "Statistics", "Wan"]

Address = tuple[str, int]

LOCAL = "127.0.0.1"
IN_FLIGHT_BYTES_MAX = 4 * 1024 * 1024  # of a connection's direction: fills 100 Mbit/s over 300 ms one way
RECEIVED_BYTES_MIN = 4 * 1024  # unread in the kernel, below which that takes a moment for every packet
CONNECTIONS_MAX = 1024  # two file descriptors each; beyond it new ones are reset
CLOSE_S_MAX = 5.0


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a Wan holds and has done."""

    connections: int
    accepted: int
    in_flight_bytes: int
    delivered_up_bytes: int
    delivered_down_bytes: int


class Wan:
    """A TCP relay from `listen` to `upstream` over a link. Port 0 listens on any free one.

    A connection costs a round trip before its first byte sets out. The client sees it open at once, since
    its own kernel does that, and pays when it speaks.
    """

    def __init__(
        self,
        listen: Address,
        upstream: Address,
        link: Link = Link(),  # noqa: B008 - frozen
        *,
        seed: int = 0,
        in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX,
    ) -> None:
        self.link = link
        self._address = listen
        self._upstream = upstream
        self._seed = seed
        self._in_flight_bytes_max = in_flight_bytes_max
        self._up, self._down = Road(link), Road(link)
        self._connections: set[Connection] = set()
        self._accepted = self._closed_up_bytes = self._closed_down_bytes = 0
        self._changing = asyncio.Lock()  # listening again takes a moment, in which another change may come
        self._passable = asyncio.Event()
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._address

    @property
    def url(self) -> str:
        """The same, for HTTP."""
        return f"http://{self._address[0]}:{self._address[1]}"

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        await self._listen()
        await self._apply()

    async def stop(self) -> None:
        """Refuse new connections and reset the open ones."""
        self._close_listener()
        for connection in list(self._connections):
            connection.reset()
        if self._connections:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._empty.wait()

    async def change(self, **changes: float | Outage | None) -> None:
        """Change fields of the link. What has left flies on as before; what waits feels the change."""
        async with self._changing:
            self.link = msgspec.structs.replace(self.link, **changes)
            await self._apply()

    def statistics(self) -> Statistics:
        """Counts since the start."""
        up = [connection.up for connection in self._connections]
        down = [connection.down for connection in self._connections]
        return Statistics(
            connections=len(self._connections),
            accepted=self._accepted,
            in_flight_bytes=sum(pipe.in_flight_bytes for pipe in up + down),
            delivered_up_bytes=self._closed_up_bytes + sum(pipe.delivered_bytes for pipe in up),
            delivered_down_bytes=self._closed_down_bytes + sum(pipe.delivered_bytes for pipe in down),
        )

    async def _apply(self) -> None:
        stalled = self.link.outage is not Outage.NONE
        for connection in list(self._connections):
            connection.up.stall(stalled)
            connection.down.stall(stalled)
        self._up.change(self.link)
        self._down.change(self.link)
        listening = () if self._server is None else self._server.sockets
        for receiver in (*listening, *(connection.receiver for connection in self._connections)):
            if receiver is not None:
                self._hold_little(receiver)
        if stalled:
            self._passable.clear()
        else:
            self._passable.set()
        if self.link.outage is Outage.REFUSE:
            self._close_listener()
        elif self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(self._address)
        # Inherited by what is accepted: packets as of a real network, not of 64 KiB as the loopback would have them.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, PIECE_BYTES_MIN)
        self._hold_little(listener)
        self._server = await loop.create_server(self._accept, sock=listener)
        self._address = self._server.sockets[0].getsockname()[:2]

    def _hold_little(self, receiver: socket.socket) -> None:
        """What the kernel keeps unread, it has acknowledged to the sender, who takes it for gone."""
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, max(RECEIVED_BYTES_MIN, self._up.piece_bytes))

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accept(self) -> End:
        self._accepted += 1
        up = self._pipe(self._up, f"{self._accepted}|up")
        down = self._pipe(self._down, f"{self._accepted}|down")
        connection = Connection(up, down, self._connect, self._forget)
        self._connections.add(connection)
        self._empty.clear()
        return connection.client

    def _pipe(self, road: Road, key: str) -> Pipe:
        pipe = Pipe(
            road,
            lambda sent_bytes: uniform(self._seed, "jitter", f"{key}|{sent_bytes}"),
            self._in_flight_bytes_max,
        )
        pipe.stall(self.link.outage is not Outage.NONE)
        return pipe

    async def _connect(self, server: End) -> None:
        """Wait out the hand-shake, then reach the upstream. Raises `OSError` if it refuses."""
        if len(self._connections) > CONNECTIONS_MAX:
            raise ConnectionRefusedError("too many connections")
        await self._passable.wait()
        shaken = asyncio.Event()
        Alarm(shaken.set).set(tick_s() + self.link.rtt_s)
        await shaken.wait()
        await self._passable.wait()
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: server, *self._upstream)

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._closed_up_bytes += connection.up.delivered_bytes
        self._closed_down_bytes += connection.down.delivered_bytes
        if not self._connections:
            self._empty.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link in the units that people use; a field left out of a change stays as it is."""

    rtt_ms: Annotated[float, msgspec.Meta(ge=0, le=RTT_S_MAX * 1e3)] | UnsetType = UNSET
    jitter_ms: Annotated[float, msgspec.Meta(ge=0, le=RTT_S_MAX * 1e3)] | UnsetType = UNSET
    rate_mbit: Annotated[float, msgspec.Meta(gt=0)] | UnsetType | None = UNSET  # null: unlimited
    outage: Outage | UnsetType = UNSET

    @classmethod
    def of(cls, link: Link) -> Self:
        """How a link is told."""
        rate = link.rate_bytes_per_s
        return cls(
            rtt_ms=link.rtt_s * 1e3,
            jitter_ms=link.jitter_s * 1e3,
            rate_mbit=None if rate is None else rate * 8 / 1e6,
            outage=link.outage,
        )

    def changes(self) -> dict[str, float | Outage | None]:
        """What `Wan.change` has to be told."""
        changes: dict[str, float | Outage | None] = {}
        if self.rtt_ms is not UNSET:
            changes["rtt_s"] = self.rtt_ms / 1e3
        if self.jitter_ms is not UNSET:
            changes["jitter_s"] = self.jitter_ms / 1e3
        if self.rate_mbit is not UNSET:
            changes["rate_bytes_per_s"] = None if self.rate_mbit is None else self.rate_mbit * 1e6 / 8
        if self.outage is not UNSET:
            changes["outage"] = self.outage
        return changes


class Control:
    """`GET /link` tells the link, `PUT /link` changes it and tells what it has become."""

    def __init__(self, wan: Wan) -> None:
        self._wan = wan
        self._changing: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        if exchange.path != "/link":
            _refuse(exchange, 404, f"there is no {exchange.path}; use /link")
        elif exchange.method == "GET":
            _answer(exchange, Settings.of(self._wan.link))
        elif exchange.method == "PUT":
            self._put(exchange)
        else:
            _refuse(exchange, 405, f"{exchange.method} is not known here; use GET or PUT")

    def _put(self, exchange: Exchange) -> None:
        try:
            settings = msgspec.json.decode(exchange.body, type=Settings)
        except msgspec.DecodeError as error:
            known = ", ".join(Settings.__struct_fields__)
            _refuse(exchange, 400, f'{error}; send JSON like {{"rtt_ms": 300}}, with any of {known}')
            return
        task = asyncio.create_task(self._change(exchange, settings))
        self._changing.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._changing.discard)

    async def _change(self, exchange: Exchange, settings: Settings) -> None:
        try:
            await self._wan.change(**settings.changes())
        except OSError as error:
            _refuse(exchange, 503, f"cannot listen again: {error.strerror}; free the port and repeat")
        else:
            _answer(exchange, Settings.of(self._wan.link))


def _answer(exchange: Exchange, body: Settings | dict[str, dict[str, str]], status: int = 200) -> None:
    exchange.respond(status, [(b"content-type", b"application/json")], msgspec.json.encode(body))


def _refuse(exchange: Exchange, status: int, message: str) -> None:
    _answer(exchange, _error(message), status)


def _error(message: str) -> dict[str, dict[str, str]]:
    return {"error": {"message": message}}


def _error_body(_status: int, message: str) -> tuple[bytes, bytes]:
    return b"application/json", msgspec.json.encode(_error(message))


def control_server(wan: Wan, clock: Clock) -> Server:
    """The server of the control address; not started yet."""
    return Server(Control(wan).handle, limits=Limits(), clock=clock, error_body=_error_body)


async def serve(wan: Wan, control_port: int | None) -> None:
    """Relay until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, ended.set)
    async with wan:
        control = None if control_port is None else control_server(wan, Clock())
        if control is not None and control_port is not None:
            await control.start(LOCAL, control_port)
        print(wan.url, flush=True)
        await ended.wait()
        if control is not None:
            await control.close(grace_s=0.0)


def parse(words: Sequence[str]) -> tuple[Wan, int | None]:
    """What the command line asks for: a Wan, and the port of its control address."""
    parser = argparse.ArgumentParser(prog="python -m tidegate.lab.wan", description=__doc__)
    parser.add_argument("--listen", type=int, default=0, metavar="PORT", help="0 for any free one")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where the bytes go")
    parser.add_argument("--rtt-ms", type=float, default=0.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0, help="up to this much more, each way")
    parser.add_argument("--rate-mbit", type=float, help="of each direction; unlimited if left out")
    parser.add_argument("--seed", type=int, default=0, help="of the jitter")
    parser.add_argument("--control", type=int, metavar="PORT", help="GET and PUT /link here")
    asked = parser.parse_args(words)
    host, _, port = asked.to.rpartition(":")
    if not host or not port.isdecimal():
        parser.error(f"--to {asked.to} is not HOST:PORT, like {LOCAL}:8000")
    rate = None if asked.rate_mbit is None else asked.rate_mbit * 1e6 / 8
    try:
        link = Link(rtt_s=asked.rtt_ms / 1e3, jitter_s=asked.jitter_ms / 1e3, rate_bytes_per_s=rate)
    except ValueError as error:
        parser.error(str(error))
    return Wan((LOCAL, asked.listen), (host, int(port)), link, seed=asked.seed), asked.control


def main() -> None:
    """The command."""
    uvloop.run(serve(*parse(sys.argv[1:])))


if __name__ == "__main__":
    main()
