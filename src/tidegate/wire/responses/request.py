"""A Responses request becomes a chat completion."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.fate import Fate, top_level
from tidegate.wire.hub import call_of, text_or_parts
from tidegate.wire.instructions import led, parts_of
from tidegate.wire.openai import Call, Native
from tidegate.wire.responses.shapes import (
    ACCEPTED,
    FIELDS,
    NAME,
    Body,
    Format,
    FunctionCallItem,
    FunctionOutputItem,
    InputImage,
    Item,
    MessageItem,
    MessagePart,
    ReasoningItem,
    Refusal,
    Tool,
)
from tidegate.wire.shape import bad_field, known_only, read_body, read_fields

_KNOWN = top_level(FIELDS, Fate.CARRIED, Fate.NATIVE, Fate.SET_ASIDE)
_REFUSED = top_level(FIELDS, Fate.REFUSED)
_NULL = Raw(b"null")
_decoder = msgspec.json.Decoder(Body)
_item = msgspec.json.Decoder(Item).decode
_AnyItem = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem
_ITEMS: dict[str, msgspec.json.Decoder[Any]] = {
    "message": msgspec.json.Decoder(MessageItem),
    "function_call": msgspec.json.Decoder(FunctionCallItem),
    "function_call_output": msgspec.json.Decoder(FunctionOutputItem),
    "reasoning": msgspec.json.Decoder(ReasoningItem),
}


def parse(body: bytes) -> Call:
    """The call that a body of `POST /v1/responses` asks for. Raises `BadRequest` and nothing else."""
    fields, body = read_fields(body)
    for name, why in _REFUSED.items():
        if name in fields and fields[name] != _NULL:
            raise BadRequest(f"`{name}` cannot be carried: {why}.", param=name)
    known_only(fields, {**_KNOWN, **_REFUSED}, "Responses")
    asked = read_body(body, _decoder, ACCEPTED)
    if asked.background:
        raise BadRequest("`background`: nothing is kept for later here. Leave it out.", param="background")
    if asked.top_logprobs or "message.output_text.logprobs" in (asked.include or ()):
        name = "top_logprobs" if asked.top_logprobs else "include"
        raise BadRequest(f"`{name}`: log-probabilities are not carried in this dialect. Leave it out.", param=name)
    fields.pop("tidegate", None)
    return call_of(_chat(asked), Native(dialect=NAME, fields=fields))


def _chat(asked: Body) -> dict[str, Any]:
    chat: dict[str, Any] = {"model": asked.model, "messages": _messages(asked)}
    text, reasoning = asked.text, asked.reasoning
    # An empty list says that there are none; some engines refuse one, and others what is said of tools without any.
    tools = [_tool(tool) for tool in asked.tools or ()] or None
    plain = {
        "max_tokens": asked.max_output_tokens,
        "stream": asked.stream,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "parallel_tool_calls": asked.parallel_tool_calls if tools else None,
        "user": asked.user,
        "prompt_cache_key": asked.prompt_cache_key,
        "safety_identifier": asked.safety_identifier,
        "service_tier": asked.service_tier,
        "reasoning_effort": reasoning.effort if reasoning is not None else None,
        "verbosity": text.verbosity if text is not None else None,
        "response_format": _format(text.format) if text is not None and text.format is not None else None,
        "tools": tools,
        "tidegate": asked.tidegate,
    }
    chat |= {name: value for name, value in plain.items() if value is not None}
    choice = asked.tool_choice
    if isinstance(choice, str):
        if tools or choice == "required":
            chat["tool_choice"] = choice
    elif choice is not None:
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    return chat


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _format(format: Format) -> dict[str, Any] | None:
    if format.type != "json_schema":
        return None if format.type == "text" else {"type": format.type}
    if format.name is None or format.schema is UNSET:
        missing = "name" if format.name is None else "schema"
        raise BadRequest(f"`text.format.{missing}`: is missing. A json_schema has a name and a schema.", param="text")
    schema: dict[str, Any] = {"name": format.name, "schema": format.schema}
    if format.description is not None:
        schema["description"] = format.description
    if format.strict is not None:
        schema["strict"] = format.strict
    return {"type": "json_schema", "json_schema": schema}


def _messages(asked: Body) -> list[dict[str, Any]]:
    found = _Conversation()
    if asked.instructions:
        found.messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        found.messages.append({"role": "user", "content": asked.input})
    else:
        for at, raw in enumerate(asked.input):
            found.add(_read(raw, f"input[{at}]"), f"input[{at}]")
        found.end()
    return led(found.messages)


def _read(raw: Raw, path: str) -> _AnyItem:
    try:
        kind = _item(raw).type
        decoder = _ITEMS.get(kind)
        if decoder is None:
            raise bad_field("is none of the kinds that can be carried - at `$.type`", ACCEPTED, path)
        item: _AnyItem = decoder.decode(raw)
    except UNREADABLE as error:
        raise bad_field(str(error), ACCEPTED, path) from None
    return item


class _Conversation:
    """Items put together to messages: thoughts wait for what the assistant says next, calls join it.

    What it thinks or says behind a call that has no result yet joins the call's message, before all its calls: engines
    want results right behind these. What joins the last message is put together once that is whole: one after the
    other, it would be copied as often as there are items.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._thoughts: list[str] = []
        self._parts: list[dict[str, Any]] = []  # more content of the last message
        self._reasons: list[str] = []  # and all of its thoughts

    def add(self, item: _AnyItem, path: str) -> None:
        if isinstance(item, ReasoningItem):
            self._thoughts += [part.text for part in item.content or item.summary if part.text]
        elif isinstance(item, FunctionCallItem):
            function = {"name": item.name, "arguments": item.arguments}
            calls = self._speaker().setdefault("tool_calls", [])
            calls.append({"id": item.call_id, "type": "function", "function": function})
        elif isinstance(item, FunctionOutputItem):
            self._settle()
            content = item.output if isinstance(item.output, str) else _content(item.output, item, path)
            self._append({"role": "tool", "tool_call_id": item.call_id, "content": content})
        else:
            content = item.content if isinstance(item.content, str) else _content(item.content, item, path)
            if item.role == "assistant":
                self._say(content)
            else:
                self._settle()
                # Some vendors know no developers, and all the system.
                self._append({"role": "user" if item.role == "user" else "system", "content": content})

    def end(self) -> None:
        """No item comes any more."""
        self._settle()
        self._put_together()

    def _settle(self) -> None:
        """A thought that led to nothing is said by itself."""
        if self._thoughts:
            self._say("")

    def _append(self, message: dict[str, Any]) -> None:
        self._put_together()
        self.messages.append(message)

    def _put_together(self) -> None:
        if self._parts:
            last = self.messages[-1]
            last["content"] = text_or_parts(parts_of(last["content"]) + self._parts)
            self._parts = []
        if self._reasons:
            self.messages[-1]["reasoning_content"] = "".join(self._reasons)
            self._reasons = []

    def _say(self, content: str | list[dict[str, Any]] | None) -> None:
        if self.messages and "tool_calls" in self.messages[-1]:
            self._parts += parts_of(content)
        else:
            self._append({"role": "assistant", "content": content})
        if self._thoughts:
            # Where it stands in the message.
            self.messages[-1].setdefault("reasoning_content", "")
            self._reasons += self._thoughts
            self._thoughts = []

    def _speaker(self) -> dict[str, Any]:
        """The message that a call is part of."""
        if self._thoughts or not self.messages or self.messages[-1]["role"] != "assistant":
            self._say(None)
        return self.messages[-1]


def _content(parts: Sequence[MessagePart], item: _AnyItem, path: str) -> str | list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for at, part in enumerate(parts):
        if isinstance(part, InputImage):
            if isinstance(item, MessageItem) and item.role != "user":
                raise BadRequest(f"`{path}.content[{at}]`: only users show images.", param="input")
            image = {"url": part.image_url}
            found.append({"type": "image_url", "image_url": image | ({"detail": part.detail} if part.detail else {})})
        elif isinstance(part, Refusal):
            found.append({"type": "refusal", "refusal": part.refusal})
        else:
            found.append({"type": "text", "text": part.text})
    return text_or_parts(found)
