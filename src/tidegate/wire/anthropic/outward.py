"""A chat completion request becomes a Messages request, for an engine that speaks this dialect."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tidegate.wire.anthropic.closed import closed
from tidegate.wire.anthropic.conversation import conversation
from tidegate.wire.anthropic.shapes import NAME
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, Field, carried, refused, set_aside, top_level
from tidegate.wire.hub import encode
from tidegate.wire.hub_shapes import ChosenTool, FunctionTool, HubMessage
from tidegate.wire.openai import Call
from tidegate.wire.outward import check
from tidegate.wire.shape import read_body

# The dialect wants a bound. Every model of the vendor can give as much; an answer that is cut says so.
OUTPUT_TOKENS_DEFAULT = 8192
# With more of them that are strict the vendor refuses the whole request.
STRICT_TOOLS_MAX = 20
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
    carried(
        "tools[].function.strict",
        "with a schema as that of response_format is; set aside where that would be refused, and where more than "
        f"{STRICT_TOOLS_MAX} tools are strict, with which the vendor refuses all",
    ),
    carried("tools[].cache_control", "or that of its function"),
    carried("cache_control", "the vendor's own hint about price, which OpenRouter has in chats as well"),
    carried("tool_choice", ""),
    carried("parallel_tool_calls", "`disable_parallel_tool_use`, turned round"),
    carried(
        "response_format",
        "json_schema is `output_config.format`, its objects closed by `additionalProperties: false` where they say "
        "nothing of it; objects whose members have no names are refused, and so is json_object; `oneOf` is `anyOf`; "
        "bounds, such as `minimum` and `maxLength`, and what else the vendor refuses as keywords, such as "
        "`prefixItems` and a `format` that it does not know, are words of the description, where its SDKs put them",
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
    tools: list[FunctionTool] | None = None
    cache_control: Raw | UnsetType = UNSET
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = None
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
    check(call, _KNOWN, _REFUSED)
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
        "tools": _tools(asked.tools or ()) or None,
        "cache_control": None if asked.cache_control is UNSET else asked.cache_control,
        "tool_choice": _choice(asked),
        "metadata": None if asked.user is None else {"user_id": asked.user},
        "output_config": _config(asked),
        "thinking": {"type": "disabled"} if asked.reasoning_effort == "none" else None,
    }
    if _SAMPLES_ITS_OWN_WAY.search(model):
        for name in ("temperature", "top_p", "top_k"):
            del plain[name]
    return encode({**body, **{name: value for name, value in plain.items() if value is not None}})


def _tools(told: Sequence[FunctionTool]) -> list[dict[str, Any]]:
    may_be_strict = sum(tool.function.strict is True for tool in told) <= STRICT_TOOLS_MAX
    return [_tool(tool, may_be_strict) for tool in told]


def _tool(told: FunctionTool, may_be_strict: bool) -> dict[str, Any]:
    """The tool; one that asks to be strict is so where it may be, and where the vendor takes its schema as such."""
    function = told.function
    tool: dict[str, Any] = {"name": function.name}
    if function.description is not UNSET and function.description is not None:
        tool["description"] = function.description
    # This dialect wants a schema's type, which others do without.
    tool["input_schema"] = {"type": "object", **(function.parameters or {})}
    if function.strict is False:
        tool["strict"] = False
    elif function.strict and may_be_strict:
        with suppress(BadRequest):
            tool |= {"input_schema": closed(Raw(encode(tool["input_schema"]))), "strict": True}
    control = function.cache_control if told.cache_control is UNSET else told.cache_control
    if control is not UNSET:
        tool["cache_control"] = control
    return tool


_TYPES = {"auto": "auto", "required": "any", "none": "none"}


def _choice(asked: _Chat) -> dict[str, Any] | None:
    choice, parallel = asked.tool_choice, asked.parallel_tool_calls
    if not asked.tools and choice in (None, "auto", "none"):
        return None
    if choice is None and parallel is None:
        return None
    found: dict[str, Any]
    if isinstance(choice, ChosenTool):
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
