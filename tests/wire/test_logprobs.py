"""Log-probabilities from whole answers, and nothing else from bytes that are none."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.drift import LOGPROB_MIN, SPOTS_MAX, TOP_MAX
from tidegate.wire.logprobs import read_logprobs
from tidegate.wire.sse import BadStream

json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "logprobs", "content", "token", "logprob", "top_logprobs"]), inner
        )
    ),
    max_leaves=12,
)


def token(text: str, logprob: Any, **top: Any) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}


def answer(*tokens: Any) -> bytes:
    return json.dumps({"choices": [{"logprobs": {"content": tokens}}]}).encode()


def test_a_token_comes_with_its_likeliest_candidates() -> None:
    (spot,) = read_logprobs(answer(token("a", -0.1, a=-0.1, b=-2.5)))
    assert (spot.token, spot.top) == ("a", {"a": -0.1, "b": -2.5})


def test_a_token_that_is_not_among_the_candidates_is_added() -> None:
    (spot,) = read_logprobs(answer(token("c", -3.0, a=-0.1)))
    assert spot.top == {"a": -0.1, "c": -3.0}


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"logprobs":null}]}',
        b'{"choices":[{"logprobs":{"content":null}}]}',
        b'{"choices":[{"logprobs":{"refusal":[]}}]}',
    ],
)
def test_an_answer_without_log_probabilities_has_no_spots(body: bytes) -> None:
    assert read_logprobs(body) == ()


@pytest.mark.parametrize("told", [0.5, 1e300, "high", None, {}])
def test_numbers_that_are_no_log_probabilities_are_refused(told: Any) -> None:
    with pytest.raises(BadStream):
        read_logprobs(answer(token("a", told)))
    with pytest.raises(BadStream):
        read_logprobs(answer(token("a", -0.1, b=told)))


@pytest.mark.parametrize("told", ["NaN", "-Infinity", "-1e999", "1e999"])
def test_what_is_no_json_number_is_refused(told: str) -> None:
    with pytest.raises(BadStream):
        read_logprobs(answer(token("a", 7777)).replace(b"7777", told.encode()))


def test_more_than_was_asked_for_is_cut_to_the_bound() -> None:
    many = {f"t{n}": -float(n + 1) for n in range(100)}
    spots = read_logprobs(answer(*[token("t0", -1.0, **many)] * 100))
    assert len(spots) == SPOTS_MAX
    assert sorted(spots[0].top) == [f"t{n}" for n in range(TOP_MAX)]


def test_a_server_s_number_for_next_to_nothing_is_the_least_there_is() -> None:
    (spot,) = read_logprobs(answer(token("a", 0.0, a=0.000001, b=-9999.0)))
    assert spot.top == {"a": 0.0, "b": LOGPROB_MIN}


@given(json_values)
def test_whatever_comes_is_read_within_bounds_or_refused(value: Any) -> None:
    for body in (json.dumps(value).encode(), answer(value)):
        try:
            spots = read_logprobs(body)
        except BadStream:
            continue
        assert len(spots) <= SPOTS_MAX
        for spot in spots:
            assert spot.token in spot.top
            assert all(LOGPROB_MIN <= nats <= 0.0 for nats in spot.top.values())
