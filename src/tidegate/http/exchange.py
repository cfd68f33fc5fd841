"""One request and its response, as the layer above sees them."""

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from tidegate.http.head import Headers, content_length, fields, status_line

if TYPE_CHECKING:
    from tidegate.http.connection import Connection

_COPY_BYTES_MAX = 16 * 1024  # below it one joined write is cheaper than a vector of two
# Nearly all chunks are of some hundred bytes, and to write their size takes longer than to look it up.
_SMALL: Final = 1024
_CHUNK_HEADS: Final = [b"%x\r\n" % size for size in range(_SMALL)]
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds


class Phase(Enum):
    """How far the response has come."""

    WAITING = auto()
    CHUNKED = auto()
    DELIMITED_BY_CLOSE = auto()  # streaming to an HTTP/1.0 client
    WITHOUT_BODY = auto()  # streaming in answer to HEAD, or with a status that has no body
    ENDED = auto()
    LEFT = auto()  # the client is gone or was dropped: every method does nothing


# Looking a member up in its class costs more than the comparison that follows.
_WAITING, _CHUNKED, _DELIMITED, _WITHOUT_BODY = (
    Phase.WAITING,
    Phase.CHUNKED,
    Phase.DELIMITED_BY_CLOSE,
    Phase.WITHOUT_BODY,
)
_ENDED, _LEFT = Phase.ENDED, Phase.LEFT


class Exchange:
    """One request, complete with its body, and the means to answer it.

    Answer with `respond`, or with `start`, any number of `write` and `end`. Once the client has left,
    these do nothing: an answer in flight needs no special case. Answering twice is a programmer's error.

    Where the server streams such requests, it is complete but for its body: nothing of that is read before `receive`.

    A client that closes its side of the connection before the response has begun is asked whether it is still
    there, and answered if it is; one that does so in the middle of a response counts as gone, as do HTTP/1.0 and
    TLS clients, who cannot be asked: an engine must not work for nobody.

    method       "POST"; known to llhttp, never CONNECT
    path, query  as sent, not decoded; ASCII; an absolute target is reduced to its path
    headers      names in lower case; repeated fields joined by ", "
    body         at most `Limits.body_bytes_max` bytes
    peer         address of the other end of the connection
    received_s   clock when the request was complete
    started      the head of the response is out, so that its status can no longer change
    closed       the response has ended, or nobody is left to read it
    on_left      called once if the client leaves before the response has ended
    on_pause     the client reads slower than the response is written: stop the source; set it before writing
    on_resume    the client has caught up
    expects      the client waits for a word before it sends the body
    """

    __slots__ = (
        "_complete",
        "_connection",
        "_http11",
        "_keep_alive",
        "_on_data",
        "_on_end",
        "_phase",
        "_pieces",
        "_transport",
        "body",
        "closed",
        "expects",
        "headers",
        "method",
        "on_left",
        "on_pause",
        "on_resume",
        "path",
        "peer",
        "query",
        "received_s",
        "started",
    )

    on_left: Callable[[], None] | None
    on_pause: Callable[[], None] | None
    on_resume: Callable[[], None] | None

    def __init__(
        self,
        connection: "Connection",
        method: str,
        path: str,
        query: str,
        headers: dict[bytes, bytes],
        body: bytes,
        received_s: float,
        http11: bool,
    ) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._http11 = http11
        self._keep_alive = True
        self._phase = _WAITING
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.peer = connection.peer
        self.received_s = received_s
        self.started = self.closed = False
        self.expects = False
        self.on_left = self.on_pause = self.on_resume = None
        self._on_data: Callable[[bytes], None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._pieces: list[bytes] | None = None  # of a body that is handed over as it comes
        self._complete = False

    @property
    def peer_names(self) -> tuple[str, ...]:
        """The DNS names in the certificate that the client has shown; none without one."""
        shown = self._transport.get_extra_info("peercert") or {}
        return tuple(name for kind, name in shown.get("subjectAltName", ()) if kind == "DNS")

    @property
    def takes_interim(self) -> bool:
        """Whether the client may be sent an interim response: HTTP/1.0 has none."""
        return self._http11

    def receive(self, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Have the body of a streamed request handed over as it comes; a client that waits for it is told to go on.

        Before `on_end` the client may be answered all the same; the connection then ends with the answer.
        """
        if self._phase is _LEFT:
            return
        self._on_data, self._on_end = on_data, on_end
        self._connection.take_body(self)

    def let_body_go(self) -> None:
        """Forget the body, which may be large: what is still to be answered no longer needs it."""
        self.body = b""
        if not self.closed:
            self._connection.let_body_go()

    def pause(self) -> None:
        """Stop reading the body, so that the client has to stop sending. Little may still arrive."""
        if not self.closed:
            self._connection.pause_body()

    def resume(self) -> None:
        """Read on."""
        if not self.closed:
            self._connection.resume_body()

    def respond(self, status: int, headers: Headers, body: bytes, lines: bytes = b"") -> None:
        """Answer at once, with a content-length. `lines` are more header lines: what differs from answer to answer.

        They are sent as they are, each with its line end: their maker vouches for what is in them.
        """
        if self._phase is _LEFT:
            return
        assert self._phase is _WAITING, "the response has begun"
        self.started = True
        bare = status in (204, 304)
        length = b"" if bare else content_length(len(body))
        pieces = [status_line(status), fields(headers), lines, length, self._persistence()]
        if bare or self.method == "HEAD":
            self._transport.write(b"".join(pieces))
        elif len(body) <= _COPY_BYTES_MAX:
            pieces.append(body)
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines((b"".join(pieces), body))
        self._finish()

    def start(self, status: int, headers: Headers, lines: bytes = b"", first: bytes = b"") -> None:
        """Begin a response whose length is not known yet. `lines` as in `respond`; `first` is the first piece of its
        body, where that is here: a system call takes longer than joining them."""
        if self._phase is _LEFT:
            return
        assert self._phase is _WAITING, "the response has begun"
        self.started = True
        head = status_line(status) + fields(headers) + lines
        framing = b""
        if status in (204, 304):
            self._phase = _WITHOUT_BODY
        elif self._http11:
            framing = b"transfer-encoding: chunked\r\n"
            self._phase = _WITHOUT_BODY if self.method == "HEAD" else _CHUNKED
        else:
            self._phase = _WITHOUT_BODY if self.method == "HEAD" else _DELIMITED
        self._transport.write(head + framing + self._persistence() + self._framed(first))

    def write(self, data: bytes) -> None:
        """Send a piece of the body as one chunk. An empty piece is left out: it would end the body."""
        assert self._phase not in (_WAITING, _ENDED), "write belongs between start and end"
        framed = self._framed(data)
        if framed:
            self._transport.write(framed)

    @property
    def sink(self) -> asyncio.Transport | None:
        """By what an answer in chunks goes out as it is; None for any other, and over TLS."""
        if self._phase is not _CHUNKED or self._connection.over_tls:
            return None
        return self._transport

    def pass_on(self, chunk: bytes) -> bool:
        """Send a piece that is framed as a chunk already; False where this answer is not sent in chunks, or not now."""
        if self._phase is not _CHUNKED:
            return False
        self._transport.write(chunk)
        return True

    def end(self, last: bytes = b"") -> None:
        """End a streamed response cleanly, with a `last` piece of its body where one is left."""
        if self._phase is _LEFT:
            return
        assert self._phase in (_CHUNKED, _DELIMITED, _WITHOUT_BODY), "end without start"
        if self._phase is _CHUNKED:
            self._transport.write(self._framed(last) + b"0\r\n\r\n")
        elif last:
            self.write(last)
        self._finish()

    def abort(self) -> None:
        """Drop the connection so that the client sees a truncated response, never a clean ending.

        What was written before is still delivered, but to an HTTP/1.0 client that is slow to take it. `on_left` is
        not called.
        """
        if self.closed:
            return
        if self._phase is _DELIMITED:
            # Here a close is the clean ending: only a reset tells, and over TLS an end that is not its own.
            if self._connection.over_tls:
                self._transport.abort()
            else:
                peer = self._transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close(_LEFT)
        self._connection.dropped()

    @property
    def received(self) -> bool:
        """For the connection: whether somebody takes the body."""
        return self._on_data is not None

    def keep(self, data: bytes) -> None:
        """For the reader: a piece of the body, to be handed over when the parser has returned."""
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(data)

    def complete(self) -> None:
        """For the reader: that was all of the body."""
        self._complete = True

    def hand_over(self) -> None:
        """For the connection: what has come meanwhile."""
        pieces, self._pieces = self._pieces, None
        for piece in pieces or ():
            if self._on_data is not None:
                self._on_data(piece)
        if self._complete and self._on_end is not None:
            on_end, self._on_data, self._on_end = self._on_end, None, None
            on_end()

    def leave(self) -> None:
        """For the connection: the client has gone before the response ended."""
        on_left = self.on_left
        self._close(_LEFT)
        if on_left is not None:
            on_left()

    def _framed(self, data: bytes) -> bytes:
        """A piece of the body as it goes out."""
        if self._phase is _CHUNKED and data:
            size = len(data)
            if size < _SMALL:
                return _CHUNK_HEADS[size] + data + b"\r\n"
            return b"%x\r\n%b\r\n" % (size, data)  # which copies it once
        return data if self._phase is _DELIMITED else b""

    def _persistence(self) -> bytes:
        """The end of the head, and whether the connection outlives the response."""
        if self._phase is _DELIMITED or self._connection.retiring:
            self._keep_alive = False
            return b"connection: close\r\n\r\n"
        return b"\r\n" if self._http11 else b"connection: keep-alive\r\n\r\n"

    def _finish(self) -> None:
        self._close(_ENDED)
        self._connection.answered(self._keep_alive)

    def _close(self, phase: Phase) -> None:
        self._phase = phase
        self.closed = True
        # The callbacks hold the handler's state, which holds this: without the cycle memory is freed at once.
        self.on_left = self.on_pause = self.on_resume = None
        self._on_data = self._on_end = None
