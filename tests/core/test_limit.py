"""How many an endpoint is given at once, after refusals, under strain, and when it comes back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random

import pytest

from tests import make
from tidegate.core.breaker import OPEN_S_MIN
from tidegate.core.limit import DENIED_LEAST, FALL, STRAIN_LEAST, Limit, answer, combined, fault, revived, settle, took
from tidegate.core.model import Ending, FirstToken, Probed, Request, Run
from tidegate.core.router import Router

FAR = make.endpoint("cloud", local=False)
QUOTA, OVERLOADED = "status_429", "status_503"


@dataclass
class Played:
    """One vendor, and what is under way there."""

    router: Router = field(default_factory=lambda: make.router(FAR))
    now_s: float = 0.0
    open: list[Request] = field(default_factory=list)

    @property
    def places(self) -> int:
        return self.router.endpoint("cloud").places

    def sends(self, count: int) -> None:
        """So many more, a millisecond apart."""
        for _ in range(count):
            self.now_s += 0.001
            self.open.append(request := make.request(arrived_s=self.now_s))
            self.router.observe(make.started(request, "cloud"), self.now_s)

    def ends(self, ending: Ending, **changes: object) -> None:
        """The oldest is over."""
        self.now_s += 0.001
        self.router.observe(make.ended(self.open.pop(0).id, "cloud", ending=ending, **changes), self.now_s)

    def answers(self, *, after_s: float = 0.36) -> None:
        """The oldest brings its first content so long after it was sent, and its last at once."""
        sent_s = self.router.endpoint("cloud").state.reservations[self.open[0].id].started_s
        self.now_s = max(self.now_s + 0.001, sent_s + after_s)
        fact = FirstToken(request_id=self.open[0].id, endpoint="cloud", ttft_s=self.now_s - sent_s)
        self.router.observe(fact, self.now_s)
        self.ends(Ending.OK, ttft_s=fact.ttft_s, e2e_s=fact.ttft_s + 0.1, output_tokens=10)

    def answers_whole(self, *, after_s: float) -> None:
        """The oldest brings all of its answer at once, so long after it was sent."""
        sent_s = self.router.endpoint("cloud").state.reservations[self.open[0].id].started_s
        self.now_s = max(self.now_s, sent_s + after_s)
        self.ends(Ending.OK, e2e_s=self.now_s + 0.001 - sent_s, output_tokens=20)

    def breaks(self) -> None:
        """Three fail in a row, and the next one is the trial."""
        for _ in range(3):
            self.sends(1)
            self.ends(Ending.FAILED)
        self.now_s += OPEN_S_MIN

    def probed(self, *, up: bool) -> None:
        self.now_s += 1.0
        self.router.observe(Probed(endpoint="cloud", up=up), self.now_s)

    def is_sent_to(self) -> bool:
        plan = self.router.decide(make.request(arrived_s=self.now_s), self.now_s).plan
        return bool(plan) and isinstance(plan[0], Run)


def test_what_is_configured_is_what_it_is_given() -> None:
    played = Played()
    played.sends(30)
    for _ in range(30):
        played.answers()
    assert played.places == FAR.concurrency


def test_a_refusal_tells_how_many_are_too_many_and_less_than_that_is_tried() -> None:
    played = Played()
    played.sends(11)
    played.ends(Ending.REFUSED, cause=QUOTA)
    assert played.places == int(FALL * 10)
    # Ten are under way there: no more are sent.
    assert not played.is_sent_to()


def test_of_several_refused_in_one_moment_the_fewest_under_way_count() -> None:
    played = Played()
    played.sends(11)
    for request in played.open[:3]:
        played.router.observe(make.ended(request.id, "cloud", ending=Ending.REFUSED), played.now_s + 0.5)
    assert played.places == int(FALL * 8)


def crowded(played: Played, refuses: Callable[[int], bool], draw: Random, *, whole: bool = False) -> float:
    """A thousand requests that come as they like, five to thirty at a time, to an endpoint that refuses some by how
    many it has. The share for which it was believed to have room."""
    room, asked, aim = 0, 0, 10
    while asked < 1000:
        if draw.random() < 0.05:
            aim = draw.randrange(5, 30)
        if len(played.open) < aim:
            asked += 1
            if len(played.open) < played.places:
                room += 1
                played.sends(1)
            else:
                aim -= 1
        elif refuses(len(played.open)):
            played.ends(Ending.REFUSED, cause=OVERLOADED)
        elif whole:
            played.answers_whole(after_s=0.1)
        else:
            played.answers()
    return room / asked


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_who_refuses_some_whatever_is_sent_is_given_nearly_as_much_as_before(share: float, whole: bool) -> None:
    draw = Random(1)
    assert crowded(Played(), lambda _: draw.random() < share, draw, whole=whole) > 0.9


@pytest.mark.parametrize("borne", [5, 10, 20])
def test_who_serves_so_many_and_no_more_is_given_about_as_many_whatever_it_calls_that(borne: int) -> None:
    played, draw = Played(), Random(1)
    crowded(played, lambda under_way: under_way > borne, draw)
    assert 0.7 * borne < played.places < 1.5 * borne + 1.0


def test_who_bears_less_than_of_late_is_found_out_within_a_few_refusals() -> None:
    played, draw, refused = Played(), Random(1), 0

    def refuses(under_way: int) -> bool:
        nonlocal refused
        refused += under_way > 10
        return under_way > 10

    crowded(played, lambda _: False, draw)
    assert played.places == FAR.concurrency
    crowded(played, refuses, draw)
    assert played.places < 16
    assert refused < 100


def test_of_a_few_refusals_nothing_is_concluded_and_of_nothing_else_something() -> None:
    played = Played()
    played.sends(12)
    for _ in range(DENIED_LEAST - 1):
        played.ends(Ending.REFUSED, cause=OVERLOADED)
    assert played.places == FAR.concurrency
    played.ends(Ending.REFUSED, cause=OVERLOADED)
    assert played.places == int(FALL * (12 - DENIED_LEAST) + 0.5)


def test_what_an_overloaded_endpoint_did_in_one_moment_counts_in_any_order() -> None:
    limits = [Limit(recent=[3, 4, 5, 8, -8, 9]) for _ in range(2)]
    told: list[Callable[[Limit], None]] = [
        lambda limit: limit.refuse(9, 1.0, quota=False),
        lambda limit: answer(limit, 10, 1.0),
        lambda limit: limit.refuse(8, 1.0, quota=False),
        lambda limit: limit.refuse(12, 1.0, quota=False),
        lambda limit: limit.refuse(11, 1.0, quota=False),
    ]
    for limit, facts in zip(limits, (told, told[::-1]), strict=True):
        for tell in facts:
            tell(limit)
    assert limits[0].of(64) == limits[1].of(64) < 64
    for limit in limits:
        settle(limit, 64, 2.0)
    assert limits[0] == limits[1]


def test_answers_let_more_in_until_the_next_refusal() -> None:
    played = Played()
    played.sends(11)
    played.ends(Ending.REFUSED, cause=QUOTA)
    before = played.places
    for _ in range(40):
        played.answers()
        played.sends(1)
    assert before < played.places < FAR.concurrency


def test_an_endpoint_that_is_hardly_used_shows_nothing_of_its_limit() -> None:
    played = Played()
    played.sends(11)
    played.ends(Ending.REFUSED, cause=QUOTA)
    for _ in range(10):
        played.ends(Ending.CANCELLED)
    before = played.places
    for _ in range(5):
        played.sends(1)
        played.answers()
    assert played.places == before == int(FALL * 10)


def test_without_refusals_a_limit_is_forgotten_within_hours() -> None:
    limit = Limit(most=8.0)
    for minute in range(1, 24 * 60):
        took(limit, 1.0, 1.0, 1, 60.0 * minute - 30.0)
        settle(limit, 64, 60.0 * minute)
    assert limit.of(64) == 64


def test_a_limit_is_forgotten_with_time_though_nobody_asks() -> None:
    played = Played()
    for _ in range(3):
        played.sends(1)
        played.ends(Ending.REFUSED)
        played.now_s += 60.0
    assert played.places == 1
    played.now_s += 8 * 3600.0
    played.probed(up=True)
    assert played.places == FAR.concurrency


def test_answers_that_take_twice_as_long_as_predicted_are_a_limit_as_well() -> None:
    limit = Limit()
    for at_s in range(1, STRAIN_LEAST + 3):
        took(limit, 3.0, 1.0, 20, float(at_s))
        settle(limit, 64, at_s + 0.5)
    assert limit.of(64) == int(FALL * 20)


def test_one_alone_that_takes_long_is_no_sign_of_too_many() -> None:
    limit = Limit()
    for at_s in range(1, 30):
        took(limit, 8.0, 1.0, 1, float(at_s))
        settle(limit, 64, at_s + 0.5)
    assert limit.of(64) == 64


def strained(answers: Callable[[Played, float], None], usual_s: float, after_s: float) -> bool:
    """Whether it is given less once twenty at a time are answered after so long, and a hundred were as usual."""
    played = Played()
    for _ in range(100):
        played.sends(1)
        answers(played, usual_s)
    for _ in range(3):
        played.sends(20)
        for _ in range(20):
            answers(played, after_s)
    return played.places < FAR.concurrency


@pytest.mark.parametrize(("after_s", "expected"), [(0.2, False), (2.0, True)])
def test_what_a_quick_engine_takes_is_no_strain_while_it_is_a_quarter_of_a_second(
    after_s: float, expected: bool
) -> None:
    assert strained(lambda played, s: played.answers(after_s=s), 0.06, after_s) is expected


@pytest.mark.parametrize(("after_s", "expected"), [(1.0, False), (5.0, True)])
def test_answers_in_one_piece_that_take_far_longer_than_predicted_are_a_limit_too(
    after_s: float, expected: bool
) -> None:
    assert strained(lambda played, s: played.answers_whole(after_s=s), 1.0, after_s) is expected


def test_whoever_comes_back_begins_with_one_and_doubles_by_the_round() -> None:
    played = Played()
    played.probed(up=False)
    played.probed(up=True)
    assert played.places == 1
    rounds = []
    while played.places < FAR.concurrency:
        given = played.places
        played.sends(given)
        for _ in range(given):
            played.answers()
        rounds.append(played.places)
    assert rounds == [2, 4, 8, 16, 32, 64]


def test_who_comes_back_is_given_more_by_answers_in_one_piece_as_well() -> None:
    played = Played()
    played.probed(up=False)
    played.probed(up=True)
    for places in (2, 4, 8):
        given = played.places
        played.sends(given)
        for _ in range(given):
            played.ends(Ending.OK)
        assert played.places == places


def test_a_breaker_that_is_open_closes_half_when_the_endpoint_can_be_reached_again() -> None:
    played = Played()
    for _ in range(3):
        played.sends(1)
        played.ends(Ending.FAILED)
    assert not played.is_sent_to()
    played.probed(up=False)
    played.probed(up=True)
    assert played.is_sent_to()
    played.sends(1)
    assert not played.is_sent_to()
    played.answers()
    assert played.is_sent_to()
    # The trial was the one to begin with, and its first content lets one more in.
    assert played.places == 2


def test_a_trial_that_has_begun_to_answer_lets_others_in_however_long_its_answer_goes_on() -> None:
    played = Played()
    played.breaks()
    assert played.is_sent_to()
    played.sends(1)
    assert not played.is_sent_to()
    played.now_s += 0.3
    played.router.observe(FirstToken(request_id=played.open[0].id, endpoint="cloud", ttft_s=0.3), played.now_s)
    assert played.is_sent_to()
    # One beside the trial, and then by the round: it has only just come back.
    assert played.places == 2
    played.now_s += 60.0
    played.ends(Ending.OK, ttft_s=0.3, e2e_s=60.3, output_tokens=8000)
    assert played.is_sent_to()
    assert played.places == 2


def test_a_trial_that_hangs_since_before_it_could_not_be_reached_keeps_nobody_from_who_is_back() -> None:
    played = Played()
    played.breaks()
    played.sends(1)
    played.probed(up=False)
    played.probed(up=True)
    assert played.is_sent_to()
    # The next one is the trial, and what becomes of the first tells nothing.
    played.sends(1)
    assert not played.is_sent_to()
    played.ends(Ending.FAILED)
    assert not played.is_sent_to()
    played.answers()
    assert played.is_sent_to()


def test_a_trial_whose_answer_breaks_off_has_failed() -> None:
    played = Played()
    played.breaks()
    played.sends(1)
    played.now_s += 0.3
    played.router.observe(FirstToken(request_id=played.open[0].id, endpoint="cloud", ttft_s=0.3), played.now_s)
    played.ends(Ending.FAILED, ttft_s=0.3, e2e_s=0.4)
    assert not played.is_sent_to()
    played.now_s += 1.9 * OPEN_S_MIN
    assert not played.is_sent_to()
    played.now_s += 0.2 * OPEN_S_MIN
    assert played.is_sent_to()


def test_an_engine_of_ours_comes_back_slowly_too() -> None:
    router = make.router(make.endpoint("laptop", concurrency=8))
    router.observe(Probed(endpoint="laptop", up=False), 1.0)
    router.observe(Probed(endpoint="laptop", up=True), 2.0)
    assert router.endpoint("laptop").places == 1


def test_two_replicas_keep_what_the_more_careful_has_found() -> None:
    assert combined(Limit(most=8.0), Limit(most=5.0, ramp=2.0)) == Limit(most=5.0, ramp=2.0)
    assert combined(Limit(), Limit(most=5.0)).most == 5.0


def test_a_restart_keeps_what_was_found_at_a_time_that_has_been() -> None:
    assert revived(Limit(most=8.0, ramp=2.0, at_s=50.0), 20.0) == Limit(most=8.0, ramp=2.0, at_s=20.0)


@pytest.mark.parametrize("limit", [Limit(most=-1.0), Limit(ramp=inf), Limit(seen=float("nan"))])
def test_a_state_with_numbers_that_none_can_be_is_refused(limit: Limit) -> None:
    assert fault(limit)
    assert not fault(Limit())
