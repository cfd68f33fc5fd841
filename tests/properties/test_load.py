"""Laws of the load of others: what waits never helps, age tells less, a tick has no order, and two make one."""

from collections.abc import Callable, Sequence
from itertools import permutations
from math import isclose
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.load import Load, Tick, combined
from tidegate.core.model import Ended, Ending, Endpoint, FirstToken, Observation, Probed
from tidegate.core.others import Others
from tidegate.core.router import Router
from tidegate.core.state import EndpointState

counts = st.integers(0, 60)
seeds = st.integers(0, 10_000)
NOW_S = 1_700_000_000.0
QUANTILE = 0.9


def learned(seed: int, *, honest: bool = True, until: int = 40) -> Others:
    """Reports of a random engine, some seconds apart, and what was measured of it."""
    draw, others, now_s, queued = Random(seed), Others(Load()), NOW_S, 0
    for _ in range(draw.randint(1, until)):
        now_s += draw.choice((2.0, 5.0, 5.0, 30.0))
        queued = max(0, queued + draw.randint(-3, 3)) if draw.random() < 0.9 else draw.randint(0, 50)
        others.report(min(8, queued + draw.randint(0, 8)), queued if honest else 0, (), now_s - 0.01, now_s)
        if draw.random() < 0.5:
            others.met(draw.randint(0, 3), draw.gauss(1.0, 1.0), draw.random(), now_s)
            others.waited(0.1, 0.02 * queued + 0.01, 0.1 + 0.05 * queued, now_s)
    return others


def copied(load: Load) -> Load:
    return msgspec.json.decode(msgspec.json.encode(load), type=Load)


def model(others: Others) -> EndpointModel:
    endpoint = make.endpoint("laptop", concurrency=8)
    state = EndpointModel(endpoint, QUANTILE).state
    return EndpointModel(endpoint, QUANTILE, msgspec.structs.replace(state, load=copied(others.load)))


def first_s(one: EndpointModel, now_s: float) -> float:
    asked = make.request()
    return one.base(asked, LengthModel().at(asked.klass, 100), now_s).first_s


@given(seeds, counts, counts, counts, st.floats(0.0, 120.0))
def test_more_reported_work_never_predicts_less_wait(
    seed: int, running: int, queued: int, more: int, age_s: float
) -> None:
    before = learned(seed)
    told_s = before.load.newest.told_s + 5.0
    for changed in ((running, queued + more), (running + more, queued)):
        found = []
        for said in ((running, queued), changed):
            one = model(before)
            one.probed(Probed(endpoint="laptop", up=True, running=said[0], queued=said[1]), told_s)
            found.append(first_s(one, told_s + age_s))
        assert found[1] >= found[0] * (1.0 - 1e-12)


@given(seeds, st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_an_older_report_is_never_surer(seed: int, age_s: float, more_s: float) -> None:
    others = learned(seed)
    told_s = others.load.newest.told_s
    young, old = others.at(told_s + age_s), others.at(told_s + age_s + more_s)
    assert old.variance >= young.variance - 1e-12
    assert old.known <= young.known


@given(seeds)
def test_a_report_that_is_old_says_nothing_and_what_is_usual_takes_its_place_for_a_while(seed: int) -> None:
    others = learned(seed)
    gap_s = others._usual_s
    assert others.at(others.load.newest.told_s + gap_s + 7200.0).usual < 1e-6
    now_s = others.load.newest.told_s + gap_s + 600.0
    believed = others.at(now_s)
    assert believed.known < 1e-4
    assert believed.queued < 0.1
    assert 0.1 < believed.usual < 0.3
    one = model(others)
    stretch = others.load.usual[0].moments(now_s)[0]
    black_box = make.endpoint("laptop", concurrency=8)
    alone_s = first_s(EndpointModel(black_box, QUANTILE), now_s)
    assert first_s(one, now_s) >= alone_s
    if stretch > 0.1:
        assert first_s(one, now_s) > 1.01 * alone_s


def close(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float | int):
        return isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)
    return one == other


def same(one: object, other: object) -> bool:
    return close(msgspec.to_builtins(one), msgspec.to_builtins(other))


def tick(draw: Random, now_s: float) -> list[Callable[[Others], None]]:
    """What may be told at one time."""

    def one() -> Callable[[Others], None]:
        running, queued = draw.randint(0, 9), draw.randint(0, 9)
        late_s, x = draw.choice((0.0, 0.2)), draw.random()
        return draw.choice(
            (
                lambda others: others.report(running, queued, (), now_s - late_s, now_s),
                lambda others: others.met(1, x, 1.0, now_s),
                lambda others: others.met(1, -x, 0.5, now_s),
                lambda others: others.waited(0.1, x, 0.2, now_s),
            )
        )

    return [one() for _ in range(4)]


@given(seeds)
def test_what_is_told_at_one_time_has_no_order(seed: int) -> None:
    draw, before = Random(seed), learned(seed)
    now_s = before.load.newest.told_s + 5.0
    told = tick(draw, now_s)
    found = []
    for order in permutations(told):
        others = Others(copied(before.load))
        for tell in order:
            tell(others)
        # And what follows sees no order either.
        others.report(3, 1, (), now_s + 5.0, now_s + 5.0)
        found.append(others)
    for other in found[1:]:
        assert same(found[0].load, other.load)
        assert same(found[0].at(now_s + 7.0), other.at(now_s + 7.0))


def observed(order: Sequence[Observation], between_s: float) -> float:
    router = Router((make.endpoint("laptop", concurrency=8),), make.policy())
    for index in range(3):
        router.observe(make.started(make.request(f"r{index}"), "laptop"), NOW_S)
    router.observe(Probed(endpoint="laptop", up=True, running=5, queued=1), NOW_S + between_s)
    now_s = NOW_S + 2.0 * between_s
    for fact in order:
        router.observe(fact, now_s)
    return first_s(router.endpoint("laptop"), now_s + 1.0)


def test_a_report_counts_alike_before_and_after_what_happens_in_its_tick() -> None:
    report = Probed(endpoint="laptop", up=True, running=4, queued=3)
    others: list[Observation] = [
        make.started(make.request("new"), "laptop"),
        Ended(request_id="r0", endpoint="laptop", ending=Ending.CANCELLED, e2e_s=1.0),
        FirstToken(request_id="r1", endpoint="laptop", ttft_s=1.0),
    ]
    for fact in others:
        before, after = observed([report, fact], 5.0), observed([fact, report], 5.0)
        assert before == pytest.approx(after, rel=1e-12)


@given(seeds, seeds, seeds)
def test_what_two_routers_learned_is_one_whoever_is_first(a: int, b: int, c: int) -> None:
    one, two, three = (learned(seed).load for seed in (a, b, c))
    before = msgspec.json.encode((one, two, three))
    assert same(combined(one, two), combined(two, one))
    assert same(combined(combined(one, two), three), combined(one, combined(two, three)))
    assert msgspec.json.encode((one, two, three)) == before


@given(seeds)
def test_with_nothing_learned_elsewhere_combining_changes_nothing(seed: int) -> None:
    load = learned(seed).load
    assert same(combined(load, Load()), load)


@given(seeds, st.floats(0.5, 1000.0))
def test_all_at_a_later_time_predicts_the_same(seed: int, later_s: float) -> None:
    def shifted(load: Load, by_s: float) -> Load:
        found = copied(load)
        newest, before = found.newest, found.before
        found.newest = msgspec.structs.replace(
            newest, told_s=newest.told_s + by_s, measured_s=newest.measured_s + by_s * newest.count
        )
        if before.told_s:
            found.before = msgspec.structs.replace(before, told_s=before.told_s + by_s, since_s=before.since_s + by_s)
        found.history.at_s += by_s
        return found

    load = learned(seed).load
    at_s = load.newest.told_s + 3.0
    here, there = Others(load).at(at_s), Others(shifted(load, later_s)).at(at_s + later_s)
    assert isclose(here.queued, there.queued, rel_tol=1e-3, abs_tol=1e-4)
    assert isclose(here.known, there.known, rel_tol=1e-3)


def report_often(others: Others, count: int, said: tuple[int, int], every_s: float = 5.0) -> float:
    now_s = max(NOW_S, others.load.newest.told_s)
    for _ in range(count):
        now_s += every_s
        others.report(*said, (), now_s, now_s)
    return now_s


@given(st.integers(1, 40), st.integers(1, 40))
def test_what_was_told_lately_counts_more_in_what_is_usual(few: int, many: int) -> None:
    def usual(order: tuple[int, int]) -> float:
        others = Others(Load())
        for queued in order:
            for index in range(20):
                # Not twice the same: that would be no news.
                now_s = max(NOW_S, others.load.newest.told_s) + 60.0
                others.report(index % 3, queued, (), now_s, now_s)
        return others._queued_mean

    low, high = sorted((few, many))
    assert usual((low, high)) >= usual((high, low))


@pytest.mark.lengthy
def test_what_is_learned_of_one_endpoint_stays_small() -> None:
    others = Others(Load())
    draw, now_s = Random(1), NOW_S
    one = EndpointModel(make.endpoint("laptop", concurrency=100), QUANTILE)
    for index in range(2_000):
        now_s += 1.0
        others.report(draw.randint(0, 10**6), draw.randint(0, 10**6), (), now_s - 1.0, now_s)
        request = make.request(f"r{index}")
        one.started(make.started(request, "laptop"), one.base(request, LengthModel().at("chat", 100), now_s), now_s)
        sent = one.state.reservations.pop(request.id)
        others.ended(sent, now_s)
        others.met(index % 4, 1.0, 1.0, now_s)
        others.waited(0.1, draw.random(), 0.5, now_s)
    assert len(msgspec.json.encode(others.load)) < 4_096


def test_a_snapshot_goes_on_as_what_it_is_of() -> None:
    for seed in range(20):
        others = learned(seed)
        again = Others(copied(others.load))
        now_s = others.load.newest.told_s
        for _ in range(5):
            now_s += 4.0
            for one in (others, again):
                one.report(3, 2, (), now_s, now_s)
            assert again.at(now_s + 1.0) == others.at(now_s + 1.0)
            assert (again.trust, again.waiting) == (others.trust, others.waiting)


def test_a_tick_without_a_report_is_no_history() -> None:
    assert same(combined(Load(newest=Tick(told_s=5.0)), Load()).history.weight, 0.0)


def test_the_state_of_before_is_read_without_it() -> None:
    state = EndpointModel(make.endpoint("laptop"), QUANTILE).state
    old = msgspec.to_builtins(state)
    del old["load"]
    assert msgspec.convert(old, type=EndpointState).load == Load()


def test_an_endpoint_of_many_names_is_told_once() -> None:
    endpoint: Endpoint = make.endpoint("laptop", models=("m", "n"))
    router = Router((endpoint,), make.policy())
    router.observe(Probed(endpoint="laptop", up=True, running=4, queued=4), NOW_S)
    assert router.endpoint("laptop").others.newest[0] > 3.9
