"""A budget that is to last: what its dollars are worth, whom that keeps from spending them, and when it is found."""

from collections.abc import Sequence
from math import sin, tau

import msgspec
import pytest

from tests import make
from tidegate.core.budget import BUDGETS_MAX, DAY_S, HOUR_S, PRICE_MAX, Budgets, Spending, fault, fresh
from tidegate.core.model import Decision, Drawn, Endpoint, Held, Request, Run, Wait, replace
from tidegate.core.replay import explained
from tidegate.core.revive import fault as fault_of
from tidegate.core.revive import reconfigured, revived
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.why import Why

MINUTE_S = 60.0


def drawn(spent_usd: float, at_s: float, usd: float = 10.0, budget: str = "day") -> Drawn:
    begins_s = at_s // DAY_S * DAY_S
    return Drawn(budget=budget, usd=usd, spent_usd=spent_usd, begins_s=begins_s, ends_s=begins_s + DAY_S)


def wanted_usd(at_s: float) -> float:
    """What is spent in a minute at no price: most of it in the evening."""
    return 20.0 / 1440.0 * (1.0 + 0.9 * sin(tau * (at_s / DAY_S - 0.5)))


def live(
    days: int, reaction: float, usd: float = 10.0, rigid_usd: Sequence[float] = ()
) -> list[tuple[float, list[float]]]:
    """What each day spends of its budget, and its prices, where twice the budget is wanted, and the price `1 + p` lets
    of it `(1 + p) ** -reaction`. So much more of each day, `rigid_usd`, is spent whatever the price."""
    by_name: dict[str, Spending] = {}
    budgets, found = Budgets(by_name), []
    for day in range(days):
        spent_usd, prices = 0.0, []
        for minute in range(1440):
            at_s = day * DAY_S + minute * MINUTE_S
            budgets.settle(at_s)
            fact = drawn(spent_usd, at_s, usd)
            if budgets.is_news(fact, at_s):
                budgets.drawn(fact, at_s)
            prices.append(budgets.price("day"))
            rigid = rigid_usd[day] / 1440.0 if rigid_usd else 0.0
            spent_usd = min(usd, spent_usd + rigid + wanted_usd(at_s) * (1.0 + prices[-1]) ** -reaction)
        found.append((spent_usd, prices))
    return found


@pytest.mark.lengthy
@pytest.mark.parametrize("reaction", [0.5, 1.0, 2.0, 3.0])
def test_a_budget_is_spent_whatever_the_price_does(reaction: float) -> None:
    for spent_usd, _ in live(6, reaction)[4:]:
        assert spent_usd == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("reaction", [1.0, 2.0])
def test_the_price_of_a_later_day_is_nearly_the_same_from_morning_to_evening(reaction: float) -> None:
    _, prices = live(6, reaction)[-1]
    best = 2.0 ** (1.0 / reaction)
    day = [1.0 + price for price in prices[120:1320]]
    assert min(day) > 0.75 * best
    assert max(day) < 1.3 * best


def test_a_day_on_which_a_vendor_alone_could_serve_so_much_is_soon_forgotten() -> None:
    """What is bought at any price says little of what dollars are worth."""
    days = live(6, 1.0, rigid_usd=(2.0, 2.0, 15.0, 2.0, 2.0, 2.0))
    assert days[2][1][-1] == PRICE_MAX
    usual = 1.0 + days[1][1][720]
    for _, prices in days[4:]:
        day = [1.0 + price for price in prices[360:1080]]
        assert min(day) > 0.6 * usual
        assert max(day) < 1.6 * usual


def test_nothing_is_left_for_no_one_where_the_budget_lasts_anyway() -> None:
    for _, prices in live(3, 1.0, usd=100.0):
        assert max(prices[60:]) == 0.0


def test_what_is_told_counts_when_its_moment_is_over() -> None:
    router = make.router()
    router.observe(drawn(0.0, 0.0), 0.0)
    router.observe(drawn(9.9, HOUR_S), HOUR_S)
    assert router.budget_price("day") == 0.0
    router.observe(make.started(make.request(), "laptop"), HOUR_S + 1.0)
    assert router.budget_price("day") > 10.0


def test_it_is_told_when_it_is_new_or_renewed_or_another_and_when_time_or_money_has_passed() -> None:
    router = make.router()
    assert router.is_news(drawn(0.0, 0.0), 0.0)
    router.observe(drawn(0.0, 0.0), 0.0)
    assert not router.is_news(drawn(0.05, 10.0), 10.0)
    assert router.is_news(drawn(0.1, 10.0), 10.0)
    assert router.is_news(drawn(0.0, 90.0), 90.0)
    assert router.is_news(drawn(0.0, DAY_S), DAY_S)
    for usd in (9.0, 11.0):
        assert router.is_news(drawn(0.0, 10.0, usd), 10.0)


def test_with_a_new_window_it_starts_where_it_ended() -> None:
    days = live(4, 2.0)
    assert days[3][1][0] == days[2][1][-1]


# --- decisions ----------------------------------------------------------------------------------------------------


def priced(price: float, *names: str) -> State:
    made = {}
    for name in names or ("day",):
        made[name] = fresh(drawn(0.0, 0.0, budget=name), 0.0)
        made[name].price = price
    return State(budgets=made)


def router(price: float, *names: str) -> Router:
    """An engine of ours that keeps the promise now and then, and an API that keeps it."""
    slow = make.endpoint("laptop", prior=make.scaled(make.LOCAL_PRIOR, 40.0))
    return Router((slow, make.endpoint("cloud", local=False)), make.policy(), priced(price, *names))


def asked(**changes: object) -> Request:
    return replace(make.request(worth_usd=0.004, late_usd_per_s=0.0, budgets=("day",)), **changes)


def first(decision: Decision) -> str:
    assert isinstance(decision.plan[0], Run)
    return decision.plan[0].endpoint


def test_what_gains_less_than_its_dollars_are_worth_stays_here() -> None:
    assert first(router(0.0).decide(asked(), 0.0)) == "cloud"
    assert first(router(20.0).decide(asked(), 0.0)) == "laptop"
    assert first(router(20.0).decide(asked(worth_usd=0.1), 0.0)) == "cloud"
    assert first(router(20.0).decide(asked(budgets=()), 0.0)) == "cloud"


def vendors(price: float, *cheaper: Endpoint) -> Router:
    """An engine of ours that costs what it runs, and dearer vendors of whom each keeps the promise, too."""
    own = make.endpoint("laptop", usd_per_s=0.001, prior=replace(make.LOCAL_PRIOR, sigma=0.05))
    return Router((own, *(cheaper or (make.endpoint("cloud", local=False),))), make.policy(), priced(price))


@pytest.mark.parametrize("failover", [True, False])
def test_the_price_of_a_budget_is_the_reason_where_it_turns_the_choice(failover: bool) -> None:
    request = asked(worth_usd=0.01, failover=failover)
    free, dear = (vendors(price).decide(request, 0.0) for price in (0.0, 9.0))
    assert (first(free), free.why) == ("cloud", Why.CHEAPEST_ON_TIME)
    assert (first(dear), dear.why) == ("laptop", Why.BUDGET_DECIDES)
    # Of whom it leaves first anyway, it is not.
    alone = Router((make.endpoint("cloud", local=False),), make.policy(), priced(9.0))
    assert alone.decide(request, 0.0).why is Why.ONLY_ENDPOINT
    slow = router(20.0).decide(asked(worth_usd=0.1), 0.0)
    assert (first(slow), slow.why) == ("cloud", Why.WORTH_THE_PRICE)


def test_the_price_of_a_budget_is_the_reason_too_where_its_dollars_left_nothing_to_predict() -> None:
    """Who is tried once has nothing predicted of a vendor that, so priced, is worth less than what is here."""
    once = asked(failover=False)
    free, dear = (router(price).decide(once, 0.0) for price in (0.0, 20.0))
    assert (first(free), free.why) == ("cloud", Why.WORTH_THE_PRICE)
    assert (first(dear), dear.why) == ("laptop", Why.BUDGET_DECIDES)


def test_prices_of_the_budgets_of_a_request_add_up() -> None:
    both = router(2.0, "day", "month/ann")
    (cloud,) = [one for one in both.candidates(asked(budgets=("day", "month/ann")), 0.0) if one.endpoint == "cloud"]
    assert cloud.estimate is not None
    assert cloud.contributions_usd["budget"] == pytest.approx(-4.0 * cloud.estimate.cost_usd)


def test_a_price_rules_nobody_out() -> None:
    cloud = Router((make.endpoint("cloud", local=False),), make.policy(), priced(PRICE_MAX))
    assert first(cloud.decide(asked(worth_usd=0.0), 0.0)) == "cloud"


def test_who_has_waited_in_vain_is_not_paid_for_where_dollars_are_worth_more() -> None:
    for price, sent in ((0.0, True), (3.0, False)):
        own = make.endpoint("laptop", concurrency=1)
        home = Router((own, make.endpoint("cloud", local=False)), make.policy(hold_s_max=20.0), priced(price))
        home.observe(make.started(make.request(output_tokens_max=5_000), "laptop"), 0.0)
        request = asked(worth_usd=0.0)
        decision = home.decide(request, 0.0)
        assert isinstance(decision.plan[0], Wait)
        home.observe(Held(request=request), 0.0)
        assert [one.id for one in home.due(20.0)] == [request.id]
        assert bool(home.decide(request, 20.0).plan) is sent


def test_explaining_shows_what_the_budget_puts_on_a_candidate() -> None:
    home = router(3.0)
    request = asked()
    found = explained(home, request, home.decide(request, 0.0), 0.0)
    by_name = {one.endpoint: one for one in found.candidates}
    assert by_name["cloud"].contributions_usd["budget"] < 0.0
    assert "budget" not in by_name["laptop"].contributions_usd


# --- what is kept -------------------------------------------------------------------------------------------------


def test_of_more_budgets_than_are_kept_those_drawn_on_last_stay() -> None:
    home = make.router()
    for number in range(BUDGETS_MAX + 5):
        at_s = float(number)
        home.observe(drawn(0.0, at_s), at_s)
        home.observe(drawn(0.0, at_s, budget=f"day/{number}"), at_s)
    kept = home.state.budgets
    assert len(kept) == BUDGETS_MAX
    assert "day" in kept
    assert "day/0" not in kept
    assert f"day/{BUDGETS_MAX + 4}" in kept


def test_a_restart_and_a_reload_keep_what_was_learned() -> None:
    home = make.router()
    for hour in range(5):
        home.observe(drawn(2.0 * hour, hour * HOUR_S), hour * HOUR_S)
    price = home.budget_price("day")
    assert price > 0.0
    state = msgspec.json.decode(home.snapshot(), type=State)
    assert fault_of(state) == ""
    again = revived(state, (), 5 * HOUR_S)
    assert again.budgets["day"].hours_usd[:3] == home.state.budgets["day"].hours_usd[:3]
    policy = make.policy()
    assert reconfigured(state, (), policy, policy, (), ()).budgets == state.budgets


def test_what_cannot_be_is_named() -> None:
    one = fresh(drawn(0.0, 0.0), 0.0)
    assert fault({"day": one}) == ""
    assert "hours" in fault({"day": replace(one, hours_s=[])})
    assert "dollars" in fault({"day": replace(one, recent_usd=-1.0)})
    assert "price" in fault({"day": replace(one, price=-0.5)})
    assert "budgets" in fault({str(number): one for number in range(BUDGETS_MAX + 1)})
