"""Requests of Ollama's clients become chat completions."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.fate import Fate, Field, top_level
from tidegate.wire.hub import call_of, encode
from tidegate.wire.ollama.shapes import (
    ACCEPTED,
    CHAT,
    GENERATE,
    OPTIONS,
    ChatBody,
    Common,
    GenerateBody,
    Message,
    Options,
    ToolCall,
)
from tidegate.wire.openai import Call
from tidegate.wire.shape import bad_field, known_only, quotable, read_body, read_fields

# The name of the schema, which OpenAI wants and Ollama has not.
FORMAT_NAME = "answer"
_ANY: Final = ("", "")  # what a result that names no call may be of
_NULL = Raw(b"null")
_chat = msgspec.json.Decoder(ChatBody)
_generate = msgspec.json.Decoder(GenerateBody)
_options = msgspec.json.Decoder(Options).decode
_OPTIONS = top_level(OPTIONS, *Fate)
# How the first bytes of each kind of image look in base64.
_IMAGES = {"iVBOR": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp"}


def parse_chat(body: bytes) -> Call:
    """The call that a body of `POST /api/chat` asks for. Raises `BadRequest` and nothing else."""
    asked = read_body(_checked(body, CHAT), _chat, ACCEPTED)
    fields = _common(asked)
    fields["messages"] = _Conversation().read(asked.messages)
    if asked.tools:
        fields["tools"] = asked.tools
    return call_of(fields)


def parse_generate(body: bytes) -> Call:
    """The call that a body of `POST /api/generate` asks for. Raises `BadRequest` and nothing else."""
    asked = read_body(_checked(body, GENERATE), _generate, ACCEPTED)
    if asked.raw:
        raise BadRequest("`raw`: engines have templates of their own here. Leave it out.", param="raw")
    fields = _common(asked)
    messages: list[dict[str, Any]] = [{"role": "system", "content": asked.system}] if asked.system else []
    messages.append({"role": "user", "content": _content(asked.prompt, asked.images, "images", "images")})
    fields["messages"] = messages
    return call_of(fields)


def _checked(body: bytes, table: Sequence[Field]) -> bytes:
    """The body as it can be read, of fields that are known and can be carried."""
    given, body = read_fields(body)
    for name, why in top_level(table, Fate.REFUSED).items():
        # An empty one is what clients send that have nothing to say.
        if name in given and given[name] not in (_NULL, Raw(b'""'), Raw(b"[]")):
            raise BadRequest(f"`{name}` cannot be carried: {why}.", param=name)
    known_only(given, top_level(table, *Fate), "Ollama")
    return body


def _common(asked: Common) -> dict[str, Any]:
    if asked.logprobs or asked.top_logprobs:
        name = "logprobs" if asked.logprobs else "top_logprobs"
        raise BadRequest(f"`{name}`: log-probabilities are not carried in this dialect. Leave it out.", param=name)
    fields: dict[str, Any] = {"model": asked.model, "stream": asked.stream is not False}
    if asked.options is not None:
        fields |= _carried(asked.options)
    if asked.format == "json":
        fields["response_format"] = {"type": "json_object"}
    elif asked.format:
        # Not strict: there, vendors take closed schemas alone, and nobody asks for that here.
        schema = {"name": FORMAT_NAME, "schema": asked.format}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if asked.think is False:
        fields["reasoning_effort"] = "none"
    elif isinstance(asked.think, str):
        fields["reasoning_effort"] = asked.think
    if asked.tidegate is not None:
        fields["tidegate"] = asked.tidegate
    return fields


def _carried(given: dict[str, Raw]) -> dict[str, Any]:
    for name in given:
        if name not in _OPTIONS:
            raise BadRequest(
                f"`options.{quotable(name)}` is not an option that is known here; leave it out.", param="options"
            )
    try:
        options = _options(encode(given))
    except UNREADABLE as error:
        raise bad_field(str(error), ACCEPTED, "options") from None
    fields = {name: getattr(options, name) for name in Options.__struct_fields__}
    bound = fields.pop("num_predict")
    # -1 is no bound, -2 the rest of the window; 0 would be no answer at all, which engines do not give.
    if bound is not None and bound > 0:
        fields["max_tokens"] = bound
    elif bound == 0:
        raise BadRequest("`options.num_predict`: 0 asks for no answer. Leave it out.", param="options")
    return {name: value for name, value in fields.items() if value is not None}


def _content(text: str, images: list[str] | None, path: str, param: str) -> str | list[dict[str, Any]]:
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for at, data in enumerate(images):
        kind = next((kind for beginning, kind in _IMAGES.items() if data.startswith(beginning)), None)
        if kind is None:
            kinds = ", ".join(_IMAGES.values())
            raise BadRequest(f"`{path}[{at}]`: must be an image in base64, one of {kinds}.", param=param)
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}})
    return parts


class _Conversation:
    """Messages whose calls have ids, and whose results know them."""

    def __init__(self) -> None:
        self._count = 0
        # Calls without a result, by number, and the numbers by each thing that a result may say of its call: whoever
        # has thousands of both must not have each result looked for among all calls.
        self._open: dict[int, str] = {}
        self._numbers: dict[tuple[str, str], deque[int]] = {}

    def read(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages of a chat completion."""
        return [self._message(message, f"messages[{at}]") for at, message in enumerate(messages)]

    def _message(self, message: Message, path: str) -> dict[str, Any]:
        id = self._answered(message) if message.role == "tool" else None
        if message.role == "tool" and id is None:
            # Home Assistant cuts conversations so; engines want a result behind its call, and this is how those models
            # see one that have no role for it.
            text = f"<tool_response>\n{message.content or ''}\n</tool_response>"
            return {"role": "user", "content": _content(text, message.images, f"{path}.images", "messages")}
        content = _content(message.content or "", message.images, f"{path}.images", "messages")
        made: dict[str, Any] = {"role": message.role, "content": content}
        if id is not None:
            made["tool_call_id"] = id
        if message.thinking:
            made["reasoning_content"] = message.thinking
        if message.tool_calls:
            made["tool_calls"] = [self._call(call) for call in message.tool_calls]
            made["content"] = content or None
        return made

    def _call(self, call: ToolCall) -> dict[str, Any]:
        number = self._count
        id = call.id or f"call_{number}"
        self._count += 1
        self._open[number] = id
        for said in (("id", id), ("name", call.function.name), _ANY):
            self._numbers.setdefault(said, deque()).append(number)
        arguments = encode(call.function.arguments).decode()
        return {"id": id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}

    def _answered(self, message: Message) -> str | None:
        """The call that a result is of, which no further result can be of; None where it stands there without one."""
        if message.tool_call_id:
            said = "id", message.tool_call_id
        else:
            said = ("name", message.tool_name) if message.tool_name else _ANY
        numbers = self._numbers.get(said)
        while numbers:
            if (id := self._open.pop(numbers.popleft(), None)) is not None:
                return id
        return None
