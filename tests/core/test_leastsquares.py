"""Least squares with signs: the best there is among constants that are not negative."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.core.leastsquares import non_negative

numbers = st.floats(-10.0, 10.0)
problems = st.integers(1, 4).flatmap(
    lambda width: st.tuples(
        st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=8),
        st.lists(numbers, min_size=8, max_size=8),
        st.lists(st.floats(0.0, 10.0), min_size=width, max_size=width),
    )
)


def squares(rows: list[list[float]], target: list[float], x: list[float]) -> float:
    return sum((sum(a * b for a, b in zip(row, x, strict=True)) - t) ** 2 for row, t in zip(rows, target, strict=True))


@settings(max_examples=100)
@given(problems)
def test_no_other_constants_from_zero_explain_more(
    problem: tuple[list[list[float]], list[float], list[float]],
) -> None:
    rows, target, other = problem
    target = target[: len(rows)]
    found = non_negative(rows, target)
    assert min(found) >= 0.0
    assert squares(rows, target, found) <= squares(rows, target, other) + 1e-6 * (1.0 + squares(rows, target, other))


def test_what_can_only_be_negative_is_nothing() -> None:
    assert non_negative([[1.0, 0.0], [1.0, 1.0]], [2.0, 1.0]) == pytest.approx([1.5, 0.0])


def test_of_columns_that_say_the_same_one_is_used() -> None:
    found = non_negative([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0])
    assert sorted(found)[0] == 0.0
    assert found[0] + 2.0 * found[1] == pytest.approx(1.0)
