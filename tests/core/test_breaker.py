"""When to stop trying an endpoint, and when to try again."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.breaker import OPEN_S_MAX, OPEN_S_MIN, Breaker, answers, first, learn, started
from tidegate.core.model import Ending


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for index in range(3):
        learn(breaker, f"r{index}", Ending.FAILED, now_s)
    return breaker


def test_two_failures_are_bad_luck_and_three_are_a_pattern() -> None:
    breaker = Breaker()
    learn(breaker, "a", Ending.FAILED, 0.0)
    learn(breaker, "b", Ending.TIMED_OUT, 0.0)
    assert not breaker.blocks(0.1)
    learn(breaker, "c", Ending.FAILED, 0.0)
    assert breaker.blocks(0.1)


def test_three_failures_spread_over_half_a_minute_open_it() -> None:
    breaker = Breaker()
    for now_s in (0.0, 15.0, 30.0):
        assert not breaker.blocks(now_s)
        learn(breaker, "r", Ending.FAILED, now_s)
    assert breaker.blocks(30.0)


def test_failures_far_apart_never_open_it() -> None:
    breaker = Breaker()
    for index in range(50):
        learn(breaker, f"r{index}", Ending.FAILED, index * 60.0)
    assert not breaker.blocks(50 * 60.0)


def test_a_refusal_is_half_a_strike_and_a_cancellation_none() -> None:
    breaker = Breaker()
    for index in range(4):
        learn(breaker, f"r{index}", Ending.REFUSED, 0.0)
        learn(breaker, f"c{index}", Ending.CANCELLED, 0.0)
    assert not breaker.blocks(0.0)
    learn(breaker, "r", Ending.REFUSED, 0.0)
    assert breaker.blocks(0.0)


def test_refusals_between_answers_that_begin_are_no_pattern() -> None:
    breaker = Breaker()
    for now_s in range(50):
        learn(breaker, "r", Ending.REFUSED, float(now_s))
        if now_s % 3 == 0:
            answers(breaker, sent_s=now_s - 0.1)
    assert not breaker.blocks(50.0)


def test_what_was_sent_before_the_first_refusal_may_begin_though_nothing_is_served_any_more() -> None:
    breaker = Breaker()
    for now_s in range(1, 6):
        assert not breaker.blocks(float(now_s))
        learn(breaker, "r", Ending.REFUSED, float(now_s))
        answers(breaker, sent_s=0.5)
    assert breaker.blocks(5.0)
    # Nor does it close what has opened: that does its trial.
    answers(breaker, sent_s=5.5)
    assert breaker.blocks(5.5)


def test_answers_that_begin_and_break_off_are_a_pattern() -> None:
    breaker = Breaker()
    for now_s in range(3):
        answers(breaker, sent_s=now_s - 0.5)
        learn(breaker, "r", Ending.FAILED, float(now_s))
    assert breaker.blocks(2.0)


def test_a_half_open_breaker_lets_one_attempt_try_at_a_time() -> None:
    breaker = opened()
    assert breaker.blocks(OPEN_S_MIN - 0.1)
    assert not breaker.blocks(OPEN_S_MIN)
    started(breaker, "trial", OPEN_S_MIN)
    assert breaker.blocks(OPEN_S_MIN + 1.0)
    learn(breaker, "trial", Ending.CANCELLED, OPEN_S_MIN + 2.0)
    assert not breaker.blocks(OPEN_S_MIN + 2.0)


def test_a_trial_that_succeeds_closes_it() -> None:
    breaker = opened()
    started(breaker, "trial", 6.0)
    learn(breaker, "trial", Ending.OK, 7.0)
    assert breaker.state == "closed"
    assert not breaker.blocks(7.0)


def test_a_trial_that_begins_to_answer_closes_it_and_breaking_off_it_is_a_failed_trial() -> None:
    breaker = opened()
    started(breaker, "trial", 6.0)
    assert not first(breaker, "straggler")
    assert breaker.blocks(6.2)
    assert first(breaker, "trial")
    assert breaker.state == "closed"
    assert not breaker.blocks(6.5)
    learn(breaker, "trial", Ending.FAILED, 60.0)
    assert breaker.open_until_s == 60.0 + 2 * OPEN_S_MIN


def test_who_fails_beside_an_answering_trial_opens_it_for_as_long_as_a_failed_trial_and_once() -> None:
    breaker = opened()
    started(breaker, "trial", 6.0)
    first(breaker, "trial")
    for index in range(3):
        assert not breaker.blocks(7.0)
        learn(breaker, f"s{index}", Ending.FAILED, 7.0)
    assert breaker.open_until_s == 7.0 + 2 * OPEN_S_MIN
    learn(breaker, "trial", Ending.FAILED, 8.0)
    assert breaker.open_until_s == 8.0 + 2 * OPEN_S_MIN
    started(breaker, "next", 20.0)
    assert breaker.trial == "next"


def test_a_trial_that_has_answered_is_forgotten_with_its_end() -> None:
    for ending in (Ending.OK, Ending.CANCELLED):
        breaker = opened()
        started(breaker, "trial", 6.0)
        first(breaker, "trial")
        learn(breaker, "trial", ending, 7.0)
        assert breaker == Breaker()


def test_each_failed_trial_doubles_the_time_until_the_next_up_to_a_bound() -> None:
    breaker, waits = opened(), []
    for index in range(2_000):
        now_s = breaker.open_until_s
        started(breaker, f"trial{index}", now_s)
        learn(breaker, f"trial{index}", Ending.FAILED, now_s)
        waits.append(breaker.open_until_s - now_s)
    assert waits[:4] == [10.0, 20.0, 40.0, 80.0]
    assert waits[4:] == [OPEN_S_MAX] * 1_996


def test_a_straggler_that_fails_is_no_failed_trial() -> None:
    breaker = opened()
    learn(breaker, "straggler", Ending.FAILED, 4.0)
    assert breaker.open_until_s == 4.0 + OPEN_S_MIN
    learn(breaker, "late straggler", Ending.FAILED, 20.0)
    assert breaker.open_until_s == 20.0 + OPEN_S_MIN


def test_a_straggler_beside_the_trial_ends_neither_it_nor_the_back_off() -> None:
    breaker = opened()
    started(breaker, "trial", 6.0)
    learn(breaker, "straggler", Ending.OK, 6.5)
    assert breaker.blocks(6.6)
    learn(breaker, "trial", Ending.FAILED, 7.0)
    assert breaker.open_until_s == 7.0 + 2 * OPEN_S_MIN


def test_a_straggler_does_not_hold_up_the_trial() -> None:
    breaker = Breaker()
    started(breaker, "straggler", 0.0)
    for index in range(3):
        learn(breaker, f"r{index}", Ending.FAILED, 1.0)
    assert not breaker.blocks(1.0 + OPEN_S_MIN)


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "first", "answers", *Ending]), st.integers(0, 4), st.floats(0.0, 60.0)),
        max_size=80,
    )
)
def test_a_later_failure_never_shortens_the_time_it_stays_open(events: list[tuple[str, int, float]]) -> None:
    breaker, now_s = Breaker(), 0.0
    for what, who, later_s in events:
        now_s += later_s
        until_s = breaker.open_until_s
        if what == "start":
            started(breaker, str(who), now_s)
        elif what == "first":
            first(breaker, str(who))
        elif what == "answers":
            answers(breaker, now_s - later_s / 2.0)
        else:
            learn(breaker, str(who), Ending(what), now_s)
        if what not in (Ending.OK, "first"):
            assert breaker.open_until_s >= until_s
        assert breaker.open_until_s <= now_s + OPEN_S_MAX
