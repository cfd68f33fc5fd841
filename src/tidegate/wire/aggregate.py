"""A streamed answer put together for a client that does not stream."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tidegate.core.model import Capability
from tidegate.wire.chunks import ANSWER_BYTES_MAX, Usage
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.hub import Slots
from tidegate.wire.sse import BadStream, Cause, data_of
from tidegate.wire.stream import StreamReader
from tidegate.wire.surrogates import decoded

_OBJECTS = {Capability.CHAT: "chat.completion", Capability.COMPLETION: "text_completion"}
# Only streams have these: padding against traffic analysis, and the pieces that are put together here.
_STREAM_ONLY = frozenset({"object", "choices", "obfuscation"})

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_choices = msgspec.json.Decoder(list[dict[str, Any]] | None).decode


class Aggregator:
    """See `Reader`. Nothing passes while the answer comes; `result` is all of it, once `done`."""

    __slots__ = ("_bytes", "_choices", "_fields", "_kind", "_reader")

    def __init__(self, kind: Capability, *, completions: int = 1) -> None:
        self._kind = kind
        self._reader = StreamReader(include_usage=True, completions=completions)
        self._bytes = 0
        self._choices: dict[int, _Choice] = {}
        self._fields: dict[str, msgspec.Raw] = {}

    @property
    def content(self) -> bool:
        """See `Reader`."""
        return self._reader.content

    @property
    def finished(self) -> bool:
        """See `Reader`."""
        return self._reader.finished

    @property
    def done(self) -> bool:
        """See `Reader`."""
        return self._reader.done

    @property
    def done_frame(self) -> bytes:
        """Nothing: what is given whole ends by itself."""
        return b""

    @property
    def usage(self) -> Usage | None:
        """See `Reader`."""
        return self._reader.usage

    @property
    def output_chunks(self) -> int:
        """See `Reader`."""
        return self._reader.output_chunks

    @property
    def tokens_seen(self) -> int:
        """See `Reader`."""
        return self._reader.tokens_seen

    @property
    def reasoned(self) -> bool:
        """See `Reader`."""
        return self._reader.reasoned

    @property
    def failure(self) -> BadStream | None:
        """See `Reader`."""
        return self._reader.failure

    def feed(self, data: bytes) -> bytes:
        """See `Reader`."""
        self._bytes += len(data)
        if self._bytes > ANSWER_BYTES_MAX:
            self._reader.fail(BadStream(Cause.TOO_LARGE, "sent an answer beyond any bound"))
        self._add(self._reader.frames(data))
        return b""

    def end(self) -> bytes:
        """See `Reader`."""
        self._add(self._reader.end_frames())
        return b""

    def fail(self, failure: BadStream) -> None:
        """Give up an answer for a reason that only the caller can see."""
        self._reader.fail(failure)

    def result(self) -> bytes:
        """The answer as it would have come unstreamed."""
        assert self.done, "the answer is not complete"
        answer: dict[str, object] = {**self._fields, "object": _OBJECTS[self._kind]}
        is_chat = self._kind is Capability.CHAT
        answer["choices"] = [
            choice.chat(index) if is_chat else choice.completion(index)
            for index, choice in sorted(self._choices.items())
        ]
        # The order that people know from the unstreamed answer.
        ordered = {name: answer[name] for name in ("id", "object", "created", "model", "choices") if name in answer}
        return msgspec.json.encode({**ordered, **answer}, enc_hook=_Text.joined)

    def _add(self, frames: list[bytes]) -> None:
        for frame in frames:
            data = data_of(frame)
            if data:
                try:
                    self._merge(data)
                except UNREADABLE:
                    # What is skipped on the way to a streaming client has to be read here.
                    self._reader.fail(BadStream(Cause.MALFORMED, "sent a chunk that cannot be read"))
                    return

    def _merge(self, data: bytes) -> None:
        fields = decoded(_fields, data)
        for name, value in fields.items():
            if name not in _STREAM_ONLY and (value != _NULL or name not in self._fields):
                self._fields[name] = value
        for piece in _choices(fields.get("choices", _NULL)) or ():
            index = piece.pop("index", None)
            index = index if isinstance(index, int) else 0
            choice = self._choices.get(index)
            if choice is None:
                choice = self._choices[index] = _Choice()
            choice.add(piece)


_NULL = msgspec.Raw(b"null")

_NO_TEXTS: frozenset[str] = frozenset()
_DELTA_TEXTS = frozenset({"content", "reasoning_content", "reasoning", "refusal"})
_CALL_TEXTS = frozenset({"arguments"})
_AUDIO_TEXTS = frozenset({"data", "transcript"})
_CHOICE_TEXTS = frozenset({"text"})


class _Text:
    """A string that grows by pieces: adding them up one by one would take the square of their number."""

    __slots__ = ("pieces",)

    def __init__(self, piece: str) -> None:
        self.pieces = [piece]

    @staticmethod
    def joined(text: Any) -> str:
        assert isinstance(text, _Text)
        return "".join(text.pieces)


class _Choice:
    """One choice, as far as it has come."""

    __slots__ = ("_calls", "_extras", "_logprobs", "_message", "_parts", "_slots")

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._slots = Slots()
        self._calls: dict[int, dict[str, Any]] = {}
        self._parts: dict[str, dict[str, Any]] = {}
        self._logprobs: dict[str, Any] | None = None
        self._extras: dict[str, Any] = {}

    def add(self, piece: dict[str, Any]) -> None:
        """Add what one chunk says of it."""
        delta = piece.pop("delta", None)
        logprobs = piece.pop("logprobs", None)
        _merge(self._extras, piece, _CHOICE_TEXTS)
        if isinstance(logprobs, dict):
            self._logprobs = self._logprobs or {}
            _merge(self._logprobs, logprobs, _NO_TEXTS)
        if isinstance(delta, dict):
            self._add_delta(delta)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        calls = delta.pop("tool_calls", None)
        if isinstance(calls, list):
            for call in calls:
                if isinstance(call, dict):
                    self._add_call(call)
        for name, texts in (("function_call", _CALL_TEXTS), ("audio", _AUDIO_TEXTS)):
            part = delta.pop(name, None)
            if isinstance(part, dict):
                _merge(self._parts.setdefault(name, {}), part, texts)
        _merge(self._message, delta, _DELTA_TEXTS)

    def _add_call(self, call: dict[str, Any]) -> None:
        index, function = call.pop("index", None), call.pop("function", None)
        named = isinstance(function, dict) and bool(function.get("name"))
        at = self._slots.at(index if isinstance(index, int) else None, call.get("id"), named=named)
        known = self._calls.setdefault(at, {})
        _merge(known, call, _NO_TEXTS)
        if isinstance(function, dict):
            _merge(known.setdefault("function", {}), function, _CALL_TEXTS)

    def chat(self, index: int) -> dict[str, Any]:
        """The choice of a chat completion."""
        message = {"role": "assistant", **self._message, **self._parts}
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        content = message.get("content")
        if content is None or (isinstance(content, _Text) and not any(content.pieces)):
            # As unstreamed answers have it: null where the message is a call or a sound, else a string.
            message["content"] = None if self._calls or self._parts else ""
        choice = {"index": index, "message": message, "logprobs": self._logprobs, "finish_reason": None}
        return {**choice, **self._extras}

    def completion(self, index: int) -> dict[str, Any]:
        """The choice of a text completion."""
        return {"index": index, "text": "", "logprobs": self._logprobs, "finish_reason": None, **self._extras}


def _merge(into: dict[str, Any], piece: Mapping[str, Any], texts: frozenset[str]) -> None:
    """Add a piece: the named texts and every list grow, anything else is replaced; null and "" replace nothing."""
    for name, value in piece.items():
        known = into.get(name)
        if value is None or (value == "" and known is not None):
            into.setdefault(name, value)
        elif name in texts and isinstance(value, str):
            if isinstance(known, _Text):
                known.pieces.append(value)
            else:
                into[name] = _Text(value)
        elif isinstance(value, list) and isinstance(known, list):
            known.extend(value)
        else:
            into[name] = value
