"""Which requests explore, and what that does to their plans."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests import make
from tidegate.core.explore import uniform
from tidegate.core.model import (
    Decision,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Overrides,
    Request,
    Ruling,
    Run,
    Slo,
    replace,
)
from tidegate.core.router import Router
from tidegate.core.why import Why

SHARE = 0.1


def vendor(name: str, **changes: object) -> Endpoint:
    return make.endpoint(name, local=False, **changes)


def slow(name: str, factor: float = 20.0) -> Endpoint:
    return vendor(name, prior=make.scaled(make.REMOTE_PRIOR, factor))


def explores(seed: int) -> str:
    """The id of a request whose draw makes it explore."""
    return next(name for n in range(10_000) if uniform(seed, "explore", name := f"r{n}") < SHARE)


def decided(*endpoints: Endpoint, share: float = SHARE, **changes: Any) -> Decision:
    """What becomes of a request that explores if it may."""
    return make.router(*endpoints, explore_share=share).decide(make.request(explores(0), **changes), 0.0)


def test_now_and_then_another_is_asked_first_and_the_best_comes_second() -> None:
    decision = decided(vendor("a"), vendor("b"))
    assert decision.why is Why.EXPLORES
    assert [step.endpoint for step in decision.plan] == ["b", "a"]
    assert decision.propensity == SHARE


def test_what_does_not_explore_could_have_and_says_how_likely_that_was() -> None:
    router = make.router(vendor("a"), vendor("b"), explore_share=SHARE)
    name = next(name for n in range(100) if uniform(0, "explore", name := f"q{n}") >= SHARE)
    decision = router.decide(make.request(name), 0.0)
    assert decision.plan[0].endpoint == "a"
    assert decision.why is not Why.EXPLORES
    assert decision.propensity == 1.0 - SHARE


def test_what_has_one_place_to_go_is_certain() -> None:
    assert decided(vendor("a")).propensity == 1.0


def test_alternatives_are_as_likely_as_each_other() -> None:
    router = make.router(vendor("a"), vendor("b"), vendor("c"), explore_share=SHARE)
    found = Counter(router.decide(make.request(f"r{n}"), 0.0).plan[0].endpoint for n in range(4000))
    assert found["b"] == pytest.approx(200, abs=50)
    assert found["c"] == pytest.approx(200, abs=50)


def test_one_that_is_believed_slow_is_tried_where_the_best_still_has_time_to_keep_the_promise() -> None:
    decision = decided(vendor("a"), slow("b"), worth_usd=0.1)
    assert decision.why is Why.EXPLORES
    first = decision.plan[0]
    assert isinstance(first, Run)
    assert (first.endpoint, first.cutover_s) == ("b", 5.0)
    assert decision.plan[1].endpoint == "a"


NEVER: dict[str, Callable[[], Decision]] = {
    "its promise is at risk anyway": lambda: decided(slow("a"), slow("b"), slo=Slo(ttft_s=3.0)),
    "nobody could save a promise of the whole": lambda: decided(
        vendor("a"), slow("b"), slo=Slo(ttft_s=10.0, e2e_s=12.0), worth_usd=0.1
    ),
    "tokens would come too slowly": lambda: decided(
        vendor("a"), slow("b"), slo=Slo(ttft_s=10.0, tpot_s=0.05), worth_usd=0.1
    ),
    "the other is dearer by more than a tenth of the worth": lambda: decided(
        vendor("a"), vendor("b", price=replace(make.REMOTE_PRICE, usd_per_output_token=2e-5))
    ),
    "the budget is as good as spent": lambda: decided(
        vendor("a"), vendor("b", price=replace(make.REMOTE_PRICE, usd_per_output_token=5e-6)), budget_usd=0.01
    ),
    "it may fail once only": lambda: decided(vendor("a"), vendor("b"), failover=False),
    "a rule would rather have it here": lambda: decided(
        vendor("a"), vendor("b"), rulings=(Ruling(rule="here", to=("a",), break_usd=0.0001),)
    ),
    "a rule has it here": lambda: decided(vendor("a"), vendor("b"), rulings=(Ruling(rule="here", to=("a",)),)),
    "the other is an engine of ours": lambda: decided(make.endpoint("a"), make.endpoint("b")),
    "nobody could save it for our engine has one slot": lambda: decided(
        make.endpoint("a", concurrency=1), slow("b"), worth_usd=0.1
    ),
    "nobody explores": lambda: decided(vendor("a"), vendor("b"), share=0.0),
}


@pytest.mark.parametrize("reason", NEVER)
def test_a_request_does_not_explore_where(reason: str) -> None:
    decision = NEVER[reason]()
    assert decision.plan[0].endpoint == "a"
    assert decision.propensity == 1.0


def exploring() -> tuple[Router, Request]:
    """A router and a request that explores, unless what is told first keeps it from that."""
    return make.router(vendor("a"), vendor("b"), explore_share=SHARE), make.request(explores(0), session="s")


def test_a_conversation_goes_on_where_it_is_at_home_and_a_new_one_may_explore() -> None:
    router, asked = exploring()
    assert router.decide(asked, 0.0).why is Why.EXPLORES
    before = replace(asked, id="before")
    router.observe(make.started(before, "a"), 0.0)
    router.observe(FirstToken(request_id="before", endpoint="a", ttft_s=0.5), 0.5)
    router.observe(make.ended("before", "a", ttft_s=0.5), 1.0)
    assert router.decide(replace(asked, arrived_s=1.0), 1.0).propensity == 1.0
    assert router.decide(replace(asked, arrived_s=1.0, session_moves=True), 1.0).propensity == 1.0


def test_a_model_that_is_pinned_does_not_explore_among_its_pins() -> None:
    router, asked = exploring()
    router.observe(Overrides(pinned=("a", "b")), 0.0)
    assert router.decide(asked, 0.0).propensity == 1.0


def test_while_anything_is_held_nobody_explores() -> None:
    router, asked = exploring()
    router.observe(Held(request=make.request("held")), 0.0)
    assert router.decide(asked, 0.0).propensity == 1.0


def test_the_static_rule_does_not_explore() -> None:
    router, asked = exploring()
    router.observe(Overrides(static=True), 0.0)
    assert router.decide(asked, 0.0).why is Why.STATIC_RULE


def test_an_endpoint_that_has_to_show_that_it_is_well_again_is_no_place_to_explore() -> None:
    router, asked = exploring()
    for n in range(3):
        router.observe(make.started(make.request(f"f{n}"), "b"), 0.0)
    for n in range(3):
        router.observe(make.ended(f"f{n}", "b", ending=Ending.FAILED), 0.0)
    assert router.decide(replace(asked, arrived_s=20.0), 20.0).propensity == 1.0


def test_draws_are_spread_evenly_and_those_of_another_purpose_or_seed_are_others() -> None:
    drawn = [uniform(0, "explore", f"{n}") for n in range(10_000)]
    counts = Counter(int(10 * one) for one in drawn)
    assert all(abs(counts[tenth] - 1000) < 150 for tenth in range(10))
    assert drawn != [uniform(1, "explore", f"{n}") for n in range(10_000)]
    assert drawn != [uniform(0, "other", f"{n}") for n in range(10_000)]
