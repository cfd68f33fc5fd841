"""Between dialects: a reader for an engine or a client that does not speak the hub's."""

from collections.abc import Callable, Mapping
from typing import Protocol

from tidegate.wire.aggregate import Aggregator
from tidegate.wire.chunks import Usage
from tidegate.wire.errors import error_event
from tidegate.wire.openai import Call
from tidegate.wire.rest import Seam
from tidegate.wire.said import Said
from tidegate.wire.sse import BadStream
from tidegate.wire.stream import Reader, StreamReader
from tidegate.wire.whole import WholeReader


class Translate(Protocol):
    """Puts one answer into another dialect as its bytes come, however they are cut.

    `failure` says why there is no more to come; what was fed since is dropped.
    """

    failure: BadStream | None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; what they come to on the other side."""
        ...

    def end(self) -> bytes:
        """There is no more: what ends the answer on the other side."""
        ...


class EngineStream(Translate, Protocol):
    """A translator of what an engine answers. `usage` is what it has told so far of one that it has not told whole.

    `in_turn` is set where another translator reads it: an answer may then have `pieces`, and name its items.
    """

    in_turn: bool

    @property
    def usage(self) -> Usage | None: ...  # noqa: D102 - told above


class ClientStream(Translate, Protocol):
    """A translator towards a client, which can also be told in mid-stream that there is no more."""

    def error(self, message: str, kind: str, code: str | None) -> bytes:
        """The stream's last event: the answer broke. `kind` and `code` are those of an OpenAI error."""
        ...


class Client(Protocol):
    """How one kind of client is spoken with. `content_type` is that of its streams."""

    content_type: bytes

    def parse(self, body: bytes, headers: Mapping[bytes, bytes]) -> Call:
        """What it asks for. Names of headers are in lower case. Raises `BadRequest`."""
        ...

    def stream(self, call: Call, now_s: Callable[[], float]) -> ClientStream:
        """A translator of a streamed answer; `now_s` tells the time, for dialects that give durations."""
        ...

    def whole(self, call: Call, now_s: Callable[[], float]) -> Callable[[bytes], bytes]:
        """What translates an answer given whole, made when it is asked for.

        It raises `BadStream` where the client's dialect has no form for the answer.
        """
        ...

    def error_body(self, status: int, message: str, kind: str, param: str | None, code: str | None) -> bytes:
        """The body of an answer that is an error."""
        ...


class Translated:
    """See `Reader`. Around a reader of the hub's: `engine` stands before it, `client` or `whole` behind it.

    `seam` joins the rest of an answer to its beginning; `stream` has then translated that.

    `whole` puts an answer that was gathered into the client's dialect. What cannot be translated is a `failure` as if
    the endpoint had sent no answer: another endpoint may do better.
    """

    __slots__ = ("_closing", "_engine", "_inner", "_result", "_seam", "_whole", "stream")

    def __init__(
        self,
        inner: StreamReader | Aggregator | WholeReader,
        *,
        engine: EngineStream | None = None,
        stream: ClientStream | None = None,
        whole: Callable[[bytes], bytes] | None = None,
        seam: Seam | None = None,
    ) -> None:
        self._inner = inner
        self._engine = engine
        self._seam = seam
        self.stream = stream
        self._whole = whole
        self._closing: bytes | None = None
        self._result: bytes | None = None

    @property
    def content(self) -> bool:
        """See `Reader`."""
        return self._inner.content

    @property
    def finished(self) -> bool:
        """See `Reader`."""
        return self._inner.finished

    @property
    def done(self) -> bool:
        """See `Reader`."""
        return self._inner.done and self.failure is None

    @property
    def done_frame(self) -> bytes:
        """See `Reader`. What ends the client's stream stands here, its usage included."""
        if self.stream is None:
            return self._inner.done_frame
        return self._closing or b""

    @property
    def usage(self) -> Usage | None:
        """See `Reader`. Of an answer that was cut short, what its engine had told by then."""
        usage = self._inner.usage
        return self._engine.usage if usage is None and self._engine is not None else usage

    @property
    def output_chunks(self) -> int:
        """See `Reader`."""
        return self._inner.output_chunks

    @property
    def tokens_seen(self) -> int:
        """See `Reader`."""
        return self._inner.tokens_seen

    @property
    def reasoned(self) -> bool:
        """See `Reader`."""
        return self._inner.reasoned

    @property
    def failure(self) -> BadStream | None:
        """See `Reader`."""
        if self._inner.failure is not None:
            return self._inner.failure
        if self._engine is not None and self._engine.failure is not None:
            return self._engine.failure
        if self._seam is not None and self._seam.failure is not None:
            return self._seam.failure
        return None if self.stream is None else self.stream.failure

    def feed(self, data: bytes) -> bytes:
        """See `Reader`."""
        if self.failure is not None or self._inner.done:
            return b""
        if self._engine is not None:
            data = self._engine.feed(data)
        return self._passed(self._inner.feed(data))

    def end(self) -> bytes:
        """See `Reader`."""
        if self.failure is not None or self._inner.done:
            return b""
        passing = b""
        if self._engine is not None:
            passing = self._inner.feed(self._engine.end())
            if self._engine.failure is not None:
                return self._passed(passing)
        return self._passed(passing + self._inner.end())

    def error(self, message: str, kind: str, param: str | None, code: str | None) -> bytes:
        """The last event of a stream that broke, in the client's dialect."""
        if self.stream is None:
            return error_event(message, kind, param, code)
        return self.stream.error(message, kind, code)

    def result(self) -> bytes:
        """The answer in the client's dialect."""
        if self._whole is not None:
            assert self._result is not None, "the answer is not complete"
            return self._result
        assert not isinstance(self._inner, StreamReader), "a stream is not gathered"
        return self._inner.result()

    def _passed(self, data: bytes) -> bytes:
        if self._seam is not None:
            data = self._seam.feed(data)
        if self.stream is not None:
            out = self.stream.feed(data) if data else b""
            if self.done and self._closing is None:
                self._closing = self.stream.end()
            return out
        if self._whole is not None and self.done and self._result is None:
            inner = self._inner
            assert not isinstance(inner, StreamReader), "a stream is not gathered"
            try:
                self._result = self._whole(inner.result())
            except BadStream as failure:
                inner.fail(failure.kept())
        return data


def reader(
    call: Call,
    *,
    streamed: bool,
    engine: EngineStream | None = None,
    client: Client | None = None,
    now_s: Callable[[], float],
    said: Said | None = None,
    seam: Seam | None = None,
    stream: ClientStream | None = None,
) -> "Reader | Translated":
    """What reads one attempt's answer. `streamed`: the engine streams it; `client` is None for OpenAI's own dialect.

    What passes of a stream is gathered in `said`. With a `seam` it is the rest of an answer whose beginning `stream`
    has translated, where its client has another dialect.
    """
    inner: StreamReader | Aggregator | WholeReader
    if not streamed:
        inner = WholeReader(call.kind, prompts=call.prompts)
    elif call.stream:
        # Other dialects always tell the usage.
        usage = call.include_usage or client is not None
        inner = StreamReader(include_usage=usage, completions=call.completions, said=said)
    else:
        inner = Aggregator(call.kind, completions=call.completions)
    if engine is not None:
        engine.in_turn = client is not None
    if seam is not None:
        return Translated(inner, engine=engine, stream=stream, seam=seam)
    if client is None:
        return inner if engine is None else Translated(inner, engine=engine)
    if call.stream:
        return Translated(inner, engine=engine, stream=client.stream(call, now_s))
    return Translated(inner, engine=engine, whole=client.whole(call, now_s))
