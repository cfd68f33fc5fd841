"""How many an engine of ours is given at once: as many as get their tokens in the time that was promised."""

import pytest

from tests import make
from tidegate.core.batch import LESS_MAX, MISSED_SHARE, STEP, Batch, fault
from tidegate.core.model import Endpoint, FirstToken, Probed, Request, Run, Slo, Wait, replace
from tidegate.core.router import Router

SLOTS = 16
PROMISED_S = 0.1
ALONE_S, QUICK_S, SLOW_S = 0.02, 0.05, 0.2


def box(**changes: object) -> Endpoint:
    return replace(make.endpoint("box", concurrency=SLOTS), **changes)


def asked(tpot_s: float | None = PROMISED_S) -> Request:
    return make.request(slo=Slo(ttft_s=10.0, tpot_s=tpot_s))


def serve(
    router: Router,
    times: int,
    took_s: float,
    *,
    promised_s: float | None = PROMISED_S,
    beside: int = 3,
    at_s: float = 0.0,
) -> float:
    """So many rounds: an answer alone, and some side by side whose tokens take so long. Returns when the last ended."""
    for _ in range(times):
        at_s = answer(router, 1, ALONE_S if beside else took_s, promised_s, at_s)
        if beside:
            at_s = answer(router, 1 + beside, took_s, promised_s, at_s)
    return at_s


def answer(router: Router, count: int, took_s: float, promised_s: float | None, at_s: float) -> float:
    """So many answers side by side."""
    requests = [asked(promised_s) for _ in range(count)]
    for request in requests:
        router.observe(make.started(request, "box"), at_s)
    for request in requests:
        router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=0.2), at_s + 0.2)
    at_s += 0.2 + 9.0 * took_s
    for request in requests:
        fact = make.ended(request.id, "box", e2e_s=0.2 + 9.0 * took_s, ttft_s=0.2, output_tokens=10)
        router.observe(fact, at_s)
    return at_s + 0.1


def test_broken_promises_per_token_make_the_batch_smaller_and_kept_ones_give_it_back() -> None:
    router = make.router(box())
    box_ = router.endpoint("box")
    at_s = serve(router, 8, SLOW_S)
    assert SLOTS / 4 <= box_.places < SLOTS / 1.5
    fewest = box_.places
    at_s = serve(router, 40, QUICK_S, at_s=at_s)
    assert fewest < box_.places
    serve(router, 100, QUICK_S, at_s=at_s)
    assert box_.places == SLOTS


@pytest.mark.parametrize("probed", [True, False])
@pytest.mark.parametrize("slots", [2, 8])
def test_time_makes_it_larger_again_though_nobody_who_could_tell_is_there(slots: int, probed: bool) -> None:
    router = make.router(box(concurrency=slots))
    box_ = router.endpoint("box")
    at_s = serve(router, 60, SLOW_S, beside=1)
    assert box_.places == max(1, slots // 4)
    # By night nobody is promised any time per token, or they come one by one.
    for _ in range(8):
        at_s = answer(router, 1, ALONE_S, None, at_s) + 3600.0
        if probed:
            router.observe(Probed(endpoint="box", up=True), at_s)
    assert box_.places == slots


def test_what_the_batch_has_no_room_for_waits() -> None:
    router = make.router(box())
    at_s = serve(router, 60, SLOW_S)
    assert router.endpoint("box").places == SLOTS / 4
    for count in range(SLOTS // 4):
        request = asked()
        assert isinstance(router.decide(request, at_s).plan[0], Run), count
        router.observe(make.started(request, "box"), at_s)
        router.observe(FirstToken(request_id=request.id, endpoint="box", ttft_s=0.0), at_s)
    assert isinstance(router.decide(asked(), at_s).plan[0], Wait)


@pytest.mark.parametrize(
    ("endpoint", "promised_s", "beside"),
    [
        pytest.param(box(), None, 3, id="no promise"),
        pytest.param(box(), PROMISED_S, 0, id="alone, others are not to blame"),
        pytest.param(box(), 0.01, 3, id="not even alone it would be kept"),
        pytest.param(box(owned=False), PROMISED_S, 3, id="not ours"),
        pytest.param(box(shares_compute=False), PROMISED_S, 3, id="others do not slow it down"),
    ],
)
def test_what_a_smaller_batch_would_not_help_makes_none(
    endpoint: Endpoint, promised_s: float | None, beside: int
) -> None:
    router = make.router(endpoint)
    serve(router, 20, SLOW_S, promised_s=promised_s, beside=beside)
    if beside:
        # The first of them was sent when nobody was there.
        assert router.endpoint("box").places == SLOTS
    assert router.endpoint("box").state.batch.bounded == 0.0


def test_as_many_are_missed_as_is_given_away() -> None:
    batch = Batch(less=0.5, at_s=1.0)
    for index in range(100):
        batch.learn(index < 100 * MISSED_SHARE, 1.0)
    assert batch.bounded == pytest.approx(0.5)


def test_a_quarter_of_the_slots_and_one_at_least_is_always_used() -> None:
    batch = Batch(less=LESS_MAX)
    assert [batch.of(slots) for slots in (16, 8, 3, 1)] == [4, 2, 1, 1]
    assert Batch().of(16) == 16
    assert Batch(less=STEP).of(16) == 16


@pytest.mark.parametrize("batch", [Batch(less=-0.1), Batch(less=9.0), Batch(fresh=float("nan"))])
def test_a_batch_that_cannot_be_is_found(batch: Batch) -> None:
    assert fault(batch)
    assert not fault(Batch(less=0.3, fresh=-0.1))
