"""What an engine of this dialect tells, as types, and the hub's words for it."""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tidegate.wire.chunks import Usage
from tidegate.wire.hub import RESPONSES, reported
from tidegate.wire.reading import count, count_in
from tidegate.wire.sse import BadStream, Cause

# The field of the hub's message that a part's text belongs to.
FIELDS = {"output_text": "content", "refusal": "refusal", "reasoning_text": "reasoning_content"}
_CARRIED = frozenset({"message", "function_call", "reasoning"})


class Counts(msgspec.Struct, gc=False):
    """Usage: counts and their details, or whatever an engine takes for one."""

    input_tokens: object = None
    output_tokens: object = None
    input_tokens_details: object = None
    output_tokens_details: object = None


class Part(msgspec.Struct, gc=False):
    """A part of a message or of a thought."""

    type: str = ""
    text: str = ""
    refusal: str = ""


class _Kind(msgspec.Struct, gc=False):
    type: str = ""


class Made(msgspec.Struct, gc=False):
    """An item that was made: a message, a call or a thought."""

    type: str = ""
    id: str | None = None
    phase: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    content: list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class Response(msgspec.Struct, gc=False):
    """A response, as far as it has come."""

    id: str = ""
    object: str = ""
    model: str = ""
    created_at: float | None = None
    status: str = ""
    output: list[Raw] = []
    usage: Counts | None = None
    incomplete_details: _Incomplete | None = None
    error: Raw = Raw(b"null")


class Event(msgspec.Struct, gc=False):
    """An event of any kind."""

    type: str = ""
    response: Response | None = None
    item: Raw | UnsetType = UNSET
    item_id: str | None = None
    output_index: int | None = None
    content_index: int = 0
    summary_index: int = 0
    delta: object = None

    @property
    def text(self) -> str:
        """The piece that it brings. Raises `BadStream` for what is none."""
        if not isinstance(self.delta, str):
            raise BadStream(Cause.MALFORMED, "sent a piece of what is no text")
        return self.delta


read_event = msgspec.json.Decoder(Event).decode
read_response = msgspec.json.Decoder(Response).decode
_kind = msgspec.json.Decoder(_Kind).decode
_made = msgspec.json.Decoder(Made).decode


def carried(item: Raw) -> Made | None:
    """The item; None for one of a kind that the hub has no place for."""
    return _made(item) if _kind(item).type in _CARRIED else None


def is_strange(item: Made | None) -> bool:
    """Whether the hub has no place for its kind, or for that of a part of it."""
    return item is None or any(part.type not in FIELDS for part in item.content or ())


def named(item: Made) -> dict[str, Any]:
    """What the engine calls it, for who speaks the same dialect."""
    told = {"type": item.type, "id": item.id, "phase": item.phase}
    return {"tidegate_item": {name: value for name, value in told.items() if value is not None}}


def summarised(text: str, index: int) -> dict[str, Any]:
    """A piece of the summary of a thought, as a detail of the hub's."""
    return {"type": "reasoning.summary", "summary": text, "format": RESPONSES, "index": index}


def sealed(item: Made, index: int) -> dict[str, Any]:
    """The seal of a thought, as a detail of the hub's."""
    seal = {"type": "reasoning.encrypted", "data": item.encrypted_content, "id": item.id}
    return {**seal, "format": RESPONSES, "index": index}


def called(item: Made, arguments: str) -> dict[str, Any]:
    """A call, as far as its arguments have come."""
    function = {"name": item.name, "arguments": arguments}
    return {"id": item.call_id or item.id, "type": "function", "function": function}


def finish_reason(response: Response, *, calls: bool) -> str:
    """Why it stopped. What is incomplete for a reason that nobody here knows is not all."""
    incomplete = response.incomplete_details
    if incomplete is not None and incomplete.reason == "content_filter":
        return "content_filter"
    if incomplete is not None or response.status == "incomplete":
        return "length"
    return "tool_calls" if calls else "stop"


def known(counts: Counts | None) -> Usage | None:
    """What was counted; None where that is nothing."""
    prompt, output = _both(counts)
    if counts is None or not (prompt or output is not None):
        return None
    return Usage(
        prompt_tokens=prompt or None,
        output_tokens=output,
        cached_tokens=count_in(counts.input_tokens_details, "cached_tokens"),
        cache_write_tokens=count_in(counts.input_tokens_details, "cache_write_tokens"),
        reasoning_tokens=count_in(counts.output_tokens_details, "reasoning_tokens"),
    )


def usage_of(counts: Counts | None) -> dict[str, Any] | None:
    """The same as clients are told; None where a part of it was not: they add up what they find there."""
    prompt, output = _both(counts)
    if counts is None or prompt is None or output is None:
        return None
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    if isinstance(counts.input_tokens_details, dict):
        usage["prompt_tokens_details"] = counts.input_tokens_details
    if isinstance(counts.output_tokens_details, dict):
        usage["completion_tokens_details"] = counts.output_tokens_details
    return usage


def _both(counts: Counts | None) -> tuple[int | None, int | None]:
    return (None, None) if counts is None else (count(counts.input_tokens), count(counts.output_tokens))


def head_of(response: Response, created_s: int, kind: str) -> dict[str, Any]:
    """What names an answer, or each of its chunks; `created_s` is for one without a date."""
    created = created_s if response.created_at is None else int(response.created_at)
    return {"id": response.id, "object": kind, "created": created, "model": response.model}


def failed(response: Response) -> BadStream:
    """The error for which a response failed."""
    return reported(b'{"error":%b}' % bytes(response.error))


def uncarried() -> BadStream:
    """That an answer has nothing in it that the hub has a place for, and so would look empty."""
    return BadStream(Cause.MALFORMED, "answered with nothing but what cannot be carried")
