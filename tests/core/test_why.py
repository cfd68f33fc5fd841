"""The reason that a decision gives is the one that it was made for."""

from typing import Any

import pytest

from tests import make
from tests.core.test_router import fill
from tidegate.core.model import Overrides, Request, replace
from tidegate.core.router import Router
from tidegate.core.why import Why

SLOW = replace(make.LOCAL_PRIOR, overhead_s=60.0)


def decided(router: Router, request: Request) -> tuple[str, Why]:
    decision = router.decide(request, 0.0)
    return decision.plan[0].endpoint, decision.why


def test_beside_others_of_ours_that_are_full_the_one_with_a_slot_is_the_only_one_available() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b"))
    fill(router, "a", 2)
    assert decided(router, make.request()) == ("b", Why.ONLY_AVAILABLE)


def test_beside_another_of_ours_that_has_a_slot_as_well_none_is_the_only_one() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b"), make.endpoint("c", concurrency=1))
    fill(router, "c", 1)
    assert decided(router, make.request()) == ("a", Why.CHEAPEST_ON_TIME)


def test_who_waits_for_want_of_anybody_is_not_said_to_wait_for_what_costs_less() -> None:
    vendor = make.router(make.endpoint("cloud", local=False, concurrency=1))
    fill(vendor, "cloud", 1)
    assert decided(vendor, make.request()) == ("cloud", Why.WAITS_FOR_ANY)
    late = make.request(ttft_s=0.2, arrived_s=-0.5)
    ours = make.router(make.endpoint("laptop", concurrency=1))
    fill(ours, "laptop", 1)
    assert decided(ours, late) == ("laptop", Why.WAITS_FOR_ANY)
    both = make.router(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False))
    fill(both, "laptop", 1)
    assert decided(both, make.request(ttft_s=60.0)) == ("laptop", Why.WAITS_FOR_SLOT)


def test_what_the_static_rule_holds_waits_by_that() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1))
    fill(router, "laptop", 1)
    router.observe(Overrides(static=True), 0.0)
    assert decided(router, make.request()) == ("laptop", Why.STATIC_RULE)


@pytest.mark.parametrize("asked", [{"failover": False}, {"retry": 2}, {}])
def test_who_is_tried_once_goes_where_it_goes_for_the_same_reason(asked: dict[str, Any]) -> None:
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False))
    assert decided(router, make.request(**asked)) == ("laptop", Why.CHEAPEST_ON_TIME)


@pytest.mark.parametrize("failover", [True, False])
@pytest.mark.parametrize("slow", ["a", "abc"])
@pytest.mark.parametrize("worth_usd", [0.0001, 0.0])
def test_who_is_in_time_and_costs_more_than_that_is_worth_is_no_hope_that_is_lost(
    slow: str, failover: bool, worth_usd: float
) -> None:
    own = [make.endpoint(name, prior=SLOW) for name in slow]
    router = make.router(*own, make.endpoint("cloud", local=False))
    request = make.request(worth_usd=worth_usd, late_usd_per_s=0.0, failover=failover)
    assert decided(router, request) == ("a", Why.NOT_WORTH_MORE)


def test_where_nobody_is_in_time_the_least_is_lost() -> None:
    router = make.router(make.endpoint("a", prior=SLOW), make.endpoint("cloud", local=False, prior=SLOW))
    assert decided(router, make.request(worth_usd=0.0001, failover=False)) == ("a", Why.LEAST_LOSS)
