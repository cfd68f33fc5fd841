import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.digest import BLOCK_BYTES, BLOCKS_MAX, prefix_digests

SALT = b"0123456789abcdef"

_prompts = st.builds(
    lambda seed, size: (seed * (size // len(seed) + 1))[:size], st.binary(min_size=1), st.integers(0, 6000)
)


@given(_prompts, _prompts, _prompts)
def test_prompts_share_as_many_digests_as_whole_blocks(shared: bytes, one: bytes, other: bytes) -> None:
    first, second = prefix_digests(shared + b"a" + one, SALT), prefix_digests(shared + b"b" + other, SALT)
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    assert common == len(shared) // BLOCK_BYTES


@given(_prompts)
def test_the_last_partial_block_has_no_digest(prompt: bytes) -> None:
    assert len(prefix_digests(prompt, SALT)) == len(prompt) // BLOCK_BYTES


@given(_prompts, st.binary(max_size=3000))
def test_a_conversation_that_goes_on_keeps_its_digests(prompt: bytes, more: bytes) -> None:
    before = prefix_digests(prompt, SALT)
    assert prefix_digests(prompt + more, SALT)[: len(before)] == before


def test_a_digest_covers_all_that_comes_before_it() -> None:
    block = b"x" * BLOCK_BYTES
    first = prefix_digests(b"a" + block * 3, SALT)
    second = prefix_digests(b"b" + block * 3, SALT)
    assert not set(first) & set(second)
    assert len(set(prefix_digests(block * 4, SALT))) == 4


def test_another_salt_or_other_tools_give_other_digests() -> None:
    prompt = b"x" * 4096
    plain = prefix_digests(prompt, SALT)
    assert not set(plain) & set(prefix_digests(prompt, SALT[::-1]))
    assert not set(plain) & set(prefix_digests(prompt, SALT, b"[tools]"))


def test_a_view_and_its_bytes_are_the_same() -> None:
    prompt = bytes(range(256)) * 20
    assert prefix_digests(memoryview(prompt), SALT, memoryview(b"t")) == prefix_digests(prompt, SALT, b"t")


def test_only_the_first_blocks_are_digested() -> None:
    prompt = b"x" * (BLOCK_BYTES * (BLOCKS_MAX + 50))
    digests = prefix_digests(prompt, SALT)
    assert len(digests) == BLOCKS_MAX
    assert all(0 <= digest < 2**32 for digest in digests)


def test_a_salt_of_another_length_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        prefix_digests(b"", b"short")
