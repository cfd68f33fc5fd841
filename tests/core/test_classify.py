import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.classify import classify


@pytest.mark.parametrize(
    ("tokens", "klass"),
    [
        (0, "interactive/short"),
        (512, "interactive/short"),
        (513, "interactive/medium"),
        (4096, "interactive/medium"),
        (4097, "interactive/long"),
    ],
)
def test_a_class_tells_what_it_is_for_and_how_long_it_is(tokens: int, klass: str) -> None:
    assert classify("interactive", tokens) == klass


@given(st.text(), st.integers(0, 10**9))
def test_the_base_is_kept(base: str, tokens: int) -> None:
    assert classify(base, tokens).rpartition("/")[0] == base
