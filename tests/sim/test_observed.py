"""What a journal tells of requests is what they came to, and of attempts what they were."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from tests import make as core
from tests.sim.days import Stage
from tidegate.core.health import CLIENT_ERROR, CONTEXT_EXCEEDED, OF_THE_REQUEST
from tidegate.core.model import (
    JOURNAL_VERSION,
    Capability,
    Decision,
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Line,
    Overrides,
    Prefill,
    Probed,
    Released,
    Request,
    Run,
    Segment,
    Shipped,
    Slo,
    Wait,
    replace,
)
from tidegate.core.replay import ReplayError
from tidegate.core.resume import narrowed
from tidegate.core.why import Why
from tidegate.sim import observed
from tidegate.sim.observed import LEFT, Observed, ObservedError, known, observe

CLOUD = core.endpoint("cloud", local=False)
RACK = core.endpoint("rack", local=False)


def header(*endpoints: Endpoint, at_s: float = 0.0, follows: bool = False) -> Line:
    router = core.router(*(endpoints or (CLOUD,)))
    segment = Segment(
        version=JOURNAL_VERSION,
        software="t",
        policy=router.policy,
        endpoints=router.endpoints,
        state=router.snapshot(),
        follows=follows,
    )
    return Line(at_s=at_s, fact=segment)


def of(*facts: tuple[float, object]) -> Observed:
    return observe([header(), *(Line(at_s=at_s, fact=fact) for at_s, fact in facts)])  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", [False, True])
def test_outcomes_are_told_as_they_were(trouble: bool) -> None:
    stage = Stage(5, trouble=trouble)
    found = {one.request.id: one.outcome for one in observe(stage.lines).asked}
    for real in stage.world.outcomes:
        if real.outcome == "timed_out":
            continue
        told = found[real.request.id]
        assert told.outcome == real.outcome
        assert told.usd == pytest.approx(real.usd)
        if real.outcome == "ok":
            assert (told.endpoint, told.output_tokens) == (real.endpoint, real.output_tokens)
            assert told.ttft_s == pytest.approx(real.ttft_s)
            assert told.e2e_s == pytest.approx(real.e2e_s)
            assert told.kept == real.kept


def test_a_journal_tells_who_was_refused_for_ever_as_its_world_does() -> None:
    kinds = set()
    for seed in (1, 2):
        stage = Stage(seed, trouble=True)
        told = {one.request.id: one.outcome for one in observe(stage.lines).asked}
        refused = [one for one in stage.world.outcomes if one.outcome == "refused"]
        assert all(told[one.request.id].refused_for_ever == one.refused_for_ever for one in refused)
        kinds |= {(one.refused_for_ever, one.judged) for one in refused}
    assert kinds == {(True, None), (False, False)}


def test_requests_come_in_the_order_of_their_arrival() -> None:
    asked = observe(Stage(2).lines).asked
    assert all(one.request.arrived_s <= other.request.arrived_s for one, other in pairwise(asked))


def test_who_knows_the_end_knows_what_was_known_then() -> None:
    stage = Stage(3)
    assert known(stage.lines).snapshot() == stage.world.router.snapshot()


def test_a_client_that_went_away_left_and_one_that_was_refused_was_refused() -> None:
    router, request = core.router(CLOUD), core.request("r")
    refused = replace(request, id="s", residency=("local",))
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (1.0, FirstToken(request_id="r", endpoint="cloud", ttft_s=1.0)),
        (2.0, Ended(request_id="r", endpoint="cloud", ending=Ending.CANCELLED, e2e_s=2.0, ttft_s=1.0, output_tokens=7)),
        (3.0, refused),
        (3.0, router.decide(refused, 3.0)),
    )
    left, away = found.asked
    assert (left.outcome.outcome, left.seen, left.whole) == (LEFT, 7, False)
    assert (away.outcome.outcome, away.outcome.usd) == ("refused", 0.0)


@pytest.mark.parametrize("cause", ["ledger", "internal", "no_form"])
def test_what_came_to_nothing_in_the_gateway_itself_has_failed_and_its_client_has_not_left(cause: str) -> None:
    router, request = core.router(CLOUD), core.request("r")
    (one,) = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (2.0, Ended(request_id="r", endpoint="cloud", ending=Ending.CANCELLED, e2e_s=2.0, cause=cause)),
    ).asked
    assert one.outcome.outcome == "failed"


@pytest.mark.parametrize(
    ("needs", "output_tokens", "whole"),
    [((), 7, True), ((), None, False), ((Capability.EMBEDDING,), None, True)],
    ids=["told", "not told", "embedding"],
)
def test_of_an_answer_that_does_not_say_what_it_took_nobody_knows_how_long_it_was(
    needs: tuple[Capability, ...], output_tokens: int | None, whole: bool
) -> None:
    request = core.request("r", needs=needs, stream=False)
    (one,) = of(
        (0.0, request),
        (0.0, Decision(request_id="r", plan=(Run(endpoint="cloud", timeout_s=9.0),), why=Why.CHEAPEST_ON_TIME)),
        (0.0, core.started(request, "cloud")),
        (2.0, core.ended("r", "cloud", e2e_s=2.0, output_tokens=output_tokens)),
    ).asked
    assert (one.outcome.outcome, one.whole) == ("ok", whole)


def test_an_answer_whose_rest_was_asked_for_is_one() -> None:
    router, request = core.router(CLOUD), core.request("r")
    rest = replace(request, said_tokens=5, prompt_tokens=205)
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (1.0, FirstToken(request_id="r", endpoint="cloud", ttft_s=1.0)),
        (2.0, Ended(request_id="r", endpoint="cloud", ending=Ending.FAILED, e2e_s=2.0, ttft_s=1.0, output_tokens=5)),
        (2.0, rest),
        (2.0, router.decide(rest, 2.0)),
        (2.0, core.started(rest, "cloud")),
        (3.0, FirstToken(request_id="r", endpoint="cloud", ttft_s=1.0)),
        (4.0, Ended(request_id="r", endpoint="cloud", ending=Ending.OK, e2e_s=2.0, ttft_s=1.0, output_tokens=6)),
    )
    (one,) = found.asked
    assert (one.outcome.outcome, one.seen, one.outcome.ttft_s, one.outcome.e2e_s) == ("ok", 11, 1.0, 4.0)
    assert one.request == request
    assert len(found.attempts["cloud"]) == 2


def test_what_was_away_and_hands_on_the_wheel_are_told() -> None:
    found = of(
        (1.0, Probed(endpoint="cloud", up=False)),
        (3.0, Probed(endpoint="cloud", up=False)),
        (6.0, Probed(endpoint="cloud", up=True)),
        (8.0, Overrides(static=True)),
        (9.0, Probed(endpoint="cloud", up=False)),
        (10.0, Overrides()),
    )
    assert [(one.at_s, one.for_s) for one in found.down] == [(1.0, 5.0), (9.0, 1.0)]
    assert found.overridden == 2


def test_who_could_not_be_sent_to_everybody_could_not_be_whatever_is_played_again() -> None:
    request = core.request("r")
    told = narrowed(request, ("rack",))
    rest = replace(narrowed(request, ("cloud",)), said_tokens=3)
    ok = Ended(request_id="r", endpoint="cloud", ending=Ending.OK, e2e_s=1.0, output_tokens=5)
    decided = core.router(CLOUD).decide(request, 0.0)
    sent = [(0.0, core.started(request, "cloud")), (1.0, ok)]
    (one,) = of((0.0, request), (0.0, decided), (0.0, told), *sent).asked
    assert one.request == told
    (one,) = of((0.0, request), (0.0, decided), (0.0, rest), *sent).asked
    assert one.request == request


OURS = core.endpoint("ours")


def asked(*facts: tuple[float, object]) -> Request:
    """What one request asks for in the day that is played again, of a journal with three endpoints."""
    lines = [header(CLOUD, RACK, OURS), *(Line(at_s=at_s, fact=fact) for at_s, fact in facts)]  # type: ignore[arg-type]
    (one,) = observe(lines).asked
    return one.request


def plan(*steps: str | Prefill) -> Decision:
    runs = (Run(endpoint=step, timeout_s=60.0) if isinstance(step, str) else step for step in steps)
    return Decision(request_id="r", plan=tuple(runs), why=Why.CHEAPEST_ON_TIME)


def tried(
    request: Request, endpoint: str, at_s: float = 0.0, ending: Ending = Ending.OK, cause: str = ""
) -> list[tuple[float, object]]:
    """An attempt of a second."""
    tokens = 5 if ending is Ending.OK else None
    ended = core.ended("r", endpoint, ending=ending, cause=cause, output_tokens=tokens)
    return [(at_s, core.started(request, endpoint)), (at_s + 1.0, ended)]


def failed(request: Request, endpoint: str) -> list[tuple[float, object]]:
    return tried(request, endpoint, 0.0, Ending.FAILED, "status_500")


@pytest.mark.parametrize("limit", [{}, {"budget_usd": 5.0}, {"cost_usd_max": 1.0}], ids=str)
def test_who_was_first_in_a_plan_and_was_not_asked_cannot_be_whatever_is_played_again(limit: dict[str, Any]) -> None:
    request = core.request("r", **limit)
    found = asked((0.0, request), (0.0, plan("cloud", "rack")), *tried(request, "rack"))
    assert found == narrowed(request, ("ours", "rack"))
    # Behind one that was asked, it may be for want of what that one took.
    found = asked(
        (0.0, request),
        (0.0, plan("ours", "cloud", "rack")),
        *failed(request, "ours"),
        *tried(request, "rack", 1.0),
    )
    assert found == (request if limit else narrowed(request, ("ours", "rack")))
    # What is free is never passed over for that.
    found = asked(
        (0.0, request),
        (0.0, plan("cloud", "ours", "rack")),
        *failed(request, "cloud"),
        *tried(request, "rack", 1.0),
    )
    assert found == narrowed(request, ("cloud", "rack"))


def test_a_reason_that_passes_is_none_when_it_is_played_again() -> None:
    request, drained = core.request("r"), Overrides(drained=("cloud",))
    broken, served = failed(request, "ours"), tried(request, "rack", 1.0)
    # Operators have taken it out of the plan meanwhile, or a reload has.
    for meanwhile in (drained, header(CLOUD, RACK, OURS, follows=True).fact):
        decided = [(0.0, plan("ours", "cloud", "rack")), (0.5, meanwhile)]
        assert asked((0.0, request), decided[0], broken[0], decided[1], broken[1], *served) == request
    # There was no slot in which to compute the prompt alone.
    step = Prefill(endpoint="cloud", target="ours", timeout_s=60.0)
    assert asked((0.0, request), (0.0, plan(step, "rack")), *tried(request, "rack")) == request
    # It was asked after all, when its turn came again.
    again = [(1.0, plan("cloud")), *tried(request, "cloud", 1.0)]
    found = asked((0.0, request), (0.0, plan("cloud", "rack")), *failed(request, "rack"), *again)
    assert found == request


def test_who_could_not_be_sent_the_rest_of_an_answer_might_have_given_all_of_it() -> None:
    request = core.request("r")
    rest = replace(request, said_tokens=5, prompt_tokens=205)
    broke = Ended(request_id="r", endpoint="ours", ending=Ending.FAILED, e2e_s=1.0, ttft_s=0.5, output_tokens=5)
    begun = [(0.0, request), (0.0, plan("ours")), (0.0, core.started(request, "ours")), (1.0, broke), (1.0, rest)]
    assert asked(*begun, (1.0, plan("cloud", "rack")), *tried(rest, "rack", 1.0)) == request
    too_long = tried(rest, "cloud", 1.0, Ending.REFUSED, CONTEXT_EXCEEDED)
    assert asked(*begun, (1.0, plan("cloud", "rack")), *too_long, *tried(rest, "rack", 2.0)) == request


@pytest.mark.parametrize("cause", OF_THE_REQUEST)
def test_who_found_it_too_long_or_unfit_finds_it_so_whatever_is_played_again(cause: str) -> None:
    request = core.request("r")
    decided = [(0.0, request), (0.0, plan("cloud", "rack"))]
    served = tried(request, "rack", 1.0)
    assert asked(*decided, *tried(request, "cloud", 0.0, Ending.REFUSED, cause), *served) == narrowed(
        request, ("ours", "rack")
    )
    # Of what was told of a KV cache that was to be used, nothing is known of the request.
    shipped = replace(request, shipped="rack>cloud")
    assert asked(*decided, *tried(shipped, "cloud", 0.0, Ending.REFUSED, cause), *served) == request
    # What the gateway says itself of where it can be sent holds, too.
    told = narrowed(request, ("rack", "cloud"))
    decided = [*decided, (0.5, told), (0.5, plan("cloud", "rack"))]
    assert asked(*decided, *tried(told, "cloud", 0.5, Ending.REFUSED, cause), *served) == narrowed(request, ("rack",))


@pytest.mark.parametrize("waited", [False, True])
def test_what_no_endpoint_could_be_sent_is_the_fault_of_the_request_or_was_refused_for_want_of_money(
    waited: bool,
) -> None:
    request = core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    before = [(0.0, request), *([(0.0, waits), (0.0, Held(request=request))] if waited else []), (1.0, plan("cloud"))]
    passed_over = [(1.0, Released(request_id="r"))] if waited else []
    found = of(*before, *passed_over, (1.0, Released(request_id="r", cause=CLIENT_ERROR)))
    assert (found.asked, found.client_errors) == ([], 1)
    (one,) = of(*before, *passed_over, (1.0, Released(request_id="r", cause=Why.OVER_BUDGET))).asked
    # As in the gateway's metrics, nobody could have kept its promise.
    assert (one.outcome.outcome, one.outcome.e2e_s, one.outcome.judged) == ("refused", 1.0, None)
    assert core.router(CLOUD).decide(one.request, 0.0).why is Why.OVER_BUDGET


def test_what_could_not_be_paid_for_after_another_one_failed_is_asked_as_it_came() -> None:
    request = core.request("r", budget_usd=1.0)
    (one,) = of(
        (0.0, request),
        (0.0, plan("cloud", "rack")),
        *failed(request, "cloud"),
        (1.0, Released(request_id="r", cause=Why.OVER_BUDGET)),
    ).asked
    assert (one.outcome.outcome, one.request) == ("refused", request)


@pytest.mark.parametrize("stream", [True, False])
def test_first_content_of_an_answer_in_one_piece_is_that_of_who_gave_it(stream: bool) -> None:
    request = replace(core.request("r"), stream=stream)
    broke = Ended(request_id="r", endpoint="cloud", ending=Ending.FAILED, e2e_s=0.5, ttft_s=0.2, cause="reset")
    asked = [(0.0, request), (0.0, core.router(CLOUD).decide(request, 0.0)), (0.0, core.started(request, "cloud"))]
    asked += [(0.2, FirstToken(request_id="r", endpoint="cloud", ttft_s=0.2)), (0.5, broke)]
    ok = Ended(request_id="r", endpoint="rack", ending=Ending.OK, e2e_s=1.5, ttft_s=1.0, output_tokens=5)
    again = [(0.5, core.started(request, "rack")), (1.5, FirstToken(request_id="r", endpoint="rack", ttft_s=1.0))]
    (failed,) = of(*asked, (9.0, Probed(endpoint="cloud", up=True))).asked
    (answered,) = of(*asked, *again, (2.0, ok)).asked
    assert failed.outcome.outcome == ("failed_mid_stream" if stream else "failed")
    assert answered.outcome.ttft_s == (0.2 if stream else 1.5)


@pytest.mark.parametrize(("cause", "came"), [("", LEFT), ("request_timeout", "failed")])
def test_who_leaves_while_he_waits_has_left_and_who_was_given_up_or_no_step_would_take_has_failed(
    cause: str, came: str
) -> None:
    router, request = core.router(CLOUD), core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    other = replace(request, id="s", arrived_s=5.0)
    found = of(
        (0.0, request),
        (0.0, waits),
        (0.0, Held(request=request)),
        (4.0, Released(request_id="r", cause=cause)),
        # Held back, or said in no dialect: every step is passed over, and nothing is sent.
        (5.0, other),
        (5.0, router.decide(other, 5.0)),
        (6.0, Probed(endpoint="cloud", up=True)),
    )
    left, failed = found.asked
    assert (left.outcome.outcome, left.outcome.e2e_s, left.seen) == (came, 4.0, 0)
    assert (failed.outcome.outcome, failed.outcome.e2e_s, failed.outcome.usd) == ("failed", 0.0, 0.0)


@pytest.mark.parametrize(("cause", "came"), [("", LEFT), ("request_timeout", "failed")])
@pytest.mark.parametrize("fault", ["rate_limited", CONTEXT_EXCEEDED])
@pytest.mark.parametrize("again", [False, True], ids=["as planned", "decided again"])
def test_who_leaves_while_he_is_held_after_a_failed_attempt_has_left(
    cause: str, came: str, fault: str, again: bool
) -> None:
    request, waits = core.request("r"), Wait(endpoint="rack", until_s=9.0)
    plan = (Run(endpoint="cloud", timeout_s=60.0), waits)
    looked = Decision(request_id="r", plan=(waits,), why=Why.WAITS_FOR_SLOT)
    found = of(
        (0.0, request),
        (0.0, Decision(request_id="r", plan=plan, why=Why.CHEAPEST_ON_TIME)),
        (0.0, core.started(request, "cloud")),
        (0.5, Ended(request_id="r", endpoint="cloud", ending=Ending.REFUSED, e2e_s=0.5, cause=fault)),
        (0.5, Held(request=request)),
        *([(1.0, looked)] if again else []),
        (1.5, Released(request_id="r", cause=cause)),
    )
    (one,) = found.asked
    assert (one.outcome.outcome, one.outcome.e2e_s, found.client_errors) == (came, 1.5, 0)


def test_a_step_that_is_passed_over_after_a_hold_is_no_client_that_left() -> None:
    router, request = core.router(CLOUD), core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    (one,) = of(
        (0.0, request),
        (0.0, waits),
        (0.0, Held(request=request)),
        (1.0, router.decide(request, 1.0)),
        (1.0, Released(request_id="r")),
    ).asked
    assert one.outcome.outcome == "failed"


@pytest.mark.parametrize(("cause", "came"), [("", LEFT), ("request_timeout", "failed")])
def test_who_leaves_while_he_is_held_behind_a_step_that_is_passed_over_has_left(cause: str, came: str) -> None:
    request, waits = core.request("r"), Wait(endpoint="rack", until_s=9.0)
    looked = Decision(request_id="r", plan=(Run(endpoint="cloud", timeout_s=60.0), waits), why=Why.CHEAPEST_ON_TIME)
    (one,) = of(
        (0.0, request),
        (0.0, Decision(request_id="r", plan=(waits,), why=Why.WAITS_FOR_SLOT)),
        (0.0, Held(request=request)),
        (1.0, looked),
        (1.0, Released(request_id="r")),
        (1.0, Held(request=request)),
        (2.0, looked),
        (3.5, Released(request_id="r", cause=cause)),
    ).asked
    assert (one.outcome.outcome, one.outcome.e2e_s) == (came, 3.5)


def test_who_still_waits_when_the_journal_ends_has_no_end_and_is_counted() -> None:
    request = core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    found = of((0.0, request), (0.0, waits), (0.0, Held(request=request)))
    assert (found.asked, found.unended) == ([], 1)


def test_what_was_under_way_when_its_process_died_is_counted() -> None:
    router, request = core.router(CLOUD), core.request("r")
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (9.0, header().fact),
    )
    assert (found.asked, found.unended) == ([], 1)


UNDER_WAY: dict[str, Callable[[Request], list[tuple[float, object]]]] = {
    "the next attempt": lambda request: [*failed(request, "cloud"), (1.0, core.started(request, "rack"))],
    "a hedge that has won": lambda request: [
        (0.0, core.started(request, "cloud")),
        (1.0, core.started(request, "rack", hedge=True)),
        (1.5, FirstToken(request_id="r", endpoint="rack", ttft_s=0.5)),
        (1.5, Ended(request_id="r", endpoint="cloud", ending=Ending.CANCELLED, e2e_s=1.5)),
    ],
    "the hold after a failure": lambda request: [*failed(request, "cloud"), (1.0, Held(request=request))],
}


@pytest.mark.parametrize("ends", ["the journal", "a process"])
@pytest.mark.parametrize("goes_on", UNDER_WAY)
def test_what_goes_on_at_the_end_has_no_end_whatever_ended_before(goes_on: str, ends: str) -> None:
    request = core.request("r")
    restart = () if ends == "the journal" else ((9.0, header().fact),)
    found = of((0.0, request), (0.0, plan("cloud", "rack")), *UNDER_WAY[goes_on](request), *restart)
    assert (found.asked, found.unended) == ([], 1)


def test_what_asked_for_several_answers_is_counted_and_in_nothing() -> None:
    router, request = core.router(CLOUD), core.request("r", completions=3)
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (1.0, FirstToken(request_id="r", endpoint="cloud", ttft_s=1.0)),
        (2.0, Ended(request_id="r", endpoint="cloud", ending=Ending.OK, e2e_s=2.0, ttft_s=1.0, output_tokens=30)),
    )
    assert (found.asked, found.several) == ([], 1)


@pytest.mark.parametrize(
    ("ending", "cause"), [(Ending.OK, CLIENT_ERROR), (Ending.REFUSED, CONTEXT_EXCEEDED)], ids=["wrong", "too long"]
)
def test_what_failed_by_its_own_fault_is_counted_and_in_nothing(ending: Ending, cause: str) -> None:
    router, request = core.router(CLOUD), core.request("r")
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (0.1, Ended(request_id="r", endpoint="cloud", ending=ending, e2e_s=0.1, cause=cause)),
    )
    assert (found.asked, found.client_errors) == ([], 1)


def test_what_is_found_wrong_after_another_one_failed_is_at_fault() -> None:
    request = core.request("r")
    wrong = tried(request, "cloud", 1.0, Ending.OK, CLIENT_ERROR)
    found = of((0.0, request), (0.0, plan("rack", "cloud")), *failed(request, "rack"), *wrong)
    assert (found.asked, found.client_errors) == ([], 1)


def test_who_is_refused_after_a_prompt_that_was_too_long_was_refused() -> None:
    router, request = core.router(CLOUD), core.request("r")
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (0.1, Ended(request_id="r", endpoint="cloud", ending=Ending.REFUSED, e2e_s=0.1, cause=CONTEXT_EXCEEDED)),
        (0.1, Decision(request_id="r", plan=(), why=Why.CONTEXT_TOO_LONG)),
    )
    (one,) = found.asked
    assert (one.outcome.outcome, found.client_errors) == ("refused", 0)


def test_a_hedge_beside_a_request_that_is_wrong_is_no_client_that_left() -> None:
    router, request = core.router(CLOUD, RACK), core.request("r")
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (0.1, core.started(request, "rack", hedge=True)),
        (0.2, Ended(request_id="r", endpoint="cloud", ending=Ending.OK, e2e_s=0.2, cause=CLIENT_ERROR)),
        (0.2, Ended(request_id="r", endpoint="rack", ending=Ending.CANCELLED, e2e_s=0.1)),
    )
    assert (found.asked, found.client_errors) == ([], 1)


def test_what_another_endpoint_could_serve_after_all_was_served() -> None:
    router, request = core.router(CLOUD), core.request("r")
    found = of(
        (0.0, request),
        (0.0, router.decide(request, 0.0)),
        (0.0, core.started(request, "cloud")),
        (0.1, Ended(request_id="r", endpoint="cloud", ending=Ending.REFUSED, e2e_s=0.1, cause=CONTEXT_EXCEEDED)),
        (0.1, core.started(request, "cloud")),
        (1.0, FirstToken(request_id="r", endpoint="cloud", ttft_s=0.9)),
        (2.0, Ended(request_id="r", endpoint="cloud", ending=Ending.OK, e2e_s=1.9, ttft_s=0.9, output_tokens=7)),
    )
    (one,) = found.asked
    assert (one.outcome.outcome, one.whole, found.client_errors) == ("ok", True, 0)


def test_what_came_under_another_configuration_is_left_out() -> None:
    router, request = core.router(CLOUD), core.request("r")
    facts = (
        request,
        router.decide(request, 0.0),
        core.started(request, "cloud"),
        FirstToken(request_id="r", endpoint="cloud", ttft_s=0.0),
        Ended(request_id="r", endpoint="cloud", ending=Ending.OK, e2e_s=0.0, ttft_s=0.0, output_tokens=1),
    )
    later = [replace(fact, **{"id": "s"} if fact is request else {"request_id": "s"}) for fact in facts]
    first = header()
    assert isinstance(first.fact, Segment)
    cheaper = replace(first.fact, endpoints=(replace(CLOUD, concurrency=3),))
    lines = [first, *(Line(at_s=0.0, fact=fact) for fact in facts), Line(at_s=50.0, fact=cheaper)]
    found = observe([*lines, *(Line(at_s=60.0, fact=fact) for fact in later)])
    assert [one.request.id for one in found.asked] == ["s"]
    assert (found.before, found.start_s, found.endpoints[0].concurrency) == (1, 50.0, 3)


def other_header(at_s: float) -> Line:
    first = header(at_s=at_s)
    assert isinstance(first.fact, Segment)
    return replace(first, fact=replace(first.fact, endpoints=(replace(CLOUD, concurrency=3),)))


def test_a_configuration_under_which_nobody_asked_for_anything_decides_nothing() -> None:
    asked = [*story(1, ok=True), *story(2, ok=True)]
    # Whoever left this could not start, or was only probing.
    left = [other_header(1.5), Line(at_s=1.6, fact=Probed(endpoint="cloud", up=False)), other_header(1.7)]
    alone, beside = observe([header(), *asked]), observe([header(), *asked, *left])
    assert beside == alone
    assert [one.request.id for one in beside.asked] == ["r1", "r2"]
    # Nor does what is decided again of who has been held since before it, and what goes on goes on.
    (request, *rest) = story(2, ok=True)
    on = [header(), request, other_header(2.0), *rest, header(at_s=9.0), *story(10, ok=True)]
    assert [(one.request.id, one.outcome.outcome) for one in observe(on).asked] == [("r2", "ok"), ("r10", "ok")]
    # It counts for what came after it all the same.
    again = observe([header(), *asked, *left, header(at_s=3.0), *story(4, ok=True)])
    assert [one.request.id for one in again.asked] == ["r1", "r2", "r4"]
    assert (again.endpoints, again.before) == (alone.endpoints, 0)


def test_an_answer_that_broke_off_is_not_refused_for_ever_though_nobody_may_give_the_rest() -> None:
    request = core.request("r")
    rest = replace(request, said_tokens=7, prompt_tokens=request.prompt_tokens + 7)
    broken = Ended(request_id="r", endpoint="cloud", ending=Ending.FAILED, e2e_s=2.0, ttft_s=0.5, output_tokens=7)
    facts = (request, core.router(CLOUD).decide(request, 0.0), core.started(request, "cloud"), broken, rest)
    refusal = Decision(request_id="r", plan=(), why=Why.CONTEXT_TOO_LONG)
    (one,) = observe([header(), *(Line(at_s=0.1, fact=fact) for fact in (*facts, refusal))]).asked
    assert one.outcome.judged is False


def test_a_configuration_counts_from_its_header_with_what_was_probed_before_anybody_asked() -> None:
    probes = [Line(at_s=at_s, fact=Probed(endpoint="cloud", up=up)) for at_s, up in ((51.0, False), (53.0, True))]
    found = observe([header(), *story(1, ok=True), other_header(50.0), *probes, *story(60, ok=True)])
    assert ([one.request.id for one in found.asked], found.before, found.start_s) == (["r60"], 1, 50.0)
    assert [(one.endpoint, one.at_s, one.for_s) for one in found.down] == [("cloud", 51.0, 2.0)]


def test_runs_that_took_requests_at_the_same_time_are_told_of() -> None:
    first = [header(), *story(1, ok=True), *story(50, ok=True)]
    assert observe([*first, header(at_s=10.0), *story(20, ok=True)]).overlapping == 2
    assert observe([*first, header(at_s=60.0), *story(70, ok=True)]).overlapping == 0


def test_who_was_refused_for_ever_says_nothing_of_promises_and_who_may_come_back_was_let_down() -> None:
    lines = [header()]
    for name, retry_after_s in (("never", None), ("later", 5.0)):
        refusal = Decision(request_id=name, plan=(), why=Why.DOWN, retry_after_s=retry_after_s)
        lines += [Line(at_s=1.0, fact=fact) for fact in (core.request(name), refusal)]
    found = {one.request.id: one.outcome for one in observe(lines).asked}
    assert {one.outcome for one in found.values()} == {"refused"}
    assert (found["never"].judged, found["later"].judged) == (None, False)
    assert not found["never"].kept


def test_of_a_long_journal_the_last_requests_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "REQUESTS_MAX", 20)
    found = observe(Stage(5, count=60).lines)
    assert 20 <= len(found.asked) < 40
    assert found.before == 60 - len(found.asked)


def story(number: int, *, ok: bool) -> list[Line]:
    """One request that came at the second of its `number`, and what came of it a tenth later."""
    at_s, request = float(number), core.request(f"r{number}", arrived_s=float(number))
    decision = Decision(request_id=request.id, plan=(Run(endpoint="cloud", timeout_s=9.0),), why=Why.CHEAPEST_ON_TIME)
    ending = Ending.OK if ok else Ending.FAILED
    end = core.ended(request.id, "cloud", ending=ending, e2e_s=0.1, output_tokens=3 if ok else None)
    lines = [Line(at_s=at_s, fact=fact) for fact in (request, decision, core.started(request, "cloud"))]
    return [*lines, Line(at_s=at_s + 0.1, fact=end)]


def test_of_a_long_journal_nothing_is_left_that_was_before_the_last_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "REQUESTS_MAX", 10)
    lines = [header()]
    for number in range(3, 63):
        if number == 40:
            learned = core.router(CLOUD)
            learned.observe(Probed(endpoint="cloud", up=False), 40.0)
            head = header(at_s=40.0, follows=True)
            assert isinstance(head.fact, Segment)
            lines.append(Line(at_s=40.0, fact=replace(head.fact, state=learned.snapshot())))
        lines += story(number, ok=number % 2 == 0)
    lines[1:1] = [Line(at_s=1.0, fact=Probed(endpoint="cloud", up=up)) for up in (False, True)]
    found = observe(lines)
    numbers = [int(one.request.arrived_s) for one in found.asked]
    # Those that failed are let go as those that were served are.
    assert numbers == list(range(numbers[0], 63))
    assert 10 <= len(numbers) < 20
    assert (found.start_s, found.before) == (float(numbers[0]), numbers[0] - 3)
    assert all(one.sent_s >= found.start_s for one in found.attempts["cloud"])
    assert found.down == []
    # What was known then is told by the last header before that.
    assert not found.state.endpoints["cloud"].up


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_over_with_its_process_is_told_of_however_long_the_journal_is(
    monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    monkeypatch.setattr(observed, "REQUESTS_MAX", 10)
    slow = [story(number, ok=False) for number in (1, 2)]
    lines = [header(), *(line for one in slow for line in one[:-1])]
    for number in range(3, 22):
        lines += story(number, ok=True)
    lines += [Line(at_s=22.0, fact=one[-1].fact) for one in slow]
    after = [header(at_s=22.0), *story(23, ok=True), *story(24, ok=True)] if restarted else []
    found = observe(lines + after)
    assert len(found.asked) >= 10
    assert len(found.asked) + found.before == 21 + len(after) // 4


def test_an_embedding_is_seen_when_it_is_there() -> None:
    request = core.request("r", needs=(Capability.EMBEDDING,), stream=False, slo=Slo(ttft_s=2.0))
    found = of(
        (0.0, request),
        (1.0, Decision(request_id="r", plan=(Run(endpoint="cloud", timeout_s=9.0),), why=Why.CHEAPEST_ON_TIME)),
        (1.0, core.started(request, "cloud")),
        (4.0, core.ended("r", "cloud", e2e_s=3.0, ttft_s=3.0)),
    )
    (one,), (attempt,) = found.asked, found.attempts["cloud"]
    assert (one.outcome.ttft_s, one.outcome.judged, attempt.ttft_s) == (4.0, False, 3.0)


def test_a_failure_is_over_when_nobody_goes_on_with_it() -> None:
    lines = [header(), *story(0, ok=False)]
    again = core.started(core.request("r0"), "cloud")
    end = core.ended("r0", "cloud", e2e_s=0.4, output_tokens=3)
    (saved,) = observe([*lines, Line(at_s=0.1, fact=again), Line(at_s=5.0, fact=end)]).asked
    assert (saved.outcome.outcome, saved.outcome.attempts) == ("ok", 2)
    # So much later, it is another attempt at what is over.
    late = [Line(at_s=2.0, fact=Probed(endpoint="cloud", up=True)), Line(at_s=2.0, fact=again)]
    (lost,) = observe([*lines, *late, Line(at_s=5.0, fact=end)]).asked
    assert (lost.outcome.outcome, lost.outcome.attempts) == ("failed", 1)


def test_what_waits_or_is_on_its_way_is_not_over_however_long_that_takes() -> None:
    router, request = core.router(CLOUD, RACK), core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    (one,) = of(
        (0.0, request),
        (0.0, waits),
        (0.0, Held(request=request)),
        (5.0, Probed(endpoint="cloud", up=True)),
        (5.0, router.decide(request, 5.0)),
        (5.0, core.started(request, "rack", target="cloud")),
        (6.0, core.ended("r", "rack", output_tokens=1)),
        (9.0, Probed(endpoint="cloud", up=True)),
        (9.0, Shipped(request_id="r", endpoint="rack", target="cloud")),
        (9.0, core.started(request, "cloud")),
        (10.0, core.ended("r", "cloud", output_tokens=3)),
    ).asked
    assert (one.outcome.outcome, one.outcome.attempts, one.outcome.e2e_s) == ("ok", 2, 10.0)


@pytest.mark.parametrize(
    ("told", "came"),
    [({"given_up": True}, LEFT), ({"given_up": True, "cause": "internal"}, "failed"), ({"cause": "peer"}, "failed")],
    ids=str,
)
def test_a_cache_that_did_not_arrive_and_after_which_nothing_came_is_an_end(told: dict[str, Any], came: str) -> None:
    request = core.request("r")
    plan = (Prefill(endpoint="rack", target="cloud", timeout_s=60.0), Run(endpoint="cloud", timeout_s=60.0))
    facts = [
        (0.0, request),
        (0.0, Decision(request_id="r", plan=plan, why=Why.CHEAPEST_ON_TIME)),
        (0.0, core.started(request, "rack", target="cloud")),
        (1.0, core.ended("r", "rack", output_tokens=1)),
        (2.0, Shipped(request_id="r", endpoint="rack", target="cloud", ok=False, **told)),
    ]
    (one,) = of(*facts).asked
    assert (one.outcome.outcome, one.outcome.attempts, one.outcome.e2e_s) == (came, 1, 2.0)
    # Who goes on without it is what counts.
    again = [(2.0, core.started(request, "cloud")), (3.0, core.ended("r", "cloud", output_tokens=3))]
    (one,) = of(*facts, *again).asked
    assert (one.outcome.outcome, one.outcome.attempts) == ("ok", 2)
    # So is who was at work beside it, and ended later.
    beside = (0.5, core.started(request, "cloud", hedge=True))
    wrong = (3.0, core.ended("r", "cloud", ending=Ending.OK, cause=CLIENT_ERROR))
    found = of(*facts[:3], beside, *facts[3:], wrong)
    assert (found.client_errors, found.asked) == (1, [])


def test_a_state_of_other_software_is_refused_with_its_name() -> None:
    first = header()
    assert isinstance(first.fact, Segment)
    other = replace(first.fact, state=msgspec.Raw(b'{"endpoints": 7}'), software="tidegate 9")
    with pytest.raises(ObservedError, match="read it with tidegate 9"):
        observe([replace(first, fact=other)])


def test_what_ended_with_its_process_is_over_with_the_next_one() -> None:
    router, request = core.router(CLOUD), core.request("r")
    lines = [header()]
    lines += [Line(at_s=0.0, fact=fact) for fact in (request, router.decide(request, 0.0))]
    lines += [Line(at_s=0.0, fact=core.started(request, "cloud")), header(at_s=60.0)]
    found = observe(lines)
    # Nothing is known of how it ended.
    assert found.asked == []
    assert found.end_s == 60.0


def test_a_journal_without_its_header_and_an_empty_one_are_refused() -> None:
    with pytest.raises(ObservedError, match="segment header"):
        observe([Line(at_s=0.0, fact=core.request())])
    with pytest.raises(ObservedError, match="empty"):
        observe([])
    with pytest.raises(ReplayError, match="empty"):
        known([])
