"""Both ends of a connection, for the tests: real sockets on the loopback, nothing imitated."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

from tidegate.clock import Clock
from tidegate.http.client import Call, Origin, Pool, TransportError
from tidegate.http.server import Exchange, Limits, Server

HOST = "127.0.0.1"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT = [(b"content-type", b"text/plain")]


class SetClock(Clock):
    """A clock that a test moves."""

    __slots__ = ("at_s",)

    def __init__(self) -> None:
        super().__init__()
        self.at_s = 1000.0

    def now_s(self) -> float:
        return self.at_s


def error_body(status: int, message: str) -> tuple[bytes, bytes]:
    return b"text/plain", f"{status} {message}".encode()


def echo(exchange: Exchange) -> None:
    exchange.respond(200, TEXT, exchange.body)


@asynccontextmanager
async def serving(
    handler: Callable[[Exchange], None] = echo,
    *,
    clock: Clock | None = None,
    tls: Any = None,
    knows: Callable[[Mapping[bytes, bytes]], bool] = lambda _: True,
    streams: Callable[[bytes, bytes], bool] | None = None,
    **limits: Any,
) -> AsyncIterator[Server]:
    server = Server(
        handler,
        limits=Limits(**{"sweep_s": 0.01, **limits}),
        clock=clock or Clock(),
        error_body=error_body,
        knows=knows,
        streams=streams,
    )
    await server.start(HOST, 0, tls)
    try:
        yield server
    finally:
        await server.close(grace_s=0.0)


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@dataclass
class Response:
    status: int
    headers: dict[bytes, bytes]
    body: bytes
    chunks: list[bytes] = field(default_factory=list)


async def read_response(reader: asyncio.StreamReader, *, head_only: bool = False) -> Response:
    """One response, by its own framing. Raises `IncompleteReadError` if it is cut."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
    response = Response(int(lines[0].split(b" ")[1]), headers, b"")
    if head_only or response.status in (100, 204, 304):
        return response
    if headers.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            response.chunks.append((await reader.readexactly(size + 2))[:-2])
        assert await reader.readexactly(2) == b"\r\n"
        response.body = b"".join(response.chunks)
    elif b"content-length" in headers:
        response.body = await reader.readexactly(int(headers[b"content-length"]))
    else:
        response.body = await reader.read()
    return response


async def eventually(true: Callable[[], bool]) -> None:
    """Returns when it has become true; each turn of the loop lets the other side go on."""
    while not true():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


async def swept(to: Pool, clock: SetClock, seconds: float) -> None:
    """So much time passes, and the pool looks at all that it has open."""
    clock.at_s += seconds
    await eventually(lambda: to._now_s >= clock.at_s)


async def talk(port: int, raw: bytes) -> bytes:
    """Everything that the server says to these bytes until it closes."""
    async with client(port) as (reader, writer):
        writer.write(raw)
        return await reader.read()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A server that follows a script on each connection, and closes it after that."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.port = 0
        self.tasks: list[asyncio.Future[None]] = []

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: the one that asyncio.start_server makes complains when it is cancelled.
        self.connections += 1
        self.tasks.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                await self._script(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()


@asynccontextmanager
async def upstream(
    script: Script, tls: Any = None, *, host: str = HOST, port: int = 0, kernel_takes_bytes: int = 0
) -> AsyncIterator[Upstream]:
    """Its kernel takes as much of what nobody has read as it likes, or so much."""
    up = Upstream(script)
    server = await asyncio.start_server(up.accept, host, port, ssl=tls)
    if kernel_takes_bytes:
        for listening in server.sockets:  # those that it accepts have it from here
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_takes_bytes)
    up.port = server.sockets[0].getsockname()[1]
    try:
        yield up
    finally:
        server.close()
        for task in up.tasks:
            task.cancel()
        await asyncio.gather(*up.tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request with a content-length or none."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length: "):
            return head + await reader.readexactly(int(line[16:]))
    return head


def answering(*replies: bytes) -> Script:
    """Answers the requests of each connection with these, in order, then closes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await read_request(reader)
            writer.write(reply)
            await writer.drain()
        writer.close()

    return script


def always(reply: bytes) -> Script:
    """Answers every request with this."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(reply)
            await writer.drain()

    return script


@contextmanager
def descriptors_used_up() -> Iterator[None]:
    """This process may open nothing more, and keeps what it has."""
    limits = getrlimit(RLIMIT_NOFILE)
    # Only the standard streams are below it: whatever else is closed meanwhile makes no room.
    setrlimit(RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        setrlimit(RLIMIT_NOFILE, limits)


@contextmanager
def uncollected() -> Iterator[None]:
    """What goes meanwhile goes by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Recorder:
    """A receiver that remembers, and lets a test wait for what it is told."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.error: TransportError | None = None
        self.calls: list[str] = []
        self.headed: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.got_data = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.calls.append("head")
        self.status, self.headers = status, headers
        self.headed.set_result(None)

    def on_data(self, data: bytes) -> None:
        self.calls.append("data")
        self.pieces.append(data)
        self.got_data.set()

    def on_end(self) -> None:
        self.calls.append("end")
        self.ended.set_result(None)

    def on_error(self, error: TransportError) -> None:
        self.calls.append("error")
        self.error = error
        self.ended.set_result(None)


@asynccontextmanager
async def pool(port: int, *, clock: Clock | None = None, host: str = HOST, **options: Any) -> AsyncIterator[Pool]:
    tls = options.pop("tls", None)
    name = options.pop("server_name", None)
    made = Pool(Origin(host, port, tls, name), clock=clock or Clock(), **{"sweep_s": 0.01, **options})
    try:
        yield made
    finally:
        await made.close()


def post(
    to: Pool, receiver: Recorder, body: bytes = b"", *, first_byte_timeout_s: float = 5.0, idle_timeout_s: float = 5.0
) -> Call:
    return to.send(
        b"POST",
        b"/x",
        TEXT,
        body,
        receiver,
        first_byte_timeout_s=first_byte_timeout_s,
        idle_timeout_s=idle_timeout_s,
    )


async def ask(to: Pool, body: bytes = b"") -> Recorder:
    """A request and its whole response."""
    receiver = Recorder()
    post(to, receiver, body)
    await receiver.ended
    return receiver
