"""The page of OpenAI's own fields: every one that the vendor's SDK knows, and what becomes of it."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import BaseModel

Tree = Mapping[str, Any]
"""The fields of a record by name, with their types."""

REQUEST = (CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming)
WHOLE, CHUNK = ChatCompletion, ChatCompletionChunk

CHANGED = {
    "model": "becomes the endpoint's own name for the model",
    "stream": "says how the endpoint shall answer: `llamacpp` always streams, and is gathered, but for `tools` with "
    "`logprobs`",
    "stream_options": "`include_usage` is asked of every stream; an answer that is not streamed has no options",
}
"""Request fields whose value at the endpoint may be another one."""

_NEEDS: dict[str, str] = {
    "tools": "tools",
    "functions": "tools",
    "response_format.json_schema": "json_schema",
    "logprobs": "logprobs",
    "messages[].content[].image_url": "vision",
    "messages[].content[].input_audio": "audio",
}
_REQUEST_NOTES: dict[str, str] = {
    **CHANGED,
    **{path: f"goes to endpoints with the capability `{need}`" for path, need in _NEEDS.items()},
    "max_tokens": "a whole number from 1; also what the plan expects at most; `max_completion_tokens` at OpenAI's own "
    "addresses, regional ones too, and at Azure, but for Mistral's models there",
    "max_completion_tokens": "likewise, and goes before `max_tokens`, which is then sent with the same value, or "
    "not at all where it would get the newer name; `ollama`, `llamacpp`, DeepSeek and Mistral, at their own addresses, "
    "get it by that name",
    "prompt_cache_key": "left out at the addresses of Groq, Cerebras, NVIDIA and Google, which refuse it",
    "reasoning_effort": "`ollama` refuses `minimal` and `xhigh`, and gets `low` and `high`",
    "tool_choice": "`llamacpp` passes over the name of a function: it gets that one tool alone, with `required`. "
    "`ollama` passes over all of it: where it is `none`, no `tools` are sent, and of one that is named that one alone; "
    "whether it is called is left to the model",
    "n": "a whole number from 1 to 128; another is a 400",
    "messages": "at least one; also what the size of the prompt is estimated from",
}
_ANSWER_NOTES: dict[str, str] = {
    "usage": "streamed: in a chunk of its own it goes to clients that asked for it",
    "obfuscation": "streamed alone; gathered answers have none",
    "choices[].delta.tool_calls[].index": "where an answer is gathered, the place in the list",
}

_INTRODUCTION = """# OpenAI's fields

Every field of a chat completion that the vendor's SDK (openai-python {version}) knows, request and answer, and what
becomes of it between a client and an endpoint that both speak this dialect: `openai`, `vllm`, `sglang`, `ollama` and
`llamacpp`. What an `anthropic` or `openai-responses` endpoint gets is [another page](dialects.md).

`passes`: it arrives byte for byte as it was sent, unless the row says otherwise; half of a surrogate pair, alone, is
U+FFFD in a request. No field is refused, but for values out of the bounds that a row gives; what an endpoint must be
able to do is a 400 where none can. Fields that the SDK does not know pass too, but for a name that means something here
and is written in another case (`Model`), and what a message of the assistant has as `reasoning_content`: `vllm` and
`ollama` get it as `reasoning` as well, which is what they read, and Groq and Mistral, which refuse it, do without. An
answer that is gathered from a stream has the fields of the stream's chunks, in the places of a whole one. The tests
send every row through the gateway.
"""


def fields(kind: Any) -> Tree | None:
    """The fields of a record of the SDK's; None where it is no record."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    # `is_typeddict` does not know those of typing_extensions.
    return get_type_hints(kind) if hasattr(kind, "__required_keys__") else None


def alternatives(kind: Any) -> list[Any]:
    """The types that a type stands for, none of them a union or wrapped."""
    origin = get_origin(kind)
    if origin is Annotated:
        return alternatives(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [one for part in get_args(kind) for one in alternatives(part)]
    return [kind]


def items(kind: Any) -> Any | None:
    """What a list is of; None where it is no list."""
    origin = get_origin(kind)
    is_list = isinstance(origin, type) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
    return get_args(kind)[0] if is_list else None


def paths(kind: Any, place: str = "") -> Iterator[str]:
    """Every field below a type, by its path; `[]` is each item of a list. What a mapping holds is the caller's own."""
    for one in alternatives(kind):
        if (inside := items(one)) is not None:
            yield from paths(inside, f"{place}[]")
            continue
        for name, below in (fields(one) or {}).items():
            path = f"{place}.{name}" if place else name
            yield path
            yield from paths(below, path)


def request_paths() -> list[str]:
    """The fields of a request, each once."""
    return list(dict.fromkeys(path for kind in REQUEST for path in paths(kind)))


def answer_paths() -> dict[str, tuple[bool, bool]]:
    """The fields of an answer: whether it has them whole, and streamed."""
    whole, chunk = list(paths(WHOLE)), list(paths(CHUNK))
    return {path: (path in whole, path in chunk) for path in dict.fromkeys(whole + chunk)}


def openai_fields() -> str:
    """The page."""
    request = [f"| `{path}` | passes | {_REQUEST_NOTES.get(path, '')} |" for path in request_paths()]
    where = {(True, True): "both", (True, False): "whole", (False, True): "streamed"}
    answer = [
        f"| `{path}` | {where[in_which]} | passes | {_ANSWER_NOTES.get(path, '')} |"
        for path, in_which in answer_paths().items()
    ]
    return "\n".join(
        [
            _INTRODUCTION.format(version=version("openai")),
            "## Request\n",
            "| field | fate | |",
            "| --- | --- | --- |",
            *request,
            "\n## Answer\n",
            "| field | in which | fate | |",
            "| --- | --- | --- | --- |",
            *answer,
            "",
        ]
    )
