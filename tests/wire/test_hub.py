"""What translators to all dialects see of the hub's answers."""

import json
from typing import Any

import pytest

from tests.wire.streams import DONE, STOP, chunk
from tidegate.wire.clients import CLIENTS
from tidegate.wire.hub import Answer, Counts, Slots, ToolCall, arguments_of, read_answer
from tidegate.wire.ollama.client import OLLAMA_CHAT
from tidegate.wire.responses.answer import usage_of as told
from tidegate.wire.stream import StreamReader
from tidegate.wire.translate import Client, Translated, reader


def call(index: int | None, id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


def slots_of(*calls: dict[str, Any]) -> list[int]:
    slots = Slots()
    answer = read_answer(json.dumps({"choices": [{"delta": {"tool_calls": list(calls)}}]}).encode())
    assert isinstance(answer, Answer)
    assert answer.first is not None
    assert answer.first.delta is not None
    return [slots.of(one) for one in answer.first.delta.tool_calls or ()]


@pytest.mark.parametrize(
    ("calls", "slots"),
    [
        ([call(0, "a", "f"), call(0), call(1, "b", "g"), call(1)], [0, 0, 1, 1]),
        ([call(None, "a", "f"), call(None), call(None, "b", "g"), call(None)], [0, 0, 1, 1]),
        # Ollama's calls are all the first for some models; what follows is of the last of them.
        ([call(0, "a", "f"), call(0, "b", "g"), call(0), call(0, "c", "f")], [0, 1, 1, 2]),
        # One engine repeats the id with each piece, and another the name.
        ([call(0, "a", "f"), call(0, "a", "f"), call(0, "a"), call(0, None, "f")], [0, 0, 0, 0]),
    ],
)
def test_calls_are_told_apart(calls: list[dict[str, Any]], slots: list[int]) -> None:
    assert slots_of(*calls) == slots


def test_arguments_stand_in_one_line_whatever_lines_a_model_has_written() -> None:
    said = '{\n  "location": "Boston,\\nMA"\n}'
    pieces = [call(0, "a", "f", said)]
    stream = OLLAMA_CHAT.stream(
        OLLAMA_CHAT.parse(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}', {}), lambda: 1.0
    )
    lines = (stream.feed(chunk(tool_calls=pieces) + STOP) + stream.end()).splitlines()
    (made,) = [one for line in lines for one in json.loads(line)["message"].get("tool_calls", ())]
    assert made["function"]["arguments"] == {"location": "Boston,\nMA"}
    answer = read_answer(json.dumps({"choices": [{"message": {"tool_calls": pieces}}]}).encode())
    assert answer.first is not None
    assert answer.first.message is not None
    (first,) = answer.first.message.tool_calls or [ToolCall()]
    assert b"\n" not in bytes(arguments_of(first, None) or b"\n")


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 9}},
        {"completion_tokens": 5, "total_tokens": "many", "completion_tokens_details": {"reasoning_tokens": 9}}
        | {"prompt_tokens": 10},
        {"completion_tokens": 5, "total_tokens": 18, "completion_tokens_details": {"reasoning_tokens": 3}}
        | {"prompt_tokens": 10},
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 80},
        {"prompt_tokens": 10, "total_tokens": 80},
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 45,
            "prompt_tokens_details": {"cached_tokens": 30},
        },
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 30}},
        {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 8},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 8},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": []},
        {"prompt_tokens": 10.0, "completion_tokens": 5, "completion_tokens_details": "none"},
        # Parts of what is not told.
        {"prompt_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 9}},
        {"completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 2}},
        {"cached_tokens": 30, "total_tokens": 35},
    ],
)
def test_clients_are_told_the_tokens_that_are_counted(usage: dict[str, Any]) -> None:
    answer = read_answer(json.dumps({"usage": usage}).encode())
    assert isinstance(answer.usage, Counts)
    reader = StreamReader(include_usage=True)
    reader.feed(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    counted, found = reader.usage, told(answer.usage)
    assert counted is not None
    prompt, output = counted.prompt_tokens, counted.output_tokens
    assert (found["input_tokens"], found["output_tokens"]) == (prompt or 0, output or 0)
    cached, written, thought = counted.cached_tokens, counted.cache_write_tokens, counted.reasoning_tokens
    parts = {"cached_tokens": (prompt and cached) or 0, "cache_write_tokens": (prompt and written) or 0}
    assert found["input_tokens_details"] == parts
    assert found["output_tokens_details"] == {"reasoning_tokens": (output and thought) or 0}


ASKED: dict[str, dict[str, Any]] = {
    "/v1/messages": {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/api/chat": {"messages": [{"role": "user", "content": "hi"}]},
    "/api/generate": {"prompt": "hi"},
}
clients = pytest.mark.parametrize(("asked", "client"), [(ASKED[path], one) for path, one in CLIENTS.items()], ids=ASKED)


def answered(asked: dict[str, Any], client: Client, answer: bytes, *, streamed: bool) -> list[dict[str, Any]]:
    """What a client is told of an answer: its events, or the whole of it."""
    parsed = client.parse(json.dumps({"model": "m", "stream": streamed, **asked}).encode(), {})
    made = reader(parsed, streamed=streamed, client=client, now_s=lambda: 1.0)
    told = made.feed(answer) + made.end()
    assert made.failure is None
    if not streamed:
        assert isinstance(made, Translated)
        return [json.loads(made.result())]
    lines = [line.removeprefix(b"data: ") for line in (told + made.done_frame).splitlines()]
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def thinking(*pieces: str) -> dict[str, Any]:
    """Mistral's, as its SDK has it (ThinkChunk)."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": piece} for piece in pieces]}


def texts_in(value: Any, *names: str) -> list[str]:
    """Every text below one of these names, wherever it stands."""
    if isinstance(value, list):
        return [text for one in value for text in texts_in(one, *names)]
    if not isinstance(value, dict):
        return []
    found = [text for name in names if isinstance(text := value.get(name), str) and text]
    return found + [text for one in value.values() for text in texts_in(one, *names)]


@clients
def test_thinking_among_the_parts_of_a_content_reaches_every_client(asked: dict[str, Any], client: Client) -> None:
    told = {"type": "text", "text": "Hello"}
    reference = {"type": "reference", "reference_ids": [1]}
    stream = [
        chunk(role="assistant", content=""),
        chunk(content=[thinking("Let me", " see")]),
        chunk(content=[thinking("."), told]),
        chunk(content=" you"),
        STOP,
        DONE,
    ]
    pieces = ("thinking", "delta", "text", "content", "response")
    said = texts_in(answered(asked, client, b"".join(stream), streamed=True), *pieces)
    places = [said.index(text) for text in ("Let me see", ".", "Hello", " you")]
    assert places == sorted(places)
    message = {"role": "assistant", "content": [thinking("Let me", " see."), reference, told]}
    whole = json.dumps({"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    (answer,) = answered(asked, client, whole, streamed=False)
    assert sorted(texts_in(answer, *pieces)) == ["Hello", "Let me see."]


@clients
@pytest.mark.parametrize("streamed", [True, False])
def test_what_an_engine_broke_off_ends_as_complete_in_no_dialect(
    asked: dict[str, Any], client: Client, streamed: bool
) -> None:
    ending = {"index": 0, "finish_reason": "insufficient_system_resource"}
    answer = json.dumps({"choices": [{**ending, "message": {"content": "Once"}}]}).encode()
    if streamed:
        answer = chunk(content="Once") + chunk(finish="insufficient_system_resource") + DONE
    parsed = client.parse(json.dumps({"model": "m", "stream": streamed, **asked}).encode(), {})
    made = reader(parsed, streamed=streamed, client=client, now_s=lambda: 1.0)
    made.feed(answer)
    made.end()
    assert made.failure is not None
    assert not made.done
    assert made.done_frame == b""


@clients
@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "12", "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": []},
        {"prompt_tokens": 12, "completion_tokens": 2, "prompt_tokens_details": []},
        {"prompt_tokens": 12, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": "few"}},
    ],
)
def test_counts_that_are_none_lose_no_answer(asked: dict[str, Any], client: Client, usage: dict[str, Any]) -> None:
    whole = {"id": "1", "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    (answer,) = answered(asked, client, json.dumps({**whole, "usage": usage}).encode(), streamed=False)
    assert "Hello" in texts_in(answer, "text", "content", "response")
    stream = chunk(content="Hello") + STOP + chunk(usage=usage) + DONE
    assert "Hello" in texts_in(answered(asked, client, stream, streamed=True), "text", "delta", "content", "response")


@pytest.mark.parametrize("odd", [{"index": "0"}, {"index": 0.5}, {"id": 3}, {"format": 1}, {"summary": ["x"]}])
def test_an_odd_word_beside_a_thought_is_no_reason_to_lose_an_answer(odd: dict[str, Any]) -> None:
    message = {"content": "hi", "reasoning_details": [{"type": "reasoning.text", "text": "hm", **odd}]}
    answer = read_answer(json.dumps({"choices": [{"message": message}]}).encode())
    assert answer.first is not None
    assert answer.first.message is not None
    (detail,) = answer.first.message.reasoning_details or []
    assert (detail.text, detail.id, detail.format, detail.index, detail.summary) == ("hm", None, None, None, None)
