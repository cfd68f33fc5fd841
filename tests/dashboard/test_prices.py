"""Prices follow from facts alone: they are what a router comes to that is told everything."""

from math import inf

import pytest

from tests import make
from tests.properties.storm import Storm
from tidegate.core.model import (
    JOURNAL_VERSION,
    Decision,
    Drawn,
    Ending,
    Observation,
    Request,
    Segment,
    Started,
    replace,
)
from tidegate.core.price import Price
from tidegate.core.replay import Replay
from tidegate.core.router import Router
from tidegate.dashboard.prices import Prices

BUDGETS = ("day", "month", "day/alice")


def of(router: Router, end_s: float) -> dict[tuple[str, str], float]:
    found = {("budget", name): router.budget_price(name) for name in router.state.budgets if "/" not in name}
    found |= {("worth", name): router.worth_share(name, end_s) for name in router.state.duals}
    return found


@pytest.mark.parametrize("seed", range(6))
def test_prices_are_those_of_a_router_that_is_told_all(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(4):
        storm.run(100).cut()
    replay, prices, hedged, kinds = Replay(), None, set[str](), set[str]()
    for line in storm.lines:
        fact, now_s = line.fact, line.at_s
        if isinstance(fact, Request | Decision):
            continue
        replay.feed(line)
        if isinstance(fact, Segment):
            prices = Prices(fact)
            continue
        assert prices is not None
        assert replay.router is not None
        prices.feed(fact, now_s)
        if isinstance(fact, Started) and fact.hedge:
            hedged.add(fact.request_id)
        minute = {(one.what, one.name): one.value for one in prices.of_minute(now_s - 60.0)}
        hedge = minute.pop(("hedge", ""), None)
        assert minute == of(replay.router, now_s)
        kinds |= {what for what, _ in minute}
        if not hedged:
            assert (inf if hedge is None else hedge) == replay.router.hedge_price
        shown = prices.budgets(1000)
        assert [one.name for one in shown] == sorted(replay.router.state.budgets)
        told_usd = {one.name: replay.router.state.budgets[one.name].told_spent_usd for one in shown}
        assert all(one.spent_usd == told_usd[one.name] for one in shown if "/" in one.name)
        assert all(one.spent_usd >= told_usd[one.name] for one in shown)
    assert kinds == {"budget", "worth"}


def begun(router: Router) -> Prices:
    """From where a router is."""
    return Prices(
        Segment(
            version=JOURNAL_VERSION,
            software="test",
            policy=router.policy,
            endpoints=router.endpoints,
            state=router.snapshot(),
        )
    )


@pytest.mark.parametrize("loses", ["cloud", "vendor", "laptop"])
def test_what_is_lost_on_a_hedge_that_is_over_is_counted_as_a_router_counts_it(loses: str) -> None:
    endpoints = (make.endpoint("laptop"), make.endpoint("cloud", local=False), make.endpoint("vendor", local=False))
    router = Router(endpoints, make.policy())
    prices = [begun(router)]

    def tell(fact: Observation, now_s: float) -> None:
        router.observe(fact, now_s)
        for one in prices:
            one.feed(fact, now_s)

    for number in range(40):
        request = make.request(f"r{number}")
        tell(make.started(request, "cloud"), 10.0 * number)
        tell(make.ended(request.id, "cloud", prompt_tokens=1000, output_tokens=100), 10.0 * number + 1.0)
    request = make.request("hedged", prompt_tokens=1000)
    first, second = (loses, "cloud" if loses != "cloud" else "vendor")
    tell(make.started(request, first), 500.0)
    tell(replace(make.started(request, second), hedge=True), 501.0)
    prices.append(begun(router))
    tell(make.ended(request.id, second, prompt_tokens=1000, output_tokens=100), 502.0)
    tell(make.ended(request.id, first, ending=Ending.CANCELLED), 502.0)
    for one in prices:
        (price,) = [each.value for each in one.of_minute(480.0) if each.what == "hedge"]
        assert price == pytest.approx(router.hedge_price)


def test_keys_that_spend_nothing_fill_no_minutes_and_the_budgets_of_all_are_told_first() -> None:
    router = Router((make.endpoint("laptop"), make.endpoint("cloud", local=False)), make.policy())
    for name in ("day/alice", "day/bob", "month"):
        router.observe(Drawn(budget=name, usd=5.0, spent_usd=1.0, begins_s=0.0, ends_s=86_400.0), 10.0)
    prices = begun(router)
    assert [one.name for one in prices.of_minute(0.0) if one.what == "budget"] == ["month"]
    assert [one.name for one in prices.budgets(2)] == ["month", "day/alice"]


def test_what_is_paid_since_pricing_was_told_counts_as_spent_of_the_budgets_of_all() -> None:
    cloud = make.endpoint("cloud", local=False, price=Price(usd_per_input_token=1e-6, usd_per_output_token=2e-6))
    router = Router((make.endpoint("laptop"), cloud), make.policy())
    told = {name: Drawn(budget=name, usd=5.0, spent_usd=1.0, begins_s=0.0, ends_s=86_400.0) for name in BUDGETS}
    router.observe(told["day"], 10.0)
    prices = begun(router)
    prices.feed(told["month"], 11.0)
    prices.feed(told["day/alice"], 11.0)

    def spent_usd() -> dict[str, float]:
        return {one.name: one.spent_usd for one in prices.budgets(10)}

    def ended(number: int, endpoint: str, ending: Ending, **told: int | str) -> None:
        request = make.request(f"r{number}")
        prices.feed(make.started(request, endpoint), 20.0 + number)
        prices.feed(make.ended(request.id, endpoint, ending=ending, **told), 20.5 + number)

    ended(1, "cloud", Ending.OK, prompt_tokens=100_000, output_tokens=50_000)
    assert spent_usd() == {"day": pytest.approx(1.2), "month": pytest.approx(1.2), "day/alice": 1.0}
    # The journal goes on in another segment.
    before, prices = prices, begun(router)
    prices.go_on(before)
    assert spent_usd() == {"day": pytest.approx(1.2)}
    prices.feed(told["month"], 21.0)
    prices.feed(told["day/alice"], 21.0)
    ended(2, "laptop", Ending.OK, prompt_tokens=100_000, output_tokens=50_000)
    ended(3, "cloud", Ending.FAILED, cause="connect_timeout")
    assert spent_usd()["day"] == pytest.approx(1.2)
    ended(4, "cloud", Ending.CANCELLED, prompt_tokens=100_000)
    assert spent_usd()["day"] == pytest.approx(1.3)
    prices.feed(replace(told["day"], spent_usd=1.25), 30.0)
    assert spent_usd() == {"day": 1.25, "month": pytest.approx(1.1), "day/alice": 1.0}
