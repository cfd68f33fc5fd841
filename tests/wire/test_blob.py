import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.courier.standin import state
from tidegate.wire.blob import BlobError, Declared, declared, head_bytes, tokens_of

DECLARED = Declared(size_bytes=1000, tokens=3, tokens_digest="11" * 32, fingerprint="22" * 32)
words = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50)


def test_what_is_declared_survives_a_header() -> None:
    assert declared(msgspec.json.encode(DECLARED)) == DECLARED


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_other_header_is_refused_and_nothing_else_is_raised(text: bytes) -> None:
    with pytest.raises(BlobError):
        declared(text)


def test_a_header_that_is_nested_deeply_or_long_is_refused() -> None:
    for text in (b"[" * 1000, b" " * 5000 + msgspec.json.encode(DECLARED)):
        with pytest.raises(BlobError):
            declared(text)


@given(words, words)
def test_tokens_are_told_by_a_digest_of_their_own(some: list[int], others: list[int]) -> None:
    one, other = tokens_of(state(some, 100)), tokens_of(state(others, 200))
    assert one[0] == len(some)
    assert (one == other) == (some == others)
    assert tokens_of(state(some, 0)[: head_bytes(len(some))]) == one


@given(st.binary(max_size=200))
def test_what_is_no_saved_slot_is_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    with pytest.raises(BlobError):
        tokens_of(raw)


@given(words, st.data())
def test_a_head_that_is_cut_or_contradicts_itself_is_refused(tokens: list[int], data: st.DataObject) -> None:
    head = state(tokens, 0)
    with pytest.raises(BlobError):
        tokens_of(head[: data.draw(st.integers(0, len(head) - 1))])
    at = data.draw(st.sampled_from([*range(24), *range(len(head) - 4, len(head))]))
    with pytest.raises(BlobError):
        tokens_of(head[:at] + bytes([head[at] ^ data.draw(st.integers(1, 255))]) + head[at + 1 :])
