"""The hub's answers, read whole: what a translator to another dialect must see of a chunk.

Between all dialects stands OpenAI's chat completion. Requests become its body, answers its chunks. Four words are not
OpenAI's own: `reasoning_content` is what llama.cpp,
vLLM and DeepSeek call a model's thinking, `reasoning_details` carries its signatures as OpenRouter does, and a choice's
`stop_reason` is the stop sequence that was met, as vLLM tells it, or `matched_stop`, as SGLang does. Mistral's content
may be parts, thinking among them. Three more, `tidegate_pieces`, `tidegate_item` and `tidegate_native`, pass between
translators alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, structs

from tidegate.core.model import Capability
from tidegate.wire.chunks import Told
from tidegate.wire.errors import UNREADABLE, find_error
from tidegate.wire.openai import Call, Native, parse
from tidegate.wire.reading import usage_of
from tidegate.wire.sse import DONE, BadStream, Cause, Frames, data_of
from tidegate.wire.surrogates import decoded, replace_lone_surrogates

# See `Answer.native`.
NATIVE = "tidegate_native"
# Calls of one answer that are kept apart; models make a handful.
CALLS_MAX = 1024


class Function(msgspec.Struct, gc=False):
    """What a call calls. Arguments are JSON, in pieces while it streams."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    """A call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


# Whose a thought is, by OpenRouter's words for it: who seals one reads it alone, and refuses another's.
CLAUDE, RESPONSES = "anthropic-claude-v1", "openai-responses-v1"


class Detail(msgspec.Struct, gc=False):
    """What belongs to a thought besides its text: a signature, a piece of a summary, or the whole of it sealed.

    `format` says whose it is, `id` which of that maker's; pieces of one `index` are of one part. What is told of these
    in another type is not told: it is no reason to lose an answer.
    """

    type: str = ""
    text: str | None = None
    signature: str | None = None
    data: str | None = None
    told_summary: object = msgspec.field(name="summary", default=None)
    told_id: object = msgspec.field(name="id", default=None)
    told_format: object = msgspec.field(name="format", default=None)
    told_index: object = msgspec.field(name="index", default=None)

    @property
    def summary(self) -> str | None:
        """A piece of the summary."""
        return _text(self.told_summary)

    @property
    def id(self) -> str | None:
        """What its maker calls the thought."""
        return _text(self.told_id)

    @property
    def format(self) -> str | None:
        """Whose it is."""
        return _text(self.told_format)

    @property
    def index(self) -> int | None:
        """Of which part it is a piece."""
        return self.told_index if isinstance(self.told_index, int) else None

    def may_be(self, maker: str) -> bool:
        """Whether it may be of this maker; most do not say whose theirs are."""
        return self.format in (None, maker)


class Item(msgspec.Struct, gc=False):
    """What an engine calls a part of its answer that its dialect has as an item of its own. `phase` is what an agent is
    to take a message for."""

    type: str = ""
    id: str | None = None
    phase: str | None = None


class Part(msgspec.Struct, gc=False):
    """A part of a content: its text, or the parts that it thought. Others, such as references, say nothing here."""

    text: str | None = None
    thinking: list["Part"] | None = None


class Said(msgspec.Struct, gc=False):
    """A message, or what a chunk adds to one.

    `pieces`: all that a whole message says, in turn, where that is not first what it thinks, then what it says and then
    what it calls. `item` names what begins with it. No client is told, since none of the hub's would know what it is.
    """

    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    pieces: list["Said"] | None = msgspec.field(name="tidegate_pieces", default=None)
    item: Item | None = msgspec.field(name="tidegate_item", default=None)

    @property
    def text(self) -> str:
        """What was said, without the thinking."""
        content = self.content
        return _joined(content) if isinstance(content, list) else content or ""

    @property
    def thought(self) -> str:
        """The thinking, under either of its names or from the parts of the content."""
        told = self.reasoning_content or self.reasoning or ""
        if told or not isinstance(self.content, list):
            return told
        return "".join([_joined(part.thinking or []) for part in self.content])


def _joined(parts: list[Part]) -> str:
    return "".join([part.text or "" for part in parts])


class Choice(msgspec.Struct, gc=False):
    """One choice. `stop_reason` and `matched_stop` may be a token's number as well, which tells a client nothing."""

    index: int | None = None
    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    stop_reason: object = None
    matched_stop: object = None

    @property
    def sequence(self) -> str | None:
        """The stop sequence that was met, None where the engine tells of none."""
        for told in (self.stop_reason, self.matched_stop):
            if isinstance(told, str):
                return told
        return None


class Counts(msgspec.Struct, frozen=True, gc=False):
    """An answer's usage as clients are told it: what `Usage` has of it, and 0 for what the engine did not say, since
    the dialects have no word for that. Cached and written tokens are part of the input, reasoning of the output.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    written: int = 0
    reasoning: int = 0


NO_COUNTS = Counts()


class Answer(msgspec.Struct, gc=False):
    """A chunk, or a whole answer.

    `native`: what its engine says besides in a dialect of its own, for clients of the same.
    """

    id: str | None = None
    model: str | None = None
    created: float | None = None
    choices: list[Choice] | None = None
    told: Told | None = msgspec.field(name="usage", default=None)
    timings: object = None  # llama.cpp's own measurements
    native: dict[str, Any] | None = msgspec.field(name=NATIVE, default=None)

    @property
    def usage(self) -> Counts | None:
        """What was counted, None where nothing is told of it."""
        usage = usage_of(self.told)
        if usage is None:
            return None
        # A part of what is not known tells nothing.
        prompt, output = usage.prompt_tokens is not None, usage.output_tokens is not None
        return Counts(
            input=usage.prompt_tokens or 0,
            output=usage.output_tokens or 0,
            cached=(prompt and usage.cached_tokens) or 0,
            written=(prompt and usage.cache_write_tokens) or 0,
            reasoning=(output and usage.reasoning_tokens) or 0,
        )

    @property
    def first(self) -> Choice | None:
        """The choice that the other dialects have: they know of one alone."""
        for choice in self.choices or ():
            if not choice.index:
                return choice
        return None


_UNCARRIED = "sent a chunk that cannot be put into the client's dialect"

_answer = msgspec.json.Decoder(Answer).decode


def read_answer(data: bytes) -> Answer:
    """A chunk or a whole answer. Raises `BadStream` where a field that counts is not what OpenAI's would be."""
    try:
        return decoded(_answer, data)
    except UNREADABLE:
        raise BadStream(Cause.MALFORMED, _UNCARRIED) from None


class Chunks:
    """A stream of the hub's, chunk by chunk; None stands for a keep-alive. Its memory is that of `Frames`."""

    __slots__ = ("_frames",)

    def __init__(self) -> None:
        self._frames = Frames()

    def feed(self, data: bytes) -> list[bytes | None]:
        """What `data` completes, still to be read: one that cannot be must not take its forerunners along."""
        found: list[bytes | None] = []
        for frame in self._frames.feed(data):
            inside = data_of(frame)
            if inside != DONE:
                found.append(inside or None)
        return found


class ChunkStream(ABC):
    """What translators towards clients have in common: see `ClientStream`. `ping` is a keep-alive, if there is one."""

    __slots__ = ("_chunks", "_out", "_slot", "_slots", "failure")

    ping = b""

    def __init__(self) -> None:
        self._chunks = Chunks()
        self._slots = Slots()
        self._slot = -1  # the last call that began
        self._out: list[bytes] = []
        self.failure: BadStream | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Translate`."""
        for inside in self._chunks.feed(data):
            if self.failure is not None:
                break
            if inside is None:
                self._out.append(self.ping)
                continue
            try:
                self._take(read_answer(inside))
            except BadStream as failure:
                self.failure = failure.kept()
        return self._flushed()

    @abstractmethod
    def _take(self, answer: Answer) -> None:
        """Say what a chunk tells. Raises `BadStream` for what has no form here."""

    def _flushed(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out


class Slots:
    """Tells the calls of a streamed answer apart, also where an engine gives none an index, or all the same."""

    __slots__ = ("_at", "_count", "_ids")

    def __init__(self) -> None:
        self._count = 0
        # Which call the pieces of an index are of by now, where that is another one; and the id of each.
        self._at: dict[int, int] = {}
        self._ids: dict[int, object] = {}

    def of(self, call: ToolCall) -> int:
        """Which call a piece is of. Raises `BadStream` for one beyond their bound."""
        at = self.at(call.index, call.id, named=call.function is not None and bool(call.function.name))
        if not 0 <= at < CALLS_MAX:
            raise BadStream(Cause.MALFORMED, _UNCARRIED)
        return at

    def at(self, index: int | None, id: object, *, named: bool) -> int:
        """The same, whatever an engine takes for an id. Without an index an id begins a call, and its absence goes on
        with the last, as its repetition without a name does; with one, a name and an id that is not that of the call
        before."""
        if index is None:
            last = max(0, self._count - 1)
            goes_on = not id or (not named and self._ids.get(last) == id)
            at = last if goes_on else self._count
        else:
            at = self._at.get(index, index)
            if id and named and self._ids.get(at, id) != id:
                at = self._at[index] = self._count
        if id:
            self._ids.setdefault(at, id)
        self._count = max(self._count, at + 1)
        return at


def reported(data: bytes) -> BadStream:
    """The error that an engine tells in its answer."""
    error = find_error(decoded(msgspec.json.decode, data))
    said = "an error" if error is None else f"an error: {error.message}"
    return BadStream(Cause.ERROR_EVENT, f"reported {said}", error)


def _text(told: object) -> str | None:
    return told if isinstance(told, str) else None


def call_of(fields: Mapping[str, Any], native: Native | None = None) -> Call:
    """The call for a chat body that was made from another dialect's. Raises `BadRequest`."""
    return structs.replace(parse(msgspec.json.encode(fields), Capability.CHAT), native=native)


def arguments_of(call: ToolCall, finish: str | None) -> Raw | None:
    """A call's arguments as the JSON object that other dialects want; none at all are no arguments.

    None where the answer came to its bound in the midst of them, as `finish` says. Raises `BadStream` where the model
    wrote something else: handing it on as text would hide that.
    """
    told = (call.function.arguments if call.function else None) or ""
    if not told.strip():
        return Raw(b"{}")
    said = replace_lone_surrogates(told.encode())
    try:
        msgspec.json.decode(said, type=dict[str, Raw])
    except UNREADABLE:
        if finish == "length":
            return None
        raise BadStream(Cause.NO_FORM, "called a tool with arguments that are no JSON object") from None
    # A dialect that is told line by line has each answer in one.
    return in_one_line(said)


def in_one_line(value: bytes) -> Raw:
    """The same JSON without line ends, which stand between its tokens alone."""
    return Raw(value.replace(b"\r", b"").replace(b"\n", b""))


def text_or_parts(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Content of these parts: one string where they are text alone, with a blank line between them.

    Several vendors take parts of users alone, or of nobody, and Ollama makes each a message of its own.
    """
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "\n\n".join(texts) if len(texts) == len(parts) else parts


def encode(value: object) -> bytes:
    """JSON, with members in the order in which they were put."""
    return msgspec.json.encode(value)
