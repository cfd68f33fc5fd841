"""The load before a real engine, and the part of errors that nobody can help."""

from itertools import pairwise

import pytest
from bench.foresight import Sent, foresight, profile
from bench.live_load import CHARACTERS_PER_TOKEN, CONTEXT_TOKENS, PHASES, asks


def test_the_load_is_the_same_each_time_and_in_the_order_of_time() -> None:
    found = asks()
    assert found == asks()
    assert all(one.at_s <= other.at_s for one, other in pairwise(found))
    assert {ask.phase for ask in found} == set(range(len(PHASES)))
    assert 150 <= sum(len(ask.turns) for ask in found) <= 250
    assert sum(phase.seconds for phase in PHASES) <= 380


def test_no_text_comes_twice() -> None:
    texts = [text for ask in asks() for text, _ in ask.turns]
    assert len(set(texts)) == len(texts)


def test_every_prompt_fits_the_window_with_its_answer() -> None:
    dense = 3.5 / CHARACTERS_PER_TOKEN  # characters a token of the densest page, of those that are asked for
    for ask in asks():
        tokens = sum(len(text) / CHARACTERS_PER_TOKEN / dense + answer for text, answer in ask.turns)
        assert tokens + 20 * len(ask.turns) < CONTEXT_TOKENS


def test_who_comes_alone_is_foreseen_and_who_is_interrupted_is_not() -> None:
    alone, first, second = (Sent(at_s=at_s, prompt_tokens=100, output_tokens=40) for at_s in (0.0, 60.0, 60.5))
    for (last, was), interrupted in zip(
        foresight([alone, first, second], profile()), (False, True, False), strict=True
    ):
        assert last.ttft_s == pytest.approx(was.ttft_s)
        assert last.tpot_s is not None
        assert was.tpot_s is not None
        assert (was.tpot_s > 1.1 * last.tpot_s) is interrupted
