"""The hub's stream becomes the events of the Responses API."""

from typing import Any

from tidegate.wire.chunks import ANSWER_BYTES_MAX
from tidegate.wire.hub import NO_COUNTS, Answer, Chunks, Said, Slots, ToolCall, encode, read_answer
from tidegate.wire.openai import Call
from tidegate.wire.responses.answer import (
    answer_id,
    call_item,
    incomplete,
    message_item,
    opening,
    reasoning_item,
    reasoning_part,
    refusal_part,
    response,
    text_part,
)
from tidegate.wire.sse import BadStream, Cause

_PING = b": ping\n\n"
_CODES = {"rate_limit_error": "rate_limit_exceeded"}

# Of a part's type: the events of its pieces, the field that holds it, and what makes it.
_PARTS = {
    "output_text": ("response.output_text", "text", text_part),
    "refusal": ("response.refusal", "refusal", refusal_part),
    "reasoning_text": ("response.reasoning_text", "text", reasoning_part),
}


class _Item:
    """An item of the output that has begun: its parts, or its arguments, in the pieces in which they came."""

    __slots__ = ("id", "kind", "made", "parts", "pieces", "slot")

    def __init__(self, kind: str, id: str, made: dict[str, Any], slot: int = -1) -> None:
        self.kind = kind
        self.id = id
        self.made = made
        self.slot = slot
        self.parts: list[dict[str, Any]] = []
        self.pieces: list[str] = []


class ResponseStream:
    """See `ClientStream`. Items follow each other; what they come to is kept, since their ends repeat it."""

    __slots__ = (
        "_answer", "_bytes", "_call", "_chunks", "_counts", "_finish", "_item", "_now_s", "_out", "_output", "_part",
        "_sequence", "_slot", "_slots", "failure",
    )  # fmt: skip

    def __init__(self, call: Call, now_s: float) -> None:
        """`now_s` dates answers of engines that do not."""
        self._call = call
        self._now_s = now_s
        self._chunks = Chunks()
        self._slots = Slots()
        self._slot = -1  # the last call that began
        self._answer: Answer | None = None
        self._counts = NO_COUNTS
        self._finish: str | None = None
        self._output: list[dict[str, Any]] = []
        self._item: _Item | None = None
        self._part = ""  # the type of the part that has not ended yet
        self._bytes = 0
        self._sequence = 0
        self._out: list[bytes] = []
        self.failure: BadStream | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Translate`."""
        for inside in self._chunks.feed(data):
            if self.failure is not None:
                break
            if inside is None:
                self._out.append(_PING)
                continue
            try:
                self._take(read_answer(inside), len(inside))
            except BadStream as failure:
                self.failure = failure.kept()
        return self._flushed()

    def end(self) -> bytes:
        """See `Translate`."""
        answer = self._begun(Answer())
        reason = incomplete(self._finish)
        self._close("completed" if reason is None else "incomplete")
        made = response(answer, self._call, self._now_s, self._output, self._counts, reason)
        self._emit(f"response.{made['status']}", response=made)
        return self._flushed()

    def error(self, message: str, kind: str, code: str | None) -> bytes:
        """See `ClientStream`."""
        if self._answer is None:
            self._emit("error", code=code, message=message, param=None)
            return self._flushed()
        failed = {"status": "failed", "error": {"code": _CODES.get(kind, "server_error"), "message": message}}
        self._emit("response.failed", response=opening(self._answer, self._call, self._now_s) | failed)
        return self._flushed()

    def _flushed(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _emit(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), encode(event)))
        self._sequence += 1

    def _begun(self, answer: Answer) -> Answer:
        if self._answer is None:
            self._answer = answer
            for kind in ("response.created", "response.in_progress"):
                self._emit(kind, response=opening(answer, self._call, self._now_s))
        return self._answer

    def _take(self, answer: Answer, size: int) -> None:
        self._bytes += size
        if self._bytes > ANSWER_BYTES_MAX:
            raise BadStream(Cause.TOO_LARGE, "sent an answer beyond any bound")
        if answer.usage is not None:
            self._counts = answer.usage
        # Azure's first chunk tells what a filter has found, and has no name yet.
        if not (answer.id or answer.choices):
            return
        self._begun(answer)
        choice = answer.first
        if choice is None:
            return
        self._finish = choice.finish_reason or self._finish
        if choice.delta is not None:
            self._add(choice.delta)

    def _add(self, said: Said) -> None:
        if said.thought:
            self._say("reasoning", "reasoning_text", said.thought)
        if said.text:
            self._say("message", "output_text", said.text)
        if said.refusal:
            self._say("message", "refusal", said.refusal)
        for call in said.tool_calls or ():
            self._call_piece(call)

    def _name(self, prefix: str) -> str:
        assert self._answer is not None, "the response has begun"
        return f"{prefix}_{answer_id(self._answer)}_{len(self._output)}"

    def _start(self, item: _Item) -> None:
        self._item = item
        self._emit("response.output_item.added", output_index=len(self._output), item=item.made)

    def _say(self, kind: str, part: str, text: str) -> None:
        """Go on with a part of an item, or begin either."""
        if self._item is None or self._item.kind != kind:
            self._close("completed")
            id = self._name("rs" if kind == "reasoning" else "msg")
            made = reasoning_item(id, "") if kind == "reasoning" else message_item(id, [])
            self._start(_Item(kind, id, made | {"status": "in_progress", "content": []}))
        assert self._item is not None, "it has begun"
        if self._part != part:
            self._close_part()
            self._part = part
            self._emit("response.content_part.added", **self._place(), part=_PARTS[part][2](""))
        self._item.pieces.append(text)
        logprobs: dict[str, Any] = {"logprobs": []} if part == "output_text" else {}
        self._emit(f"{_PARTS[part][0]}.delta", **self._place(), delta=text, **logprobs)

    def _place(self) -> dict[str, Any]:
        assert self._item is not None, "a part is of an item"
        at = len(self._item.parts)
        return {"item_id": self._item.id, "output_index": len(self._output), "content_index": at}

    def _close_part(self) -> None:
        item = self._item
        if item is None or not self._part:
            return
        event, field, make = _PARTS[self._part]
        text = "".join(item.pieces)
        logprobs: dict[str, Any] = {"logprobs": []} if self._part == "output_text" else {}
        self._emit(f"{event}.done", **self._place(), **{field: text}, **logprobs)
        self._emit("response.content_part.done", **self._place(), part=make(text))
        item.parts.append(make(text))
        item.pieces.clear()
        self._part = ""

    def _close(self, status: str) -> None:
        """End the item that is open, if one is."""
        item = self._item
        if item is None:
            return
        self._close_part()
        if item.kind == "function_call":
            arguments = "".join(item.pieces)
            self._emit(
                "response.function_call_arguments.done",
                item_id=item.id,
                output_index=len(self._output),
                name=item.made["name"],
                arguments=arguments,
            )
            done = item.made | {"status": status, "arguments": arguments}
        else:
            done = item.made | {"status": status, "content": item.parts}
        self._emit("response.output_item.done", output_index=len(self._output), item=done)
        self._output.append(done)
        self._item = None

    def _call_piece(self, call: ToolCall) -> None:
        slot = self._slots.of(call)
        piece = (call.function.arguments if call.function is not None else None) or ""
        if slot > self._slot:
            self._close("completed")
            id = self._name("fc")
            self._start(_Item("function_call", id, call_item(id, call, "") | {"status": "in_progress"}, slot))
            self._slot = slot
        item = self._item
        if not piece:
            return
        if item is None or item.slot != slot:
            raise BadStream(Cause.MALFORMED, "went back to a call that it had ended")
        item.pieces.append(piece)
        event = {"item_id": item.id, "output_index": len(self._output), "delta": piece}
        self._emit("response.function_call_arguments.delta", **event)
