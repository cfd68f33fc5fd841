"""What became of a request, stage by stage."""

from tests import make
from tidegate.core.model import Candidate, Ended, Ending, Estimate, FirstToken, Held, Line, Shipped, replace
from tidegate.core.sending import started
from tidegate.core.timeline import Stage, Timeline, What, beside


def estimated(ttft_s: float, e2e_s: float) -> Estimate:
    return Estimate(
        wait_s=0.0,
        network_s=0.0,
        prefill_s=0.0,
        ttft_s=ttft_s,
        ttft_s_high=2 * ttft_s,
        tpot_s=0.1,
        output_tokens=10.0,
        e2e_s=e2e_s,
        sigma=0.1,
        attainment=1.0,
        lateness_s=0.0,
        cost_usd=0.0,
    )


def told(*facts: tuple[float, object]) -> list[Stage]:
    timeline = Timeline("r")
    for at_s, fact in facts:
        timeline.feed(Line(at_s=at_s, fact=fact))  # type: ignore[arg-type]
    return timeline.stages


R = make.request("r", arrived_s=100.0)


def test_a_prompt_computed_elsewhere_has_four_stages() -> None:
    there = replace(R, shipped="rack>laptop")
    found = told(
        (100.0, R),
        (100.0, started(R, "rack", target="laptop")),
        (101.0, FirstToken(request_id="r", endpoint="rack", ttft_s=1.0)),
        (101.1, Ended(request_id="r", endpoint="rack", ending=Ending.OK, e2e_s=1.1)),
        (103.1, Shipped(request_id="r", endpoint="rack", target="laptop", kv_bytes=50, left_bytes=50, seconds=2.0)),
        (103.1, there),
        (103.1, Held(request=there)),
        (104.1, started(there, "laptop")),
        (104.2, FirstToken(request_id="r", endpoint="laptop", ttft_s=0.1)),
        (109.2, Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=5.1)),
    )
    assert [(stage.what, stage.endpoint, stage.target) for stage in found] == [
        (What.PREFILL, "rack", "laptop"),
        (What.TRANSFER, "rack", "laptop"),
        (What.HOLD, "", ""),
        (What.RESTORE, "laptop", ""),
        (What.DECODE, "laptop", ""),
    ]
    assert [round(stage.took_s, 6) for stage in found] == [1.1, 2.0, 1.0, 0.1, 5.0]
    assert [round(stage.began_s, 6) for stage in found] == [0.0, 1.1, 3.1, 4.1, 4.2]
    assert found[1].kv_bytes == 50


def test_what_fails_is_told_so() -> None:
    found = told(
        (100.0, R),
        (100.0, started(R, "rack", target="laptop")),
        (101.0, Ended(request_id="r", endpoint="rack", ending=Ending.OK, e2e_s=1.0)),
        (101.5, Shipped(request_id="r", endpoint="rack", target="laptop", ok=False, cause="peer")),
        (101.5, started(R, "laptop")),
        (102.0, Ended(request_id="r", endpoint="laptop", ending=Ending.FAILED, e2e_s=0.5, cause="connect")),
    )
    assert [(stage.what, stage.failed, stage.cause) for stage in found] == [
        (What.PREFILL, False, ""),
        (What.TRANSFER, True, "peer"),
        (What.PREFILL, True, "connect"),
    ]


def test_what_nobody_waits_for_any_more_is_cancelled_and_has_not_failed() -> None:
    found = told(
        (100.0, R),
        (100.0, started(R, "slow")),
        (101.0, started(R, "quick")),
        (101.5, FirstToken(request_id="r", endpoint="quick", ttft_s=0.5)),
        (101.5, Ended(request_id="r", endpoint="slow", ending=Ending.CANCELLED, e2e_s=1.5)),
        (102.0, Ended(request_id="r", endpoint="quick", ending=Ending.CANCELLED, e2e_s=1.0)),
        (103.0, started(R, "laptop")),
        (104.0, Ended(request_id="r", endpoint="laptop", ending=Ending.CANCELLED, e2e_s=1.0, cause="internal")),
    )
    assert [(stage.what, stage.endpoint, stage.failed, stage.cancelled) for stage in found] == [
        (What.PREFILL, "quick", False, False),
        (What.PREFILL, "slow", False, True),
        (What.DECODE, "quick", False, True),
        (What.PREFILL, "laptop", True, False),
    ]


def test_a_transfer_that_was_given_up_has_not_failed_and_nothing_after_it_is_as_it_was_expected() -> None:
    found = told(
        (100.0, R),
        (100.0, started(R, "rack", target="laptop")),
        (101.0, Ended(request_id="r", endpoint="rack", ending=Ending.OK, e2e_s=1.0)),
        (101.5, Shipped(request_id="r", endpoint="rack", target="laptop", ok=False, given_up=True)),
        (101.5, started(R, "laptop")),
        (102.0, Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=0.5)),
    )
    assert [(stage.failed, stage.cancelled) for stage in found] == [(False, False), (False, True), (False, False)]
    assert [stage.predicted_s for stage in beside(found, CHOSEN)] == [1.5, 2.5, None]


def test_a_prompt_for_another_that_breaks_off_after_its_first_token_has_failed() -> None:
    found = told(
        (100.0, R),
        (100.0, started(R, "rack", target="laptop")),
        (101.0, FirstToken(request_id="r", endpoint="rack", ttft_s=1.0)),
        (101.5, Ended(request_id="r", endpoint="rack", ending=Ending.FAILED, e2e_s=1.5)),
        (101.5, started(R, "laptop")),
        (110.5, Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=9.0)),
    )
    assert [(stage.what, stage.endpoint, stage.failed) for stage in found] == [
        (What.PREFILL, "rack", True),
        (What.PREFILL, "laptop", False),
    ]
    assert [stage.predicted_s for stage in beside(found, CHOSEN)] == [1.5, None]


def test_an_answer_in_one_piece_is_one_stage_of_which_nothing_was_predicted() -> None:
    whole = replace(R, stream=False)
    there = replace(whole, shipped="rack>laptop")
    found = told(
        (100.0, whole),
        (100.0, started(whole, "rack", target="laptop")),
        (101.0, Ended(request_id="r", endpoint="rack", ending=Ending.OK, e2e_s=1.0)),
        (103.0, Shipped(request_id="r", endpoint="rack", target="laptop", kv_bytes=50)),
        (103.0, there),
        (103.0, started(there, "laptop")),
        (109.0, Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=6.0, output_tokens=50)),
    )
    assert [(stage.what, stage.took_s) for stage in found] == [
        (What.PREFILL, 1.0),
        (What.TRANSFER, 2.0),
        (What.ANSWER, 6.0),
    ]
    assert [stage.predicted_s for stage in beside(found, CHOSEN)] == [1.5, 2.5, None]


def test_of_an_embedding_all_there_is_is_its_prefill() -> None:
    whole = replace(R, stream=False)
    found = told(
        (100.0, whole),
        (100.0, started(whole, "laptop")),
        (101.0, Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=1.0, ttft_s=1.0)),
    )
    assert [stage.what for stage in found] == [What.PREFILL]


def test_stages_count_from_the_arrival_also_where_the_lines_begin_later() -> None:
    timeline = Timeline("r")
    timeline.arrived(100.0)
    timeline.feed(Line(at_s=110.0, fact=started(R, "laptop")))
    assert timeline.goes_on
    timeline.feed(Line(at_s=112.0, fact=Ended(request_id="r", endpoint="laptop", ending=Ending.FAILED, e2e_s=2.0)))
    assert not timeline.goes_on
    assert [(stage.began_s, stage.took_s) for stage in timeline.stages] == [(10.0, 2.0)]


STAGES = [
    Stage(what=What.HOLD, began_s=0.0, took_s=0.5),
    Stage(what=What.PREFILL, endpoint="rack", target="laptop", began_s=0.5, took_s=1.0),
    Stage(what=What.TRANSFER, endpoint="rack", target="laptop", began_s=1.5, took_s=2.0),
    Stage(what=What.HOLD, began_s=3.5, took_s=1.0),
    Stage(what=What.RESTORE, endpoint="laptop", began_s=4.5, took_s=0.1),
    Stage(what=What.DECODE, endpoint="laptop", began_s=4.6, took_s=5.0),
]
CHOSEN = Candidate(
    endpoint="rack", target="laptop", computed_s=1.5, ship_s=2.5, slot_s=0.25, estimate=estimated(4.5, 10.5)
)


def test_beside_each_stage_of_a_handover_stands_what_it_was_expected_to_take() -> None:
    found = beside(STAGES, CHOSEN)
    assert [stage.predicted_s for stage in found] == [None, 1.5, 2.5, 0.25, 0.25, 6.0]
    assert [stage.took_s for stage in found] == [stage.took_s for stage in STAGES]


def test_after_a_transfer_that_failed_nothing_is_as_it_was_expected() -> None:
    whole = Stage(what=What.PREFILL, endpoint="laptop", began_s=3.5, took_s=9.0)
    found = beside([STAGES[1], replace(STAGES[2], failed=True), whole, STAGES[5]], CHOSEN)
    assert [stage.predicted_s for stage in found] == [1.5, 2.5, None, None]


def test_others_are_left_out() -> None:
    other = make.request("other")
    ended = Ended(request_id="other", endpoint="a", ending=Ending.OK, e2e_s=1.0)
    assert told((0.0, other), (0.0, started(other, "a")), (1.0, ended)) == []
