"""Bytes of one client in, complete requests out, within the limits."""

import re
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import lru_cache
from sys import intern
from typing import TYPE_CHECKING, NoReturn

import httptools

from tidegate.clock import Clock
from tidegate.http.exchange import Exchange
from tidegate.http.head import trimmed
from tidegate.http.limits import Limits

if TYPE_CHECKING:
    from tidegate.http.connection import Connection

# A second one of these means that two readers could see two different requests.
_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect"))
_ORIGIN = re.compile(rb"[a-z]+://[^/?]*", re.IGNORECASE)
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
# What a body may consist of before its pieces are put together: small ones take more for themselves than they hold.
_PIECES_MAX = 64
# Of what clients send, what is longer is not kept to be found again: it would take megabytes, and none asks so often.
_KEPT_BYTES_MAX = 256

_TOO_LARGE = "the body is too large, or too large for a client without a valid key"


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

    ready      complete requests that wait for their turn
    streaming  the request among them, or under way, whose body is still to come: it is handed over as it comes
    refusal    (status, message) if what follows them is not acceptable
    last       nothing is parsed after what is ready: the client, or an error, ends the connection
    awaits     what has to come next
    body_bytes how much has come of the body that is awaited, if it is not handed over
    """

    __slots__ = (
        "_bare_bytes",
        "_body",
        "_body_bytes_max",
        "_chunked",
        "_clock",
        "_connection",
        "_expects",
        "_head_bytes",
        "_headers",
        "_http11",
        "_knows",
        "_limits",
        "_method",
        "_parser",
        "_repeats",
        "_streams",
        "_target",
        "_uncounted",
        "_upgrading",
        "awaits",
        "body_bytes",
        "last",
        "ready",
        "refusal",
        "streaming",
    )

    def __init__(
        self,
        connection: "Connection",
        limits: Limits,
        clock: Clock,
        knows: Callable[[Mapping[bytes, bytes]], bool],
        streams: Callable[[bytes, bytes], bool] | None,
    ) -> None:
        """`knows` and `streams`: see `Server`."""
        self._connection: Connection | None = connection
        self._knows = knows
        self._streams = streams
        self._limits = limits
        self._clock = clock
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self.ready: deque[Exchange] = deque()
        self.streaming: Exchange | None = None
        self.refusal: tuple[int, str] | None = None
        self.last = False
        self.awaits = _REQUEST
        self._expects = False
        self._chunked = False
        self._head_bytes = 0
        self._uncounted = False  # it began in what came with the end of the one before
        self._method = self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeats = 0
        self._http11 = True
        self._upgrading = False
        self._body: list[bytes | bytearray] = []
        self.body_bytes = 0
        self._body_bytes_max = 0  # of a chunked body
        self._bare_bytes = 0  # of a chunked body since its last piece: sizes, extensions, trailers

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        parser = self._parser
        if self.last or parser is None:
            return
        if self.awaits is not _BODY:
            self._uncounted = self._uncounted and self.awaits is not _REQUEST
            # Empty lines before a request are none of it.
            if self.awaits is _HEAD or data.strip(b"\r\n"):
                self.awaits = _HEAD
            self._head_bytes += len(data)
        elif self._chunked:
            self._bare_bytes += len(data)
        try:
            parser.feed_data(data)
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
        elif self.awaits is _BODY and self._bare_bytes > self._limits.header_bytes_max and not self.last:
            self.refusal = (431, "the trailers or extensions of the body are too large")
            self.last = True

    def close(self) -> None:
        """Nothing more comes. Parser and connection know this: without the cycles all are gone at once."""
        self._parser = self._connection = None

    def forget(self) -> None:
        """Nobody waits for what has come."""
        self.ready.clear()
        self.streaming = None
        self._body = []

    def take_expectation(self) -> bool:
        """Whether the client waits for "100 Continue" before it sends the body; told once."""
        expects, self._expects = self._expects, False
        return expects and not self._body

    def knows_sender(self) -> bool:
        """Whether the server knows who sends the body that is to come."""
        return self._knows(self._headers)

    # ------------------------------------------------------------------ the parser calls

    def on_url(self, url: bytes) -> None:
        """The target, or a piece of it: the first that is told of a request."""
        if self._upgrading:
            return
        self.awaits = _HEAD
        target = self._target = self._target + url
        if len(target) > self._limits.target_bytes_max:
            self._refuse(414, "the request target is too long")
        if self.ready and len(self.ready) >= self._limits.pipelined_max:
            self.last = True
            raise _StopError

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; trailers are dropped."""
        if self.awaits is not _HEAD:
            return
        name = name.lower()
        headers = self._headers
        # Not at the end of the head: fields take ten times the memory of their bytes, and joining those that are
        # repeated copies what came before.
        if len(headers) + self._repeats >= self._limits.headers_max:
            self._refuse(431, "too many header fields")
        if name not in headers:
            headers[name] = trimmed(value)
            return
        if name in _SINGLE:
            self._refuse(400, f"{name.decode()} is given twice")
        self._repeats += 1
        headers[name] += b", " + trimmed(value)

    def on_headers_complete(self) -> None:
        """Judge the head."""
        if self._upgrading:
            self._upgrading = False
            return
        headers, parser, limits = self._headers, self._parser, self._limits
        assert parser is not None, "it is what calls"
        self.awaits = _BODY
        self._method = parser.get_method()
        http11 = self._http11 = parser.get_http_version() == "1.1"
        if not http11 and parser.get_http_version() != "1.0":
            self._refuse(505, "this server speaks HTTP/1.1")
        # The bytes fed include the start of the body, so they only tell when to look closer.
        look = self._uncounted or self._head_bytes > limits.header_bytes_max
        if look and self._size_of_head() > limits.header_bytes_max:
            self._refuse(431, "the header is too large")
        host = headers.get(b"host")
        if host is None:
            if http11:
                self._refuse(400, "the host header is missing")
        elif not (_is_known_host(host) if len(host) <= _KEPT_BYTES_MAX else _is_host(host)):
            self._refuse(400, "the host header names no host")
        if parser.should_upgrade():
            if self._method == b"CONNECT":
                self._refuse(501, "this server is not a tunnel")
            self._upgrading = True
        # Both framings at once, and malformed lengths, llhttp has refused already.
        told = headers.get(b"content-length")
        framed = told is not None or b"transfer-encoding" in headers
        streams = self._streams
        streamed = framed and streams is not None and streams(self._method, self._target)
        if told is not None:
            length = int(told)
            too_large = length > limits.body_bytes_max
            too_large = too_large or (length > limits.stranger_body_bytes_max and not self._knows(headers))
            if too_large and not streamed:  # there, who takes it judges it
                self._refuse(413, _TOO_LARGE)
        elif b"transfer-encoding" in headers:
            self._judge_coding(headers[b"transfer-encoding"])
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                self._refuse(417, "only 100-continue can be expected")
            self._expects = http11
        if streamed:
            self.streaming = self._exchange(b"")
            self.streaming.expects = self._expects
            self.ready.append(self.streaming)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.streaming is not None:
            self._bare_bytes = 0
            self.streaming.keep(data)
            return
        body = self._body
        if len(body) < _PIECES_MAX:
            body.append(data)
        elif len(body) == _PIECES_MAX:
            body.append(bytearray(data))
        else:
            body[-1] += data
        self.body_bytes += len(data)
        if self._chunked:  # a content-length has been judged before
            self._bare_bytes = 0
            if self.body_bytes > self._body_bytes_max:
                self._refuse(413, _TOO_LARGE)

    def on_message_complete(self) -> None:
        """The request is complete; it runs when the parser has returned and its turn has come."""
        if self._upgrading:
            return
        if self.streaming is not None:
            self.streaming.complete()
            self.streaming = None
        else:
            # Of one piece that makes no copy.
            self.ready.append(self._exchange(b"".join(self._body)))
        # Only here does llhttp know: after the message it has forgotten.
        self.last = self._parser is None or not self._parser.should_keep_alive()
        # Of a request in HTTP/1.0 that says both, llhttp hears only that it stays.
        if not self._http11 and b"close" in self._headers.get(b"connection", b"").lower():
            self.last = True
        self.awaits = _REQUEST
        self._expects = self._chunked = False
        self._head_bytes = self._repeats = self.body_bytes = self._bare_bytes = 0
        self._uncounted = True
        self._target = b""
        self._headers = {}
        self._body = []

    # ------------------------------------------------------------------ judging

    def _exchange(self, body: bytes) -> Exchange:
        target = self._target
        path, query = _split_known(target) if len(target) <= _KEPT_BYTES_MAX else _split(target)
        if not path:
            self._refuse(400, "the request target has a fragment")
        assert self._connection is not None, "nothing is parsed after its end"
        return Exchange(
            self._connection,
            intern(self._method.decode()),
            path,
            query,
            self._headers,
            body,
            self._clock.now_s(),
            self._http11,
        )

    def _refuse(self, status: int, message: str) -> NoReturn:
        self.refusal = (status, message)
        raise _StopError

    def _size_of_head(self) -> int:
        return len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())

    def _judge_coding(self, coding: bytes) -> None:
        if coding.lower() != b"chunked":
            self._refuse(501, "the only transfer coding is chunked")
        if not self._http11:
            self._refuse(400, "HTTP/1.0 has no transfer codings")
        self._chunked = True
        self._body_bytes_max = self._limits.body_bytes_max
        if not self._knows(self._headers):
            self._body_bytes_max = min(self._body_bytes_max, self._limits.stranger_body_bytes_max)

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
        if not self._http11 or b"close" in headers.get(b"connection", b"").lower():
            head += b"connection: close\r\n"
        self._parser = httptools.HttpRequestParser(self)
        self.feed(b"%b\r\n%b" % (head, rest))


def _split(target: bytes) -> tuple[str, str]:
    """Path and query of a target; an empty path for one that is none."""
    if b"#" in target:
        return "", ""
    if target[:1] not in (b"/", b"*"):  # absolute form: a proxy's way of asking
        target = _ORIGIN.sub(b"", target, count=1)
    path, _, query = target.decode("ascii").partition("?")
    return path or "/", query


def _is_host(value: bytes) -> bool:
    """Whether this may be the value of a host header: a name or an address, and perhaps a port. Empty is allowed."""
    return _HOST.fullmatch(value) is not None


_split_known = lru_cache(maxsize=256)(_split)  # clients ask for a handful of targets
_is_known_host = lru_cache(maxsize=256)(_is_host)  # a gateway is known by a handful of names
