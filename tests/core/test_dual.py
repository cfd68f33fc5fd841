"""Worth that follows a target: what a router makes of promises that were kept and missed, and of what is overdue."""

import msgspec
import pytest

from tests import make
from tidegate.core.dual import BEGINS, CLASSES_MAX, LEAST, Dual, Duals, fault
from tidegate.core.model import (
    Decision,
    Ending,
    FirstToken,
    Held,
    Judged,
    Released,
    Request,
    Run,
    Slo,
    replace,
)
from tidegate.core.replay import explained
from tidegate.core.resume import rest_of
from tidegate.core.revive import fault as fault_of
from tidegate.core.revive import reconfigured, revived
from tidegate.core.router import Router
from tidegate.core.state import State

TARGET = 0.9
MOST_USD = 0.01


def asked(id: str = "", **changes: object) -> Request:
    request = make.request(id, attainment=TARGET, klass="chat/short", worth_usd=MOST_USD)
    return replace(request, **changes)


def tell(router: Router, times: int, *, kept: bool | None, at_s: float, klass: str = "chat/short") -> float:
    for number in range(times):
        at_s += 1.0
        router.observe(Judged(request_id=f"{at_s}/{number}", klass=klass, attainment=TARGET, kept=kept), at_s)
    return at_s


def share(router: Router, at_s: float) -> float:
    return router.worth_share("chat", at_s)


def first(decision: Decision) -> str:
    assert isinstance(decision.plan[0], Run)
    return decision.plan[0].endpoint


def test_promises_are_worth_a_tenth_of_the_most_at_first_and_all_of_it_when_none_is_kept() -> None:
    router = make.router()
    assert router.worth_usd(asked(), 0.0) == pytest.approx(MOST_USD / 10.0)
    at_s = tell(router, 200, kept=False, at_s=0.0)
    assert router.worth_usd(asked(), at_s) == MOST_USD
    at_s = tell(router, 10_000, kept=True, at_s=at_s)
    assert router.worth_usd(asked(), at_s) == pytest.approx(MOST_USD / 1000.0)


def test_it_rests_where_as_many_are_missed_as_may_be() -> None:
    router, at_s = make.router(), 0.0
    for _ in range(100):
        at_s = tell(router, 9, kept=True, at_s=at_s)
        at_s = tell(router, 1, kept=False, at_s=at_s)
    assert share(router, at_s) == pytest.approx(0.1)


def test_the_sizes_of_prompts_share_what_their_class_is_worth_and_others_do_not() -> None:
    router = make.router()
    at_s = tell(router, 50, kept=False, at_s=0.0, klass="chat/long")
    assert share(router, at_s) > 0.1
    assert router.worth_share("batch", at_s) == pytest.approx(0.1)


def test_misses_send_to_who_asks_money_what_stayed_before() -> None:
    """An engine of ours that keeps the promise with one chance in ten, and an API that keeps it for sure."""
    slow = make.endpoint("laptop", prior=make.scaled(make.LOCAL_PRIOR, 40.0))
    router = make.router(slow, make.endpoint("cloud", local=False))
    request = asked(worth_usd=0.002, late_usd_per_s=0.0)
    assert first(router.decide(request, 0.0)) == "laptop"
    at_s = tell(router, 100, kept=False, at_s=0.0)
    assert first(router.decide(replace(request, arrived_s=at_s), at_s)) == "cloud"


def test_lateness_weighs_as_much_beside_a_promise_as_it_did() -> None:
    router = make.router(make.endpoint("laptop", prior=make.scaled(make.LOCAL_PRIOR, 40.0)))
    (before,) = router.candidates(asked(slo=Slo(ttft_s=5.0)), 0.0)
    at_s = tell(router, 30, kept=False, at_s=0.0)
    (after,) = router.candidates(asked(arrived_s=at_s, slo=Slo(ttft_s=5.0)), at_s)
    times = share(router, at_s) / 0.1
    assert times > 1.5
    for part in ("promise", "lateness"):
        assert after.contributions_usd[part] == pytest.approx(times * before.contributions_usd[part])


def test_what_is_held_beyond_its_promise_is_missed_before_it_is_over_and_only_once() -> None:
    router, late = make.router(), make.router()
    request = asked("a", slo=Slo(ttft_s=2.0))
    for each in (router, late):
        each.observe(Held(request=request), 0.5)
        each.observe(Judged(request_id="x", klass="chat", attainment=TARGET, kept=True), 1.9)
    before = share(router, 3.0)
    router.observe(Judged(request_id="y", klass="chat", attainment=TARGET), 3.0)
    assert share(router, 3.0) > before
    assert router.state.overdue == {"a": True}
    raised = share(router, 3.0)
    router.observe(Released(request_id="a"), 9.0)
    router.observe(Judged(request_id="a", klass="chat", attainment=TARGET, kept=False), 9.0)
    assert share(router, 9.0) == raised
    assert router.state.overdue == {}
    # Where nothing was told meanwhile, it counts in the end.
    late.observe(Judged(request_id="a", klass="chat", attainment=TARGET, kept=False), 9.0)
    assert share(late, 9.0) == pytest.approx(raised)


def test_what_is_held_when_it_is_overdue_already_counts_at_once() -> None:
    router = make.router()
    router.observe(Held(request=asked("a", slo=Slo(ttft_s=2.0))), 5.0)
    assert router.state.overdue == {"a": True}


def test_the_rest_of_an_answer_that_is_held_is_missed_when_its_own_promise_ends() -> None:
    """The answer began in time and broke off: its rest is promised as soon from then on."""
    router, request = make.router(), asked("a", slo=Slo(ttft_s=2.0))
    router.observe(Held(request=request), 0.1)
    router.observe(make.started(request, "laptop"), 0.5)
    router.observe(FirstToken(request_id="a", endpoint="laptop", ttft_s=0.5), 1.0)
    router.observe(make.ended("a", "laptop", ending=Ending.FAILED, ttft_s=0.5, output_tokens=5), 1.5)
    rest = rest_of(request, said_tokens=5, said_bytes=20, spent_usd=0.0, to=("laptop",), now_s=1.5)
    router.observe(Held(request=rest), 1.5)
    again = Router(router.endpoints, router.policy, state_of(router))
    for each in (router, again):
        tell(each, 1, kept=True, at_s=1.5)
        assert each.state.overdue == {}
        tell(each, 1, kept=True, at_s=2.6)
        assert each.state.overdue == {"a": True}
    assert again.state.duals == router.state.duals


def test_where_nobody_can_say_nothing_is_learned() -> None:
    router = make.router()
    at_s = tell(router, 20, kept=None, at_s=0.0)
    assert router.state.duals == {}
    assert share(router, at_s) == pytest.approx(0.1)


def test_silence_forgets_and_traffic_does_not() -> None:
    router = make.router()
    at_s = tell(router, 200, kept=False, at_s=0.0)
    assert share(router, at_s + 600.0) == 1.0
    assert share(router, at_s + 600.0 + 3600.0) == pytest.approx(10.0**-0.5)


def test_a_snapshot_goes_on_as_the_router_did() -> None:
    router = make.router()
    router.observe(Held(request=asked("a", slo=Slo(ttft_s=2.0))), 0.5)
    at_s = tell(router, 7, kept=False, at_s=0.5)
    again = Router((make.endpoint("laptop"), make.endpoint("cloud", local=False)), make.policy(), state_of(router))
    for each in (router, again):
        tell(each, 3, kept=False, at_s=at_s)
        each.observe(Judged(request_id="a", klass="chat", attainment=TARGET, kept=False), at_s + 9.0)
    assert again.state.duals == router.state.duals
    assert share(again, at_s + 9.0) == share(router, at_s + 9.0)


def state_of(router: Router) -> State:
    return msgspec.json.decode(bytes(router.snapshot()), type=State)


def test_a_restart_keeps_what_worth_was_found_and_not_what_was_overdue() -> None:
    router = make.router()
    router.observe(Held(request=asked("a", slo=Slo(ttft_s=2.0))), 5.0)
    at_s = tell(router, 30, kept=False, at_s=5.0)
    after = revived(state_of(router), {"laptop"}, at_s)
    assert after.duals == router.state.duals
    assert after.overdue == {}
    assert revived(state_of(router), {"laptop"}, at_s - 20.0).duals["chat"].at_s == at_s - 20.0


def test_a_reload_keeps_it_and_what_is_overdue() -> None:
    router = make.router()
    router.observe(Held(request=asked("a", slo=Slo(ttft_s=2.0))), 5.0)
    tell(router, 30, kept=False, at_s=5.0)
    before = state_of(router)
    after = reconfigured(router.state, (make.endpoint("laptop"),), make.policy(), make.policy(), {"laptop"}, ())
    assert (after.duals, after.overdue) == (before.duals, {"a": True})


IMPOSSIBLE = [
    ({"a": Dual(level=0.1)}, "more than the most"),
    ({"a": Dual(level=LEAST - 0.1)}, "less than a thousandth"),
    ({"a": Dual(level=float("nan"))}, "more than the most"),
    ({"a": Dual(raised=-1.0)}, "moves the wrong way"),
    ({"a": Dual(lowered=float("inf"))}, "without bounds"),
    ({f"c{number}": Dual() for number in range(CLASSES_MAX + 1)}, "257 classes"),
]


@pytest.mark.parametrize(("duals", "why"), IMPOSSIBLE)
def test_a_state_that_no_router_made_is_told(duals: dict[str, Dual], why: str) -> None:
    assert why in fault(duals)
    assert fault_of(State(duals=duals)).startswith("`duals` ")


def test_what_routers_make_has_no_fault() -> None:
    router = make.router()
    tell(router, 500, kept=False, at_s=0.0)
    assert fault_of(state_of(router)) == ""


def test_as_many_classes_as_there_may_be_are_kept_those_that_were_asked_for_last() -> None:
    known: dict[str, Dual] = {}
    duals = Duals(known, {}, {})
    for number in range(CLASSES_MAX + 3):
        duals.judged(Judged(request_id="x", klass=f"c{number}", attainment=TARGET, kept=False), float(number))
    assert len(known) == CLASSES_MAX
    assert "c2" not in known
    assert "c3" in known


def test_what_is_explained_says_what_worth_was_used() -> None:
    router = make.router()
    request = asked()
    one = explained(router, request, router.decide(request, 0.0), 0.0)
    assert one.worth_usd == pytest.approx(MOST_USD / 10.0)
    assert one.worth_share == pytest.approx(0.1)
    assert max(c.contributions_usd["promise"] for c in one.candidates) <= one.worth_usd
    given = make.request()
    other = explained(router, given, router.decide(given, 0.0), 0.0)
    assert (other.worth_usd, other.worth_share) == (given.worth_usd, None)


def test_a_request_is_priced_once_and_who_has_no_target_is_what_it_was() -> None:
    duals = Duals({"chat": Dual(level=BEGINS / 2.0)}, {}, {})
    priced = duals.priced(asked(), 0.0)
    assert duals.priced(priced, 0.0) is priced
    assert priced.worth_usd == pytest.approx(MOST_USD * 10.0**-0.5)
    given = make.request(slo=Slo(e2e_s=3.0))
    assert duals.priced(given, 0.0) is given


@pytest.mark.parametrize("slo", [Slo(tpot_s=0.1), Slo(e2e_s=86_400.0)])
def test_what_is_held_no_more_leaves_nothing_however_late_its_promise_would_end(slo: Slo) -> None:
    held: dict[str, Request] = {}
    duals = Duals({}, {}, held)
    for number in range(2_000):
        request = asked(str(number), slo=slo)
        held[request.id] = request
        duals.hold(request, float(number))
        del held[request.id]
    assert len(duals._ends) <= 200
