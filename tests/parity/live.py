"""A simulated engine behind a real address: a server that answers when the model of an engine says so."""

import asyncio
import json
from collections import deque
from math import inf
from types import TracebackType
from typing import Any, Self

from tests import make
from tidegate.clock import Clock
from tidegate.engines.words import DONE, Words
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server
from tidegate.sim.engine import Engine, EngineProfile, Kind, Sequence, Told
from tidegate.sim.job import Job

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream")
CHARACTERS_PER_TOKEN = 4


class LiveEngine:
    """`async with LiveEngine(profile, clock) as engine:` then `engine.url`. A token is four characters of text."""

    def __init__(self, profile: EngineProfile, clock: Clock) -> None:
        self._clock = clock
        self._engine = Engine(profile, self._clock.now_s())
        self._answers: dict[Sequence, tuple[Exchange, Words]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._told = deque[Told]()
        self._telling = False
        self._server = Server(
            self._handle, limits=Limits(), clock=self._clock, error_body=lambda _, m: (b"", m.encode())
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
        if exchange.method == "GET":
            exchange.respond(200, (_JSON,), b'{"data": []}')
            return
        asked: dict[str, Any] = json.loads(exchange.body)
        text = asked["messages"][0]["content"]
        self._count += 1
        bound = asked["max_tokens"]
        request = make.request(f"live{self._count}", output_tokens_max=bound)
        job = Job(request=request, prompt_tokens=len(text) // CHARACTERS_PER_TOKEN, output_tokens=bound)
        now_s = self._clock.now_s()
        self._advance(now_s)
        sequence = self._engine.submit(job, now_s)
        assert sequence is not None, "there is room for all that is asked"
        words = Words(model=asked["model"], chat=True, body_bytes=CHARACTERS_PER_TOKEN * job.prompt_tokens)
        self._answers[sequence] = exchange, words
        exchange.on_left = lambda: self._left(sequence)
        exchange.start(200, (_EVENTS,))
        self._plan()

    def _left(self, sequence: Sequence) -> None:
        if self._answers.pop(sequence, None) is not None:
            self._engine.cancel(sequence.job.request.id, self._clock.now_s())
            self._plan()

    def _advance(self, now_s: float) -> None:
        self._told += self._engine.advance(now_s)
        self._tell()

    def _tell(self) -> None:
        """One by one: who listens has them in the order of the engine."""
        if self._telling or not self._told:
            return
        told = self._told.popleft()
        if self._told:
            asyncio.get_running_loop().call_soon(self._tell_next)
            self._telling = True
        answer = self._answers.get(told.sequence)
        if answer is None:
            return
        exchange, words = answer
        if told.kind is Kind.FIRST:
            exchange.write(words.role() + words.token(1))
            return
        del self._answers[told.sequence]
        exchange.on_left = None
        made = told.sequence.generated
        rest = b"".join(words.token(number) for number in range(2, made + 1))
        # As in a simulated world: it tells of its cache, also that nothing was there.
        cached = {"cached_tokens": told.sequence.cached_tokens}
        usage = words.usage_frame({**words.usage(made), "prompt_tokens_details": cached})
        exchange.write(rest + words.finish() + usage + DONE)
        exchange.end()

    def _tell_next(self) -> None:
        self._telling = False
        self._tell()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._engine.next_s < inf:
            wait_s = max(0.0, self._engine.next_s - self._clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._advance(self._clock.now_s())
        self._plan()
