"""An HTTP/1.1 client: a pool of kept-alive connections to one origin.

A request on an open connection costs no task and no timer; only a new connection takes a task.
"""

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from math import inf
from typing import Final

from tidegate.clock import Clock
from tidegate.http.call import Call, Receiver
from tidegate.http.errors import Cause, TransportError
from tidegate.http.head import Headers, content_length, fields, request_line
from tidegate.http.lanes import Lanes
from tidegate.http.link import Link
from tidegate.http.secured import Resumption, Secured
from tidegate.http.upload import Told, Upload

_SPENT: Final = frozenset({errno.EMFILE, errno.ENFILE})
# A connection that was closed while a request was on its way tells within a round trip; with the time of a busy loop.
STALE_S: Final = 0.5

__all__ = ["Call", "Cause", "Origin", "Pool", "PoolStatistics", "Receiver", "TransportError", "fetch"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream listens, and how to know that it is the one.

    With `tls`, the certificate is checked against `server_name`, by default the host.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @property
    def authority(self) -> bytes:
        """The value of the host header."""
        host = self.host.encode("ascii" if self.host.isascii() else "idna")
        if ":" in self.host:
            host = b"[%b]" % host
        usual = self.port == (80 if self.tls is None else 443)
        return host if usual else b"%b:%d" % (host, self.port)

    @property
    def url(self) -> str:
        """For people: where that is, and how it is spoken to."""
        return f"{'http' if self.tls is None else 'https'}://{self.authority.decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a pool holds and has done."""

    open: int  # connections, with those that are being made
    idle: int
    waiting: int
    connects: int
    requests: int
    reused: int  # requests that needed no new connection


class Pool:
    """Connections to one origin, the most recently used first, so that the others can age out."""

    def __init__(
        self,
        origin: Origin,
        *,
        clock: Clock,
        connections_max: int = 1024,  # an engine runs a few hundred sequences; vendors allow some more
        idle_max: int = 256,  # enough to carry a burst over to the next without connecting again
        idle_timeout_s: float = 4.0,  # below the 5 s after which vLLM (uvicorn) and llama.cpp hang up
        connect_timeout_s: float = 5.0,  # a lost SYN is repeated after 1 s and 3 s
        waiting_max: int = 1024,  # as many again as can run: beyond that waiting has no end
        header_bytes_max: int = 64 * 1024,  # vendors send 4 KiB
        sweep_s: float = 0.25,  # how late a time-out may fire; a pass over 500 streams costs 50 us
        lanes: Lanes | None = None,  # those of the loop
    ) -> None:
        self.header_bytes_max = header_bytes_max
        self.origin = origin
        self.lanes = lanes
        self._host = b"host: %b\r\n" % origin.authority
        self._is_address = _is_address(origin.host)
        self._clock = clock
        self._now_s = clock.now_s()  # when it was last read: at most one sweep ago while anything is open
        self._connections_max = connections_max
        self._idle_max = idle_max
        self._idle_timeout_s = idle_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._waiting_max = waiting_max
        self._sweep_s = sweep_s
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._waiting: deque[Call] = deque()
        self._connecting: dict[asyncio.Task[None], Call] = {}
        self._resumption = Resumption(clock)
        self._silent: set[str] = set()  # addresses of the name that swallowed what was sent to them
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._connects = self._requests = self._reused = 0

    def send(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes,
        receiver: Receiver,
        *,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
        lines: bytes = b"",
        uploaded: Told | None = None,
    ) -> Call:
        """Send a request; `receiver` is told what comes back.

        first_byte_timeout_s  from now to the head of the response, whatever it waits for
        idle_timeout_s        silence within the body
        lines                 more header lines, each with its line end, sent as they are: what differs each time

        uploaded              is told how long its bytes took, once at most and before the response; see `upload`

        Raises `ValueError` for a header or target that cannot be sent; other failures go to `receiver`.
        """
        length = content_length(len(body)) if body or method == b"POST" else b""
        head = b"".join([request_line(method, target), self._host, fields(headers), lines, length, b"\r\n"])
        now_s = self._now_s = self._clock.now_s()
        call = Call(self, head, body, receiver, now_s + first_byte_timeout_s, idle_timeout_s)
        if uploaded is not None:
            call.upload = Upload(self._clock, uploaded)
        self._requests += 1
        link = self._take()
        if link is not None:
            self._reused += 1
            link.carry(call, self._now_s)
        elif self._has_room():
            self._connect(call)
        elif len(self._waiting) < self._waiting_max and not self._closed:
            self._waiting.append(call)
        else:
            why = "the pool is closed" if self._closed else "too many requests wait for a connection"
            error = TransportError(Cause.POOL_FULL, why)
            asyncio.get_running_loop().call_soon(call.fail, error)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)
        return call

    @property
    def busy(self) -> bool:
        """Whether any call is under way or waits for a connection."""
        return bool(self._waiting or self._connecting or len(self._links) > len(self._idle))

    def keeps_waiting(self, call: Call) -> bool:
        """Whether no connection is free to carry this call, nor may another be made."""
        return call in self._waiting

    def statistics(self) -> PoolStatistics:
        """Counts since the start."""
        return PoolStatistics(
            open=len(self._links) + len(self._connecting),
            idle=len(self._idle),
            waiting=len(self._waiting),
            connects=self._connects,
            requests=self._requests,
            reused=self._reused,
        )

    async def close(self) -> None:
        """Close every connection; calls under way fail with `reset`."""
        if self._timer is not None:
            self._timer.cancel()
        self._closed = True
        calls = [*self._waiting, *self._connecting.values()]
        self._waiting.clear()
        tasks = list(self._connecting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in list(self._links):
            link.fail(Cause.RESET, "the pool is closed")
        for call in calls:
            call.fail(TransportError(Cause.RESET, "the pool is closed"))

    # ------------------------------------------------------------------ calls and links call

    def cancel(self, call: Call) -> None:
        """For a call that nobody wants any more. A connection that is being made for it stays, for others."""
        link, call.link = call.link, None
        if link is not None:
            link.drop()
            self.discard(link)
        elif call in self._waiting:
            self._waiting.remove(call)

    def release(self, link: Link, usable: bool) -> None:
        """For a link whose call has ended."""
        if not usable or link not in self._links:
            # Nothing is left to be delivered: the rest of a request that was answered early would be read by nobody.
            link.transport.abort()
            self.discard(link)
        elif link.has_more:
            # That was asked for by nobody, who waits neither. It may be a farewell, which is answered.
            link.transport.close()
            self.discard(link)
        elif self._waiting:
            self._reused += 1
            link.carry(self._waiting.popleft(), self._now_s)
        elif len(self._idle) < self._idle_max:
            link.idle_since_s = self._now_s
            link.reused = True
            self._idle.append(link)
        else:
            link.transport.close()
            self.discard(link)

    def discard(self, link: Link) -> None:
        """For a link that carries nothing any more: its place goes to who waits."""
        self._links.discard(link)
        if link in self._idle:
            self._idle.remove(link)
        while self._waiting and self._has_room():
            self._connect(self._waiting.popleft())

    def is_just_now(self, sent_s: float) -> bool:
        """For a link: whether what was sent then may have met a connection that was being closed."""
        return self._clock.now_s() - sent_s < STALE_S

    def retry(self, call: Call) -> None:
        """For a kept connection that was dead already: once more, on a new one."""
        # Whoever had closed that has read nothing.
        call.retried, call.sent = True, False
        if self._closed:
            call.fail(TransportError(Cause.RESET, "the pool is closed"))
        else:
            self._connect(call)

    # ------------------------------------------------------------------ inside

    def _has_room(self) -> bool:
        return len(self._links) + len(self._connecting) < self._connections_max and not self._closed

    def _take(self) -> Link | None:
        while self._idle:
            link = self._idle.pop()
            if not link.transport.is_closing():
                return link
            self._links.discard(link)
        return None

    def _connect(self, call: Call) -> None:
        self._connects += 1
        task = asyncio.get_running_loop().create_task(self._open(call))
        self._connecting[task] = call
        task.add_done_callback(self._connected)

    async def _open(self, call: Call) -> None:
        """Make a connection for `call`; if that has been cancelled meanwhile, for whoever is next."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                link = await self._link()
        except (OSError, UnicodeError) as error:
            call.fail(TransportError(_cause_of(error), str(error) or type(error).__name__))
            return
        if link.lost:
            call.fail(TransportError(Cause.RESET, "closed as soon as it was open"))
            return
        self._links.add(link)
        if call.receiver is None:
            self.release(link, usable=True)
        else:
            link.carry(call, self._now_s)

    async def _link(self) -> Link:
        """A connection to the first of its addresses that takes one."""
        until_s = self._clock.now_s() + self._connect_timeout_s
        hosts, refused = await self._addresses(), OSError("a name without addresses")
        try:
            for n, host in enumerate(hosts, 1):
                # Who swallows what is sent takes half of the time that is left, which is enough for a bad link, and not
                # that of the others. The last has all that is left.
                patience_s = (until_s - self._clock.now_s()) / 2 if n < len(hosts) else None
                try:
                    async with asyncio.timeout(patience_s):
                        link = await self._reach(host)
                except ssl.SSLError:
                    raise
                except OSError as error:
                    if isinstance(error, TimeoutError):
                        self._silent.add(host)
                    refused = error
                else:
                    self._silent.discard(host)
                    return link
            raise refused
        finally:
            del refused  # it knows this frame

    async def _addresses(self) -> list[str]:
        """Those of its name, in the order in which they are tried: who was silent is asked last, as long as the name
        has it."""
        origin = self.origin
        if self._is_address:
            return [origin.host]
        # Not by `create_connection`: a look-up that outlives its time-out fails there with nobody to hear of it,
        # which uvloop then complains of. But it keeps the interface by which a link-local address is reached.
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        if any(len(address) == 4 and address[3] for *_, address in found):
            return [origin.host]
        hosts = [str(address[0]) for *_, address in found]
        self._silent.intersection_update(hosts)
        hosts.sort(key=self._silent.__contains__)
        return hosts

    async def _reach(self, host: str) -> Link:
        """A connection to that address, ready to carry a call."""
        origin = self.origin
        if origin.tls is not None:
            return await self._secured(origin.tls, host)
        make = partial(Link, self)
        _, link = await asyncio.get_running_loop().create_connection(make, host, origin.port)
        return link

    async def _secured(self, context: ssl.SSLContext, host: str) -> Link:
        """The same over TLS, once the other side has shown who it is."""
        link = await self._greeted(context, host, resumes=True)
        if link is None:
            link = await self._greeted(context, host, resumes=False)
        assert link is not None, "what was not offered is not in the way"
        return link

    async def _greeted(self, context: ssl.SSLContext, host: str, *, resumes: bool) -> Link | None:
        """None where the other side may not get over an old session, which nobody is offered any more."""
        origin, resumption = self.origin, self._resumption
        name = origin.server_name or origin.host
        make = partial(Secured, partial(Link, self), context, name, resumption, resumes)
        _, secured = await asyncio.get_running_loop().create_connection(make, host, origin.port)
        offered = secured.offered
        try:
            await secured.opened
            link = secured.above
        except (ssl.SSLError, ConnectionError):
            secured.abort()
            if offered is None:
                raise
            resumption.forget(offered)
            return None
        except BaseException:
            # It was silent until the time-out, for which the session may be the reason, too.
            secured.abort()
            resumption.forget(offered)
            raise
        finally:
            del secured  # an error knows this frame
        if link is None:
            raise ConnectionResetError("closed as soon as it was open")
        return link

    def _connected(self, task: asyncio.Task[None]) -> None:
        del self._connecting[task]
        while self._waiting and self._has_room():
            self._connect(self._waiting.popleft())

    def _sweep(self) -> None:
        """Enforce every time-out, and let idle connections go before the upstream closes them."""
        try:
            self._enforce()
        finally:  # whatever a receiver makes of what it is told: others have time-outs, too
            busy = self._links or self._connecting or self._waiting
            self._timer = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep) if busy else None

    def _enforce(self) -> None:
        now_s = self._now_s = self._clock.now_s()
        for link in list(self._links):
            link.check(now_s)
        for call in list(self._connecting.values()):
            if now_s >= call.deadline_s:
                call.fail(TransportError(Cause.CONNECT_TIMEOUT, "no connection in time"))
        for call in [call for call in self._waiting if now_s >= call.deadline_s]:
            self._waiting.remove(call)
            call.fail(TransportError(Cause.POOL_FULL, "no connection became free in time"))
        while self._idle and now_s - self._idle[0].idle_since_s >= self._idle_timeout_s:
            link = self._idle.pop(0)
            self._links.discard(link)
            link.transport.close()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _cause_of(error: Exception) -> Cause:
    match error:
        case ssl.SSLError():
            return Cause.TLS
        case TimeoutError():
            return Cause.CONNECT_TIMEOUT
        case ConnectionResetError() | ConnectionAbortedError():
            return Cause.RESET
        case ConnectionRefusedError():
            return Cause.REFUSED
        case OSError() if error.errno in _SPENT or not _has_descriptor():
            return Cause.NO_DESCRIPTOR
        case socket.gaierror() | UnicodeError():
            return Cause.DNS
        case _:
            return Cause.REFUSED


def _has_descriptor() -> bool:
    """Whether a socket can be had: a resolver that gets none tells anything but that."""
    try:
        socket.socket().close()
    except OSError:
        return False
    return True


class _Fetch:
    """Collects a whole response."""

    def __init__(self, body_bytes_max: int, on_head: Callable[[int], None] | None) -> None:
        self.answer: asyncio.Future[tuple[int, dict[bytes, bytes], bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._room = body_bytes_max
        self._headed = on_head

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        if self._headed is not None:
            self._headed(status)
        self._status, self._headers = status, headers

    def on_data(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room >= 0:
            self._body.append(data)
        elif not self.answer.done():
            error = TransportError(Cause.TOO_LARGE, "the body is too large", sent_bytes=True)
            self.answer.set_exception(error)

    def on_end(self) -> None:
        if not self.answer.done():
            self.answer.set_result((self._status, self._headers, b"".join(self._body)))

    def on_error(self, error: TransportError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


async def fetch(
    pool: Pool,
    method: bytes,
    target: bytes,
    headers: Headers,
    body: bytes,
    timeout_s: float,
    body_bytes_max: int,
    on_head: Callable[[int], None] | None = None,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request and collect its response: for probes, not for traffic.

    `on_head` is called with the status when its head is here. Raises `TransportError`; its cause is `idle_timeout` if
    the whole takes longer than `timeout_s`, `connect_timeout` if no connection came about by then, and `pool_full` if
    none was free.
    """
    receiver = _Fetch(body_bytes_max, on_head)
    # Its own time is the only one, so that it knows what was waited for.
    call = pool.send(method, target, headers, body, receiver, first_byte_timeout_s=inf, idle_timeout_s=inf)
    try:
        async with asyncio.timeout(timeout_s):
            return await receiver.answer
    except TimeoutError:
        if pool.keeps_waiting(call):
            raise TransportError(Cause.POOL_FULL, "no connection became free in time") from None
        if not call.sent:
            raise TransportError(Cause.CONNECT_TIMEOUT, "no connection in time") from None
        raise TransportError(Cause.IDLE_TIMEOUT, "the response took too long", sent_bytes=True) from None
    finally:
        call.cancel()
