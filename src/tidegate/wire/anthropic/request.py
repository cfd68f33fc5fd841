"""A Messages request becomes a chat completion."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tidegate.wire.anthropic.closed import is_strict
from tidegate.wire.anthropic.conversation import call_id
from tidegate.wire.anthropic.errors import THREAD_UNSUPPORTED
from tidegate.wire.anthropic.known import known_parts, refuse_slips
from tidegate.wire.anthropic.shapes import (
    ACCEPTED,
    FIELDS,
    NAME,
    USER_CHARS_MAX,
    AssistantBlock,
    AssistantMessage,
    Base64Source,
    Body,
    ContextManagement,
    ImageBlock,
    Kept,
    KeptBody,
    Message,
    MidConvSystemBlock,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolChoice,
    ToolKind,
    ToolResultBlock,
    ToolUseBlock,
    UserBlock,
    UserMessage,
)
from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.fate import Fate, top_level
from tidegate.wire.hub import call_of, encode, text_or_parts
from tidegate.wire.instructions import led
from tidegate.wire.openai import Call, Native
from tidegate.wire.shape import read_body, read_fields

_NAMES = top_level(FIELDS, *Fate)
_REFUSED = top_level(FIELDS, Fate.REFUSED)
_decoder = msgspec.json.Decoder(Body)
_kept = msgspec.json.Decoder(KeptBody).decode
_edited = msgspec.json.Decoder(ContextManagement).decode
_kinds = msgspec.json.Decoder(list[ToolKind]).decode
_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
# How the vendor names the tools that it runs.
_DATED = re.compile(r"[a-z][a-z0-9_]{0,63}_[0-9]{8}")
# The name of the schema, which OpenAI wants and Anthropic has not.
FORMAT_NAME = "answer"
BETA_HEADER = b"anthropic-beta"
NO_HEADERS: Mapping[bytes, bytes] = {}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# Choices that want a tool to be called.
_CALLS = ("any", "tool")
_REFUSED_CODES = {"thread": THREAD_UNSUPPORTED}
_COMPACT = "compact"
_BILLING = "x-anthropic-billing-header:"
# How long what is written to the vendor's cache stays there, where nothing dearer is asked for.
_TTLS = (None, "5m")
# Where this is asked at all, one of these is in the bytes: the name of it, or one of its letters escaped.
_TTL_SIGNS = (b'"ttl"', rb"\u006", rb"\u007")


def parse(body: bytes, headers: Mapping[bytes, bytes] = NO_HEADERS, *, counting: bool = False) -> Call:
    """The call that a body of `POST /v1/messages` asks for; `counting` is `/v1/messages/count_tokens`.

    Names of headers are in lower case. Raises `BadRequest` and nothing else.
    """
    fields, body = read_fields(body)
    for name, why in _REFUSED.items():
        if name in fields and fields[name] != _NULL:
            raise BadRequest(
                f"`{name}` cannot be carried: {why}. Leave it out.", param=name, code=_REFUSED_CODES.get(name)
            )
    refuse_slips(fields, _NAMES)
    asked, known = _read(body, {name: value for name, value in fields.items() if name in _NAMES})
    if asked.max_tokens is None and not counting:
        raise BadRequest(f"`max_tokens`: is missing. `max_tokens` {ACCEPTED['max_tokens']}.", param="max_tokens")
    if _compacts(fields):
        raise BadRequest(
            "`context_management.edits`: the block in which the vendor answers what it made shorter is not carried. "
            "Leave compact edits out.",
            param="context_management",
        )
    return call_of(_chat(asked), _native(asked, fields, known, headers))


def _read(body: bytes, known: dict[str, Raw]) -> tuple[Body, dict[str, Raw]]:
    """What is asked, and what of the `known` fields is known within them, too. Raises `BadRequest`."""
    try:
        return _decoder.decode(body), known
    except UNREADABLE:
        known = known_parts(known, Body)
    try:
        return read_body(encode(known), _decoder, ACCEPTED), known
    except BadRequest as error:
        unserved = _unserved(known) if error.param == "tools" else None
        raise unserved or error from None


def _native(asked: Body, fields: dict[str, Raw], known: dict[str, Raw], headers: Mapping[bytes, bytes]) -> Native:
    """The request for the vendor, who takes fields that are new only together with the header that names them."""
    fields.pop("tidegate", None)
    known.pop("tidegate", None)
    if any(_is_foreign(block) for message in asked.messages for block in _blocks(message)):
        for part in (fields, known):
            part["messages"] = Raw(encode(_acceptable(asked.messages, part["messages"])))
    kept = tuple((name, headers[name]) for name in (BETA_HEADER,) if name in headers)
    return Native(dialect=NAME, fields=fields, known=None if known == fields else known, headers=kept)


_NULL = Raw(b"null")


def _unserved(fields: Mapping[str, Raw]) -> BadRequest | None:
    """The error for a tool that the vendor runs, in its words: Claude Code goes on without its advisor at these alone.

    None where there is no such tool. What the vendor names with a date is nobody's own, and may be quoted.
    """
    try:
        kinds = [tool.type or "" for tool in _kinds(fields["tools"])]
    except UNREADABLE:
        return None
    for at, kind in enumerate(kinds):
        if _DATED.fullmatch(kind):
            return BadRequest(
                f"`tools[{at}].type`: Input tag '{kind}' found using 'type' does not match any of the expected tags. "
                f"`tools` {ACCEPTED['tools']}.",
                param="tools",
            )
    return None


def _compacts(fields: Mapping[str, Raw]) -> bool:
    """Whether the vendor is asked to put something shorter into the place of the conversation."""
    try:
        return any(edit.type.startswith(_COMPACT) for edit in _edited(fields.get("context_management", b"{}")).edits)
    except UNREADABLE:
        return False


def _blocks(message: Message) -> Sequence[object]:
    return () if isinstance(message.content, str) else message.content


def _is_unsealed(block: object) -> bool:
    return isinstance(block, ThinkingBlock) and not block.signature


def _is_foreign(block: object) -> bool:
    """Whether it is of an engine that seals no thoughts, or puts into the ids of calls what the vendor does not
    take."""
    if isinstance(block, ToolUseBlock):
        return call_id(block.id) != block.id
    if isinstance(block, ToolResultBlock):
        return call_id(block.tool_use_id) != block.tool_use_id
    return _is_unsealed(block)


def _acceptable(messages: Sequence[Message], came: Raw) -> list[dict[str, Any]]:
    """The messages as they `came`, as the vendor takes them back: without such thoughts, with ids of its own kind."""
    found: list[dict[str, Any]] = []
    for message, whole in zip(messages, _objects(came), strict=True):
        blocks = _blocks(message)
        if not blocks:
            found.append(whole)
            continue
        pairs = zip(blocks, _objects(whole["content"]), strict=True)
        if kept := [_renamed(block, part) for block, part in pairs if not _is_unsealed(block)]:
            found.append({**whole, "content": kept})
    return found


def _renamed(block: object, whole: dict[str, Any]) -> dict[str, Any]:
    if isinstance(block, ToolUseBlock):
        return {**whole, "id": call_id(block.id)}
    if isinstance(block, ToolResultBlock):
        return {**whole, "tool_use_id": call_id(block.tool_use_id)}
    return whole


def keeps_long(fields: Mapping[str, Raw]) -> bool:
    """Whether a request asks for more than the five minutes in the vendor's cache that it has for the usual price, or
    for nobody knows what. In a chat, too, who sells the vendor's models takes the vendor's word for it."""
    if not any(_may_ask_ttl(value) for value in fields.values()):
        return False
    try:
        asked = _kept(encode(fields))
        system = () if isinstance(asked.system, str) else asked.system or ()
        return any(_is_long(part) for part in (asked, *(asked.tools or ()), *system, *asked.messages))
    except UNREADABLE:
        return True


def _may_ask_ttl(value: Raw) -> bool:
    text = bytes(value)
    return any(sign in text for sign in _TTL_SIGNS)


def _is_long(part: Kept) -> bool:
    if part.cache_control is not None and part.cache_control.ttl not in _TTLS:
        return True
    inner = part.content if isinstance(part.content, list) else []
    more = [] if part.function is None else [part.function]
    return any(_is_long(one) for one in (*inner, *more, *(part.tool_calls or ())))


def _chat(asked: Body) -> dict[str, Any]:
    chat: dict[str, Any] = {"model": asked.model, "messages": _messages(asked)}
    plain = {
        # Others than the vendor cannot be asked for nothing; the prompt is then in their caches as well.
        "max_tokens": 1 if asked.max_tokens == 0 else asked.max_tokens,
        "stop": asked.stop_sequences,
        "stream": asked.stream,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "tidegate": asked.tidegate,
    }
    chat |= {name: value for name, value in plain.items() if value is not None}
    # An empty list says that there are none; some engines refuse one, and others what is said of tools without any.
    if asked.tools:
        chat["tools"] = [_tool(tool) for tool in asked.tools]
    if asked.tool_choice is not None and (asked.tools or asked.tool_choice.type in _CALLS):
        chat |= _choice(asked.tool_choice)
    if asked.metadata is not None and asked.metadata.user_id is not None:
        chat["user"] = _user_name(asked.metadata.user_id)
    config = asked.output_config
    if config is not None and config.effort is not None:
        chat["reasoning_effort"] = config.effort
    format = config.format if config is not None and config.format is not None else asked.output_format
    if format is not None:
        schema: dict[str, Any] = {"name": FORMAT_NAME, "schema": format.schema}
        # This dialect is always strict; OpenAI refuses a schema with an optional member, if it is told so.
        if is_strict(format.schema):
            schema["strict"] = True
        chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat


def _user_name(user_id: str) -> str:
    """The same for the same user, and no longer than OpenAI takes."""
    return user_id if len(user_id) <= USER_CHARS_MAX else sha256(user_id.encode()).hexdigest()


def _messages(asked: Body) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    system = _content(_without_billing(asked.system or ""))
    if system:
        found.append({"role": "system", "content": system})
    for at, message in enumerate(asked.messages):
        found += _message(message, f"messages[{at}]")
    return led(found)


def _without_billing(system: str | list[TextBlock]) -> str | list[TextBlock]:
    """The same without the block that Claude Code has for the vendor alone, which takes it out: it is another one each
    time, and with it before all else no engine would find the beginning of the prompt in its cache."""
    if isinstance(system, list) and system and system[0].text.startswith(_BILLING):
        return system[1:]
    return system


def _message(message: Message, path: str) -> list[dict[str, Any]]:
    if isinstance(message, UserMessage):
        if isinstance(message.content, str):
            return [{"role": "user", "content": message.content}]
        return _user(message.content, path)
    if isinstance(message, AssistantMessage):
        if isinstance(message.content, str):
            return [{"role": "assistant", "content": message.content}]
        return [_assistant(message.content)]
    return [{"role": "system", "content": _content(message.content)}]


def _user(blocks: Sequence[UserBlock], path: str) -> list[dict[str, Any]]:
    """The results of tools, each a message of its own, after them what the user says, and what the system does."""
    found: list[dict[str, Any]] = []
    rest: list[TextBlock | ImageBlock] = []
    told: list[dict[str, Any]] = []
    for at, block in enumerate(blocks):
        if isinstance(block, MidConvSystemBlock):
            told.append({"role": "system", "content": _content(block.content)})
        elif not isinstance(block, ToolResultBlock):
            rest.append(block)
        elif rest:
            raise BadRequest(
                f"`{path}.content[{at}]`: a tool_result stands behind other blocks; results go first.",
                param="messages",
            )
        else:
            content = "" if block.content is UNSET else _content(block.content)
            found.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": content})
    if rest or not (found or told):
        found.append({"role": "user", "content": _content(rest)})
    return found + told


def _assistant(blocks: Sequence[AssistantBlock]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    texts = [block for block in blocks if isinstance(block, TextBlock)]
    calls = [block for block in blocks if isinstance(block, ToolUseBlock)]
    thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    message["content"] = _content(texts) if texts or not calls else None
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _json(call.input)}}
            for call in calls
        ]
    return message


def _json(value: object) -> str:
    return encode(value).decode()


def _content(content: str | Sequence[TextBlock | ImageBlock]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else text_or_parts([_part(block) for block in content])


def _part(block: TextBlock | ImageBlock) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    source = block.source
    url = f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Source) else source.url
    return {"type": "image_url", "image_url": {"url": url}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not UNSET:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict is False or (tool.strict is True and is_strict(Raw(encode(tool.input_schema)))):
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if choice.type == "tool":
        if choice.name is None:
            raise BadRequest("`tool_choice.name`: is missing. A choice of type tool names one.", param="tool_choice")
        found["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        found["tool_choice"] = _CHOICES[choice.type]
    if choice.disable_parallel_tool_use is not None:
        found["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return found
