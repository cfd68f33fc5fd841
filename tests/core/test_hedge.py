"""When a second attempt starts beside one that is paid, and what may be lost on those that are beaten."""

from dataclasses import dataclass
from math import inf

import pytest

from tests import make
from tidegate.core.health import CLIENT_ERROR
from tidegate.core.hedge import MOMENTS, SAVED, Hedges, Hedging, fault, starts_s
from tidegate.core.model import Ending, FirstToken, Price, Prior, Request, Run, Slo, replace
from tidegate.core.output import Length
from tidegate.core.router import Router

SHARE = 0.02
# A vendor whose first token takes half a second, and now and then ten.
WILD = Prior(overhead_s=0.5, decode_s_per_token=0.01, sigma=1.5)
LENGTH = Length(50.0, 100.0, 50.0, 0.5)


def vendors(*, share: float = SHARE) -> Router:
    """Two of a kind, both paid."""
    names = ("east", "west")
    return make.router(*(make.endpoint(n, local=False, prior=WILD) for n in names), hedge_share=share)


def asked(arrived_s: float = 0.0) -> Request:
    return make.request(ttft_s=6.0, worth_usd=0.05, arrived_s=arrived_s)


@dataclass
class Played:
    """A router that is told of answers, a second apart."""

    router: Router
    now_s: float = 0.0

    def answers(self, count: int, *, late_each: int = 0) -> None:
        """So many are served and paid for; one in so many has its first content after ten seconds."""
        for number in range(count):
            request = make.request()
            self.tell_started(request, "east", hedge=False)
            late_s = 9.5 if late_each and number % late_each == 0 else 0.0
            self.now_s += 1.0 + late_s
            told = make.ended(
                request.id, "east", ttft_s=0.5 + late_s, e2e_s=1.0 + late_s, output_tokens=100, prompt_tokens=200
            )
            self.router.observe(told, self.now_s)
        self.now_s += 1.0

    def tell_started(self, request: Request, endpoint: str, *, hedge: bool) -> None:
        self.router.observe(replace(make.started(request, endpoint), hedge=hedge), self.now_s)

    def race(self, *, lost: str = "west", cause: str = "") -> float:
        """One is hedged, and one of the two is cancelled; by how much less may be lost for that."""
        request, before = make.request(), self.router.hedge_left_usd
        self.tell_started(request, "east", hedge=False)
        self.tell_started(request, "west", hedge=True)
        self.now_s += 1.0
        won = {"east": "west", "west": "east"}[lost]
        self.router.observe(make.ended(request.id, lost, ending=Ending.CANCELLED, cause=cause), self.now_s)
        self.router.observe(make.ended(request.id, won, output_tokens=100, prompt_tokens=200), self.now_s)
        return before + SHARE * 600e-6 - self.router.hedge_left_usd


def cutover_s(router: Router, request: Request, now_s: float) -> float | None:
    step = router.decide(request, now_s).plan[0]
    assert isinstance(step, Run)
    return step.cutover_s


def test_nothing_is_paid_twice_before_anything_was_paid() -> None:
    router = vendors()
    assert not router.may_hedge(["east"])
    assert cutover_s(router, asked(), 0.0) is None


def test_a_share_of_what_is_paid_may_be_lost() -> None:
    played = Played(vendors())
    played.answers(10)
    # 200 tokens in at 1 USD a million, 100 out at 4.
    assert played.router.hedge_left_usd == pytest.approx(10 * SHARE * 600e-6)
    assert played.router.may_hedge(["east"])


def test_without_a_share_none_ever_is() -> None:
    played = Played(vendors(share=0.0))
    played.answers(100)
    assert not played.router.may_hedge(["east"])
    assert cutover_s(played.router, asked(played.now_s), played.now_s) is None


@pytest.mark.parametrize("lost", ["east", "west"])
def test_whoever_is_beaten_is_lost_the_first_as_well_as_the_second(lost: str) -> None:
    played = Played(vendors())
    played.answers(20)
    assert played.race(lost=lost) == pytest.approx(200e-6)


@pytest.mark.parametrize(("won", "lost"), [("west", "east"), ("east", "west")])
def test_who_has_won_is_not_beaten_by_a_client_that_leaves(won: str, lost: str) -> None:
    played = Played(vendors())
    played.answers(20)
    router, request, before_usd = played.router, make.request(), played.router.hedge_left_usd
    played.tell_started(request, "east", hedge=False)
    played.tell_started(request, "west", hedge=True)
    router.observe(FirstToken(request_id=request.id, endpoint=won, ttft_s=0.5), played.now_s + 0.5)
    router.observe(make.ended(request.id, lost, ending=Ending.CANCELLED), played.now_s + 0.5)
    left = make.ended(request.id, won, ending=Ending.CANCELLED, ttft_s=0.5, output_tokens=90, prompt_tokens=200)
    router.observe(left, played.now_s + 1.0)
    assert before_usd - router.hedge_left_usd == pytest.approx(200e-6), "the prompt of who has lost"


def test_a_request_that_a_vendor_finds_fault_with_is_not_paid() -> None:
    played = Played(vendors())
    played.answers(1)
    left_usd, request = played.router.hedge_left_usd, make.request()
    played.tell_started(request, "east", hedge=False)
    played.router.observe(make.ended(request.id, "east", cause=CLIENT_ERROR), played.now_s)
    assert played.router.hedge_left_usd == left_usd


def test_an_engine_whose_price_is_written_as_nothing_is_not_paid() -> None:
    free = Price(usd_per_cached_token=0.0)
    router = make.router(make.endpoint("laptop", price=free), make.endpoint("east", local=False), hedge_share=SHARE)
    assert router.may_hedge(["laptop"])
    played = Played(router)
    played.answers(1)
    for _ in range(20):
        request = make.request()
        played.tell_started(request, "laptop", hedge=False)
        router.observe(make.ended(request.id, "laptop", ttft_s=0.5, output_tokens=100, prompt_tokens=200), played.now_s)
    assert router.state.hedging.each_usd == pytest.approx(600e-6)


@pytest.mark.parametrize("cause", ["no_descriptor", "ledger"])
def test_what_was_never_sent_is_not_lost(cause: str) -> None:
    played = Played(vendors())
    played.answers(20)
    assert played.race(cause=cause) == pytest.approx(0.0)


def test_what_a_hedge_may_cost_is_held_back_while_it_is_under_way() -> None:
    played = Played(vendors())
    played.answers(20)
    left_usd, request = played.router.hedge_left_usd, make.request()
    played.tell_started(request, "east", hedge=False)
    played.tell_started(request, "west", hedge=True)
    assert played.router.hedge_left_usd == pytest.approx(left_usd - 200e-6)
    played.router.observe(make.ended(request.id, "east", ending=Ending.FAILED), played.now_s)
    played.router.observe(make.ended(request.id, "west", output_tokens=100, prompt_tokens=200), played.now_s)
    # The first failed by itself: the second was needed, and nothing is lost.
    assert played.router.hedge_left_usd == pytest.approx(left_usd + SHARE * 600e-6)


def test_no_more_than_some_attempts_can_be_saved_up() -> None:
    played = Played(vendors(share=0.2))
    played.answers(400)
    # The last one's moment is not over yet.
    assert played.router.hedge_left_usd == pytest.approx((SAVED + 0.2) * 600e-6)
    assert played.router.hedge_price == 0.0


def test_beside_an_engine_of_ours_nothing_is_paid_twice() -> None:
    router = make.router()
    assert router.may_hedge(["laptop"])
    assert not router.may_hedge(["cloud"])


def test_the_second_starts_before_the_first_is_overdue_where_that_saves_most() -> None:
    played = Played(vendors(share=0.2))
    played.answers(400, late_each=8)
    after_s = cutover_s(played.router, asked(played.now_s), played.now_s)
    assert after_s is not None
    assert 0.0 < after_s < 6.0


@pytest.mark.parametrize(
    "changes",
    [
        {"worth_usd": 1e-4},
        {"slo": Slo(e2e_s=60.0)},
        {"failover": False},
    ],
    ids=["worth less than it costs", "nothing promised of first content", "one attempt is all it may have"],
)
def test_it_does_not_start_where_it_saves_nothing(changes: dict[str, object]) -> None:
    played = Played(vendors(share=0.2))
    played.answers(400)
    request = replace(asked(played.now_s), **changes)
    assert cutover_s(played.router, request, played.now_s) is None


@pytest.mark.parametrize("price", [0.0, 1.0, 4.0, 20.0, inf])
def test_the_dearer_what_is_lost_the_later_it_starts(price: float) -> None:
    request, router = asked(), vendors()
    base = router.endpoint("east").base(request, LENGTH, 0.0)
    other = router.endpoint("west").base(request, LENGTH, 0.0)
    found = [starts_s(request, base, other, 0.05, 0.0, 200e-6, p) for p in (price / 2.0, price)]
    sooner, later = (inf if s is None else s for s in found)
    assert sooner <= later
    assert later == inf or later in [6.0 * moment / MOMENTS for moment in range(1, MOMENTS)]


def test_the_emptier_the_bucket_the_higher_the_price() -> None:
    prices = [Hedges(Hedging(left_usd=left_usd, each_usd=0.1), SHARE).price for left_usd in (2.0, 1.0, 0.5, 0.0, -1.0)]
    assert prices == [0.0, 1.0, 3.0, inf, inf]


@pytest.mark.parametrize("state", [Hedging(left_usd=inf), Hedging(each_usd=-1.0)])
def test_a_state_with_numbers_that_none_can_be_is_refused(state: Hedging) -> None:
    assert fault(state)
    assert not fault(Hedging())
