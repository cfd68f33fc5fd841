"""The rest of an answer that broke off in mid-stream: how it is asked for, and how it is joined to the beginning."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from tidegate.core.model import Capability
from tidegate.wire.call import Call
from tidegate.wire.errors import UNREADABLE
from tidegate.wire.hub import NATIVE
from tidegate.wire.reading import quick_chunk
from tidegate.wire.said import Said
from tidegate.wire.sse import BadStream, Cause, Frames, data_of
from tidegate.wire.surrogates import decoded

TRUE, FALSE = Raw(b"true"), Raw(b"false")
# Fields that give the answer a form, whose rest would begin with the form's beginning. vLLM's, SGLang's, llama.cpp's.
_FORMS = (
    "grammar",
    "json_schema",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "structured_outputs",
    "regex",
    "ebnf",
    "structural_tag",
)
_CHOICES = ("best_of", "use_beam_search", "echo", "suffix")
# Bounds on the tokens of the output, by the names that engines have for them.
_BOUNDS = ("max_tokens", "max_completion_tokens", "n_predict", "min_tokens")
_OF_CHOICE = frozenset({"auto", "none"})
_NOTHING = (b"null", b"false", b"0", b"1", b'""', b"[]", b"{}")


class Continuing(msgspec.Struct, frozen=True):
    """How an engine is asked to go on with the last message of a chat: by these `fields` besides.

    `trims`: blanks at that message's end may be cut off by the model's template, and come again.
    """

    fields: Mapping[str, Raw] = {}
    trims: bool = False


_PLAIN = Continuing()
_NULL = Raw(b"null")


def unresumable(call: Call) -> str:
    """Why the rest of its answer cannot be asked for, whatever comes of it; empty where it can."""
    try:
        for bound in _BOUNDS:
            _decoded(call.fields.get(bound, _NULL))
        return _unresumable(call)
    except UNREADABLE:  # in a field that nobody has looked at so far: engines may read it
        return "a field of its request cannot be read"


def _unresumable(call: Call) -> str:
    fields = call.fields
    if call.completions != 1 or _any(fields, _CHOICES):
        return "more than one text was asked for"
    if _any(fields, _FORMS) or _form(fields.get("response_format")) != "text":
        return "it has to have a form"
    if any(_chosen(fields.get(name)) not in _OF_CHOICE for name in ("tool_choice", "function_call")):
        return "it has to be a call of a tool"
    if call.kind is Capability.CHAT:
        last = _roles(fields["messages"])[-1]
        return "it goes on with a message of its own" if last.role == "assistant" else ""
    if call.kind is Capability.COMPLETION:
        return "" if memoryview(fields["prompt"])[0] == _QUOTE else "its prompt is not one text"
    return "it is not streamed"


def rest(call: Call, said: str, tokens: int, continuing: Continuing = _PLAIN) -> Call:
    """What asks for the rest of an answer, of which `said` is there, about so many tokens; see `kept`."""
    fields, said = dict(call.fields), kept(said, continuing)
    if call.kind is Capability.CHAT:
        name, message = "messages", msgspec.json.encode({"role": "assistant", "content": said})
        # To copy a long conversation as it stands takes a hundredth of reading it.
        fields[name] = Raw(bytes(memoryview(fields[name]))[:-1] + b"," + message + b"]")
        fields |= continuing.fields
    else:
        name = "prompt"
        fields[name] = Raw(msgspec.json.encode(_decoded(fields[name]) + said))
    for bound in _BOUNDS:
        value = _decoded(fields[bound]) if bound in fields else None
        if isinstance(value, int) and value > 0:
            fields[bound] = Raw(b"%d" % max(value - tokens, 0 if bound == "min_tokens" else 1))
    most = call.output_tokens_max
    return msgspec.structs.replace(
        call,
        fields=fields,
        prompt=memoryview(fields[name]),
        text_bytes=call.text_bytes + len(said.encode()),
        messages=call.messages + (call.kind is Capability.CHAT),
        output_tokens_max=None if most is None else max(most - tokens, 1),
        native=None,
    )


def kept(said: str, continuing: Continuing) -> str:
    """What of the beginning an engine is told: without blanks at its end, where nobody knows whether they are kept."""
    return said.rstrip() or said if continuing.trims else said


class _Spoken(msgspec.Struct):
    role: str = ""


_roles = msgspec.json.Decoder(list[_Spoken]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_QUOTE = ord('"')


class Seam:
    """Makes of the rest of an answer, chunk by chunk, more of the beginning: one stream of one name.

    What names it is taken from `head`, the beginning's first chunk. A role is not said again, nor the blanks `again`
    that an engine may have cut off and made anew. Usage is counted as of one answer, of which `tokens` were there.
    Where these were all that were asked for (`full`), one more was asked for, since none cannot be, and does not pass.
    What passes is gathered in `said`. `failure` says why there is no more to come.
    """

    __slots__ = ("_again", "_frames", "_full", "_named", "_said", "_tokens", "failure")

    def __init__(self, head: bytes, said: Said, *, tokens: int, again: str = "", full: bool = False) -> None:
        self._said = said
        try:
            named = decoded(_object, head)
        except UNREADABLE:  # in a field that nobody has looked at
            named = {}
        self._named: dict[str, Any] = {
            name: named[name] for name in ("id", "created", "model", "system_fingerprint") if name in named
        }
        self._tokens = tokens
        self._again = again
        self._full = full
        self._frames = Frames()
        self.failure: BadStream | None = None

    def feed(self, data: bytes) -> bytes:
        """Take whole frames; what of them is for the client."""
        if self.failure is not None:
            return b""
        return b"".join([self._joined(frame) for frame in self._frames.feed(data)])

    def _joined(self, frame: bytes) -> bytes:
        if self.failure is not None:
            return b""
        data = data_of(frame)
        if not data:
            return frame
        try:
            joined = self._renamed(decoded(_object, data))
        except UNREADABLE:
            self.failure = BadStream(Cause.MALFORMED, "sent a chunk that cannot be read")
            return b""
        if joined is None:
            return b""
        if (passing := quick_chunk(joined)) is not None:
            self._said.take(joined, passing)
        return b"data: " + joined + b"\n\n"

    def _renamed(self, chunk: dict[str, Any]) -> bytes | None:
        """The chunk as one of the beginning's; None where it has nothing for the client."""
        chunk |= self._named
        # What an engine says of the rest in its own dialect is not said of the whole.
        chunk.pop(NATIVE, None)
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if isinstance(usage, dict):
            self._count(usage)
        if isinstance(choices, list) and choices:
            passing = [choice for choice in choices if not isinstance(choice, dict) or self._goes_on(choice)]
            if not passing and usage is None:
                return None
            chunk["choices"] = passing
        return msgspec.json.encode(chunk)

    def _goes_on(self, choice: dict[str, Any]) -> bool:
        """Whether there is anything in it that is not there yet; what is there is taken out."""
        delta = choice.get("delta")
        place, name = (choice, "text") if not isinstance(delta, dict) else (delta, "content")
        if isinstance(delta, dict):
            delta.pop("role", None)
        if choice.get("finish_reason") and self._full:
            choice["finish_reason"] = "length"
        if isinstance(place.get(name), str) and place[name]:
            place[name] = "" if self._full else self._new(place[name])
            if not place[name] and delta is not None:
                del place[name]
        said = {key: value for key, value in place.items() if value} if place is delta else choice.get("text")
        return bool(said or choice.get("finish_reason"))

    def _new(self, text: str) -> str:
        """What was not said yet: blanks that come again are not, and what else comes ends them."""
        again = self._again
        if again.startswith(text):
            self._again = again[len(text) :]
            return ""
        self._again = ""
        return text.removeprefix(again)

    def _count(self, usage: dict[str, Any]) -> None:
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(output, int):
            return
        output = 0 if self._full else output
        usage["prompt_tokens"] = prompt = max(prompt - self._tokens, 0)
        usage["completion_tokens"] = output = output + self._tokens
        usage["total_tokens"] = prompt + output
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            # What was said before was computed there, and is no part of the prompt.
            details["cached_tokens"] = min(details["cached_tokens"], prompt)


def _decoded(value: Raw) -> Any:
    return msgspec.json.decode(value)


def _any(fields: Mapping[str, Raw], names: tuple[str, ...]) -> bool:
    """Whether any of these fields asks for something."""
    return any(name in fields and bytes(memoryview(fields[name])).strip() not in _NOTHING for name in names)


def _form(value: Raw | None) -> str:
    told = None if value is None else _decoded(value)
    return "text" if told is None else str(told.get("type"))


def _chosen(value: Raw | None) -> str:
    told = None if value is None else _decoded(value)
    return "auto" if told is None else told if isinstance(told, str) else "named"
