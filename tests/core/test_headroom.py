"""What a vendor said is left of its limits is kept to, before it refuses."""

import pytest

from tests import make
from tidegate.core.headroom import FULL_S_MAX, Allowance, Allowances, fault, revived
from tidegate.core.model import Headroom, Request, Started
from tidegate.core.router import Router
from tidegate.core.why import Why


def said(**changes: int | float) -> Headroom:
    return Headroom(endpoint="cloud", **changes)  # type: ignore[arg-type]


def told(*facts: Headroom, now_s: float = 10.0) -> Router:
    router = make.router(make.endpoint("cloud", local=False))
    for fact in facts:
        router.observe(fact, now_s)
    return router


def asked(**changes: int) -> Request:
    """200 tokens of prompt and 100 of output at most."""
    return make.request(arrived_s=10.0, **changes)  # type: ignore[arg-type]


FEW = said(requests_left=1, requests_max=60, requests_full_s=59.0)
SHORT = said(tokens_left=350, tokens_max=100_000, tokens_full_s=99.65)


def test_while_there_is_enough_nothing_is_kept_and_nothing_told() -> None:
    enough = said(requests_left=59, requests_max=60, requests_full_s=1.0, tokens_left=90_000, tokens_max=100_000)
    router = told()
    assert not router.tells_headroom(enough)
    assert router.tells_headroom(FEW)
    router.observe(FEW, 10.0)
    assert router.tells_headroom(enough)
    router.observe(enough, 11.0)
    assert not router.tells_headroom(enough)


def test_the_last_request_is_sent_and_the_next_is_not_until_one_is_there_again() -> None:
    router = told(FEW)
    first, second = asked(), asked()
    assert router.decide(first, 10.0).plan
    router.observe(make.started(first, "cloud"), 10.0)
    refused = router.decide(second, 10.0)
    assert not refused.plan
    assert refused.why is Why.TOLD_TO_WAIT
    assert refused.retry_after_s == pytest.approx(1.0)
    assert router.decide(second, 11.1).plan


def test_a_request_that_needs_more_tokens_than_are_left_is_not_sent() -> None:
    router = told(SHORT)
    assert router.decide(asked(), 10.0).plan
    large = router.decide(asked(prompt_tokens=1300), 10.0)
    # 1,400 are needed, and a thousand come back each second.
    assert large.why is Why.TOLD_TO_WAIT
    assert large.retry_after_s == pytest.approx(1.05)


def test_what_never_fits_is_sent_once_all_of_it_is_there() -> None:
    router = told(said(tokens_left=10, tokens_max=100, tokens_full_s=9.0))
    assert router.decide(asked(), 10.0).why is Why.TOLD_TO_WAIT
    assert router.decide(asked(), 19.1).plan


def test_what_is_sent_in_the_same_moment_counts_whatever_comes_first() -> None:
    found = []
    for first in (True, False):
        router, request = told(FEW), asked()
        facts: list[Headroom | Started] = [said(requests_left=5, requests_max=60, requests_full_s=55.0)]
        facts.append(make.started(request, "cloud"))
        for fact in facts if first else reversed(facts):
            router.observe(fact, 20.0)
        allowance = router.endpoint("cloud").state.allowances.requests
        assert allowance is not None
        found.append(allowance.at(20.0))
    assert found == [4.0, 4.0]


def test_without_a_time_all_of_it_is_there_within_the_hour() -> None:
    router = told(said(requests_left=0, requests_max=60))
    refused = router.decide(asked(), 15.0)
    assert refused.why is Why.TOLD_TO_WAIT
    assert refused.retry_after_s == pytest.approx(FULL_S_MAX / 60 - 5.0)
    assert router.decide(asked(), 10.1 + FULL_S_MAX / 60).plan


def test_without_a_time_something_else_that_is_said_counts_at_once() -> None:
    router = told(said(requests_left=0, requests_max=60))
    router.observe(said(requests_left=60, requests_max=60), 15.0)
    assert router.decide(asked(), 15.0).plan


def test_a_restart_keeps_what_was_said_at_a_time_that_has_been() -> None:
    state = Allowances(Allowance(3.0, 60.0, 1.0, 50.0), None)
    assert revived(state, 20.0) == Allowances(Allowance(3.0, 60.0, 1.0, 20.0), None)
    shut = Allowances(None, Allowance(0.0, 100.0, 0.0, 10.0))
    assert shut.ready_s(10, 10.0 + 9 * FULL_S_MAX) > 10.0 + 9 * FULL_S_MAX
    assert revived(shut, 20.0).ready_s(10, 10.0 + FULL_S_MAX) == 10.0 + FULL_S_MAX
    assert not fault(state)
    assert fault(Allowances(None, Allowance(float("nan"), 1.0, 1.0, 0.0)))
