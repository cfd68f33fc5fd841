"""What is found by somebody who knows everything: better than what is simple, and no better than can be."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.sim.small import Small
from tidegate.core.model import replace
from tidegate.sim.clairvoyant import Found, search, value_usd
from tidegate.sim.needs import Pool
from tidegate.sim.oracle import bound
from tidegate.sim.outcome import Outcome
from tidegate.sim.planned import Plan, Planned

seeds = st.integers(0, 10_000)
# Each is a whole world, played several times.
worlds = settings(max_examples=8)
PLAYS = 8


class Watched:
    """A world and its clairvoyant, and every plan that was played."""

    def __init__(self, seed: int, plays_max: int = PLAYS) -> None:
        self.small = small = Small(seed)
        self.bound = bound(small.pieces, small.pools, limit=small.limit)
        self.played: list[tuple[Plan, float]] = []
        self.found: Found = search(
            small.pieces, self.pools, self._play, local=self.bound.local, plays_max=plays_max, seed=seed
        )

    @property
    def pools(self) -> dict[str, Pool]:
        return {f"own{number}": pool for number, pool in enumerate(self.small.pools)}

    def _play(self, plan: Plan) -> list[Outcome]:
        outcomes = self.small.play(lambda endpoints, policy: Planned(plan, endpoints, policy))
        self.played.append((plan, self.small.value_usd(outcomes)))
        return outcomes


@pytest.mark.lengthy
@worlds
@given(seeds)
def test_it_is_the_best_that_was_played_and_within_the_bound(seed: int) -> None:
    watched = Watched(seed)
    assert len(watched.played) == PLAYS
    assert watched.played[0][0].places == {}
    assert watched.found.usd == pytest.approx(max(usd for _, usd in watched.played), abs=1e-12)
    assert watched.found.usd <= watched.bound.usd + 1e-9
    plan, usd = watched.played[watched.found.plays - 1]
    assert plan == watched.found.plan
    assert usd == pytest.approx(watched.found.usd, abs=1e-12)


@pytest.mark.lengthy
@worlds
@given(seeds)
def test_no_plan_exceeds_the_bound(seed: int) -> None:
    small, draw = Small(seed), Random(seed)
    most_usd = bound(small.pieces, small.pools, limit=small.limit).usd
    names = [*(f"own{number}" for number in range(len(small.pools))), ""]
    for _ in range(3):
        drawn = {piece.id: draw.choice(names) for piece in small.pieces}
        plan = Plan(
            places={id: name for id, name in drawn.items() if name},
            starts_by_s={piece.id: piece.arrived_s + draw.uniform(0.0, 2.0) for piece in small.pieces},
            running={name: draw.randint(1, 6) for name in names if name},
        )
        outcomes = small.play(lambda endpoints, policy, plan=plan: Planned(plan, endpoints, policy))  # type: ignore[misc]
        assert len(outcomes) == len(small.jobs)
        assert small.value_usd(outcomes) <= most_usd + 1e-9


@pytest.mark.lengthy
@worlds
@given(seeds)
def test_no_plan_serves_anything_where_it_may_not_be(seed: int) -> None:
    small, plans = Small(seed, engines=2), list[Plan]()
    pieces = [replace(one, pools=((), (0,), (1,))[number % 3]) for number, one in enumerate(small.pieces)]
    pools = {f"own{number}": pool for number, pool in enumerate(small.pools)}

    def play(plan: Plan) -> list[Outcome]:
        plans.append(plan)
        return small.play(lambda endpoints, policy: Planned(plan, endpoints, policy))

    search(pieces, pools, play, local=bound(pieces, small.pools).local, plays_max=PLAYS, seed=seed)
    allowed = {one.id: {f"own{number}" for number in one.pools or ()} for one in pieces}
    assert all(name in allowed[id] for plan in plans for id, name in plan.places.items())
    assert any(plan.places for plan in plans)


def test_what_is_planned_where_a_rule_keeps_it_from_goes_away() -> None:
    small = Small(1, engines=1)
    small.per_minute = None
    small.jobs = [structs.replace(job, request=replace(job.request, residency=("away",))) for job in small.jobs]
    plan = Plan(
        places={piece.id: "own0" for piece in small.pieces},
        starts_by_s={piece.id: piece.arrived_s for piece in small.pieces},
        running={"own0": 4},
    )
    outcomes = small.play(lambda endpoints, policy: Planned(plan, endpoints, policy))
    assert {(one.outcome, one.endpoint) for one in outcomes} == {("ok", "away")}


def test_the_same_seed_finds_the_same_plan() -> None:
    assert Watched(3).found == Watched(3).found


def test_more_plays_find_no_less() -> None:
    assert Watched(5, plays_max=12).found.usd >= Watched(5, plays_max=6).found.usd


def test_what_was_not_served_costs_what_the_remote_would_have() -> None:
    small = Small(1)
    pieces = {piece.id: piece for piece in small.pieces}
    outcomes = small.play()
    assert value_usd(outcomes, pieces) == pytest.approx(small.value_usd(outcomes))
