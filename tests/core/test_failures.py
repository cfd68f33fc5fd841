"""Attempts that fail between others that serve: what an endpoint is worth that opens no breaker, and still loses."""

from dataclasses import dataclass, field
from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core import failures as seen
from tidegate.core.failing import NEVER, Failures
from tidegate.core.failures import HALF_LIFE_S, combined, fault
from tidegate.core.model import Ending, FirstToken, Price, Probed, Request, Run
from tidegate.core.revive import revived
from tidegate.core.router import Router

DEAR = Price(usd_per_input_token=2e-6, usd_per_output_token=8e-6)
CHEAP_AND_DEAR = (make.endpoint("cheap", local=False), make.endpoint("dear", local=False, price=DEAR))


@dataclass
class Played:
    """A cheap vendor, whose attempts end as a test says, and a dear one."""

    router: Router = field(default_factory=lambda: make.router(*CHEAP_AND_DEAR))
    now_s: float = 0.0

    def attempt(self, ending: Ending, *, after_s: float = 0.5, begun: bool = False) -> None:
        self.now_s += 0.5
        request = make.request(arrived_s=self.now_s)
        self.router.observe(make.started(request, "cheap"), self.now_s)
        ttft_s = None
        if begun or ending is Ending.OK:
            ttft_s = 0.4
            first = FirstToken(request_id=request.id, endpoint="cheap", ttft_s=ttft_s)
            self.router.observe(first, self.now_s + ttft_s)
        self.now_s += max(after_s, ttft_s or 0.0)
        self.router.observe(make.ended(request.id, "cheap", ending=ending, e2e_s=after_s, ttft_s=ttft_s), self.now_s)

    def every_third(self, ending: Ending, *, after_s: float, begun: bool = False) -> None:
        for number in range(60):
            if number % 3:
                self.attempt(Ending.OK)
            else:
                self.attempt(ending, after_s=after_s, begun=begun)

    def first_choice(self, *, failover: bool = True) -> str:
        request = make.request(arrived_s=self.now_s, worth_usd=0.005, failover=failover)
        step = self.router.decide(request, self.now_s).plan[0]
        assert isinstance(step, Run)
        return step.endpoint

    def kept(self, request: Request) -> float:
        found = {c.endpoint: c.estimate for c in self.router.candidates(request, self.now_s)}["cheap"]
        assert found is not None
        return found.attainment


def test_who_fails_at_once_is_still_asked_first_for_the_next_one_is_in_time() -> None:
    played = Played()
    played.every_third(Ending.FAILED, after_s=0.05)
    assert played.first_choice() == "cheap"


def test_who_takes_the_time_of_the_promise_to_fail_is_asked_last() -> None:
    played = Played()
    played.every_third(Ending.TIMED_OUT, after_s=10.0)
    assert played.router.endpoint("cheap").state.breaker.openings == 0
    assert played.first_choice() == "dear"


def test_who_breaks_answers_off_is_asked_last() -> None:
    played = Played()
    played.every_third(Ending.FAILED, after_s=2.0, begun=True)
    assert played.first_choice() == "dear"


def test_a_request_that_may_not_be_tried_again_goes_where_nothing_fails() -> None:
    played = Played()
    played.every_third(Ending.FAILED, after_s=0.05)
    assert played.first_choice(failover=False) == "dear"


def test_one_failure_is_chance() -> None:
    played = Played()
    for _ in range(5):
        played.attempt(Ending.OK)
    played.attempt(Ending.TIMED_OUT, after_s=10.0)
    assert played.first_choice() == "cheap"


def test_it_is_tried_again_when_it_has_been_left_in_peace() -> None:
    played = Played()
    played.every_third(Ending.TIMED_OUT, after_s=10.0)
    assert played.first_choice() == "dear"
    played.now_s += 10 * HALF_LIFE_S
    assert played.first_choice() == "cheap"


@pytest.mark.parametrize("ending", [Ending.REFUSED, Ending.CANCELLED])
def test_refusals_and_clients_who_left_are_no_failures(ending: Ending) -> None:
    played = Played()
    for _ in range(10):
        played.attempt(Ending.OK)
        played.attempt(ending, after_s=0.1)
    assert played.router.endpoint("cheap").health.failing(played.now_s) is NEVER


def test_an_outage_that_is_over_is_not_held_against_it() -> None:
    played = Played()
    for _ in range(10):
        played.attempt(Ending.OK)
    before = played.kept(make.request(arrived_s=played.now_s, ttft_s=5.0))
    for _ in range(4):
        played.attempt(Ending.TIMED_OUT, after_s=10.0)
    assert played.router.endpoint("cheap").state.breaker.openings
    played.now_s += 200.0
    played.router.observe(Probed(endpoint="cheap", up=True), played.now_s)
    played.attempt(Ending.OK)
    assert played.router.endpoint("cheap").health.failing(played.now_s) is NEVER
    assert played.kept(make.request(arrived_s=played.now_s, ttft_s=5.0)) == pytest.approx(before, abs=0.05)


def test_it_is_told_with_the_candidates() -> None:
    played = Played()
    played.every_third(Ending.FAILED, after_s=3.0)
    found = {c.endpoint: c.estimate for c in played.router.candidates(make.request(), played.now_s)}
    cheap, dear = found["cheap"], found["dear"]
    assert cheap is not None
    assert dear is not None
    assert 0.1 < cheap.failed_share < 0.34
    assert cheap.failed_after_s == pytest.approx(3.0)
    assert (cheap.broken_share, dear.failed_share) == (0.0, 0.0)


def test_a_restart_keeps_it() -> None:
    played = Played()
    played.every_third(Ending.FAILED, after_s=3.0)
    state = revived(played.router.state, {"cheap", "dear"}, played.now_s)
    after = Router(CHEAP_AND_DEAR, make.policy(), state)
    at = played.router.endpoint("cheap").health.failing(played.now_s)
    assert after.endpoint("cheap").health.failing(played.now_s) == at


_events = st.lists(
    st.tuples(st.sampled_from(["served", "failed", "broke", "away"]), st.floats(0.0, 60.0), st.floats(0.0, 100.0)),
    max_size=30,
)


def _seen(events: list[tuple[str, float, float]]) -> tuple[Failures, float]:
    failures, now_s = Failures(), 0.0
    for what, after_s, took_s in events:
        now_s += after_s
        if what == "served":
            seen.served(failures, now_s)
        elif what == "away":
            seen.goes_away(failures)
        else:
            seen.fail(failures, took_s, now_s, begun=what == "broke")
    return failures, now_s


@given(_events)
def test_chances_are_chances_and_the_record_is_whole(events: list[tuple[str, float, float]]) -> None:
    failures, now_s = _seen(events)
    at = seen.at(failures, now_s)
    assert 0.0 <= at.failed <= at.failed + at.broken < 1.0
    assert 0.0 <= at.after_s <= 100.0 + 1e-6
    assert fault(failures) == ""
    assert msgspec.json.decode(msgspec.json.encode(failures), type=Failures) == failures


@pytest.mark.parametrize("value", [-1.0, inf, nan])
@pytest.mark.parametrize("name", [name for name in Failures.__struct_fields__ if name != "at_s"])
def test_a_number_that_none_can_be_is_found_whichever_it_is(name: str, value: float) -> None:
    failures = Failures(at_s=5.0, ended=9.0, failed=2.0, failed_s=3.0, broke=1.0)
    assert fault(failures) == ""
    assert fault(msgspec.structs.replace(failures, **{name: value}))


@given(_events, _events)
def test_what_two_have_seen_adds_up_in_either_order(
    one: list[tuple[str, float, float]], other: list[tuple[str, float, float]]
) -> None:
    a, b = _seen(one)[0], _seen(other)[0]
    assert combined(a, b) == combined(b, a)
    assert fault(combined(a, b)) == ""


@given(_events, st.floats(0.0, 1000.0))
def test_what_is_left_in_peace_is_never_believed_to_fail_more_often(
    events: list[tuple[str, float, float]], later_s: float
) -> None:
    failures, now_s = _seen(events)
    now, later = seen.at(failures, now_s), seen.at(failures, now_s + later_s)
    assert later.failed + later.broken <= now.failed + now.broken + 1e-12
