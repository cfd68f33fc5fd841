"""When the model fails, the static rule goes on: what is under way, held and set by hand is known all the same."""

from collections.abc import Callable

import pytest

from tests import make
from tidegate.core.dual import Dual
from tidegate.core.learned import Learned
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ending,
    Endpoint,
    Fact,
    Held,
    Judged,
    Line,
    ModelFailed,
    Observation,
    Overrides,
    Policy,
    Probed,
    Released,
    Request,
    Run,
    Segment,
)
from tidegate.core.replay import ReplayError, replay
from tidegate.core.router import Router
from tidegate.core.why import Why

ENDPOINTS = (make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False))
FAILED = ModelFailed(during="decide", error="IndexError at regression.py:1")


def broken(*names: str, policy: Policy | None = None, endpoints: tuple[Endpoint, ...] = ENDPOINTS) -> Router:
    """A router that knows something of these endpoints with which nothing can be predicted."""
    router = Router(endpoints, policy or make.policy())
    request = make.request("taught")
    for name in names:
        router.observe(make.started(request, name), 0.0)
        router.observe(make.ended("taught", name, ttft_s=0.5, output_tokens=10, prompt_tokens=200), 0.0)
        spoil(router, name)
    return Router(endpoints, policy or make.policy(), router.state)


def spoil(router: Router, name: str) -> None:
    learned = router.state.endpoints[name].ttft
    assert isinstance(learned, Learned)
    learned.sums.factors = []


def test_a_prediction_that_fails_is_raised_and_not_guessed() -> None:
    router = broken("cloud")
    with pytest.raises(IndexError):
        router.decide(make.request("r"), 1.0)


def test_the_static_rule_decides_once_it_is_known_that_the_model_failed_and_the_model_again_after_that() -> None:
    router = broken("cloud", policy=make.policy(static_s=1.0))
    router.observe(FAILED, 1.0)
    decision = router.decide(make.request("r"), 1.0)
    assert decision.why is Why.STATIC_RULE
    assert [step.endpoint for step in decision.plan] == ["laptop", "cloud"]
    assert router.decide(make.request("r"), 1.9).why is Why.STATIC_RULE
    with pytest.raises(IndexError):
        router.decide(make.request("r"), 2.1)


def test_even_where_it_is_to_take_over_for_no_time_the_static_rule_decides_what_failed() -> None:
    router = broken("cloud", policy=make.policy(static_s=0.0))
    router.observe(FAILED, 1.0)
    assert router.decide(make.request("r"), 1.0).why is Why.STATIC_RULE


def test_the_static_rule_fails_open_to_what_is_local_and_closed_on_residency() -> None:
    router = broken("laptop", "cloud")
    router.observe(FAILED, 1.0)
    router.observe(Probed(endpoint="laptop", up=False), 1.0)
    assert router.decide(make.request("free"), 1.0).plan[0] == Run(endpoint="cloud", timeout_s=40.0)
    kept = router.decide(make.request("kept", residency="local"), 1.0)
    assert (kept.plan, kept.why) == ((), Why.DOWN)


def test_what_is_sent_without_a_prediction_takes_its_place_and_gives_it_back() -> None:
    router = broken("laptop")
    with pytest.raises(IndexError):
        router.observe(make.started(make.request("r"), "laptop"), 1.0)
    assert router.endpoint("laptop").room == 0
    assert router.predicted_ttft_s("laptop", "r") is not None
    router.observe(make.ended("r", "laptop", ttft_s=0.5, output_tokens=5, prompt_tokens=200), 2.0)
    assert router.endpoint("laptop").room == 1
    assert router.endpoint("laptop")._context_tokens == 0


def test_of_a_prompt_whose_end_was_not_taken_in_nobody_waits() -> None:
    def ttft_s(router: Router) -> float:
        (found,) = [one for one in router.candidates(later, later.arrived_s) if one.endpoint == "laptop"]
        assert found.estimate is not None
        return found.estimate.ttft_s

    router, later = make.router(*ENDPOINTS), make.request("later", arrived_s=3600.0)
    usual_s = ttft_s(router)
    long = make.request("long", prompt_tokens=4000, prompt_bytes=16_000, arrived_s=10.0)
    router.observe(make.started(long, "laptop"), 10.0)
    router.endpoint("laptop").keep_books(make.ended("long", "laptop"), 11.0)
    assert ttft_s(router) == usual_s


def test_what_is_held_is_released_when_it_is_sent_without_a_prediction() -> None:
    router = broken("laptop")
    request = make.request("r", residency="local")
    router.observe(Held(request=request), 1.0)
    router.observe(FAILED, 1.0)
    assert [one.id for one in router.due(1.0)] == ["r"]
    with pytest.raises(IndexError):
        router.observe(make.started(request, "laptop"), 1.0)
    assert router.held == 0


@pytest.mark.parametrize(
    ("fact", "holds"),
    [
        (Overrides(static=True), lambda r: r.overrides.static),
        (Probed(endpoint="laptop", up=False), lambda r: not r.endpoint("laptop").state.up),
        (Released(request_id="waits"), lambda r: r.held == 0),
        (Held(request=make.request("new")), lambda r: r.held == 2),
        (Judged(request_id="waits", klass="chat", attainment=0.9), lambda r: r.state.overdue == {}),
        (FAILED, lambda r: r.decide(make.request("x"), 5.0).why is Why.STATIC_RULE),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_operators_probes_and_the_queue_say_holds_also_where_learning_fails(
    fact: Observation, holds: Callable[[Router], bool]
) -> None:
    """What classes with a target have learned is settled with every fact: spoiled, nothing is taken in any more."""
    router = Router(ENDPOINTS, make.policy())
    waits = make.request("waits", attainment=0.9, ttft_s=3.0)
    router.observe(Held(request=waits), 0.0)
    router.state.duals["chat"] = Dual(level=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        router.observe(fact, 5.0)
    assert holds(router)


def test_a_trial_of_a_breaker_that_ended_while_the_model_failed_does_not_block_for_ever() -> None:
    router = broken("cloud")
    for n in range(3):
        with pytest.raises(IndexError):
            router.observe(make.started(make.request(f"f{n}"), "cloud"), 1.0)
    for n in range(3):
        router.observe(make.ended(f"f{n}", "cloud", ending=Ending.FAILED), 1.0)
    breaker = router.endpoint("cloud").state.breaker
    assert breaker.blocks(1.0)
    with pytest.raises(IndexError):
        router.observe(make.started(make.request("trial"), "cloud"), 60.0)
    assert breaker.trial == "trial"
    router.observe(make.ended("trial", "cloud"), 61.0)
    assert not breaker.blocks(61.0)


def journal(router: Router, *facts: Fact) -> list[Line]:
    segment = Segment(
        version=JOURNAL_VERSION,
        software="test",
        policy=make.policy(),
        endpoints=ENDPOINTS,
        state=router.snapshot(),
    )
    return [Line(at_s=10.0, fact=segment), *(Line(at_s=10.0, fact=fact) for fact in facts)]


def fallen_back(router: Router, request: Request) -> tuple[list[Line], Decision]:
    lines = journal(router, request, FAILED)
    router.observe(FAILED, 10.0)
    decision = router.decide(request, 10.0)
    return [*lines, Line(at_s=10.0, fact=decision)], decision


def test_a_decision_of_the_static_rule_after_a_failure_replays() -> None:
    lines, decision = fallen_back(broken("cloud"), make.request("r", arrived_s=10.0))
    assert decision.why is Why.STATIC_RULE
    found = replay(lines)
    assert found.difference is None
    assert found.decisions == 1


def test_a_fact_that_was_not_taken_in_fails_again_and_replay_goes_on_as_the_gateway_did() -> None:
    router, request = broken("laptop", "cloud"), make.request("r", arrived_s=10.0)
    lines, decision = fallen_back(router, request)
    started = make.started(request, decision.plan[0].endpoint)
    with pytest.raises(IndexError):
        router.observe(started, 10.0)
    router.observe(FAILED, 10.0)
    other = make.request("other", arrived_s=10.0)
    after = router.decide(other, 10.0)
    assert after.plan[0] != decision.plan[0]  # its slot is taken
    lines += [Line(at_s=10.0, fact=fact) for fact in (started, FAILED, other, after)]
    assert replay(lines).difference is None


def test_a_failure_that_is_not_taken_in_whole_either_is_told_once_and_replays() -> None:
    """Where all are to be kept, what is learned of one that is missed divides by nothing."""
    router = Router(ENDPOINTS, make.policy())
    for name in ("one", "two"):
        router.observe(Held(request=make.request(name, attainment=1.0, ttft_s=3.0)), 0.0)
    seen, request = Probed(endpoint="laptop", up=True), make.request("r", arrived_s=10.0)
    lines = journal(router, seen, FAILED)
    for fact in (seen, FAILED):
        with pytest.raises(ZeroDivisionError):
            router.observe(fact, 10.0)
    router.observe(seen, 10.0)
    decision = router.decide(request, 10.0)
    assert decision.why is Why.STATIC_RULE
    lines += [Line(at_s=10.0, fact=fact) for fact in (seen, request, decision)]
    assert replay(lines).difference is None


def test_a_fact_that_fails_in_replay_alone_is_an_error_that_says_so() -> None:
    request = make.request("r", arrived_s=10.0)
    lines = journal(broken("laptop"), make.started(request, "laptop"), Overrides())
    with pytest.raises(ReplayError, match="replay it with the software that wrote it"):
        replay(lines)


def test_a_refusal_that_no_rule_made_is_passed_over_in_replay() -> None:
    request = make.request("r", arrived_s=10.0)
    refused = Decision(request_id="r", plan=(), why=Why.MODEL_FAILED, retry_after_s=1.0)
    assert replay(journal(broken("cloud"), request, FAILED, refused)).difference is None
