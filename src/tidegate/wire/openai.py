"""OpenAI's protocol from the client's side: what a request asks for, and how it is passed on."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from tidegate.core.model import Capability
from tidegate.wire.asked import (
    KNOBS_FIELD,
    Chat,
    Completion,
    Message,
    Part,
    decode_chat,
    decode_completion,
    decode_parts,
)
from tidegate.wire.call import Call as Call
from tidegate.wire.call import Native as Native
from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.outline import OUTLINED_BYTES_MIN, outline, whole_bytes
from tidegate.wire.shape import bad_field, read_fields
from tidegate.wire.tokens import text_bytes

# Beyond any engine; a larger bound means the same and would not fit a 64-bit field further down.
OUTPUT_TOKENS_MAX = 2**31 - 1

EMBEDDING = Capability.EMBEDDING

# Looking a member up in its class costs more than the comparison that follows.
_CHAT, _COMPLETION = Capability.CHAT, Capability.COMPLETION


_ACCEPTED = {
    "model": "must be the name of a model, 1 to 256 characters; GET /v1/models lists them",
    "stream": "must be true or false",
    "stream_options": 'must be an object such as {"include_usage": true}',
    "max_tokens": "must be a whole number from 1",
    "max_completion_tokens": "must be a whole number from 1",
    "n": "must be a whole number from 1 to 128",
    "best_of": "must be a whole number from 1 to 128",
    "tools": "must be an array of tools",
    "functions": "must be an array of functions",
    "response_format": "must be an object with a string `type`",
    "messages": "must be a non-empty array of objects, each with a string `role`, and as `content` a string, "
    "an array of parts, or null",
    "logprobs": "must be true or false in chat, a whole number in completions",
    "prompt": "must be a string, a non-empty array of strings, of tokens, or of arrays of tokens",
}


def parse_chat(body: bytes, _: Mapping[bytes, bytes]) -> Call:
    """Read the body of a chat completion request; its headers say nothing more. See `parse`."""
    return parse(body, _CHAT)


def parse_completion(body: bytes, _: Mapping[bytes, bytes]) -> Call:
    """The same of a text completion request."""
    return parse(body, _COMPLETION)


def parse(body: bytes, kind: Capability) -> Call:
    """Read the body of a chat (`CHAT`) or text (`COMPLETION`) completion request.

    Raises `BadRequest` and nothing else. A field that is given twice must be good each time and counts as its last,
    here and for whoever the request is passed on to.
    """
    fields, body = read_fields(body, tokens=kind is not _CHAT)
    looked_at = body
    try:
        # A second look at the same bytes costs less than to take them apart field by field.
        asked: Chat | Completion
        if kind is not _CHAT:
            asked = decode_completion(body)
        elif len(body) < OUTLINED_BYTES_MIN:
            asked = decode_chat(body)
        else:
            looked_at = outline(body)
            asked = decode_chat(looked_at)
    except UNREADABLE as error:
        raise bad_field(str(error), _ACCEPTED) from None
    knobs = fields.pop(KNOBS_FIELD, None)
    tools = "tools" if asked.tools else "functions" if asked.functions else None
    tools_json = NO_BYTES if tools is None else memoryview(fields[tools])
    prompt = memoryview(fields["messages" if kind is _CHAT else "prompt"])
    found = _Content(is_outline=looked_at is not body)
    if isinstance(asked, Chat):
        found.read_messages(asked.messages)
    else:
        found.read_prompt(asked.prompt)
    output_tokens_max = asked.max_completion_tokens or asked.max_tokens
    if asked.max_completion_tokens is not None and asked.max_tokens is not None:
        # Not every engine knows the newer name: whichever it goes by, the answer has one bound.
        fields["max_tokens"] = fields["max_completion_tokens"]
    best_of = asked.best_of if isinstance(asked, Completion) else None
    return Call(
        kind=kind,
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=asked.stream_options is not None and bool(asked.stream_options.include_usage),
        output_tokens_max=None if output_tokens_max is None else min(output_tokens_max, OUTPUT_TOKENS_MAX),
        completions=(asked.n or 1) * found.prompts,
        generated=max(asked.n or 1, best_of or 1) * found.prompts,
        prompts=found.prompts,
        needs=_needs(kind, asked, tools is not None, found),
        prompt=prompt,
        tools=tools_json,
        text_bytes=max(0, text_bytes(prompt) - found.media_bytes) + (text_bytes(tools_json) if tools else 0),
        messages=found.messages,
        media=found.images + found.sounds + found.files,
        prompt_tokens=found.tokens,
        knobs=knobs,
        fields=fields,
    )


NO_BYTES = memoryview(b"")
_NULL = Raw(b"null")
_QUOTE = ord('"')
# A video is a row of images to those who see.
_SEEN: Final = ("image_url", "video_url")
_HEARD: Final = ("input_audio", "audio_url")
# What is no longer than its bytes; whatever else a part may be (documents, files), its bytes may stand for more.
_READ: Final = ("", "text", "refusal", "thinking", "input_text", "output_text")


class _Content:
    """What a prompt holds besides text, counted."""

    __slots__ = ("_is_outline", "files", "images", "media_bytes", "messages", "prompts", "sounds", "tokens")

    def __init__(self, *, is_outline: bool) -> None:
        self._is_outline = is_outline
        self.messages = self.images = self.sounds = self.files = self.media_bytes = 0
        self.prompts = 1
        self.tokens: int | None = None

    def read_messages(self, messages: list[Message]) -> None:
        """Count what the messages of a chat hold."""
        self.messages = len(messages)
        for at, message in enumerate(messages):
            content = message.content
            self.files += message.audio is not UNSET and message.audio != _NULL
            # A string is passed by unread: to decode a long prompt would take half as long again.
            if content is UNSET or memoryview(content)[0] == _QUOTE:
                continue
            try:
                parts = decode_parts(content)
            except UNREADABLE as error:
                raise bad_field(str(error), _ACCEPTED, f"messages[{at}].content") from None
            for part in parts or ():
                if isinstance(part, Part):
                    self._read_part(part)

    def _read_part(self, part: Part) -> None:
        image, video, audio, sound = part.image_url, part.video_url, part.audio_url, part.input_audio
        is_seen = image is not UNSET or video is not UNSET or part.type in _SEEN
        is_heard = audio is not UNSET or sound is not UNSET or part.type in _HEARD
        self.images += is_seen
        self.sounds += is_heard
        self.files += part.file is not UNSET or not (is_seen or is_heard or part.type in _READ)
        for media in (image, video, audio, sound, part.file):
            if media is not UNSET:
                view = memoryview(media)
                self.media_bytes += whole_bytes(view) if self._is_outline else len(view)

    def read_prompt(self, prompt: str | list[str | int | list[int]]) -> None:
        """Count the prompts of a text completion, and its tokens if it came as such."""
        if isinstance(prompt, str):
            return
        kinds = {type(item) for item in prompt}
        if len(kinds) > 1:
            raise bad_field("the items of the array are of different kinds", _ACCEPTED, "prompt")
        if kinds == {int}:
            self.tokens = len(prompt)
            return
        self.prompts = len(prompt)
        if kinds == {list}:
            self.tokens = sum(len(item) for item in prompt if isinstance(item, list))


def _needs(kind: Capability, asked: Chat | Completion, tools: bool, found: _Content) -> tuple[Capability, ...]:
    needs = [kind]
    if tools:
        needs.append(Capability.TOOLS)
    if asked.response_format is not None and asked.response_format.type == "json_schema":
        needs.append(Capability.JSON_SCHEMA)
    if found.images:
        needs.append(Capability.VISION)
    if found.sounds:
        needs.append(Capability.AUDIO)
    # Most say nothing of them, and need not be asked by what is not compiled.
    if asked.logprobs is not None and asked.wants_logprobs:
        needs.append(Capability.LOGPROBS)
    return tuple(needs)


_TRUE, _FALSE = Raw(b"true"), Raw(b"false")
# What every stream is asked for, and how SDKs write that.
_USAGE = Raw(b'{"include_usage":true}')
_USAGE_ALONE: Final = (_USAGE, Raw(b'{"include_usage": true}'))
_encode = msgspec.json.Encoder().encode
_options = msgspec.json.Decoder(dict[str, Raw] | None).decode


def upstream_body(call: Call, *, model: str, stream: bool) -> bytes:
    """The request for an endpoint that calls the model `model`: every other field byte for byte as it came.

    A stream is always asked for its usage: it is what the estimates learn from and what is charged. Embeddings have
    no field for it, and some servers refuse one. Raises `BadRequest` for options that cannot be taken apart.
    """
    fields: dict[str, Raw | str] = dict(call.fields)
    fields["model"] = model
    if call.kind is EMBEDDING:
        return _encode(fields)
    fields["stream"] = _TRUE if stream else _FALSE
    options = fields.pop("stream_options", _USAGE)
    if stream and options in _USAGE_ALONE:
        fields["stream_options"] = _USAGE
    elif stream:
        try:
            kept = _options(options) or {}
        except RecursionError:  # beyond what was borne when it was looked at, from fewer calls within each other
            raise BadRequest("`stream_options`: is nested too deeply.", param="stream_options") from None
        fields["stream_options"] = Raw(_encode({**kept, "include_usage": _TRUE}))
    return _encode(fields)
