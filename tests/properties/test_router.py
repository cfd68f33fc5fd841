"""Laws of the router that hold in any weather."""

from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.storm import Storm
from tidegate.core.model import Decision, Policy, Prefill, Request, Run, Wait
from tidegate.core.places import below_share
from tidegate.core.plan import EXPECTED
from tidegate.core.promise import ends_s
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.why import Why

seeds = st.integers(0, 10_000)


def waits(decision: Decision) -> bool:
    return bool(decision.plan) and isinstance(decision.plan[0], Wait)


@pytest.mark.lengthy
@given(seeds)
def test_a_request_that_must_stay_local_never_gets_a_step_outside(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if request.residency == ("local",):
            assert all(router.endpoint(step.endpoint).endpoint.local for step in decision.plan)

    Storm(seed, check).run(200)


@pytest.mark.lengthy
@given(seeds)
def test_a_named_site_is_as_hard_as_local(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if request.residency == ("eu",):
            assert all(step.endpoint == "paris" for step in decision.plan)

    Storm(seed, check).run(200)


@pytest.mark.lengthy
@given(seeds)
def test_a_plan_never_contains_an_excluded_endpoint_nor_one_twice(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        excluded = {c.endpoint for c in router.candidates(request, now_s) if c.excluded is not None}
        steps = [step.endpoint for step in decision.plan if not isinstance(step, Wait)]
        assert excluded.isdisjoint(steps)
        assert excluded.isdisjoint(step.target for step in decision.plan if isinstance(step, Prefill))
        assert len(set(steps)) == len(steps)

    Storm(seed, check).run(150)


@pytest.mark.lengthy
@given(seeds)
def test_what_is_said_to_be_the_only_one_is_and_what_is_said_to_be_late_everywhere_is(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if not decision.plan or waits(decision):
            return
        candidates = router.candidates(request, now_s)
        others = [c for c in candidates if c.excluded is None and c.endpoint != decision.plan[0].endpoint]
        if decision.why is Why.ONLY_ENDPOINT:
            assert len(candidates) == 1
        elif decision.why.startswith("only_") and others:
            # Ours that have no place for it now.
            assert decision.why is Why.ONLY_AVAILABLE
            assert all(router.endpoint(other.endpoint).owned for other in others)
        elif decision.why is Why.LEAST_LOSS:
            for other in others:
                assert other.estimate is not None
                assert other.estimate.attainment < EXPECTED or router.endpoint(other.endpoint).owned

    Storm(seed, check).run(150)


@pytest.mark.lengthy
@given(seeds)
def test_what_may_be_waited_for_is_full_and_forbidden_by_nothing_else(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        excluded = {c.endpoint: c.excluded for c in router.candidates(request, now_s)}
        for step in decision.plan:
            if isinstance(step, Wait):
                assert excluded[step.endpoint] in (None, Why.BUSY, Why.MEMORY_TAKEN)

    Storm(seed, check).run(150)


@pytest.mark.lengthy
@given(seeds)
def test_our_own_endpoints_are_never_filled_beyond_their_concurrency_by_a_first_step(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if decision.plan and isinstance(decision.plan[0], Run):
            model = router.endpoint(decision.plan[0].endpoint)
            assert model.room > 0

    Storm(seed, check).run(200)


@pytest.mark.lengthy
@given(seeds)
def test_a_plan_has_no_more_attempts_than_allowed_and_one_without_failover(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        assert len(decision.plan) <= (3 if request.failover else 1)
        # Waiting is the first step, or what is left when every attempt has failed; nothing follows it.
        assert not any(isinstance(step, Wait) for step in decision.plan[:-1])

    Storm(seed, check).run(150)


@pytest.mark.lengthy
@given(seeds)
def test_due_names_the_held_requests_that_decide_would_not_let_wait_as_far_as_there_is_room(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(120):
        storm.step()
        storm.check_due()


@pytest.mark.lengthy
@given(seeds)
def test_a_held_request_is_due_in_the_end_whatever_else_is_held(seed: int) -> None:
    storm = Storm(seed).run(100)
    late_s = max([storm.now_s + storm.policy.hold_s_max, *(e for r in storm.held.values() if (e := ends_s(r)) < inf)])
    assert {r.id for r in storm.router.due(late_s)} == set(storm.held)


@pytest.mark.lengthy
@given(seeds)
def test_the_hold_queue_never_outgrows_its_bound(seed: int) -> None:
    """Nobody new is held beyond it, but in the place of a tenant that has more than its share; those whose attempts
    have failed come back on top, as many as were in flight."""

    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if waits(decision) and request.id not in storm.held:
            held_max = storm.policy.held_max
            taken = router.held < 2 * held_max and below_share(request, storm.held.values(), held_max)
            assert router.held < held_max or taken

    storm = Storm(seed, check)
    for _ in range(200):
        storm.step()
        assert storm.router.held == len(storm.held)


@pytest.mark.lengthy
@given(seeds)
def test_a_wait_names_a_time_in_the_future_and_not_far(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if waits(decision):
            step = decision.plan[0]
            assert isinstance(step, Wait)
            assert now_s <= step.until_s <= now_s + Policy().recheck_s + 0.001

    Storm(seed, check).run(150)


@pytest.mark.lengthy
@given(seeds)
def test_a_refusal_says_when_to_come_back_exactly_where_its_reason_passes(seed: int) -> None:
    passing = {"down", "breaker_open", "told_to_wait", "busy", "memory_taken", "hold_full", "share_full", "too_late"}

    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if not decision.plan:
            passes = decision.why in passing
            if decision.why is Why.SESSION_ELSEWHERE:
                # As long as what keeps it from its own place does; with no rule against that, it is full.
                own = {c.excluded for c in router.candidates(request, now_s)} - {decision.why}
                passes = bool(own & {None, *passing})
            assert (decision.retry_after_s is not None) == passes
            assert decision.retry_after_s is None or decision.retry_after_s >= 1.0

    Storm(seed, check).run(200)


@pytest.mark.lengthy
@given(seeds)
def test_reading_changes_nothing(seed: int) -> None:
    storm = Storm(seed).run(100)
    router, now_s = storm.router, storm.now_s + 0.3
    asked = list(storm.requests.values())[-5:] + list(storm.held.values())
    before = [router.decide(r, now_s) for r in asked]
    state = bytes(router.snapshot())
    for request in asked:
        router.candidates(request, now_s + 1.0)
        router.due(now_s + 5.0)
        router.decide(request, now_s + 2.0)
    assert [router.decide(r, now_s) for r in asked] == before
    assert bytes(router.snapshot()) == state


@pytest.mark.lengthy
@given(seeds)
def test_a_router_restored_from_its_snapshot_goes_on_identically(seed: int) -> None:
    storm = Storm(seed).run(120)
    state = msgspec.json.decode(storm.router.snapshot(), type=State)
    restored = Router(storm.endpoints, storm.policy, state)
    requests = dict(storm.requests)
    storm.lines.clear()
    storm.run(60)
    for line in storm.lines:
        fact = line.fact
        if isinstance(fact, Request):
            requests[fact.id] = fact
        if isinstance(fact, Decision):
            assert restored.decide(requests[fact.request_id], line.at_s) == fact
        elif not isinstance(fact, Request) and fact.__struct_config__.tag != "segment":
            restored.observe(fact, line.at_s)  # type: ignore[arg-type]
    assert bytes(restored.snapshot()) == bytes(storm.router.snapshot())


@pytest.mark.lengthy
@given(seeds, st.permutations(range(5)))
def test_the_order_of_configuration_changes_no_choice(seed: int, order: list[int]) -> None:
    storm = Storm(seed).run(120)
    state = msgspec.json.decode(storm.router.snapshot(), type=State)
    shuffled = Router(tuple(storm.endpoints[i] for i in order), storm.policy, state)
    for request in storm.requests.values():
        assert shuffled.decide(request, storm.now_s) == storm.router.decide(request, storm.now_s)
    assert shuffled.due(storm.now_s) == storm.router.due(storm.now_s)


@pytest.mark.lengthy
@given(seeds)
def test_contributions_add_up_to_the_value(seed: int) -> None:
    storm = Storm(seed).run(80)
    for request in storm.requests.values():
        for candidate in storm.router.candidates(request, storm.now_s):
            if candidate.value_usd is not None:
                assert abs(sum(candidate.contributions_usd.values()) - candidate.value_usd) < 1e-12


@pytest.mark.lengthy
@given(seeds)
def test_candidates_name_each_endpoint_once_and_agree_with_the_refusal(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        found = router.candidates(request, now_s)
        assert sorted(c.endpoint for c in found) == ["cheap", "cloud", "desk", "lap", "paris"]
        if all(c.excluded is not None for c in found):
            assert waits(decision) or (decision.plan == () and decision.why in {c.excluded for c in found})

    Storm(seed, check).run(100)
