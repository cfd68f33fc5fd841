"""One connection to an upstream: carries one call at a time."""

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn, cast

import httptools

from tidegate.http.call import Call, Receiver
from tidegate.http.errors import Cause, TransportError
from tidegate.http.flow import CHUNK_BYTES_MAX, Flow
from tidegate.http.head import trimmed
from tidegate.http.limits import OWN_TURN_BYTES
from tidegate.http.secured import Secured
from tidegate.http.upload import acknowledged_bytes

if TYPE_CHECKING:
    from tidegate.http._lanes import Lane
    from tidegate.http.client import Pool

_REPEATS_MAX = 200  # vendors send about 40 fields in all
_BODILESS = (204, 304)
_BARE_MAX = 103  # the last of the interim responses of which the parser knows that they have no body
_SIZES: Final = {spelt % size: size for size in range(1, CHUNK_BYTES_MAX + 1) for spelt in (b"%x", b"%X")}
_SIZE_LINE_BYTES_MAX: Final = len(b"%x\r\n" % CHUNK_BYTES_MAX)
_CR, _LF = ord("\r"), ord("\n")
# That all of a request was taken by our kernel says nothing of who was to read it. What a connection takes of smaller
# ones is taken with their beginning.
_BYTES_SURE: Final = 64 * 1024
_NO_HEADERS: Final[dict[bytes, bytes]] = {}  # between two heads, and of many links at once: nothing is put into it
_COPY_BYTES_MAX = 16 * 1024  # below it one joined write is cheaper than a vector of two


class _StopError(Exception):
    """Stops the parser; the cause is kept by the link."""


class Link(asyncio.Protocol):
    """Parses responses and hands them to the receiver of the call that it carries.

    Of a body that comes in small chunks, the parser is shown the first and whatever is none: between two chunks it
    stands as it stood before them, so that whole ones need not go through it. Nor does the receiver see those that its
    `flow` passes. Where there are lanes, such a stream is read in one, and here whatever it does not pass.
    """

    __slots__ = (
        "_bare_bytes",
        "_before_bytes",
        "_between",
        "_call",
        "_carried_s",
        "_complete",
        "_fault",
        "_flows",
        "_head_bytes",
        "_headed",
        "_headers",
        "_heard",
        "_keep_alive",
        "_lane",
        "_parser",
        "_paused",
        "_pool",
        "_receiver",
        "_repeats",
        "_rest",
        "_says_close",
        "_silent_at_s",
        "_skipping",
        "_surplus",
        "_unsure_bytes",
        "_until_close",
        "flow",
        "idle_since_s",
        "lost",
        "reused",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = None  # while it is connected: it knows this
        self._call: Call | None = None
        self._carried_s = 0.0  # when that was sent
        self._receiver: Receiver | None = None  # that of the call
        self._paused = False
        self._unsure_bytes = 0  # of a request that may still be on its way when its answer is here
        self._before_bytes: int | None = None  # what had been acknowledged before that
        self.reused = False  # it has carried a call to its end before, or waited for one
        self.lost = False
        self.idle_since_s = 0.0
        # The response that is being read.
        self._headers = _NO_HEADERS
        self._says_close = False
        self._repeats = 0
        self._head_bytes = 0
        self._bare_bytes = 0  # since the last piece of the body: sizes, extensions, trailers
        self._headed = False  # the receiver has the head
        self._complete = False
        self._between = False  # the parser has seen a chunk end, and none begin since
        self._flows = False  # it stands between two chunks
        self._rest = b""  # the beginning of a chunk, while it flows
        self._keep_alive = False
        self._skipping = False  # an interim response
        self._until_close = False
        self.flow: Flow | None = None
        self._surplus = False  # more came than was asked for, or less than is needed to go on
        self._fault: tuple[Cause, str] | None = None
        self._heard = False  # a head or a piece of the body came since the last sweep
        self._silent_at_s = inf
        self._lane: Lane | None = None  # it reads in the transport's place

    # ------------------------------------------------------------------ the pool and the call call

    def carry(self, call: Call, now_s: float) -> None:
        """Send the request of `call`, a large one by another turn of the loop, and expect its response."""
        self._carried_s = now_s
        # The other marks are as they were on a connection that can be used again.
        self._head_bytes = self._bare_bytes = 0
        self._headed = self._complete = self._between = self._flows = False
        self._rest = b""
        self._call = call
        self._receiver = call.receiver
        call.link, call.sent = self, True
        if len(call.body) < OWN_TURN_BYTES:
            self._send(call)
        else:
            asyncio.get_running_loop().call_soon(self._send_later, call)

    def _send_later(self, call: Call) -> None:
        if self._call is call:  # not given up meanwhile
            self._send(call)

    def _send(self, call: Call) -> None:
        size = len(call.head) + len(call.body)
        if call.upload is not None:
            call.upload.begin(self.transport, size)
        self._unsure_bytes = size if size > _BYTES_SURE else 0
        if self._unsure_bytes:
            self._before_bytes = acknowledged_bytes(self.transport)
        if len(call.body) <= _COPY_BYTES_MAX:
            self.transport.write(call.head + call.body)
        else:
            self.transport.writelines((call.head, call.body))

    def drop(self) -> None:
        """Close at once; nobody is told."""
        self._leave()
        self._call = self._receiver = self.flow = None
        self.transport.abort()

    def fail(self, cause: Cause, message: str) -> None:
        """Give the connection up and tell the receiver why."""
        self._leave()
        call, self._call, self._receiver, self.flow = self._call, None, None, None
        if call is not None and call.upload is not None:
            call.uploaded()
        self.transport.abort()
        self._pool.discard(self)
        if call is not None:
            call.link = None
            call.fail(TransportError(cause, message, sent_bytes=True))

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            if self._lane is not None:
                self._leave()
                return
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self._heard = True  # the silence was ours
            self.transport.resume_reading()

    def check(self, now_s: float) -> None:
        """Enforce the time-outs of the call, if there is one."""
        if self._lane is not None and self._lane.heard():
            self._heard = True
        if self._rest and not self._heard:
            self._show_rest()
        call = self._call
        if call is None:
            return
        if not self._headed:
            if now_s >= call.deadline_s:
                self.fail(Cause.FIRST_BYTE_TIMEOUT, "no response in time")
        elif self._heard or self._paused:
            # Noting that something came costs less than reading the clock for every chunk.
            self._heard = False
            self._silent_at_s = now_s + call.idle_timeout_s
        elif now_s >= self._silent_at_s:
            self.fail(Cause.IDLE_TIMEOUT, "the response fell silent")

    # ------------------------------------------------------------------ the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and read what comes."""
        self.transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse, and end the call when its response is complete."""
        call, receiver, parser = self._call, self._receiver, self._parser
        if call is None or receiver is None or parser is None:
            # Nothing was asked: whatever this is, it must not become the answer to the next request.
            self._pool.discard(self)
            self.transport.abort()
            return
        if self._flows:
            flow = self.flow
            if flow is not None and not self._rest and flow.passes(data):
                self._heard = True
            else:
                data = self._chunks(data, receiver)
                if data:
                    self._parse(data, call, receiver, parser)
                    return
                flow = self.flow
            if flow is not None and self._lane is None and not self._rest:
                self._join(flow)
            return
        self._parse(data, call, receiver, parser)

    def _parse(self, data: bytes, call: Call, receiver: Receiver, parser: httptools.HttpResponseParser) -> None:
        if self._headed:
            self._bare_bytes += len(data)
        else:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._surplus = True
            if not self._complete:
                self._broken(error)
                return
        if self._complete:
            if self._call is call:  # not cancelled by its receiver
                self._finish(call, receiver)
        elif not self._headed:
            if self._head_bytes > self._pool.header_bytes_max:
                self.fail(Cause.TOO_LARGE, "the head of the response is too large")
        elif self._bare_bytes > self._pool.header_bytes_max:
            # The parser keeps what it has of a trailer, and copies that with each piece that comes.
            self.fail(Cause.TOO_LARGE, "the trailers or extensions of the response are too large")
        elif self._between:
            # Of the next chunk it has seen nothing: a beginning of its size ends with no line.
            self._flows = data.endswith(b"\r\n")

    def eof_received(self) -> None:
        """A clean close: the end of a response that has no other end."""
        if self._call is not None and self._receiver is not None and self._until_close and self._headed:
            self._surplus = True
            self._finish(self._call, self._receiver)

    def connection_lost(self, exc: Exception | None) -> None:
        """The upstream is gone."""
        self.lost = True
        self._leave()
        if self._rest:
            self._show_rest()
        self._parser = None  # without the cycle both are gone at once
        call = self._call
        if (
            call is not None
            and self.reused
            and not (self._head_bytes or call.retried)
            and self._pool.is_just_now(self._carried_s)
        ):
            # It closed an idle connection while the request was on its way. Later it was at work on it, and whether
            # that is to be done twice, and paid twice, is not for us to say.
            self._call = self._receiver = call.link = None
            # It goes into the place that this leaves, before others who wait for one.
            self._pool.retry(call)
            self._pool.discard(self)
        elif call is not None:
            self.fail(Cause.RESET, str(exc) if exc else "closed before the response was complete")
        else:
            self._pool.discard(self)

    @property
    def has_more(self) -> bool:
        """Whether more has come over TLS than was handed over."""
        transport = self.transport
        return isinstance(transport, Secured) and transport.has_more

    # ------------------------------------------------------------------ the lane calls

    def take(self, data: bytes, unsent: int) -> None:
        """This has come to the lane, nothing where the stream ends or breaks off. Of its first bytes so many are what
        flows, and could not be sent; the rest is to be read."""
        lane, flow = self._lane, self.flow
        if self._call is None:
            # It was given up meanwhile, on account of another.
            return
        if not data:
            # The transport finds the same, and what it means.
            self._read_on()
            return
        if unsent:
            assert flow is not None, "nothing else has passed"
            # That it is in the way of the client may take the link out of its lane.
            flow.send(data[:unsent])
            data = data[unsent:]
        if data:
            self.data_received(data)
        flow = self.flow
        if flow is not None and lane is not None and self._lane is lane and self._flows and not self._rest:
            lane.arm(flow.before, flow.behind)

    # ------------------------------------------------------------------ the parser calls

    def on_message_begin(self) -> None:
        """The first byte of a response."""
        if self._complete:
            self._surplus = True
            raise _StopError
        self._headers = {}
        self._repeats = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head; trailers are dropped."""
        if self._headed:
            return
        name = name.lower()
        headers = self._headers
        if name not in headers:
            headers[name] = trimmed(value)
            return
        # Joining copies what came before: without a bound here, many repeats cost quadratic time.
        self._repeats += 1
        if self._repeats > _REPEATS_MAX:
            self._reject(Cause.TOO_LARGE, "too many repeated header fields")
        headers[name] += b", " + trimmed(value)

    def on_headers_complete(self) -> None:
        """Hand the head over, unless it is only an interim one."""
        call, receiver = self._call, self._receiver
        if call is None or receiver is None:
            return
        assert self._parser is not None, "it is what calls"
        status, headers = self._parser.get_status_code(), self._headers
        if status < 200:
            self._skipping = True
            if status == 101:
                self._reject(Cause.PROTOCOL, "the upstream switched protocols unasked")
            if status < 100:
                self._reject(Cause.PROTOCOL, "the status is none")
            # Where the parser would read one, it would become the beginning of the answer's.
            if status > _BARE_MAX and (b"content-length" in headers or b"transfer-encoding" in headers):
                self._reject(Cause.PROTOCOL, "an interim response has no body")
            return
        # The bytes received include the start of the body, so they only tell when to look closer.
        if self._head_bytes > self._pool.header_bytes_max:
            self._judge_size(headers)
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._reject(Cause.PROTOCOL, "unknown transfer coding")
        self._headed = self._heard = True
        if call.upload is not None:
            call.uploaded()
        told = headers.get(b"connection")
        # Not by `in`: of bytes, that asks first whether they are a number, by an exception.
        self._says_close = told is not None and told.lower().find(b"close") >= 0
        asks_head = call.head.startswith(b"HEAD ")
        # It is not sent again now, nor is the head of the answer needed, which may take minutes.
        call.head = call.body = b""
        self._headers = _NO_HEADERS
        if asks_head:
            # The parser waits for a body that does not come, so the connection cannot be used again.
            self._complete = self._surplus = True
        elif coding is None and b"content-length" not in headers and status not in _BODILESS:
            self._until_close = True
        receiver.on_head(status, headers)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        receiver = self._receiver
        if receiver is not None:
            # Trailers and extensions without end are silence: only what the receiver is given counts.
            self._heard = True
            self._bare_bytes = 0
            receiver.on_data(data)

    def on_chunk_header(self) -> None:
        """The size of a chunk."""
        self._between = False

    def on_chunk_complete(self) -> None:
        """The end of a chunk."""
        self._between = True

    def on_message_complete(self) -> None:
        """The response is complete; its receiver hears of it when the parser has returned."""
        if self._skipping:
            self._skipping = False
            return
        self._complete = True
        # Only here does llhttp know: after the message it has forgotten, and each request would connect anew. But of a
        # response in HTTP/1.0 that says both, it hears only that it stays.
        keeps = self._parser is not None and self._parser.should_keep_alive()
        self._keep_alive = keeps and not self._says_close

    # ------------------------------------------------------------------ inside

    def _join(self, flow: Flow) -> None:
        lanes, sink = self._pool.lanes, flow.sink
        # Where writing the last chunk has filled the client's buffer, nothing is read.
        if lanes is None or sink is None or self._paused:
            return
        self._lane = lane = lanes.join(self, self.transport, sink)
        if lane is not None:
            self.transport.pause_reading()
            flow.count_in(lane)
            lane.arm(flow.before, flow.behind)

    def _leave(self) -> None:
        """Nobody reads until the transport does."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.leave()

    def _read_on(self) -> None:
        """By the transport again, where it was a lane."""
        if self._lane is not None:
            self._leave()
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def _chunks(self, data: bytes, receiver: Receiver) -> bytes:
        """Hand over the chunks that are whole now, as one piece, and keep one that is not; what the parser has to see
        is returned."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, size = 0, len(data)
        pieces: list[bytes] = []
        unread = b""
        while at < size:
            line = data.find(b"\r\n", at, at + _SIZE_LINE_BYTES_MAX)
            length = _SIZES.get(data[at:line], 0) if line >= 0 else 0
            begin = line + 2
            end = begin + length
            if (line < 0 and size - at < _SIZE_LINE_BYTES_MAX) or (length and end > size):
                self._rest = data[at:]
                break
            # Who ends a chunk when the next one begins would be heard one too late.
            if not length or end + 2 > size or data[end] != _CR or data[end + 1] != _LF:
                self._flows = False
                unread = data[at:]
                break
            pieces.append(data[begin:end])
            at = end + 2
        if pieces:
            self._heard = True
            try:
                receiver.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            except Exception as error:
                self._culpable(error)
                return b""
            if self._receiver is not receiver:  # it has cancelled the call
                return b""
        return unread

    def _reject(self, cause: Cause, message: str) -> NoReturn:
        self._fault = (cause, message)
        raise _StopError

    def _judge_size(self, headers: dict[bytes, bytes]) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in headers.items())
        if size > self._pool.header_bytes_max:
            self._reject(Cause.TOO_LARGE, "the head of the response is too large")

    def _is_all_sent(self) -> bool:
        """Whether nothing of the request is still to go."""
        before = self._before_bytes
        if self._unsure_bytes and before is not None:
            done = acknowledged_bytes(self.transport)
            return done is not None and done - before >= self._unsure_bytes
        return not self.transport.get_write_buffer_size()

    def _show_rest(self) -> None:
        """What came of a chunk that is not whole has come all the same."""
        call, receiver, parser = self._call, self._receiver, self._parser
        rest, self._rest, self._flows = self._rest, b"", False
        if call is not None and receiver is not None and parser is not None:
            self._parse(rest, call, receiver, parser)

    def _broken(self, error: httptools.HttpParserError) -> None:
        """End the call after the parser has stopped: bad bytes, a bound, or an exception of the receiver."""
        culprit = error.__context__
        if self._fault is not None:
            self.fail(*self._fault)
        elif isinstance(error, httptools.HttpParserCallbackError) and isinstance(culprit, Exception):
            self._culpable(culprit)
        else:
            self.fail(Cause.PROTOCOL, str(error))

    def _culpable(self, error: Exception) -> None:
        """End the call since its receiver has failed."""
        self.fail(Cause.RECEIVER, f"the receiver failed: {error!r}")
        context = {"message": "the receiver of an HTTP response failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    def _finish(self, call: Call, receiver: Receiver) -> None:
        self._call = self._receiver = self.flow = call.link = call.receiver = None
        self._read_on()
        if self._paused:
            self.resume()
        # An upstream that answers before it has read the request may never read the rest of it.
        usable = self._keep_alive and not self._surplus and self._is_all_sent()
        self.reused = True
        self._pool.release(self, usable)
        receiver.on_end()
