"""What is looked at in the body of a chat or text completion. Every other field passes unseen."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tidegate.wire.alone import ARGUMENTS, OF_ENGINES
from tidegate.wire.options import EXTRAS, OTHER_MODELS

# Our own settings in a body, for clients that cannot set headers; never passed on.
KNOBS_FIELD = "tidegate"

_Count = Annotated[int, Meta(ge=1)]
_Several = Annotated[int, Meta(ge=1, le=128)]


class Part(msgspec.Struct, gc=False):
    """A part of a message's content: text, or one of these."""

    type: str = ""
    image_url: Raw | UnsetType = UNSET
    video_url: Raw | UnsetType = UNSET  # vLLM's and NIM's, as is the next
    audio_url: Raw | UnsetType = UNSET
    input_audio: Raw | UnsetType = UNSET
    file: Raw | UnsetType = UNSET


class Message(msgspec.Struct, gc=False):
    """A message of a chat; its content is text, a list of parts, or null."""

    role: str
    content: Raw | UnsetType = UNSET
    audio: Raw | UnsetType = UNSET  # what the assistant has said before, by its id


class StreamOptions(msgspec.Struct, gc=False):
    """What a stream is to hold besides the answer."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, gc=False):
    """What form the answer is to have."""

    type: str | None = None


class Tools(msgspec.Struct, array_like=True, gc=False):
    """An array of tools, of which only is looked at whether it has any: to take it apart takes memory."""

    first: Raw | UnsetType = UNSET

    def __bool__(self) -> bool:
        return self.first is not UNSET


class Common(msgspec.Struct, kw_only=True):
    """The fields that are looked at; every other one passes unseen."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: _Several | None = None
    tools: Tools | None = None
    functions: Tools | None = None
    response_format: ResponseFormat | None = None


class Chat(Common, kw_only=True):
    """A chat completion."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    logprobs: bool | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are asked for."""
        return bool(self.logprobs)


class Completion(Common, kw_only=True):
    """A text completion."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    logprobs: int | bool | None = None
    best_of: _Several | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are asked for: 0 asks for that of what was chosen, `false` for none."""
        return self.logprobs is not None and self.logprobs is not False


decode_chat = msgspec.json.Decoder(Chat).decode
decode_completion = msgspec.json.Decoder(Completion).decode
decode_parts = msgspec.json.Decoder(list[Part | str] | None).decode

# All names that mean something here, in whatever dialect. Engines written in Go or C# take another case for the same.
LOOKED_AT = frozenset(
    (
        *Chat.__struct_fields__,
        *Completion.__struct_fields__,
        *OTHER_MODELS,
        *EXTRAS,
        *OF_ENGINES,
        ARGUMENTS,
        KNOBS_FIELD,
        *("input", "modalities", "prediction", "cache_control", "echo", "tool_choice", "reasoning_effort"),
    )
)
