"""The hub's messages become items of the Responses API, and items that a client sends back what the vendor takes."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from tidegate.wire.errors import UNREADABLE
from tidegate.wire.hub import encode
from tidegate.wire.hub_shapes import (
    HubAssistant,
    HubCall,
    HubDeveloper,
    HubMessage,
    HubSystem,
    HubTool,
    HubUser,
    ImagePart,
    RefusalPart,
    TextPart,
)
from tidegate.wire.responses.thoughts import Thought, thoughts

# The vendor refuses a longer one; engines that put more than a name into theirs make some.
CALL_ID_CHARS_MAX = 64
# Of a sealed thought that comes back the vendor takes no more than its seal says, and none that can be read.
_NOT_TAKEN_BACK = ("content", "status")
# What SDKs have in what they read of an answer, and send back with it; the vendor knows neither.
_OF_SDKS = ("parsed_arguments", "async_")
_PARSED = "parsed"
_QUOTE = ord('"')
_NULL = Raw(b"null")
_EMPTY = (_NULL, Raw(b'""'))
_items = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_string = msgspec.json.Decoder(str).decode
_REASONING = Raw(b'"reasoning"')


def call_id(id: str) -> str:
    """The id of a call as the vendor takes it. A longer one becomes another, the same each time."""
    if len(id) <= CALL_ID_CHARS_MAX:
        return id
    return f"call_{blake2b(id.encode(), digest_size=16).hexdigest()}"


def items(messages: Sequence[HubMessage]) -> list[dict[str, Any]]:
    """The conversation. What was thought goes back where it is sealed, since nothing else of it is taken."""
    return [item for message in messages for item in _of(message)]


def sent_back(input: Raw) -> Raw:
    """The items of a client that speaks this dialect, as the vendor takes them back: without thoughts that it has not
    sealed, and without names of messages and calls, which it would look up where nothing is stored."""
    if memoryview(input)[0] == _QUOTE:
        return input
    try:
        found = _items(input)
        kept = [_sent_back(item) for item in found if item.get("type") != _REASONING or _is_sealed(item)]
    except UNREADABLE:  # beyond what was borne when it was read, from fewer calls within each other
        return input
    return Raw(encode(kept))


def _is_sealed(item: dict[str, Raw]) -> bool:
    return item.get("encrypted_content", _NULL) not in _EMPTY


def _sent_back(item: dict[str, Raw]) -> dict[str, Raw]:
    if item.get("type") == _REASONING:
        return {name: value for name, value in item.items() if name not in _NOT_TAKEN_BACK}
    kept = {name: value for name, value in item.items() if name != "id" and name not in _OF_SDKS and value != _NULL}
    if "content" in kept and memoryview(kept["content"])[0] != _QUOTE:
        parts = _items(kept["content"])
        if any(_PARSED in part for part in parts):
            kept["content"] = Raw(encode([{n: v for n, v in part.items() if n != _PARSED} for part in parts]))
    if "call_id" in kept and len(memoryview(kept["call_id"])) > CALL_ID_CHARS_MAX:
        kept["call_id"] = Raw(encode(call_id(_string(kept["call_id"]))))
    return kept


def _of(message: HubMessage) -> list[dict[str, Any]]:
    if isinstance(message, HubAssistant):
        return _assistant(message)
    if isinstance(message, HubTool):
        id, output = call_id(message.tool_call_id), _content(message.content)
        return [{"type": "function_call_output", "call_id": id, "output": output}]
    return [{"type": "message", "role": _role(message), "content": _content(message.content)}]


def _role(message: HubSystem | HubDeveloper | HubUser) -> str:
    if isinstance(message, HubUser):
        return "user"
    return "developer" if isinstance(message, HubDeveloper) else "system"


def _content(content: str | Sequence[TextPart | ImagePart]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_shown(part) for part in content]


def _shown(part: TextPart | ImagePart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    image = part.image_url
    return {"type": "input_image", "image_url": image.url, "detail": image.detail or "auto"}


def _assistant(message: HubAssistant) -> list[dict[str, Any]]:
    content = _spoken(message)
    found = [{"type": "message", "role": "assistant", "content": content}] if content else []
    found += [_call(call) for call in message.tool_calls or ()]
    # A thought comes back with what came of it alone.
    return _sealed(message) + found if found else []


def _spoken(message: HubAssistant) -> str | list[dict[str, Any]]:
    """One string where it is text alone: parts of an answer have more to them than a chat tells."""
    said = message.content or []
    if isinstance(said, str) and not message.refusal:
        return said
    parts: list[TextPart | RefusalPart] = [TextPart(text=said)] if isinstance(said, str) else [*said]
    if message.refusal:
        parts.append(RefusalPart(refusal=message.refusal))
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if len(texts) == len(parts):
        return "\n\n".join(texts)
    return [
        {"type": "output_text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "refusal", "refusal": part.refusal}
        for part in parts
    ]


def _call(call: HubCall) -> dict[str, Any]:
    function = call.function
    return {
        "type": "function_call",
        "call_id": call_id(call.id),
        "name": function.name,
        "arguments": function.arguments,
    }


def _sealed(message: HubAssistant) -> list[dict[str, Any]]:
    found = thoughts(message.reasoning_details or ())
    return [_thought(thought) for thought in found if thought.sealed is not None]


def _thought(thought: Thought) -> dict[str, Any]:
    named = {} if thought.id is None else {"id": thought.id}
    summary = [{"type": "summary_text", "text": text} for text in thought.summary]
    return {"type": "reasoning", **named, "summary": summary, "encrypted_content": thought.sealed}
