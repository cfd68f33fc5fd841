"""A fault of the gateway's own ends the request that met it: it is answered, and nobody waits behind it."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.gateway.harness import House, chat, house, local, remote
from tests.gateway.test_budget import spent, unconfirmed
from tests.http.harness import Script as Steps
from tests.http.harness import eventually, read_request, upstream
from tidegate.core.model import Ended, Ending, Request
from tidegate.engines.fake import Fault, Script
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.drive import Drive
from tidegate.gateway.routes import ROUTES, Route
from tidegate.gateway.switchback import Switchback
from tidegate.gateway.upstream import Upstream
from tidegate.wire.ollama.client import OLLAMA_CHAT
from tidegate.wire.openai import Call
from tidegate.wire.sse import BadStream
from tidegate.wire.translate import ClientStream


class Faulty(dict[str, Upstream]):
    """Fails when it is asked for the next time, or after so many times."""

    def __init__(self, upstreams: dict[str, Upstream], fails: int = 1) -> None:
        super().__init__(upstreams)
        self._fails = fails

    def __getitem__(self, name: str) -> Upstream:
        self._fails -= 1
        if self._fails == 0:
            raise RuntimeError("a fault of ours")
        return super().__getitem__(name)


def spoil(home: House) -> list[str]:
    """Let the next attempt meet a fault; the list is what is told of it."""
    home.gateway.dispatch.upstreams = Faulty(home.gateway.dispatch.upstreams)
    return listen()


def listen() -> list[str]:
    """What is told of faults from now on."""
    told: list[str] = []
    handler = lambda _, context: told.append(f"{context['message']}: {context['exception']}")  # noqa: E731
    asyncio.get_running_loop().set_exception_handler(handler)
    return told


class Stumbles:
    """Translates a stream until its end is told."""

    failure: BadStream | None = None

    def __init__(self, inner: ClientStream) -> None:
        self._inner = inner
        self.end, self.error = inner.end, inner.error

    def feed(self, data: bytes) -> bytes:
        if b'"finish_reason":"stop"' in data:
            raise RuntimeError("a fault of ours")
        return self._inner.feed(data)


def stumble(inside: bytes) -> bytes:
    raise RuntimeError("a fault of ours")


class Stumbling:
    """A dialect of clients in which no answer can be put."""

    content_type = OLLAMA_CHAT.content_type
    parse, error_body = OLLAMA_CHAT.parse, OLLAMA_CHAT.error_body

    def stream(self, call: Call, now_s: Callable[[], float]) -> ClientStream:
        return Stumbles(OLLAMA_CHAT.stream(call, now_s))

    def whole(self, call: Call, now_s: Callable[[], float]) -> Callable[[bytes], bytes]:
        return stumble


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_meets_one_is_answered_and_nothing_of_it_stays(tmp_path: Path, stream: bool) -> None:
    async with house(tmp_path, laptop=local()) as home:
        told = spoil(home)
        answer = await home.ask(chat(stream=stream))
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert "log" in answer.error["message"]
        assert (home.gateway.dispatch.in_flight, home.gateway.router.held) == (0, 0)
        assert (await home.ask(chat(stream=stream))).status == 200
        (line, _) = home.log()
    assert (line["status"], line["outcome"], line["code"]) == (500, "failed", "internal_error")
    assert told == ["a request is given up for a fault of the gateway: a fault of ours"]


async def test_the_log_says_where_it_was_and_a_metric_that_there_was_one(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home:
        spoil(home)
        asyncio.get_running_loop().set_exception_handler(home.gateway.escaped)
        await home.ask()
        # What a loop calls that fails, and what it has to say besides.
        loop = asyncio.get_running_loop()
        loop.call_soon(int, "what a client has said")
        loop.call_soon(loop.call_exception_handler, {"message": "a task was lost"})
        await eventually(lambda: home.log("event")[-1]["event"] == "told by the loop")
        metrics = (await home.get("/metrics", admin=True)).body.decode()
        *_, first, second, third = home.log("event")
    assert (first["level"], first["event"]) == (second["level"], second["event"]) == ("error", "fault of ours")
    assert first["error"].startswith("RuntimeError at test_ours.py:")
    assert second["error"].startswith("ValueError")
    assert (third["event"], third["message"]) == ("told by the loop", "a task was lost")
    assert "\ntidegate_handler_errors_total 2.0\n" in metrics
    assert "a client has said" not in (tmp_path / "log").read_text()


class FaultyTrial(Switchback):
    """Cannot count what becomes of a request."""

    def __init__(self) -> None:
        """Nothing is tried."""

    def over(self, request: Request, ending: Ending, **what: Any) -> None:
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_whose_end_cannot_be_told_is_answered_all_the_same(tmp_path: Path, stream: bool) -> None:
    async with house(tmp_path, laptop=local()) as home:
        told = listen()
        home.gateway.dispatch.switchback = FaultyTrial()
        answer = await home.ask(chat(stream=stream))
        assert (answer.status, answer.text) == (200, "w1 w2 w3 w4 ")
        everybody = home.gateway.auth._open
        assert everybody is not None
        assert (home.gateway.dispatch.in_flight, everybody._in_flight) == (0, 0)
    assert len(told) == 1


async def test_one_where_its_attempt_is_made_holds_nothing_back_for_that(tmp_path: Path) -> None:
    price = {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 4}
    async with house(tmp_path, budget={"usd_per_day": 1.0}, cloud=remote(price=price)) as home:
        listen()
        home.gateway.dispatch.upstreams = Faulty(home.gateway.dispatch.upstreams, fails=2)
        answer = await home.ask()
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        await home.quiet()
        assert (spent(home), unconfirmed(home)) == ((0.0, 0.0), 0.0)
        assert (await home.ask()).status == 200


async def test_one_where_it_is_sent_once_it_may_be_paid_for_ends_it_at_once(tmp_path: Path) -> None:
    price = {"usd_per_1m_input_tokens": 1, "usd_per_1m_output_tokens": 4}
    async with house(tmp_path, budget={"usd_per_day": 1.0}, cloud=remote(price=price)) as home:
        told, dispatch = listen(), home.gateway.dispatch
        (upstream,) = dispatch.upstreams.values()
        good, bad = upstream.headers, cast("Any", ((b"x-of-ours", None),))
        upstream.headers = bad
        answer = await home.ask()
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert (dispatch.in_flight, len(told)) == (0, 1)
        upstream.headers = good
        assert (await home.ask()).status == 200


class FaultyOnce(dict[str, Attempt]):
    """Does not find the first one that is asked for."""

    fails = True

    def __getitem__(self, name: str) -> Attempt:
        if self.fails:
            self.fails = False
            raise RuntimeError("a fault of ours")
        return super().__getitem__(name)


async def test_one_whose_time_is_up_when_it_meets_one_is_over_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home:
        told = listen()
        asked = asyncio.create_task(home.ask())
        await eventually(lambda: home.gateway.dispatch.in_flight == 1)
        ((drive, _),) = home.gateway.dispatch._live.values()
        assert isinstance(drive, Drive)
        (attempt,) = drive._attempts.values()
        drive._attempts = FaultyOnce(drive._attempts)
        drive.expire(home.gateway.clock.now_s())
        assert (await asked).status == 500
        assert (home.gateway.dispatch.in_flight, len(told)) == (0, 1)
        assert attempt.over
        await home.quiet()  # nothing of it is reserved any more


@pytest.mark.lengthy
async def test_those_that_are_held_behind_it_have_their_turn(tmp_path: Path) -> None:
    slow = Script(first_s=0.2, tokens=2)
    async with house(tmp_path, laptop=local(slow, concurrency=1)) as home:
        first = asyncio.create_task(home.ask())
        await eventually(lambda: home.engines["laptop"].in_flight == 1)
        behind = [asyncio.create_task(home.ask()) for _ in range(3)]
        await eventually(lambda: home.gateway.router.held == 3)
        told = spoil(home)
        answers = await asyncio.gather(first, *behind)
        assert sorted(answer.status for answer in answers) == [200, 200, 200, 500]
        assert (home.gateway.dispatch.in_flight, home.gateway.router.held) == (0, 0)
    assert len(told) == 1


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_cannot_be_put_into_words_is_never_taken_for_complete_nor_its_engine_for_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, engine: str
) -> None:
    monkeypatch.setitem(ROUTES, "/api/chat", Route(parse=OLLAMA_CHAT.parse, client=Stumbling()))
    async with house(tmp_path, laptop=local(engine=engine), other=local(engine=engine)) as home:
        told = listen()
        answer = await home.ask(chat(stream=stream), path="/api/chat")
        *said, last = answer.body.splitlines()
        assert "log" in json.loads(last)["error"]
        assert answer.status == (200 if stream else 500)
        assert len(said) == (4 if stream else 0)
        assert not any(json.loads(line)["done"] for line in said)
        await home.quiet()
        (ended,) = [line.fact for line in home.journal() if isinstance(line.fact, Ended)]
        assert (ended.ending, ended.cause) == (Ending.CANCELLED, "internal")
        (line,) = home.log()
    outcome = "failed_mid_stream" if stream else "failed"
    assert (line["status"], line["outcome"], line["code"]) == (answer.status, outcome, "internal_error")
    assert len(told) == 1
    assert told[0].endswith("a fault of ours")


class StumblingOnce:
    """A dialect of clients in which the first answer cannot be put; `stumbled` is set by it."""

    content_type = OLLAMA_CHAT.content_type
    parse, error_body, stream = OLLAMA_CHAT.parse, OLLAMA_CHAT.error_body, OLLAMA_CHAT.stream

    def __init__(self) -> None:
        self.stumbled = asyncio.Event()

    def whole(self, call: Call, now_s: Callable[[], float]) -> Callable[[bytes], bytes]:
        return partial(self._put, OLLAMA_CHAT.whole(call, now_s))

    def _put(self, put: Callable[[bytes], bytes], inside: bytes) -> bytes:
        if not self.stumbled.is_set():
            self.stumbled.set()
            return stumble(inside)
        return put(inside)


def answering_after(waited_for: asyncio.Event, asked: asyncio.Event) -> Steps:
    """An engine that sets `asked` when it is, and answers once it has been `waited_for`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            body = b"{}"
            if (await read_request(reader)).startswith(b"POST "):
                asked.set()
                await waited_for.wait()
                choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
                body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(head + body)

    return script


async def test_whoever_is_at_work_beside_it_gives_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, asked = StumblingOnce(), [asyncio.Event(), asyncio.Event()]
    monkeypatch.setitem(ROUTES, "/api/chat", Route(parse=OLLAMA_CHAT.parse, client=client))
    async with (
        upstream(answering_after(asked[1], asked[0])) as first,
        upstream(answering_after(client.stumbled, asked[1])) as second,
        house(
            tmp_path,
            laptop=local(url=f"http://127.0.0.1:{first.port}", engine="openai"),
            cloud=remote(url=f"http://127.0.0.1:{second.port}", engine="openai"),
        ) as home,
    ):
        told = listen()
        answer = await home.ask(chat(stream=False), path="/api/chat", x_tidegate_slo_ttft_ms="150")
        assert (answer.status, answer.endpoint) == (200, "cloud")
        assert answer.json["message"]["content"] == "hi"
        await home.quiet()
        endings = {fact.endpoint: fact.ending for line in home.journal() if isinstance(fact := line.fact, Ended)}
        assert endings == {"laptop": Ending.CANCELLED, "cloud": Ending.OK}
    assert len(told) == 1
