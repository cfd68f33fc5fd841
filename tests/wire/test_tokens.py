import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.wire.tokens import (
    BYTES_PER_TOKEN_MAX,
    BYTES_PER_TOKEN_MIN,
    MESSAGE_BYTES,
    MESSAGE_TOKENS,
    PRIOR_BYTES_PER_TOKEN,
    TokenRatio,
    text_bytes,
)


def rate(ratio: TokenRatio) -> float:
    """Bytes per token, as it stands."""
    return ratio.bytes_sum / ratio.tokens_sum


def test_before_anything_was_learned_four_bytes_are_a_token() -> None:
    assert TokenRatio().tokens(4000 + 2 * MESSAGE_BYTES, 2) == 1000 + 2 * MESSAGE_TOKENS


def test_an_empty_prompt_is_one_token() -> None:
    assert TokenRatio().tokens(0, 0) == 1


@given(st.floats(1.2, 12.0), st.lists(st.integers(1000, 50_000), min_size=1, max_size=20))
def test_estimates_add_up_to_what_the_prompts_took(bytes_per_token: float, sizes: list[int]) -> None:
    ratio = TokenRatio()
    for size in sizes * (600 // len(sizes)):
        ratio.learn(size + MESSAGE_BYTES, 1, round(size / bytes_per_token + MESSAGE_TOKENS))
    estimated = sum(ratio.tokens(size + MESSAGE_BYTES, 1) for size in sizes)
    taken = sum(size / bytes_per_token + MESSAGE_TOKENS for size in sizes)
    assert estimated == pytest.approx(taken, rel=0.02)


def test_short_prompts_of_another_kind_do_not_bias_the_total() -> None:
    # 90 short prompts of 2 bytes a token beside 10 long ones of 5: a mean of ratios would say 2.3.
    ratio = TokenRatio()
    prompts = [(200, 100)] * 90 + [(50_000, 10_000)] * 10
    for _ in range(10):
        for size, tokens in (prompts[i * 37 % 100] for i in range(100)):
            ratio.learn(size, 0, tokens)
    assert rate(ratio) == pytest.approx(518_000 / 109_000, rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 1000), st.integers(-5, 10**12))))
def test_no_report_whatever_leads_beyond_the_bounds(reports: list[tuple[int, int, int]]) -> None:
    ratio = TokenRatio()
    for size, messages, tokens in reports:
        ratio.learn(size, messages, tokens)
    assert BYTES_PER_TOKEN_MIN - 1e-9 <= rate(ratio) <= BYTES_PER_TOKEN_MAX + 1e-9
    assert ratio.tokens(1000, 1) >= 1


def test_a_count_of_zero_teaches_nothing() -> None:
    ratio = TokenRatio()
    ratio.learn(10_000, 1, 0)
    assert ratio == TokenRatio()
    assert rate(ratio) == PRIOR_BYTES_PER_TOKEN


def test_new_traffic_takes_over() -> None:
    ratio = TokenRatio()
    for bytes_per_token in (6.0, 2.0):
        for _ in range(500):
            ratio.learn(12_000, 0, round(12_000 / bytes_per_token))
        assert rate(ratio) == pytest.approx(bytes_per_token, rel=0.03)


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 100))
def test_a_longer_prompt_is_never_estimated_shorter(size: int, more: int, messages: int) -> None:
    ratio = TokenRatio()
    assert ratio.tokens(size + more, messages) >= ratio.tokens(size, messages)


@pytest.mark.parametrize(
    "text",
    [
        "plain words without anything to escape " * 40,
        "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 40,
        "敏捷的棕色狐狸跳过懒狗。" * 60,
        "def f(x):\n    return \"a\" + x['b']\n\n" * 50,
        "\U0001f600\U0001f680" * 100,
    ],
)
def test_the_same_text_escaped_otherwise_counts_about_the_same(text: str) -> None:
    size = len(text.encode())
    for ascii in (True, False):
        assert text_bytes(json.dumps(text, ensure_ascii=ascii).encode()) == pytest.approx(size, rel=0.15)


@given(st.binary(max_size=5000))
def test_text_is_never_longer_than_its_json(json: bytes) -> None:
    assert min(1, len(json)) <= text_bytes(memoryview(json)) <= len(json)


@given(st.floats(1.2, 12.0), st.floats(0.0, 1e7), st.floats(0.0, 1e7))
def test_an_aged_ratio_says_the_same_and_weighs_less_but_no_less_than_before_anything_was_learned(
    bytes_per_token: float, age_s: float, more_s: float
) -> None:
    ratio = TokenRatio()
    for _ in range(50):
        ratio.learn(20_000 + MESSAGE_BYTES, 1, round(20_000 / bytes_per_token + MESSAGE_TOKENS))
    aged = ratio.aged(age_s)
    assert rate(aged) == pytest.approx(rate(ratio))
    assert TokenRatio().tokens_sum <= aged.tokens_sum * (1 + 1e-12)
    assert aged.tokens_sum <= ratio.tokens_sum
    assert aged.aged(more_s).tokens_sum == pytest.approx(ratio.aged(age_s + more_s).tokens_sum)


def test_an_aged_ratio_follows_new_traffic_sooner() -> None:
    fresh = TokenRatio(bytes_sum=400_000.0, tokens_sum=100_000.0)
    old = fresh.aged(24 * 3600.0)
    for ratio in (fresh, old):
        ratio.learn(10_000 + MESSAGE_BYTES, 1, 5_000 + int(MESSAGE_TOKENS))
    assert rate(old) < 2.3 < 3.8 < rate(fresh)


@given(st.floats(1.0, 1e9), st.floats(1.0, 1e8))
def test_a_ratio_without_an_age_is_the_same_bit_for_bit(bytes_sum: float, tokens_sum: float) -> None:
    ratio = TokenRatio(bytes_sum=bytes_sum, tokens_sum=tokens_sum)
    assert ratio.aged(0.0) == ratio
