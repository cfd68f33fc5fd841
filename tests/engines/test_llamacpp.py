"""llama.cpp's own words, as they were recorded."""

import asyncio
import json
from typing import Any

import pytest

from tests.engines.speakers import CASSETTES, Called, Speaker, chat, recorded
from tests.http.harness import read_request, upstream
from tidegate.core.estimator import CONTEXT_EXCEEDED
from tidegate.core.model import Ending, replace
from tidegate.engines.base import Failure, ProbeAnswer, Signals
from tidegate.engines.llamacpp import LlamaCpp

LLAMA = LlamaCpp("", "smollm2")


def failure(name: str) -> Failure:
    said = recorded(name)
    headers = {key.lower().encode(): value.encode() for key, value in said["headers"]}
    return LLAMA.failure(said["status"], headers, said["body"].encode(), 0.0)


def answer(name: str) -> ProbeAnswer:
    said = recorded(name)
    return ProbeAnswer(status=said["status"], body=said["body"].encode())


@pytest.mark.parametrize("name", ["overflow", "overflow_stream"])
def test_its_overflow_is_one(name: str) -> None:
    said = failure(name)
    assert (said.cause, said.status, said.final) == (CONTEXT_EXCEEDED, 400, False)
    assert "exceeds the available context size (1024 tokens)" in said.message


def test_its_bad_request_is_the_clients() -> None:
    said = failure("bad_request")
    assert (said.status, said.final, said.message) == (400, True, "'messages' is required")


def test_its_not_found_is_ours_to_solve() -> None:
    said = failure("not_found")
    assert (said.status, said.final, said.ending) == (502, False, Ending.FAILED)


def test_a_request_while_it_loads_is_a_refusal() -> None:
    said = failure("health_loading")
    assert (said.status, said.ending, said.message) == (503, Ending.REFUSED, "Loading model")


def test_it_is_down_while_it_loads() -> None:
    assert LLAMA.signals([answer("health_loading"), None, None, None]) == Signals(up=False)


@pytest.mark.parametrize(("name", "running", "queued"), [("metrics_idle", 0, 0), ("metrics", 2, 2)])
def test_it_tells_its_window_and_its_load(name: str, running: int, queued: int) -> None:
    signals = LLAMA.signals([answer("health"), answer("props"), answer(name), None])
    told = replace(signals, fingerprint=None)
    assert told == Signals(up=True, context_tokens=1024, media=(), running=running, queued=queued)


@pytest.mark.parametrize("lost", [1, 2])
def test_what_it_does_not_tell_is_unknown_and_not_zero(lost: int) -> None:
    answers: list[ProbeAnswer | None] = [answer("health"), answer("props"), answer("metrics"), None]
    answers[lost] = None
    signals = LLAMA.signals(answers)
    assert signals.up is True
    assert (signals.context_tokens is None) is (lost == 1)
    assert (signals.running is None) is (signals.queued is None) is (lost == 2)


async def replayed(name: str, body: dict[str, Any]) -> Called:
    """The call, answered with these bytes as they came over the wire."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write((CASSETTES / f"{name}.txt").read_bytes())

    async with upstream(script) as up, Speaker("llamacpp", up.port, "smollm2") as speaker:
        return await speaker.call(body)


@pytest.mark.parametrize("name", ["chat_stream", "chat_stream_usage", "tool_call_stream"])
async def test_its_streams_are_relayed_to_the_last_byte(name: str) -> None:
    called = await replayed(name, chat(stream=True, stream_options={"include_usage": True}))
    assert called.failure is None
    assert called.contents == 1
    assert called.written + called.attempt.reader.done_frame == recorded(name)["body"].encode()
    assert called.attempt.reader.timings is not None


@pytest.mark.parametrize(("stream", "whole"), [("chat_stream_usage", "chat"), ("tool_call_stream", "tool_call")])
async def test_its_streams_come_together_to_what_it_would_have_answered_whole(stream: str, whole: str) -> None:
    called = await replayed(stream, chat())
    expected, made = json.loads(recorded(whole)["body"]), called.answer
    for answer in (expected, made):
        for name in ("id", "created", "timings", "usage"):
            answer.pop(name)
        for call in answer["choices"][0]["message"].get("tool_calls", ()):
            call.pop("id")
        answer["choices"][0].pop("logprobs", None)
        answer["choices"][0]["message"]["content"] = answer["choices"][0]["message"].get("content") or ""
    assert made == expected
