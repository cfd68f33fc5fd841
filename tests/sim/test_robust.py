"""What was tried tells what another policy is worth, without a simulation; what was never tried tells nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import make as core
from tests.sim.days import LONG_S, Listed
from tidegate.core.condition import All, Comparison
from tidegate.core.model import Decision, Endpoint, Held, Line, Price, Request, Run, Segment, Slo, Wait, replace
from tidegate.core.ruling import Rule, Ruling
from tidegate.core.why import Why
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.chance import Chance
from tidegate.sim.changed import Changed
from tidegate.sim.job import Job
from tidegate.sim.observed import observe
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Remote
from tidegate.sim.robust import EFFECTIVE_MIN, Robust, robust
from tidegate.sim.world import World

PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)
CHEAP = core.endpoint("cheap", local=False, price=PRICE)
# As quick, and half as dear again: nobody would go there who knows.
DEAR = core.endpoint("dear", local=False, price=replace(PRICE, usd_per_output_token=6e-6))
# Far beyond what may be lost by exploring.
FAR = core.endpoint("far", local=False, price=replace(PRICE, usd_per_output_token=600e-6))
WORTH_USD = 0.05


def week(
    share: float, count: int = 1_500, *, alone: int = 0, vendors: tuple[Endpoint, ...] = (CHEAP, DEAR), **asked: Any
) -> list[Line]:
    """The journal of vendors between whom some requests explore: none of the first `alone`, with one attempt. Every
    third has the key `far`."""
    lines: list[Line] = []
    world = World(vendors, core.policy(explore_share=share, hedge_share=0.0), journal=lines.append)
    chance = Chance(1)
    places = {
        one.name: Remote(one.name, Api(ApiProfile(ttft_s=0.3, tpot_s=0.02), chance, one.name), world.loop, world)
        for one in vendors
    }
    known: dict[str, Any] = {"worth_usd": WORTH_USD, "slo": Slo(ttft_s=20.0), "output_tokens_max": 100}
    jobs = [
        Job(
            request=core.request(
                f"r{number}",
                arrived_s=0.5 * number,
                failover=number >= alone,
                key="near" if number % 3 else "far",
                **(known | asked),
            ),
            prompt_tokens=200,
            output_tokens=100,
        )
        for number in range(count)
    ]
    world.run(places, Listed(jobs), probe_s=5.0, until_s=LONG_S)
    return lines


CHANGED = Changed(policy=core.policy(), rules=(Rule(when=All(of=()), says=Ruling(rule="dear", to=("dear",))),))


def came(lines: list[Line]) -> list[Outcome]:
    return [one.outcome for one in observe(lines).asked]


def to_dear(lines: list[Line], free: int = 0) -> Robust:
    """By a policy that sends everything to the dear one. So many of the first have cost nothing, after all."""
    outcomes = came(lines)
    outcomes[:free] = [replace(one, usd=0.0) for one in outcomes[:free]]
    return robust(lines, CHANGED, outcomes)


@pytest.mark.lengthy
def test_what_the_other_policy_is_worth_is_what_it_costs_more() -> None:
    lines = week(0.2)
    found = to_dear(lines)
    assert found.effective > EFFECTIVE_MIN
    assert found.otherwise > 0.9 * found.requests
    # A hundred tokens of output, for two millionths of a dollar each more, from those who did not go there anyway.
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.2 * 0.8 < found.high
    assert found.more_usd_per_1k == pytest.approx(-0.16, abs=0.08)


@pytest.mark.lengthy
def test_who_could_never_be_tried_with_is_told_and_in_no_figure() -> None:
    alone = 400
    lines = week(0.2, alone=alone)
    found = to_dear(lines)
    assert (found.requests, found.otherwise, found.untried) == (1_500, 1_500, alone)
    assert found.more_usd_per_1k is not None
    assert to_dear(lines, free=alone) == found


def sent(key: str, to: str) -> Rule:
    return Rule(when=Comparison(feature="key", op="==", value=key), says=Ruling(rule=to, to=(to,)))


@pytest.mark.lengthy
@pytest.mark.parametrize("target", [None, 0.9], ids=["worth", "target"])
def test_what_chance_never_tries_is_in_no_figure_and_what_is_told_of_the_rest_is_the_truth(
    target: float | None,
) -> None:
    lines = week(0.2, 400, vendors=(CHEAP, DEAR, FAR), attainment=target)
    outcomes = came(lines)
    changed = Changed(policy=core.policy(), rules=(sent("near", "dear"), sent("far", "far")))
    found = robust(lines, changed, outcomes)
    # With a target worth falls, and in the end nothing is tried for it.
    assert found.untried >= sum(one.request.key == "far" for one in outcomes)
    assert found.low is not None
    assert found.high is not None
    # Both keep all promises; four in five go to the cheap one.
    assert found.low < -0.2 * 0.8 < found.high
    # Were the worth of promises on one side alone, it would be out by dollars.
    assert found.high - found.low < 0.2


def test_a_policy_that_misses_promises_for_less_money_is_worth_less_with_a_target_too() -> None:
    lines = week(0.2, 400, attainment=0.9)
    late = [replace(one, ttft_s=30.0, usd=0.0) if one.endpoint == "dear" else one for one in came(lines)]
    found = robust(lines, CHANGED, late)
    assert found.high is not None
    assert found.high < 0.0


@pytest.mark.lengthy
def test_of_whom_nobody_sees_whether_his_promise_is_kept_is_in_no_figure_and_told() -> None:
    lines = week(0.2, slo=Slo(ttft_s=1.0))
    outcomes = came(lines)
    seen = robust(lines, CHANGED, outcomes)
    assert seen.more_usd_per_1k is not None
    some = robust(lines, CHANGED, [replace(one, ttft_s=None) if n % 2 else one for n, one in enumerate(outcomes)])
    assert (seen.unseen, some.unseen) == (0, 750)
    assert some.low is not None
    assert some.high is not None
    assert some.low < seen.more_usd_per_1k < some.high
    none = robust(lines, CHANGED, [replace(one, ttft_s=None) for one in outcomes])
    assert (none.unseen, none.effective, none.more_usd_per_1k) == (1_500, 0.0, None)


def test_of_answers_in_one_piece_those_that_ended_soon_say_nothing_of_the_others() -> None:
    lines = week(0.2, 300, stream=False)
    outcomes = came(lines)
    assert all(one.judged for one in outcomes)
    found = robust(lines, CHANGED, outcomes)
    assert found.unseen + found.untried == 300 > 2 * found.untried
    assert found.more_usd_per_1k is None


@pytest.mark.lengthy
def test_an_answer_beside_which_another_one_starts_is_not_what_it_is_alone() -> None:
    lines = [_beside(line) for line in week(0.2)]
    found = to_dear(lines)
    assert found.otherwise > 0.9 * found.requests
    assert (found.effective, found.more_usd_per_1k) == (0.0, None)
    # Nothing corrects what is predicted of them alone: whether another one starts is not up to chance.
    there = [line for line in lines if isinstance(line.fact, Decision) and _first(line.fact) == "dear"]
    assert found.untried == len(there) > 0


def _first(decision: Decision) -> str:
    return decision.plan[0].endpoint


def _beside(line: Line) -> Line:
    """The same where a second one starts beside the first after a second."""
    if not isinstance(line.fact, Decision) or not isinstance(first := line.fact.plan[0], Run):
        return line
    plan = (replace(first, cutover_s=1.0), *line.fact.plan[1:])
    return replace(line, fact=replace(line.fact, plan=plan))


def told(lines: list[Line], change: Callable[[Line], list[Line]]) -> list[Line]:
    """The same where more, or less, was told of each line's request."""
    return [new for line in lines for new in change(line)]


def test_who_waited_first_is_in_no_figure() -> None:
    lines = week(0.2, count=300)
    outcomes = came(lines)
    assert robust(lines, CHANGED, outcomes).requests == 300

    def waits(line: Line) -> list[Line]:
        if not isinstance(fact := line.fact, Decision):
            return [line]
        first = replace(fact, plan=(Wait(endpoint="cheap", until_s=line.at_s + 9.0),), why=Why.WAITS_FOR_SLOT)
        return [replace(line, fact=first), line]

    assert robust(told(lines, waits), CHANGED, outcomes).requests == 0


def test_nor_is_who_waited_since_before_the_lines_begin() -> None:
    lines = week(0.2, count=300)
    outcomes = came(lines)
    (first, *rest) = lines
    assert isinstance(first.fact, Segment)
    (request, *_) = [line.fact for line in lines if isinstance(line.fact, Request)]
    router = core.router(CHEAP, DEAR)
    router.observe(Held(request=request), request.arrived_s)
    held = replace(first, fact=replace(first.fact, state=router.snapshot()))
    assert robust([held, *rest], CHANGED, outcomes).requests == 299


def test_who_could_not_be_sent_where_it_was_to_go_first_is_in_no_figure() -> None:
    lines = week(0.2, count=300)
    outcomes = came(lines)

    def passed_over(line: Line) -> list[Line]:
        if not isinstance(fact := line.fact, Decision):
            return [line]
        # The other one of the two comes first, and it is sent where it was sent.
        (other,) = {"cheap", "dear"} - {fact.plan[0].endpoint}
        return [replace(line, fact=replace(fact, plan=(Run(endpoint=other, timeout_s=9.0), fact.plan[0])))]

    assert robust(told(lines, passed_over), CHANGED, outcomes).requests == 0


def test_where_nobody_ever_tried_there_is_no_estimate() -> None:
    lines = week(0.0, count=200)
    found = to_dear(lines)
    assert found.otherwise == found.requests > 0
    assert (found.effective, found.more_usd_per_1k) == (0.0, None)


def test_the_same_policy_decides_nothing_otherwise() -> None:
    lines = week(0.2, count=300)
    found = robust(lines, Changed(policy=core.policy(hedge_share=0.0)), came(lines))
    assert found.otherwise == 0
    assert found.more_usd_per_1k is None
