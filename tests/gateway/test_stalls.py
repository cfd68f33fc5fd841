"""An answer that has begun goes on, or ends in so many words: silence and a trickle are no answer."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, house, local, remote
from tests.gateway.test_budget import beginning
from tests.http.harness import HOST, eventually, serving, upstream
from tidegate.core.plan import TIMEOUT_S_MIN
from tidegate.engines.fake import Script
from tidegate.gateway.attempt import ERROR_S_MAX
from tidegate.http.server import Exchange

WORDS = "w1 w2 w3 w4 "
# Two tokens, and then nothing for as long as any test lasts.
SILENT = Script(tokens=4, token_s=60.0)
# A token in nearly a second, from an engine that is believed to make thousands.
TRICKLE = Script(tokens=100, token_s=0.9)
IMPATIENT: dict[str, Any] = {"policy": {"stall_s": 1}}


@pytest.mark.virtual
@pytest.mark.parametrize(("script", "cause"), [(SILENT, "stalled"), (TRICKLE, "too_slow")], ids=["silent", "trickle"])
@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
async def test_a_stream_that_stops_ends_with_an_error_and_its_engine_is_let_go(
    tmp_path: Path, script: Script, cause: str, engine: str
) -> None:
    async with house(tmp_path, laptop=local(script, engine=engine), cloud=remote(), **IMPATIENT) as home:
        answer = await home.ask(chat(stream=True))
        await eventually(lambda: home.engines["laptop"].left == 1)
        (line,) = home.log()
    assert (answer.status, answer.endpoint) == (200, "laptop")
    assert answer.events[-1]["error"]["code"] == "upstream_timeout"
    assert "[DONE]" not in answer.events
    assert (line["outcome"], line["cause"]) == ("failed_mid_stream", cause)


@pytest.mark.virtual
async def test_of_a_large_prompt_nothing_counts_once_its_answer_has_begun(tmp_path: Path) -> None:
    large, silent = "word " * 20_000, Script(tokens=4, first_s=0.5, token_s=60.0)
    laptop = local(silent, engine="llamacpp", context_tokens=100_000)
    async with house(tmp_path, laptop=laptop, **IMPATIENT) as home:
        answer, server = asyncio.ensure_future(home.ask(chat(large, stream=True))), home.gateway.server
        await eventually(lambda: answer.done() or server.kept_bytes > 0)
        assert server.kept_bytes > len(large)
        await eventually(lambda: answer.done() or server.kept_bytes == 0)
        assert not answer.done()
        assert (await answer).text == "w1 "


@pytest.mark.virtual
@pytest.mark.parametrize("script", [SILENT, TRICKLE], ids=["silent", "trickle"])
async def test_an_answer_that_is_given_whole_is_given_by_another_when_it_stops(tmp_path: Path, script: Script) -> None:
    async with house(tmp_path, laptop=local(script, engine="llamacpp"), cloud=remote(), **IMPATIENT) as home:
        answer = await home.ask(chat())
        await eventually(lambda: home.engines["laptop"].left == 1)
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")


@pytest.mark.virtual
async def test_an_engine_that_is_slow_by_itself_is_waited_for(tmp_path: Path) -> None:
    """A token takes it as long as it was believed to."""
    slow = local(Script(tokens=4, token_s=0.6), prior={"decode_tokens_per_s": 1.7})
    async with house(tmp_path, laptop=slow, **IMPATIENT) as home:
        answer = await home.ask(chat(stream=True))
    assert (answer.status, answer.text) == (200, WORDS)
    assert answer.events[-1] == "[DONE]"


@pytest.mark.virtual
async def test_many_tokens_in_a_chunk_are_no_trickle(tmp_path: Path) -> None:
    """Vendors send several tokens at once; the shortest chunk tells what of each is text."""
    bulky = Script(tokens=4, token_s=0.8, pad="x" * 40)
    async with house(tmp_path, laptop=local(bulky), **IMPATIENT) as home:
        answer = await home.ask(chat(stream=True))
    assert answer.events[-1] == "[DONE]"


def saying(*choices: dict[str, Any], then: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """An engine that streams these and does `then`, in place of an end."""

    def handler(exchange: Exchange) -> None:
        if exchange.method == "GET":
            exchange.respond(200, ((b"content-type", b"application/json"),), b'{"data":[{"id":"own"}]}')
            return
        exchange.start(200, ((b"content-type", b"text/event-stream"),))
        for choice in choices:
            chunk = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "own", "choices": [choice]}
            exchange.write(b"data: %b\n\n" % json.dumps(chunk).encode())
        then(exchange)

    return handler


def words(text: str) -> dict[str, Any]:
    return {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}


ENDED = {"index": 0, "delta": {}, "finish_reason": "stop"}


@pytest.mark.virtual
@pytest.mark.parametrize("pieces", [["w1 w2"], ["w1 ", "w2"]], ids=["one", "two"])
@pytest.mark.parametrize(("engine", "stream"), [("openai", True), ("llamacpp", False)])
async def test_who_falls_silent_after_the_end_of_an_answer_has_given_it(
    tmp_path: Path, engine: str, stream: bool, pieces: list[str]
) -> None:
    async with serving(saying(*map(words, pieces), ENDED, then=lambda _: None)) as server:
        laptop = local(url=f"http://{HOST}:{server.port}", engine=engine)
        async with house(tmp_path, laptop=laptop, cloud=remote(), **IMPATIENT) as home:
            answer = await home.ask(chat(stream=stream))
            (line,) = home.log()
    assert (answer.status, answer.text, answer.endpoint) == (200, "w1 w2", "laptop")
    assert not stream or answer.events[-1] == "[DONE]"
    assert (line["outcome"], line["attempts"]) == ("ok", 1)


@pytest.mark.parametrize("last", [b'{"usage":"n/a"}', b'{"error":{"message":"boom"}}'], ids=["unreadable", "error"])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_goes_wrong_behind_the_end_of_an_answer_does_not_undo_it(
    tmp_path: Path, stream: bool, last: bytes
) -> None:
    engine = saying(words("w1 w2"), ENDED, then=lambda exchange: exchange.end(b"data: %b\n\n" % last))
    async with serving(engine) as server:
        laptop = local(url=f"http://{HOST}:{server.port}", engine="llamacpp")
        async with house(tmp_path, laptop=laptop, cloud=remote()) as home:
            answer = await home.ask(chat(stream=stream))
            (line,) = home.log()
    assert (answer.status, answer.text, answer.endpoint) == (200, "w1 w2", "laptop")
    assert not stream or answer.events[-1] == "[DONE]"
    assert (line["outcome"], line["attempts"]) == ("ok", 1)


async def test_what_is_cut_off_at_its_end_and_cannot_be_told_in_a_dialect_is_a_failure_in_that(tmp_path: Path) -> None:
    called = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    calls = {"index": 0, "delta": {"role": "assistant", "tool_calls": [called]}, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    async with serving(saying(calls, ended, then=Exchange.abort)) as server:
        laptop = local(url=f"http://{HOST}:{server.port}", engine="llamacpp")
        async with house(tmp_path, laptop=laptop) as home:
            asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Say hi"}]}
            answer = await home.ask(asked, path="/v1/messages")
    assert answer.status == 502
    assert json.loads(answer.body)["type"] == "error"


@pytest.mark.virtual
async def test_a_refusal_that_stalls_is_told_as_one_before_an_answer_would_be_given_up(tmp_path: Path) -> None:
    async with upstream(beginning(b"429 Too Many Requests", hangs_up=False)) as there:
        cloud = remote(url=f"http://{HOST}:{there.port}", engine="openai")
        async with house(tmp_path, cloud=cloud) as home:
            answer = await home.ask(chat(stream=True))
            (line,) = home.log()
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert answer.header("retry-after") == "77"
    assert line["cause"] == "status_429"
    assert ERROR_S_MAX <= line["e2e_s"] < TIMEOUT_S_MIN
