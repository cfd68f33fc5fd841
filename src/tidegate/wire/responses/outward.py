"""A chat completion request becomes a Responses request, for an engine that speaks this dialect."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, Field, carried, refused, set_aside, top_level
from tidegate.wire.hub import encode
from tidegate.wire.hub_shapes import ChosenTool, FunctionTool, HubMessage, ToolFunction
from tidegate.wire.openai import Call
from tidegate.wire.outward import check
from tidegate.wire.responses.items import CALL_ID_CHARS_MAX, items, sent_back
from tidegate.wire.responses.shapes import FIELDS, NAME
from tidegate.wire.shape import read_body

# The vendor refuses a smaller bound.
OUTPUT_TOKENS_MIN = 16

OUTWARD: tuple[Field, ...] = (
    carried("model", "the endpoint's own name"),
    carried(
        "messages",
        "`input`, a message, call, result or thought an item; the id of a call that is longer than "
        f"{CALL_ID_CHARS_MAX} characters becomes another, the same each time",
    ),
    carried(
        "messages[].reasoning_details",
        "sealed thoughts of this dialect (`format` is `openai-responses-v1`) with their summaries, before what came of "
        "them",
    ),
    carried(
        "max_completion_tokens",
        f"`max_output_tokens`; below {OUTPUT_TOKENS_MIN} it is refused, as the vendor does: the answer would be longer "
        "than what was asked for",
    ),
    carried("max_tokens", "where there is no max_completion_tokens"),
    carried("stream", ""),
    carried("stream_options", "usage comes always"),
    carried("temperature", ""),
    carried("top_p", ""),
    carried("tools", "functions; `strict` is false where it is left out, which is true in this dialect"),
    carried("tool_choice", ""),
    carried("parallel_tool_calls", "set aside where there are no tools"),
    carried("response_format", "`text.format`"),
    carried("reasoning_effort", "`reasoning.effort`; no summary is asked for"),
    carried("verbosity", "`text.verbosity`"),
    carried("user", ""),
    carried("safety_identifier", ""),
    carried("prompt_cache_key", ""),
    carried("prompt_cache_options", ""),
    carried("prompt_cache_retention", ""),
    carried("service_tier", ""),
    carried("n", "1; more is refused"),
    carried("logprobs", "false; true is refused"),
    carried("top_logprobs", "0; more is refused"),
    carried("frequency_penalty", "0; another is refused"),
    carried("presence_penalty", "0; another is refused"),
    carried("logit_bias", "an empty one; another is refused"),
    carried("stop", "an empty list; any is refused"),
    carried("functions", "none; any is refused, being the older form of tools"),
    carried("modalities", "text alone"),
    set_aside("store", "nothing is stored: `store` is false"),
    set_aside("metadata", "of what is stored"),
    set_aside("messages[].name", "speakers have no names"),
    set_aside("messages[].reasoning_content", "thoughts without a seal are not taken back"),
    set_aside("messages[].cache_control", "and that of parts and calls: a hint about price of another vendor"),
    set_aside("messages[].extra_content", "and that of calls: signatures of another vendor"),
    set_aside("messages[].annotations", "what an earlier answer had quoted"),
    set_aside("messages[].parsed", "and parsed_arguments of calls: what an SDK has read in an earlier answer"),
    refused("seed", "there is none"),
    refused("function_call", "the older form of tool_choice"),
    refused("audio", "there is none"),
    refused("prediction", "there is none"),
    refused("moderation", "a vendor's own"),
    refused("web_search_options", "tools that a vendor runs are not served here"),
    refused("messages[].content[], input_audio and file", "sounds have no part here, and files are not stored"),
    refused("any other field", "it would be dropped"),
)
_KNOWN = top_level(OUTWARD, Fate.CARRIED, Fate.SET_ASIDE)
_REFUSED = top_level(OUTWARD, Fate.REFUSED)
_NOT_SENT = top_level(FIELDS, Fate.SET_ASIDE)
_Zero = Annotated[float, Meta(ge=0, le=0)]
_None = Annotated[list[Raw], Meta(max_length=0)]


class _Schema(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    schema: Raw | UnsetType = UNSET
    description: str | None = None
    strict: bool | None = None


class _Format(msgspec.Struct, gc=False):
    type: Literal["text", "json_schema", "json_object"]
    json_schema: _Schema | None = None


class _Chat(msgspec.Struct, kw_only=True):
    messages: list[HubMessage]
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Raw] | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    top_logprobs: Literal[0] | None = None
    frequency_penalty: _Zero | None = None
    presence_penalty: _Zero | None = None
    logit_bias: Annotated[dict[str, Raw], Meta(max_length=0)] | None = None
    stop: _None | None = None
    functions: _None | None = None
    modalities: list[Literal["text"]] | None = None


_decoder = msgspec.json.Decoder(_Chat)
_reasoning = msgspec.json.Decoder(dict[str, Raw] | None).decode
_ACCEPTED = {
    "messages": "is carried to this endpoint where messages are of the roles system, developer, user, assistant and "
    "tool, and content is text or images",
    "tools": "is carried to this endpoint where tools are functions",
    "tool_choice": "is carried to this endpoint as auto, none, required, or a function by its name",
    "reasoning_effort": "is carried to this endpoint as none, minimal, low, medium, high, xhigh or max",
    "verbosity": "is carried to this endpoint as low, medium or high",
    "top_logprobs": "is carried to this endpoint as 0: it has none",
    "frequency_penalty": "is carried to this endpoint as 0: it has none",
    "presence_penalty": "is carried to this endpoint as 0: it has none",
    "logit_bias": "is carried to this endpoint as {}: it has none",
    "stop": "is carried to this endpoint as []: it has none",
    "functions": "is carried to this endpoint as []: it is the older form of tools",
    "modalities": 'is carried to this endpoint as ["text"]: it has no other',
}


def responses_body(call: Call, *, model: str, stream: bool) -> bytes:
    """The request for an endpoint that calls the model `model`; as it came where the client speaks the dialect itself.
    Either way nothing is to be stored.

    Raises `BadRequest` for what the dialect cannot say; an endpoint of another dialect may be able to.
    """
    always = {"model": model, "stream": stream, "store": False}
    if call.native is not None and call.native.dialect == NAME:
        fields = {name: value for name, value in call.native.fields.items() if name not in _NOT_SENT}
        if "reasoning" in fields:
            fields["reasoning"] = _by_the_same_model(fields["reasoning"])
        return encode({**fields, "input": sent_back(fields["input"]), **always})
    check(call, _KNOWN, _REFUSED)
    asked = read_body(encode(call.fields), _decoder, _ACCEPTED)
    input = items(asked.messages)
    if not input:
        raise BadRequest("`messages`: this endpoint wants a message that says something.", param="messages")
    tools = [_tool(tool.function) for tool in asked.tools or ()] or None
    plain = {
        "max_output_tokens": _bound(asked),
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "tools": tools,
        "tool_choice": _choice(asked),
        "parallel_tool_calls": asked.parallel_tool_calls if tools else None,
        "text": _text(asked),
        "reasoning": None if asked.reasoning_effort is None else {"effort": asked.reasoning_effort},
        "user": asked.user,
        "safety_identifier": asked.safety_identifier,
        "prompt_cache_key": asked.prompt_cache_key,
        "prompt_cache_options": asked.prompt_cache_options,
        "prompt_cache_retention": asked.prompt_cache_retention,
        "service_tier": asked.service_tier,
    }
    return encode({**always, "input": input, **{name: value for name, value in plain.items() if value is not None}})


def _by_the_same_model(reasoning: Raw) -> Raw:
    """How hard to think, without a mode in which others may do it, at prices of their own."""
    said = _reasoning(reasoning)
    if said is None or "mode" not in said:
        return reasoning
    return Raw(encode({name: value for name, value in said.items() if name != "mode"}))


def _bound(asked: _Chat) -> int | None:
    name = "max_tokens" if asked.max_completion_tokens is None else "max_completion_tokens"
    bound = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    if bound is not None and bound < OUTPUT_TOKENS_MIN:
        raise BadRequest(
            f"`{name}`: this endpoint takes no bound below {OUTPUT_TOKENS_MIN}. Ask for as many, or leave it out.",
            param=name,
        )
    return bound


def _tool(function: ToolFunction) -> dict[str, Any]:
    tool: dict[str, Any] = {"type": "function", "name": function.name}
    if function.description is not UNSET and function.description is not None:
        tool["description"] = function.description
    return {**tool, "parameters": function.parameters, "strict": bool(function.strict)}


def _choice(asked: _Chat) -> str | dict[str, Any] | None:
    choice = asked.tool_choice
    if isinstance(choice, ChosenTool):
        return {"type": "function", "name": choice.function.name}
    return choice if asked.tools or choice == "required" else None


def _text(asked: _Chat) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    if asked.response_format is not None and asked.response_format.type != "text":
        found["format"] = _format(asked.response_format)
    if asked.verbosity is not None:
        found["verbosity"] = asked.verbosity
    return found or None


def _format(format: _Format) -> dict[str, Any]:
    if format.type != "json_schema":
        return {"type": format.type}
    shape = format.json_schema
    if shape is None or shape.schema is UNSET:
        raise BadRequest("`response_format.json_schema.schema`: is missing.", param="response_format")
    more = {"description": shape.description, "strict": shape.strict}
    said = {name: value for name, value in more.items() if value is not None}
    return {"type": "json_schema", "name": shape.name, "schema": shape.schema, **said}
