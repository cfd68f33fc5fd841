"""The Messages API's request as types. What else it may have is for the vendor; blocks of other types are refused."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tidegate.wire.fate import Field, carried, native, refused, set_aside

NAME = "anthropic"
# OpenAI refuses a longer `user`, and others one beyond 128.
USER_CHARS_MAX = 64

_Ignored = Raw | UnsetType


class _Block(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", gc=False, omit_defaults=True):
    """Any block. `cache_control` is a hint about price, for an engine of the same dialect."""


class Base64Source(_Block, tag="base64"):
    """An image in the request."""

    media_type: Annotated[str, Meta(pattern="^image/[a-z0-9.+-]+$", max_length=64)]
    data: str


class UrlSource(_Block, tag="url"):
    """An image elsewhere."""

    url: str


class TextBlock(_Block, tag="text"):
    """Text."""

    text: str
    cache_control: _Ignored = UNSET
    citations: _Ignored = UNSET


class ImageBlock(_Block, tag="image"):
    """An image."""

    source: Base64Source | UrlSource
    cache_control: _Ignored = UNSET
    transformations: None = None


class ToolUseBlock(_Block, tag="tool_use"):
    """A call that the model made. Input is a JSON object."""

    id: str
    name: str
    input: dict[str, Raw]
    cache_control: _Ignored = UNSET
    caller: _Ignored = UNSET
    toolset_name: None = None


class ToolResultBlock(_Block, tag="tool_result"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | UnsetType = UNSET
    is_error: bool | None = None
    cache_control: _Ignored = UNSET
    toolset_name: None = None


class MidConvSystemBlock(_Block, tag="mid_conv_system"):
    """An instruction in mid-conversation, at the end of what the user said."""

    content: list[TextBlock]
    cache_control: _Ignored = UNSET


class ThinkingBlock(_Block, tag="thinking"):
    """A thought with its seal."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Block, tag="redacted_thinking"):
    """A thought that nobody may read."""

    data: str


UserBlock = TextBlock | ImageBlock | ToolResultBlock | MidConvSystemBlock
AssistantBlock = TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock


class _Message(msgspec.Struct, forbid_unknown_fields=True, tag_field="role", gc=False):
    """Any message."""


class UserMessage(_Message, tag="user"):
    """What the user said, and what the tools gave."""

    content: str | list[UserBlock]


class AssistantMessage(_Message, tag="assistant"):
    """What the model said."""

    content: str | list[AssistantBlock]


class SystemMessage(_Message, tag="system"):
    """An instruction in mid-conversation."""

    content: str | list[TextBlock]


Message = UserMessage | AssistantMessage | SystemMessage


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A tool of the client's own. Those that the vendor runs have another `type`."""

    name: str
    input_schema: dict[str, Raw]
    description: str | UnsetType = UNSET
    strict: bool | UnsetType = UNSET
    type: Literal["custom"] | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    cache_control: _Ignored = UNSET
    eager_input_streaming: _Ignored = UNSET
    input_examples: _Ignored = UNSET
    defer_loading: _Ignored = UNSET


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Who asks."""

    user_id: str | None = None


class JsonFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The shape of the answer."""

    type: Literal["json_schema"]
    schema: Raw


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """How the answer is to be."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None
    task_budget: _Ignored = UNSET


class ToolKind(msgspec.Struct, gc=False):
    """Any tool, as far as it says of which kind it is."""

    type: str | None = None


class Body(msgspec.Struct, kw_only=True):
    """What is carried of a request; other fields have their fate in `FIELDS`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    tidegate: dict[str, Any] | None = None


class _CacheControl(msgspec.Struct, gc=False):
    ttl: object = None


class Kept(msgspec.Struct, gc=False):
    """Any message, block or tool, of this dialect or a chat's, as far as it says how long the vendor is to keep what
    goes before in its cache."""

    cache_control: _CacheControl | None = None
    content: str | list["Kept"] | None = None
    function: "Kept | None" = None
    tool_calls: list["Kept"] | None = None


class _Edit(msgspec.Struct, gc=False):
    type: str = ""


class ContextManagement(msgspec.Struct, gc=False):
    """How the vendor is to edit the conversation, as far as it says by which kinds of edits."""

    edits: list[_Edit] = []


class KeptBody(Kept, gc=False):
    """The same of a whole request."""

    system: str | list[Kept] | None = None
    messages: list[Kept] = []
    tools: list[Kept] | None = None


ACCEPTED = {
    "model": "must be the name of a model, 1 to 256 characters; GET /v1/models lists them",
    "messages": "must be a non-empty array of user, assistant and system messages, whose content is a string or an "
    "array of blocks: text, image (base64 or url), tool_result and mid_conv_system from the user; text, thinking, "
    "redacted_thinking and tool_use from the assistant",
    "max_tokens": "must be a whole number from 0",
    "system": "must be a string or an array of text blocks",
    "stop_sequences": "must be an array of strings",
    "stream": "must be true or false",
    "temperature": "must be a number",
    "top_p": "must be a number",
    "top_k": "must be a whole number",
    "tools": "must be an array of the client's own tools, each with a name and an input_schema; tools that a vendor "
    "runs are not served here",
    "tool_choice": 'must be {"type": "auto"}, "any", "none", or "tool" with a name',
    "metadata": 'must be an object such as {"user_id": "..."}',
    "output_config": "must be an object with an effort, a format of type json_schema, or both",
    "output_format": "must be a format of type json_schema",
    "tidegate": "must be an object",
}

FIELDS: tuple[Field, ...] = (
    carried("model", "by the names of GET /v1/models"),
    carried(
        "messages",
        "tool results become messages of the role tool, before what else the message says; what the system says in "
        "mid-conversation becomes text of the user's turn there, between `<system>` and `</system>`, since templates "
        "of some models refuse it; blocks of text without an image are one string, with a blank line between them; an "
        "image in a tool result stays there, and some engines refuse it",
    ),
    carried("max_tokens", "required, but for count_tokens; 0, which only fills the vendor's cache, is 1 for others"),
    carried(
        "system",
        "the first message, its blocks one text with a blank line between them; none where it is empty. A first block "
        "that begins with `x-anthropic-billing-header:` is for the vendor alone",
    ),
    carried("stop_sequences", "`stop`"),
    carried("stream", ""),
    carried("temperature", ""),
    carried("top_p", ""),
    carried("top_k", "under the same name, which vLLM, SGLang and llama.cpp know"),
    carried("tools", "`function` tools"),
    carried("tools[].strict", "where output_config.format would be strict; else set aside"),
    carried("tool_choice", "any is `required`; disable_parallel_tool_use is `parallel_tool_calls`, turned round"),
    carried("metadata", f"user_id is `user`, beyond {USER_CHARS_MAX} characters by its SHA-256: OpenAI takes no more"),
    carried(
        "output_config",
        "effort is `reasoning_effort`, format is `response_format` by the name `answer`, strict where each of its "
        "objects is closed and requires all its members: OpenAI refuses to be strict with others, with `allOf` and "
        "`oneOf`, and with the format `uri`",
    ),
    carried("output_format", "the older name of output_config.format, which goes before it"),
    carried("tidegate", "our own settings; never passed on"),
    native("thinking", "whether and how long a model thinks is each engine's own"),
    native(
        "cache_control",
        "a hint about price; other engines cache by themselves. A `ttl` beyond five minutes is refused under a budget",
    ),
    native(
        "context_management",
        "a vendor's own editing of the conversation; compact edits are refused, since the block in which the vendor "
        "answers what it made shorter is not carried",
    ),
    native("output_config.task_budget", "the vendor's own bound on a whole task"),
    native("service_tier", "a vendor's queue"),
    native("speed", "a vendor's queue"),
    native("diagnostics", "of the vendor's cache"),
    native("user_profile_id", "of the vendor"),
    native("workspace_id", "of the vendor"),
    native("fallback_credit_token", "the vendor's, which makes a second try with another model cheaper"),
    native("messages[].content[].thinking.signature", "the text goes on as `reasoning_content`"),
    native("messages[].content[].redacted_thinking", "sealed for its maker"),
    native("messages[].content[].cache_control", "a hint about price"),
    native("messages[].content[].citations", "what an earlier answer had quoted"),
    native("messages[].content[].caller", "who called the tool, where a vendor's tools may"),
    native("messages[].content[].toolset_name", "null; a name is refused, as are toolsets"),
    native("messages[].content[].transformations", "of images: null; others are refused, being the vendor's"),
    native("messages[].content[].is_error", "the result's text says what went wrong"),
    native("tools[].cache_control", "a hint about price"),
    native("tools[].eager_input_streaming", "how arguments are cut; it is left to the engine"),
    native("tools[].input_examples", "not part of a function"),
    native("tools[].allowed_callers", '["direct"]; others are refused, since they are tools that a vendor runs'),
    native("tools[].defer_loading", "the tool is there from the start"),
    native(
        "any other field, also of messages[], tools[], system[] and settings",
        "what a later version says means something to its vendor. One that is spelled nearly as one of these, such as "
        "`max_token`, is refused. Under a budget, who asks for money is not sent it either: nobody knows what it costs",
    ),
    set_aside("messages[].content[].text after tool_use", "its place: it goes before the calls of the same message"),
    set_aside("messages[].content[].thinking, several", "their borders: they go on as one text"),
    refused("inference_geo", "where data may go is said with `x-tidegate-residency`, which is kept"),
    refused("thread", "nothing is stored here; send the whole conversation as `messages`"),
    refused("container", "code that a vendor runs is not served here"),
    refused("mcp_servers", "tools that a vendor runs are not served here"),
    refused("fallbacks", "another of the vendor's models would answer, at another price"),
    refused("billing_policy", "who pays is for operators to say"),
    refused("compaction", "the block in which the vendor answers what it made shorter is not carried"),
    refused("messages[].content[], other types", "documents, search results and what a vendor's tools left behind"),
    refused("tools[], other types", "tools that a vendor runs"),
)
