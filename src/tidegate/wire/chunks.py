"""One chunk of a streamed answer, as far as the gateway looks into it."""

import msgspec

from tidegate.core.model import Record
from tidegate.wire.errors import UNREADABLE, ErrorInfo, find_error
from tidegate.wire.sse import BadStream, Cause

# What an answer given whole may have: as much as a request may bring, for it is held in memory until it is complete.
ANSWER_BYTES_MAX = 32 * 1024 * 1024


class Usage(Record, frozen=True, kw_only=True):
    """Tokens as the engine counted them; None where it did not say. Those read from and written to a cache are part of
    the prompt's, those of reasoning part of the output's.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Timings(Record, frozen=True, kw_only=True):
    """llama.cpp's own measurements, under its own names: `_n` counts tokens, `_ms` is how long they took."""

    cache_n: float | None = None
    prompt_n: float | None = None
    prompt_ms: float | None = None
    predicted_n: float | None = None
    predicted_ms: float | None = None


# The arguments of a tool are a text in a function in a call in a list; a hostile answer nests until the stack is full.
_LETTERS_DEPTH = 4


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a message. Only whether there is anything matters here, so every type will do."""

    content: object = None
    reasoning_content: object = None
    reasoning: object = None
    tool_calls: object = None
    refusal: object = None
    function_call: object = None
    audio: object = None


class Choice(msgspec.Struct, gc=False):
    """One of a chunk's choices: `delta` in chat, `text` in completions, `message` in an answer given whole."""

    index: int | None = None
    delta: Delta | None = None
    text: object = None
    message: Delta | None = None
    finish_reason: object = None

    @property
    def has_content(self) -> bool:
        """Whether it brings anything that a user is waiting for. A role alone does not."""
        delta = self.delta or self.message
        if delta is None:
            return bool(self.text)
        return bool(
            delta.content
            or delta.tool_calls
            or delta.reasoning_content
            or delta.reasoning
            or delta.refusal
            or delta.function_call
            or delta.audio
        )

    @property
    def letters(self) -> int:
        """How long what it brings is: text, and arguments of tools."""
        delta = self.delta or self.message
        if delta is None:
            return _letters(self.text)
        told = (delta.content, delta.reasoning_content, delta.reasoning, delta.refusal, delta.function_call)
        return sum(map(_letters, told)) + _letters(delta.tool_calls)


def _letters(value: object, depth: int = _LETTERS_DEPTH) -> int:
    if isinstance(value, str):
        return len(value)
    if not depth:
        return 0
    if isinstance(value, dict):
        return sum([_letters(part, depth - 1) for part in value.values()])
    return sum([_letters(part, depth - 1) for part in value]) if isinstance(value, list) else 0


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: object = None
    cache_write_tokens: object = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: object = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: object = None
    completion_tokens: object = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: object = None  # DeepSeek
    cached_tokens: object = None  # Moonshot


class Chunk(msgspec.Struct, gc=False):
    """A chunk, or a whole answer. Unknown fields are skipped, not checked."""

    choices: list[Choice] | None = None
    data: list[msgspec.Raw] | None = None  # embeddings, which have no choices
    told: _Usage | None = msgspec.field(name="usage", default=None)
    timings: Timings | None = None
    failed: object = msgspec.field(name="error", default=None)

    @property
    def content(self) -> bool:
        """Whether any choice brings content."""
        for choice in self.choices or ():  # noqa: SIM110 - a generator takes three times as long, for each chunk
            if choice.has_content:
                return True
        return False

    @property
    def letters(self) -> int:
        """How long what all choices bring is."""
        return sum(choice.letters for choice in self.choices or ())

    @property
    def finish_reason(self) -> bool:
        """Whether any choice says that it is complete."""
        return any(choice.finish_reason for choice in self.choices or ())

    @property
    def usage(self) -> Usage | None:
        """The engine's count so far."""
        told = self.told
        if told is None:
            return None
        details, output = told.prompt_tokens_details, told.completion_tokens_details
        cached = _count(details.cached_tokens) if details else None
        if cached is None:
            cached = _count(told.prompt_cache_hit_tokens)
        if cached is None:
            cached = _count(told.cached_tokens)
        return Usage(
            prompt_tokens=_count(told.prompt_tokens),
            output_tokens=_count(told.completion_tokens),
            cached_tokens=cached,
            cache_write_tokens=_count(details.cache_write_tokens) if details else None,
            reasoning_tokens=_count(output.reasoning_tokens) if output else None,
        )


# More is a slip of the engine, and would not fit what sums it up.
_COUNT_MAX = 1 << 40


def _count(value: object) -> int | None:
    """A count of tokens, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _COUNT_MAX:
        return None
    return int(value)


_decode = msgspec.json.Decoder(Chunk).decode


def quick_chunk(data: bytes) -> Chunk | None:
    """Decode one chunk; None for what is none. It is not looked at for errors."""
    try:
        return _decode(data)
    except UNREADABLE:
        return None


def read_chunk(data: bytes) -> Chunk:
    """Decode one chunk. Raises `BadStream` for what is no chunk, and for an error event."""
    try:
        chunk = _decode(data)
    except UNREADABLE:
        raise BadStream(Cause.MALFORMED, "sent a chunk that cannot be read") from None
    if chunk.failed or (not chunk.choices and chunk.told is None):
        error_info = _error_in(data)
        if error_info is not None:
            raise BadStream(Cause.ERROR_EVENT, f"reported an error: {error_info.message}", error_info)
    return chunk


def _error_in(data: bytes) -> ErrorInfo | None:
    """The error that a chunk without choices may be: vLLM's has no key `error`."""
    try:
        return find_error(msgspec.json.decode(data))
    except UNREADABLE:
        return ErrorInfo(message="the endpoint gave no message")
