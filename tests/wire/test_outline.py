"""What is looked at of a large body is what is looked at of a small one, its long strings passed by."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.model import Capability
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import parse
from tidegate.wire.outline import OUTLINED_BYTES_MIN, outline, whole_bytes

LONG = 4096
TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.sampled_from('a"\\\n\u00e9'), max_size=20),
    st.tuples(st.text(st.sampled_from('ab"\\/\u4e2d'), min_size=1, max_size=3), st.integers(1000, 5000)).map(
        lambda found: found[0] * found[1]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


def encoded(value: Any, *, ascii_only: bool = True) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode()


def alike(found: Any, given: Any) -> bool:
    """Whether it is the same, but for strings that were long."""
    if isinstance(given, str):
        return bool(found == given) or max(len(encoded(given)), len(encoded(given, ascii_only=False))) - 2 >= LONG
    if isinstance(given, list):
        return len(found) == len(given) and all(alike(a, b) for a, b in zip(found, given, strict=True))
    if isinstance(given, dict):
        pairs = zip(found.items(), given.items(), strict=True)
        return len(found) == len(given) and all(a == b and alike(x, y) for (a, x), (b, y) in pairs)
    return bool(found == given)


@given(VALUES, st.integers(0, 300_000), st.booleans())
def test_an_outline_has_the_same_values_but_for_long_strings_and_tells_how_long_they_were(
    value: Any, more: int, ascii_only: bool
) -> None:
    body = encoded([value, "x" * more], ascii_only=ascii_only)
    found = outline(body)
    assert whole_bytes(found) == len(body)
    assert alike(json.loads(found), [value, "x" * more])


def test_of_a_long_text_next_to_nothing_is_left() -> None:
    text = 'He said "no" \\ and "yes".\n' + "and so on " * 30_000
    assert len(outline(encoded({"messages": [{"role": "user", "content": text}]}))) < 1_000


@pytest.mark.parametrize("text", ['"' * 40_000, "\\" * 40_000, '\\"' * 20_000, '{"a":"b"},' * 5_000])
def test_text_full_of_quotes_is_left_as_it_is(text: str) -> None:
    body = encoded({"model": "m", "messages": [{"role": "user", "content": text}]})
    assert outline(body) is body


def test_media_of_a_large_body_are_no_text() -> None:
    url = "data:image/png;base64," + "iVBORw0KGgo" * 20_000
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": parts}]
    call = parse(encoded({"model": "m", "messages": messages}), Capability.CHAT)
    assert (call.media, call.needs) == (1, (Capability.CHAT, Capability.VISION))
    assert bytes(call.prompt) == encoded(messages)
    assert call.text_bytes == len(encoded(messages)) - len(encoded({"url": url}))


def test_nobody_who_writes_lengths_into_media_makes_text_of_them_smaller() -> None:
    parts = [{"type": "image_url", "image_url": {"url": ":999999:" * 10}}, {"type": "text", "text": "a" * 20_000}]
    call = parse(encoded({"model": "m", "messages": [{"role": "user", "content": parts}]}), Capability.CHAT)
    assert call.text_bytes > 20_000


def test_a_name_that_is_too_long_is_too_long_in_a_large_body() -> None:
    body = encoded({"model": "m" * 2 * OUTLINED_BYTES_MIN, "messages": [{"role": "user", "content": "hi"}]})
    with pytest.raises(BadRequest, match=r"length <= 256"):
        parse(body, Capability.CHAT)


@pytest.mark.parametrize("letter", ["m", "\u4e2d", "\U0001f600"])
def test_a_name_that_is_not_too_long_is_not_in_a_large_body(letter: str) -> None:
    messages = [{"role": "user", "content": "x" * OUTLINED_BYTES_MIN}]
    assert parse(encoded({"model": letter * 256, "messages": messages}), Capability.CHAT).model == letter * 256


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": [{"role": 1}]}, r"`messages\[0\].role`: expected `str`, got `int`"),
        ({"max_tokens": "x" * 5_000}, "`max_tokens`: expected `int"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}, 3]}]}, r"`messages\[0\].content\[1\]`"),
    ],
)
def test_what_is_wrong_in_a_large_body_has_its_place(fields: dict[str, Any], said: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "user": "u" * OUTLINED_BYTES_MIN, **fields}
    with pytest.raises(BadRequest, match=said):
        parse(encoded(body), Capability.CHAT)
