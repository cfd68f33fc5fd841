"""A Responses answer becomes the hub's: its events the chunks, or the whole of it."""

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from tidegate.wire.chunks import Usage
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.hub import encode, reported
from tidegate.wire.responses.told import (
    FIELDS,
    Event,
    Made,
    Response,
    called,
    carried,
    failed,
    finish_reason,
    head_of,
    is_strange,
    known,
    named,
    read_event,
    read_response,
    sealed,
    summarised,
    uncarried,
    usage_of,
)
from tidegate.wire.sse import BYTE_ORDER_MARK, DONE, DONE_FRAME, BadStream, Cause, Frames, data_of
from tidegate.wire.surrogates import decoded
from tidegate.wire.whole import gather

# A response that is in another state has not come to its end.
_ENDED = frozenset({"completed", "incomplete"})
_APART = "\n\n"  # the parts of a thought, in one text


class _Open:
    """An item that has begun: which of the calls it is, and the part of it that came last; None before any has."""

    __slots__ = ("call", "part")

    def __init__(self, call: int) -> None:
        self.call = call
        self.part: tuple[str, int] | None = None


class EventStream:
    """See `Translate`. `created_s` is when the request was sent, for an answer without a date."""

    __slots__ = (
        "_calls", "_created_s", "_ended", "_frames", "_head", "_index", "_items", "_last", "_out", "_spoken",
        "_strange", "failure", "in_turn", "usage",
    )  # fmt: skip

    def __init__(self, created_s: int) -> None:
        self._frames = Frames()
        self._created_s = created_s
        self._head: dict[str, Any] | None = None
        # By their places in the output, or by their names where an engine does not tell these.
        self._items: dict[int | str | None, _Open] = {}
        self._last: int | str | None = None
        self._calls = 0
        self._index = -1  # of the last part of a thought that is told apart
        self._spoken = False  # something was said or called
        self._strange = False  # something came that the hub has no place for
        self._ended = False
        self._out: list[bytes] = []
        self.in_turn = False
        self.failure: BadStream | None = None
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Translate`."""
        for frame in self._frames.feed(data):
            if self.failure is not None or self._ended:
                break
            self._read(frame)
        if self._frames.oversized and self.failure is None and not self._ended:
            self.failure = BadStream(Cause.TOO_LARGE, "sent an event beyond any bound")
        out = b"".join(self._out)
        self._out.clear()
        return out

    def end(self) -> bytes:
        """See `Translate`. What has not ended by itself is cut, and is left so for the reader to find."""
        pending = not self._ended and self.failure is None and self._frames.pending.strip()
        return self.feed(b"\n\n") if pending else b""

    def _read(self, frame: bytes) -> None:
        data = data_of(frame)
        if not data:
            self._out.append(frame)
        elif data != DONE:
            try:
                self._take(decoded(read_event, data), data)
            except BadStream as failure:
                self.failure = failure.kept()
            except UNREADABLE:
                self.failure = BadStream(Cause.MALFORMED, "sent an event that cannot be read")

    def _take(self, event: Event, data: bytes) -> None:
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                self._say(self._at(event), event.type.split(".")[1], event.content_index, event.text)
            case "response.reasoning_text.delta":
                self._say(self._at(event), "reasoning_text", event.content_index, event.text)
            case "response.reasoning_summary_text.delta":
                self._say(self._at(event), "summary_text", event.summary_index, event.text)
            case "response.function_call_arguments.delta":
                self._say(self._at(event), "arguments", 0, event.text)
            case "response.output_item.added" if event.item is not UNSET:
                self._begin(event, carried(event.item))
            case "response.output_item.done" if event.item is not UNSET:
                self._finish(event, carried(event.item))
            case "response.created" | "response.in_progress" if event.response is not None:
                self._open(event.response)
            case "response.completed" | "response.incomplete" if event.response is not None:
                self._close(event.response)
            case "response.failed" if event.response is not None:
                self.usage = known(event.response.usage)
                raise failed(event.response)
            case "error":
                raise reported(data)
            case "keepalive":
                self._out.append(b": ping\n\n")
            case _:
                # The vendor adds kinds of events over time; what ends an item or a part repeats its pieces.
                pass

    def _open(self, response: Response) -> None:
        if self._head is None:
            self._head = head_of(response, self._created_s, "chat.completion.chunk")
            self._chunk({"role": "assistant", "content": ""})

    def _at(self, event: Event) -> _Open:
        """The item that a piece is of."""
        told = (event.output_index, event.item_id)
        key = next((key for key in told if key is not None and key in self._items), self._last)
        if key not in self._items:
            raise BadStream(Cause.MALFORMED, "sent a piece of what had not begun")
        return self._items[key]

    def _begin(self, event: Event, item: Made | None) -> _Open | None:
        """An item begins, unless it has."""
        if item is None:
            self._strange = True
            return None
        key = item.id if event.output_index is None else event.output_index
        if key in self._items:
            return self._items[key]
        opened = self._items[key] = _Open(self._calls)
        self._last = key
        if self.in_turn:
            self._chunk(named(item))
        if item.type == "function_call":
            self._calls += 1
            self._spoken = True
            self._chunk({"tool_calls": [{"index": opened.call, **called(item, "")}]})
        return opened

    def _finish(self, event: Event, item: Made | None) -> None:
        """An item has ended. What of it has not come in pieces comes with its end."""
        opened = self._begin(event, item)
        self._strange = self._strange or is_strange(item)
        if item is None or opened is None:
            return
        if opened.part is None:
            for at, part in enumerate(item.summary or ()):
                self._say(opened, "summary_text", at, part.text)
            for at, part in enumerate(item.content or ()):
                self._say(opened, part.type, at, part.text or part.refusal)
            self._say(opened, "arguments", 0, item.arguments)
        if item.encrypted_content:
            self._index += 1
            self._chunk({"reasoning_details": [sealed(item, self._index)]})

    def _say(self, opened: _Open, kind: str, at: int, text: str) -> None:
        """Pass on a piece of a part of an item."""
        part, before = (kind, at), opened.part
        delta: dict[str, Any]
        if not text:
            return
        if kind == "arguments":
            delta = {"tool_calls": [{"index": opened.call, "function": {"arguments": text}}]}
        elif kind in ("output_text", "refusal"):
            delta = {FIELDS[kind]: text}
            self._spoken = True
        elif kind in ("summary_text", "reasoning_text"):
            delta = {"reasoning_content": text if before in (None, part) else _APART + text}
            if kind == "summary_text":
                self._index += before != part
                delta["reasoning_details"] = [summarised(text, self._index)]
        else:
            return
        opened.part = part
        self._chunk(delta)

    def _close(self, response: Response) -> None:
        self._open(response)
        if not self._items:
            for at, raw in enumerate(response.output):
                self._finish(Event(output_index=at), carried(raw))
        if self._strange and not self._spoken:
            raise uncarried()
        self._chunk({}, finish_reason(response, calls=self._calls > 0))
        self.usage, usage = known(response.usage), usage_of(response.usage)
        if usage is not None:
            self._send({"choices": [], "usage": usage})
        self._ended = True
        self._out.append(DONE_FRAME)

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
        self._send({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _send(self, fields: dict[str, Any]) -> None:
        if self._head is None:
            raise BadStream(Cause.MALFORMED, "sent events before its response began")
        self._out.append(b"data: %b\n\n" % encode({**self._head, **fields}))


class WholeResponse:
    """See `Translate`. Gathers the body, and gives the hub's at the end."""

    __slots__ = ("_body", "_created_s", "failure", "in_turn", "usage")

    def __init__(self, created_s: int) -> None:
        self._body = bytearray()
        self._created_s = created_s
        self.in_turn = False
        self.failure: BadStream | None = None
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Translate`."""
        if self.failure is None:
            self.failure = gather(self._body, data)
        return b""

    def end(self) -> bytes:
        """See `Translate`."""
        if self.failure is not None:
            return b""
        try:
            response = _read(bytes(self._body).removeprefix(BYTE_ORDER_MARK))
            self.usage = known(response.usage)
            return self._whole(response)
        except BadStream as failure:
            self.failure = failure.kept()
        except UNREADABLE:
            self.failure = BadStream(Cause.MALFORMED, "answered with what cannot be read")
        return b""

    def _whole(self, response: Response) -> bytes:
        """The answer as the hub's. Raises `BadStream` where it is not all of one."""
        if response.status == "failed":
            raise failed(response)
        if response.status not in _ENDED:
            raise BadStream(Cause.TRUNCATED, "answered before its response was complete")
        found = [carried(raw) for raw in response.output]
        items = [item for item in found if item is not None]
        said = _said(items)
        calls = "tool_calls" in said
        if any(is_strange(item) for item in found) and not (calls or said["content"] or "refusal" in said):
            raise uncarried()
        if self.in_turn:
            said["tidegate_pieces"] = [_said([item]) | named(item) for item in items]
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish_reason(response, calls=calls)}
        answer = {**head_of(response, self._created_s, "chat.completion"), "choices": [choice]}
        usage = usage_of(response.usage)
        return encode(answer if usage is None else {**answer, "usage": usage})


def _read(body: bytes) -> Response:
    """The response in a body. Raises `BadStream` for what is none."""
    response = decoded(read_response, body)
    if response.object != "response":
        failure = reported(body)
        raise failure if failure.error is not None else BadStream(Cause.MALFORMED, "answered without a response")
    return response


def _said(items: Iterable[Made]) -> dict[str, Any]:
    texts: dict[str, list[str]] = {field: [] for field in FIELDS.values()}
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for item in items:
        summary = [part.text for part in item.summary or () if part.text]
        details += [summarised(text, len(details) + at) for at, text in enumerate(summary)]
        parts = [part for part in item.content or () if part.type in FIELDS]
        read = [part.text for part in parts if part.type == "reasoning_text" and part.text]
        texts["reasoning_content"].append(_APART.join(summary + read))
        texts["content"] += [part.text for part in parts if part.type == "output_text"]
        texts["refusal"] += [part.refusal for part in parts if part.type == "refusal"]
        if item.encrypted_content:
            details.append(sealed(item, len(details)))
        if item.type == "function_call":
            calls.append(called(item, item.arguments))
    said: dict[str, Any] = {
        "role": "assistant",
        **{field: "".join(pieces) for field, pieces in texts.items() if any(pieces)},
    }
    said.setdefault("content", None if calls or "refusal" in said else "")
    if details:
        said["reasoning_details"] = details
    if calls:
        said["tool_calls"] = calls
    return said
