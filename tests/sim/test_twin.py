"""A twin of a simulated installation: its engines are what they are, and what it plays is what came."""

from pathlib import Path

import pytest

from tests import make as core
from tests.sim.make import STEP, profile
from tests.sim.week import USUAL, Week
from tidegate.core.model import replace
from tidegate.core.step import StepTime
from tidegate.sim import inferred
from tidegate.sim.api import CacheProfile
from tidegate.sim.observed import ObservedError, known, observe
from tidegate.sim.place import Local, Remote
from tidegate.sim.preview import figures_of
from tidegate.sim.schema import FaultKind
from tidegate.sim.twin import played, twin
from tidegate.sim.world import World


@pytest.mark.parametrize(
    "step",
    [STEP, StepTime(base_s=0.02, per_token_s=2e-5, per_sequence_s=5e-4, per_context_token_s=1e-6)],
)
def test_what_iterations_take_is_inferred_from_attempts(step: StepTime) -> None:
    made = Week(engine=profile(slots=8, step=step, batch_tokens=2048)).twin()
    engine = made.stands["own"].engine
    assert engine is not None
    for tokens, sequences, context in ((500, 0, 0), (0, 2, 1_000), (0, 6, 3_000), (300, 4, 2_000)):
        found = engine.step.takes_s(tokens, tokens * tokens / 2.0, sequences, context)
        truth = step.takes_s(tokens, tokens * tokens / 2.0, sequences, context)
        assert found == pytest.approx(truth, rel=0.08)


def test_of_many_attempts_both_kinds_of_times_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    step = StepTime(base_s=0.02, per_token_s=2e-5, per_sequence_s=5e-4, per_context_token_s=1e-6)
    attempts = Week(engine=profile(slots=8, step=step, batch_tokens=2048)).observed().attempts["own"]
    whole = inferred.inferred(attempts, 2048, 0.0)
    monkeypatch.setattr(inferred, "ROWS_MAX", len(attempts) // 2)
    some = inferred.inferred(attempts, 2048, 0.0)
    assert whole is not None
    assert some is not None
    assert some.step.takes_s(0, 0.0, 5, 3_000) == pytest.approx(whole.step.takes_s(0, 0.0, 5, 3_000), rel=0.03)
    assert some.request_s < 0.2 * step.base_s, "it takes none, and half of the rows tell that to a fraction of a step"


def test_an_api_takes_as_long_as_its_answers_took() -> None:
    api = Week().twin().stands["api"].api
    assert api is not None
    assert api.ttft_s == pytest.approx(USUAL.ttft_s, rel=0.15)
    assert api.tpot_s == pytest.approx(USUAL.tpot_s, rel=0.05)
    assert (api.errors, api.requests_per_minute, api.cache) == (0.0, None, None)


def test_what_is_played_is_what_came() -> None:
    week = Week()
    outcomes = played(week.twin(), week.observed().policy)
    real, found = figures_of(week.world.outcomes, {"api"}), figures_of(outcomes, {"api"})
    assert found.requests == real.requests
    assert found.kept == pytest.approx(real.kept, abs=0.03)
    assert found.away == pytest.approx(real.away, abs=0.05)
    assert found.usd_per_1k == pytest.approx(real.usd_per_1k, rel=0.15)
    assert found.ttft_s_p50 == pytest.approx(real.ttft_s_p50, rel=0.15)


def test_the_same_twin_plays_the_same_again() -> None:
    week = Week(count=100)
    made, policy = week.twin(), week.observed().policy
    assert played(made, policy) == played(made, policy)


@pytest.mark.slow
def test_errors_limits_and_a_cache_of_an_api_are_told_by_what_it_did() -> None:
    failing = Week(api=replace(USUAL, errors=0.2, refusal_s=0.05)).twin().stands["api"].api
    assert failing is not None
    assert failing.errors == pytest.approx(0.2, abs=0.08)
    limited = Week(api=replace(USUAL, requests_per_minute=30.0)).twin().stands["api"].api
    assert limited is not None
    assert limited.requests_per_minute == pytest.approx(30.0, rel=0.35)
    caching = replace(USUAL, cache=CacheProfile(block_tokens=256, tokens_min=0))
    cached = Week(api=caching, blocks=lambda number: (number % 5, 100 + number % 5)).twin().stands["api"].api
    assert cached is not None
    assert cached.cache is not None
    assert cached.cache.met > 0.8


def test_what_went_away_goes_away_at_the_same_times() -> None:
    def befalls(world: World, own: Local, api: Remote) -> None:
        world.loop.at(1_020.0, lambda: own.crash(1_050.0))

    week = Week(befalls=befalls)
    (fault,) = week.twin().faults
    assert (fault.kind, fault.endpoint) == (FaultKind.CRASH, "own")
    assert 20.0 <= fault.at_s <= 26.0
    assert fault.at_s + fault.for_s == pytest.approx(50.0, abs=6.0)


def test_of_few_attempts_what_was_learned_is_taken() -> None:
    made = Week(count=10).twin()
    assert made.stands["own"].engine is not None
    assert made.stands["api"].api is not None
    assert len(played(made, core.policy())) == 10


def test_where_nobody_asked_there_is_no_twin() -> None:
    week = Week(count=1)
    lines = week.lines[:1]
    with pytest.raises(ObservedError, match="nobody asked"):
        twin(observe(lines), known(lines))


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    told: list[float] = []
    week = Week(count=50)
    played(week.twin(), core.policy(), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
