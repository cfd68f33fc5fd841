"""A Messages answer becomes the hub's: its events the chunks, or the whole of it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tidegate.wire.chunks import Usage
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.hub import NATIVE, encode, reported
from tidegate.wire.reading import count, count_in
from tidegate.wire.sse import BYTE_ORDER_MARK, DONE_FRAME, BadStream, Cause, Frames, data_of
from tidegate.wire.surrogates import decoded
from tidegate.wire.whole import gather

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# In which order a message of the hub's has them: it thinks, then speaks and then calls.
_TURNS = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}
# What the hub has a place for.
_SAID = frozenset({"id", "type", "role", "model", "content"})
_NULLS = (None, msgspec.Raw(b"null"))
_NOTHING: Mapping[str, Any] = {}
_MALFORMED = "sent an event that cannot be read"


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: dict[str, Any] | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct, gc=False):
    id: str = ""
    model: str = ""
    type: str = ""
    content: list[_Block] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Usage | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_event = msgspec.json.Decoder(_Event).decode
_message = msgspec.json.Decoder(_Message).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Counted:
    """Usage as far as it was told: message_start has the prompt's, message_delta what has grown since. What was not
    told is unknown, and not zero."""

    __slots__ = ("_output", "_read", "_thought", "_unread", "_written")

    def __init__(self) -> None:
        self._unread: int | None = None
        self._read = self._written = 0
        self._output: int | None = None
        self._thought: int | None = None

    def begin(self, usage: _Usage | None) -> None:
        """What is told before there is an answer: of that, no more than what its first word took."""
        self.add(usage)
        self._output = None

    def add(self, usage: _Usage | None) -> None:
        if usage is None:
            return
        self._unread = _latest(usage.input_tokens, self._unread)
        self._read = _latest(usage.cache_read_input_tokens, self._read) or 0
        self._written = _latest(usage.cache_creation_input_tokens, self._written) or 0
        self._output = _latest(usage.output_tokens, self._output)
        if usage.output_tokens_details is not None:
            self._thought = count_in(usage.output_tokens_details, "thinking_tokens")

    def known(self, *, whole: bool) -> Usage | None:
        """What was told; None where that is nothing. Of an answer that is not `whole`, what its prompt took."""
        prompt, output = self._prompt or None, self._output if whole else None
        if prompt is None and output is None:
            return None
        return Usage(
            prompt_tokens=prompt,
            output_tokens=output,
            cached_tokens=None if prompt is None else self._read,
            cache_write_tokens=None if prompt is None else self._written,
            reasoning_tokens=None if output is None else self._thought,
        )

    @property
    def _prompt(self) -> int | None:
        return None if self._unread is None else self._unread + self._read + self._written

    def told(self) -> dict[str, Any] | None:
        """As the hub has it; None where a part of it was not told: clients add up what they find there."""
        prompt, output = self._prompt, self._output
        if prompt is None or output is None:
            return None
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "prompt_tokens_details": {"cached_tokens": self._read, "cache_write_tokens": self._written},
            "completion_tokens": output,
            "total_tokens": prompt + output,
        }
        if self._thought is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": self._thought}
        return usage


def _latest(told: int | None, known: int | None) -> int | None:
    counted = count(told)
    return known if counted is None else counted


def _reason(stop_reason: str | None) -> str | None:
    return None if stop_reason is None else _REASONS.get(stop_reason, "stop")


class EventStream:
    """See `Translate`. `created_s` is when the request was sent: this dialect's answers have no date."""

    __slots__ = (
        "_call", "_counted", "_created_s", "_ended", "_frames", "_given", "_head", "_out", "_stopped", "failure",
        "in_turn",
    )  # fmt: skip

    def __init__(self, created_s: int) -> None:
        self._frames = Frames()
        self._counted = _Counted()
        self._created_s = created_s
        self._head: dict[str, Any] | None = None
        self._call = -1
        self._given = ""  # the arguments that the last call began with, until a piece of them comes
        self._stopped = False  # the reason was told
        self._ended = False
        self._out: list[bytes] = []
        self.in_turn = False  # it is either way, chunk by chunk
        self.failure: BadStream | None = None

    @property
    def usage(self) -> Usage | None:
        """See `EngineStream`. How much has been written is told at the end alone."""
        return self._counted.known(whole=self._stopped)

    def feed(self, data: bytes) -> bytes:
        """See `Translate`."""
        for frame in self._frames.feed(data):
            if self.failure is not None or self._ended:
                break
            self._read(frame)
        if self._frames.oversized and self.failure is None and not self._ended:
            self._broke(BadStream(Cause.TOO_LARGE, "sent an event beyond any bound"))
        return self._flushed()

    def end(self) -> bytes:
        """See `Translate`. What has not ended by itself is cut, and is left so for the reader to find. Where the reason
        to stop has come, only the last word is missing, and the usage is told."""
        out = b""
        if not self._ended and self.failure is None and self._frames.pending.strip():
            out = self.feed(b"\n\n")
        if self._stopped and not self._ended and self.failure is None:
            self._tell()
        return out + self._flushed()

    def _flushed(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _read(self, frame: bytes) -> None:
        data = data_of(frame)
        if not data:
            self._out.append(frame)
            return
        try:
            self._take(decoded(_event, data), data)
        except BadStream as failure:
            self._broke(failure)
        except UNREADABLE:
            self._broke(BadStream(Cause.MALFORMED, _MALFORMED))

    def _broke(self, failure: BadStream) -> None:
        """Nothing more can be read: behind the reason to stop only the last word is missing."""
        if self._stopped:
            self._close()
        else:
            self.failure = failure.kept()

    def _close(self) -> None:
        self._tell()
        self._ended = True
        self._out.append(DONE_FRAME)

    def _take(self, event: _Event, data: bytes) -> None:
        match event.type:
            case "message_start" if event.message is not None:
                self._counted.begin(event.message.usage)
                self._head = _head(event.message, self._created_s, "chat.completion.chunk")
                self._chunk({"role": "assistant", "content": ""}, native=self._native(data, "message"))
            case "content_block_start" if event.content_block is not None:
                self._start(event.content_block)
            case "content_block_delta" if event.delta is not None:
                self._add(event.delta)
            case "content_block_stop" if self._given:
                call = {"index": self._call, "function": {"arguments": self._given}}
                self._given = ""
                self._chunk({"tool_calls": [call]})
            case "message_delta":
                self._counted.add(event.usage)
                if event.delta is not None and event.delta.stop_reason is not None:
                    delta, native = event.delta, self._native(data)
                    self._chunk({}, _reason(delta.stop_reason), delta.stop_sequence, native=native)
                    self._stopped = True
            case "message_stop":
                self._close()
            case "error":
                raise reported(data)
            case "ping":
                self._out.append(b": ping\n\n")
            case _:
                # The protocol adds kinds of events over time, and wants those unknown to be passed over.
                pass

    def _start(self, block: _Block) -> None:
        match block.type:
            case "text" if block.text:
                self._chunk({"content": block.text})
            case "thinking" if block.thinking:
                self._chunk({"reasoning_content": block.thinking})
            case "redacted_thinking":
                self._chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": block.data}]})
            case "tool_use":
                self._call += 1
                self._given = _arguments(block)
                function = {"name": block.name, "arguments": ""}
                call = {"index": self._call, "id": block.id, "type": "function", "function": function}
                self._chunk({"tool_calls": [call]})
            case "text" | "thinking":
                pass
            case _:
                raise BadStream(Cause.MALFORMED, "answered with a block that cannot be carried")

    def _add(self, delta: _Delta) -> None:
        match delta.type:
            case "text_delta":
                self._chunk({"content": delta.text})
            case "thinking_delta":
                self._chunk({"reasoning_content": delta.thinking})
            case "signature_delta":
                self._chunk({"reasoning_details": [{"type": "reasoning.text", "signature": delta.signature}]})
            case "input_json_delta" if delta.partial_json:
                self._given = ""
                call = {"index": max(0, self._call), "function": {"arguments": delta.partial_json}}
                self._chunk({"tool_calls": [call]})
            case _:
                pass

    def _native(self, data: bytes, part: str = "") -> Mapping[str, Any]:
        """What a client of this dialect is told of an event besides, or of a part of it."""
        if not self.in_turn:
            return _NOTHING
        event = decoded(_object, data)
        return _native(event[part] if part else event)

    def _chunk(
        self,
        delta: dict[str, Any],
        finish: str | None = None,
        sequence: str | None = None,
        *,
        native: Mapping[str, Any] = _NOTHING,
    ) -> None:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
        if sequence is not None:
            choice["stop_reason"] = sequence
        self._send({"choices": [choice], **native})

    def _tell(self) -> None:
        usage = self._counted.told()
        if usage is not None:
            self._send({"choices": [], "usage": usage})

    def _send(self, fields: dict[str, Any]) -> None:
        if self._head is None:
            raise BadStream(Cause.MALFORMED, "sent events before its message began")
        self._out.append(b"data: %b\n\n" % encode({**self._head, **fields}))


class WholeMessage:
    """See `Translate`. Gathers the body, and gives the hub's at the end."""

    __slots__ = ("_body", "_counted", "_created_s", "failure", "in_turn")

    def __init__(self, created_s: int) -> None:
        self._counted = _Counted()
        self._body = bytearray()
        self._created_s = created_s
        self.in_turn = False
        self.failure: BadStream | None = None

    @property
    def usage(self) -> Usage | None:
        """See `EngineStream`. Nothing before the end."""
        return self._counted.known(whole=True)

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
            body = bytes(self._body).removeprefix(BYTE_ORDER_MARK)
            return _whole(body, self._created_s, self._counted, in_turn=self.in_turn)
        except BadStream as failure:
            self.failure = failure.kept()
            return b""


def _whole(body: bytes, created_s: int, counted: _Counted, *, in_turn: bool) -> bytes:
    """A whole answer as the hub's; what it took is `counted`. Raises `BadStream` for what is no message."""
    try:
        message = decoded(_message, body)
        if message.type != "message":
            failure = reported(body)
            raise failure if failure.error is not None else BadStream(Cause.MALFORMED, "answered without a message")
    except UNREADABLE:
        raise BadStream(Cause.MALFORMED, "answered with what cannot be read") from None
    counted.add(message.usage)
    said = _said(message.content)
    if in_turn and len(pieces := _pieces(message.content)) > 1:
        said["tidegate_pieces"] = [_said(piece) for piece in pieces]
    choice: dict[str, Any] = {"index": 0, "message": said, "logprobs": None}
    choice["finish_reason"] = _reason(message.stop_reason) or "stop"
    if message.stop_sequence is not None:
        choice["stop_reason"] = message.stop_sequence
    native = _native(decoded(_fields, body)) if in_turn else _NOTHING
    answer = {**_head(message, created_s, "chat.completion"), "choices": [choice], **native}
    usage = counted.told()
    return encode(answer if usage is None else {**answer, "usage": usage})


def _head(message: _Message, created_s: int, kind: str) -> dict[str, Any]:
    return {"id": message.id, "object": kind, "created": created_s, "model": message.model}


def _native(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is told of a message, or at its end, beyond what the hub says in its own place."""
    return {NATIVE: {name: value for name, value in told.items() if name not in _SAID and value not in _NULLS}}


def _arguments(block: _Block) -> str:
    """What a tool is called with, as JSON. None are an empty object: an empty text is no JSON."""
    given = bytes(block.input).decode()
    return given if given.startswith("{") else "{}"


def _pieces(blocks: list[_Block]) -> list[list[_Block]]:
    """The blocks, cut where a message of the hub's would turn them round."""
    found: list[list[_Block]] = []
    before = len(_TURNS)
    for block in blocks:
        turn = _TURNS[block.type]
        if turn < before:
            found.append([])
        found[-1].append(block)
        before = turn
    return found


def _said(blocks: list[_Block]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant"}
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        match block.type:
            case "text":
                texts.append(block.text)
            case "thinking":
                thoughts.append(block.thinking)
                details.append({"type": "reasoning.text", "text": block.thinking, "signature": block.signature})
            case "redacted_thinking":
                details.append({"type": "reasoning.encrypted", "data": block.data})
            case "tool_use":
                function = {"name": block.name, "arguments": _arguments(block)}
                calls.append({"id": block.id, "type": "function", "function": function})
            case _:
                raise BadStream(Cause.MALFORMED, "answered with a block that cannot be carried")
    said["content"] = "".join(texts) if texts or not calls else None
    if any(thoughts):
        said["reasoning_content"] = "".join(thoughts)
    if any(detail.get("signature") or "data" in detail for detail in details):
        said["reasoning_details"] = details
    if calls:
        said["tool_calls"] = calls
    return said
