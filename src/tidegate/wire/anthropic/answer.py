"""The hub's answer becomes a Messages answer: its events, or the whole of it."""

from typing import Any

from tidegate.wire.anthropic.errors import error_event
from tidegate.wire.hub import (
    CLAUDE,
    NO_COUNTS,
    Answer,
    Choice,
    ChunkStream,
    Counts,
    Detail,
    Said,
    ToolCall,
    arguments_of,
    encode,
)
from tidegate.wire.hub import read_answer as read
from tidegate.wire.sse import BadStream, Cause

_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def whole(body: bytes) -> bytes:
    """An answer given whole. Raises `BadStream` where it has no form in this dialect."""
    answer = read(body)
    choice = answer.first
    said = choice.message if choice is not None else None
    if choice is None or said is None:
        raise BadStream(Cause.MALFORMED, "answered without a message")
    ending = _Ending()
    ending.note(choice, said)
    content: list[dict[str, Any]] = []
    name = message_id(answer)
    calls = 0
    for piece in said.pieces or [said]:
        content += _thoughts(piece)
        if text := piece.text + (piece.refusal or ""):
            content.append({"type": "text", "text": text})
        for call in piece.tool_calls or ():
            arguments = arguments_of(call, choice.finish_reason)
            content.append({**_use(call, name, calls), "input": {} if arguments is None else arguments})
            calls += 1
    reason = {"stop_reason": ending.reason, "stop_sequence": ending.sequence}
    told = {**_head(answer, content), **reason, "usage": usage_of(answer.usage or NO_COUNTS)}
    return encode(told | (answer.native or {}))


def message_id(answer: Answer) -> str:
    """The message's id, from the one that the engine gave its answer."""
    given = answer.id or "0"
    return given if given.startswith("msg_") else f"msg_{given}"


def usage_of(counts: Counts) -> dict[str, Any]:
    """Usage in this dialect, where what the cache gave or took is no part of the input."""
    usage: dict[str, Any] = {
        "input_tokens": counts.input - counts.cached - counts.written,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.output,
    }
    if counts.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    return usage


def _head(answer: Answer, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": message_id(answer),
        "type": "message",
        "role": "assistant",
        "model": answer.model or "",
        "content": content,
    }


def _thoughts(said: Said) -> list[dict[str, Any]]:
    """Thinking, in the pieces that were sealed; as one where nothing was."""
    sealed = [d for d in _details(said) if d.data is not None or d.signature is not None]
    texts = [d for d in sealed if d.data is None]
    found: list[dict[str, Any]] = []
    for detail in sealed:
        if detail.data is not None:
            found.append({"type": "redacted_thinking", "data": detail.data})
        elif detail.text is not None or len(texts) == 1:
            text = said.thought if detail.text is None else detail.text
            found.append({"type": "thinking", "thinking": text, "signature": detail.signature})
    if said.thought and not any(block["type"] == "thinking" for block in found):
        found.insert(0, {"type": "thinking", "thinking": said.thought, "signature": ""})
    return found


def _details(said: Said) -> list[Detail]:
    """What of its thoughts may go back to where this dialect is spoken."""
    return [detail for detail in said.reasoning_details or () if detail.may_be(CLAUDE)]


def _use(call: ToolCall, name: str, at: int) -> dict[str, Any]:
    function = call.function
    if function is None or not function.name:
        raise BadStream(Cause.MALFORMED, "called a tool without its name")
    return {"type": "tool_use", "id": call.id or f"toolu_{name}_{at}", "name": function.name, "input": {}}


class _Ending:
    """Why an answer ended, from all that its chunks say."""

    __slots__ = ("_called", "_finish", "_refused", "sequence")

    def __init__(self) -> None:
        self._finish = ""
        self._called = self._refused = False
        self.sequence: str | None = None

    def note(self, choice: Choice, said: Said | None) -> None:
        if choice.finish_reason:
            self._finish = choice.finish_reason
        if (sequence := choice.sequence) is not None:
            self.sequence = sequence
        if said is not None:
            self._called = self._called or bool(said.tool_calls)
            self._refused = self._refused or bool(said.refusal)

    @property
    def reason(self) -> str:
        reason = _REASONS.get(self._finish, "end_turn")
        if reason != "end_turn":
            return reason
        # Some engines end with a plain stop whatever came before it.
        if self._called:
            return "tool_use"
        if self._refused:
            return "refusal"
        return reason if self.sequence is None else "stop_sequence"


class MessageStream(ChunkStream):
    """See `ClientStream`. Blocks follow each other: one ends where the next begins."""

    __slots__ = ("_counts", "_ending", "_index", "_name", "_native", "_open")

    ping = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self) -> None:
        super().__init__()
        self._ending = _Ending()
        self._counts = NO_COUNTS
        self._native: dict[str, Any] = {}  # what an engine of this dialect tells at the end
        self._name: str | None = None
        self._index = -1
        self._open = ""  # the type of the block that has not ended yet

    def end(self) -> bytes:
        """See `Translate`."""
        if self._name is None:
            self._begin(Answer())
        self._close()
        delta = {"stop_reason": self._ending.reason, "stop_sequence": self._ending.sequence}
        self._emit("message_delta", **({"delta": delta, "usage": usage_of(self._counts)} | self._native))
        self._emit("message_stop")
        return self._flushed()

    def error(self, message: str, kind: str, code: str | None) -> bytes:
        """See `ClientStream`."""
        return error_event(message, kind, code)

    def _emit(self, kind: str, /, **fields: Any) -> None:
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields})))

    def _begin(self, answer: Answer) -> None:
        self._name = message_id(answer)
        # From other engines the prompt's tokens are known at the end alone, and stand in message_delta.
        reason = {"stop_reason": None, "stop_sequence": None}
        told = {**_head(answer, []), **reason, "usage": usage_of(NO_COUNTS)}
        self._emit("message_start", message=told | (answer.native or {}))

    def _take(self, answer: Answer) -> None:
        # Azure's first chunk tells what a filter has found, and has no name yet.
        if self._name is None and (answer.id or answer.choices):
            self._begin(answer)
        self._counts = answer.usage or self._counts
        choice = answer.first
        if choice is None:
            return
        said = choice.delta
        self._ending.note(choice, said)
        if choice.finish_reason:
            self._native = answer.native or {}
        if said is not None:
            self._add(said)

    def _add(self, said: Said) -> None:
        if said.item is not None:
            self._close()
        if said.thought:
            self._delta("thinking", "thinking_delta", thinking=said.thought)
        for detail in _details(said):
            if detail.data is not None:
                self._start("redacted_thinking", data=detail.data)
                self._close()
            elif detail.signature:
                self._delta("thinking", "signature_delta", signature=detail.signature)
                self._close()
        if text := said.text + (said.refusal or ""):
            self._delta("text", "text_delta", text=text)
        for call in said.tool_calls or ():
            self._call(call)

    def _delta(self, block: str, kind: str, **piece: str) -> None:
        """Go on with a block of a type, or begin one."""
        if self._open != block:
            empty = {"thinking": "", "signature": ""} if block == "thinking" else {"text": ""}
            self._start(block, **empty)
        self._emit("content_block_delta", index=self._index, delta={"type": kind, **piece})

    def _start(self, block: str, **fields: Any) -> None:
        self._close()
        self._index += 1
        self._open = block
        self._emit("content_block_start", index=self._index, content_block={"type": block, **fields})

    def _close(self) -> None:
        if self._open:
            self._open = ""
            self._emit("content_block_stop", index=self._index)

    def _call(self, call: ToolCall) -> None:
        slot = self._slots.of(call)
        piece = (call.function.arguments if call.function is not None else None) or ""
        if slot > self._slot:
            assert self._name is not None, "a message has begun"
            self._start(**self._block(_use(call, self._name, slot)))
            self._slot = slot
        elif piece and (slot < self._slot or self._open != "tool_use"):
            raise BadStream(Cause.MALFORMED, "went back to a call that it had ended")
        if piece:
            delta = {"type": "input_json_delta", "partial_json": piece}
            self._emit("content_block_delta", index=self._index, delta=delta)

    @staticmethod
    def _block(use: dict[str, Any]) -> dict[str, Any]:
        return {"block": use.pop("type"), **use}
