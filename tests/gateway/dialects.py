"""Every dialect of clients: a request in it, and what its own SDK makes of the answer."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import anthropic.types as anthropic
import ollama
from openai.types import Completion, CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.gateway.harness import CHAT, COMPLETIONS, MODEL, Answer, chat, completion

_MESSAGES_EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.RawMessageStreamEvent)
_RESPONSES_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_EVENTS = "text/event-stream; charset=utf-8"


class Said(NamedTuple):
    """What a client has of an answer. `complete`: its dialect says that this was all; `error`: that it broke."""

    text: str
    model: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    complete: bool = False
    error: str = ""


class Speech(NamedTuple):
    """A dialect. `ask` makes a request from a prompt; `whole` and `streamed` read an answer, `error` a refusal.

    `stream_type` is the content type of streams.
    """

    path: str
    ask: Callable[[str], dict[str, Any]]
    whole: Callable[[Answer], Said]
    streamed: Callable[[Answer], Said]
    error: Callable[[Answer], str]
    stream_type: str = _EVENTS

    def body(self, prompt: str = "Say hi", *, stream: bool = False, **fields: Any) -> dict[str, Any]:
        """A request, with more fields than it needs."""
        return {**self.ask(prompt), "stream": stream, **fields}

    def said(self, answer: Answer, *, stream: bool) -> Said:
        """What a client has of a good answer, which has the content type that clients look at."""
        assert answer.status == 200, answer.body
        assert answer.header("content-type") == (self.stream_type if stream else "application/json")
        return (self.streamed if stream else self.whole)(answer)


def _openai_error(answer: Answer) -> str:
    return str(answer.error["message"])


def _whole_chat(answer: Answer) -> Said:
    found = ChatCompletion.model_validate_json(answer.body)
    choice = found.choices[0]
    return Said(choice.message.content or "", found.model, *_counts(found.usage), choice.finish_reason == "stop")


def _streamed_chat(answer: Answer) -> Said:
    return _chunks(answer, lambda event: ChatCompletionChunk.model_validate(event))


def _whole_completion(answer: Answer) -> Said:
    found = Completion.model_validate_json(answer.body)
    choice = found.choices[0]
    return Said(choice.text, found.model, *_counts(found.usage), choice.finish_reason == "stop")


def _streamed_completion(answer: Answer) -> Said:
    return _chunks(answer, lambda event: Completion.model_construct(**event))


def _chunks(answer: Answer, read: Callable[[Any], Any]) -> Said:
    events = answer.events
    done = bool(events) and events[-1] == "[DONE]"
    if not done and events and "error" in events[-1]:
        failed = events.pop()["error"]
        assert set(failed) == {"message", "type", "param", "code"}
        return Said(answer.text, error=failed["message"])
    chunks = [read(event) for event in events if event != "[DONE]"]
    assert events.count("[DONE]") == done
    return Said(answer.text, chunks[0].model, *_counts(chunks[-1].usage), done)


def _counts(usage: CompletionUsage | None) -> tuple[int, int]:
    return (0, 0) if usage is None else (usage.prompt_tokens, usage.completion_tokens)


def _frames(answer: Answer) -> list[dict[str, Any]]:
    """The events of a stream whose frames have names; each is named for its type."""
    frames = answer.body.decode().split("\n\n")
    assert frames.pop() == ""
    found = []
    for frame in frames:
        if frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def _messages_error(answer: Answer) -> str:
    return _messages_failure(answer.json)


def _messages_failure(body: Any) -> str:
    assert set(body) == {"type", "error"}
    # The service's documents have this type, and the SDK's own do not.
    if body["error"]["type"] != "request_too_large":
        anthropic.ErrorResponse.model_validate(body)
    return str(body["error"]["message"])


def _whole_message(answer: Answer) -> Said:
    found = anthropic.Message.model_validate_json(answer.body)
    text = "".join(block.text for block in found.content if block.type == "text")
    assert found.stop_reason == "end_turn"
    return Said(text, found.model, found.usage.input_tokens, found.usage.output_tokens, complete=True)


def _streamed_message(answer: Answer) -> Said:
    events = [event for event in _frames(answer) if event["type"] != "ping"]
    error = _messages_failure(events.pop()) if events[-1]["type"] == "error" else ""
    read = [_MESSAGES_EVENT.validate_python(event) for event in events]
    text = "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")
    ends = [event for event in read if event.type == "message_stop"]
    if not ends:
        return Said(text, error=error)
    assert (len(ends), read[-1], error) == (1, ends[0], "")
    usage = next(event.usage for event in read if event.type == "message_delta")
    return Said(text, read[0].message.model, usage.input_tokens, usage.output_tokens, complete=True)


def _of_response(found: Response) -> Said:
    assert found.usage is not None
    complete = found.status == "completed"
    return Said(found.output_text, found.model, found.usage.input_tokens, found.usage.output_tokens, complete=complete)


def _whole_response(answer: Answer) -> Said:
    return _of_response(Response.model_validate_json(answer.body))


def _streamed_response(answer: Answer) -> Said:
    events = _frames(answer)
    read = [_RESPONSES_EVENT.validate_python(event) for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in read if event.type == "response.output_text.delta")
    ends = [event for event in read if event.type in ("response.completed", "response.incomplete")]
    last = read[-1]
    if last.type == "response.failed":
        assert ends == []
        assert last.response.error is not None
        return Said(text, error=last.response.error.message)
    if last.type == "error":
        assert ends == []
        return Said(text, error=last.message)
    assert ends == [last]
    said = _of_response(last.response)
    assert said.text == text
    return said


def _ollama_error(answer: Answer) -> str:
    return _ollama_failure(answer.json)


def _ollama_failure(body: Any) -> str:
    # What the SDK takes for the message is whatever stands there.
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)
    return body["error"]


def _whole_line(kind: type[ollama.ChatResponse] | type[ollama.GenerateResponse]) -> Callable[[Answer], Said]:
    return lambda answer: _of_lines([kind.model_validate_json(answer.body)])


def _lines(kind: type[ollama.ChatResponse] | type[ollama.GenerateResponse]) -> Callable[[Answer], Said]:
    def read(answer: Answer) -> Said:
        lines = [json.loads(line) for line in answer.body.splitlines()]
        assert answer.body.endswith(b"\n")
        error = _ollama_failure(lines.pop()) if "error" in lines[-1] else ""
        said = _of_lines([kind.model_validate(line) for line in lines])
        assert not (said.complete and error)
        return said._replace(error=error)

    return read


def _of_lines(lines: list[Any]) -> Said:
    assert not any(line.done for line in lines[:-1])
    texts = [line.message.content if isinstance(line, ollama.ChatResponse) else line.response for line in lines]
    text = "".join(piece or "" for piece in texts)
    last = lines[-1] if lines else None
    if last is None or not last.done:
        return Said(text)
    assert last.total_duration >= 0
    return Said(text, last.model, last.prompt_eval_count, last.eval_count, complete=True)


def _user(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}]


_LINES = "application/x-ndjson"
_USAGE = {"stream_options": {"include_usage": True}}

SPEECHES: dict[str, Speech] = {
    "chat": Speech(CHAT, lambda p: chat(p) | _USAGE, _whole_chat, _streamed_chat, _openai_error),
    "completions": Speech(
        COMPLETIONS, lambda p: completion(p) | _USAGE, _whole_completion, _streamed_completion, _openai_error
    ),
    "messages": Speech(
        "/v1/messages",
        lambda p: {"model": MODEL, "max_tokens": 100, "messages": _user(p)},
        _whole_message,
        _streamed_message,
        _messages_error,
    ),
    "responses": Speech(
        "/v1/responses",
        lambda p: {"model": MODEL, "input": p},
        _whole_response,
        _streamed_response,
        _openai_error,
    ),
    "ollama_chat": Speech(
        "/api/chat",
        lambda p: {"model": MODEL, "messages": _user(p)},
        _whole_line(ollama.ChatResponse),
        _lines(ollama.ChatResponse),
        _ollama_error,
        _LINES,
    ),
    "ollama_generate": Speech(
        "/api/generate",
        lambda p: {"model": MODEL, "prompt": p},
        _whole_line(ollama.GenerateResponse),
        _lines(ollama.GenerateResponse),
        _ollama_error,
        _LINES,
    ),
}
