"""Laws of a model that fails at any time: no place is lost or kept for ever, data stays, and the journal replays."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.storm import Decided, Storm
from tidegate.core.model import Decision, Line, ModelFailed, Observation, Policy, Request, Run
from tidegate.core.promise import ends_s
from tidegate.core.replay import replay
from tidegate.core.router import Router

seeds = st.integers(0, 10_000)
# What a prediction raises that has no factors to predict with.
BROKEN = (IndexError, ValueError)
FAILED = ModelFailed(during="test", error="IndexError")


class Failing(Storm):
    """Weather in which nothing can be predicted of some endpoints, and a shell that does then what it has to."""

    failures = 0
    spoiled = 0

    def spoil(self) -> None:
        """From now on, what is learned of some endpoints, as far as anything is, is nothing to predict with."""
        for state in self.router.state.endpoints.values():
            if self.draw.random() < 0.6:
                for learned in (state.ttft, state.tpot):
                    if learned is not None:
                        learned.sums.factors.clear()
        self.spoiled = len(self.lines)
        self.cut()

    def decide(self, request: Request) -> None:
        """Ask, and let the static rule decide where that fails."""
        try:
            self.router.decide(request, self.now_s)
        except BROKEN:
            self.tell(FAILED)
        super().decide(request)

    def bind(self) -> None:
        """Where nobody can say who is due, the static rule can."""
        try:
            self.router.due(self.now_s)
        except BROKEN:
            self.tell(FAILED)
        super().bind()

    def tell(self, fact: Observation) -> None:
        """Write down also what was not taken in, and then say so."""
        try:
            super().tell(fact)
        except BROKEN:
            self.failures += 1
            self.lines.append(Line(at_s=self.now_s, fact=fact))
            super().tell(FAILED)


def failing(seed: int, check: Decided | None = None) -> Failing:
    """Calm weather for a while, and then a model that fails."""
    storm = Failing(seed, check, Policy(held_max=6, hold_s_max=20.0, static_s=0.2))
    storm.run(120)
    storm.spoil()
    storm.run(120)
    return storm


def test_in_this_weather_models_do_fail() -> None:
    assert sum(failing(seed).failures > 3 for seed in range(10)) >= 3


@pytest.mark.lengthy
@given(seeds)
@settings(max_examples=40)
def test_what_is_reserved_is_what_is_under_way_and_what_is_held_is_held(seed: int) -> None:
    storm = failing(seed)
    reserved = {(r, name) for name, state in storm.router.state.endpoints.items() for r in state.reservations}
    assert reserved == set(storm.sent)
    assert storm.router.state.held.keys() == storm.held.keys()
    for model in map(storm.router.endpoint, storm.router.state.endpoints):
        assert model._context_tokens == sum(r.prompt_tokens for r in model.state.reservations.values())


@pytest.mark.lengthy
@given(seeds)
@settings(max_examples=40)
def test_nothing_is_held_for_ever(seed: int) -> None:
    storm = failing(seed)
    storm.now_s = max(
        [storm.now_s + storm.policy.hold_s_max, *(e for r in storm.held.values() if (e := ends_s(r)) < inf)]
    )
    storm.tell(FAILED)
    assert {r.id for r in storm.router.due(storm.now_s)} == set(storm.held)


@pytest.mark.lengthy
@given(seeds)
@settings(max_examples=40)
def test_what_must_stay_stays(seed: int) -> None:
    def check(router: Router, request: Request, decision: Decision, now_s: float) -> None:
        if request.residency == ("local",):
            assert all(router.endpoint(s.endpoint).endpoint.local for s in decision.plan if isinstance(s, Run))

    failing(seed, check)


@pytest.mark.lengthy
@given(seeds)
@settings(max_examples=40)
def test_its_journal_replays(seed: int) -> None:
    storm = failing(seed)
    # Its first line is the segment that begins with what was spoiled: nobody tells of that.
    assert replay(storm.lines[storm.spoiled :]).difference is None
