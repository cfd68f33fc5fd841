"""A rule in the router's place: it may choose, and nothing that is forbidden."""

from tests import make
from tidegate.core.baseline import BASELINES
from tidegate.core.model import Held, Overrides, Probed, Run, Wait
from tidegate.core.why import Why
from tidegate.sim.rival import Rival

ENDPOINTS = (make.endpoint("laptop"), make.endpoint("cloud", local=False))


def rival(rule: str, **settings: object) -> Rival:
    return Rival(BASELINES[rule], ENDPOINTS, make.policy(**settings))


def fill(one: Rival, endpoint: str, count: int) -> None:
    for _ in range(count):
        one.observe(make.started(make.request(), endpoint), 0.0)


def names(one: Rival, now_s: float = 0.0, *, residency: str = "anywhere", prompt_tokens: int = 200) -> list[str]:
    plan = one.decide(make.request(residency=residency, prompt_tokens=prompt_tokens), now_s).plan
    return [("wait " if isinstance(step, Wait) else "") + step.endpoint for step in plan]


def test_the_rules_order_is_the_plan() -> None:
    assert names(rival("local-first")) == ["laptop", "cloud"]
    assert names(rival("always-remote")) == ["cloud"]
    assert names(rival("local-first", attempts_max=1)) == ["laptop"]


def test_what_must_stay_is_never_sent_away() -> None:
    assert names(rival("local-first"), residency="local") == ["laptop"]
    refused = rival("always-remote").decide(make.request(residency="local"), 0.0)
    assert (refused.plan, refused.why) == ((), Why.BUSY)


def test_what_does_not_fit_or_is_down_or_drained_is_passed_over() -> None:
    assert names(rival("cheapest"), prompt_tokens=40_000) == []
    one = rival("local-first")
    one.observe(Probed(endpoint="laptop", up=False), 0.0)
    assert names(one) == ["cloud"]
    one.observe(Overrides(drained=("cloud",)), 0.0)
    assert one.decide(make.request(), 0.0).why is Why.DOWN


def test_where_there_is_no_room_it_goes_on_or_waits() -> None:
    one = rival("local-first")
    fill(one, "laptop", 2)
    assert names(one) == ["cloud"]
    assert names(one, residency="local") == ["wait laptop"]
    local = rival("always-local")
    fill(local, "laptop", 2)
    assert names(local) == ["wait laptop"]


def test_who_waited_first_is_due_first_and_not_for_ever() -> None:
    one = rival("always-local", hold_s_max=100.0, held_max=2)
    fill(one, "laptop", 1)
    sent = make.request("sent")
    one.observe(make.started(sent, "laptop"), 0.0)
    for name in ("first", "second"):
        one.observe(Held(request=make.request(name)), 0.0)
    assert one.held == 2
    assert one.due(1.0) == []
    assert names(one, 1.0) == []
    one.observe(make.ended("sent", "laptop"), 2.0)
    assert [request.id for request in one.due(2.0)] == ["first", "second"]
    fill(one, "laptop", 1)
    assert [request.id for request in one.due(100.0)] == ["first", "second"]
    assert one.decide(make.request("first"), 100.0).plan == ()


def test_round_robin_takes_turns_and_asking_is_no_turn() -> None:
    one = rival("round-robin")
    for expected in ("cloud", "laptop", "cloud"):
        request = make.request()
        first = one.decide(request, 0.0).plan[0]
        assert one.decide(request, 0.0).plan[0] == first
        assert isinstance(first, Run)
        assert first.endpoint == expected
        one.observe(make.started(request, first.endpoint), 0.0)
