"""One chunk of a streamed answer, or a whole one, as far as the gateway looks into it: `reading` does so."""

import msgspec

from tidegate.core.model import Record

# What an answer given whole may have: as much as a request may bring, for it is held in memory until it is complete.
ANSWER_BYTES_MAX = 32 * 1024 * 1024
# Embeddings have more, each up to so much: some have 4,096 numbers, written in up to 25 letters. And all together.
EMBEDDING_BYTES_MAX = 128 * 1024
EMBEDDINGS_BYTES_MAX = 256 * 1024 * 1024


class Usage(Record, frozen=True, kw_only=True):
    """Tokens as the engine counted them; None where it did not say. Those read from and written to a cache are part of
    the prompt's, those of reasoning part of the output's.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a message. Only whether there is anything matters here, so every type will do."""

    content: object = None
    reasoning_content: object = None
    reasoning: object = None
    tool_calls: object = None
    refusal: object = None
    function_call: object = None
    audio: object = None
    images: object = None  # OpenRouter's


class Choice(msgspec.Struct, gc=False):
    """One of a chunk's choices: `delta` in chat, `text` in completions, `message` in an answer given whole."""

    index: int | None = None
    delta: Delta | None = None
    text: object = None
    message: Delta | None = None
    finish_reason: object = None
    failed: object = msgspec.field(name="error", default=None)  # OpenRouter's


class Told(msgspec.Struct, gc=False):
    """Usage as engines tell it: counts and their details, or whatever they take for one."""

    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    prompt_tokens_details: object = None
    completion_tokens_details: object = None
    prompt_cache_hit_tokens: object = None  # DeepSeek
    cached_tokens: object = None  # Moonshot
    cache_creation_input_tokens: object = None  # LiteLLM
    reasoning_tokens: object = None  # SGLang, Perplexity


class Chunk(msgspec.Struct, gc=False):
    """A chunk, or a whole answer. Unknown fields are skipped, not checked."""

    choices: list[Choice] | None = None
    data: list[msgspec.Raw] | None = None  # embeddings, which have no choices
    told: Told | None = msgspec.field(name="usage", default=None)
    timings: object = None  # llama.cpp's own measurements
    failed: object = msgspec.field(name="error", default=None)
