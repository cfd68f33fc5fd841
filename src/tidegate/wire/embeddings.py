"""`POST /v1/embeddings`: what a request asks for. It passes as it came, and is never streamed."""

from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.wire.asked import KNOBS_FIELD
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import EMBEDDING, NO_BYTES, Call
from tidegate.wire.shape import bad_field, read_body, read_fields
from tidegate.wire.tokens import text_bytes


class _Embeddings(msgspec.Struct):
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    stream: bool | None = None


_decoder = msgspec.json.Decoder(_Embeddings)
_ACCEPTED = {
    "model": "must be the name of a model, 1 to 256 characters; GET /v1/models lists them",
    "input": "must be a string, a non-empty array of strings, of tokens, or of arrays of tokens",
    "stream": "must be left out: embeddings are not streamed",
}


def parse(body: bytes) -> Call:
    """Read the body. Raises `BadRequest` and nothing else. Fields that are not looked at pass unseen."""
    fields, body = read_fields(body, tokens=True)
    asked = read_body(body, _decoder, _ACCEPTED)
    if asked.stream:
        raise BadRequest(f"`stream` {_ACCEPTED['stream']}.", param="stream")
    fields.pop("stream", None)
    prompt = memoryview(fields["input"])
    return Call(
        kind=EMBEDDING,
        model=asked.model,
        stream=False,
        include_usage=False,
        # There is no output: a bound of none is exact, where no bound would be taken for a usual answer.
        output_tokens_max=0,
        completions=1,
        prompts=_inputs(asked.input),
        needs=(EMBEDDING,),
        prompt=prompt,
        tools=NO_BYTES,
        text_bytes=text_bytes(prompt),
        messages=0,
        media=0,
        prompt_tokens=_tokens(asked.input),
        knobs=fields.pop(KNOBS_FIELD, None),
        fields=fields,
    )


def _inputs(given: str | list[str | int | list[int]]) -> int:
    return 1 if isinstance(given, str) or isinstance(given[0], int) else len(given)


def _tokens(given: str | list[str | int | list[int]]) -> int | None:
    """How many tokens were sent as such; None where it is text."""
    if isinstance(given, str):
        return None
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise bad_field("the items of the array are of different kinds", _ACCEPTED, "input")
    if kinds == {str}:
        return None
    return len(given) if kinds == {int} else sum(len(item) for item in given if isinstance(item, list))
