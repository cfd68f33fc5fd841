"""One engine, asked as a client would ask it, with the time at which each piece of the answer came."""

import asyncio
import ssl
from collections.abc import Callable
from math import inf
from typing import Any

import msgspec

from tidegate.clock import Clock
from tidegate.config.address import Url
from tidegate.config.endpoint import EngineKind
from tidegate.core.model import Capability
from tidegate.engines.base import Header, ProbeAnswer, ProbeRequest, Signals
from tidegate.engines.kinds import dialect_of
from tidegate.http.client import Origin, Pool, TransportError, fetch
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import parse
from tidegate.wire.stream import Reader
from tidegate.wire.translate import Translated, reader

CONNECTIONS_MAX = 256  # as many as are asked for at once, and probes
PROBE_S_MAX = 10.0  # llama.cpp answers when its batch is done
PROBE_BYTES_MAX = 1024 * 1024  # of metrics
ERROR_BYTES_MAX = 16 * 1024
ANSWER_BYTES_MAX = 8 * 1024 * 1024  # a token takes 300 bytes, and no answer that is asked for has 1,000
# These make as many tokens as they are asked for, whatever the model wants to say.
_OBEDIENT = frozenset({EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.SGLANG})
_TASK = "Write the numbers from one to a thousand as words, and nothing else."


class AskError(Exception):
    """There is no answer that can be timed. The message says why, without what was asked and without any key.

    `too_long`: the prompt did not fit, which an engine says before it computes anything. `late`: the time was up.
    """

    def __init__(self, message: str, *, too_long: bool = False, late: bool = False) -> None:
        super().__init__(message)
        self.too_long, self.late = too_long, late


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. Times are since the epoch; `token_s` has one for each piece of content.

    `cached_tokens` is None where the engine does not tell.
    """

    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int
    sent_s: float
    token_s: tuple[float, ...]

    @property
    def ttft_s(self) -> float:
        """From sending to the first piece of content."""
        return self.token_s[0] - self.sent_s

    @property
    def tpot_s(self) -> float:
        """Between tokens; there are two at least."""
        return (self.token_s[-1] - self.token_s[0]) / (self.output_tokens - 1)


class _Receiver:
    """Times the pieces of one answer."""

    def __init__(self, answer: Reader | Translated, clock: Clock, heard: Callable[[int], None] | None) -> None:
        self._heard = heard
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.error_body = b""
        self.token_s: list[float] = []
        self._answer = answer
        self._clock = clock
        self._room = ANSWER_BYTES_MAX

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """See `Receiver`."""
        self.status, self.headers = status, headers

    def on_data(self, data: bytes) -> None:
        """See `Receiver`."""
        if self.status != 200:
            self.error_body = (self.error_body + data)[:ERROR_BYTES_MAX]
            return
        self._room -= len(data)
        before = self._answer.output_chunks
        self._answer.feed(data)
        self.token_s += [self._clock.now_s()] * (self._answer.output_chunks - before)
        if self._heard is not None:
            self._heard(len(self.token_s))
        if self._answer.failure is not None or self._room < 0:
            self._end()

    def on_end(self) -> None:
        """See `Receiver`."""
        if self.status == 200:
            self._answer.end()
        self._end()

    def on_error(self, error: TransportError) -> None:
        """See `Receiver`."""
        if not self.done.done():
            self.done.set_exception(AskError(f"no answer: {error.cause.value.replace('_', ' ')}"))

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Asker:
    """Connections to one engine. `async with Asker(...) as asker`; what is under way at the end is cancelled."""

    def __init__(
        self, url: Url, kind: EngineKind, model: str, key: tuple[Header, ...], clock: Clock, until_s: float = inf
    ) -> None:
        """`key` are the headers that a key is sent in; they are never shown. No GET is waited for after `until_s`."""
        self.url, self.kind, self.model, self.clock = url, kind, model, clock
        self._until_s = until_s
        self._dialect = dialect_of(kind.value, url.host, url.path, model)
        self._headers = self._dialect.headers(key)
        tls = ssl.create_default_context() if url.tls else None
        self._pool = Pool(Origin(url.host, url.port, tls), clock=clock, connections_max=CONNECTIONS_MAX)

    async def __aenter__(self) -> "Asker":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def ask(
        self,
        prompt: str,
        output_tokens: int,
        bound_s: float,
        *,
        pad_bytes: int = 0,
        heard: Callable[[int], None] | None = None,
    ) -> Answered:
        """Have so many tokens made. `pad_bytes` are sent along that mean nothing. Raises `AskError`.

        `heard` is told how many pieces of content there are, as they come.

        A cancelled ask closes its connection, which is how an engine learns that nobody waits any more.
        """
        body: dict[str, Any] = {
            "model": self.model,
            # At the very beginning: what a template puts before a user's words may be the same each time, and cached.
            "messages": [{"role": "system", "content": prompt}, {"role": "user", "content": _TASK}],
            "max_tokens": output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.kind in _OBEDIENT:
            body["ignore_eos"] = True
        call = parse(msgspec.json.encode(body), Capability.CHAT)
        try:
            outgoing = self._dialect.outgoing(call, self.model, self._headers)
        except BadRequest as refusal:
            raise AskError(refusal.message) from None
        translate = self._dialect.translator(streamed=True, now_s=self.clock.now_s())
        answer = reader(call, streamed=True, engine=translate, now_s=self.clock.now_s)
        receiver = _Receiver(answer, self.clock, heard)
        sent_s = self.clock.now_s()
        under_way = self._pool.send(
            b"POST",
            outgoing.target,
            outgoing.headers,
            outgoing.body + b" " * pad_bytes,
            receiver,
            # The bound below is over first.
            first_byte_timeout_s=2.0 * bound_s + 1.0,
            idle_timeout_s=2.0 * bound_s + 1.0,
        )
        try:
            async with asyncio.timeout(bound_s):
                await receiver.done
        except TimeoutError:
            raise AskError(f"no complete answer within {bound_s:.0f} s", late=True) from None
        finally:
            under_way.cancel()
        return self._judged(receiver, answer, sent_s)

    def _judged(self, receiver: _Receiver, answer: Reader | Translated, sent_s: float) -> Answered:
        if receiver.status != 200:
            failure = self._dialect.failure(receiver.status, receiver.headers, receiver.error_body, self.clock.now_s())
            too_long = failure.code == "context_length_exceeded"
            raise AskError(f"it answered {receiver.status}: {failure.message[:200]}", too_long=too_long)
        if answer.failure is not None:
            raise AskError(f"it {answer.failure}")
        usage = answer.usage
        if not answer.finished:
            raise AskError("its answer is without end")
        if usage is None or not usage.prompt_tokens or not usage.output_tokens:
            raise AskError("it does not count tokens: there is no usage in its answer")
        if not receiver.token_s:
            raise AskError("there is no content in its answer")
        return Answered(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            sent_s=sent_s,
            token_s=tuple(receiver.token_s),
        )

    async def rtt_s(self) -> float | None:
        """One round trip on a connection that is open, by the cheapest thing to ask; None where that was lost."""
        probe = self._dialect.probes()[0]
        warm = self._pool.statistics().idle > 0
        sent_s = self.clock.now_s()
        answer = await self._get(probe.target)
        return self.clock.now_s() - sent_s if warm and answer is not None else None

    async def warm(self, connections: int) -> None:
        """Have so many connections open, so that none has to be made when it counts."""
        await asyncio.gather(*(self.rtt_s() for _ in range(connections)))

    async def signals(self) -> Signals:
        """What its probes tell: how much it runs, how large its window is. Not more often than every two seconds."""
        return self._dialect.signals([await self._probe(probe) for probe in self._dialect.probes()])

    async def _probe(self, probe: ProbeRequest) -> ProbeAnswer | None:
        answer = await self._get(probe.target)
        if probe.former and answer is not None and answer.status == 404:
            answer = await self._get(probe.former)
        return answer

    async def _get(self, target: bytes) -> ProbeAnswer | None:
        bound_s = min(PROBE_S_MAX, self._until_s - self.clock.now_s())
        if bound_s <= 0.0:
            return None
        try:
            status, _, body = await fetch(self._pool, b"GET", target, self._headers, b"", bound_s, PROBE_BYTES_MAX)
        except TransportError:
            return None
        return ProbeAnswer(status=status, body=body)
