"""Requests for embeddings, and their answers."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from tests.wire.hub import texts
from tidegate.wire.chunks import EMBEDDING_BYTES_MAX, EMBEDDINGS_BYTES_MAX
from tidegate.wire.embeddings import parse
from tidegate.wire.errors import BadRequest
from tidegate.wire.intake import estimated_tokens
from tidegate.wire.openai import EMBEDDING, Call, upstream_body
from tidegate.wire.sse import Cause
from tidegate.wire.tokens import TokenRatio
from tidegate.wire.translate import Translated, reader
from tidegate.wire.whole import WholeReader


def asked(**fields: Any) -> Call:
    return parse(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def test_half_a_surrogate_pair_goes_on_as_the_sign_for_what_cannot_be_read() -> None:
    assert msgspec.json.decode(upstream_body(asked(input=["a\ud83d"]), model="m", stream=False))["input"] == ["a\ufffd"]


def refused(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(data)
    return caught.value


def read(body: bytes) -> WholeReader:
    made = reader(asked(), streamed=False, now_s=lambda: 0.0)
    assert isinstance(made, WholeReader)
    assert not isinstance(made, Translated)
    made.feed(body)
    made.end()
    return made


def test_it_needs_an_endpoint_that_embeds_and_makes_no_output() -> None:
    call = asked()
    assert (call.kind, call.needs) == (EMBEDDING, (EMBEDDING,))
    assert (call.stream, call.output_tokens_max, call.completions) == (False, 0, 1)


@given(texts | st.lists(texts, min_size=1), st.dictionaries(st.sampled_from(["encoding_format", "dimensions"]), texts))
def test_every_other_field_passes_as_it_came(given: Any, more: dict[str, Any]) -> None:
    sent = {"model": "m", "input": given, **more}
    body = upstream_body(parse(json.dumps(sent).encode()), model="theirs", stream=False)
    assert json.loads(body) == {**sent, "model": "theirs"}


@pytest.mark.parametrize(
    ("given", "tokens"), [([1, 2, 3], 3), ([[1, 2], [3]], 3), ("hi", None), (["hi", "you"], None), ([[]], 0)]
)
def test_tokens_that_were_sent_as_such_are_counted(given: Any, tokens: int | None) -> None:
    assert asked(input=given).prompt_tokens == tokens


def test_tokens_of_text_are_estimated() -> None:
    assert 90 <= estimated_tokens(asked(input=["word " * 40, "word " * 40]), TokenRatio()) <= 120


def test_our_own_settings_are_read_and_not_passed_on() -> None:
    call = asked(tidegate={"class": "batch"})
    assert call.knobs == msgspec.Raw(b'{"class": "batch"}')
    assert b"tidegate" not in upstream_body(call, model="m", stream=False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"model": ""}, "model"),
        ({"stream": True}, "stream"),
    ],
)
def test_what_is_no_request_for_embeddings_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    error = refused(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    assert error.param == param
    assert f"`{param}`" in error.message


inputs = st.recursive(st.none() | st.text() | st.integers(), st.lists)


@given(st.binary() | inputs.map(lambda value: json.dumps({"model": "m", "input": value}).encode()))
def test_no_body_breaks_it(data: bytes) -> None:
    with suppress(BadRequest):
        parse(data)


def test_an_answer_passes_as_it_came_and_tells_its_usage() -> None:
    body = {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    CreateEmbeddingResponse.model_validate(body)
    made = read(json.dumps(body).encode())
    assert made.done
    assert made.content
    assert json.loads(made.result()) == body
    assert made.usage is not None
    assert made.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    ("given", "bytes_max"),
    [("hi", 1000), (["hi"] * 3, 1500), ([[1, 2]] * 3, 1500), ([1, 2, 3], 1000), (["hi"] * 90, 2000)],
)
def test_the_more_is_to_be_embedded_the_more_may_come(
    given: Any, bytes_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = {"ANSWER_BYTES_MAX": 1000, "EMBEDDING_BYTES_MAX": 500, "EMBEDDINGS_BYTES_MAX": 2000}
    for name, bound in bounds.items():
        monkeypatch.setattr(f"tidegate.wire.whole.{name}", bound)
    made = reader(asked(input=given), streamed=False, now_s=lambda: 0.0)
    made.feed(b" " * bytes_max)
    assert made.failure is None
    made.feed(b" ")
    assert made.failure is not None
    assert made.failure.cause is Cause.TOO_LARGE


def test_as_many_of_the_largest_as_a_vendor_takes_are_within_the_bound() -> None:
    assert 2048 * 4096 * len("-0.012345678901234567,") < EMBEDDINGS_BYTES_MAX
    assert asked(input=["hi"] * 2048).prompts * EMBEDDING_BYTES_MAX == EMBEDDINGS_BYTES_MAX


@pytest.mark.parametrize("body", [b"{}", b'{"data":[]}', b'{"choices":[{"message":{"content":"a"}}]}', b"<html>"])
def test_what_holds_no_embedding_is_a_failure(body: bytes) -> None:
    made = read(body)
    assert made.failure is not None
    assert not made.done
