"""Laws of operators' rules: what is hard holds in any weather, and what is soft only ever repels."""

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import Storm
from tests.properties.test_laws import pairs, prices, priors, requests
from tidegate.core.model import Candidate, Decision, Endpoint, Request, Ruling, replace
from tidegate.core.router import Router
from tidegate.core.ruled import break_usd
from tidegate.core.why import Why

seeds = st.integers(0, 10_000)
NAMES = ("cloud", "own", "spare")


def allowed(request: Request, endpoint: str) -> bool:
    return all(endpoint in one.to for one in request.rulings if one.to and one.break_usd is None)


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    spare = make.endpoint("spare", prior=draw(priors()), price=draw(prices()))
    return (*draw(pairs()), spare)


@st.composite
def rulings(draw: st.DrawFn) -> tuple[Ruling, ...]:
    prices_usd = st.none() | st.floats(1e-6, 1.0)
    places = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)
    made = draw(st.lists(st.tuples(places, prices_usd), max_size=3))
    return tuple(Ruling(rule=f"r{i}", to=to, break_usd=usd) for i, (to, usd) in enumerate(made))


def busy(endpoints: tuple[Endpoint, ...], before: list[Request]) -> Router:
    """A router whose own engines have some of these under way, and hold the others."""
    router = Router(endpoints, make.policy())
    for index, one in enumerate(before):
        sent = replace(one, id=f"b{index}")
        router.observe(make.started(sent, "own" if index % 2 else "spare"), 0.0)
    return router


@pytest.mark.lengthy
@given(seeds)
def test_in_any_weather_nothing_goes_or_waits_where_a_hard_rule_forbids_it(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        assert all(allowed(request, step.endpoint) for step in decision.plan)

    storm = Storm(seed, check)
    for _ in range(200):
        storm.step()
        assert all(allowed(storm.requests[name], endpoint) for name, endpoint in storm.sent)


@pytest.mark.lengthy
@given(seeds)
def test_what_is_ruled_out_says_by_which_rule(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        hard = {one.rule: one.to for one in request.rulings if one.hard}
        for candidate in router.candidates(request, now_s):
            assert bool(candidate.rule) == (candidate.excluded is Why.RULED_OUT)
            assert not candidate.rule or candidate.endpoint not in hard[candidate.rule]

    Storm(seed, check).run(100)


@given(fleets(), requests(), rulings(), st.lists(requests(), max_size=8))
def test_no_rule_takes_a_request_where_it_could_not_go_without(
    endpoints: tuple[Endpoint, ...], request: Request, said: tuple[Ruling, ...], before: list[Request]
) -> None:
    router = busy(endpoints, before)
    free = {c.endpoint: c.excluded for c in router.candidates(request, 0.0)}
    for candidate in router.candidates(replace(request, rulings=said), 0.0):
        if free[candidate.endpoint] is not None:
            assert candidate.excluded is not None


@given(fleets(), requests(), st.sampled_from(NAMES), st.floats(1e-6, 1.0), st.floats(1.0, 100.0))
def test_a_dearer_breach_never_attracts_traffic(
    endpoints: tuple[Endpoint, ...], request: Request, to: str, usd: float, factor: float
) -> None:
    """Of free endpoints each that the rule would avoid comes as late as before, or later; and so does it as a hedge."""
    outside = [name for name in NAMES if name != to]
    places: list[dict[str, float]] = []
    cutovers: list[dict[str, float]] = []
    for break_at_usd in (usd, usd * factor):
        ruled = replace(request, rulings=(Ruling(rule="r", to=(to,), break_usd=break_at_usd),))
        steps = [(step.endpoint, step) for step in Router(endpoints, make.policy()).decide(ruled, 0.0).plan]
        places.append({name: float(place) for place, (name, _) in enumerate(steps)})
        cutovers.append({after: getattr(step, "cutover_s", None) or inf for (_, step), (after, _) in pairwise(steps)})
    less, more = places
    for name in outside:
        # Beside each other they are as they were: both are as much dearer.
        assert more.get(name, inf) >= less.get(name, inf)
    if less == more:
        assert all(cutovers[1][name] >= cutovers[0][name] for name in cutovers[0] if name in outside)


@given(fleets(), requests(), st.lists(requests(), max_size=8), st.sampled_from(NAMES), st.floats(1e-6, 1.0))
def test_a_dearer_breach_never_takes_a_first_step_outside_however_busy_it_is(
    endpoints: tuple[Endpoint, ...], request: Request, before: list[Request], to: str, usd: float
) -> None:
    router = busy(endpoints, before)
    cheap, dear = (
        router.decide(replace(request, rulings=(Ruling(rule="r", to=(to,), break_usd=at),)), 0.0)
        for at in (usd, 10.0 * usd)
    )
    if cheap.plan and cheap.plan[0].endpoint == to:
        assert dear.plan[0].endpoint == to


@given(fleets(), requests(), rulings(), st.lists(requests(), max_size=8), st.permutations(range(3)))
def test_neither_the_order_of_endpoints_nor_that_within_a_rule_matters(
    endpoints: tuple[Endpoint, ...],
    request: Request,
    said: tuple[Ruling, ...],
    before: list[Request],
    order: list[int],
) -> None:
    turned = tuple(replace(one, to=tuple(reversed(one.to))) for one in said)
    one = busy(endpoints, before).decide(replace(request, rulings=said), 0.0)
    other = busy(tuple(endpoints[i] for i in order), before).decide(replace(request, rulings=turned), 0.0)
    assert one == other


@given(fleets(), requests(), rulings(), st.lists(requests(), max_size=8))
def test_rules_change_the_value_of_an_endpoint_by_their_prices_and_nothing_else_of_it(
    endpoints: tuple[Endpoint, ...], request: Request, said: tuple[Ruling, ...], before: list[Request]
) -> None:
    router = busy(endpoints, before)
    ruled = replace(request, rulings=said)
    without = {c.endpoint: c for c in router.candidates(request, 0.0)}
    for one in router.candidates(ruled, 0.0):
        other, usd = without[one.endpoint], break_usd(said, one.endpoint)
        if one.excluded is not other.excluded:
            continue
        assert one.estimate is not None
        assert other.estimate is not None
        assert one.estimate.cost_usd == other.estimate.cost_usd
        assert one.contributions_usd.get("rule", 0.0) == -usd
        assert value(one) == sum(one.contributions_usd.values())


def value(candidate: Candidate) -> float:
    assert candidate.value_usd is not None
    return candidate.value_usd


@given(fleets(), requests(), st.lists(requests(), max_size=8))
def test_a_rule_that_lets_it_go_everywhere_changes_no_choice(
    endpoints: tuple[Endpoint, ...], request: Request, before: list[Request]
) -> None:
    everywhere = (
        Ruling(rule="all", to=NAMES),
        Ruling(rule="rather", to=NAMES, break_usd=1.0),
        Ruling(rule="c", klass="k"),
    )
    router = busy(endpoints, before)
    assert router.decide(replace(request, rulings=everywhere), 0.0) == router.decide(request, 0.0)
