"""What chunks of streamed answers bring, and whole answers."""

from typing import Final

import msgspec

from tidegate.wire.chunks import Choice, Chunk, Told, Usage
from tidegate.wire.errors import UNREADABLE, ErrorInfo, find_error
from tidegate.wire.sse import BadStream, Cause
from tidegate.wire.surrogates import decoded

# The arguments of a tool are a text in a function in a call in a list; a hostile answer nests until the stack is full.
_LETTERS_DEPTH: Final = 4
# Of a call: some engines tell them with each of its pieces.
_LABELS: Final = ("id", "type", "name")
# Why an engine stopped, where it did not come to an end: OpenRouter and Mistral, SGLang and vLLM, DeepSeek.
_BROKEN_OFF: Final = frozenset({"error", "abort", "insufficient_system_resource"})
# More is a slip of the engine, and would not fit what sums it up.
_COUNT_MAX: Final = 1 << 40
# Several times what any model may think for one answer; a total that is beyond its parts by more counts something else.
_ALONE_MAX: Final = 1 << 20


def brings_content(chunk: Chunk) -> bool:
    """Whether any choice brings content."""
    for choice in chunk.choices or ():  # noqa: SIM110 - a generator takes three times as long, for each chunk
        if _has_content(choice):
            return True
    return False


def brings_reasoning(chunk: Chunk) -> bool:
    """Whether any choice brings a piece of reasoning."""
    for choice in chunk.choices or ():
        delta = choice.delta
        if delta is not None and (delta.reasoning_content or delta.reasoning):
            return True
    return False


def broken_off(choice: Choice) -> BadStream | None:
    """That its engine gave this choice up, and says so where the end of an answer stands; None where it did not."""
    if choice.failed:
        error_info = find_error({"error": choice.failed}) or ErrorInfo(message="the endpoint gave no message")
        return BadStream(Cause.ERROR_EVENT, f"reported an error: {error_info.message}", error_info)
    reason = choice.finish_reason
    if isinstance(reason, str) and reason in _BROKEN_OFF:
        return BadStream(Cause.ERROR_EVENT, f"broke off its answer ({reason})")
    return None


def letters(chunk: Chunk) -> int:
    """How long what all choices bring is: text, and arguments of tools."""
    return sum([_letters_of(choice) for choice in chunk.choices or ()])


def only_text(chunk: Chunk) -> str:
    """The text of a chunk that brings one piece of one choice's text or reasoning and nothing else that is counted;
    else empty.
    """
    choices = chunk.choices
    if chunk.told is not None or chunk.timings is not None or choices is None or len(choices) != 1:
        return ""
    choice = choices[0]
    if choice.finish_reason or choice.message is not None:
        return ""
    delta, told = choice.delta, [choice.text]
    if delta is not None:
        if delta.tool_calls or delta.refusal or delta.function_call or delta.audio or delta.images:
            return ""
        told += (delta.content, delta.reasoning_content, delta.reasoning)
    texts = [one for one in told if one]
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else ""


def usage_of(told: Told | None) -> Usage | None:
    """The engine's count so far; None where it does not tell."""
    if told is None:
        return None
    cached = _cached(told)
    written = _written(told)
    thought = _thought(told)
    prompt, made = count(told.prompt_tokens), count(told.completion_tokens)
    # Who tells of a part that is more than the whole has counted it beside that; and so has xAI, whose total tells.
    if made is not None and thought is not None:
        beside_made = count(told.total_tokens) == (prompt or 0) + made + thought
        if beside_made or thought > made:
            made += thought
    elif alone := _in_total_alone(told):
        thought = None if made is None else alone
        made = (made or 0) + alone
    beside = (cached or 0) + (written or 0)
    if prompt is not None and beside > prompt:
        prompt += beside
    return Usage(
        prompt_tokens=prompt,
        output_tokens=made,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=thought,
    )


def count(value: object) -> int | None:
    """A count of tokens, None where it is none."""
    if isinstance(value, bool):
        return None
    # Apart, since compiled code compares each as a number, but what may be either as an object.
    if isinstance(value, int):
        return value if 0 <= value <= _COUNT_MAX else None
    if isinstance(value, float):
        return int(value) if 0 <= value <= _COUNT_MAX else None
    return None


def count_in(details: object, name: str) -> int | None:
    """The count of that name among the details of a usage, None where there is none."""
    return count(details.get(name)) if isinstance(details, dict) else None


def _in_total_alone(told: Told) -> int:
    """Output tokens that the total alone tells of, as Google does of what was thought. 0 where thinking is told apart.

    Others serve Gemini as well, so it is anybody's: what a vendor adds to its total is in its bill.
    """
    prompt, total = count(told.prompt_tokens), count(told.total_tokens)
    if prompt is None or total is None or _thought(told) is not None:
        return 0
    beyond = total - prompt - (count(told.completion_tokens) or 0)
    # Who has counted what a cache had beside the prompt has it in the total as well, and it is no output.
    beside = (_cached(told) or 0) + (_written(told) or 0)
    if beside > prompt or beyond == beside:
        beyond -= beside
    return beyond if 0 < beyond <= _ALONE_MAX else 0


def _written(told: Told) -> int | None:
    """Prompt tokens that were written to a cache, None where that is not told; `cache_creation_input_tokens` is how
    DashScope says it among the details, and LiteLLM beside the counts."""
    details = told.prompt_tokens_details
    written = count_in(details, "cache_write_tokens")
    if written is None:
        written = count_in(details, "cache_creation_input_tokens")
    return count(told.cache_creation_input_tokens) if written is None else written


def _thought(told: Told) -> int | None:
    """Output tokens of reasoning, None where that is not told. Beside the counts, SGLang says 0 of any model."""
    thought = count_in(told.completion_tokens_details, "reasoning_tokens")
    return (count(told.reasoning_tokens) or None) if thought is None else thought


def _cached(told: Told) -> int | None:
    """Prompt tokens that came from a cache, None where that is not told."""
    cached = count_in(told.prompt_tokens_details, "cached_tokens")
    if cached is None:
        cached = count(told.prompt_cache_hit_tokens)
    return count(told.cached_tokens) if cached is None else cached


def _has_content(choice: Choice) -> bool:
    """Whether it brings anything that a user is waiting for. A role alone does not."""
    delta = choice.delta or choice.message
    if delta is None:
        return bool(choice.text)
    return bool(
        delta.content
        or delta.tool_calls
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.function_call
        or delta.audio
        or delta.images
    )


def _letters_of(choice: Choice) -> int:
    delta = choice.delta or choice.message
    if delta is None:
        return _letters(choice.text)
    told = (delta.content, delta.refusal, delta.function_call, delta.tool_calls)
    # Some tell the same reasoning under both of its names.
    thought = max(_letters(delta.reasoning_content), _letters(delta.reasoning))
    return sum([_letters(one) for one in told]) + thought


def _letters(value: object, depth: int = _LETTERS_DEPTH) -> int:
    if isinstance(value, str):
        return len(value)
    if not depth:
        return 0
    if isinstance(value, dict):
        return sum([_letters(part, depth - 1) for key, part in value.items() if key not in _LABELS])
    return sum([_letters(part, depth - 1) for part in value]) if isinstance(value, list) else 0


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
        chunk = decoded(_decode, data)
        if not data.isascii():
            # What nobody looks at is not decoded, and passes as it is.
            data.decode()
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
        return find_error(decoded(msgspec.json.decode, data))
    except UNREADABLE:
        return ErrorInfo(message="the endpoint gave no message")
