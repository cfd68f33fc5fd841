"""Clients of every dialect before engines of every dialect, as the gateway would bring them together."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from ollama import ChatResponse, GenerateResponse
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.engines.conftest import Speaking
from tests.engines.speakers import Called, Speaker
from tidegate.core.model import Ending
from tidegate.engines.fake import Fault, Script
from tidegate.wire.clients import CLIENTS
from tidegate.wire.translate import Client

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def sse(stream: bytes) -> list[dict[str, Any]]:
    frames = [frame.partition(b"data: ")[2] for frame in stream.split(b"\n\n")]
    return [json.loads(data) for data in frames if data]


def messages_text(stream: bytes) -> str:
    events = sse(stream)
    for event in events:
        if event["type"] != "ping":
            EVENT.validate_python(event)
    assert events[-1]["type"] == "message_stop"
    return "".join(event.get("delta", {}).get("text", "") for event in events)


def responses_text(stream: bytes) -> str:
    events = sse(stream)
    for event in events:
        RESPONSE_EVENT.validate_python(event)
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def ollama_text(stream: bytes) -> str:
    lines = [json.loads(line) for line in stream.splitlines()]
    assert lines[-1]["done"]
    assert lines[-1]["eval_count"] == 4
    return "".join(ChatResponse.model_validate(line).message.content or "" for line in lines)


def generated_text(stream: bytes) -> str:
    lines = [GenerateResponse.model_validate_json(line) for line in stream.splitlines()]
    assert lines[-1].eval_count == 4
    return "".join(line.response or "" for line in lines)


class Talk(NamedTuple):
    """A dialect, a request in it for four tokens, and what its answers say."""

    client: Client
    body: dict[str, Any]
    streamed: Callable[[bytes], str]
    whole: Callable[[bytes], str]


USER = [{"role": "user", "content": "Say hi"}]
FOUR = {"num_predict": 4, "temperature": 0}
TALKS = {
    "messages": Talk(
        CLIENTS["/v1/messages"],
        {"model": "m", "max_tokens": 4, "messages": USER, "temperature": 0},
        messages_text,
        lambda body: "".join(getattr(block, "text", "") for block in Message.model_validate_json(body).content),
    ),
    "responses": Talk(
        CLIENTS["/v1/responses"],
        {"model": "m", "input": "Say hi", "max_output_tokens": 4, "temperature": 0},
        responses_text,
        lambda body: Response.model_validate_json(body).output_text,
    ),
    "ollama": Talk(
        CLIENTS["/api/chat"],
        {"model": "m", "messages": USER, "options": FOUR},
        ollama_text,
        lambda body: ChatResponse.model_validate_json(body).message.content or "",
    ),
    "ollama prompt": Talk(
        CLIENTS["/api/generate"],
        {"model": "m", "prompt": "Say hi", "options": FOUR},
        generated_text,
        lambda body: GenerateResponse.model_validate_json(body).response or "",
    ),
}
assert [talk.client for talk in TALKS.values()] == list(CLIENTS.values())
talks = pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)


async def called(speaker: Speaker, talk: Talk, *, stream: bool) -> Called:
    return await speaker.call(talk.body | {"stream": stream}, talk.client)


def told(answer: Called) -> bytes:
    """What a streaming client has at the end."""
    return answer.written + answer.attempt.reader.done_frame


@pytest.mark.lengthy
@talks
async def test_a_client_reads_the_same_text_streamed_or_whole(speaking: Speaking, talk: Talk) -> None:
    async with speaking as speaker:
        streamed = await called(speaker, talk, stream=True)
        whole = await called(speaker, talk, stream=False)
    assert streamed.failure is whole.failure is None
    assert streamed.contents == 1
    assert streamed.attempt.reader.usage is not None
    assert streamed.attempt.reader.usage.output_tokens == 4
    text = talk.streamed(told(streamed))
    assert text
    assert talk.whole(json.dumps(whole.answer).encode()) == text


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.UNFINISHED, Fault.MALFORMED, Fault.ERROR_EVENT])
@pytest.mark.parametrize("stream", [True, False])
@talks
async def test_a_broken_answer_never_looks_complete(speaking: Speaking, talk: Talk, stream: bool, fault: Fault) -> None:
    async with speaking as speaker:
        speaker.broken(Script(fault=fault))
        answer = await called(speaker, talk, stream=stream)
    assert answer.failure is not None
    assert answer.failure.ending is Ending.FAILED
    assert answer.attempt.reader.done_frame == b""
    if stream:
        with pytest.raises((AssertionError, KeyError)):
            talk.streamed(answer.written)


async def test_what_the_messages_client_says_reaches_an_engine_of_its_dialect_untouched(speaking: Speaking) -> None:
    cached = {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}
    async with speaking as speaker:
        if speaker.kind != "anthropic":
            pytest.skip("this engine speaks another dialect")
        await speaker.call(TALKS["messages"].body | {"system": [cached], "stream": True}, TALKS["messages"].client)
        assert json.loads(speaker.seen()[-1])["system"] == [cached]


async def test_what_the_responses_client_says_reaches_an_engine_of_its_dialect_untouched(speaking: Speaking) -> None:
    said = {"include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}, "stream": True}
    async with speaking as speaker:
        if speaker.kind != "openai-responses":
            pytest.skip("this engine speaks another dialect")
        await speaker.call(TALKS["responses"].body | said, TALKS["responses"].client)
        assert said.items() <= json.loads(speaker.seen()[-1]).items()


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
# A conversation with a thought, a call, its result, and a system of blocks, as agents have them.
RICH: dict[str, dict[str, Any]] = {
    "messages": {
        "max_tokens": 4,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto"},
        "stop_sequences": ["END"],
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "messages": [
            *USER,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                    {"type": "text", "text": "One moment."},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "4"}]},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
    },
    "responses": {
        "instructions": "Be brief.",
        "max_output_tokens": 4,
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Say hi"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
        ],
    },
    "ollama": {
        "options": FOUR | {"num_ctx": 8192, "top_k": 5, "seed": 1, "stop": ["END"]},
        "keep_alive": "5m",
        "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}],
        "messages": [
            *USER,
            {"role": "assistant", "thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "tool_name": "f", "content": "4"},
        ],
    },
    "ollama prompt": {"options": FOUR, "system": "Be brief.", "prompt": "Say hi", "format": SCHEMA, "think": False},
}


# What the Responses dialect has no word for, and leaves to others.
UNSAID = {"openai-responses": frozenset({"stop_sequences", "stop", "top_k", "seed"})}


def sayable(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The same without what a kind of engine cannot be asked."""
    unsaid = UNSAID.get(kind, frozenset())
    kept = {name: value for name, value in body.items() if name not in unsaid}
    options = {name: value for name, value in body.get("options", {}).items() if name not in unsaid}
    return kept | ({"options": options} if options else {})


@pytest.mark.lengthy
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", RICH)
async def test_an_engine_takes_what_agents_say(speaking: Speaking, dialect: str, stream: bool) -> None:
    async with speaking as speaker:
        body = {"model": "m", **sayable(speaker.kind, RICH[dialect]), "stream": stream}
        answer = await speaker.call(body, TALKS[dialect].client)
    assert answer.failure is None
