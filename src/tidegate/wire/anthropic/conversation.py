"""The hub's messages become `system` and `messages` of the Messages API."""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.hub import CLAUDE
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
from tidegate.wire.instructions import marked
from tidegate.wire.surrogates import replace_lone_surrogates

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,58});base64,", re.IGNORECASE)
_MEDIA_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_MISNAMED = {"image/jpg": "image/jpeg"}
_System = HubSystem | HubDeveloper
_THOUGHTS = ("thinking", "redacted_thinking")
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_IN_CALL_ID = re.compile(r"[^a-zA-Z0-9_-]")


def call_id(id: str) -> str:
    """The id of a call as the vendor takes it. One of an engine that puts other characters into it becomes another,
    the same each time, and no two become one."""
    if _CALL_ID.fullmatch(id):
        return id
    digest = blake2b(id.encode(), digest_size=6).hexdigest()
    return f"{_NOT_IN_CALL_ID.sub('_', id)}_{digest}"


def conversation(messages: Sequence[HubMessage]) -> dict[str, Any]:
    """The two fields. Instructions before all else are the system's; those between are marked words of the user, where
    they are: of the vendor's models some refuse them from the system there, and some pass over them."""
    first = next((at for at, m in enumerate(messages) if not isinstance(m, _System)), len(messages))
    leading = [m for m in messages[:first] if isinstance(m, _System)]
    found: dict[str, Any] = {}
    if len(leading) == 1:
        system = _content(leading[0], "messages[0]")
    else:
        system = [block for message in leading for block in _blocks(message, "messages")]
    if system:
        found["system"] = system
    if first == len(messages):
        raise BadRequest("`messages`: this endpoint wants a message that is not the system's.", param="messages")
    found["messages"] = _turns(messages, first)
    return found


def _turns(messages: Sequence[HubMessage], first: int) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    # Of the user's next turn: what came of tools goes first, and what the system says behind it.
    results: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for at in range(first, len(messages)):
        message, path = messages[at], f"messages[{at}]"
        if isinstance(message, HubTool):
            content = _of_words(message.content) or _of_parts(message.content, path) or ""
            result = {"type": "tool_result", "tool_use_id": call_id(message.tool_call_id), "content": content}
            results += _hinted([result], message.cache_control)
        elif isinstance(message, HubUser):
            before = results + told
            said = before + _blocks(message, path) if before else _content(message, path)
            if not said:
                raise BadRequest(f"`{path}.content`: this endpoint takes no message without a word.", param="messages")
            turns.append({"role": "user", "content": said})
            results, told = [], []
        elif isinstance(message, HubAssistant):
            turns += _with(results + told)
            results, told = [], []
            said = _assistant(message, path)
            if said:
                turns.append({"role": "assistant", "content": said})
        elif (marked := _marked(message, path)) and turns and turns[-1]["role"] == "user" and not results:
            last = turns[-1]
            if isinstance(last["content"], str):
                last["content"] = _of_parts(last["content"], path)
            last["content"] += marked
        else:
            told += marked
    return turns + _with(results + told)


def _with(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": blocks}] if blocks else []


def _marked(message: _System, path: str) -> list[dict[str, Any]]:
    return [marked(block) for block in _blocks(message, path)]


_Parts = Iterable[TextPart | ImagePart | RefusalPart]


def _content(message: _System | HubUser, path: str) -> str | list[dict[str, Any]]:
    """Empty where there is no word in it, which the vendor takes of nobody."""
    words = _of_words(message.content)
    return words if words and message.cache_control is UNSET else _blocks(message, path)


def _blocks(message: _System | HubUser, path: str) -> list[dict[str, Any]]:
    return _hinted(_of_parts(message.content, path), message.cache_control)


def _hinted(blocks: list[dict[str, Any]], control: Raw | UnsetType) -> list[dict[str, Any]]:
    """The same with the hint that a message has: this dialect has it at blocks, and none at a thought."""
    if control is not UNSET and blocks and blocks[-1]["type"] not in _THOUGHTS:
        blocks[-1].setdefault("cache_control", control)
    return blocks


def _of_words(content: str | _Parts) -> str:
    return content if isinstance(content, str) and content.strip() else ""


def _of_parts(content: str | _Parts, path: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [
        _hinted([_block(part, f"{path}.content[{at}]")], part.cache_control)[0]
        for at, part in enumerate(content)
        if not isinstance(part, TextPart) or part.text.strip()
    ]


def _block(part: TextPart | ImagePart | RefusalPart, path: str) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, RefusalPart):
        return {"type": "text", "text": part.refusal}
    url = part.image_url.url
    data = _DATA_URL.match(url)
    if data is not None:
        told = data[1].lower()
        media_type = _MISNAMED.get(told, told)
        if media_type not in _MEDIA_TYPES:
            raise BadRequest(
                f"`{path}.image_url.url`: this endpoint takes images as JPEG, PNG, GIF and WebP alone.",
                param="messages",
            )
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": url[data.end() :]}}
    if url.startswith("data:"):
        raise BadRequest(
            f"`{path}.image_url.url`: a data URL must be of an image in base64: `data:image/...;base64,...`.",
            param="messages",
        )
    return {"type": "image", "source": {"type": "url", "url": url}}


def _assistant(message: HubAssistant, path: str) -> str | list[dict[str, Any]]:
    said = message.content
    details = [detail for detail in message.reasoning_details or () if detail.may_be(CLAUDE)]
    thoughts = [_thought(detail.text, detail.signature, detail.data) for detail in details]
    blocks = [thought for thought in thoughts if thought is not None]
    calls = message.tool_calls or []
    plain = not (blocks or calls or message.refusal) and message.cache_control is UNSET
    if plain and isinstance(said, str) and said.strip():
        return said
    if said is not None:
        blocks += _of_parts(said, path)
    if message.refusal:
        blocks.append({"type": "text", "text": message.refusal})
    blocks += [_use(call, f"{path}.tool_calls[{at}]") for at, call in enumerate(calls)]
    return _hinted(blocks, message.cache_control)


def _thought(text: str | None, signature: str | None, data: str | None) -> dict[str, Any] | None:
    """A thought that its maker takes back: with its seal, or sealed altogether."""
    if data is not None:
        return {"type": "redacted_thinking", "data": data}
    if text is None or not signature:
        return None
    return {"type": "thinking", "thinking": text, "signature": signature}


def _use(call: HubCall, path: str) -> dict[str, Any]:
    arguments = replace_lone_surrogates(call.function.arguments.strip().encode()) or b"{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, Raw])
    except UNREADABLE:
        raise BadRequest(
            f"`{path}.function.arguments`: is not a JSON object, which this endpoint wants.", param="messages"
        ) from None
    use = {"type": "tool_use", "id": call_id(call.id), "name": call.function.name, "input": Raw(arguments)}
    return _hinted([use], call.cache_control)[0]
