"""Laws of the price of budget dollars: it is never negative, more money never raises it, a moment has no order, it
attracts nothing to who asks money, and who draws on no budget is touched by nothing."""

from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import Storm
from tests.properties.test_laws import pairs, requests
from tidegate.core.budget import DAY_S, PRICE_MAX, Budgets, Spending, fresh, revived
from tidegate.core.model import Drawn, Endpoint, Price, Request, Run, Slo, replace
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.value import contributions_usd, value_usd
from tidegate.core.why import Why

seeds = st.integers(0, 10_000)
levels = st.floats(0.0, 20.0)


def drawn(spent_usd: float, at_s: float, usd: float = 10.0) -> Drawn:
    begins_s = at_s // DAY_S * DAY_S
    return Drawn(budget="day", usd=usd, spent_usd=spent_usd, begins_s=begins_s, ends_s=begins_s + DAY_S)


def learned(seed: int) -> tuple[Spending, float]:
    """Some days, busy and idle, until the time that is also given; all that was told is settled."""
    draw, at_s, spent_usd = Random(seed), 1e9, 0.0
    one = fresh(drawn(0.0, at_s), at_s)
    for _ in range(draw.randint(1, 60)):
        before_s, at_s = at_s, at_s + draw.choice((1.0, 90.0, 3_000.0, 50_000.0))
        spent_usd = 0.0 if at_s // DAY_S > before_s // DAY_S else spent_usd
        spent_usd = min(10.1, spent_usd + draw.choice((0.0, 0.05, 0.4)))
        one.tell(drawn(spent_usd, at_s), at_s)
    one.settle(at_s + 1.0)
    return one, at_s + 1.0


@given(seeds, st.lists(st.floats(0.0, 12.0), min_size=1, max_size=8), st.floats(0.0, 1e6))
def test_it_is_never_negative_and_has_a_bound(seed: int, spent: list[float], later_s: float) -> None:
    one, at_s = learned(seed)
    for usd in spent:
        at_s += later_s
        one.tell(drawn(usd, at_s), at_s)
        one.settle(at_s + 1.0)
        assert 0.0 <= one.price <= PRICE_MAX
        assert one.expected_usd(at_s) >= 0.0


@given(seeds, st.floats(0.0, 10.0), st.floats(0.1, 100.0), st.floats(1.0, 100.0))
def test_raising_the_budget_never_raises_it(seed: int, spent_usd: float, usd: float, factor: float) -> None:
    found = []
    for whole_usd in (usd, usd * factor):
        one, at_s = learned(seed)
        one.tell(drawn(spent_usd, at_s, whole_usd), at_s)
        one.settle(at_s + 1.0)
        found.append(one.price)
    assert found[1] <= found[0]


@given(seeds, st.lists(st.floats(0.0, 10.0), min_size=2, max_size=8), st.randoms())
def test_what_is_told_in_one_moment_has_no_order(seed: int, spent: list[float], draw: Random) -> None:
    mixed, made = spent.copy(), []
    draw.shuffle(mixed)
    for order in (spent, mixed):
        one, at_s = learned(seed)
        for usd in order:
            one.tell(drawn(usd, at_s), at_s)
        assert one.open
        one.settle(at_s + 1.0)
        made.append(one)
    assert made[0] == made[1]


@given(seeds, st.floats(0.0, 1e6))
def test_a_restart_keeps_it_and_a_second_one_changes_nothing(seed: int, later_s: float) -> None:
    one, at_s = learned(seed)
    once = revived(one, at_s + later_s)
    assert once.price == one.price
    assert revived(once, at_s + later_s) == once


def priced(price: float) -> State:
    one = fresh(drawn(0.0, 0.0), 0.0)
    one.price = price
    return State(budgets={"day": one})


def rank_of(name: str, endpoints: tuple[Endpoint, ...], request: Request, price: float) -> int:
    plan = Router(endpoints, make.policy(), priced(price)).decide(request, 0.0).plan
    return [step.endpoint for step in plan].index(name)


@given(pairs(), requests(), levels, levels)
def test_a_higher_price_never_attracts_to_who_asks_more_money(
    pair: tuple[Endpoint, Endpoint], request: Request, price: float, more: float
) -> None:
    own, cloud = replace(pair[0], price=make.endpoint("own").price), pair[1]
    request = replace(request, budgets=("day",))
    before = rank_of("cloud", (own, cloud), request, price)
    assert rank_of("cloud", (own, cloud), request, price + more) >= before


@given(pairs(), requests(), levels)
def test_contributions_add_up_to_the_value(pair: tuple[Endpoint, Endpoint], request: Request, price: float) -> None:
    router = Router(pair, make.policy(), priced(price))
    request = replace(request, budgets=("day",))
    for one in router.candidates(request, 0.0):
        assert one.value_usd == sum(one.contributions_usd.values())
        assert one.contributions_usd.get("budget", 0.0) <= 0.0


@given(pairs(), requests(), levels)
def test_what_is_left_out_of_the_search_was_not_among_the_best(
    pair: tuple[Endpoint, Endpoint], request: Request, price: float
) -> None:
    """One attempt lets the search end early, three do not; the first is the same."""
    request = replace(request, budgets=("day",))
    firsts = []
    for attempts in (1, 3):
        decision = Router(pair, make.policy(attempts_max=attempts), priced(price)).decide(request, 0.0)
        # With one attempt nobody explores.
        assume(decision.why is not Why.EXPLORES)
        step = decision.plan[0]
        assert isinstance(step, Run)
        firsts.append(step.endpoint)
    assert firsts[0] == firsts[1]


@given(st.floats(1e-7, 1e-4), levels)
def test_of_two_that_ask_the_same_the_quicker_one_is_asked_however_few_attempts_there_are(
    usd: float, price: float
) -> None:
    cloud = make.endpoint("cloud", local=False)
    cloud = replace(cloud, price=Price(usd_per_output_token=usd), prior=replace(cloud.prior, rtt_s=0.5))
    quicker = replace(cloud, name="quicker", prior=replace(cloud.prior, rtt_s=0.01))
    request = make.request(slo=Slo(), budgets=("day",))
    for attempts in (1, 2):
        (step, *_) = (
            Router((cloud, quicker), make.policy(attempts_max=attempts), priced(price)).decide(request, 0.0).plan
        )
        assert step.endpoint == "quicker"


@given(requests(), levels)
def test_without_a_budget_no_price_is_in_a_value(request: Request, price: float) -> None:
    router = Router((make.endpoint("own"), make.endpoint("cloud", local=False)), make.policy(), priced(price))
    plain = make.router(make.endpoint("own"), make.endpoint("cloud", local=False))
    assert router.decide(request, 0.0) == plain.decide(request, 0.0)
    assert router.candidates(request, 0.0) == plain.candidates(request, 0.0)
    assert Budgets(priced(price).budgets).priced(request) is request


@given(requests(), levels)
def test_only_what_is_paid_to_others_has_a_price(request: Request, price: float) -> None:
    running = make.endpoint("own", usd_per_s=0.01)
    model = make.router(running).endpoint("own")
    length = make.router(running)._known.lengths.of(request)
    base = model.base(request, length, 0.0)
    dear = replace(request, budget_price=price)
    assert base.cost_usd > 0.0
    assert value_usd(dear, base, 0.01, 0.0) == value_usd(request, base, 0.01, 0.0)
    assert "budget" not in contributions_usd(dear, base, 0.01, 0.0)


@pytest.mark.lengthy
@given(seeds)
def test_in_any_weather_prices_are_learned_and_never_negative(seed: int) -> None:
    storm = Storm(seed).run(150)
    assert all(one.price >= 0.0 for one in storm.router.state.budgets.values())
    assert set(storm.router.state.budgets) <= {"day", "day/k"}
