"""Laws of exploring: who is first is drawn as it says, rules hold, and without it nothing is otherwise."""

from collections import Counter
from math import sqrt

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests import make
from tests.properties.storm import Storm
from tests.properties.test_laws import pairs, requests
from tidegate.core.explore import LOSS_SHARE_MAX
from tidegate.core.model import Decision, Endpoint, Policy, Request, Run, replace
from tidegate.core.replay import replay
from tidegate.core.router import Router
from tidegate.core.ruled import barred_by
from tidegate.core.rules import may_go_to
from tidegate.core.why import Why

seeds = st.integers(0, 10_000)
# Far more than may be configured: in such weather few may explore at all.
OFTEN = Policy(held_max=6, hold_s_max=20.0, explore_share=0.9)
DRAWS = 2000


def without(router: Router, policy: Policy, endpoints: tuple[Endpoint, ...]) -> Router:
    """Another one that knows the same and does not explore."""
    state = msgspec.json.decode(router.snapshot(), type=type(router.state))
    return Router(endpoints, replace(policy, explore_share=0.0), state)


def runs(decision: Decision) -> list[str]:
    return [step.endpoint for step in decision.plan if isinstance(step, Run)]


@pytest.mark.lengthy
@given(seeds)
@settings(max_examples=30)
def test_what_does_not_explore_is_decided_as_without_exploring(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        plain = without(router, OFTEN, storm.endpoints).decide(request, now_s)
        assert plain.propensity == 1.0
        if decision.why is Why.EXPLORES:
            first, *rest = runs(decision)
            assert first != runs(plain)[0]
            assert rest == [name for name in runs(plain) if name != first][: OFTEN.attempts_max - 1]
        else:
            assert replace(decision, propensity=1.0) == plain

    storm = Storm(seed, check, policy=OFTEN, slack=True)
    storm.run(120)


@pytest.mark.lengthy
@given(seeds)
def test_rules_hold_of_every_step_of_one_that_explores(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if decision.why is not Why.EXPLORES:
            return
        excluded = {c.endpoint for c in router.candidates(request, now_s) if c.excluded is not None}
        names = runs(decision)
        assert excluded.isdisjoint(names)
        assert len(set(names)) == len(names)
        assert request.failover
        assert request.id not in router.state.held
        for name in names:
            assert may_go_to(request, router.endpoint(name).endpoint)
            assert not barred_by(request.rulings, name)

    Storm(seed, check, policy=OFTEN, slack=True).run(200)


def test_the_storms_have_requests_that_explore() -> None:
    found = Counter[Why]()

    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        found[decision.why] += 1

    for seed in range(20):
        Storm(seed, check, policy=OFTEN, slack=True).run(120)
    assert found[Why.EXPLORES] > 20


@pytest.mark.lengthy
@given(seeds)
def test_a_journal_of_who_explores_replays_and_deciding_twice_is_the_same(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        assert router.decide(request, now_s) == decision

    storm = Storm(seed, check, policy=OFTEN, slack=True)
    storm.cut()
    storm.run(150)
    assert replay(storm.lines).difference is None


@pytest.mark.lengthy
@given(pairs(), requests(), st.lists(st.floats(0.0, 1.0), max_size=3), st.sampled_from((0.02, 0.1, 0.5)), seeds)
@settings(max_examples=25, derandomize=True)
def test_primaries_are_as_frequent_as_their_propensities_say(
    pair: tuple[Endpoint, Endpoint], request: Request, steps: list[float], share: float, seed: int
) -> None:
    alike = tuple(
        replace(pair[1], name=f"c{n}", prior=make.scaled(pair[1].prior, 1.0 + s)) for n, s in enumerate(steps)
    )
    router = Router((*pair, *alike), make.policy(explore_share=share, seed=seed))
    found = Counter[str]()
    told: dict[str, float] = {}
    for n in range(DRAWS):
        decision = router.decide(replace(request, id=f"r{n}"), 0.0)
        name = decision.plan[0].endpoint
        found[name] += 1
        # The same request and state: the same probability, whenever it is picked.
        assert told.setdefault(name, decision.propensity) == decision.propensity
    for name, propensity in told.items():
        # Five deviations: by chance, one in a million.
        margin = 5.0 * sqrt(DRAWS * propensity * (1.0 - propensity))
        assert abs(found[name] - DRAWS * propensity) <= margin
    assert sum(told.values()) <= 1.0 + 1e-12


@pytest.mark.lengthy
@given(pairs(), requests())
@settings(suppress_health_check=[HealthCheck.filter_too_much])  # one in four explores, and without any this fails
def test_what_exploring_is_predicted_to_lose_is_bounded(pair: tuple[Endpoint, Endpoint], request: Request) -> None:
    """Of those that are asked first without a limit of their own: what they are worth less, of what a promise is."""
    router = Router(pair, make.policy(explore_share=0.9))
    decision = router.decide(request, 0.0)
    assume(decision.why is Why.EXPLORES)
    value = {c.endpoint: c for c in router.candidates(request, 0.0)}
    first, best = value[decision.plan[0].endpoint], value[decision.plan[1].endpoint]
    assert first.value_usd is not None
    assert best.value_usd is not None
    assert first.estimate is not None
    if first.estimate.attainment >= 0.95:
        assert best.value_usd - first.value_usd <= LOSS_SHARE_MAX * router.worth_usd(request, 0.0) * (1 + 1e-9)
