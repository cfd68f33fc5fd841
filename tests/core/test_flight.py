"""One request's state machine, move by move."""

import pytest

from tidegate.core.actions import (
    Again,
    Call,
    Cancel,
    Compute,
    Decide,
    Finish,
    GiveUp,
    Hold,
    Relay,
    Silence,
    Timer,
)
from tidegate.core.flight import ATTEMPTS_MAX, Flight, State
from tidegate.core.model import Prefill, Run, Step, Wait, replace

A, B, C = (Run(endpoint=name, timeout_s=10.0) for name in "abc")
HEDGED = Run(endpoint="a", timeout_s=10.0, cutover_s=2.0)


def airborne(*plan: Step, buffered: bool = False) -> Flight:
    flight = Flight(buffered=buffered)
    flight.start(plan, 0.0)
    return flight


def test_it_calls_the_first_step_and_asks_to_be_woken_at_its_time_out() -> None:
    assert Flight().start((A, B), 5.0) == [Call(endpoint="a"), Timer(at_s=15.0)]


def test_first_content_is_the_commit_point_and_the_end_lands_it() -> None:
    flight = airborne(A, B)
    assert flight.content("a", 1.0) == [Relay(endpoint="a")]
    assert flight.completed("a") == [Finish(endpoint="a")]
    assert (flight.state, flight.winner, flight.attempts) == (State.LANDED, "a", 1)


def test_a_failure_before_content_goes_on_to_the_next_step() -> None:
    flight = airborne(A, B)
    assert flight.failed("a", 1.0) == [Call(endpoint="b"), Timer(at_s=11.0)]


def test_a_step_that_is_passed_over_is_no_attempt_and_the_next_one_follows() -> None:
    flight = airborne(A, B)
    assert flight.passed_over("a", 0.0) == [Call(endpoint="b"), Timer(at_s=10.0)]
    assert flight.attempts == 1
    assert flight.passed_over("a", 0.0) == []


def test_where_every_step_was_passed_over_it_is_decided_again_and_where_one_has_failed_given_up() -> None:
    flight = airborne(A, B)
    flight.passed_over("a", 0.0)
    assert flight.passed_over("b", 0.0) == [Again()]
    assert flight.start((A, B), 0.0) == [Call(endpoint="a"), Timer(at_s=10.0)]
    flight.failed("a", 1.0)
    assert flight.passed_over("b", 1.0) == [GiveUp(committed=False)]


def test_where_all_found_fault_with_what_is_asked_it_is_decided_again_and_not_for_ever() -> None:
    flight = airborne(A, B)
    flight.failed("a", 1.0, at_fault=True)
    assert flight.failed("b", 2.0, at_fault=True) == [Again()]
    assert flight.start((A, B), 3.0)[0] == Call(endpoint="a")
    flight.failed("a", 4.0)
    assert flight.failed("b", 5.0, at_fault=True) == [GiveUp(committed=False)]


def test_behind_a_plan_of_which_other_settings_have_taken_a_step_it_is_decided_again() -> None:
    flight = airborne(A, B)
    flight.failed("a", 1.0)
    assert flight.passed_over("b", 1.0, outdated=True) == [Again()]
    # Taken while another is under way, which then finds fault with what is asked.
    assert flight.start((HEDGED, B), 2.0)[0] == Call(endpoint="a")
    assert flight.timer(4.0)[0] == Call(endpoint="b", hedge=True)
    flight.passed_over("b", 4.0, outdated=True)
    assert flight.failed("a", 5.0, at_fault=True) == [Again()]


def test_who_is_found_fault_with_again_and_again_is_given_up() -> None:
    flight, plans = Flight(), 0
    while plans < 2 * ATTEMPTS_MAX:
        flight.start((A,), float(plans))
        plans += 1
        if flight.failed("a", float(plans), at_fault=True) == [GiveUp(committed=False)]:
            break
    assert plans == ATTEMPTS_MAX


def test_who_is_full_is_waited_for_where_every_step_before_was_passed_over() -> None:
    flight = airborne(A, Wait(endpoint="b", until_s=9.0))
    assert flight.passed_over("a", 0.0) == [Hold(until_s=9.0)]
    assert flight.attempts == 0


def test_a_hedge_that_is_passed_over_leaves_the_first_its_time() -> None:
    flight = airborne(HEDGED, B)
    flight.timer(2.0)
    assert flight.passed_over("b", 2.0) == [Timer(at_s=10.0)]
    assert flight.open == ["a"]


def test_the_last_failure_gives_up_uncommitted() -> None:
    flight = airborne(A)
    assert flight.failed("a", 1.0) == [GiveUp(committed=False)]


def test_a_stream_that_breaks_after_content_gives_up_committed() -> None:
    flight = airborne(A, B)
    flight.content("a", 1.0)
    assert flight.failed("a", 1.0) == [GiveUp(committed=True)]


def test_a_buffered_answer_that_breaks_after_content_is_made_good_elsewhere() -> None:
    flight = airborne(A, B, buffered=True)
    flight.content("a", 1.0)
    assert flight.failed("a", 1.0) == [Call(endpoint="b"), Timer(at_s=11.0)]
    assert flight.content("b", 1.0) == [Relay(endpoint="b")]
    assert flight.completed("b") == [Finish(endpoint="b")]


def test_without_content_at_the_cutover_the_next_step_starts_beside_it_once() -> None:
    flight = airborne(HEDGED, B)
    assert flight.timer(1.9) == [Timer(at_s=2.0)]
    assert Call(endpoint="b", hedge=True) in flight.timer(2.0)
    assert flight.timer(2.1) == [Timer(at_s=10.0)]


def test_the_first_to_show_content_wins_and_the_others_are_cancelled() -> None:
    flight = airborne(HEDGED, B)
    flight.timer(2.0)
    assert flight.content("b", 1.0) == [Cancel(endpoint="a"), Relay(endpoint="b")]
    assert flight.content("a", 1.0) == []
    assert flight.failed("a", 3.0) == []


def test_one_of_two_that_fails_leaves_the_other_its_chance() -> None:
    flight = airborne(HEDGED, B, C)
    flight.timer(2.0)
    assert flight.failed("a", 3.0) == [Timer(at_s=12.0)]
    assert flight.content("b", 1.0) == [Relay(endpoint="b")]


def test_silence_is_given_up_at_the_time_out_and_the_next_step_tried() -> None:
    flight = airborne(A, B)
    assert flight.timer(10.0) == [
        Cancel(endpoint="a", gave_up=Silence.NO_CONTENT),
        Call(endpoint="b"),
        Timer(at_s=20.0),
    ]
    assert flight.timer(20.0) == [Cancel(endpoint="b", gave_up=Silence.NO_CONTENT), GiveUp(committed=False)]


def test_an_attempt_given_up_may_still_end_and_nothing_comes_of_it() -> None:
    flight = airborne(A, B)
    flight.timer(10.0)
    assert flight.completed("a") == []
    assert flight.failed("a", 10.1) == []
    assert flight.content("a", 1.0) == []
    assert flight.content("b", 1.0) == [Relay(endpoint="b")]


def test_an_empty_answer_is_an_answer() -> None:
    flight = airborne(A, B)
    assert flight.completed("a") == [Relay(endpoint="a"), Finish(endpoint="a")]


def test_a_client_that_leaves_cancels_everything_under_way() -> None:
    flight = airborne(HEDGED, B)
    flight.timer(2.0)
    assert flight.left() == [Cancel(endpoint="a"), Cancel(endpoint="b")]
    assert flight.left() == []
    assert flight.timer(99.0) == []


def test_a_held_request_follows_the_plan_it_gets_at_last() -> None:
    flight = Flight()
    assert flight.start((Wait(endpoint="a", until_s=3.0),), 0.0) == [Hold(until_s=3.0)]
    assert flight.start((Wait(endpoint="a", until_s=4.0),), 3.0) == [Hold(until_s=4.0)]
    assert flight.start((A,), 4.0) == [Call(endpoint="a"), Timer(at_s=14.0)]


def test_when_all_have_failed_a_plan_may_end_in_waiting_for_one_that_is_full() -> None:
    flight = Flight()
    flight.start((A, Wait(endpoint="b", until_s=2.0)), 0.0)
    assert flight.failed("a", 1.0) == [Hold(until_s=2.0)]
    assert flight.state is State.HELD
    assert flight.start((B,), 2.0) == [Call(endpoint="b"), Timer(at_s=12.0)]


def test_an_attempt_that_is_under_way_is_never_left_for_a_wait() -> None:
    flight = Flight()
    flight.start((HEDGED, Wait(endpoint="b", until_s=2.0)), 0.0)
    assert flight.timer(2.0)[-1] == Timer(at_s=10.0)
    assert flight.content("a", 1.0) == [Relay(endpoint="a")]


def test_whoever_keeps_failing_has_had_its_chances() -> None:
    flight = Flight()
    for now_s in range(ATTEMPTS_MAX):
        flight.start((A, Wait(endpoint="b", until_s=2.0)), float(now_s))
        actions = flight.failed("a", float(now_s))
    assert actions == [GiveUp(committed=False)]


def test_a_held_request_whose_client_leaves_has_nothing_to_cancel() -> None:
    flight = Flight()
    flight.start((Wait(endpoint="a", until_s=3.0),), 0.0)
    assert flight.left() == []
    assert flight.state is State.LANDED


@pytest.mark.parametrize("plan", [(), (A, A)])
def test_a_plan_that_cannot_be_flown_is_a_programmers_error(plan: tuple[Run, ...]) -> None:
    with pytest.raises(AssertionError):
        Flight().start(plan, 0.0)


def relaying(*plan: Run, buffered: bool = False, stall_s: float = 60.0) -> Flight:
    flight = Flight(buffered=buffered, stall_s=stall_s)
    flight.start(plan, 0.0)
    assert flight.content("a", 1.0) == [Relay(endpoint="a"), Timer(at_s=1.0 + stall_s)]
    return flight


def test_a_stream_that_brings_nothing_more_is_given_up_and_its_client_told() -> None:
    flight = relaying(A, B)
    assert flight.timer(61.0, tokens=5) == [Timer(at_s=121.0)]
    assert flight.timer(121.0, tokens=5) == [
        Cancel(endpoint="a", gave_up=Silence.STALLED),
        GiveUp(committed=True),
    ]


def test_an_answer_that_no_client_has_seen_is_made_good_elsewhere_when_it_stalls() -> None:
    flight = relaying(A, B, buffered=True)
    assert flight.timer(61.0, tokens=1) == [
        Cancel(endpoint="a", gave_up=Silence.STALLED),
        Call(endpoint="b"),
        Timer(at_s=71.0),
    ]


def test_a_trickle_is_given_up_where_more_is_demanded() -> None:
    hasty = Run(endpoint="a", timeout_s=10.0, token_s_max=0.5)
    assert relaying(hasty).timer(61.0, tokens=120)[0] == Cancel(endpoint="a", gave_up=Silence.TOO_SLOW)
    assert relaying(hasty).timer(61.0, tokens=121) == [Timer(at_s=121.0)]
    assert relaying(A).timer(61.0, tokens=2) == [Timer(at_s=121.0)]


def test_an_answer_that_has_come_to_its_end_is_not_given_up_and_silent_from_then_on() -> None:
    flight = relaying(Run(endpoint="a", timeout_s=10.0, token_s_max=0.5))
    assert not flight.is_silent(61.0, tokens=30)
    assert flight.timer(61.0, tokens=30, finished=True) == [Timer(at_s=121.0)]
    assert flight.is_silent(121.0, tokens=30)


def test_nobody_is_given_up_for_a_client_that_does_not_read() -> None:
    flight = relaying(A)
    assert flight.timer(61.0, tokens=None) == [Timer(at_s=121.0)]


def test_an_earlier_timer_leaves_the_time_of_the_watch_as_it_is() -> None:
    assert relaying(A).timer(30.0, tokens=0) == [Timer(at_s=61.0)]


def test_a_second_attempt_that_may_not_start_is_left_out_and_still_the_next_step() -> None:
    flight = airborne(HEDGED, B)
    assert flight.timer(2.0, may_hedge=False) == [Timer(at_s=10.0)]
    assert flight.timer(3.0) == [Timer(at_s=10.0)]
    assert flight.failed("a", 4.0) == [Call(endpoint="b"), Timer(at_s=14.0)]


PREFILL = Prefill(endpoint="rack", target="laptop", timeout_s=10.0)


def test_a_prompt_alone_commits_nothing_and_is_decided_again_once_it_has_come() -> None:
    flight = Flight()
    first = flight.start((PREFILL, Run(endpoint="laptop", timeout_s=10.0)), 0.0)
    assert first[0] == Compute(endpoint="rack", target="laptop")
    assert flight.content("rack", 1.0) == []
    assert flight.completed("rack") == []
    assert flight.shipped("rack") == [Decide(endpoint="rack", target="laptop")]
    assert flight.state is State.PLANNED
    assert flight.start((Run(endpoint="laptop", timeout_s=10.0),), 2.0)[0] == Call(endpoint="laptop")


def test_a_prompt_that_does_not_come_is_computed_by_the_next_step() -> None:
    flight = Flight()
    flight.start((PREFILL, Run(endpoint="laptop", timeout_s=10.0)), 0.0)
    assert flight.failed("rack", 1.0)[0] == Call(endpoint="laptop")
    assert flight.shipped("rack") == [], "it is too late"


def test_a_prompt_that_takes_too_long_is_given_up() -> None:
    flight = Flight()
    flight.start((PREFILL, Run(endpoint="laptop", timeout_s=10.0)), 0.0)
    actions = flight.timer(10.0)
    assert actions[0] == Cancel(endpoint="rack", gave_up=Silence.NO_CONTENT)
    assert actions[1] == Call(endpoint="laptop")


def test_who_was_started_beside_a_prompt_goes_on_when_that_has_come() -> None:
    flight = Flight()
    flight.start((replace(PREFILL, cutover_s=1.0), Run(endpoint="laptop", timeout_s=10.0)), 0.0)
    assert flight.timer(1.0)[0] == Call(endpoint="laptop", hedge=True)
    assert all(isinstance(action, Timer) for action in flight.shipped("rack"))
    assert flight.content("laptop", 2.0) == [Relay(endpoint="laptop")]


def test_a_prompt_is_cancelled_where_another_attempt_is_the_first() -> None:
    flight = Flight()
    flight.start((replace(PREFILL, cutover_s=1.0), Run(endpoint="cloud", timeout_s=10.0)), 0.0)
    flight.timer(1.0)
    assert flight.content("cloud", 2.0) == [Cancel(endpoint="rack"), Relay(endpoint="cloud")]


def test_who_cannot_fetch_what_was_computed_elsewhere_may_do_without() -> None:
    flight = airborne(A, B)
    assert flight.failed("a", 1.0, fetching=True) == [Decide(endpoint="a")]
    assert flight.start((A,), 1.0)[0] == Call(endpoint="a")


def test_who_shows_nothing_while_it_fetches_may_do_without_too() -> None:
    flight = airborne(A, B)
    given_up = Cancel(endpoint="a", gave_up=Silence.NO_CONTENT)
    assert flight.timer(10.0, fetching="a") == [given_up, Decide(endpoint="a")]


def test_who_was_started_beside_one_that_cannot_fetch_goes_on() -> None:
    flight = airborne(HEDGED, B)
    assert flight.timer(2.0, fetching="a")[0] == Call(endpoint="b", hedge=True)
    assert all(isinstance(action, Timer) for action in flight.failed("a", 3.0, fetching=True))
    assert flight.open == ["b"]
