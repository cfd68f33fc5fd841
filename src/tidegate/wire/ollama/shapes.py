"""Ollama's requests as types. What is not here is refused."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, UnsetType

from tidegate.wire.fate import Field, carried, refused, set_aside

_Ignored = Raw | UnsetType
_Model = Annotated[str, Meta(min_length=1, max_length=256)]


class Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What was called. Arguments are a JSON object."""

    name: str
    arguments: dict[str, Raw]
    index: int | None = None


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A call that the model made; older clients give it no id."""

    function: Function
    id: str | None = None
    type: str | None = None
    index: int | None = None


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What somebody said. Images are base64, without saying of which kind."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: str | None = None


class Options(msgspec.Struct, gc=False):
    """What is carried of the options; other ones have their fate in `OPTIONS`."""

    num_predict: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: list[str] | str | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Common(msgspec.Struct, kw_only=True):
    """What both requests have."""

    model: _Model
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Raw] | None = None
    options: dict[str, Raw] | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tidegate: dict[str, Any] | None = None


class ChatBody(Common, kw_only=True):
    """`POST /api/chat`."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    tools: list[Raw] | None = None


class GenerateBody(Common, kw_only=True):
    """`POST /api/generate`."""

    prompt: Annotated[str, Meta(min_length=1)]
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


ACCEPTED = {
    "model": "must be the name of a model, 1 to 256 characters; GET /api/tags lists them",
    "messages": "must be a non-empty array of messages of the roles system, user, assistant and tool; models are "
    "loaded by their engines, not by empty requests",
    "prompt": "must be a string that is not empty; models are loaded by their engines, not by empty requests",
    "system": "must be a string",
    "images": "must be an array of images in base64",
    "stream": "must be true or false",
    "format": 'must be "json" or a JSON schema',
    "options": "must be an object of options, each as Ollama has it",
    "think": "must be true, false, low, medium, high or max",
    "tools": "must be an array of tools",
    "tidegate": "must be an object",
}

_COMMON: tuple[Field, ...] = (
    carried("model", "by the names of GET /api/tags, or those without `:latest`"),
    carried("stream", "true where it is left out"),
    carried("format", "`response_format`: json is json_object, a schema is json_schema by the name `answer`"),
    carried("options", "see below"),
    carried("think", "false is `reasoning_effort` none, a level the same; true is left to the model"),
    carried("logprobs", "false; true is refused"),
    carried("top_logprobs", "0; more is refused"),
    carried("tidegate", "our own settings; never passed on"),
    set_aside("keep_alive", "how long a model stays loaded is its engine's"),
)
CHAT: tuple[Field, ...] = (
    *_COMMON,
    carried(
        "messages",
        "calls without an id get one; results find theirs by it, by tool_name, or by their order; one whose call is "
        "not there becomes words of the user, between `<tool_response>` and `</tool_response>`",
    ),
    carried("tools", ""),
)
GENERATE: tuple[Field, ...] = (
    *_COMMON,
    carried("prompt", "what the user says"),
    carried("system", "the message before it"),
    carried("images", "with the prompt"),
    carried("raw", "false; true is refused, since engines have templates of their own"),
    refused("template", "engines have templates of their own"),
    refused("suffix", "what stands behind a text cannot be said in a chat; POST /v1/completions takes a suffix"),
    refused("context", "nothing is stored here; send the conversation to /api/chat"),
    refused("width", "images are not made here"),
    refused("height", "images are not made here"),
    refused("steps", "images are not made here"),
)
OPTIONS: tuple[Field, ...] = (
    carried("num_predict", "`max_tokens`; below 0 there is no bound"),
    carried("temperature", ""),
    carried("top_p", ""),
    carried("top_k", "under the same name, which vLLM, SGLang and llama.cpp know"),
    carried("min_p", "likewise"),
    carried("stop", ""),
    carried("seed", ""),
    carried("presence_penalty", ""),
    carried("frequency_penalty", ""),
    set_aside("num_ctx", "never passed on: another window makes an engine load its model anew"),
    set_aside("repeat_penalty", "engines name and measure it differently"),
    set_aside("repeat_last_n", "of repeat_penalty"),
    set_aside("penalize_newline", "of repeat_penalty"),
    set_aside("typical_p", "engines do not share it"),
    set_aside("tfs_z", "engines do not share it"),
    set_aside("mirostat", "engines do not share it"),
    set_aside("mirostat_eta", "of mirostat"),
    set_aside("mirostat_tau", "of mirostat"),
    set_aside("num_keep", "of a window that is cut; none is here"),
    *(
        set_aside(name, "how a model is loaded is its engine's")
        for name in (
            "numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mmap",
            "use_mlock", "embedding_only", "num_thread",
        )
    ),
)  # fmt: skip
