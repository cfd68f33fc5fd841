"""What a journal tells of requests is what they came to, and of attempts what they were."""

from itertools import pairwise

import msgspec
import pytest

from tests import make as core
from tests.sim.days import Stage
from tidegate.core.health import CLIENT_ERROR, CONTEXT_EXCEEDED
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Ended,
    Ending,
    FirstToken,
    Held,
    Line,
    Overrides,
    Probed,
    Released,
    Segment,
    Wait,
    replace,
)
from tidegate.core.replay import ReplayError
from tidegate.core.why import Why
from tidegate.sim import observed
from tidegate.sim.observed import LEFT, Observed, ObservedError, known, observe

CLOUD = core.endpoint("cloud", local=False)
RACK = core.endpoint("rack", local=False)


def header(*, at_s: float = 0.0, follows: bool = False) -> Line:
    router = core.router(CLOUD)
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


def test_who_leaves_while_he_waits_has_left_and_what_no_step_would_take_has_failed() -> None:
    router, request = core.router(CLOUD), core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    other = replace(request, id="s", arrived_s=5.0)
    found = of(
        (0.0, request),
        (0.0, waits),
        (0.0, Held(request=request)),
        (4.0, Released(request_id="r")),
        # Held back, or said in no dialect: every step is passed over, and nothing is sent.
        (5.0, other),
        (5.0, router.decide(other, 5.0)),
        (6.0, Probed(endpoint="cloud", up=True)),
    )
    left, failed = found.asked
    assert (left.outcome.outcome, left.outcome.e2e_s, left.seen) == (LEFT, 4.0, 0)
    assert (failed.outcome.outcome, failed.outcome.e2e_s, failed.outcome.usd) == ("failed", 0.0, 0.0)


def test_who_still_waits_when_the_journal_ends_has_no_end() -> None:
    request = core.request("r")
    waits = Decision(request_id="r", plan=(Wait(endpoint="cloud", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    assert of((0.0, request), (0.0, waits), (0.0, Held(request=request))).asked == []


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


def test_of_a_long_journal_the_last_requests_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "REQUESTS_MAX", 20)
    found = observe(Stage(5, count=60).lines)
    assert 20 <= len(found.asked) < 40
    assert found.before == 60 - len(found.asked)


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
