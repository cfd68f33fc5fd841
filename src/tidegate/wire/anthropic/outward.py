"""A chat completion request becomes a Messages request, for an engine that speaks this dialect."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tidegate.core.model import Capability
from tidegate.wire.anthropic.closed import closed
from tidegate.wire.anthropic.conversation import conversation
from tidegate.wire.anthropic.hub_shapes import HubMessage
from tidegate.wire.anthropic.shapes import NAME
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, Field, carried, refused, set_aside, top_level
from tidegate.wire.hub import encode
from tidegate.wire.openai import Call
from tidegate.wire.shape import read_body

# The dialect wants a bound. Every model of the vendor can give as much; an answer that is cut says so.
OUTPUT_TOKENS_DEFAULT = 8192
_TEMPERATURE_MAX = 1.0
_TOP_P_OF_ALL = 1.0
# Since Opus 4.7, and with the fifth generation, the vendor's models refuse to be told how they sample.
_SAMPLES_ITS_OWN_WAY = re.compile(r"claude-(?:opus-4[-.](?:[7-9]|[1-9]\d)|[a-z]+-(?:[5-9]|[1-9]\d))(?!\d)")
_OWN_WAY = "set aside where the model is Claude Opus 4.7 or later, or of the fifth generation: these refuse it"

OUTWARD: tuple[Field, ...] = (
    carried("model", "the endpoint's own name"),
    carried(
        "messages",
        "messages of the role tool become tool_result blocks, with what the user says next; a call's id has the "
        "characters that the vendor takes; what the system says in mid-conversation becomes text of the user's turn "
        "there, between `<system>` and `</system>`: otherwise some models of the vendor's refuse it, or pass over it",
    ),
    carried("messages[].cache_control", "and that of its parts and calls: at the block that each becomes"),
    carried("max_completion_tokens", f"`max_tokens`, {OUTPUT_TOKENS_DEFAULT} where it is left out"),
    carried("max_tokens", "where there is no max_completion_tokens"),
    carried("stream", ""),
    carried("stream_options", "usage comes always"),
    carried("stop", "`stop_sequences`; white space alone is refused"),
    carried("temperature", f"above 1 it is 1; {_OWN_WAY}"),
    carried(
        "top_p",
        "left out where it is 1, which says nothing: some models refuse it beside a temperature; set aside as that is",
    ),
    carried("top_k", "set aside as temperature is"),
    carried("tools", "functions"),
    carried("tool_choice", ""),
    carried("parallel_tool_calls", "`disable_parallel_tool_use`, turned round"),
    carried(
        "response_format",
        "json_schema is `output_config.format`, its objects closed by `additionalProperties: false` where they say "
        "nothing of it; objects whose members have no names are refused, and so is json_object; bounds, such as "
        "`minimum` and `maxLength`, are words of the description, where the vendor's SDKs put them: as keywords it "
        "refuses them",
    ),
    carried("reasoning_effort", "`output_config.effort`; minimal is low, none is `thinking` disabled"),
    carried("user", "`metadata.user_id`"),
    carried("n", "1; more is refused"),
    carried("logprobs", "false; true is refused"),
    carried("frequency_penalty", "0; another is refused"),
    carried("presence_penalty", "0; another is refused"),
    carried("top_logprobs", "0; more is refused"),
    carried("logit_bias", "an empty one; another is refused, since tokens are not numbered"),
    carried("functions", "none; any is refused, being the older form of tools"),
    carried("modalities", "text alone"),
    set_aside("seed", "a wish that no engine has to grant"),
    set_aside("store", "nothing is stored"),
    set_aside("metadata", "of what is stored"),
    set_aside("service_tier", "a vendor's queue"),
    set_aside("prompt_cache_key", "a hint about price"),
    set_aside("prompt_cache_options", "a hint about price"),
    set_aside("prompt_cache_retention", "a hint about price"),
    set_aside("safety_identifier", "of another vendor"),
    set_aside("verbosity", "a wish"),
    set_aside("messages[].name", "speakers have no names"),
    set_aside("messages[].content[].image_url.detail", "a hint about price"),
    set_aside("messages[].reasoning_content", "thoughts without a signature are not taken back"),
    set_aside("messages[].extra_content", "and that of calls: signatures of another vendor"),
    set_aside("messages[].annotations", "what an earlier answer had quoted"),
    set_aside("messages[].parsed", "and parsed_arguments of calls: what an SDK has read in an earlier answer"),
    set_aside(
        "messages[].content, empty or white space", "a block without text is not taken; a user's alone is refused"
    ),
    set_aside("tools[].function.strict, null", "the same as none"),
    set_aside("response_format.json_schema.name", "and description, strict: formats have neither"),
    refused("function_call", "the older form of tool_choice"),
    refused("audio", "there is none"),
    refused("prediction", "there is none"),
    refused("moderation", "a vendor's own"),
    refused("web_search_options", "tools that a vendor runs are not served here"),
    refused("messages[].content[].image_url, data of other types", "JPEG, PNG, GIF and WebP are taken"),
    refused("messages[].content[], input_audio and file", "there are no such blocks"),
    refused("any other field", "it would be dropped"),
)
_KNOWN = top_level(OUTWARD, Fate.CARRIED, Fate.SET_ASIDE)
_REFUSED = top_level(OUTWARD, Fate.REFUSED)


class _Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    description: str | UnsetType | None = UNSET
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["function"]
    function: _Function


class _Named(msgspec.Struct, gc=False):
    name: str


class _Chosen(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["function"]
    function: _Named


class _Schema(msgspec.Struct, gc=False):
    schema: Raw | UnsetType = UNSET


class _Format(msgspec.Struct, gc=False):
    type: Literal["text", "json_schema", "json_object"]
    json_schema: _Schema | None = None


class _Chat(msgspec.Struct, kw_only=True):
    messages: list[HubMessage]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Chosen | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    user: str | None = None
    n: int | None = None
    logprobs: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Raw], Meta(max_length=0)] | None = None
    functions: Annotated[list[Raw], Meta(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None


_decoder = msgspec.json.Decoder(_Chat)
_ACCEPTED = {
    "messages": "is carried to this endpoint where messages are of the roles system, developer, user, assistant and "
    "tool, and content is text or images",
    "tools": "is carried to this endpoint where tools are functions",
    "tool_choice": "is carried to this endpoint as auto, none, required, or a function by its name",
    "reasoning_effort": "is carried to this endpoint as none, minimal, low, medium, high, xhigh or max",
    "top_logprobs": "is carried to this endpoint as 0: it has none",
    "logit_bias": "is carried to this endpoint as {}: its tokens are not numbered",
    "functions": "is carried to this endpoint as []: it is the older form of tools",
    "modalities": 'is carried to this endpoint as ["text"]: it has no other',
}


def messages_body(call: Call, *, model: str, stream: bool) -> bytes:
    """The request for an endpoint that calls the model `model`; untouched where the client speaks the dialect itself.

    Raises `BadRequest` for what the dialect cannot say; an endpoint of another dialect may be able to.
    """
    if call.native is not None and call.native.dialect == NAME:
        return encode({**call.native.fields, "model": model, "stream": stream})
    if call.kind is not Capability.CHAT:
        raise BadRequest(f"This endpoint serves chat completions alone, not {call.kind.value}.")
    _check(call)
    asked = read_body(encode(call.fields), _decoder, _ACCEPTED)
    for name, penalty in (("frequency_penalty", asked.frequency_penalty), ("presence_penalty", asked.presence_penalty)):
        if penalty:
            raise BadRequest(f"`{name}`: this endpoint has none. Leave it out.", param=name)
    stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop
    if any(not stop.strip() for stop in stops or ()):
        raise BadRequest("`stop`: this endpoint takes no sequence of white space alone.", param="stop")
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": asked.max_completion_tokens or asked.max_tokens or OUTPUT_TOKENS_DEFAULT,
        **conversation(asked.messages),
        "stream": stream,
    }
    plain = {
        "stop_sequences": stops,
        "temperature": None if asked.temperature is None else min(asked.temperature, _TEMPERATURE_MAX),
        # Some models of the vendor refuse it beside a temperature, and many clients send a 1 for none.
        "top_p": None if asked.top_p == _TOP_P_OF_ALL else asked.top_p,
        "top_k": asked.top_k,
        "tools": [_tool(tool.function) for tool in asked.tools or ()] or None,
        "tool_choice": _choice(asked),
        "metadata": None if asked.user is None else {"user_id": asked.user},
        "output_config": _config(asked),
        "thinking": {"type": "disabled"} if asked.reasoning_effort == "none" else None,
    }
    if _SAMPLES_ITS_OWN_WAY.search(model):
        for name in ("temperature", "top_p", "top_k"):
            del plain[name]
    return encode({**body, **{name: value for name, value in plain.items() if value is not None}})


_NULL = Raw(b"null")


def _check(call: Call) -> None:
    given = {name: value for name, value in call.fields.items() if value != _NULL}
    for name in given:
        if name not in _KNOWN:
            why = _REFUSED.get(name, "its dialect has no such field")
            shown = name.encode("ascii", "replace").decode()[:64]
            raise BadRequest(f"`{shown}` cannot be carried to this endpoint: {why}. Leave it out.", param=shown)
    if call.completions > 1:
        raise BadRequest("`n`: this endpoint gives one choice. Ask for 1.", param="n")
    if Capability.LOGPROBS in call.needs:
        raise BadRequest("`logprobs`: this endpoint has none. Leave it out.", param="logprobs")


def _tool(function: _Function) -> dict[str, Any]:
    tool: dict[str, Any] = {"name": function.name}
    if function.description is not UNSET and function.description is not None:
        tool["description"] = function.description
    # This dialect wants a schema's type, which others do without.
    tool["input_schema"] = {"type": "object", **(function.parameters or {})}
    if function.strict is not None:
        tool["strict"] = function.strict
    return tool


_TYPES = {"auto": "auto", "required": "any", "none": "none"}


def _choice(asked: _Chat) -> dict[str, Any] | None:
    choice, parallel = asked.tool_choice, asked.parallel_tool_calls
    if not asked.tools and choice in (None, "auto", "none"):
        return None
    if choice is None and parallel is None:
        return None
    found: dict[str, Any]
    if isinstance(choice, _Chosen):
        found = {"type": "tool", "name": choice.function.name}
    else:
        found = {"type": _TYPES[choice or "auto"]}
    # Where none may be called, how many at once is no question.
    if parallel is not None and choice != "none":
        found["disable_parallel_tool_use"] = not parallel
    return found


def _config(asked: _Chat) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    effort, format = asked.reasoning_effort, asked.response_format
    if effort is not None and effort != "none":
        found["effort"] = "low" if effort == "minimal" else effort
    if format is not None and format.type == "json_object":
        raise BadRequest(
            "`response_format`: this endpoint has no JSON mode without a schema. Ask for json_schema.",
            param="response_format",
        )
    if format is not None and format.type == "json_schema":
        if format.json_schema is None or format.json_schema.schema is UNSET:
            raise BadRequest("`response_format.json_schema.schema`: is missing.", param="response_format")
        found["format"] = {"type": "json_schema", "schema": closed(format.json_schema.schema)}
    return found or None
