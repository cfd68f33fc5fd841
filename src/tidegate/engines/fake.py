"""An engine without a model: a real server on loopback, with behaviour to order.

It speaks OpenAI's dialects and Anthropic's, and answers the probes of every kind, so that it can stand in for any.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from tidegate.clock import Clock
from tidegate.engines.faults import Fault
from tidegate.engines.words import DONE, Words, event
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server
from tidegate.wire.anthropic.answer import MessageStream, whole
from tidegate.wire.responses.client import Responses
from tidegate.wire.translate import ClientStream

__all__ = ["FAKED", "FakeEngine", "Fault", "Script", "Seen"]

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream")
_HTML = (b"content-type", b"text/html")
_TEXT = (b"content-type", b"text/plain; version=0.0.4")
_ERROR = {"error": {"message": "out of memory", "type": "server_error"}}

ASKED_MAX = 64  # of a process that runs for days

_GAUGES = (
    (b"llamacpp:requests_processing", b"llamacpp:requests_deferred"),
    (b"vllm:num_requests_running", b"vllm:num_requests_waiting"),
    (b"sglang:num_running_reqs", b"sglang:num_queue_reqs"),
)


FAKED = (
    Fault.SILENT,
    Fault.STALL,
    Fault.CUT,
    Fault.UNFINISHED,
    Fault.MALFORMED,
    Fault.ERROR_EVENT,
    Fault.HTML,
)
"""The faults that can be committed through a server that speaks correct HTTP; `tidegate chaos` commits them all."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """How requests are answered. Seconds until the first token, and between tokens.

    `status` other than 200 answers with that and `error`, all with `headers`. `answer` is given as it stands, in place
    of words. `pad` is added to each streamed token. `fault` is one of `FAKED`, and is committed after `fault_after`
    tokens where it comes after content. With a `certainty` below 1 chats have log-probabilities where they ask for
    them: each token is that likely, and one other candidate the rest.
    """

    first_s: float = 0.0
    token_s: float = 0.0
    tokens: int = 4
    usage: bool = True
    status: int = 200
    error: bytes = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'
    headers: tuple[tuple[bytes, bytes], ...] = ()
    answer: bytes = b""
    fault: Fault | None = None
    fault_after: int = 2
    pad: str = ""
    certainty: float | None = None

    def __post_init__(self) -> None:
        assert self.fault is None or self.fault in FAKED, "tidegate chaos commits this one"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it arrived."""

    path: str
    headers: dict[bytes, bytes]
    body: bytes


class _Message(msgspec.Struct):
    role: str = ""
    content: object = None


class _Asked(msgspec.Struct):
    model: str = ""
    messages: list[_Message] = []
    prompt: object = None
    stream: bool = False
    logprobs: bool | int | None = None

    @property
    def said(self) -> int:
        """How many of our words the prompt ends with, where an answer may go on with them: `w1 w2` are two."""
        last = self.messages[-1] if self.messages else _Message("assistant", self.prompt)
        words = last.content.split() if isinstance(last.content, str) and last.role == "assistant" else []
        number = words[-1][1:] if words else ""
        count = int(number) if number.isdecimal() and len(number) <= len(str(len(words))) else 0
        return count if words[-count:] == [f"w{number}" for number in range(1, count + 1)] else 0


class FakeEngine:
    """`async with FakeEngine() as engine:` then `engine.url`. Change `engine.script` at any time.

    `seen` holds the inference requests in order, `left` counts clients that went before their answer was complete,
    `peak` is the most that were in flight at once, `made` all tokens that were made, `paused` the answers that wait
    for somebody to read them. While it is not `resident` it says that its model is unloaded, and answers all the same;
    while it is `loading` it says that it cannot. `asked` are the paths of all that was asked without a body.
    """

    def __init__(
        self, script: Script | None = None, *, model: str = "fake", context_tokens: int = 8192, weights: str = ""
    ) -> None:
        """`weights` is what it says that it has loaded, nothing where it is empty. It may be changed too."""
        self.script = script or Script()
        self.weights = weights
        self.seen: list[Seen] = []
        self.left = 0
        self.in_flight = 0
        # What somebody else has there, who is not to be seen: it runs and waits, in what is told of the load.
        self.others = (0, 0)
        self.peak = 0
        self.made = 0
        self.paused = 0
        self.up = True
        self.resident = True
        # How many requests it says that it runs at once.
        self.slots: int | None = None
        self.loading = False
        self.asked: list[str] = []
        self._model = model
        self._context_tokens = context_tokens
        self._server = Server(
            self._handle, limits=Limits(), clock=Clock(), error_body=lambda _, m: (_JSON[1], m.encode())
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._server.start("127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.close(0.0)

    def _handle(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            self.asked = [*self.asked[1 - ASKED_MAX :], exchange.path]
        if exchange.path == "/health" and self.loading:
            exchange.respond(
                503, (_JSON,), b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'
            )
        elif exchange.path == "/health":
            exchange.respond(200 if self.up else 503, (_JSON,), b"{}")
        elif exchange.path == "/v1/models":
            entry = {"id": self._model, "object": "model", "max_model_len": self._context_tokens, "root": self.weights}
            meta = {"size": 1000, "n_params": 500, "n_vocab": 100, "vocab_type": 2, "ftype": "Q4_K - Medium"}
            listed = {"data": [{**entry, "meta": meta} if self.weights else entry]}
            exchange.respond(200 if self.up else 503, (_JSON,), msgspec.json.encode(listed))
        elif exchange.path == "/props":
            props = {
                "default_generation_settings": {"n_ctx": self._context_tokens},
                "model_path": self.weights,
                "is_sleeping": not self.resident,
                "total_slots": self.slots,
            }
            exchange.respond(200, (_JSON,), msgspec.json.encode(props))
        elif exchange.path == "/metrics":
            runs, waits = self.in_flight + self.others[0], self.others[1]
            gauges = b"".join(b"%b %d\n%b %d\n" % (running, runs, queued, waits) for running, queued in _GAUGES)
            exchange.respond(200, (_TEXT,), gauges)
        elif exchange.path == "/server_info":
            told = {"context_length": self._context_tokens, "api_key": "the engine's own", "model_path": self.weights}
            exchange.respond(200, (_JSON,), msgspec.json.encode(told))
        elif exchange.path == "/api/tags":
            kept = {"models": [{"name": self._model, "model": self._model, "digest": self.weights}]}
            exchange.respond(200, (_JSON,), msgspec.json.encode(kept))
        elif exchange.path in ("/api/version", "/version"):
            exchange.respond(200 if self.up else 503, (_JSON,), b'{"version":"0.0.0"}')
        elif exchange.path == "/api/ps":
            models = [{"name": self._model, "context_length": self._context_tokens}]
            loaded = {"models": models if self.resident else []}
            exchange.respond(200, (_JSON,), msgspec.json.encode(loaded))
        elif exchange.method != "POST":
            exchange.respond(404, (_JSON,), b'{"error":{"message":"File Not Found","type":"not_found_error"}}')
        else:
            self.seen.append(Seen(path=exchange.path, headers=exchange.headers, body=exchange.body))
            _Answer(self, exchange, msgspec.json.decode(exchange.body, type=_Asked), self.script).begin()


class _Answer:
    """One answer on its way, token by token."""

    def __init__(self, engine: FakeEngine, exchange: Exchange, asked: _Asked, script: Script) -> None:
        self._engine = engine
        self._exchange = exchange
        self._asked = asked
        self._script = script
        self._said = self._made = asked.said
        self._stream, self._whole = _spoken(exchange)
        chat = exchange.path.endswith("/chat/completions") or self._stream is not None
        certainty = script.certainty if chat and asked.logprobs else None
        self._words = Words(model=asked.model, chat=chat, body_bytes=len(exchange.body), certainty=certainty)
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False

    def begin(self) -> None:
        """Start to answer."""
        exchange, script = self._exchange, self._script
        if script.status != 200:
            exchange.respond(script.status, (_JSON, *script.headers), script.error)
            return
        if script.answer:
            exchange.respond(200, (_EVENTS if self._asked.stream else _JSON,), script.answer)
            return
        if exchange.path.endswith("/embeddings"):
            exchange.respond(200, (_JSON,), msgspec.json.encode(self._embeddings()))
            return
        engine = self._engine
        engine.in_flight += 1
        engine.peak = max(engine.peak, engine.in_flight)
        exchange.on_left = self._left
        if script.fault is Fault.SILENT:
            return
        if script.fault is Fault.HTML:
            engine.in_flight -= 1
            exchange.respond(200, (_HTML,), b"<html><body>Sign in</body></html>")
            return
        if self._asked.stream:
            exchange.on_pause, exchange.on_resume = self._pause, self._resume
            exchange.start(200, (_EVENTS, *script.headers))
            self._write(self._words.role())
        if script.fault is not Fault.STALL:
            self._after(script.first_s, self._token)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, act)

    def _pause(self) -> None:
        self._paused = True
        self._engine.paused += 1

    def _resume(self) -> None:
        self._paused = False
        self._engine.paused -= 1
        if self._timer is not None:
            self._timer.cancel()
        self._after(0.0, self._token)

    def _token(self) -> None:
        script = self._script
        if self._paused:
            return
        if script.fault is not None and (self._made >= script.fault_after or not self._asked.stream):
            self._fail(script.fault)
        elif self._made < script.tokens:
            self._made += 1
            self._engine.made += 1
            if self._asked.stream:
                self._write(self._words.token(self._made, script.pad))
            self._after(script.token_s, self._token)
        else:
            self._finish()

    def _fail(self, fault: Fault) -> None:
        exchange = self._exchange
        self._engine.in_flight -= 1
        exchange.on_left = None
        if not self._asked.stream:
            self._fail_whole(fault)
            return
        match fault:
            case Fault.CUT:
                exchange.abort()
                return
            case Fault.MALFORMED:
                exchange.write(b'data: {"choices": [{"delta"\n\n')
            case Fault.ERROR_EVENT if self._stream is not None:
                exchange.write(self._stream.error("out of memory", "api_error", None))
            case Fault.ERROR_EVENT:
                exchange.write(event(_ERROR))
            case _:
                pass
        exchange.end()

    def _fail_whole(self, fault: Fault) -> None:
        exchange = self._exchange
        if fault is Fault.ERROR_EVENT:
            exchange.respond(200, (_JSON,), msgspec.json.encode(_ERROR))
            return
        exchange.start(200, (_JSON,))
        exchange.write(b'{"id": "fake-1", "choices": [{"message"')
        if fault is Fault.CUT:
            exchange.abort()
        else:
            exchange.end()

    def _finish(self) -> None:
        exchange = self._exchange
        self._engine.in_flight -= 1
        exchange.on_left = None
        words = self._words
        usage = words.usage(self._made - self._said) if self._script.usage else None
        if self._asked.stream:
            self._write(words.finish())
            if usage is not None:
                self._write(words.usage_frame(usage))
            exchange.write(DONE if self._stream is None else self._stream.end())
            exchange.end()
        else:
            body = self._whole(words.whole(self._made, usage))
            exchange.respond(200, (_JSON, *self._script.headers), body)

    def _write(self, frame: bytes) -> None:
        self._exchange.write(frame if self._stream is None else self._stream.feed(frame))

    def _embeddings(self) -> dict[str, object]:
        """One vector; where it points has no meaning."""
        usage = {"prompt_tokens": len(self._exchange.body) // 4, "total_tokens": len(self._exchange.body) // 4}
        data = [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
        return {"object": "list", "data": data, "model": self._asked.model, "usage": usage}

    def _left(self) -> None:
        self._engine.left += 1
        self._engine.in_flight -= 1
        self._engine.paused -= self._paused
        if self._timer is not None:
            self._timer.cancel()


def _spoken(exchange: Exchange) -> tuple[ClientStream | None, Callable[[bytes], bytes]]:
    """What puts an answer of the hub's into the dialect of the address: a stream, where that is not the hub's own, and
    a whole one."""
    if exchange.path.endswith("/messages"):
        return MessageStream(), whole
    if exchange.path.endswith("/responses"):
        client = Responses()
        call = client.parse(exchange.body, exchange.headers)
        return client.stream(call, Clock().now_s), client.whole(call, Clock().now_s)
    return None, lambda body: body
