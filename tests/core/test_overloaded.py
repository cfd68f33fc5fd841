"""More comes than an engine can do, and nobody else can: who can only be late is told so, and when that is over."""

import pytest

from tests import make
from tidegate.core.model import Decision, Ending, Endpoint, FirstToken, Held, Released
from tidegate.core.router import Router
from tidegate.core.shares import had_s
from tidegate.core.why import Why

ANSWER_S = 2.0


def overloaded(late: int, *others: Endpoint, hours: float = 0.5, key: str = "") -> tuple[Router, float]:
    """An engine with one place that in-time requests have had all of, and so many held whose promise is over."""
    router, now_s = make.router(make.endpoint("laptop", concurrency=1), *others), 0.0
    while now_s < 3600.0 * hours:
        request = make.request(arrived_s=now_s)
        router.observe(make.started(request, "laptop"), now_s)
        router.observe(FirstToken(request_id=request.id, endpoint="laptop", ttft_s=0.25), now_s + 0.25)
        now_s += ANSWER_S
        ended = make.ended(request.id, "laptop", e2e_s=ANSWER_S, ttft_s=0.25, output_tokens=88)
        router.observe(ended, now_s)
    router.observe(make.started(make.request(arrived_s=now_s), "laptop"), now_s)
    for number in range(late):
        router.observe(Held(request=make.request(f"late{number}", arrived_s=now_s - 20.0, key=key)), now_s)
    return router, now_s


def next_one(router: Router, now_s: float) -> Decision:
    return router.decide(make.request(arrived_s=now_s, ttft_s=0.1), now_s)


def test_who_can_only_be_late_is_told_at_once_when_that_is_over() -> None:
    router, now_s = overloaded(late=4)
    decision = next_one(router, now_s)
    assert (decision.plan, decision.why) == ((), Why.TOO_LATE)
    assert decision.retry_after_s is not None
    assert make.policy().hold_s_max < decision.retry_after_s <= 3600.0


def test_the_more_are_late_the_later_it_is_over() -> None:
    waits_s = [next_one(*overloaded(late=late)).retry_after_s or 0.0 for late in (4, 8, 16)]
    assert waits_s == sorted(waits_s)
    assert waits_s[0] != waits_s[-1]


def test_who_can_only_be_late_waits_where_the_engine_has_time_for_it() -> None:
    router, now_s = overloaded(late=4, hours=0.0)
    assert next_one(router, now_s).why is Why.WAITS_FOR_ANY


def test_who_can_be_in_time_waits_where_few_are_late() -> None:
    router, now_s = overloaded(late=16)
    assert router.decide(make.request(arrived_s=now_s), now_s).why is Why.WAITS_FOR_ANY


def test_who_can_only_be_late_waits_where_another_is_merely_full() -> None:
    router, now_s = overloaded(4, make.endpoint("cloud", local=False, concurrency=1))
    router.observe(make.started(make.request(arrived_s=now_s), "cloud"), now_s)
    assert next_one(router, now_s).why is Why.WAITS_FOR_ANY


def test_where_another_key_waits_as_well_a_share_is_kept_for_what_is_late() -> None:
    router, now_s = overloaded(late=4, key="other")
    assert next_one(router, now_s).why is not Why.TOO_LATE


def test_when_those_that_were_late_are_gone_the_next_one_may_wait() -> None:
    router, now_s = overloaded(late=4)
    for number in range(4):
        router.observe(Released(request_id=f"late{number}"), now_s)
    assert next_one(router, now_s + 60.0).why is not Why.TOO_LATE


@pytest.mark.parametrize("ending", [Ending.OK, Ending.FAILED])
def test_once_the_engine_is_free_it_is_sent_there(ending: Ending) -> None:
    router, now_s = overloaded(late=0)
    (busy,) = router.endpoint("laptop").state.reservations
    router.observe(make.ended(busy, "laptop", ending=ending), now_s + 1.0)
    assert next_one(router, now_s + 1.0).plan


def test_what_was_given_up_soon_leaves_the_engine_time_for_who_can_only_be_late() -> None:
    """Every other second somebody comes whose answer would take as long, and leaves before it has begun."""
    router, now_s = make.router(make.endpoint("laptop", concurrency=1)), 0.0
    while now_s < 600.0:
        left = make.request(arrived_s=now_s)
        router.observe(make.started(left, "laptop"), now_s)
        router.observe(make.ended(left.id, "laptop", ending=Ending.CANCELLED, e2e_s=0.1), now_s + 0.1)
        now_s += ANSWER_S
    router.observe(make.started(make.request(arrived_s=now_s), "laptop"), now_s)
    router.observe(Held(request=make.request("late", arrived_s=now_s - 20.0)), now_s)
    assert next_one(router, now_s).why is Why.WAITS_FOR_ANY


@pytest.mark.parametrize("ending", [Ending.OK, Ending.CANCELLED])
def test_what_was_late_has_had_no_more_of_an_engine_than_everything_has(ending: Ending) -> None:
    router, now_s = make.router(make.endpoint("laptop", concurrency=1)), 100.0
    state = router.endpoint("laptop").state
    for took_s in (0.1, 30.0):
        late = make.request(arrived_s=now_s - 20.0)
        router.observe(Held(request=late), now_s)
        router.observe(make.started(late, "laptop"), now_s)
        now_s += took_s
        router.observe(make.ended(late.id, "laptop", ending=ending, e2e_s=took_s), now_s)
        assert had_s(state.given_rest, now_s) == had_s(state.given, now_s)
        assert had_s(state.given, now_s) == pytest.approx(took_s, abs=1.0)
