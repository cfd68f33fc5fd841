"""The hub's stream becomes the events of the Responses API."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tidegate.wire.chunks import ANSWER_BYTES_MAX
from tidegate.wire.hub import (
    NO_COUNTS,
    RESPONSES,
    Answer,
    ChunkStream,
    Detail,
    Item,
    Said,
    ToolCall,
    encode,
)
from tidegate.wire.openai import Call
from tidegate.wire.responses.answer import (
    NO_ARGUMENTS,
    answer_id,
    call_item,
    incomplete,
    message_item,
    opening,
    reasoning_item,
    reasoning_part,
    refusal_part,
    response,
    summary_part,
    text_part,
)
from tidegate.wire.responses.thoughts import Thought
from tidegate.wire.sse import BadStream, Cause

_CODES = {"rate_limit_error": "rate_limit_exceeded"}
_SEAL = "encrypted_content"
# What a piece of text takes in memory besides itself.
_PIECE_BYTES = 64
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


class _Part(NamedTuple):
    """A type of parts: the events of its pieces and of its own, the field that holds its text, what makes one, and
    where an item has them."""

    pieces: str
    whole: str
    field: str
    make: Callable[[str], dict[str, Any]]
    place: str


_CONTENT, _SUMMARY = "response.content_part", "response.reasoning_summary_part"
_PARTS = {
    "output_text": _Part("response.output_text", _CONTENT, "text", text_part, "content"),
    "refusal": _Part("response.refusal", _CONTENT, "refusal", refusal_part, "content"),
    "reasoning_text": _Part("response.reasoning_text", _CONTENT, "text", reasoning_part, "content"),
    "summary_text": _Part("response.reasoning_summary_text", _SUMMARY, "text", summary_part, "summary"),
}


class _Item:
    """An item of the output that has begun: its parts, or its arguments, in the pieces in which they came."""

    __slots__ = ("id", "kind", "made", "parts", "pieces", "slot")

    def __init__(self, kind: str, id: str, made: dict[str, Any], slot: int = -1) -> None:
        self.kind = kind
        self.id = id
        self.made = made
        self.slot = slot
        self.parts: dict[str, list[dict[str, Any]]] = {place: [] for place in ("summary", "content") if place in made}
        self.pieces: list[str] = []


class ResponseStream(ChunkStream):
    """See `ClientStream`. Items follow each other; what they come to is kept, since their ends repeat it."""

    __slots__ = (
        "_answer", "_bytes", "_call", "_counts", "_finish", "_index", "_item", "_named", "_now_s", "_output", "_part",
        "_sequence",
    )  # fmt: skip

    ping = b": ping\n\n"

    def __init__(self, call: Call, now_s: float) -> None:
        """`now_s` dates answers of engines that do not."""
        super().__init__()
        self._call = call
        self._now_s = now_s
        self._answer: Answer | None = None
        self._counts = NO_COUNTS
        self._finish: str | None = None
        self._output: list[dict[str, Any]] = []
        self._item: _Item | None = None
        self._named: Item | None = None  # what the engine calls the item that begins next
        self._part = ""  # the type of the part that has not ended yet
        self._index: int | None = None  # which of its thoughts' parts that is, where the engine tells
        self._bytes = 0
        self._sequence = 0

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

    def _take(self, answer: Answer) -> None:
        self._counts = answer.usage or self._counts
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

    def _kept(self, text: str) -> str:
        """The same, counted: it is kept for the end."""
        self._bytes += len(text) + _PIECE_BYTES
        if self._bytes > ANSWER_BYTES_MAX:
            raise BadStream(Cause.TOO_LARGE, "sent an answer beyond any bound")
        return text

    def _add(self, said: Said) -> None:
        details = [detail for detail in said.reasoning_details or () if detail.format == RESPONSES]
        if said.item is not None:
            self._close("completed")
            self._named = said.item
        if said.thought and not any(detail.summary for detail in details):
            self._say("reasoning", "reasoning_text", said.thought)
        for detail in details:
            self._think(detail)
        if said.text:
            self._say("message", "output_text", said.text)
        if said.refusal:
            self._say("message", "refusal", said.refusal)
        for call in said.tool_calls or ():
            self._call_piece(call)

    def _think(self, detail: Detail) -> None:
        """A piece of a thought's summary, or its seal, behind which comes another one."""
        if detail.summary:
            if self._part == "summary_text" and self._index != detail.index:
                self._close_part()
            self._index = detail.index
            self._say("reasoning", "summary_text", detail.summary)
        if detail.data:
            self._go_on("reasoning", detail.id).made[_SEAL] = self._kept(detail.data)

    def _name(self, kind: str, id: str | None = None) -> tuple[str, str | None]:
        """What an item is called that begins, and its phase: as the engine calls it, or by its `id`, else by its
        place."""
        assert self._answer is not None, "the response has begun"
        named, self._named = self._named, None
        if named is None or named.type != kind:
            named = Item()
        by_place = f"{_PREFIXES[kind]}_{answer_id(self._answer)}_{len(self._output)}"
        return named.id or id or by_place, named.phase

    def _start(self, item: _Item) -> None:
        for named in item.made.values():
            self._kept(named if isinstance(named, str) else "")
        self._item = item
        self._emit("response.output_item.added", output_index=len(self._output), item=item.made)

    def _go_on(self, kind: str, id: str | None = None) -> _Item:
        """The message or the thought that is open, or one that begins; `id` as above."""
        open = self._item
        if open is not None and open.kind == kind and _SEAL not in open.made:
            return open
        self._close("completed")
        name, phase = self._name(kind, id)
        made = reasoning_item(name, Thought()) if kind == "reasoning" else message_item(name, [], phase)
        item = _Item(kind, name, made | {"status": "in_progress"})
        self._start(item)
        return item

    def _say(self, kind: str, part: str, text: str) -> None:
        """Go on with a part of an item, or begin either."""
        item, made = self._go_on(kind), _PARTS[part]
        if self._part != part:
            self._close_part()
            self._part = part
            self._emit(f"{made.whole}.added", **self._place(made), part=made.make(""))
        item.pieces.append(self._kept(text))
        logprobs: dict[str, Any] = {"logprobs": []} if part == "output_text" else {}
        self._emit(f"{made.pieces}.delta", **self._place(made), delta=text, **logprobs)

    def _place(self, part: _Part) -> dict[str, Any]:
        assert self._item is not None, "a part is of an item"
        at = {f"{part.place}_index": len(self._item.parts[part.place])}
        return {"item_id": self._item.id, "output_index": len(self._output), **at}

    def _close_part(self) -> None:
        item = self._item
        if item is None or not self._part:
            return
        part, text = _PARTS[self._part], "".join(item.pieces)
        logprobs: dict[str, Any] = {"logprobs": []} if self._part == "output_text" else {}
        self._emit(f"{part.pieces}.done", **self._place(part), **{part.field: text}, **logprobs)
        self._emit(f"{part.whole}.done", **self._place(part), part=part.make(text))
        item.parts[part.place].append(part.make(text))
        item.pieces.clear()
        self._part = ""

    def _close(self, status: str) -> None:
        """End the item that is open, if one is."""
        item = self._item
        if item is None:
            return
        self._close_part()
        done = item.made | {"status": status}
        if item.kind == "function_call":
            arguments = "".join(item.pieces)
            if not arguments.strip():
                arguments += NO_ARGUMENTS
                self._emit_arguments(item, NO_ARGUMENTS)
            self._emit(
                "response.function_call_arguments.done",
                item_id=item.id,
                output_index=len(self._output),
                name=item.made["name"],
                arguments=arguments,
            )
            done |= {"arguments": arguments}
        else:
            done |= item.parts
        self._emit("response.output_item.done", output_index=len(self._output), item=done)
        self._output.append(done)
        self._item = None

    def _call_piece(self, call: ToolCall) -> None:
        slot = self._slots.of(call)
        piece = (call.function.arguments if call.function is not None else None) or ""
        if slot > self._slot:
            self._close("completed")
            id, _ = self._name("function_call")
            self._start(_Item("function_call", id, call_item(id, call, "") | {"status": "in_progress"}, slot))
            self._slot = slot
        item = self._item
        if not piece:
            return
        if item is None or item.slot != slot:
            raise BadStream(Cause.MALFORMED, "went back to a call that it had ended")
        item.pieces.append(self._kept(piece))
        self._emit_arguments(item, piece)

    def _emit_arguments(self, item: _Item, piece: str) -> None:
        event = {"item_id": item.id, "output_index": len(self._output), "delta": piece}
        self._emit("response.function_call_arguments.delta", **event)
