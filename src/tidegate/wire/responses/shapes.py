"""The Responses request as types. What is not here is refused, and so are items and tools of other types."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tidegate.wire.fate import Field, carried, native, refused, set_aside

NAME = "responses"

_Ignored = Raw | UnsetType
_Status = Literal["in_progress", "completed", "incomplete"] | None


class _Part(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", gc=False):
    """Any part of a message."""


class InputText(_Part, tag="input_text"):
    """Text."""

    text: str
    prompt_cache_breakpoint: _Ignored = UNSET


class InputImage(_Part, tag="input_image"):
    """An image, by its URL or as one. `file_id` names what a vendor stores."""

    image_url: str
    detail: str | None = None
    file_id: None = None
    prompt_cache_breakpoint: _Ignored = UNSET


class OutputText(_Part, tag="output_text"):
    """What the model said."""

    text: str
    annotations: _Ignored = UNSET
    logprobs: _Ignored = UNSET
    parsed: _Ignored = UNSET


class Refusal(_Part, tag="refusal"):
    """The model said no."""

    refusal: str


class SummaryText(_Part, tag="summary_text"):
    """A thought, in short."""

    text: str


class ReasoningText(_Part, tag="reasoning_text"):
    """A thought."""

    text: str


InputPart = InputText | InputImage
MessagePart = InputText | InputImage | OutputText | Refusal


class Item(msgspec.Struct, gc=False):
    """Enough of an item to tell which it is; a message needs no type."""

    type: str = "message"


class MessageItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What somebody said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[MessagePart]
    type: str = "message"
    id: str | None = None
    status: _Status = None
    phase: str | None = None
    internal_chat_message_metadata_passthrough: _Ignored = UNSET


class FunctionCallItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A call that the model made. Arguments are JSON in a string."""

    type: str
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: _Status = None
    caller: None = None
    namespace: None = None
    is_async: None = msgspec.field(name="async", default=None)
    async_: None = None  # the SDK's own name of it, which a plain dump has
    parsed_arguments: _Ignored = UNSET
    internal_chat_message_metadata_passthrough: _Ignored = UNSET


class FunctionOutputItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What came of a call."""

    type: str
    call_id: str
    output: str | list[InputPart]
    id: str | None = None
    status: _Status = None
    name: str | None = None
    caller: None = None
    namespace: None = None
    internal_chat_message_metadata_passthrough: _Ignored = UNSET


class ReasoningItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What the model thought. `encrypted_content` is for its maker alone."""

    type: str
    summary: list[SummaryText] = []
    content: list[ReasoningText] | None = None
    id: str | None = None
    encrypted_content: str | None = None
    status: _Status = None
    internal_chat_message_metadata_passthrough: _Ignored = UNSET


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A function of the client's own."""

    type: Literal["function"]
    name: str
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None
    description: str | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: bool | None = None
    output_schema: _Ignored = UNSET


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The function to be called."""

    type: Literal["function"]
    name: str


class Format(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The shape of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Raw | UnsetType = UNSET
    description: str | None = None
    strict: bool | None = None


class Text(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """How the text is to be."""

    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """How hard to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: _Ignored = UNSET
    generate_summary: _Ignored = UNSET
    context: _Ignored = UNSET
    mode: _Ignored = UNSET


class Body(msgspec.Struct, kw_only=True):
    """What is carried of a request; other fields have their fate in `FIELDS`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[Raw], Meta(min_length=1)]
    instructions: str | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    stream: bool | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    background: bool | None = None
    tidegate: dict[str, Any] | None = None


ACCEPTED = {
    "model": "must be the name of a model, 1 to 256 characters; GET /v1/models lists them",
    "input": "must be a string or a non-empty array of items: message (input_text, input_image, output_text, refusal), "
    "function_call, function_call_output, reasoning",
    "instructions": "must be a string",
    "tools": "must be an array of functions; tools that a vendor runs are not served here",
    "tool_choice": 'must be auto, none, required, or {"type": "function", "name": "..."}',
    "parallel_tool_calls": "must be true or false",
    "text": "must be an object with a format of type text, json_object or json_schema, a verbosity, or both",
    "reasoning": "must be an object such as {\"effort\": \"low\"}",
    "max_output_tokens": "must be a whole number from 1",
    "temperature": "must be a number",
    "top_p": "must be a number",
    "include": "must be an array of strings",
    "stream": "must be true or false",
    "tidegate": "must be an object",
}  # fmt: skip

FIELDS: tuple[Field, ...] = (
    carried("model", "by the names of GET /v1/models"),
    carried("input", "a call joins the assistant's message before it, a thought the one behind it; what is thought or "
            "said between calls, or between them and their results, stands before them; text without an image is one "
            "string; developers speak as the system; what that says before all else is one message, and what it says "
            "later text of the user's turn there, between `<system>` and `</system>`, since templates of some models "
            "refuse it"),
    carried("instructions", "the first message, of the role system"),
    carried("tools", "functions"),
    carried("tool_choice", "auto, none, required, or a function"),
    carried("parallel_tool_calls", ""),
    carried("text", "format is `response_format`; verbosity"),
    carried("reasoning", "effort is `reasoning_effort`"),
    carried("max_output_tokens", "`max_tokens`, which every engine knows"),
    carried("temperature", ""),
    carried("top_p", ""),
    carried("stream", ""),
    carried("user", ""),
    carried("prompt_cache_key", ""),
    carried("safety_identifier", ""),
    carried("service_tier", ""),
    carried("tidegate", "our own settings; never passed on"),
    carried("top_logprobs", "0; more is refused"),
    carried("background", "false; true is refused, since nothing is kept for later"),
    carried("include", "as it came to an endpoint of this dialect; elsewhere what concerns tools of the vendor, or "
            "sealed thoughts, has nothing to show; log-probabilities are refused"),
    native("client_metadata", "what Codex notes of its session and turn"),
    native("stream_options", "obfuscation is a vendor's padding"),
    native("truncation", "elsewhere a prompt that is too long is refused, never cut"),
    native("max_tool_calls", "of tools that a vendor runs; there are none"),
    native("prompt_cache_options", "a hint about price"),
    native("prompt_cache_retention", "a hint about price"),
    native("image", "a hint about price"),
    native("reasoning.summary", "and generate_summary, context: elsewhere thoughts come as engines show them"),
    set_aside("reasoning.mode", "in another one, other models may answer, at prices of their own: name the model"),
    native("input[].phase", "and status, the name beside an output: of what the vendor's agents say meanwhile"),
    native("input[].internal_chat_message_metadata_passthrough", "what Codex notes of its turn"),
    native("input[].caller", "and namespace, async, an image's file_id, where they are null; else they are refused"),
    native("input[].encrypted_content", "sealed for its maker, to whom the thought goes with its id and summary; "
           "elsewhere what of it can be read is `reasoning_content`"),
    native("input[].content[].annotations", "and logprobs, parsed, a call's parsed_arguments: of an earlier answer"),
    native("input[].content[].prompt_cache_breakpoint", "a hint about price"),
    native("input[].reasoning, its parts", "their borders: elsewhere they go on as one text"),
    native("tools[].output_schema", "not part of a function"),
    native("tools[].defer_loading", "elsewhere the tool is there from the start"),
    set_aside("store", "nothing is stored: the vendor is told so, and the answer says `store: false`"),
    set_aside("metadata", "of what is stored; the answer repeats it"),
    set_aside("input[].id", "of messages and calls, which a vendor would look up where nothing is stored"),
    set_aside("input[].reasoning without encrypted_content", "for an endpoint of this dialect, which takes back "
              "what it has sealed alone; nor does it take the text or the status of a thought"),
    refused("previous_response_id", "nothing is stored here; send the whole conversation as `input`"),
    refused("conversation", "nothing is stored here; send the whole conversation as `input`"),
    refused("prompt", "templates that a vendor stores are not known here; send `instructions` and `input`"),
    refused("background_options", "nothing is kept for later"),
    refused("context_management", "conversations are not edited here"),
    refused("moderation", "a vendor's own"),
    refused("access_programs", "a vendor's own"),
    refused("input[], other types", "item_reference, and what tools of the vendor left behind"),
    refused("input[].content[], input_file and input_audio", "and images by file_id: files are not stored here"),
    refused("tools[], other types", "tools that a vendor runs, and custom tools, which chats have not"),
)  # fmt: skip
