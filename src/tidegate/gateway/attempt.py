"""One call to one endpoint: reads its answer, and tells the drive what the flight must know."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from tidegate.core.model import Ending, Headroom, replace
from tidegate.engines.base import Failure, Outgoing, overflow, unfit
from tidegate.gateway.failures import BROKEN, NO_DESCRIPTOR
from tidegate.gateway.slots import Slot
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Call, Cause, TransportError
from tidegate.http.exchange import Exchange
from tidegate.http.flow import Flow
from tidegate.wire import sse
from tidegate.wire.headroom import read_headroom
from tidegate.wire.reading import read_chunk
from tidegate.wire.repeat import Repeat
from tidegate.wire.sse import BYTE_ORDER_MARK, BadStream
from tidegate.wire.stream import Reader, StreamReader

# An error body is read for its message alone: whoever else may serve it waits no longer than a slow way takes to bring
# one.
ERROR_BYTES_MAX = 64 * 1024
ERROR_S_MAX = 3.0
# Behind the end of an answer, reading on keeps the connection for the next request. Whoever then never stops would keep
# it from all, be it drop by drop or without a word.
SURPLUS_BYTES_MAX = 64 * 1024
SURPLUS_S_MAX = 10.0

_EVENTS, _JSON = b"text/event-stream", b"application/json"
# Of all that tell no error: nothing is put into it.
_NO_HEADERS: Final[dict[bytes, bytes]] = {}
# As nearly all engines say it, which needs no closer look.
_USUAL_EVENTS = b"text/event-stream; charset=utf-8"

_TRANSPORT: dict[Cause, tuple[Ending, int, str]] = {
    Cause.REFUSED: (Ending.FAILED, 502, "could not be reached"),
    Cause.DNS: (Ending.FAILED, 502, "could not be resolved"),
    Cause.TLS: (Ending.FAILED, 502, "failed the TLS handshake"),
    Cause.CONNECT_TIMEOUT: (Ending.TIMED_OUT, 504, "did not accept a connection in time"),
    Cause.FIRST_BYTE_TIMEOUT: (Ending.TIMED_OUT, 504, "did not answer in time"),
    Cause.IDLE_TIMEOUT: (Ending.TIMED_OUT, 504, "fell silent"),
    Cause.RESET: (Ending.FAILED, 502, "closed the connection before its answer was complete"),
    Cause.PROTOCOL: (Ending.FAILED, 502, "did not answer in HTTP"),
    Cause.TOO_LARGE: (Ending.FAILED, 502, "answered with more than the gateway accepts"),
    Cause.POOL_FULL: (Ending.REFUSED, 503, "has no free connection"),
}


class Listener(Protocol):
    """Who an attempt reports to."""

    def uploaded(self, attempt: "Attempt", upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """So many bytes of its request have got there in so many seconds, or in `at_most` so many."""

    def headroom(self, attempt: "Attempt", told: Headroom) -> None:
        """A vendor has said what is left of its limits."""

    def content(self, attempt: "Attempt", first: bytes) -> None:
        """First content has come, or the end without any: pass `first` on, and say who has what passes from now on,
        by `pass_to` or in `relay`."""

    def completed(self, attempt: "Attempt", rest: bytes) -> None:
        """The answer is complete; `rest` is what of it was not passed on yet."""

    def failed(self, attempt: "Attempt", failure: Failure) -> None:
        """There will be no answer, or no more of it."""


def _nowhere(data: bytes) -> None:
    """Where an answer goes that is given whole, at the end."""


class Attempt:
    """Receives what an endpoint answers. Reports exactly one of `completed` and `failed`, unless cancelled."""

    __slots__ = (
        "_call",
        "_client",
        "_error",
        "_error_since_s",
        "_headers",
        "_listener",
        "_now_s",
        "_over",
        "_paused",
        "_repeat",
        "_resumes",
        "_surplus_bytes",
        "_surplus_since_s",
        "_was_paused",
        "endpoint",
        "fetches",
        "first_s",
        "hedge",
        "reader",
        "relay",
        "sent_s",
        "slot",
        "status",
        "streamed",
        "target",
        "upstream",
    )

    def __init__(
        self,
        upstream: Upstream,
        outgoing: Outgoing,
        reader: Reader,
        listener: Listener,
        now_s: Callable[[], float],
        *,
        hedge: bool,
        slot: Slot | None = None,
        target: str = "",
        fetches: bool = False,
        resumes: bool = False,
    ) -> None:
        """It was told its `slot`, where one is told; with a `target` it computes the prompt alone. It `fetches` the KV
        cache of that from where it was told to. It `resumes` an answer whose beginning its client has."""
        self.upstream = upstream
        self.endpoint = upstream.endpoint.name
        self.hedge = hedge
        self.slot, self.target, self.fetches = slot, target, fetches
        self.reader = reader
        self.sent_s = now_s()
        self.first_s = inf  # when first content came: see `begun`
        self.status = 0
        self.streamed = outgoing.streamed
        # Where what passes goes; nothing passes before content, upon which the listener says where.
        self.relay: Callable[[bytes], None] = _nowhere
        self._resumes = resumes
        self._client: Exchange | None = None
        self._repeat: Repeat | None = None  # what the connection passes without asking
        self._listener = listener
        self._now_s = now_s
        self._call: Call | None = None
        self._error: bytearray | None = None
        self._error_since_s = 0.0
        self._headers = _NO_HEADERS
        self._over = False
        self._surplus_bytes = 0  # what has come behind the end, and since when
        self._surplus_since_s = 0.0
        # Whether the client keeps it from reading, now and since somebody looked last.
        self._paused = self._was_paused = False

    def carry(self, call: Call) -> None:
        """Remember the call that carries this attempt."""
        self._call = call

    def pass_to(self, client: Exchange) -> None:
        """What passes is for this client."""
        self._client, self.relay = client, client.write

    def give_up(self, failure: Failure) -> None:
        """End it for this reason, whether or not it was sent."""
        self.cancel()
        self._listener.failed(self, failure)

    @property
    def sent(self) -> bool:
        """Whether a connection has begun to carry it that was not dead already."""
        return self._call is not None and self._call.sent

    @property
    def begun(self) -> bool:
        """Whether first content has come, or the end without any."""
        return self.first_s < inf

    @property
    def fetching(self) -> bool:
        """Whether nothing has come of it yet, for which the KV cache that it is to fetch may be the reason."""
        return self.fetches and not self.begun and not self.reader.content

    @property
    def refused(self) -> Failure | None:
        """What a head tells that begins no answer, with as much of the body as has come; None where there is no such
        head, or where the rest of the body might blame somebody else than the request."""
        if self._error is None:
            return None
        failure = self._failure(self._error)
        return None if failure.final else failure

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it."""
        return self._over

    @property
    def paused(self) -> bool:
        """Whether its client keeps it from reading."""
        return self._paused

    def cancel(self) -> None:
        """Nobody wants it any more: the connection closes, which is how the engine learns."""
        self._over = True
        if self._call is not None:
            self._call.cancel()

    def look(self) -> int | None:
        """How many tokens have come so far; None where its client has kept it from reading since the last look."""
        held_up, self._was_paused = self._was_paused, self._paused
        return None if held_up else self.reader.tokens_seen

    def pause(self) -> None:
        """Stop reading, so that the engine has to stop writing."""
        self._paused = self._was_paused = True
        # Of one that is over, nobody would start it again.
        if self._call is not None and not self._over:
            self._call.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._call is not None:
            self._call.resume()

    # --- what the HTTP client tells -------------------------------------------------------------------------------

    def on_uploaded(self, upload_bytes: int, seconds: float, at_most: bool) -> None:
        """See `http.upload`."""
        self._listener.uploaded(self, upload_bytes, seconds, at_most=at_most)

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """See `http.Receiver`."""
        self.status = status
        if (told := read_headroom(headers, self.endpoint, self._now_s)) is not None:
            self._listener.headroom(self, told)
        if status != 200:
            self._expect_error(headers)
            return
        told_kind = headers.get(b"content-type", b"")
        if told_kind == (_USUAL_EVENTS if self.streamed else _JSON):
            return
        kind = told_kind.partition(b";")[0].strip().lower()
        if kind == (_EVENTS if self.streamed else _JSON) or (kind == b"" and not self.streamed):
            return
        if kind == _JSON:
            # Some tell an error so, which says whose fault it is.
            self._expect_error(headers)
            return
        self.give_up(_unexpected(kind, streamed=self.streamed))

    def on_data(self, data: bytes) -> None:
        """See `http.Receiver`."""
        if self._over:
            self._count_surplus(data)
            return
        if self._error is not None:
            self._take_error(self._error, data)
            return
        reader = self.reader
        if self.begun and isinstance(reader, StreamReader):
            # A stream that flows: of a class that is known, nothing has to be looked up.
            out = reader.feed(data)
            if reader.repeat is not self._repeat:
                self._let_pass(reader.repeat)
            if out and reader.failure is None and not reader.done:
                self.relay(out)
                return
        else:
            out = reader.feed(data)
        # An end without a word is let go too: what tells of it has nowhere to pass before. What has failed in the same
        # breath is not, and is made good unseen; but a rest is: what translates the whole answer has taken it in.
        if not self.begun and (reader.content or reader.finished) and (reader.failure is None or self._resumes):
            self.first_s = self._now_s()
            self._listener.content(self, out)
            if self._over:
                return
            out = b""
        if reader.failure is not None:
            if out:
                self.relay(out)
            self._broke(reader.failure)
        elif reader.done:
            self._complete(out)
        elif out:
            self.relay(out)

    def _expect_error(self, headers: dict[bytes, bytes]) -> None:
        """What follows this head tells why there is no answer."""
        self._error, self._headers, self._error_since_s = bytearray(), headers, self._now_s()
        self._be_silent_for(ERROR_S_MAX)

    def _take_error(self, body: bytearray, data: bytes) -> None:
        """As much of it as a message needs, and for no longer than one takes."""
        body += data[: ERROR_BYTES_MAX - len(body)]
        if len(body) == ERROR_BYTES_MAX or self._now_s() - self._error_since_s > ERROR_S_MAX:
            self.give_up(self._failure(body))

    def _be_silent_for(self, seconds: float) -> None:
        """The connection is given up where no more comes for so long, if not for less already."""
        if self._call is not None:
            self._call.idle_timeout_s = min(self._call.idle_timeout_s, seconds)

    def _count_surplus(self, data: bytes) -> None:
        """This has come behind the end: of that, little is read."""
        now_s = self._now_s()
        if not self._surplus_bytes:
            self._surplus_since_s = now_s
        self._surplus_bytes += len(data)
        if self._surplus_bytes > SURPLUS_BYTES_MAX or now_s - self._surplus_since_s > SURPLUS_S_MAX:
            self.cancel()

    def _let_pass(self, repeat: Repeat | None) -> None:
        """From now on the connection passes what is `repeat` again by itself."""
        self._repeat = repeat
        if self._call is not None and self._client is not None:
            self._call.let(None if repeat is None else Flow(repeat, self._client))

    def on_end(self) -> None:
        """See `http.Receiver`."""
        if self._over:
            return
        if self._error is not None:
            self._over = True
            self._listener.failed(self, self._failure(self._error))
            return
        self._end()

    def on_error(self, error: TransportError) -> None:
        """See `http.Receiver`."""
        if self._over:
            return
        if error.cause is Cause.RECEIVER:
            # Ours, and told already. However much had come, nobody knows what of it was read.
            self.give_up(BROKEN)
            return
        if self.streamed and self.status == 200 and self.reader.finished:
            # It has said all, and why it ended; what is missing is its usage.
            self._end()
            return
        self._over = True
        if (refused := self.refused) is not None:
            self._listener.failed(self, refused)
            return
        if error.cause is Cause.NO_DESCRIPTOR:
            self._listener.failed(self, NO_DESCRIPTOR)
            return
        ending, status, what = _TRANSPORT[error.cause]
        failure = Failure(
            ending=ending,
            cause=error.cause.value,
            status=status,
            message=f"the endpoint {what}",
            code="upstream_timeout" if status == 504 else "upstream_error",
        )
        self._listener.failed(self, failure)

    def conclude(self) -> None:
        """It has said all, and why it ended, and nothing more comes: what is missing is its usage."""
        if self._call is not None:
            self._call.cancel()
        self._end()

    def _failure(self, body: bytearray) -> Failure:
        if self.status == 200:
            return self._without_key(_told_whole(bytes(body)))
        failure = self.upstream.dialect.failure(self.status, self._headers, bytes(body), self._now_s())
        return self._without_key(failure)

    def _without_key(self, failure: Failure) -> Failure:
        without_key = self.upstream.without_key
        return replace(failure, message=without_key(failure.message), aside=without_key(failure.aside))

    def _end(self) -> None:
        try:
            out = self.reader.end()
        except Exception as error:
            report(error)
            self.give_up(BROKEN)
            return
        if self.reader.failure is not None:
            if out:
                self.relay(out)
            self._broke(self.reader.failure)
            return
        self._complete(out)

    def _complete(self, rest: bytes) -> None:
        # The connection reads on by itself to the end of the response, and can then be used again: also where a slow
        # client has stopped it, for nobody will start it any more.
        self._over = True
        self.resume()
        self._be_silent_for(SURPLUS_S_MAX)
        if not self.begun and (self.streamed or self.target):
            # Nothing to say is said after as much prefill as a first word would have been; and where a prompt alone is
            # computed, the first word is the last.
            self.first_s = self._now_s()
        self._listener.completed(self, rest)

    def _broke(self, stream: BadStream) -> None:
        self.give_up(self._without_key(_broken(stream)))


def _told_whole(body: bytes) -> Failure:
    """What JSON means where a stream was asked for: the error that it tells, as it would in the stream."""
    try:
        read_chunk(body.removeprefix(BYTE_ORDER_MARK))
    except BadStream as told:
        if told.cause is sse.Cause.ERROR_EVENT:
            return _broken(told)
    return _unexpected(_JSON, streamed=True)


def _unexpected(kind: bytes, *, streamed: bool) -> Failure:
    answered = kind.decode("latin-1")[:60] or "no content type"
    wanted = _EVENTS if streamed else _JSON
    return _fault("unexpected_content", f"answered {answered} where {wanted.decode()} was asked for")


def _broken(stream: BadStream) -> Failure:
    error = stream.error
    if error is not None and error.context_exceeded:
        return overflow(error.message)
    if error is not None and error.of_the_account:
        return replace(_fault(stream.cause, "reported an error of the gateway's account"), aside=error.message)
    if error is not None and (error.flagged or error.unfit):
        return unfit(error)
    return _fault(stream.cause, stream.message)


def _fault(cause: str, message: str) -> Failure:
    return Failure(
        # What another client would have taken is no failure of the endpoint's.
        ending=Ending.CANCELLED if cause == sse.Cause.NO_FORM else Ending.FAILED,
        cause=cause,
        status=502,
        message=f"the endpoint {message}",
        code="upstream_error",
    )


def report(error: Exception) -> None:
    """Have the log say what was wrong with the gateway itself."""
    context = {"message": "a request is given up for a fault of the gateway", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
