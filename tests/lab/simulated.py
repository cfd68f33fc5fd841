"""A simulated engine behind a real address: its answers come, token by token, when the simulation says so.

A word is a token, and prompts that begin alike share whole blocks of sixteen.
"""

import asyncio
from math import inf
from types import TracebackType
from typing import Any, Self

import msgspec
import xxhash

from tidegate.clock import Clock
from tidegate.core.model import Request
from tidegate.engines.words import DONE, Words
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server
from tidegate.sim.engine import Engine, EngineProfile, Kind, Sequence
from tidegate.sim.job import Job

BLOCK_TOKENS = 16


class _Streaming:
    """One answer: how many of its tokens were sent, and the engine's step at its first."""

    def __init__(self, exchange: Exchange, words: Words, sequence: Sequence) -> None:
        self.exchange, self.words, self.sequence = exchange, words, sequence
        self.sent = 0
        self.first_step = 0


class SimulatedEngine:
    """`async with SimulatedEngine(profile, clock) as engine`, then `engine.url`. `told` is what it tells of itself.

    A GET takes `get_s`, and its template puts `template_tokens` before each prompt.
    """

    def __init__(
        self,
        profile: EngineProfile,
        clock: Clock,
        *,
        request_s: float = 0.0,
        get_s: float = 0.0,
        template_tokens: int = 0,
        told: bool = True,
    ) -> None:
        self.engine = Engine(profile, 0.0)
        self.requests = self.left = 0
        self.tokens = 0
        self.busy_with_others = 0
        self._clock, self._request_s, self._told = clock, request_s, told
        self._get_s, self._template_tokens = get_s, template_tokens
        self._streams: dict[str, _Streaming] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._server = Server(
            self._handle, limits=Limits(), clock=clock, error_body=lambda _, m: (b"text/plain", m.encode())
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    async def __aenter__(self) -> Self:
        await self._server.start("127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.close(0.0)

    def _handle(self, exchange: Exchange) -> None:
        profile = self.engine.profile
        known: dict[str, Any] = {
            "/health": {},
            "/v1/models": {"data": [{"id": "sim", "owned_by": "llamacpp" if self._told else "somebody"}]},
        }
        if self._told:
            window = profile.kv_tokens // profile.slots
            known["/props"] = {"default_generation_settings": {"n_ctx": window}, "total_slots": profile.slots}
        if exchange.method == "POST":
            self.requests += 1
            asyncio.get_running_loop().call_later(self._request_s, self._begin, exchange)
        elif self._get_s:
            asyncio.get_running_loop().call_later(self._get_s, self._tell, exchange, known)
        else:
            self._tell(exchange, known)

    def _tell(self, exchange: Exchange, known: dict[str, Any]) -> None:
        if exchange.path == "/metrics" and self._told:
            running = len(self._streams) + self.busy_with_others
            exchange.respond(200, (), b"llamacpp:requests_processing %d\nllamacpp:requests_deferred 0\n" % running)
        elif exchange.path in known:
            exchange.respond(200, (), msgspec.json.encode(known[exchange.path]))
        else:
            exchange.respond(404, (), b"")

    def _begin(self, exchange: Exchange) -> None:
        asked = msgspec.json.decode(exchange.body)
        text = ["template"] * self._template_tokens
        text += " ".join(message["content"] for message in asked["messages"]).split()
        now_s, name = self._clock.now_s(), f"r{self.requests}-{len(self._streams)}"
        blocks = [
            xxhash.xxh64_intdigest(" ".join(text[:end]).encode())
            for end in range(BLOCK_TOKENS, len(text) + 1, BLOCK_TOKENS)
        ]
        job = Job(
            request=Request(id=name, model="sim", klass="chat", prompt_bytes=1, arrived_s=now_s, prompt_tokens=1),
            prompt_tokens=len(text),
            output_tokens=asked["max_tokens"],
            blocks=tuple(blocks),
            block_tokens=BLOCK_TOKENS,
        )
        self._advance()
        sequence = self.engine.submit(job, now_s)
        assert sequence is not None, "it fits"
        words = Words(model="sim", chat=True, body_bytes=0)
        self._streams[name] = _Streaming(exchange, words, sequence)
        exchange.on_left = lambda: self._leave(name)
        exchange.start(200, ((b"content-type", b"text/event-stream"),))
        exchange.write(words.role())
        self._plan()

    def _leave(self, name: str) -> None:
        self.left += 1
        del self._streams[name]
        self.engine.cancel(name, self._clock.now_s())
        self._plan()

    def _plan(self) -> None:
        # Iteration by iteration: a client is to see each token when it is made.
        self.engine._cut(self.engine._from_s)
        if self._timer is not None:
            self._timer.cancel()
        if self.engine.next_s < inf:
            self._timer = asyncio.get_running_loop().call_at(self.engine.next_s, self._turn)

    def _turn(self) -> None:
        self._advance()
        self._plan()

    def _advance(self) -> None:
        while self.engine.next_s <= self._clock.now_s():
            told = self.engine.advance(self.engine.next_s)
            for one in told:
                name = one.sequence.job.request.id
                if one.kind is Kind.FIRST:
                    self._streams[name].first_step = self.engine._step
            for stream in self._streams.values():
                if stream.sequence.first_s is not None:
                    self._send(stream, 1 + self.engine._step - stream.first_step)
            for one in told:
                if one.kind is Kind.DONE:
                    self._finish(self._streams.pop(one.sequence.job.request.id))
            self.engine._cut(self.engine._from_s)

    def _send(self, stream: _Streaming, made: int) -> None:
        while stream.sent < min(made, stream.sequence.target):
            stream.sent += 1
            stream.exchange.write(stream.words.token(stream.sent))

    def _finish(self, stream: _Streaming) -> None:
        self._send(stream, stream.sequence.target)
        prompt = stream.sequence.job.prompt_tokens
        self.tokens += prompt + stream.sent
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": stream.sent,
            "total_tokens": prompt + stream.sent,
        }
        if self._told:
            usage["prompt_tokens_details"] = {"cached_tokens": stream.sequence.cached_tokens}
        stream.exchange.on_left = None
        stream.exchange.write(stream.words.finish())
        stream.exchange.write(stream.words.usage_frame(usage))
        stream.exchange.write(DONE)
        stream.exchange.end()
