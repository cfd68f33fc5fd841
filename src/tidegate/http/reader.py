"""Bytes of one client in, complete requests out, within the limits."""

from collections import deque
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

import httptools

from tidegate.clock import Clock
from tidegate.http.exchange import Exchange
from tidegate.http.limits import Limits

if TYPE_CHECKING:
    from tidegate.http.connection import Connection

# A second one of these means that two readers could see two different requests.
_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect"))
_VERSIONS = {"1.1": True, "1.0": False}


class Awaits(Enum):
    """What the client has to send next, which decides how long it may take."""

    REQUEST = auto()
    HEAD = auto()
    BODY = auto()


# Looking a member up in its class costs more than the comparison that follows.
_REQUEST, _HEAD, _BODY = Awaits.REQUEST, Awaits.HEAD, Awaits.BODY


class _StopError(Exception):
    """Stops the parser; the reason is kept by the reader."""


class Reader:
    """Parses requests and judges them, each head before any of its body is read.

    ready    complete requests that wait for their turn
    refusal  (status, message) if what follows them is not acceptable
    last     nothing is parsed after what is ready: the client, or an error, ends the connection
    awaits   what has to come next
    expects  whether the client waits for "100 Continue" before it sends the body
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_clock",
        "_connection",
        "_head_bytes",
        "_headers",
        "_http11",
        "_limits",
        "_method",
        "_parser",
        "_repeats",
        "_target",
        "_upgrading",
        "awaits",
        "expects",
        "last",
        "ready",
        "refusal",
    )

    def __init__(self, connection: "Connection", limits: Limits, clock: Clock) -> None:
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._parser = httptools.HttpRequestParser(self)
        self.ready: deque[Exchange] = deque()
        self.refusal: tuple[int, str] | None = None
        self.last = False
        self.awaits = _REQUEST
        self.expects = False
        self._head_bytes = 0
        self._method = self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeats = 0
        self._http11 = True
        self._upgrading = False
        self._body: list[bytes] = []
        self._body_bytes = 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        if self.last:
            return
        if self.awaits is not _BODY:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            # Bytes after a last request harm nobody: the connection closes anyway.
            if self.refusal is None and not self.last:
                self.refusal = (505 if str(error) == "Invalid HTTP version" else 400, str(error))
            self.last = True
        if self.awaits is _HEAD and self._head_bytes > self._limits.header_bytes_max and not self.last:
            self.refusal = (431, "the header is too large")
            self.last = True

    # ------------------------------------------------------------------ the parser calls

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._upgrading:
            return
        if len(self.ready) >= self._limits.pipelined_max:
            self.last = True
            raise _StopError
        self.awaits = _HEAD
        self._target = b""
        self._headers = {}
        self._repeats = 0
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        if self.awaits is _HEAD:
            self._target += url
            if len(self._target) > self._limits.target_bytes_max:
                self._refuse(414, "the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; trailers are dropped."""
        if self.awaits is not _HEAD:
            return
        name = name.lower()
        headers = self._headers
        if name not in headers:
            headers[name] = value.strip()
            return
        if name in _SINGLE:
            self._refuse(400, f"{name.decode()} is given twice")
        self._repeats += 1
        # Joining copies what came before: without a bound here, many repeats cost quadratic time.
        if self._repeats > self._limits.headers_max:
            self._refuse(431, "too many header fields")
        headers[name] += b", " + value.strip()

    def on_headers_complete(self) -> None:
        """Judge the head."""
        if self._upgrading:
            self._upgrading = False
            return
        headers, parser = self._headers, self._parser
        self.awaits = _BODY
        self._method = parser.get_method()
        http11 = _VERSIONS.get(parser.get_http_version())
        if http11 is None:
            self._refuse(505, "this server speaks HTTP/1.1")
        self._http11 = http11
        self._judge_size(headers)
        if http11 and b"host" not in headers:
            self._refuse(400, "the host header is missing")
        if parser.should_upgrade():
            if self._method == b"CONNECT":
                self._refuse(501, "this server is not a tunnel")
            self._upgrading = True
        self._judge_framing(headers)
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                self._refuse(417, "only 100-continue can be expected")
            self.expects = http11

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes_max:
            self._refuse(413, "the body is too large")
        self._body.append(data)
        self.expects = False

    def on_message_complete(self) -> None:
        """The request is complete; it runs when the parser has returned and its turn has come."""
        if self._upgrading:
            return
        self.awaits = _REQUEST
        self._head_bytes = 0
        self.expects = False
        path, query = _split(self._target)
        body = self._body
        exchange = Exchange(
            self._connection,
            self._method.decode(),
            path,
            query,
            self._headers,
            body[0] if len(body) == 1 else b"".join(body),
            self._clock.now_s(),
            self._http11,
        )
        self._body = []
        self.ready.append(exchange)
        # Only here does llhttp know: after the message it has forgotten.
        self.last = not self._parser.should_keep_alive()

    # ------------------------------------------------------------------ judging

    def _refuse(self, status: int, message: str) -> NoReturn:
        self.refusal = (status, message)
        raise _StopError

    def _judge_size(self, headers: dict[bytes, bytes]) -> None:
        limits = self._limits
        if len(headers) + self._repeats > limits.headers_max:
            self._refuse(431, "too many header fields")
        # The bytes fed include the start of the body, so they only tell when to look closer.
        if self._head_bytes > limits.header_bytes_max:
            size = len(self._target) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size > limits.header_bytes_max:
                self._refuse(431, "the header is too large")

    def _judge_framing(self, headers: dict[bytes, bytes]) -> None:
        """Both lengths at once, and malformed ones, llhttp has refused already."""
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes_max:
            self._refuse(413, "the body is too large")
        coding = headers.get(b"transfer-encoding")
        if coding is not None:
            if coding.lower() != b"chunked":
                self._refuse(501, "the only transfer coding is chunked")
            if not self._http11:
                self._refuse(400, "HTTP/1.0 has no transfer codings")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the body of a request that also offers another protocol.

        Java's HTTP client offers h2c with every plain request, and a server may ignore that; but llhttp takes
        the body for the new protocol. A fresh parser that is told only the framing reads it as a body.
        """
        headers = self._headers
        head = b"POST / HTTP/1.1\r\n"
        for name in (b"content-length", b"transfer-encoding"):
            if name in headers:
                head += b"%b: %b\r\n" % (name, headers[name])
        if not self._http11 or b"close" in headers[b"connection"].lower():
            head += b"connection: close\r\n"
        self._parser = httptools.HttpRequestParser(self)
        self.feed(b"%b\r\n%b" % (head, rest))


@lru_cache(maxsize=256)  # clients ask for a handful of targets
def _split(target: bytes) -> tuple[str, str]:
    """Path and query of a target."""
    if target[:1] not in (b"/", b"*"):  # absolute form: a proxy's way of asking
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, _, query = target.decode("ascii").partition("?")
    return path, query
