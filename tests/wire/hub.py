"""The hub's requests and answers, made up: what every dialect is translated from and to."""

import gc
import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from tests.wire.streams import frame
from tidegate.core.model import Capability
from tidegate.wire.aggregate import Aggregator
from tidegate.wire.openai import Call
from tidegate.wire.openai import parse as parse_openai

# Quotes, escapes, other scripts, an emoji beyond the basic plane, what JSON must escape, what SSE lines end in.
texts = st.text(alphabet=st.sampled_from('ab "\\/\n\r\té中😀\u2028\x00{}[]:,<'), max_size=12)
words = st.text(alphabet="abcdefgh_", min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(words, json_values, max_size=3)
schemas = objects.map(lambda extra: {"type": "object", "properties": {}, **extra})
images = st.sampled_from(["data:image/png;base64,iVBORw0=", "https://example.org/a.png?b=c", "data:image/webp;base64,"])


def dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def text_parts(said: st.SearchStrategy[str] = texts) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(said.map(text_part), min_size=1, max_size=3)


def parts(said: st.SearchStrategy[str] = texts) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(said.map(text_part) | images.map(image_part), min_size=1, max_size=3)


@st.composite
def calls(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(words, min_size=1, max_size=3))
    return [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": dumped(draw(objects))}}
        for at, name in enumerate(names)
    ]


@st.composite
def turns(draw: st.DrawFn, said: st.SearchStrategy[str]) -> list[dict[str, Any]]:
    """A question and what came of it."""
    found: list[dict[str, Any]] = [{"role": "user", "content": draw(said | parts(said))}]
    if draw(st.booleans()):
        called = draw(calls())
        content = draw(st.none() | text_parts(said))
        found.append({"role": "assistant", "content": content, "tool_calls": called})
        found += [{"role": "tool", "tool_call_id": c["id"], "content": draw(said | parts(said))} for c in called]
    if draw(st.booleans()):
        found.append({"role": "assistant", "content": draw(said | text_parts(said))})
    return found


@st.composite
def tools(draw: st.DrawFn, parameters: st.SearchStrategy[Any] = schemas) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                **({"description": draw(texts)} if draw(st.booleans()) else {}),
                "parameters": draw(parameters),
                **({"strict": draw(st.booleans())} if draw(st.booleans()) else {}),
            },
        }
        for name in draw(st.lists(words, min_size=1, max_size=2, unique=True))
    ]


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def calling(tools: st.SearchStrategy[Any], tool_choice: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tools, and what is said of them: of none, nothing is."""
    return st.just({}) | st.builds(lambda made, more: {"tools": made, **more}, tools, optional(tool_choice=tool_choice))


choosing = calling(
    tools=tools(),
    tool_choice=st.sampled_from(["auto", "required", "none", {"type": "function", "function": {"name": "f"}}]),
)


def settings(output_tokens_min: int = 1) -> st.SearchStrategy[dict[str, Any]]:
    """What a chat may ask besides, as far as the Responses API has it too."""
    return optional(
        stream=st.booleans(),
        temperature=st.floats(0, 2),
        top_p=st.floats(0, 1),
        user=texts,
        prompt_cache_key=texts,
        safety_identifier=texts,
        service_tier=st.sampled_from(["auto", "flex"]),
        max_tokens=st.integers(output_tokens_min, 10**6),
        reasoning_effort=st.sampled_from(["none", "minimal", "low", "high", "max"]),
        verbosity=st.sampled_from(["low", "high"]),
        response_format=st.just({"type": "json_object"})
        | st.builds(
            lambda name, schema, more: {"type": "json_schema", "json_schema": {"name": name, "schema": schema, **more}},
            texts,
            objects,
            optional(strict=st.booleans(), description=texts),
        ),
    )


@st.composite
def conversations(draw: st.DrawFn, said: st.SearchStrategy[str] = texts) -> list[dict[str, Any]]:
    found = [{"role": "system", "content": text} for text in draw(st.lists(said | text_parts(said), max_size=1))]
    for turn in draw(st.lists(turns(said), min_size=1, max_size=3)):
        found += turn
    return found


def meaning(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation, its texts written one way: parts of text alone are one string."""
    return [{**m, "content": one_text(m.get("content"))} for m in messages]


def one_text(content: Any) -> Any:
    if not isinstance(content, list) or any(part["type"] != "text" for part in content):
        return content
    return "\n\n".join(part["text"] for part in content)


def asked(body: dict[str, Any]) -> Call:
    return parse_openai(json.dumps({"model": "m", **body}).encode(), Capability.CHAT)


def fields_of(call: Call) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in call.fields.items()}


# --- answers --------------------------------------------------------------------------------------------------------

HEAD: dict[str, Any] = {"id": "chatcmpl-1", "created": 1_760_000_000, "model": "m"}


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    cached, written, rest, output = (draw(st.integers(0, 10**6)) for _ in range(4))
    usage: dict[str, Any] = {
        "prompt_tokens": cached + written + rest,
        "completion_tokens": output,
        "total_tokens": cached + written + rest + output,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
    }
    if output and draw(st.booleans()):
        usage["completion_tokens_details"] = {"reasoning_tokens": draw(st.integers(1, output))}
    return usage


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """A whole answer as engines give it: thinking, then text, then calls."""
    message: dict[str, Any] = {"role": "assistant", "content": draw(texts)}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(texts.filter(bool))
    finish = draw(st.sampled_from(["stop", "length", "content_filter"]))
    if draw(st.booleans()):
        message["tool_calls"] = draw(calls())
        message["content"] = message["content"] or None
        finish = draw(st.sampled_from(["tool_calls", "length"]))
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {**HEAD, "object": "chat.completion", "choices": [choice], "usage": draw(usages())}


@st.composite
def streamed(draw: st.DrawFn, answer: dict[str, Any]) -> bytes:
    """The same answer as a stream, its texts in pieces."""
    message = answer["choices"][0]["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": draw(st.sampled_from([None, ""]))}]
    for name in ("reasoning_content", "content"):
        deltas += [{name: piece} for piece in draw(pieces(message.get(name) or ""))]
    for at, call in enumerate(message.get("tool_calls", ())):
        function = call["function"]
        deltas.append({"tool_calls": [{**call, "index": at, "function": {**function, "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}
            for piece in draw(pieces(function["arguments"]))
        ]
    head = {**HEAD, "object": "chat.completion.chunk"}
    frames = [frame({**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]}) for d in deltas]
    frames.append(frame({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish_of(answer)}]}))
    return b"".join([*frames, frame({**head, "choices": [], "usage": answer["usage"]}), b"data: [DONE]\n\n"])


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True) if end > start]


def finish_of(answer: dict[str, Any]) -> Any:
    return answer["choices"][0]["finish_reason"]


def gathered(stream: bytes) -> bytes:
    """A hub's stream as the whole answer."""
    aggregator = Aggregator(Capability.CHAT)
    aggregator.feed(stream)
    aggregator.end()
    return aggregator.result()


def steps(act: Callable[[], object]) -> int:
    """How many lines of Python that takes, each turn of a loop counted.

    None of the collector's: what it ends here is what earlier tests have left, some thousand lines of it.
    """
    taken = 0

    def count(_frame: FrameType, event: str, _of: object) -> Any:
        nonlocal taken
        taken += event == "line"
        return count

    before = sys.gettrace()
    gc.disable()
    sys.settrace(count)
    try:
        act()
    finally:
        sys.settrace(before)
        gc.enable()
    return taken
