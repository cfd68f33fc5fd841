"""Laws of what is on its way: bounds, units, and no order of what arrives at one time."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.line import Carried, Line, ahead_bytes, send

sizes = st.integers(0, 10_000_000)
rates = st.floats(1e3, 1e9)
# How long after the one before it each was sent, and how long it takes.
sends = st.lists(st.tuples(st.floats(0.0, 10.0), sizes, st.floats(0.001, 100.0)), min_size=1, max_size=20)


def sent(known: list[tuple[float, int, float]], rate: float, scale: int = 1) -> tuple[Line, list[Carried], float]:
    line, now_s, carried = Line(), 0.0, []
    for gap_s, size, _ in known:
        now_s += gap_s
        carried.append(send(line, size * scale, rate * scale, now_s))
    return line, carried, now_s


@given(sends, rates, st.floats(0.0, 100.0))
def test_no_more_is_ahead_than_was_sent_and_it_only_becomes_less(
    known: list[tuple[float, int, float]], rate: float, later_s: float
) -> None:
    line, _, now_s = sent(known, rate)
    ahead = ahead_bytes(line, rate, now_s)
    assert 0.0 <= ahead_bytes(line, rate, now_s + later_s) <= ahead <= sum(size for _, size, _ in known)


@given(sends, rates, sizes)
def test_a_larger_request_never_shortens_the_wait_of_the_next(
    known: list[tuple[float, int, float]], rate: float, more: int
) -> None:
    (line, _, now_s), (other, _, _) = sent(known, rate), sent(known, rate)
    send(line, 1, rate, now_s)
    send(other, 1 + more, rate, now_s)
    assert ahead_bytes(line, rate, now_s) <= ahead_bytes(other, rate, now_s)


@given(sends, rates)
def test_what_is_carried_until_one_is_there_has_its_own_bytes_in_it(
    known: list[tuple[float, int, float]], rate: float
) -> None:
    _, carried, now_s = sent(known, rate)
    assert all(
        one.upload_bytes >= size and one.since_s <= now_s for one, (_, size, _) in zip(carried, known, strict=True)
    )


@given(sends, rates, st.integers(0, 99))
def test_arrivals_have_no_order(known: list[tuple[float, int, float]], rate: float, seed: int) -> None:
    found = []
    for shuffled in (False, True):
        line, carried, now_s = sent(known, rate)
        there = [(one, now_s + takes_s) for one, (_, _, takes_s) in zip(carried, known, strict=True)]
        for one, at_s in Random(seed).sample(there, len(there)) if shuffled else there:
            line.arrived(one, at_s)
        found.append(line)
        assert 0 <= line.carried_bytes <= line.sent_bytes
    assert found[0] == found[1]


@given(sends, st.integers(0, 8))
def test_the_unit_of_bytes_does_not_matter(known: list[tuple[float, int, float]], power: int) -> None:
    (line, _, now_s), (scaled, _, _) = sent(known, 1e6), sent(known, 1e6, scale=2**power)
    assert ahead_bytes(scaled, 1e6 * 2**power, now_s) == pytest.approx(2**power * ahead_bytes(line, 1e6, now_s))
