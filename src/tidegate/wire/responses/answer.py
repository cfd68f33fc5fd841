"""The hub's answer as a Responses object: what is the same in its events and in the whole of it."""

from typing import Any

from msgspec import Raw

from tidegate.wire.hub import NO_COUNTS, Answer, Counts, Item, Said, ToolCall, encode, in_one_line, read_answer
from tidegate.wire.openai import Call
from tidegate.wire.responses.thoughts import Thought, thoughts_of
from tidegate.wire.sse import BadStream, Cause

# Of a call whose engine gives it none: clients read them as JSON, which an empty text is not.
NO_ARGUMENTS = "{}"
# What the answer repeats of the request, and what stands there where the request says nothing.
_REPEATED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_NULL = Raw(b"null")


def whole(body: bytes, call: Call, now_s: float) -> bytes:
    """An answer given whole. Raises `BadStream` where it has no form in this dialect."""
    answer = read_answer(body)
    choice = answer.first
    said = choice.message if choice is not None else None
    if choice is None or said is None:
        raise BadStream(Cause.MALFORMED, "answered without a message")
    name = answer_id(answer)
    output: list[dict[str, Any]] = []
    for piece in said.pieces or [said]:
        item = piece.item or Item()
        for thought in thoughts_of(piece):
            output.append(reasoning_item(thought.id or item.id or f"rs_{name}_{len(output)}", thought))
        if parts := _parts(piece):
            output.append(message_item(item.id or f"msg_{name}_{len(output)}", parts, item.phase))
        for call_made in piece.tool_calls or ():
            arguments = (call_made.function.arguments if call_made.function else None) or ""
            if not arguments.strip():
                arguments += NO_ARGUMENTS
            output.append(call_item(item.id or f"fc_{name}_{len(output)}", call_made, arguments))
    reason = incomplete(choice.finish_reason)
    if reason is not None and output:
        output[-1]["status"] = "incomplete"
    return encode(response(answer, call, now_s, output, answer.usage or NO_COUNTS, reason))


def answer_id(answer: Answer) -> str:
    """The answer's id, from the one that the engine gave it, without what this dialect has before it."""
    return (answer.id or "0").removeprefix("resp_")


def incomplete(finish: str | None) -> str | None:
    """Why an answer is not all that it would have been; None where it is."""
    return {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish or "")


def opening(answer: Answer, call: Call, now_s: float) -> dict[str, Any]:
    """The response as far as it is known when it begins."""
    given = call.native.fields if call.native is not None else {}
    repeated = {name: _given(given, name, usual) for name, usual in _REPEATED.items()}
    return {
        "id": f"resp_{answer_id(answer)}",
        "object": "response",
        "created_at": int(answer.created or now_s),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": answer.model or call.model,
        "output": [],
        "previous_response_id": None,
        "store": False,
        **repeated,
        "usage": None,
    }


def _given(fields: dict[str, Raw], name: str, usual: Any) -> Any:
    value = fields.get(name, _NULL)
    # What a client has broken into lines would break the event that repeats it.
    return usual if value == _NULL else in_one_line(bytes(value))


def response(
    answer: Answer, call: Call, now_s: float, output: list[dict[str, Any]], counts: Counts, reason: str | None
) -> dict[str, Any]:
    """The response as it ends. `reason` is that of an incomplete one."""
    return opening(answer, call, now_s) | {
        "status": "completed" if reason is None else "incomplete",
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": output,
        "usage": usage_of(counts),
    }


def usage_of(counts: Counts) -> dict[str, Any]:
    """Usage in this dialect; cached and reasoning tokens are part of the two sums, as in the hub's."""
    return {
        "input_tokens": counts.input,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": counts.written},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.input + counts.output,
    }


def text_part(text: str) -> dict[str, Any]:
    """What was said."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def refusal_part(text: str) -> dict[str, Any]:
    """What was said instead."""
    return {"type": "refusal", "refusal": text}


def reasoning_part(text: str) -> dict[str, Any]:
    """What was thought."""
    return {"type": "reasoning_text", "text": text}


def summary_part(text: str) -> dict[str, Any]:
    """What was thought, in short."""
    return {"type": "summary_text", "text": text}


def _parts(said: Said) -> list[dict[str, Any]]:
    parts = [text_part(said.text)] if said.text else []
    return parts + ([refusal_part(said.refusal)] if said.refusal else [])


def reasoning_item(id: str, thought: Thought) -> dict[str, Any]:
    """A thought: as its model shows it, and sealed for who made it."""
    summary = [summary_part(text) for text in thought.summary]
    content = [reasoning_part(thought.text)] if thought.text else []
    item = {"id": id, "type": "reasoning", "status": "completed", "summary": summary, "content": content}
    return item if thought.sealed is None else {**item, "encrypted_content": thought.sealed}


def message_item(id: str, parts: list[dict[str, Any]], phase: str | None) -> dict[str, Any]:
    """A message. Its phase is told where it has one."""
    item = {"id": id, "type": "message", "status": "completed", "role": "assistant", "content": parts}
    return item if phase is None else {**item, "phase": phase}


def call_item(id: str, call: ToolCall, arguments: str) -> dict[str, Any]:
    """A call. Raises `BadStream` where it has no name."""
    function = call.function
    if function is None or not function.name:
        raise BadStream(Cause.MALFORMED, "called a tool without its name")
    return {
        "id": id,
        "type": "function_call",
        "status": "completed",
        "call_id": call.id or id,
        "name": function.name,
        "arguments": arguments,
    }
