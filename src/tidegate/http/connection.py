"""One client's connection: exchanges one after the other, and how long each step may take."""

import asyncio
from math import inf
from typing import TYPE_CHECKING, cast

from tidegate.http.exchange import Exchange
from tidegate.http.head import fields, status_line
from tidegate.http.limits import OWN_TURN_BYTES
from tidegate.http.reader import Awaits, Reader
from tidegate.http.upload import acknowledged_bytes

if TYPE_CHECKING:
    from tidegate.http.server import Server

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A closed socket answers what is written to it with a reset, which the next write finds: in a local network, across
# the world, on a bad link. Go's client gives up at six interim responses.
_PROBES_AFTER_S = (0.02, 0.2, 2.0)
# Looking a member up in its class costs more than the comparison that follows.
_REQUEST, _HEAD, _BODY = Awaits.REQUEST, Awaits.HEAD, Awaits.BODY


class Connection(asyncio.Protocol):
    """Runs one exchange at a time for one client.

    While an exchange runs, reading goes on so that a client that leaves is noticed; what it sends is kept
    unparsed up to `pipelined_bytes_max`, and only beyond that reading stops. After a protocol error nothing
    more is parsed: answers to earlier requests go out, then the refusal, then the connection closes.
    """

    __slots__ = (
        "_advancing",
        "_closing",
        "_deadline_s",
        "_delivering",
        "_exchange",
        "_half_closed",
        "_held",
        "_held_bytes",
        "_kept_bytes",
        "_limits",
        "_reader",
        "_reading_paused",
        "_server",
        "_stall_s",
        "_stalled_bytes",
        "_timed",
        "_write_paused",
        "over_tls",
        "peer",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._limits = server.limits
        self._reader = Reader(self, server.limits, server.clock, server.knows, server.streams)
        self._exchange: Exchange | None = None
        self._held: list[bytes] = []  # what came while the exchange was running
        self._held_bytes = 0
        self._kept_bytes = 0  # of the body of the running exchange, if it is large
        self._reading_paused = False
        self._write_paused = False
        self.over_tls = False
        self._delivering = False  # what is written is all that is still to be done
        self._stall_s = 0.0
        self._stalled_bytes = 0
        self._advancing = False
        self._closing = False  # what still comes in is thrown away
        self._half_closed = False  # the client sends no more
        self._timed: Awaits | None = _REQUEST  # what the deadline is for; None while closing
        self._deadline_s = server.coarse_s + server.limits.head_timeout_s
        self.peer = ""

    @property
    def retiring(self) -> bool:
        """Whether the running exchange is the last one."""
        reader = self._reader
        if self._server.closing or (self._exchange is not None and self._exchange is reader.streaming):
            return True
        return reader.last and not reader.ready and reader.refusal is None

    # ------------------------------------------------------------------ the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, or refuse if there are too many connections."""
        self.transport = cast("asyncio.Transport", transport)
        self.over_tls = transport.get_extra_info("sslcontext") is not None
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        self.transport.set_write_buffer_limits(high=self._limits.write_high_water)
        if self._server.closing:  # a handshake that took until after the end: nobody would look after it
            self._closing = True
            self.transport.abort()
        elif not self._server.admit(self):
            self._refuse(503, "too many connections")
            self.transport.close()
            # Nobody looks after it, and over TLS its end is waited for.
            asyncio.get_running_loop().call_later(self._limits.linger_s, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """Parse, or keep for later while an exchange runs."""
        exchange = self._exchange
        if exchange is not None and exchange is self._reader.streaming:
            self._feed_body(exchange, data)
        elif exchange is not None or self._write_paused:
            self._hold(data)
        elif not self._closing:
            self._reader.feed(data)
            self._advance()

    def eof_received(self) -> bool:
        """The client sends no more. Whether it is gone or only waits for its answers, TCP does not tell.

        Nobody half-closes in the middle of a response. Before one, an interim response finds out: to HTTP/1.1
        clients it means nothing, and from a closed socket it draws a reset.
        """
        exchange = self._exchange
        last = not self._held and not self._reader.ready
        if exchange is None and last:
            self._close()  # nothing is owed
            return False
        halved = exchange is not None and exchange is self._reader.streaming
        gone = exchange is not None and (halved or exchange.started or not exchange.takes_interim)
        if gone or not self.transport.can_write_eof():
            self.transport.abort()
            self._depart()
            return False
        self._half_closed = True
        self._reader.last = self._reader.last or last
        self._probe(_PROBES_AFTER_S)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Tell the running exchange."""
        self._server.forget(self)
        self._reader.close()
        self._depart()

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self._write_paused = True
        self._watch_writing()
        if self._exchange is not None and self._exchange.on_pause is not None:
            self._exchange.on_pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._write_paused = False
        if self._exchange is None:
            self._advance()
        elif self._exchange.on_resume is not None:
            self._exchange.on_resume()

    # ------------------------------------------------------------------ the exchange calls

    def take_body(self, exchange: Exchange) -> None:
        """Somebody takes the body of the running exchange from now on."""
        if exchange.expects:
            exchange.expects = False
            self._reader.take_expectation()
            self.transport.write(_CONTINUE)
        self.resume_body()
        # What came with the head is handed over by another turn of the loop: who takes it has just begun to.
        asyncio.get_running_loop().call_soon(self._hand_over, exchange)

    def pause_body(self) -> None:
        """Whoever takes the body has to catch up."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()
        self._deadline_s = inf  # the silence is ours

    def resume_body(self) -> None:
        """It has."""
        self._read_on()
        if self._exchange is self._reader.streaming:
            self._deadline_s = self._server.coarse_s + self._limits.body_timeout_s

    def let_body_go(self) -> None:
        """Nobody needs the body of the running exchange any more."""
        self._server.kept_bytes -= self._kept_bytes
        self._kept_bytes = 0

    def answered(self, keep_alive: bool) -> None:
        """The response has ended."""
        exchange, self._exchange = self._exchange, None
        if self._kept_bytes:
            self.let_body_go()
        if exchange is not None and exchange is self._reader.streaming:
            self._linger()  # the rest of the body is still to come, and nobody wants it
        elif keep_alive:
            if not self._held:
                self._read_on()  # whoever took the body may have paused with its last piece
            self._advance()
        else:
            self._close()

    def dropped(self) -> None:
        """The response was given up: deliver what is written, then close."""
        self._exchange = None
        self.let_body_go()
        self._close()

    # ------------------------------------------------------------------ the server calls

    def refuse_body(self) -> None:
        """There is no room for what it sends."""
        if self.transport.is_closing():
            # It is gone, which is told only later: there is nobody to refuse.
            self._server.arrived(self)
        else:
            self._refuse(503, "too many large bodies are being sent at once")

    def forgo(self) -> None:
        """It does not come about. Its parser knows it: without the cycle both are gone at once."""
        self._reader.close()

    def check(self, now_s: float) -> None:
        """Enforce the time-outs."""
        if self._write_paused or self._delivering:
            pending = self._untaken_bytes()
            if pending < self._stalled_bytes:
                self._stall_s = now_s
            elif now_s - self._stall_s >= self._limits.write_stall_s:
                self.transport.abort()
                return
            # It may be more, too: of what we have written since, nobody has taken anything yet.
            self._stalled_bytes = pending
        if now_s < self._deadline_s:
            return
        if self._closing and self._exchange is None and self.transport.get_write_buffer_size():
            # Its patience is for what the client still says; of what it is to hear it has not taken all yet.
            self._deadline_s = now_s + self._limits.linger_s
        elif self._timed is _REQUEST and self._exchange is None:
            self._close()
        elif self._timed is None or self._exchange is not None or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._refuse(408, "the request took too long to arrive")

    @property
    def idle(self) -> bool:
        """Whether nothing has begun that is timed, and all that was answered is out. An answer that streams may take
        as long as it likes."""
        exchange = self._exchange
        begun = (exchange is not None and not exchange.started) or self._reader.awaits is not _REQUEST
        return not begun and not self._write_paused and not self.transport.get_write_buffer_size()

    def retire(self) -> None:
        """Close now if nothing has begun."""
        if self._exchange is None and (self._reader.awaits is _REQUEST or self._reader.last) and not self._closing:
            self._close()

    def conclude(self) -> None:
        """Take nothing more in: close when what is running has ended, and now where nothing is."""
        self._reader.last = True
        self._reader.ready.clear()
        self._held.clear()
        self.retire()

    # ------------------------------------------------------------------ taking turns

    def _probe(self, again_after_s: tuple[float, ...]) -> None:
        exchange = self._exchange
        if exchange is None or exchange.started or self.transport.is_closing():
            return
        self.transport.write(_CONTINUE)
        if again_after_s:
            asyncio.get_running_loop().call_later(again_after_s[0], self._probe, again_after_s[1:])

    def _hold(self, data: bytes) -> None:
        if self._reader.last:
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._limits.pipelined_bytes_max and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _release(self) -> bytes:
        data = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        self._read_on()
        return data

    def _read_on(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def _advance(self) -> None:
        """Run what waits, in order, until an exchange stays open or more bytes are needed."""
        if self._advancing:  # an exchange ended within its handler: the loop below goes on
            return
        self._advancing = True
        reader = self._reader
        while self._exchange is None and not self._write_paused and not self._closing:
            if reader.ready:
                self._run(reader.ready.popleft())
            elif reader.refusal is not None:
                self._refuse(*reader.refusal)
            elif self._held:
                reader.feed(self._release())
            elif self._half_closed:
                self._close()
            else:
                self._await(reader.awaits)
                if self._server.dismissing:
                    self.retire()
                break
        self._advancing = False

    def _run(self, exchange: Exchange) -> None:
        self._exchange = exchange
        server = self._server
        if self._timed is _BODY:
            server.arrived(self)
        self._timed = None
        self._deadline_s = inf
        server.requests += 1
        body_bytes = len(exchange.body)
        if body_bytes <= self._limits.stranger_body_bytes_max:
            self._handle(exchange)
        elif not server.keeps(body_bytes):
            content_type, told = server.refuse(503, "too many large requests are under way at once")
            exchange.respond(503, [(b"content-type", content_type), (b"retry-after", b"1")], told)
        else:
            self._kept_bytes = body_bytes
            if body_bytes < OWN_TURN_BYTES:
                self._handle(exchange)
            else:
                # Twice: what is to be called soon comes before all that the loop finds when it looks for more.
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, self._handle, exchange)

    def _handle(self, exchange: Exchange) -> None:
        if exchange is not self._exchange:  # its client has left
            return
        try:
            self._server.handler(exchange)
        except Exception as error:  # whatever it is, one request must not take the others down
            self._failed(exchange, error)
        if exchange is self._reader.streaming and not exchange.received and not exchange.closed:
            self.pause_body()  # until the handler knows whether it wants it

    def _failed(self, exchange: Exchange, error: Exception) -> None:
        server = self._server
        self._reader.last = True
        self._reader.ready.clear()
        if exchange.started:
            exchange.abort()
            self._close()  # also if the response had ended before the handler failed
        else:
            content_type, body = server.error_body(500, "internal error")
            exchange.respond(500, [(b"content-type", content_type)], body)
        server.handler_failed(error)

    def _feed_body(self, exchange: Exchange, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        if reader.streaming is exchange and reader.last:
            self.transport.abort()  # what came is not the rest of a body: whoever takes it hears that its client left
            return
        if not self._reading_paused:
            self._deadline_s = self._server.coarse_s + self._limits.body_timeout_s
        self._hand_over(exchange)

    def _hand_over(self, exchange: Exchange) -> None:
        if exchange is not self._exchange or not exchange.received:
            return
        if self._reader.streaming is not exchange:
            self._deadline_s = inf  # it is here; how long the answer takes is not the client's doing
        try:
            exchange.hand_over()
        except Exception as error:  # as in the handler itself
            self._failed(exchange, error)

    def _await(self, awaits: Awaits) -> None:
        """Set the clock for what the client has to send next, and see that there is room for it."""
        limits, coarse_s, before = self._limits, self._server.coarse_s, self._timed
        self._timed = awaits
        if awaits is _BODY:
            deadline_s = coarse_s + limits.body_timeout_s
            # Asked only where there is time to be had, which most bodies do not need. A stranger has no more of it.
            if before is not _BODY or (deadline_s > self._deadline_s and self._reader.knows_sender()):
                self._deadline_s = deadline_s
            if self._reader.take_expectation():
                self.transport.write(_CONTINUE)
            self._server.arrives(self, self._reader.body_bytes)
        elif awaits is not before:
            # Not renewed by each byte: that is what a slow loris lives on.
            self._deadline_s = coarse_s + (limits.head_timeout_s if awaits is _HEAD else limits.idle_timeout_s)

    # ------------------------------------------------------------------ closing

    def _refuse(self, status: int, message: str) -> None:
        """Say why, then let the client finish talking: closing at once resets, and it may lose the answer."""
        content_type, body = self._server.refuse(status, message)
        head = status_line(status) + fields([(b"content-type", content_type)])
        self.transport.write(b"%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (head, len(body), body))
        self._linger()

    def _linger(self) -> None:
        self._stop(self._limits.linger_s)
        self._delivering = True
        self._watch_writing()
        self._read_on()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        """Deliver what is written and close; a client that does not read is cut off later."""
        self._stop(inf)
        self._delivering = True
        self._watch_writing()
        if not self.transport.is_closing():  # one of asyncio's over TLS that is closed twice tells nothing any more
            self.transport.close()

    def _watch_writing(self) -> None:
        self._stall_s = self._server.coarse_s
        self._stalled_bytes = self._untaken_bytes()

    def _untaken_bytes(self) -> int:
        """What becomes less as what is written is taken: the bytes that wait here. TLS hands on at once what it is
        given, and says that it holds nothing: of that it is what was acknowledged, counted down."""
        try:
            if self.over_tls:
                done = acknowledged_bytes(self.transport, closing=True)
                if done is not None:
                    return -done
            return self.transport.get_write_buffer_size()
        except AttributeError:  # one of asyncio's over TLS that the loop has closed, too
            return 0

    def _stop(self, patience_s: float) -> None:
        self._forget_waiting()
        self._server.arrived(self)
        self._timed = None
        self._deadline_s = self._server.coarse_s + patience_s

    def _depart(self) -> None:
        self._forget_waiting()
        self.let_body_go()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.leave()

    def _forget_waiting(self) -> None:
        self._closing = True
        self._reader.forget()
        self._held.clear()
