"""Facts folded into rows: a row tells what its request came to."""

import msgspec
import pytest

from tests import make
from tests.properties.storm import Storm
from tests.sim.days import Stage
from tidegate.core import rows as fold
from tidegate.core.health import CONTEXT_EXCEEDED, GONE, UNBILLED
from tidegate.core.hindsight import Hindsight
from tidegate.core.model import (
    JOURNAL_VERSION,
    Capability,
    Checked,
    Decision,
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Handover,
    Held,
    Judged,
    Likeness,
    Line,
    Price,
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
from tidegate.core.rows import ANSWERED, Came, Row, Rows, attempt_usd
from tidegate.core.ruling import Ruling
from tidegate.core.why import Why
from tidegate.gateway.spending import UNRECORDED
from tidegate.http.errors import Cause as Lost
from tidegate.wire.sse import Cause

LAPTOP, CLOUD = make.endpoint("laptop", usd_per_s=0.002), make.endpoint("cloud", local=False)
SENDS = Handover(target="laptop", kv_bytes_per_token=9.0, bytes_per_s=1e6, usd_per_byte=1e-6)
RACK = make.endpoint("rack", local=False, handovers=(SENDS,))
R = make.request("r", arrived_s=100.0, slo=Slo(ttft_s=2.0), key="alice")


def header(
    state: bytes = b"{}",
    *,
    at_s: float = 100.0,
    follows: bool = False,
    endpoints: tuple[Endpoint, ...] = (LAPTOP, CLOUD, RACK),
) -> Line:
    segment = Segment(
        version=JOURNAL_VERSION,
        software="test",
        policy=make.policy(),
        endpoints=endpoints,
        state=msgspec.Raw(state),
        follows=follows,
    )
    return Line(at_s=at_s, fact=segment)


def lines(*facts: tuple[float, object]) -> list[Line]:
    return [Line(at_s=at_s, fact=fact) for at_s, fact in facts]  # type: ignore[arg-type]


def told(*facts: tuple[float, object]) -> list[Row]:
    rows = Rows()
    return [row for line in [header(), *lines(*facts)] for row in rows.feed(line)]


def decided(*endpoints: str, request_id: str = "r") -> Decision:
    plan = tuple(Run(endpoint=name, timeout_s=10.0) for name in endpoints)
    return Decision(request_id=request_id, plan=plan, why=Why.CHEAPEST_ON_TIME)


def ended(endpoint: str, ending: Ending = Ending.OK, **changes: object) -> Ended:
    return make.ended("r", endpoint, ending=ending, **changes)


def first(endpoint: str) -> FirstToken:
    return FirstToken(request_id="r", endpoint=endpoint, ttft_s=0.5)


def compared_usd(head: Line, request: Request, *learned: Probed | Checked) -> float | None:
    """What a whole answer from the laptop would have cost elsewhere, with what was learned before."""
    story = lines(
        *((99.0, one) for one in learned),
        (100.0, request),
        (100.0, make.started(request, "laptop")),
        (101.0, ended("laptop", output_tokens=5)),
    )
    rows = Rows()
    (row,) = [row for line in [head, *story] for row in rows.feed(line)]
    return row.remote_usd


LATER = Probed(endpoint="laptop", up=True)


def test_an_answer_is_a_row_in_the_moment_of_its_end() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("laptop")),
        (100.1, make.started(R, "laptop")),
        (100.6, first("laptop")),
        (102.6, ended("laptop", e2e_s=2.5, ttft_s=0.5, prompt_tokens=210, cached_tokens=64, output_tokens=21)),
    )
    assert (row.id, row.klass, row.model, row.key) == ("r", "chat", "m", "alice")
    assert (row.endpoint, row.site, row.local, row.why, row.outcome) == (
        "laptop", "home", True, Why.CHEAPEST_ON_TIME, Came.OK,
    )  # fmt: skip
    assert (row.prompt_tokens, row.cached_tokens, row.output_tokens) == (210, 64, 21)
    assert (row.ttft_s, row.tpot_s, row.e2e_s) == pytest.approx((0.6, 0.1, 2.6))
    assert (row.slo_ttft_s, row.kept, row.attempts, row.hedged) == (2.0, True, 1, False)
    # Two slots share what running the engine costs; the same tokens would have been paid for elsewhere.
    assert (row.usd, row.paid_usd) == pytest.approx((2.5 * 0.002 / 2, 0.0))
    assert row.remote_usd == pytest.approx(210 * 1e-6 + 21 * 4e-6)
    assert row.predicted_ttft_s is None


@pytest.mark.parametrize(
    "end", [ended("laptop", Ending.CANCELLED, ttft_s=0.5, output_tokens=9), ended("laptop", Ending.FAILED)], ids=str
)
def test_what_came_to_no_whole_answer_saves_nothing(end: Ended) -> None:
    story = ((100.0, R), (100.0, decided("laptop")), (100.0, make.started(R, "laptop")), (101.0, end), (109.0, LATER))
    (row,) = told(*story)
    (refused,) = told((100.0, R), (100.0, Decision(request_id="r", plan=(), why=Why.MUST_STAY_LOCAL)))
    assert (row.remote_usd, refused.remote_usd) == (None, None)


CHEAP = make.endpoint("cheap", local=False, price=Price(usd_per_input_token=1e-9))


@pytest.mark.parametrize(
    ("endpoint", "changes"),
    [
        (CHEAP, {"residency": ("home", "cloud")}),
        (replace(CHEAP, models=("other",)), {}),
        (replace(CHEAP, likeness={"m": Likeness.SAME_FAMILY}), {"likeness": Likeness.IDENTICAL}),
        (CHEAP, {"needs": (Capability.TOOLS,)}),
        (CHEAP, {"rulings": (Ruling(rule="dear", to=("laptop", "cloud")),)}),
        (replace(CHEAP, context_tokens=204), {}),
    ],
    ids=("residency", "model", "likeness", "needs", "rule", "window"),
)
def test_what_may_never_serve_a_request_is_not_what_it_is_compared_with(
    endpoint: Endpoint, changes: dict[str, object]
) -> None:
    able = (Capability.CHAT, Capability.TOOLS)
    head = header(endpoints=(LAPTOP, replace(CLOUD, capabilities=able), endpoint))
    assert compared_usd(head, replace(R, **changes)) == pytest.approx(200 * 1e-6 + 5 * 4e-6)
    assert compared_usd(header(endpoints=(LAPTOP, CLOUD, CHEAP)), R) == pytest.approx(200 * 1e-9)


@pytest.mark.parametrize(
    ("state", "learned"),
    [
        (b'{"endpoints":{"cheap":{"context_tokens":204}}}', LATER),
        (b'{"endpoints":{"cheap":{"drifted":true}}}', LATER),
        (b"{}", Probed(endpoint="cheap", up=True, context_tokens=204)),
        (b"{}", Probed(endpoint="cheap", up=True, capabilities=(Capability.EMBEDDING,))),
        (b"{}", Checked(endpoint="cheap", drifted=True)),
    ],
)
def test_what_an_endpoint_has_turned_out_to_be_says_what_it_may_serve(state: bytes, learned: Probed | Checked) -> None:
    picky = replace(R, likeness=Likeness.IDENTICAL, needs=(Capability.CHAT,))
    head = header(state, endpoints=(LAPTOP, CLOUD, CHEAP))
    assert compared_usd(head, picky, learned) == pytest.approx(200 * 1e-6 + 5 * 4e-6)


def test_the_cheapest_is_what_an_answer_is_compared_with_wherever_it_stands() -> None:
    for endpoints in ((LAPTOP, CHEAP, CLOUD), (LAPTOP, CLOUD, CHEAP)):
        assert compared_usd(header(endpoints=endpoints), R) == pytest.approx(200 * 1e-9)


DISCOUNTED = replace(CLOUD, price=replace(CLOUD.price, usd_per_cached_token=1e-7))


def cached_usd(*others: Endpoint) -> tuple[float, float | None]:
    """What an answer cost of whose prompt the cloud had nearly all in its cache, and would have cost all remote."""
    story = lines(
        (100.0, R),
        (100.0, decided("cloud")),
        (100.0, make.started(R, "cloud")),
        (101.0, ended("cloud", prompt_tokens=10_000, cached_tokens=9_000, output_tokens=5)),
    )
    rows = Rows()
    (row,) = [row for line in [header(endpoints=(DISCOUNTED, *others)), *story] for row in rows.feed(line)]
    return row.usd, row.remote_usd


def test_what_a_vendor_lets_off_for_its_cache_is_not_saved_by_going_there() -> None:
    usd, remote_usd = cached_usd()
    assert usd == pytest.approx(1_000 * 1e-6 + 9_000 * 1e-7 + 5 * 4e-6)
    assert remote_usd == usd
    # Nor where another is as dear by its list, or a little less, as where a conversation stays with who has its prefix.
    assert cached_usd(replace(DISCOUNTED, name="twin")) == (usd, usd)
    less = replace(DISCOUNTED.price, usd_per_input_token=0.95e-6)
    assert cached_usd(replace(DISCOUNTED, name="other", price=less)) == (usd, usd)
    assert cached_usd(LAPTOP, CHEAP)[1] == pytest.approx(10_000 * 1e-9)


def test_what_failed_before_the_cheapest_answered_was_lost_and_not_saved() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("rack", "cloud")),
        (100.0, make.started(R, "rack")),
        (103.0, ended("rack", Ending.TIMED_OUT, cause="no_content")),
        (103.0, make.started(R, "cloud")),
        (104.0, ended("cloud", prompt_tokens=200, cached_tokens=100, output_tokens=11)),
    )
    assert row.remote_usd == pytest.approx(200 * 1e-6 + 11 * 4e-6)
    assert row.usd == pytest.approx(400 * 1e-6 + 11 * 4e-6)


def test_an_answer_in_parts_is_compared_with_all_of_its_tokens() -> None:
    rest = replace(R, said_tokens=5, prompt_tokens=205)
    (row,) = told(
        (100.0, R),
        (100.0, decided("laptop")),
        (100.0, make.started(R, "laptop")),
        (101.0, first("laptop")),
        (102.0, ended("laptop", Ending.FAILED, ttft_s=1.0, output_tokens=5)),
        (102.0, rest),
        (102.0, decided("cloud")),
        (102.0, make.started(rest, "cloud")),
        (104.0, ended("cloud", ttft_s=1.0, prompt_tokens=205, output_tokens=6)),
    )
    assert row.remote_usd == pytest.approx(200 * 1e-6 + 11 * 4e-6)


def test_of_several_completions_each_has_to_fit_a_window_and_all_are_paid() -> None:
    # Five tokens of three completions: one of them has two.
    for context_tokens, usd in ((202, 200 * 1e-6 + 5 * 4e-6), (201, None)):
        head = header(endpoints=(LAPTOP, replace(CLOUD, context_tokens=context_tokens)))
        assert compared_usd(head, replace(R, completions=3)) == (None if usd is None else pytest.approx(usd))


def test_of_several_prompts_each_has_to_fit_a_window_and_all_are_paid() -> None:
    # Two hundred tokens of four prompts, with two at most of the answer to one.
    for context_tokens, usd in ((52, 200 * 1e-6 + 5 * 4e-6), (51, None)):
        head = header(endpoints=(LAPTOP, replace(CLOUD, context_tokens=context_tokens)))
        several = replace(R, prompts=4, completions=4, output_tokens_max=2)
        assert compared_usd(head, several) == (None if usd is None else pytest.approx(usd))


def test_a_failure_that_is_made_good_elsewhere_is_one_row_with_both_attempts() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("laptop", "cloud")),
        (100.0, make.started(R, "laptop")),
        (103.0, ended("laptop", Ending.FAILED, e2e_s=3.0)),
        (103.0, make.started(R, "cloud")),
        (103.5, first("cloud")),
        (104.0, ended("cloud", e2e_s=1.0, ttft_s=0.5, prompt_tokens=200, output_tokens=11)),
    )
    assert (row.endpoint, row.local, row.outcome, row.attempts, row.kept) == ("cloud", False, Came.OK, 2, False)
    assert row.paid_usd == pytest.approx(200 * 1e-6 + 11 * 4e-6)
    assert row.usd - row.paid_usd == pytest.approx(3.0 * 0.002 / 2)


@pytest.mark.parametrize(
    ("seen", "end", "came", "kept"),
    [
        ((), ended("cloud", Ending.FAILED), Came.FAILED, False),
        ((first("cloud"),), ended("cloud", Ending.FAILED, ttft_s=0.5, output_tokens=3), Came.FAILED_MID_STREAM, False),
        ((first("cloud"),), ended("cloud", Ending.CANCELLED, ttft_s=0.5), Came.CLIENT_LEFT, None),
        ((), ended("cloud", Ending.OK, cause="client_error"), Came.CLIENT_ERROR, None),
        ((), ended("cloud", Ending.REFUSED, cause="context_exceeded"), Came.CLIENT_ERROR, None),
        ((), ended("cloud", Ending.TIMED_OUT, cause="no_content"), Came.FAILED, False),
        ((), ended("cloud", Ending.CANCELLED, cause="ledger"), Came.FAILED, False),
        ((first("cloud"),), ended("cloud", Ending.CANCELLED, cause="internal"), Came.FAILED_MID_STREAM, False),
    ],
)
def test_what_ends_badly_is_over_once_nobody_goes_on_with_it(
    seen: tuple[FirstToken, ...], end: Ended, came: Came, kept: bool | None
) -> None:
    rows = Rows()
    story = [(100.0, R), (100.0, decided("cloud")), (100.0, make.started(R, "cloud")), *((100.5, one) for one in seen)]
    before = [row for line in [header(), *lines(*story, (101.0, end), (101.5, LATER))] for row in rows.feed(line)]
    assert before == []
    (row,) = rows.feed(Line(at_s=102.1, fact=LATER))
    assert (row.outcome, row.kept, row.endpoint, row.e2e_s) == (came, kept, "cloud", 1.0)
    # Only who answered, or began to, has served it.
    assert row.local is (False if seen else None)
    assert rows.open == 0


def test_who_is_refused_is_a_row_without_an_endpoint() -> None:
    refusal = Decision(request_id="r", plan=(), why=Why.MUST_STAY_LOCAL)
    (row,) = told((100.0, R), (100.25, refusal))
    assert (row.outcome, row.endpoint, row.local, row.why) == (Came.REFUSED, "", None, Why.MUST_STAY_LOCAL)
    assert (row.kept, row.usd, row.attempts) == (None, 0.0, 0)


def test_who_is_told_to_come_back_was_not_served() -> None:
    (row,) = told((100.0, R), (100.0, Decision(request_id="r", plan=(), why=Why.BUSY, retry_after_s=1.0)))
    assert row.kept is False


def test_an_embedding_is_seen_when_it_is_there() -> None:
    asked = replace(R, needs=(Capability.EMBEDDING,), stream=False)
    (row,) = told(
        (100.0, asked),
        (100.0, decided("cloud")),
        (101.0, make.started(asked, "cloud")),
        (103.0, ended("cloud", e2e_s=2.0, ttft_s=2.0)),
    )
    assert (row.ttft_s, row.tpot_s, row.kept) == (3.0, None, False)


def test_time_in_the_hold_queue_is_told_and_who_leaves_it_has_left_unless_the_gateway_gave_it_up() -> None:
    waits = Decision(request_id="r", plan=(Wait(endpoint="laptop", until_s=9.0),), why=Why.WAITS_FOR_SLOT)
    served = told(
        (100.0, R),
        (100.0, waits),
        (100.0, Held(request=R)),
        (103.0, decided("laptop")),
        (103.0, make.started(R, "laptop")),
        (104.0, ended("laptop", output_tokens=3)),
    )
    assert [(row.held_s, row.outcome) for row in served] == [(3.0, Came.OK)]
    for cause, came in (("", Came.CLIENT_LEFT), ("request_timeout", Came.FAILED)):
        gone = Released(request_id="r", cause=cause)
        left = told((100.0, R), (100.0, waits), (100.0, Held(request=R)), (104.0, gone), (109.0, LATER))
        assert [(row.held_s, row.outcome, row.e2e_s, row.kept) for row in left] == [(4.0, came, 4.0, False)]


@pytest.mark.parametrize(("cause", "came"), [("", Came.CLIENT_LEFT), ("request_timeout", Came.FAILED)])
@pytest.mark.parametrize("fault", ["rate_limited", CONTEXT_EXCEEDED])
@pytest.mark.parametrize("again", [False, True], ids=["as planned", "decided again"])
def test_who_leaves_while_he_is_held_after_a_failed_attempt_has_left(
    cause: str, came: Came, fault: str, again: bool
) -> None:
    waits = Wait(endpoint="laptop", until_s=109.0)
    plan = (Run(endpoint="cloud", timeout_s=60.0), waits)
    # The queue is looked at now and then, and what is decided anew there has nothing of the attempt.
    looked = Decision(request_id="r", plan=(waits,), why=Why.WAITS_FOR_SLOT)
    (row,) = told(
        (100.0, R),
        (100.0, Decision(request_id="r", plan=plan, why=Why.CHEAPEST_ON_TIME)),
        (100.0, make.started(R, "cloud")),
        (100.5, ended("cloud", Ending.REFUSED, e2e_s=0.5, cause=fault)),
        (100.5, Held(request=R)),
        *([(101.0, looked)] if again else []),
        (101.5, Released(request_id="r", cause=cause)),
        (109.0, LATER),
    )
    assert (row.outcome, row.e2e_s, row.held_s) == (came, 1.5, 1.0)
    assert row.kept is (None if came is Came.CLIENT_LEFT else False)


def test_a_step_that_is_passed_over_after_a_hold_is_no_client_that_left() -> None:
    waits = Decision(request_id="r", plan=(Wait(endpoint="laptop", until_s=109.0),), why=Why.WAITS_FOR_SLOT)
    (row,) = told(
        (100.0, R),
        (100.0, waits),
        (100.0, Held(request=R)),
        (101.0, decided("cloud")),
        (101.0, Released(request_id="r")),
        (109.0, LATER),
    )
    assert (row.outcome, row.e2e_s) == (Came.FAILED, 1.0)


@pytest.mark.parametrize(("cause", "came"), [("", Came.CLIENT_LEFT), ("request_timeout", Came.FAILED)])
def test_who_leaves_while_he_is_held_behind_a_step_that_is_passed_over_has_left(cause: str, came: Came) -> None:
    waits = Wait(endpoint="laptop", until_s=109.0)
    # Each time the queue is looked at, the same step comes first and is passed over: nobody is held anew for that.
    looked = Decision(request_id="r", plan=(Run(endpoint="cloud", timeout_s=60.0), waits), why=Why.CHEAPEST_ON_TIME)
    (row,) = told(
        (100.0, R),
        (100.0, Decision(request_id="r", plan=(waits,), why=Why.WAITS_FOR_SLOT)),
        (100.0, Held(request=R)),
        (101.0, looked),
        (101.0, Released(request_id="r")),
        (101.0, Held(request=R)),
        (102.0, looked),
        (103.0, looked),
        (103.5, Released(request_id="r", cause=cause)),
        (109.0, LATER),
    )
    assert (row.outcome, row.e2e_s, row.held_s) == (came, 3.5, 3.5)


@pytest.mark.parametrize(
    ("cause", "came", "kept"),
    [("client_error", Came.CLIENT_ERROR, None), ("over_budget", Came.REFUSED, None), ("", Came.FAILED, False)],
)
@pytest.mark.parametrize("waited", [False, True])
def test_what_could_be_sent_to_nobody_came_to_what_is_told_of_it(
    cause: str, came: Came, kept: bool | None, waited: bool
) -> None:
    waits = Decision(request_id="r", plan=(Wait(endpoint="laptop", until_s=109.0),), why=Why.WAITS_FOR_SLOT)
    before = [(100.0, waits), (100.0, Held(request=R))] if waited else []
    passed_over = [(101.0, Released(request_id="r"))] if waited else []
    said = [(101.0, Released(request_id="r", cause=cause))] if cause else []
    (row,) = told((100.0, R), *before, (101.0, decided("cloud")), *passed_over, *said, (109.0, LATER))
    assert (row.outcome, row.kept, row.e2e_s, row.usd) == (came, kept, 1.0, 0.0)


def test_what_could_not_be_paid_for_after_another_one_failed_was_refused() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("rack", "cloud")),
        (100.0, make.started(R, "rack")),
        (101.0, ended("rack", Ending.FAILED, cause="status_500")),
        (101.0, Released(request_id="r", cause="over_budget")),
        (109.0, LATER),
    )
    assert (row.outcome, row.attempts) == (Came.REFUSED, 1)


def test_a_hedge_that_is_beaten_ends_with_the_answer_and_costs_what_it_cost() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("cloud", "rack")),
        (100.0, make.started(R, "cloud")),
        (101.0, make.started(R, "rack", hedge=True)),
        (101.5, first("rack")),
        (101.5, ended("cloud", Ending.CANCELLED, e2e_s=1.5)),
        (103.0, ended("rack", e2e_s=2.0, ttft_s=0.5, prompt_tokens=200, output_tokens=11)),
    )
    assert (row.endpoint, row.hedged, row.attempts) == ("rack", True, 2)
    assert row.paid_usd == pytest.approx(200 * 1e-6 + 200 * 1e-6 + 11 * 4e-6)


def test_a_hedge_beside_a_request_that_is_wrong_is_no_client_that_left() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("cloud", "rack")),
        (100.0, make.started(R, "cloud")),
        (101.0, make.started(R, "rack", hedge=True)),
        (101.5, ended("cloud", cause="client_error")),
        (101.5, ended("rack", Ending.CANCELLED)),
        (109.0, LATER),
    )
    assert (row.outcome, row.kept, row.hedged) == (Came.CLIENT_ERROR, None, True)


def test_an_answer_without_content_waits_for_the_end_of_those_beside_it() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, make.started(R, "cloud")),
        (100.0, make.started(R, "rack", hedge=True)),
        (101.0, ended("rack", output_tokens=0)),
        (101.0, ended("cloud", Ending.CANCELLED)),
    )
    assert (row.outcome, row.endpoint) == (Came.OK, "rack")
    assert row.paid_usd == pytest.approx(2 * 200 * 1e-6)


def test_an_answer_whose_rest_was_asked_for_is_one_row_with_all_of_its_tokens() -> None:
    rest = replace(R, said_tokens=5, prompt_tokens=205)
    story = [
        (100.0, R),
        (100.0, decided("cloud")),
        (100.0, make.started(R, "cloud")),
        (101.0, first("cloud")),
        (102.0, ended("cloud", Ending.FAILED, ttft_s=1.0, output_tokens=5)),
        (102.0, rest),
    ]
    (row,) = told(
        *story,
        (102.0, decided("laptop")),
        (102.0, make.started(rest, "laptop")),
        (103.0, first("laptop")),
        (104.0, ended("laptop", ttft_s=1.0, prompt_tokens=205, output_tokens=6)),
    )
    assert (row.outcome, row.output_tokens, row.prompt_tokens, row.ttft_s, row.e2e_s) == (Came.OK, 11, 200, 1.0, 4.0)
    (row,) = told(*story, (102.0, Decision(request_id="r", plan=(), why=Why.DOWN)))
    assert (row.outcome, row.output_tokens, row.kept) == (Came.FAILED_MID_STREAM, 5, False)


def test_a_prompt_computed_elsewhere_tells_by_which_handover_and_for_how_long() -> None:
    there = replace(R, shipped="rack>laptop")
    (row,) = told(
        (100.0, R),
        (100.0, decided("rack")),
        (100.0, make.started(R, "rack", target="laptop")),
        (100.9, first("rack")),
        (101.0, ended("rack", prompt_tokens=200, output_tokens=1)),
        # Nothing is under way in any engine meanwhile, and it is not over.
        (109.0, LATER),
        (111.0, Shipped(request_id="r", endpoint="rack", target="laptop", kv_bytes=50, left_bytes=50, seconds=2.0)),
        (111.0, there),
        (111.0, decided("laptop")),
        (111.0, make.started(there, "laptop")),
        (111.5, first("laptop")),
        (112.0, ended("laptop", ttft_s=0.5, prompt_tokens=200, output_tokens=3)),
    )
    assert (row.handover, row.handover_s, row.endpoint, row.attempts) == ("rack>laptop", 10.0, "laptop", 2)
    assert row.ttft_s == pytest.approx(11.5), "of the prompt's one token nobody has seen anything"
    assert row.paid_usd == pytest.approx(201 * 1e-6 + 3e-6 + 50 * 1e-6)


def test_a_cache_that_does_not_come_is_a_handover_without_a_time() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, make.started(R, "rack", target="laptop")),
        (101.0, ended("rack", output_tokens=1)),
        (102.0, Shipped(request_id="r", endpoint="rack", target="laptop", ok=False, cause="peer")),
        (102.0, make.started(R, "cloud")),
        (103.0, ended("cloud", output_tokens=3)),
    )
    assert (row.handover, row.handover_s, row.endpoint, row.outcome) == ("rack>laptop", None, "cloud", Came.OK)


@pytest.mark.parametrize(("cause", "came"), [("", Came.CLIENT_LEFT), ("internal", Came.FAILED)])
def test_a_cache_that_nobody_waits_for_any_more_is_given_up_by_a_client_or_by_the_gateway(
    cause: str, came: Came
) -> None:
    gone = Shipped(request_id="r", endpoint="rack", target="laptop", ok=False, given_up=True, cause=cause)
    (row,) = told(
        (100.0, R),
        (100.0, decided("rack")),
        (100.0, make.started(R, "rack", target="laptop")),
        (101.0, ended("rack", output_tokens=1)),
        (102.0, gone),
        (109.0, LATER),
    )
    assert row.outcome == came


def test_what_was_judged_is_not_judged_again() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, decided("cloud")),
        (100.0, make.started(R, "cloud")),
        (101.0, ended("cloud", Ending.CANCELLED)),
        (101.0, Judged(request_id="r", klass="chat", attainment=0.9, kept=False)),
    )
    assert row.kept is False


def test_what_counts_as_kept_for_worth_is_not_said_to_be_kept_where_nobody_can_say() -> None:
    whole = replace(R, stream=False, attainment=0.9, slo=Slo(ttft_s=2.0))
    (row,) = told(
        (100.0, whole),
        (100.0, decided("cloud")),
        (100.0, make.started(whole, "cloud")),
        (101.0, make.started(whole, "rack", hedge=True)),
        (109.0, ended("cloud", output_tokens=9)),
        (109.0, Judged(request_id="r", klass="chat", attainment=0.9, kept=True)),
        (109.0, ended("rack", Ending.CANCELLED)),
    )
    assert row.kept is None


def test_where_nothing_was_promised_nothing_was_kept() -> None:
    plain = replace(R, slo=Slo())
    (row,) = told((100.0, plain), (100.0, make.started(plain, "cloud")), (101.0, ended("cloud", output_tokens=3)))
    assert row.kept is None


def test_an_answer_that_does_not_say_what_it_took_is_booked_as_the_most_that_it_can_be() -> None:
    (row,) = told((100.0, R), (100.0, make.started(R, "cloud")), (101.0, ended("cloud")))
    assert row.output_tokens is None
    assert row.paid_usd == pytest.approx(200 * 1e-6 + 100 * 4e-6)


def test_a_stream_that_does_not_say_what_it_took_is_booked_as_what_has_come() -> None:
    silent = ended("cloud", ttft_s=0.5)
    assert attempt_usd(CLOUD, R, make.started(R, "cloud"), silent) == pytest.approx(200 * 1e-6)


def test_a_window_that_is_full_in_mid_answer_is_paid_for_what_has_come_and_before_it_nothing() -> None:
    full = ended("cloud", Ending.REFUSED, cause="context_exceeded")
    assert attempt_usd(CLOUD, R, make.started(R, "cloud"), full) == 0.0
    later = ended("cloud", Ending.REFUSED, cause="context_exceeded", ttft_s=0.5, output_tokens=30)
    assert attempt_usd(CLOUD, R, make.started(R, "cloud"), later) == pytest.approx(200 * 1e-6 + 30 * 4e-6)


@pytest.mark.parametrize(
    ("ending", "cause", "billed"),
    [
        (Ending.TIMED_OUT, "no_content", True),
        (Ending.TIMED_OUT, "connect_timeout", False),
        (Ending.FAILED, "malformed_chunk", True),
        (Ending.FAILED, "unexpected_content", True),
        (Ending.FAILED, "reset", False),
        (Ending.REFUSED, "rate_limited", False),
        (Ending.OK, "client_error", False),
        (Ending.CANCELLED, "no_descriptor", False),
        (Ending.CANCELLED, "ledger", False),
        (Ending.CANCELLED, GONE, False),
        (Ending.CANCELLED, "output_too_long", True),
    ],
)
def test_a_prompt_is_paid_where_somebody_has_begun_to_work_on_it(ending: Ending, cause: str, billed: bool) -> None:
    told_of = ended("cloud", ending, cause=cause)
    usd = attempt_usd(CLOUD, R, make.started(R, "cloud"), told_of)
    assert usd == pytest.approx(200 * 1e-6 if billed else 0.0)


def test_causes_are_called_what_readers_and_connections_call_them() -> None:
    assert {cause.value for cause in Cause} <= ANSWERED
    assert {Lost.CONNECT_TIMEOUT.value, Lost.NO_DESCRIPTOR.value, UNRECORDED.cause} <= UNBILLED


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trouble", [False, True])
def test_rows_are_what_requests_of_a_simulated_day_came_to(seed: int, trouble: bool) -> None:
    stage, rows = Stage(seed, trouble=trouble, turns=1), Rows()
    found = [row for line in stage.lines for row in rows.feed(line)]
    found += rows.rest()
    assert rows.open == 0
    by_id = {row.id: row for row in found}
    assert len(by_id) == len(found) == len(stage.world.outcomes)
    for real in stage.world.outcomes:
        row = by_id[real.request.id]
        if real.outcome == "timed_out":
            continue
        assert (row.outcome, row.why, row.attempts) == (real.outcome, real.why, real.attempts)
        assert (row.e2e_s, row.held_s) == pytest.approx((real.e2e_s, real.held_s))
        if real.outcome == "ok":
            assert (row.endpoint, row.output_tokens, row.ttft_s) == (real.endpoint, real.output_tokens, real.ttft_s)
            assert (row.prompt_tokens, row.cached_tokens) == (real.prompt_tokens, real.cached_tokens)
            assert row.kept == real.judged
        if real.outcome == "ok" and real.attempts == 1:
            assert row.usd == pytest.approx(real.usd)


def test_predictions_are_what_was_believed_when_the_attempt_was_sent() -> None:
    stage, rows, hindsight = Stage(1), Rows(), Hindsight()
    believed: dict[str, tuple[float, float]] = {}
    found = []
    for line in stage.lines:
        found += rows.feed(line)
        one = hindsight.feed(line)
        if one is not None and one.ended.ending is Ending.OK:
            believed[one.ended.request_id] = one.sent_s + one.predicted.ttft_s, one.sent_s + one.predicted.ttft_s_high
    for row in found:
        if row.outcome is Came.OK:
            assert row.predicted_ttft_s is not None
            assert row.predicted_ttft_s_high is not None
            told = row.arrived_s + row.predicted_ttft_s, row.arrived_s + row.predicted_ttft_s_high
            assert told == pytest.approx(believed[row.id])


def test_a_prediction_counts_from_the_moment_in_which_the_attempt_was_sent() -> None:
    (row,) = told(
        (100.0, R),
        (100.0, Held(request=R)),
        (110.0, make.started(R, "cloud")),
        (112.0, first("cloud")),
        (113.0, ended("cloud", ttft_s=2.0, predicted_ttft_s=1.0, predicted_ttft_s_high=1.5)),
    )
    assert (row.sent_s, row.ttft_s, row.predicted_ttft_s, row.predicted_ttft_s_high) == (10.0, 12.0, 11.0, 11.5)


def test_nothing_was_predicted_of_a_first_content_that_had_come_before() -> None:
    rest = replace(R, said_tokens=5, prompt_tokens=205)
    (row,) = told(
        (100.0, R),
        (100.0, make.started(R, "cloud")),
        (101.0, first("cloud")),
        (130.0, ended("cloud", Ending.TIMED_OUT, ttft_s=1.0, output_tokens=5, predicted_ttft_s=1.0)),
        (130.0, rest),
        (130.0, make.started(rest, "laptop")),
        (131.0, first("laptop")),
        (132.0, ended("laptop", ttft_s=1.0, output_tokens=6, predicted_ttft_s=1.0, predicted_ttft_s_high=2.0)),
    )
    assert (row.endpoint, row.ttft_s, row.predicted_ttft_s, row.predicted_ttft_s_high) == ("laptop", 1.0, None, None)


def test_what_was_not_told_with_the_end_of_an_attempt_is_not_predicted() -> None:
    (row,) = told((100.0, R), (100.0, make.started(R, "cloud")), (101.0, ended("cloud", output_tokens=3)))
    assert (row.outcome, row.predicted_ttft_s, row.predicted_ttft_s_high) == (Came.OK, None, None)


@pytest.mark.parametrize("seed", range(4))
def test_every_request_of_a_storm_has_one_row_wherever_segments_begin(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(6):
        storm.run(40).cut()
    rows = Rows()
    found = [row for line in storm.lines for row in rows.feed(line)] + rows.rest()
    asked = {line.fact.id for line in storm.lines if isinstance(line.fact, Request)}
    assert {row.id for row in found} == asked
    assert len(found) == len(asked)


def test_what_died_with_its_process_is_unknown_and_what_goes_on_is_not() -> None:
    rows = Rows()
    other = replace(R, id="other")
    story = lines((100.0, R), (100.0, make.started(R, "cloud")), (100.0, other), (100.0, make.started(other, "cloud")))
    for line in [header(), *story]:
        assert rows.feed(line) == []
    assert rows.feed(header(at_s=101.0, follows=True)) == []
    going_on = b'{"endpoints":{"cloud":{"reservations":{"other":{}}}}}'
    (lost,) = rows.feed(header(going_on, at_s=105.0))
    assert (lost.id, lost.outcome, lost.kept, lost.endpoint) == ("r", Came.UNKNOWN, None, "cloud")
    (row,) = rows.feed(Line(at_s=106.0, fact=make.ended("other", "cloud", output_tokens=3)))
    assert row.outcome is Came.OK


def test_a_prompt_on_its_way_outlives_a_reload() -> None:
    rows = Rows()
    story = lines(
        (100.0, R), (100.0, make.started(R, "rack", target="laptop")), (101.0, ended("rack", output_tokens=1))
    )
    for line in [header(), *story]:
        rows.feed(line)
    assert rows.feed(header(b'{"endpoints":{"rack":{"handovers":{"laptop":{"under_way":{"r":{}}}}}}}')) == []
    assert rows.open == 1


def test_what_never_ends_is_let_go_in_the_order_of_its_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "OPEN_MAX", 3)
    rows = Rows()
    rows.feed(header())
    found = []
    for number in range(5):
        request = replace(R, id=f"r{number}")
        for line in lines((100.0, request), (100.0, make.started(request, "cloud"))):
            found += rows.feed(line)
    assert [(row.id, row.outcome) for row in found] == [("r0", Came.UNKNOWN), ("r1", Came.UNKNOWN)]
    assert rows.open == 3


def test_facts_about_requests_that_were_asked_before_are_passed_over() -> None:
    assert told((100.0, ended("cloud")), (100.0, Released(request_id="r")), (101.0, decided("cloud"))) == []


def test_an_endpoint_that_no_segment_knows_costs_nothing() -> None:
    (row,) = told((100.0, R), (100.0, make.started(R, "gone")), (101.0, ended("gone", output_tokens=3)))
    assert (row.endpoint, row.site, row.local, row.usd) == ("gone", "", None, 0.0)
