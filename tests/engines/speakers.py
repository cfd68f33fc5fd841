"""A dialect and a server that speaks it, called as the gateway calls them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
from msgspec import Raw, structs

from tests.http.harness import HOST, eventually
from tidegate.clock import Clock
from tidegate.core.model import Capability, Endpoint, Headroom
from tidegate.engines.base import Dialect, Failure, ProbeAnswer, Signals
from tidegate.engines.fake import FakeEngine, Script
from tidegate.engines.kinds import KINDS
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Origin, Pool, fetch
from tidegate.wire import embeddings
from tidegate.wire.aggregate import Aggregator
from tidegate.wire.openai import Call, parse
from tidegate.wire.responses.outward import OUTPUT_TOKENS_MIN
from tidegate.wire.translate import Client, Translated, reader
from tidegate.wire.whole import WholeReader

# Kinds whose dialect is not the hub's: they serve chats alone.
TRANSLATED = frozenset({"anthropic", "openai-responses"})

CASSETTES = Path(__file__).with_name("cassettes")
LONG = "word " * 1500  # beyond a window of 1024


def recorded(name: str, engine: str = "llamacpp") -> dict[str, Any]:
    """What an engine really answered: status, headers and body."""
    return dict(json.loads((CASSETTES / engine / f"{name}.json").read_text())["response"])


def chat(prompt: str = "Say hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 4} | fields


def completion(prompt: str = "Say hi", **fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": prompt, "temperature": 0, "max_tokens": 4} | fields


def read_asked(data: bytes, body: dict[str, Any]) -> Call:
    if "input" in body:
        return embeddings.parse(data)
    return parse(data, Capability.CHAT if "messages" in body else Capability.COMPLETION)


class Called:
    """One call under way, and what came of it. See `Listener`."""

    attempt: Attempt

    def __init__(self) -> None:
        self.contents = 0
        self.written = b""
        self.failure: Failure | None = None
        self.over = asyncio.Event()

    def uploaded(self, attempt: Attempt, upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """Nobody asks."""

    def headroom(self, attempt: Attempt, told: Headroom) -> None:
        raise AssertionError(told)

    def content(self, attempt: Attempt, first: bytes) -> None:
        self.contents += 1
        attempt.relay = self._write
        self._write(first)

    def _write(self, data: bytes) -> None:
        self.written += data

    def completed(self, attempt: Attempt, rest: bytes) -> None:
        self.written += rest
        self.over.set()

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        self.failure = failure
        self.over.set()

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(frame[6:]) for frame in self.written.split(b"\n\n") if frame]

    @property
    def answer(self) -> Any:
        reader = self.attempt.reader
        assert isinstance(reader, Aggregator | WholeReader | Translated)
        return json.loads(reader.result())


class Speaker:
    """`call` sends what a client asked for, `probe` asks how it is.

    `tells_window`, `tells_load`, `tells_slots`: a probe knows it. `notices_leaving`: also while its answer is not
    streamed.
    """

    def __init__(self, kind: str, port: int, model: str) -> None:
        self.kind = kind
        self.model = model
        self.dialect: Dialect = KINDS[kind]("", model)
        self.clock = Clock()
        self.pool = Pool(Origin(HOST, port), clock=self.clock, sweep_s=0.01)
        self.tells_window = kind not in ("anthropic",)
        self.tells_load = kind in ("llamacpp", "sglang", "vllm")
        self.tells_slots = False
        self.notices_leaving = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.pool.close()

    def must_serve(self, body: dict[str, Any]) -> None:
        """Skip the test where its dialect has no such request."""
        if self.kind in TRANSLATED and "messages" not in body:
            pytest.skip("this dialect serves chats alone")

    def begin(self, body: dict[str, Any], client: Client | None = None) -> Called:
        """Send it, for a client that speaks a dialect of its own where one is given."""
        data = json.dumps(body).encode()
        asked = self._with_room(read_asked(data, body) if client is None else client.parse(data, {}))
        outgoing = self.dialect.outgoing(asked, self.model, ((b"x-request-id", b"1"),))
        now_s = self.clock.now_s
        translator = self.dialect.translator(streamed=outgoing.streamed, now_s=now_s())
        made = reader(asked, streamed=outgoing.streamed, engine=translator, client=client, now_s=now_s)
        called = Called()
        endpoint = Endpoint(name="e", site="s", local=True, models=(self.model,), context_tokens=8192, concurrency=1)
        upstream = Upstream(endpoint, self.dialect, self.pool, self.model, ())
        attempt = called.attempt = Attempt(upstream, outgoing, made, called, now_s, hedge=False)
        call = self.pool.send(
            b"POST",
            outgoing.target,
            outgoing.headers,
            outgoing.body,
            attempt,
            first_byte_timeout_s=30.0,
            idle_timeout_s=30.0,
        )
        attempt.carry(call)
        return called

    def _with_room(self, asked: Call) -> Call:
        """The same with as large a bound as its dialect takes; how many tokens come is the server's to say."""
        if self.kind != "openai-responses" or "max_tokens" not in asked.fields:
            return asked
        bound = max(OUTPUT_TOKENS_MIN, int(bytes(asked.fields["max_tokens"])))
        return structs.replace(asked, fields=asked.fields | {"max_tokens": Raw(b"%d" % bound)})

    async def call(self, body: dict[str, Any], client: Client | None = None) -> Called:
        """Send it, and wait for its end."""
        called = self.begin(body, client)
        await called.over.wait()
        return called

    async def probe(self) -> Signals:
        """What the dialect makes of the answers to its probes."""
        answers = []
        for probe in self.dialect.probes():
            status, _, body = await fetch(self.pool, b"GET", probe.target, (), b"", 10.0, 1 << 20)
            answers.append(ProbeAnswer(status=status, body=body))
        return self.dialect.signals(answers)

    def overflowing(self) -> None:
        """From now on a long prompt does not fit."""

    def endless(self) -> None:
        """From now on answers are long."""

    def strict(self) -> None:
        """From now on a bad parameter is refused."""

    def broken(self, script: Script) -> None:
        """From now on answers go wrong in this way."""
        pytest.skip("this server does not go wrong to order")

    def seen(self) -> list[bytes]:
        """The bodies of the requests as they arrived."""
        raise NotImplementedError("this server does not tell what it was asked")

    async def running(self) -> int:
        """Requests it works on."""
        raise NotImplementedError("this server does not tell what it works on")

    async def busy(self) -> None:
        """Return when it works on something."""
        await self._until(lambda running: running > 0)

    async def idle(self) -> None:
        """Return when it works on nothing."""
        await self._until(lambda running: running == 0)

    async def _until(self, reached: Callable[[int], bool]) -> None:
        async with asyncio.timeout(10):
            while not reached(await self.running()):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)


class FakeSpeaker(Speaker):
    """Before an engine to order."""

    def __init__(self, kind: str, engine: FakeEngine) -> None:
        super().__init__(kind, engine.port, "fake")
        self.engine = engine

    def overflowing(self) -> None:
        said = recorded("overflow")
        self.engine.script = Script(status=said["status"], error=said["body"].encode())

    def endless(self) -> None:
        self.engine.script = Script(tokens=100_000, token_s=0.005)

    def strict(self) -> None:
        said = recorded("bad_request")
        self.engine.script = Script(status=said["status"], error=said["body"].encode())

    def broken(self, script: Script) -> None:
        self.engine.script = script

    def seen(self) -> list[bytes]:
        return [seen.body for seen in self.engine.seen]

    async def running(self) -> int:
        return self.engine.in_flight


class RealSpeaker(Speaker):
    """Before the real llama.cpp."""

    def __init__(self, kind: str, port: int, model: str) -> None:
        super().__init__(kind, port, model)
        self.tells_window = self.tells_slots = kind == "llamacpp"
        # llama.cpp does not, whatever else keeps it busy: its own dialect streams for that reason.
        self.notices_leaving = kind == "llamacpp"

    async def running(self) -> int:
        _, _, body = await fetch(self.pool, b"GET", b"/slots", (), b"", 10.0, 1 << 20)
        return sum(slot["is_processing"] for slot in json.loads(body))


async def begun(called: Called) -> None:
    """Return when its first content has come."""
    await eventually(lambda: called.attempt.begun or called.over.is_set())
    assert called.failure is None
