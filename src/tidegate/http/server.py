"""An HTTP/1.1 server that calls a handler with complete requests.

Everything is driven by protocol callbacks: no task per request, and one timer for all time-outs.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from tidegate.clock import Clock
from tidegate.http.connection import Connection
from tidegate.http.exchange import Exchange
from tidegate.http.limits import Limits

__all__ = ["Exchange", "Limits", "Server", "Statistics", "check_free"]

_BACKLOG = 1024  # a burst of new clients within one turn of the loop
_SHUTDOWN_S_MAX = 24 * 3600.0
# A last word takes a way to the client, round the world on a bad link; who does not read it takes for ever.
_LAST_WORD_S = 1.0
# Over TLS, who finds no room has to shake hands to be told so. Where there is none, so many at a time may.
_TOLD_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a server has seen so far."""

    open: int
    accepted: int
    requests: int
    refused: int  # connections beyond `connections_max`
    protocol_errors: Mapping[int, int]  # by status
    handler_errors: int


class Server:
    """Listens on one port.

    handler     called with each request, on the event loop; it answers now or later
    error_body  (status, message) -> (content-type, body) of the server's own refusals
    knows       whether the client with these header fields may send a body of more than `stranger_body_bytes_max`, or
                for longer than `body_timeout_s`; asked before such a body is read, and while one comes slowly
    streams     whether the body of a request with this method and target is handed over as it comes, whatever its size:
                the handler is called with the head, and takes the body by `Exchange.receive` or answers without; None
                where no body is
    on_error    told of an exception that escaped the handler, instead of the event loop's exception handler
    """

    # Connections read it several times a request, and slots are found without a search.
    __slots__ = (
        "_emptied",
        "_listener",
        "_on_error",
        "_shaking",
        "_sweeping",
        "_turned_away",
        "accepted",
        "arriving",
        "arriving_bytes",
        "clock",
        "closing",
        "coarse_s",
        "connections",
        "dismissing",
        "error_body",
        "handler",
        "handler_errors",
        "kept_bytes",
        "knows",
        "limits",
        "protocol_errors",
        "refused",
        "requests",
        "streams",
    )

    def __init__(
        self,
        handler: Callable[[Exchange], None],
        *,
        limits: Limits,
        clock: Clock,
        error_body: Callable[[int, str], tuple[bytes, bytes]],
        knows: Callable[[Mapping[bytes, bytes]], bool] = lambda _: True,
        streams: Callable[[bytes, bytes], bool] | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.clock = clock
        self.error_body = error_body
        self.knows = knows
        self.streams = streams
        # Read once a sweep: deadlines need no better. Connections that wait are no reason not to put the clock forward,
        # and none to be closed when it is.
        self.coarse_s = clock.steady_s()
        self.closing = False
        self.dismissing = False  # who has nothing under way is let go
        self.connections: set[Connection] = set()
        self.arriving: dict[Connection, int] = {}  # bytes of large bodies that are coming, in the order they began
        self.arriving_bytes = 0  # their sum
        self.kept_bytes = 0  # of large bodies whose requests are under way and still need them
        self.accepted = self.requests = self.refused = self.handler_errors = 0
        self.protocol_errors: dict[int, int] = {}
        self._on_error = on_error
        self._listener: asyncio.Server | None = None
        self._shaking: dict[asyncio.Task[None], socket.socket] = {}  # the handshakes under way
        self._turned_away: set[Connection] = set()  # who was refused, and is not gone yet
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on, chosen by the system if it was started with 0."""
        assert self._listener is not None, "not started"
        return int(self._listener.sockets[0].getsockname()[1])

    async def start(self, host: str, port: int, ssl: ssl.SSLContext | None = None) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(self) if ssl is None else _Arrival(self, ssl), host, port, backlog=_BACKLOG
            )
        except socket.gaierror as error:
            raise _unnamed(host, port, error) from None
        self._sweep()

    async def close(self, grace_s: float, idle_s: float = 0.0, last_word: Callable[[], None] | None = None) -> None:
        """Accept nothing new, let what has begun finish for up to `grace_s`, then drop the rest.

        A connection on which nothing has begun is closed after `idle_s`: its client may be about to ask, and what it
        asks is answered, with the word that this was the last. `last_word` ends what has not finished in time, and what
        it writes has a second to go out.
        """
        assert self._listener is not None, "not started"
        self.closing = True
        self._listener.close()
        for handshake in self._shaking:
            handshake.cancel()
        idle_s = min(idle_s, grace_s)
        if idle_s:
            await self._wait_until_empty(idle_s)
        self.dismissing = True
        for connection in list(self.connections):
            connection.retire()
        await self._wait_until_empty(grace_s - idle_s)
        if last_word is not None and self.connections:
            for connection in list(self.connections):
                connection.conclude()
            last_word()
            await self._wait_until_empty(_LAST_WORD_S)
        for connection in list(self.connections):
            connection.transport.abort()
        await self._wait_until_empty(grace_s=None)
        await asyncio.gather(*self._shaking, return_exceptions=True)
        if self._sweeping is not None:
            self._sweeping.cancel()

    @property
    def idle(self) -> bool:
        """Whether no connection has anything under way that is timed."""
        return all(connection.idle for connection in self.connections)

    def statistics(self) -> Statistics:
        """Counts since the start."""
        return Statistics(
            open=len(self.connections),
            accepted=self.accepted,
            requests=self.requests,
            refused=self.refused,
            protocol_errors=dict(self.protocol_errors),
            handler_errors=self.handler_errors,
        )

    def greet(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        """For a client that has connected: have it shake hands, if there is room for it. `transport` is left alone."""
        if self.closing:
            return
        others = len(self._shaking) + len(self._turned_away)
        if others >= max(self.limits.connections_max - len(self.connections), _TOLD_MAX):
            self.refused += 1
            return
        here = transport.get_extra_info("socket")
        try:
            peer = socket.fromfd(here.fileno(), here.family, here.type)
        except OSError:  # no descriptor is left, and it is cut off as all are then
            return
        peer.setblocking(False)
        handshake = asyncio.get_running_loop().create_task(self._shake_hands(peer, tls))
        self._shaking[handshake] = peer
        handshake.add_done_callback(self._shaken)

    def admit(self, connection: Connection) -> bool:
        """For a new connection: whether there is room for it."""
        if len(self.connections) >= self.limits.connections_max:
            self.refused += 1
            self._turned_away.add(connection)
            return False
        self.accepted += 1
        self.connections.add(connection)
        return True

    def arrives(self, connection: Connection, body_bytes: int) -> None:
        """For a connection: so much of a body has come, and not yet all. Where there is no room for all that are large,
        whose has been coming for longest is refused."""
        if body_bytes <= self.limits.stranger_body_bytes_max:
            return
        self.arriving_bytes += body_bytes - self.arriving.get(connection, 0)
        self.arriving[connection] = body_bytes
        most = max(self.limits.arriving_bytes_max, self.limits.body_bytes_max)
        while self.arriving_bytes > most:
            next(iter(self.arriving)).refuse_body()

    def arrived(self, connection: Connection) -> None:
        """For a connection: its body has come, or is not waited for any more."""
        self.arriving_bytes -= self.arriving.pop(connection, 0)

    def keeps(self, body_bytes: int) -> bool:
        """For a connection: whether there is room for a large body whose request is under way; it is counted then."""
        kept_bytes = self.kept_bytes + body_bytes
        if kept_bytes > max(self.limits.kept_bytes_max, self.limits.body_bytes_max):
            return False
        self.kept_bytes = kept_bytes
        return True

    def forget(self, connection: Connection) -> None:
        """For a lost connection."""
        self.connections.discard(connection)
        self.arrived(connection)
        self._turned_away.discard(connection)
        if self._emptied is not None and not self.connections and not self._emptied.done():
            self._emptied.set_result(None)

    def refuse(self, status: int, message: str) -> tuple[bytes, bytes]:
        """For a connection: count a protocol error and word it."""
        self.protocol_errors[status] = self.protocol_errors.get(status, 0) + 1
        return self.error_body(status, message)

    def handler_failed(self, error: Exception) -> None:
        """For a connection: an exception escaped the handler."""
        self.handler_errors += 1
        if self._on_error is not None:
            self._on_error(error)
        else:
            context = {"message": "the HTTP handler failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _shake_hands(self, peer: socket.socket, tls: ssl.SSLContext) -> None:
        connection = Connection(self)
        try:
            with suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    peer,
                    ssl=tls,
                    ssl_handshake_timeout=self.limits.head_timeout_s,
                    # Who takes nothing is cut off by us: what is being delivered may take as long as it moves.
                    ssl_shutdown_timeout=_SHUTDOWN_S_MAX,
                )
        finally:
            if not connection.over_tls:
                connection.forgo()

    def _shaken(self, handshake: asyncio.Task[None]) -> None:
        peer = self._shaking.pop(handshake)
        if handshake.cancelled():
            peer.close()  # it may be that no transport has got it yet

    def _sweep(self) -> None:
        """Enforce every time-out: one timer a server costs less than one a request."""
        now_s = self.coarse_s = self.clock.steady_s()
        for connection in list(self.connections):
            connection.check(now_s)
        self._sweeping = asyncio.get_running_loop().call_later(self.limits.sweep_s, self._sweep)

    async def _wait_until_empty(self, grace_s: float | None) -> None:
        if self.connections:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=grace_s)


class _Arrival(asyncio.Protocol):
    """A client that has connected and is to shake hands.

    Of a handshake that fails the loop tells nobody but who has handed it the socket. So that is taken from the
    listener's transport before anything is read.
    """

    def __init__(self, server: Server, tls: ssl.SSLContext) -> None:
        self._server = server
        self._tls = tls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it up."""
        made = cast("asyncio.Transport", transport)
        self._server.greet(made, self._tls)
        made.abort()


async def check_free(host: str, port: int) -> None:
    """Raises `OSError` where a server could not have this address now: another one listens there, say."""
    loop = asyncio.get_running_loop()
    try:
        # It is taken as a server would take it, and let go without listening.
        (await loop.create_server(asyncio.Protocol, host, port, start_serving=False)).close()
    except socket.gaierror as error:
        raise _unnamed(host, port, error) from None


def _unnamed(host: str, port: int, error: socket.gaierror) -> OSError:
    """Alone of all errors, that does not say which address it means."""
    return OSError(f"{host}:{port}: {error.strerror}")
