"""What stands in a simulated world, behind real addresses: servers that answer when its models say so."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Any, Self

import msgspec

from tests import make
from tidegate.clock import Clock
from tidegate.core.model import Request, replace
from tidegate.core.warmup import WARM_UP_TOKENS
from tidegate.engines.words import DONE, Words
from tidegate.http.limits import Limits
from tidegate.http.server import Exchange, Server
from tidegate.sim.api import OK, Api, ApiProfile
from tidegate.sim.api import Answer as Drawn
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile, Kind, Sequence
from tidegate.sim.job import Job

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream")
CHARACTERS_PER_TOKEN = 4
TALK_TOKENS_MAX = 6_400
_BLOCK_TOKENS = 64
_BLOCKS_MAX = TALK_TOKENS_MAX // _BLOCK_TOKENS


def prompt(talk: int, tokens: int) -> str:
    """That of a request of this conversation: as it has become longer, it begins as it did."""
    size = tokens * CHARACTERS_PER_TOKEN
    return f"{talk} {'word ' * tokens}"[:size]


def blocks(talk: int, tokens: int) -> tuple[int, ...]:
    """What an engine may find of it again."""
    return tuple(range(talk * _BLOCKS_MAX, talk * _BLOCKS_MAX + tokens // _BLOCK_TOKENS))


def job(request: Request, talk: int, tokens: int, output_tokens: int) -> Job:
    """A request as an engine has it."""
    return Job(
        request=request,
        prompt_tokens=tokens,
        output_tokens=output_tokens,
        blocks=blocks(talk, tokens),
        block_tokens=_BLOCK_TOKENS,
    )


class _Answer:
    """What is to be answered: `job` has the number of the request, which is its seed, for its id. One without is the
    gateway's own, which loads a model."""

    def __init__(self, exchange: Exchange) -> None:
        asked: dict[str, Any] = json.loads(exchange.body)
        text, bound = asked["messages"][0]["content"], asked["max_tokens"]
        if "seed" in asked:
            talk, _, _ = text.partition(" ")
            request = make.request(str(asked["seed"]), output_tokens_max=bound)
            self.job = job(request, int(talk), len(text) // CHARACTERS_PER_TOKEN, bound)
        else:
            self.job = Job(request=make.request("warm-up"), prompt_tokens=WARM_UP_TOKENS, output_tokens=bound)
        self._exchange, self._stream = exchange, bool(asked.get("stream"))
        body_bytes = CHARACTERS_PER_TOKEN * self.job.prompt_tokens
        self._words = Words(model=asked["model"], chat=True, body_bytes=body_bytes)

    def first(self) -> None:
        """The first token is made."""
        if self._stream:
            self._exchange.start(200, (_EVENTS,))
            self._exchange.write(self._words.role() + self._words.token(1))

    def last(self, made: int, cached_tokens: int) -> None:
        """So are all."""
        self._exchange.on_left = None
        # As in a simulated world: it tells of its cache, also that nothing was there.
        usage = {**self._words.usage(made), "prompt_tokens_details": {"cached_tokens": cached_tokens}}
        if not self._stream:
            body = json.loads(self._words.whole(made, None))
            self._exchange.respond(200, (_JSON,), json.dumps({**body, "usage": usage}).encode())
            return
        rest = b"".join(self._words.token(number) for number in range(2, made + 1))
        self._exchange.write(rest + self._words.finish() + self._words.usage_frame(usage) + DONE)
        self._exchange.end()

    def refused(self, status: int, retry_after_s: float | None) -> None:
        """There is none."""
        self._exchange.on_left = None
        headers = (_JSON,) if retry_after_s is None else (_JSON, (b"retry-after", b"%d" % retry_after_s))
        self._exchange.respond(status, headers, b'{"error":{"message":"no","type":"server_error"}}')


class _Live(ABC):
    """`async with LiveEngine(profile, clock) as engine:` then `engine.url`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._server = self._made()

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

    def _made(self) -> Server:
        return Server(self._handle, limits=Limits(), clock=self._clock, error_body=lambda _, m: (b"", m.encode()))

    def _handle(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            exchange.respond(200, (_JSON,), b'{"data": []}')
        else:
            self._asked(exchange, _Answer(exchange))

    @abstractmethod
    def _asked(self, exchange: Exchange, answer: _Answer) -> None: ...


class LiveEngine(_Live):
    """An engine."""

    def __init__(self, profile: EngineProfile, clock: Clock) -> None:
        super().__init__(clock)
        self._engine = Engine(profile, clock.now_s())
        self._answers: dict[Sequence, _Answer] = {}
        self._timer: asyncio.TimerHandle | None = None

    def _asked(self, exchange: Exchange, answer: _Answer) -> None:
        now_s = self._clock.now_s()
        self._advance(now_s)
        sequence = self._engine.submit(answer.job, now_s)
        assert sequence is not None, "there is room for all that is asked"
        self._answers[sequence] = answer
        exchange.on_left = lambda: self._left(sequence)
        self._plan()

    async def freeze(self, for_s: float) -> None:
        """It stands still for so many seconds."""
        now_s = self._clock.now_s()
        self._advance(now_s)
        self._engine.freeze(now_s, now_s + for_s)
        self._plan()

    async def crash(self, back_s: float) -> None:
        """It dies now, and is back in so many seconds."""
        now_s = self._clock.now_s()
        self._advance(now_s)
        self._answers.clear()
        self._engine.fail(now_s, now_s + back_s)
        port = self._server.port
        await self._server.close(0.0)
        await asyncio.sleep(back_s)
        self._server = self._made()
        await self._server.start("127.0.0.1", port)

    def _left(self, sequence: Sequence) -> None:
        if self._answers.pop(sequence, None) is not None:
            now_s = self._clock.now_s()
            self._advance(now_s)
            self._engine.cancel(sequence.job.request.id, now_s)
            self._plan()

    def _advance(self, now_s: float) -> None:
        for told in self._engine.advance(now_s):
            answer = self._answers.get(told.sequence)
            if answer is None:
                continue
            if told.kind is Kind.FIRST:
                answer.first()
            else:
                del self._answers[told.sequence]
                answer.last(told.sequence.generated, told.sequence.cached_tokens)

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


class NumberedApi(Api):
    """What it draws for a request follows from its number, and not from who gave it an id: `numbers` by these ids."""

    def __init__(self, profile: ApiProfile, numbers: dict[str, str]) -> None:
        super().__init__(profile, Chance(1), "api")
        self._numbers = numbers

    def answer(self, job: Job, now_s: float) -> Drawn:
        return super().answer(self._numbered(job), now_s)

    def ended(self, job: Job, now_s: float) -> None:
        super().ended(self._numbered(job), now_s)

    def _numbered(self, job: Job) -> Job:
        number = self._numbers.get(job.request.id, job.request.id)
        return msgspec.structs.replace(job, request=replace(job.request, id=number))


class LiveApi(_Live):
    """A fleet behind an API."""

    def __init__(self, profile: ApiProfile, clock: Clock) -> None:
        super().__init__(clock)
        self._api = NumberedApi(profile, {})
        self._timers: dict[Exchange, asyncio.TimerHandle] = {}

    def _asked(self, exchange: Exchange, answer: _Answer) -> None:
        drawn = self._api.answer(answer.job, self._clock.now_s())
        if drawn.status != OK:
            exchange.on_left = lambda: self._timers.pop(exchange).cancel()
            self._later(exchange, drawn.ttft_s, lambda: answer.refused(drawn.status, drawn.retry_after_s))
            return

        def first() -> None:
            answer.first()
            self._later(exchange, drawn.tpot_s * (answer.job.target - 1), last)

        def last() -> None:
            self._api.ended(answer.job, self._clock.now_s())
            answer.last(answer.job.target, drawn.cached_tokens)

        def left() -> None:
            self._timers.pop(exchange).cancel()
            self._api.ended(answer.job, self._clock.now_s())

        exchange.on_left = left
        self._later(exchange, drawn.ttft_s, first)

    def _later(self, exchange: Exchange, after_s: float, act: Callable[[], None]) -> None:
        def due() -> None:
            del self._timers[exchange]
            act()

        self._timers[exchange] = asyncio.get_running_loop().call_later(after_s, due)
