"""The decision: who gets it, why, with which time-outs, and when it waits."""

import pytest

from tests import make
from tidegate.core.model import (
    Decision,
    DecisionOverran,
    Ended,
    Ending,
    FirstToken,
    Held,
    Price,
    Prior,
    Probed,
    Released,
    Request,
    Run,
    Slo,
    Wait,
    replace,
)
from tidegate.core.queue import SCHEDULED_MAX
from tidegate.core.router import Router
from tidegate.core.starts import item
from tidegate.core.waiting import QUIET_S
from tidegate.core.why import Why


def names(decision: Decision) -> list[str]:
    return [step.endpoint for step in decision.plan]


def fill(router: Router, endpoint: str, count: int, now_s: float = 0.0) -> None:
    for index in range(count):
        router.observe(make.started(make.request(f"{endpoint}{index}"), endpoint), now_s)


def hold(router: Router, *requests: Request) -> None:
    for request in requests:
        router.observe(Held(request=request), request.arrived_s)


def test_what_is_in_time_at_home_stays_at_home_for_nothing() -> None:
    decision = make.router().decide(make.request(), 0.0)
    assert names(decision) == ["laptop", "cloud"]
    assert decision.why is Why.CHEAPEST_ON_TIME
    assert decision.propensity == 1.0


def test_a_promise_that_home_cannot_keep_is_worth_the_price() -> None:
    decision = make.router().decide(make.request(prompt_tokens=9_000, ttft_s=3.0, worth_usd=0.1), 0.0)
    assert names(decision)[0] == "cloud"
    assert decision.why is Why.WORTH_THE_PRICE


def test_a_promise_worth_less_than_its_price_is_not_bought() -> None:
    asked = make.request(prompt_tokens=9_000, ttft_s=3.0, worth_usd=0.001, late_usd_per_s=0.0)
    decision = make.router().decide(asked, 0.0)
    assert names(decision)[0] == "laptop"
    assert decision.why is Why.NOT_WORTH_MORE


def test_where_no_promise_can_be_kept_the_least_is_lost() -> None:
    decision = make.router().decide(make.request(prompt_tokens=9_000, ttft_s=0.1, late_usd_per_s=0.01), 0.0)
    assert names(decision)[0] == "cloud"
    assert decision.why is Why.LEAST_LOSS


def test_without_failover_there_is_one_attempt() -> None:
    assert len(make.router().decide(make.request(failover=False), 0.0).plan) == 1


def test_whoever_tries_again_has_an_attempt_less_each_time_and_one_at_least() -> None:
    router = make.router(*(make.endpoint(name) for name in "abcd"))
    plans = [router.decide(make.request(retry=retry), 0.0).plan for retry in range(5)]
    assert [len(plan) for plan in plans] == [3, 2, 1, 1, 1]


def test_time_outs_follow_the_prediction_within_bounds() -> None:
    quick, slow = make.request(prompt_tokens=10), make.request(prompt_tokens=20_000, ttft_s=60.0)
    router = make.router(make.endpoint("laptop"))
    (first,), (second,) = (router.decide(r, 0.0).plan for r in (quick, slow))
    assert isinstance(first, Run)
    assert isinstance(second, Run)
    assert first.timeout_s == 10.0
    assert 80.0 < second.timeout_s < 320.0


def test_a_hedge_starts_as_late_as_it_can_still_be_in_time() -> None:
    decision = make.router().decide(make.request(worth_usd=1.0), 0.0)
    assert isinstance(decision.plan[0], Run)
    assert decision.plan[0].cutover_s is not None
    assert 8.0 < decision.plan[0].cutover_s < 10.0


def test_a_hedge_that_costs_more_than_the_promise_is_not_planned() -> None:
    decision = make.router().decide(make.request(worth_usd=0.0), 0.0)
    assert isinstance(decision.plan[0], Run)
    assert decision.plan[0].cutover_s is None


def test_a_full_endpoint_that_is_not_ours_is_waited_for_where_there_is_no_other() -> None:
    router = make.router(make.endpoint("cloud", local=False, concurrency=2))
    fill(router, "cloud", 2)
    held = make.request("held")
    decision = router.decide(held, 0.0)
    assert isinstance(decision.plan[0], Wait)
    hold(router, held)
    assert router.due(0.1) == []
    router.observe(Ended(request_id="cloud0", endpoint="cloud", ending=Ending.OK, e2e_s=0.2), 0.2)
    assert router.due(0.2) == [held]


def test_a_full_endpoint_that_is_not_ours_is_busy_where_nobody_may_wait() -> None:
    router = make.router(make.endpoint("cloud", local=False, concurrency=2), held_max=0)
    fill(router, "cloud", 2)
    decision = router.decide(make.request(), 0.0)
    assert (decision.plan, decision.why) == ((), Why.BUSY)
    assert decision.retry_after_s is not None
    assert decision.retry_after_s >= 1.0


def test_a_request_that_can_wait_waits_for_a_slot_of_our_own() -> None:
    router = make.router()
    fill(router, "laptop", 2)
    decision = router.decide(make.request(slo=Slo(e2e_s=600.0)), 0.0)
    assert isinstance(decision.plan[0], Wait)
    assert decision.plan[0].endpoint == "laptop"
    assert decision.why is Why.WAITS_FOR_SLOT


def test_a_request_that_cannot_wait_goes_elsewhere() -> None:
    router = make.router()
    fill(router, "laptop", 2)
    assert names(router.decide(make.request(ttft_s=1.5, worth_usd=0.1), 0.0))[0] == "cloud"


def test_a_request_that_could_wait_does_not_where_certainty_is_worth_its_price() -> None:
    router = make.router()
    fill(router, "laptop", 2)
    for worth_usd, waits in ((0.001, True), (10.0, False)):
        decision = router.decide(make.request(ttft_s=2.1, worth_usd=worth_usd, late_usd_per_s=0.0), 0.0)
        assert isinstance(decision.plan[0], Wait) == waits


def test_what_is_held_for_an_engine_whose_window_only_a_guess_exceeds_keeps_waiting() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1, context_tokens=4_096))
    fill(router, "laptop", 1)
    held = make.request("held", prompt_tokens=4_000, output_tokens_max=None, slo=Slo())
    assert isinstance(router.decide(held, 0.0).plan[0], Wait)
    hold(router, held)
    assert router.due(0.1) == []
    assert isinstance(router.decide(held, 0.1).plan[0], Wait)


def test_one_that_arrives_does_not_overtake_one_that_is_more_urgent() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1))
    urgent = make.request("urgent", ttft_s=5.0)
    hold(router, urgent)
    patient = router.decide(make.request("patient", ttft_s=60.0), 0.0)
    assert isinstance(patient.plan[0], Wait)
    assert names(router.decide(urgent, 0.0)) == ["laptop"]


def test_an_engine_of_ours_is_given_no_more_prompts_than_keep_it_busy() -> None:
    router = make.router(make.endpoint("laptop", concurrency=8))
    long = make.request("long", prompt_tokens=6_000)
    router.observe(make.started(long, "laptop"), 0.0)
    waits = make.request("waits", ttft_s=60.0)
    assert isinstance(router.decide(waits, 0.0).plan[0], Wait)
    hold(router, waits)
    assert router.due(0.0) == []
    router.observe(FirstToken(request_id="long", endpoint="laptop", ttft_s=3.0), 3.0)
    assert router.due(3.0) == [waits]
    assert names(router.decide(waits, 3.0)) == ["laptop"]


def test_where_an_engine_does_not_tell_of_first_tokens_prompts_are_over_when_that_was_expected() -> None:
    router = make.router(make.endpoint("laptop", concurrency=8))
    router.observe(make.started(make.request("long", prompt_tokens=6_000), "laptop"), 0.0)
    asked = make.request(ttft_s=600.0, arrived_s=60.0)
    assert names(router.decide(asked, 60.0)) == ["laptop"]


def test_a_prompt_behind_which_a_promise_would_be_late_is_not_waited_for() -> None:
    router = make.router(make.endpoint("laptop", concurrency=8), make.endpoint("cloud", local=False))
    router.observe(make.started(make.request("long", prompt_tokens=9_000), "laptop"), 0.0)
    assert names(router.decide(make.request(ttft_s=3.0, worth_usd=0.1), 0.0))[0] == "cloud"


def test_what_is_sent_away_and_taken_by_nobody_waits_for_us_after_all() -> None:
    router = make.router()
    fill(router, "laptop", 2)
    decision = router.decide(make.request(ttft_s=1.9, worth_usd=10.0), 0.0)
    assert names(decision) == ["cloud", "laptop"]
    assert isinstance(decision.plan[1], Wait)
    alone = router.decide(make.request(ttft_s=1.9, worth_usd=10.0, failover=False), 0.0)
    assert names(alone) == ["cloud"]


def test_what_is_held_comes_due_when_a_slot_is_free() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1))
    fill(router, "laptop", 1)
    held = make.request("held")
    hold(router, held)
    assert router.due(0.1) == []
    router.observe(Ended(request_id="laptop0", endpoint="laptop", ending=Ending.OK, e2e_s=1.0, ttft_s=0.2), 1.0)
    assert router.due(1.0) == [held]
    router.observe(make.started(held, "laptop"), 1.0)
    assert router.due(1.0) == []
    assert router.held == 0


def test_due_requests_come_in_the_order_of_their_promises() -> None:
    router = make.router(make.endpoint("laptop", concurrency=3))
    a, b, c = (make.request(n, ttft_s=t) for n, t in (("a", 9.0), ("b", 5.0), ("c", 7.0)))
    hold(router, a, b, c)
    assert router.due(0.0) == [b, c, a]


def test_what_is_held_and_would_be_late_is_sent_away_in_time() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False))
    fill(router, "laptop", 1)
    held = make.request("held", ttft_s=8.0, worth_usd=0.1)
    hold(router, held)
    assert router.due(0.0) == []
    # The one before it goes on and on; at some time waiting further would break the promise.
    at_s = next(t / 10 for t in range(80) if router.due(t / 10))
    assert 3.0 < at_s < 8.0
    decision = router.decide(held, at_s)
    assert names(decision) == ["cloud", "laptop"]
    assert decision.why is Why.WORTH_THE_PRICE


def test_cheap_work_is_sent_away_so_that_dear_work_is_in_time() -> None:
    router = make.router(
        make.endpoint("laptop", concurrency=1),
        make.endpoint("cloud", local=False, price=Price(usd_per_input_token=1e-5)),
    )
    small = make.request("small", prompt_tokens=500, ttft_s=2.0)
    big = make.request("big", prompt_tokens=5_000, ttft_s=9.0, worth_usd=0.3)
    hold(router, small, big)
    decision = router.decide(small, 0.0)
    assert (names(decision), decision.why) == (["cloud", "laptop"], Why.SENT_AWAY)
    assert names(router.decide(big, 0.0))[0] == "laptop"


def test_what_has_been_held_too_long_goes_wherever_it_can() -> None:
    router = make.router(
        make.endpoint("laptop", concurrency=1),
        make.endpoint("cloud", local=False, price=Price(usd_per_input_token=1.0)),
        hold_s_max=20.0,
    )
    fill(router, "laptop", 1)
    held = make.request("held", slo=Slo())
    hold(router, held)
    assert isinstance(router.decide(held, 19.9).plan[0], Wait)
    assert router.due(20.0) == [held]
    decision = router.decide(held, 20.0)
    assert names(decision)[0] == "cloud"
    assert isinstance(decision.plan[0], Run)


def test_what_can_still_keep_its_promise_is_not_held_too_long() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), hold_s_max=20.0)
    fill(router, "laptop", 1)
    held = make.request("held", slo=Slo(e2e_s=300.0))
    hold(router, held)
    assert router.due(299.9) == []
    assert router.due(300.0) == [held]


def test_while_people_come_batch_work_leaves_a_slot_to_them() -> None:
    router = make.router(make.endpoint("laptop", concurrency=2))
    batch, person = make.request(slo=Slo(e2e_s=300.0)), make.request(ttft_s=2.0)
    fill(router, "laptop", 1)
    assert isinstance(router.decide(batch, 1.0).plan[0], Wait)
    assert isinstance(router.decide(person, 1.0).plan[0], Run)
    assert isinstance(router.decide(batch, QUIET_S).plan[0], Run)


def test_what_has_been_held_too_long_and_can_go_nowhere_is_refused() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), hold_s_max=20.0)
    fill(router, "laptop", 1)
    held = make.request("held", slo=Slo())
    hold(router, held)
    assert router.due(20.0) == [held]
    decision = router.decide(held, 20.0)
    assert (decision.plan, decision.why) == ((), Why.BUSY)
    router.observe(Released(request_id="held"), 20.0)
    assert router.held == 0


def test_where_nobody_else_may_wait_an_engine_with_slots_gets_more_prompts_than_it_needs() -> None:
    router = make.router(make.endpoint("rack", concurrency=64), held_max=2)
    ends = []
    for _ in range(40):
        request = make.request(slo=Slo(ttft_s=60.0))
        decision = router.decide(request, 0.0)
        ends.append(decision.why if not decision.plan else decision.plan[0])
        if isinstance(ends[-1], Wait):
            hold(router, request)
        else:
            router.observe(make.started(request, "rack"), 0.0)
    assert sum(isinstance(one, Wait) for one in ends) == 2
    assert all(isinstance(one, Wait | Run) for one in ends)


def test_who_waits_for_other_models_takes_no_slot_of_an_engine_without_them() -> None:
    router = make.router(
        make.endpoint("rack", concurrency=8), make.endpoint("desk", models=("n",), concurrency=1), held_max=20
    )
    router.observe(make.started(make.request("desk0", model="n"), "desk"), 0.0)
    hold(router, *(make.request(model="n", slo=Slo()) for _ in range(20)))
    for _ in range(8):
        request = make.request(prompt_tokens=9_000, prompt_bytes=36_000, slo=Slo(ttft_s=60.0))
        assert names(router.decide(request, 0.0)) == ["rack"]
        router.observe(make.started(request, "rack"), 0.0)
    assert router.decide(make.request(), 0.0).why is Why.HOLD_FULL


def test_a_full_queue_refuses_and_says_when_a_slot_would_be_its_own() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), held_max=2)
    fill(router, "laptop", 1)
    hold(router, *(make.request(slo=Slo()) for _ in range(2)))
    decision = router.decide(make.request(slo=Slo()), 0.0)
    assert decision.why is Why.HOLD_FULL
    assert decision.retry_after_s is not None
    assert decision.retry_after_s > router.endpoint("laptop").slots_free_s(0.0)[0]


def test_who_is_turned_away_comes_back_when_those_before_it_have_had_their_turns() -> None:
    back_s = []
    for held in (2, 6):
        router = make.router(make.endpoint("laptop", concurrency=1), held_max=held)
        fill(router, "laptop", 1)
        hold(router, *(make.request(slo=Slo()) for _ in range(held)))
        back_s.append(router.decide(make.request(slo=Slo()), 0.0).retry_after_s or 0.0)
    request = make.request(slo=Slo())
    base = router.endpoint("laptop").base(request, router._known.lengths.of(request), 0.0)
    assert back_s[1] - back_s[0] == pytest.approx(4.0 * (base.occupies_s + base.prompt_s))


def test_what_is_held_is_due_at_once_when_our_engine_dies() -> None:
    router = make.router()
    fill(router, "laptop", 2)
    held = make.request("held", slo=Slo(e2e_s=600.0))
    hold(router, held)
    assert router.due(0.0) == []
    router.observe(Probed(endpoint="laptop", up=False), 0.1)
    assert router.due(0.1) == [held]
    assert names(router.decide(held, 0.1)) == ["cloud"]


def test_of_many_that_are_held_those_are_looked_at_whose_promises_end_first() -> None:
    router = make.router(make.endpoint("laptop", concurrency=4), held_max=1000)
    fill(router, "laptop", 4)
    many = [make.request(f"r{number:03}", ttft_s=1000.0 - number) for number in range(3 * SCHEDULED_MAX)]
    hold(router, *many)
    assert router.due(0.0) == []
    for number in range(3):  # one is left to who cannot wait
        router.observe(
            Ended(request_id=f"laptop{number}", endpoint="laptop", ending=Ending.OK, e2e_s=1.0, ttft_s=0.2), 1.0
        )
    assert router.due(1.0) == [many[-1], many[-2]]
    assert not any(isinstance(router.decide(one, 1.0).plan[0], Wait) for one in many[-2:])
    assert all(isinstance(router.decide(one, 1.0).plan[0], Wait) for one in many[:-2])


def test_of_many_that_are_held_all_are_due_when_their_time_is_over_and_who_finds_room_when_our_engine_dies() -> None:
    router = make.router(held_max=1000, hold_s_max=20.0)
    fill(router, "laptop", 2)
    many = [make.request(slo=Slo()) for _ in range(2 * SCHEDULED_MAX)]
    hold(router, *many)
    assert router.due(0.0) == []
    assert {one.id for one in router.due(20.0)} == {one.id for one in many}
    router.observe(Probed(endpoint="laptop", up=False), 0.1)
    # As many as the other has room for, in their turn.
    room = router.endpoint("cloud").room
    assert room < len(many)
    first = sorted(many, key=lambda one: one.id)[:room]
    assert router.due(0.1) == first
    for one in first:
        router.observe(make.started(one, "cloud"), 0.1)
    assert router.due(0.1) == []


def test_what_is_held_for_another_that_is_full_goes_there_in_its_turn() -> None:
    router = make.router(make.endpoint("cloud", local=False, concurrency=2))
    fill(router, "cloud", 2)
    late = make.request("late", slo=Slo(ttft_s=1.0))
    patient, urgent = make.request("patient", slo=Slo(ttft_s=300.0)), make.request("urgent", slo=Slo(ttft_s=20.0))
    hold(router, late, patient, urgent)
    assert router.due(2.0) == []
    router.observe(make.ended("cloud0", "cloud"), 2.0)
    assert router.due(2.0) == [urgent]
    router.observe(make.ended("cloud1", "cloud"), 2.0)
    assert router.due(2.0) == [urgent, patient]


def test_many_that_our_engine_cannot_serve_do_not_keep_others_of_their_model_from_it() -> None:
    router = make.router(
        make.endpoint("laptop", concurrency=1, context_tokens=4096),
        make.endpoint("cloud", local=False, concurrency=1),
        held_max=1000,
    )
    fill(router, "laptop", 1)
    fill(router, "cloud", 1)
    long = [make.request(prompt_tokens=8_000, slo=Slo(ttft_s=100.0)) for _ in range(2 * SCHEDULED_MAX)]
    short = make.request("short", slo=Slo(ttft_s=110.0))
    hold(router, *long, short)
    assert router.due(0.0) == []
    router.observe(make.ended("laptop0", "laptop"), 1.0)
    assert router.due(1.0) == [short]


@pytest.mark.parametrize("waiting", [SCHEDULED_MAX, 2 * SCHEDULED_MAX])
@pytest.mark.parametrize(("ttft_s", "theirs_s"), [(0.1, 10.0), (30.0, 110.0)], ids=["late", "in time"])
def test_those_that_our_engine_cannot_serve_are_before_nobody_there(
    waiting: int, ttft_s: float, theirs_s: float
) -> None:
    def comes_to(long: int) -> Decision:
        """Where one goes while so many wait for the only one with room for them."""
        router = make.router(
            make.endpoint("laptop", concurrency=1, context_tokens=4096),
            make.endpoint("large", local=False, concurrency=1),
            make.endpoint("dear", local=False, context_tokens=4096),
            held_max=1000,
        )
        slo = Slo(ttft_s=theirs_s)
        hold(router, *(make.request(f"long{n}", prompt_tokens=8_000, slo=slo) for n in range(long)))
        for endpoint in ("laptop", "large"):
            router.observe(make.started(make.request(endpoint, arrived_s=100.0), endpoint), 100.0)
        hold(router, make.request("short", arrived_s=100.0, residency="local"))
        residency = "local" if ttft_s < 1.0 else "anywhere"
        return router.decide(make.request("r", arrived_s=100.0, ttft_s=ttft_s, residency=residency), 100.0)

    (step,) = comes_to(0).plan
    assert isinstance(step, Wait)
    assert comes_to(waiting) == comes_to(0)


def test_what_is_held_for_others_goes_to_a_second_one_once_the_first_is_full() -> None:
    cheap = make.endpoint("cheap", local=False, concurrency=1)
    dear = make.endpoint("dear", local=False, concurrency=4, price=Price(usd_per_output_token=1e-4))
    router = make.router(cheap, dear)
    fill(router, "cheap", 1)
    fill(router, "dear", 4)
    many = [make.request(f"held{number}", ttft_s=60.0) for number in range(4)]
    hold(router, *many)
    for endpoint, count in (("cheap", 1), ("dear", 4)):
        for number in range(count):
            router.observe(make.ended(f"{endpoint}{number}", endpoint), 1.0)
    assert router.due(1.0) == many


def test_who_comes_behind_more_than_are_looked_at_waits_a_fourth_of_that_where_there_are_four_engines() -> None:
    waits_s = []
    for count in (1, 4):
        engines = [make.endpoint(f"laptop{number}", concurrency=1) for number in range(count)]
        router = make.router(*engines, held_max=1000)
        for engine in engines:
            fill(router, engine.name, 1)
        hold(router, *(make.request(slo=Slo()) for _ in range(4 * SCHEDULED_MAX)))
        work = item(
            one := make.request("the_last", slo=Slo()),  # of one time the name decides
            1.0,
            {e.name: router.endpoint(e.name).base(one, router._known.lengths.of(one), 0.0) for e in engines},
            [],
        )
        waits_s.append(router._known.waiting.place(work, 0.0).as_if_s)
    assert waits_s[0] == pytest.approx(4 * waits_s[1], rel=0.05)


def test_who_comes_behind_more_than_are_looked_at_waits_for_all_of_their_work() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), held_max=1000)
    fill(router, "laptop", 1)

    def waits_s() -> float:
        (candidate,) = router.candidates(make.request(ttft_s=1000.0), 0.0)
        assert candidate.estimate is not None
        return candidate.estimate.wait_s

    many = [make.request(ttft_s=500.0) for _ in range(4 * SCHEDULED_MAX)]
    hold(router, *many[:SCHEDULED_MAX])
    once_s = waits_s()
    hold(router, *many[SCHEDULED_MAX:])
    assert waits_s() == pytest.approx(4.0 * once_s, rel=0.1)


def test_whose_promise_is_over_makes_room_for_those_that_can_be_in_time() -> None:
    router = make.router(make.endpoint("laptop", concurrency=2), held_max=1000)
    fill(router, "laptop", 2)
    late = [make.request(ttft_s=1.0) for _ in range(2 * SCHEDULED_MAX)]
    hold(router, *late, soon := make.request("soon", ttft_s=12.0))
    router.observe(Ended(request_id="laptop0", endpoint="laptop", ending=Ending.OK, e2e_s=5.0, ttft_s=0.2), 5.0)
    assert router.due(5.0) == [soon]


def test_many_that_are_held_for_one_model_do_not_keep_another_from_its_engine() -> None:
    router = make.router(
        make.endpoint("laptop", concurrency=2), make.endpoint("desk", models=("other",)), held_max=1000
    )
    fill(router, "laptop", 2)
    hold(router, *(make.request(ttft_s=30.0) for _ in range(2 * SCHEDULED_MAX)))
    hold(router, other := make.request(model="other", ttft_s=60.0))
    assert router.due(0.0) == [other]


def test_an_endpoint_with_a_slot_is_used_while_another_of_ours_is_full() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b"), make.endpoint("cloud", local=False))
    fill(router, "a", 2)
    assert names(router.decide(make.request(), 0.0))[0] == "b"


def test_a_second_engine_of_ours_stands_by_even_for_what_may_not_leave() -> None:
    router = make.router(make.endpoint("a"), make.endpoint("b"), make.endpoint("c"))
    fill(router, "a", 2)
    assert names(router.decide(make.request(residency="local"), 0.0)) == ["b", "c"]


def test_the_static_rule_takes_home_first_then_the_cheapest() -> None:
    dear = make.endpoint("dear", local=False, price=Price(usd_per_input_token=1.0))
    router = make.router(dear, make.endpoint("laptop"), make.endpoint("cloud", local=False))
    router.observe(DecisionOverran(spent_s=0.1), 0.0)
    decision = router.decide(make.request(prompt_tokens=9_000, ttft_s=1.0), 0.5)
    assert (names(decision), decision.why) == (["laptop", "cloud", "dear"], Why.STATIC_RULE)
    assert router.decide(make.request(), 1.0).why is not Why.STATIC_RULE


def test_the_static_rule_keeps_data_at_home() -> None:
    router = make.router()
    router.observe(DecisionOverran(spent_s=0.1), 0.0)
    assert names(router.decide(make.request(residency="local"), 0.1)) == ["laptop"]


def test_the_static_rule_lets_what_is_held_wait_for_its_slot() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1), make.endpoint("cloud", local=False))
    fill(router, "laptop", 1)
    held = make.request("held", slo=Slo())
    hold(router, held)
    router.observe(DecisionOverran(spent_s=0.1), 0.0)
    assert isinstance(router.decide(held, 0.1).plan[0], Wait)
    assert router.due(0.1) == []
    assert names(router.decide(make.request("new"), 0.1)) == ["cloud"]


def test_the_static_rule_holds_what_has_nowhere_else_to_go() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1))
    fill(router, "laptop", 1)
    router.observe(DecisionOverran(spent_s=0.1), 0.0)
    assert isinstance(router.decide(make.request(residency="local"), 0.1).plan[0], Wait)


def test_facts_of_an_endpoint_that_a_reload_took_out_are_passed_over() -> None:
    router = make.router()
    request = make.request("r")
    hold(router, request)
    router.observe(make.started(request, "gone"), 0.0)
    router.observe(Ended(request_id="r", endpoint="gone", ending=Ending.OK, e2e_s=1.0, output_tokens=5), 1.0)
    router.observe(Probed(endpoint="gone", up=True), 1.0)
    assert router.held == 0


def test_an_endpoint_that_names_a_model_twice_is_tried_once() -> None:
    router = make.router(make.endpoint("laptop", models=("m", "m")))
    assert names(router.decide(make.request(), 0.0)) == ["laptop"]


def test_candidates_show_what_an_excluded_endpoint_would_have_been() -> None:
    cloud, laptop = make.router().candidates(make.request(residency="local"), 0.0)
    assert (cloud.endpoint, cloud.excluded) == ("cloud", Why.MUST_STAY_LOCAL)
    assert cloud.estimate is not None
    assert cloud.estimate.cost_usd > 0.0
    assert laptop.excluded is None


def test_candidates_show_the_wait_for_a_slot() -> None:
    router = make.router(make.endpoint("laptop", concurrency=1))
    fill(router, "laptop", 1)
    (candidate,) = router.candidates(make.request(), 0.0)
    assert candidate.estimate is not None
    assert candidate.estimate.wait_s == pytest.approx(router.endpoint("laptop").slots_free_s(0.0)[0])
    assert candidate.estimate.ttft_s > candidate.estimate.wait_s


@pytest.mark.parametrize("prior", [Prior(overhead_s=0.0, prefill_s_per_token=0.0, decode_s_per_token=0.0, sigma=0.0)])
def test_a_prior_of_zeros_is_survived(prior: Prior) -> None:
    router = make.router(make.endpoint("laptop", prior=prior), make.endpoint("cloud", local=False, prior=prior))
    asked = make.request(
        prompt_tokens=0, prompt_bytes=0, output_tokens_max=0, slo=Slo(ttft_s=1.0, tpot_s=0.1, e2e_s=1.0)
    )
    assert router.decide(asked, 0.0).plan
    router.observe(make.started(asked, "laptop"), 0.0)
    router.observe(
        Ended(request_id=asked.id, endpoint="laptop", ending=Ending.OK, e2e_s=0.0, ttft_s=0.0, output_tokens=9), 0.0
    )
    assert router.decide(asked, 0.0).plan


def saturated(*, busy_s: float) -> tuple[Router, float]:
    """An engine with one slot that was given work that was in time, without a pause, and is at it again."""
    router, now_s = make.router(make.endpoint("laptop", concurrency=1)), 0.0
    while now_s < busy_s:
        served = make.request(arrived_s=now_s)
        router.observe(make.started(served, "laptop"), now_s)
        now_s += 2.4
        router.observe(make.ended(served.id, "laptop", ttft_s=0.25, e2e_s=2.4, output_tokens=100), now_s)
    router.observe(make.started(make.request(arrived_s=now_s), "laptop"), now_s)
    return router, now_s


def test_what_can_only_be_late_is_refused_at_once_where_those_in_time_leave_it_nothing() -> None:
    router, now_s = saturated(busy_s=600.0)
    decision = router.decide(make.request(arrived_s=now_s, ttft_s=0.3), now_s)
    assert (decision.plan, decision.why) == ((), Why.TOO_LATE)
    assert decision.retry_after_s is not None
    # What can still be in time is held as ever, and so is what was promised nothing.
    for patient in (make.request(arrived_s=now_s), make.request(arrived_s=now_s, slo=Slo())):
        assert router.decide(patient, now_s).why is Why.WAITS_FOR_ANY


def test_what_can_only_be_late_is_held_while_there_is_time_for_it() -> None:
    router, now_s = saturated(busy_s=10.0)
    assert router.decide(make.request(arrived_s=now_s, ttft_s=0.3), now_s).why is Why.WAITS_FOR_ANY


def test_one_long_prompt_that_is_late_itself_is_no_reason_to_send_the_next_one_away_for_an_hour() -> None:
    reader = replace(make.LOCAL_PRIOR, prefill_s_per_token=0.046)
    router = make.router(make.endpoint("laptop", prior=reader))
    first, second, third = (
        make.request(name, arrived_s=at_s, prompt_tokens=2_066, prompt_bytes=8_264, ttft_s=2.0)
        for name, at_s in (("first", 0.0), ("second", 1.0), ("third", 3.5))
    )
    assert router.decide(first, 0.0).why is Why.ONLY_ENDPOINT
    router.observe(make.started(first, "laptop"), 0.0)
    # Its prompt takes a minute and a half, of which two seconds are left until the next one is taken.
    assert router.decide(second, 1.0).why is Why.WAITS_FOR_ANY
    router.observe(Held(request=second), 1.0)
    told = router.decide(third, 3.5)
    assert told.why is Why.TOO_LATE
    assert told.retry_after_s is not None
    assert 60.0 < told.retry_after_s < 300.0, "about as long as the one before it takes"


def test_who_is_late_from_the_start_counts_as_late_at_a_second_engine_as_well() -> None:
    reader = replace(make.LOCAL_PRIOR, prefill_s_per_token=0.046)
    router = make.router(*(make.endpoint(name, prior=reader, concurrency=1) for name in ("laptop", "rack")))
    for name in ("first", "second"):
        request = make.request(name, prompt_tokens=2_066, prompt_bytes=8_264, ttft_s=2.0)
        router.observe(make.started(request, router.decide(request, 0.0).plan[0].endpoint), 0.0)
    for name in ("laptop", "rack"):
        (sent,) = router.endpoint(name).state.reservations.values()
        assert sent.rest


def test_what_is_promised_nothing_and_starts_at_once_takes_nothing_from_the_share_of_who_waits() -> None:
    router = make.router(make.endpoint("laptop"))
    request = make.request("batch", slo=Slo())
    assert router.decide(request, 0.0).why is Why.ONLY_ENDPOINT
    router.observe(make.started(request, "laptop"), 0.0)
    assert not router.endpoint("laptop").state.reservations["batch"].rest


def test_what_one_tier_alone_would_cost_is_the_lowest_list_price_that_may_ever_serve_it() -> None:
    dear = Price(usd_per_input_token=3e-6, usd_per_output_token=9e-6)
    router = make.router(
        make.endpoint(),
        make.endpoint("cloud", local=False, context_tokens=4096),
        make.endpoint("far", local=False, price=dear),
    )
    # Whether it is up, or has a place, is no matter.
    router.observe(Probed(endpoint="cloud", up=False), 0.0)
    fill(router, "laptop", 2)
    request = make.request()
    assert router.alone_usd(request, 1000, 100, local=True, now_s=1.0) == ("laptop", 0.0)
    for tokens, name, usd in ((1000, "cloud", 0.0014), (5000, "far", 0.0159)):
        found = router.alone_usd(request, tokens, 100, local=False, now_s=1.0)
        assert found is not None
        assert (found[0], round(found[1], 9)) == (name, usd)
    stays = make.request(residency="local")
    assert router.alone_usd(stays, 1000, 100, local=False, now_s=1.0) is None
    assert router.alone_usd(make.request(model="other"), 1000, 100, local=True, now_s=1.0) is None


def test_of_several_completions_each_has_to_fit_the_window_of_one_tier_alone() -> None:
    router = make.router(make.endpoint("cloud", local=False, context_tokens=1050))
    three = make.request(completions=3)
    found = router.alone_usd(three, 1000, 150, local=False, now_s=1.0)
    assert found is not None
    assert found[1] == pytest.approx(1000 * 1e-6 + 150 * 4e-6), "all that was made is paid"
    assert router.alone_usd(three, 1000, 151, local=False, now_s=1.0) is None


def test_of_several_prompts_each_has_to_fit_the_window_of_one_tier_alone() -> None:
    router = make.router(make.endpoint("cloud", local=False, context_tokens=1050))
    three = make.request(prompts=3, completions=3)
    found = router.alone_usd(three, 3000, 150, local=False, now_s=1.0)
    assert found is not None
    assert found[1] == pytest.approx(3000 * 1e-6 + 150 * 4e-6), "all of them are paid"
    assert router.alone_usd(three, 3001, 150, local=False, now_s=1.0) is None


def test_running_an_engine_costs_what_a_request_is_predicted_to_take_there_with_the_tokens_that_it_had() -> None:
    router = make.router(make.endpoint(usd_per_s=0.002), make.endpoint("cloud", local=False))
    short, long = (router.alone_usd(make.request(), 200, tokens, local=True, now_s=0.0) for tokens in (100, 200))
    assert short is not None
    assert long is not None
    # By the prior, a token takes 20 ms, and one of two slots has half of the engine.
    assert long[1] - short[1] == pytest.approx(100 * 0.02 * 0.001, rel=0.5)
    assert 0.0 < short[1] < long[1]


def test_several_completions_are_decoded_side_by_side_and_run_an_engine_for_as_long_as_each() -> None:
    router = make.router(make.endpoint(usd_per_s=0.002), make.endpoint("cloud", local=False))
    one = router.alone_usd(make.request(), 200, 100, local=True, now_s=0.0)
    assert one is not None
    four = router.alone_usd(make.request(completions=4), 200, 400, local=True, now_s=0.0)
    assert four is not None
    assert four[1] == pytest.approx(one[1])


def test_what_was_predicted_of_the_last_decision_is_told_until_a_fact_is() -> None:
    router, request = make.router(), make.request()
    assert router.foreseen(request.id, "laptop") is None
    router.decide(request, 0.0)
    first_s, usd = router.foreseen(request.id, "laptop") or (0.0, -1.0)
    assert first_s > 0.0
    assert usd == 0.0
    assert router.foreseen("another", "laptop") is None
    router.observe(make.started(request, "laptop"), 0.0)
    assert router.foreseen(request.id, "laptop") is None
    assert router.reserved("laptop", request.id) is not None
    assert router.reserved("cloud", request.id) is None
    assert router.reserved("nowhere", request.id) is None


@pytest.mark.parametrize("others", [False, True])
def test_who_has_waited_as_long_as_it_may_has_the_last_slot_that_is_free(others: bool) -> None:
    """A slot was left for who is urgent; beside all others that are held there is none, for it is the only one."""
    router = make.router(make.endpoint("own", concurrency=2), *([make.endpoint("cloud", local=False)] * others))
    urgent = make.request("urgent", ttft_s=2.0)
    router.observe(make.started(urgent, "own"), 0.0)
    router.observe(make.ended("urgent", "own", ttft_s=0.3, e2e_s=2.0, output_tokens=80), 2.0)
    long = make.request("long", arrived_s=2.0, slo=Slo(tpot_s=1.0), output_tokens_max=30_000)
    router.observe(make.started(long, "own"), 2.0)
    router.observe(FirstToken(request_id="long", endpoint="own", ttft_s=0.3), 2.3)
    waits = make.request("waits", arrived_s=3.0, slo=Slo(tpot_s=1.0), output_tokens_max=30_000)
    assert isinstance(router.decide(waits, 3.0).plan[0], Wait)
    router.observe(Held(request=waits), 3.0)
    now_s = 3.0 + router.policy.hold_s_max
    # Somebody urgent was served a moment ago, so that the last slot is still left.
    other = make.request("other", arrived_s=now_s - 1.0, ttft_s=2.0)
    router.observe(make.started(other, "own"), now_s - 1.0)
    router.observe(make.ended("other", "own", ttft_s=0.3, e2e_s=0.5, output_tokens=5), now_s - 0.5)
    (first, *_) = router.decide(waits, now_s).plan
    assert isinstance(first, Run)
    assert first.endpoint == "own"
