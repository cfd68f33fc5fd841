"""Which requests explore, and what that does to their plans."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import make
from tidegate.core.estimator import GUESS_SIGMA
from tidegate.core.explore import UNUSED_S, uniform
from tidegate.core.model import (
    Decision,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Overrides,
    Probed,
    Request,
    Ruling,
    Run,
    Slo,
    Warmed,
    Warming,
    replace,
)
from tidegate.core.revive import revived
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


def decided(*endpoints: Endpoint, share: float = SHARE, hedges_usd: float = 1.0, **changes: Any) -> Decision:
    """What becomes of a request that explores if it may, where so much may be lost on second attempts."""
    router = make.router(*endpoints, explore_share=share)
    router.state.hedging.left_usd = hedges_usd
    return router.decide(make.request(explores(0), **changes), 0.0)


def beside(*, started: bool = False, running: int | None = None, resident: bool | None = None) -> Decision:
    """What becomes of a request that explores if it may, where the other endpoint is an engine of ours."""
    router = make.router(make.endpoint("a"), make.endpoint("b"), explore_share=SHARE)
    if started:
        router.observe(make.started(make.request(), "b"), 0.0)
    queued = None if running is None else 0
    router.observe(Probed(endpoint="b", up=True, running=running, queued=queued, resident=resident), 0.0)
    return router.decide(make.request(explores(0)), 0.0)


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
    "the other is an engine of ours that is in use": lambda: beside(started=True),
    "others use the engine of ours": lambda: beside(running=1),
    "a model of ours would have to be loaded for it": lambda: beside(resident=False),
    "nobody could save it for our engine has one slot": lambda: decided(
        make.endpoint("a", concurrency=1), slow("b"), worth_usd=0.1
    ),
    "nothing may be lost on one that is paid": lambda: decided(vendor("a"), slow("b"), worth_usd=0.1, hedges_usd=0.0),
    "nobody would see in time that the best has to save it": lambda: decided(
        vendor("a"), slow("b"), worth_usd=0.1, stream=False
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


def test_an_engine_of_ours_that_nobody_uses_is_explored_like_any_other() -> None:
    decision = beside()
    assert decision.why is Why.EXPLORES
    assert [step.endpoint for step in decision.plan] == ["b", "a"]


@dataclass
class Left:
    """An engine of ours that was quick, then so slow that a vendor serves everything, and is quick again."""

    router: Router = field(default_factory=lambda: make.router(make.endpoint("own"), vendor("cloud")))
    now_s: float = 0.0
    quick: bool = True

    def __post_init__(self) -> None:
        for quick in (True, False):
            self.quick = quick
            for _ in range(20):
                self.serve()
        self.quick = True

    def asked(self, **changes: Any) -> Request:
        return make.request(arrived_s=self.now_s, prompt_tokens=800, **{"ttft_s": 2.0, **changes})

    def decide(self, **changes: Any) -> Decision:
        return self.router.decide(self.asked(**changes), self.now_s)

    def serve(self) -> str:
        """One is served within ten seconds, by whoever comes first. Returns who that is."""
        request = self.asked()
        endpoint = self.router.decide(request, self.now_s).plan[0].endpoint
        own_s = 0.85 if self.quick else 3.4
        ttft_s = own_s if endpoint == "own" else 0.4
        self.router.observe(make.started(request, endpoint), self.now_s)
        self.router.observe(FirstToken(request_id=request.id, endpoint=endpoint, ttft_s=ttft_s), self.now_s + ttft_s)
        told = make.ended(request.id, endpoint, ttft_s=ttft_s, e2e_s=ttft_s + 1.0, output_tokens=51, prompt_tokens=800)
        self.router.observe(told, self.now_s + ttft_s + 1.0)
        self.now_s += 10.0
        return endpoint


def test_an_engine_of_ours_that_was_slow_for_a_while_is_used_again_within_the_hour() -> None:
    left = Left()
    assert left.serve() == "cloud"
    served = Counter(left.serve() for _ in range(6 * 60))
    assert served["own"] > 0
    assert all(left.serve() == "own" for _ in range(10))


def test_who_is_left_alone_is_asked_once_and_the_best_has_time_to_keep_the_promise() -> None:
    left = Left()
    assert left.decide().plan[0].endpoint == "cloud"
    left.now_s += UNUSED_S
    decision = left.decide()
    assert (decision.why, decision.propensity) == (Why.EXPLORES, 1.0)
    assert [step.endpoint for step in decision.plan] == ["own", "cloud"]
    first = decision.plan[0]
    assert isinstance(first, Run)
    assert first.cutover_s == 1.0
    request = left.asked()
    assert left.router.decide(request, left.now_s) == left.router.decide(request, left.now_s)
    # While that is under way, and for as long again, nobody else is sent there.
    left.router.observe(make.started(request, "own"), left.now_s)
    assert left.decide().plan[0].endpoint == "cloud"
    left.now_s += 1.0
    left.router.observe(make.ended(request.id, "own", ending=Ending.CANCELLED), left.now_s)
    left.now_s += 0.9 * UNUSED_S
    assert left.decide().plan[0].endpoint == "cloud"
    left.now_s += 0.2 * UNUSED_S
    assert left.decide().plan[0].endpoint == "own"


def test_who_is_left_alone_is_asked_though_others_once_used_it() -> None:
    left = Left()
    left.router.observe(Probed(endpoint="own", up=True, running=1, queued=0), left.now_s)
    assert left.router.endpoint("own").is_used(left.now_s)
    for _ in range(int(UNUSED_S / 5.0)):
        left.now_s += 5.0
        left.router.observe(Probed(endpoint="own", up=True, running=0, queued=0), left.now_s)
    left.now_s += 1.0
    assert not left.router.endpoint("own").is_used(left.now_s)
    assert left.decide().plan[0].endpoint == "own"


def test_who_is_left_alone_is_the_trial_of_its_own_breaker() -> None:
    left = Left()
    for n in range(3):
        left.router.observe(make.started(make.request(f"f{n}"), "own"), left.now_s)
    for n in range(3):
        left.router.observe(make.ended(f"f{n}", "own", ending=Ending.FAILED, cause="connect"), left.now_s)
    left.router.observe(Probed(endpoint="own", up=False), left.now_s)
    left.now_s += UNUSED_S
    left.router.observe(Probed(endpoint="own", up=True), left.now_s)
    decision = left.decide()
    assert (decision.why, [step.endpoint for step in decision.plan]) == (Why.EXPLORES, ["own", "cloud"])
    left.serve()
    assert left.router.endpoint("own").state.breaker.openings == 0


def test_a_restart_forgets_nobody_who_is_left_alone() -> None:
    left = Left()
    left.now_s += UNUSED_S
    left.router = Router(left.router.endpoints, left.router.policy, revived(left.router.state, {"own", "cloud"}, 1e9))
    assert left.decide().plan[0].endpoint == "own"


ALONE: dict[str, dict[str, Any]] = {
    "nobody could save the promise of the whole": {"slo": Slo(ttft_s=2.0, e2e_s=4.0)},
    "there is no time to save it": {"ttft_s": 0.7},
    "it may fail once only": {"failover": False},
}


@pytest.mark.parametrize("reason", ALONE)
def test_who_is_left_alone_is_not_asked_where(reason: str) -> None:
    left = Left()
    left.now_s += UNUSED_S
    assert left.decide().plan[0].endpoint == "own"
    assert left.decide(**ALONE[reason]).plan[0].endpoint == "cloud"


def test_while_anything_is_held_nobody_is_asked_who_is_left_alone() -> None:
    left = Left()
    left.now_s += UNUSED_S
    left.router.observe(Held(request=left.asked()), left.now_s)
    assert left.decide().why is not Why.EXPLORES


def test_while_another_engine_of_ours_is_in_use_nobody_is_asked_who_is_left_alone() -> None:
    spare = make.endpoint("spare", prior=make.scaled(make.LOCAL_PRIOR, 9.0))
    left = Left(make.router(make.endpoint("own"), spare, vendor("cloud")))
    left.now_s += UNUSED_S
    assert left.decide().plan[0].endpoint == "own"
    left.router.observe(make.started(left.asked(), "spare"), left.now_s)
    assert left.decide().plan[0].endpoint == "cloud"


def test_of_an_engine_that_was_never_used_what_is_declared_is_believed() -> None:
    slow_one = make.endpoint("own", prior=make.scaled(make.LOCAL_PRIOR, 20.0))
    router = make.router(slow_one, vendor("cloud"))
    decision = router.decide(make.request(arrived_s=1e9, ttft_s=2.0), 1e9)
    assert decision.plan[0].endpoint == "cloud"
    assert decision.why is not Why.EXPLORES


@dataclass
class Guessed(Left):
    """An engine of ours that was never used, and whose speed is a guess that is ten times too slow."""

    router: Router = field(default_factory=lambda: make.router(guessed(), vendor("cloud")))

    def __post_init__(self) -> None:
        self.now_s = 1e9


def guessed(**changes: object) -> Endpoint:
    prior = replace(make.scaled(make.LOCAL_PRIOR, 10.0), **{"sigma": GUESS_SIGMA, **changes})
    return make.endpoint("own", prior=prior)


def test_an_engine_of_ours_whose_speed_is_a_guess_is_asked_once_and_used_where_that_was_wrong() -> None:
    left = Guessed()
    decision = left.decide()
    assert decision.why is Why.EXPLORES
    assert [step.endpoint for step in decision.plan] == ["own", "cloud"]
    served = [left.serve() for _ in range(3 * 60)]
    assert served.count("own") > 100
    assert set(served[-60:]) == {"own"}


def test_one_whose_speed_is_a_guess_is_loaded_first_where_its_model_is_away() -> None:
    left = Guessed(router=make.router(replace(guessed(), warms_up=True), vendor("cloud")))

    def looks(*, resident: bool) -> None:
        left.router.observe(Probed(endpoint="own", up=True, resident=resident), left.now_s)

    looks(resident=False)
    assert [left.serve() for _ in range(3)] == ["cloud"] * 3
    assert left.router.warm_ups(left.now_s) == ["own"]
    left.router.observe(Warming(endpoint="own"), left.now_s)
    left.now_s += 5.0
    left.router.observe(Warmed(endpoint="own", took_s=5.0, served=True), left.now_s)
    looks(resident=True)
    decision = left.decide()
    assert (decision.why, decision.plan[0].endpoint) == (Why.EXPLORES, "own")


def test_who_is_put_to_the_test_may_put_more_at_risk_than_who_is_explored_by_chance() -> None:
    asked = make.request(explores(0), arrived_s=1e9, prompt_tokens=800, slo=Slo(ttft_s=2.0, tpot_s=0.15))
    # Of its tokens, some 96 in a hundred would be in time, and all of the vendor's.
    for sigma, explores_it in ((GUESS_SIGMA, True), (0.99 * GUESS_SIGMA, False)):
        own = guessed(decode_s_per_token=1 / 40, sigma=sigma)
        router = make.router(own, vendor("cloud"), explore_share=SHARE)
        assert (router.decide(asked, 1e9).why is Why.EXPLORES) is explores_it


def test_draws_are_spread_evenly_and_those_of_another_purpose_or_seed_are_others() -> None:
    drawn = [uniform(0, "explore", f"{n}") for n in range(10_000)]
    counts = Counter(int(10 * one) for one in drawn)
    assert all(abs(counts[tenth] - 1000) < 150 for tenth in range(10))
    assert drawn != [uniform(1, "explore", f"{n}") for n in range(10_000)]
    assert drawn != [uniform(0, "other", f"{n}") for n in range(10_000)]
