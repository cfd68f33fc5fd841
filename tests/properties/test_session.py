"""Laws of conversations: whatever happens, none of them is sent to another model than the one that answers it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties.storm import Storm
from tidegate.core import rules
from tidegate.core.model import Decision, Request
from tidegate.core.router import Router
from tidegate.core.session import PIN_S
from tidegate.core.state import State

seeds = st.integers(0, 10_000)


def at_home(router: Router, request: Request, now_s: float) -> str | None:
    """Where the conversation is at home, by the state alone; None where it may go anywhere."""
    pin = msgspec.json.decode(router.snapshot(), type=State).sessions.get(request.session)
    return None if pin is None or request.session_moves or now_s - pin.used_s >= PIN_S else pin.endpoint


@pytest.mark.lengthy
@given(seeds)
def test_no_step_of_a_plan_leaves_the_model_of_the_conversation_or_where_its_data_may_go(seed: int) -> None:
    def decided(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        home = at_home(router, request, now_s)
        for step in decision.plan:
            model = router.endpoint(step.endpoint)
            assert rules.may_go_to(request, model.endpoint)
            if home is not None:
                one, other = model.identity.fingerprint, router.endpoint(home).identity.fingerprint
                assert step.endpoint == home or (one.weights and one.weights == other.weights)

    Storm(seed, decided).run(120)


@given(seeds, st.integers(10, 100))
def test_a_router_of_a_snapshot_keeps_every_conversation_where_it_was(seed: int, steps: int) -> None:
    storm = Storm(seed).run(steps)
    state = msgspec.json.decode(storm.router.snapshot(), type=State)
    again = Router(storm.endpoints, storm.policy, state)
    for request in storm.requests.values():
        assert again.decide(request, storm.now_s) == storm.router.decide(request, storm.now_s)


@pytest.mark.lengthy
@given(seeds)
def test_conversations_change_nothing_for_requests_without_one(seed: int) -> None:
    storm = Storm(seed).run(100)
    state = msgspec.json.decode(storm.router.snapshot(), type=State)
    without = Router(storm.endpoints, storm.policy, msgspec.structs.replace(state, sessions={}, held={}))
    within = Router(storm.endpoints, storm.policy, msgspec.structs.replace(state, held={}))
    for request in storm.requests.values():
        if not request.session or request.session_moves:
            assert within.decide(request, storm.now_s) == without.decide(request, storm.now_s)


@pytest.mark.lengthy
def test_the_storms_have_conversations_that_are_kept_from_other_endpoints() -> None:
    kept = []

    def decided(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if at_home(router, request, now_s) is not None:
            kept.append(decision.why.value)

    for seed in range(20):
        Storm(seed, decided).run(120)
    assert {"only_continuing", "session_elsewhere"} <= set(kept)
