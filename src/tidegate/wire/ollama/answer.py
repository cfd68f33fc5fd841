"""The hub's answer becomes Ollama's: lines of JSON, or one object."""

from collections.abc import Callable
from typing import Any

from tidegate.wire.chunks import ANSWER_BYTES_MAX
from tidegate.wire.hub import (
    NO_COUNTS,
    Answer,
    ChunkStream,
    Function,
    Said,
    ToolCall,
    arguments_of,
    encode,
    read_answer,
)
from tidegate.wire.ollama.dates import rfc3339
from tidegate.wire.openai import Call
from tidegate.wire.sse import BadStream, Cause

_NS = 1_000_000_000
# No answer takes a month; whoever tells of more has mixed something up.
_TOLD_MS_MAX = 30 * 86_400_000


class Form:
    """How one of the two requests is answered: in messages (`chat`) or in plain text (`generate`)."""

    __slots__ = ("_chat",)

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat

    def line(self, model: str, now_s: float, text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """What one line, or the whole answer, says."""
        head = {"model": model, "created_at": rfc3339(now_s)}
        more: dict[str, Any] = {"thinking": thought} if thought else {}
        if calls:
            more["tool_calls"] = calls
        if self._chat:
            return {**head, "message": {"role": "assistant", "content": text, **more}, "done": False}
        return {**head, "response": text, **more, "done": False}


def closing(
    answer: Answer, finish: str | None, started_s: float, first_s: float | None, now_s: float
) -> dict[str, Any]:
    """What the last line adds: why it ended, tokens, nanoseconds.

    The engine's own times where it tells them; else how long it took until the first word, and from there to the end.
    """
    counts = answer.usage or NO_COUNTS
    prompt_s = _seconds(answer.timings, "prompt_ms", (first_s or now_s) - started_s)
    output_s = _seconds(answer.timings, "predicted_ms", now_s - (first_s or started_s))
    return {
        "done": True,
        "done_reason": "length" if finish == "length" else "stop",
        "total_duration": _ns(now_s - started_s),
        "load_duration": 0,
        "prompt_eval_count": counts.input,
        "prompt_eval_duration": _ns(prompt_s),
        "eval_count": counts.output,
        "eval_duration": _ns(output_s),
    }


def _seconds(timings: object, name: str, measured_s: float) -> float:
    """How long something took: what llama.cpp tells, if that can be so."""
    told_ms = timings.get(name) if isinstance(timings, dict) else None
    if isinstance(told_ms, bool) or not isinstance(told_ms, int | float) or not 0 <= told_ms <= _TOLD_MS_MAX:
        return measured_s
    return told_ms / 1000


def _ns(seconds: float) -> int:
    return max(0, round(seconds * _NS))


def whole(body: bytes, call: Call, form: Form, started_s: float, now_s: float) -> bytes:
    """An answer given whole. Raises `BadStream` where it has no form in this dialect."""
    answer = read_answer(body)
    choice = answer.first
    said = choice.message if choice is not None else None
    if choice is None or said is None:
        raise BadStream(Cause.MALFORMED, "answered without a message")
    made = [_call(call, at, choice.finish_reason) for at, call in enumerate(said.tool_calls or ())]
    calls = [call for call in made if call is not None]
    line = form.line(answer.model or call.model, now_s, _text(said), said.thought, calls)
    return encode(line | closing(answer, choice.finish_reason, started_s, None, now_s))


def _text(said: Said) -> str:
    return said.text + (said.refusal or "")


def _call(call: ToolCall, at: int, finish: str | None) -> dict[str, Any] | None:
    """A call as this dialect has it; None where it was cut, for half a call cannot be said here."""
    function = call.function
    if function is None or not function.name:
        raise BadStream(Cause.MALFORMED, "called a tool without its name")
    arguments = arguments_of(call, finish)
    if arguments is None:
        return None
    named: dict[str, Any] = {"index": at, "name": function.name, "arguments": arguments}
    return {**({"id": call.id} if call.id else {}), "function": named}


class LineStream(ChunkStream):
    """See `ClientStream`. Lines of JSON; a call is said when it is complete, since its arguments are an object."""

    __slots__ = (
        "_answer", "_asked", "_bytes", "_finish", "_first_s", "_form", "_made", "_now_s", "_open", "_pieces",
        "_started_s",
    )  # fmt: skip

    def __init__(self, call: Call, form: Form, now_s: Callable[[], float]) -> None:
        super().__init__()
        self._asked = call
        self._form = form
        self._now_s = now_s
        self._started_s = now_s()
        self._first_s: float | None = None
        self._open: ToolCall | None = None
        self._pieces: list[str] = []  # of its arguments
        self._bytes = 0
        self._made = 0
        self._answer = Answer()
        self._finish: str | None = None

    def end(self) -> bytes:
        """See `Translate`."""
        try:
            self._close()
        except BadStream as failure:
            self.failure = failure.kept()
            return self._flushed()
        now_s = self._now_s()
        line = self._form.line(self._model, now_s, "", "", [])
        self._write(line | closing(self._answer, self._finish, self._started_s, self._first_s, now_s))
        return self._flushed()

    def error(self, message: str, kind: str, code: str | None) -> bytes:  # noqa: ARG002 - this dialect has no more words
        """See `ClientStream`."""
        return error_body(message) + b"\n"

    @property
    def _model(self) -> str:
        return self._answer.model or self._asked.model

    def _write(self, line: dict[str, Any]) -> None:
        self._out.append(encode(line) + b"\n")

    def _say(self, text: str, thought: str, calls: list[dict[str, Any]]) -> None:
        now_s = self._now_s()
        if self._first_s is None:
            self._first_s = now_s
        self._write(self._form.line(self._model, now_s, text, thought, calls))

    def _take(self, answer: Answer) -> None:
        known = self._answer
        known.model = known.model or answer.model
        known.told = answer.told or known.told
        known.timings = answer.timings or known.timings
        choice = answer.first
        if choice is None:
            return
        said = choice.delta
        if said is not None:
            if said.thought or _text(said):
                self._close()
                self._say(_text(said), said.thought, [])
            for call in said.tool_calls or ():
                self._piece(call)
        if choice.finish_reason:
            self._finish = choice.finish_reason
            # Nothing comes behind it but the usage.
            self._close()

    def _piece(self, call: ToolCall) -> None:
        slot = self._slots.of(call)
        piece = (call.function.arguments if call.function is not None else None) or ""
        if slot > self._slot:
            self._close()
            self._open, self._slot = call, slot
        elif piece and (slot < self._slot or self._open is None):
            raise BadStream(Cause.MALFORMED, "went back to a call that it had ended")
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > ANSWER_BYTES_MAX:
            raise BadStream(Cause.TOO_LARGE, "sent an answer beyond any bound")

    def _close(self) -> None:
        """Say the call that is open, if one is."""
        call, arguments = self._open, "".join(self._pieces)
        self._open = None
        self._pieces.clear()
        if call is not None:
            name = call.function.name if call.function is not None else None
            gathered = ToolCall(id=call.id, function=Function(name=name, arguments=arguments))
            made = _call(gathered, self._made, self._finish)
            if made is not None:
                self._made += 1
                self._say("", "", [made])


def error_body(message: str) -> bytes:
    """An error, whole or as a line."""
    return encode({"error": message})
