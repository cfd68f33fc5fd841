"""A body of very many small pieces is refused before it is taken apart, and no body is for what its strings hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.model import Capability
from tidegate.gateway.routes import ROUTES
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import parse
from tidegate.wire.pieces import MARKS_MAX, has_too_many

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
TEXTS = st.text(st.sampled_from('a,[{"\\}]\n\u00e9'), max_size=20)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def many(item: Any, count: int = MARKS_MAX + 1) -> list[Any]:
    return [item] * count


def messages(item: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 1, "messages": item}


def content(item: Any, role: str = "user") -> dict[str, Any]:
    return messages([{"role": role, "content": item}])


def marks(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(0, len(value) - 1) + sum(map(marks, value))
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(marks(name) + marks(held) for name, held in value.items())
    return 2 * isinstance(value, str)


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, messages(many({"role": ""}))),
        (CHAT, content(many({}))),
        (CHAT, content(many(""))),
        (CHAT, messages(many({"role": "", "content": [{}]}))),
        (CHAT, {**content("a"), "tools": many(0)}),
        (CHAT, {**content("a"), **{str(n): 0 for n in range(MARKS_MAX)}}),
        (COMPLETION, {"model": "m", "prompt": many("")}),
        (COMPLETION, {"model": "m", "prompt": many([0])}),
        ("/v1/embeddings", {"model": "m", "input": many("")}),
        ("/v1/embeddings", {"model": "m", "input": many([])}),
        ("/v1/messages", messages(many(0))),
        ("/v1/messages", content(many({"type": "text", "text": ""}))),
        ("/v1/responses", {"model": "m", "input": many({})}),
        ("/api/chat", {**content("a"), "tools": many(0)}),
        ("/api/generate", {"model": "m", "prompt": "a", "images": many("Qk")}),
    ],
)
def test_a_body_of_too_many_pieces_is_refused_and_told_how_many_there_may_be(path: str, body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        ROUTES[path].parse(json.dumps(body).encode(), {})
    assert caught.value.status == 400
    assert "more than 500,000 quotes, opening brackets and commas" in caught.value.message


@pytest.mark.parametrize("tokens", [MARKS_MAX + 1, 1_000_000])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_prompt_of_very_many_tokens_is_none_of_many_pieces(tokens: int, *, wrapped: bool) -> None:
    prompt: list[Any] = many(12345, tokens)
    body = json.dumps({"model": "m", "prompt": [prompt] if wrapped else prompt}).encode()
    assert parse(body, Capability.COMPLETION).prompt_tokens == tokens


@pytest.mark.parametrize("text", ["[{,}], ", '{"a": ["b", "c"]},\n', 'a "b" '])
def test_a_long_conversation_about_code_is_none_of_many_pieces(text: str) -> None:
    said = [{"role": "user", "content": text * 400} for _ in range(1_000)]
    assert parse(json.dumps(messages(said)).encode(), Capability.CHAT).messages == 1_000


@pytest.mark.lengthy
@given(VALUES, st.integers(-2, 2))
def test_as_many_are_counted_as_there_are(value: Any, more: int) -> None:
    body = [value, 0]
    body += many(0, MARKS_MAX - marks(body) + more)
    assert has_too_many(json.dumps(body).encode(), tokens=False) is (more > 0)


@pytest.mark.parametrize("again", [b'"\\', b'"', b'\\"', b'{"'])
def test_what_is_no_json_is_refused_whatever_it_repeats(again: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(b'{"a":"' + again * 2_000_000, Capability.CHAT)
