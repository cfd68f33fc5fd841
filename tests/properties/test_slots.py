"""Laws of free slots: as many as are asked for are found as if all had been, a schedule needs no more of them than it
has work, and of very many attempts some stand for all."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.core.test_hold import base
from tidegate.core.endpoint import EndpointModel
from tidegate.core.hold import schedule
from tidegate.core.inflight import SAMPLE_MAX, begins_s, ends_s
from tidegate.core.length import LengthModel
from tidegate.core.memory import held
from tidegate.core.model import Prior, Slo
from tidegate.core.slots import Ends, free_s
from tidegate.core.starts import Item, Pool, item

NOW_S = 100.0
seeds = st.integers(0, 100_000)


def attempts(draw: Random, count: int) -> list[tuple[float, Ends]]:
    found = []
    for _ in range(count):
        least_s = NOW_S + draw.choice((0.0, 0.0, 0.001, draw.uniform(0.0, 5.0)))
        early_s, middle_s, late_s = sorted(least_s + draw.choice((0.0, 1.0, draw.expovariate(0.2))) for _ in range(3))
        found.append((least_s, (early_s, middle_s, late_s)))
    return found


@given(seeds)
def test_the_first_slots_are_free_when_they_are_among_all(seed: int) -> None:
    draw = Random(seed)
    there = attempts(draw, draw.randint(1, 60))
    every_s = free_s(there, NOW_S, len(there))
    assert every_s == sorted(every_s)
    for count in range(1, len(there)):
        assert free_s(there, NOW_S, count) == every_s[:count]


@given(seeds)
def test_what_stands_for_several_frees_as_many_slots_as_they_do(seed: int) -> None:
    draw = Random(seed)
    there, each = attempts(draw, draw.randint(1, 20)), draw.randint(2, 4)
    count = draw.randint(1, len(there) * each)
    assert free_s(there, NOW_S, count, float(each)) == pytest.approx(free_s(there * each, NOW_S, count), rel=1e-6)


def work(draw: Random, number: int) -> Item:
    slo = Slo(ttft_s=draw.choice((None, 1.0, 5.0, 30.0)))
    request = make.request(f"r{number}", arrived_s=NOW_S - draw.uniform(0.0, 4.0), slo=slo)
    own = {name: base(occupies_s=draw.uniform(1.1, 9.0)) for name in draw.choice((["a"], ["b"], ["a", "b"]))}
    elsewhere = [] if draw.random() < 0.5 else [(draw.uniform(-0.01, 0.01), "cloud")]
    return item(request, 0.01, own, elsewhere)


@given(seeds)
def test_a_schedule_looks_at_no_more_slots_than_one_beyond_its_work(seed: int) -> None:
    draw = Random(seed)
    items = [work(draw, number) for number in range(draw.randint(1, 12))]
    found = []
    slots_s = {name: sorted(NOW_S + draw.uniform(-1.0, 9.0) for _ in range(40)) for name in ("a", "b")}
    headroom = draw.random() < 0.5
    for known in (40, len(items) + 1):
        pools = {name: Pool(free_s[:known], headroom=headroom, slots=40) for name, free_s in slots_s.items()}
        found.append(schedule(items, pools, {"cloud": 3}, lambda request: [], NOW_S))
    assert found[0] == found[1]


def crowded(kinds: tuple[float, ...]) -> EndpointModel:
    """Streams of outputs that are so long by turns, eight times as many as are looked at."""
    lengths, count = LengthModel(), 8 * SAMPLE_MAX
    for number in range(400):
        kind = number % len(kinds)
        lengths.learn(f"kind{kind}", kinds[kind], 0.0)
    engine = EndpointModel(make.endpoint("e", concurrency=count, prior=Prior(decode_s_per_token=0.01)), 0.9)
    for number in range(count):
        sent = make.request(f"r{number}", klass=f"kind{number % len(kinds)}", prompt_bytes=0)
        at_s = NOW_S - 4.0 + 4.0 * number / count
        engine.started(make.started(sent, "e"), engine.base(sent, lengths.of(sent), at_s), at_s)
        engine.first(sent.id, at_s)
    return engine


by_turns = pytest.mark.parametrize("kinds", [(20.0, 400.0), (40.0,), (5.0, 30.0, 30.0, 2_000.0)])


@by_turns
def test_of_very_many_attempts_some_tell_when_slots_are_free(kinds: tuple[float, ...]) -> None:
    engine = crowded(kinds)
    there = [(begins_s(one, NOW_S), ends_s(one, NOW_S)) for one in engine.state.reservations.values()]
    exact_s, told_s = free_s(there, NOW_S, 64), engine.slots_free_s(NOW_S, 64)
    assert len(told_s) == 64
    for exact, told in zip(exact_s, told_s, strict=True):
        assert told - NOW_S == pytest.approx(exact - NOW_S, rel=0.3, abs=0.002)


@by_turns
def test_of_very_many_attempts_some_tell_when_memory_is_free(kinds: tuple[float, ...]) -> None:
    engine = crowded(kinds)
    engine.memory.declare(10**7, sure=True)
    spare = engine.memory.spare(NOW_S)
    assert spare is not None
    exact = sorted((sum(ends_s(one, NOW_S)) / 3.0, held(one, NOW_S)) for one in engine.state.reservations.values())
    taken = sum(tokens for _, tokens in exact)
    assert spare.free_tokens == spare.tokens_max - taken
    assert sum(tokens for _, tokens in spare.ends) == taken
    assert spare.ends == sorted(spare.ends)
    for share in (0.01, 0.1, 0.5, 0.9):
        assert freed_s(spare.ends, share) == pytest.approx(freed_s(exact, share), rel=0.2, abs=0.02)


def freed_s(ends: list[tuple[float, int]], share: float) -> float:
    """After how many seconds so much of it is free."""
    left = share * sum(tokens for _, tokens in ends)
    for end_s, tokens in ends:
        left -= tokens
        if left <= 0.0:
            return end_s - NOW_S
    raise AssertionError("it never is")
