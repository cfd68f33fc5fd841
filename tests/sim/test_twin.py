"""A twin of a simulated installation: its engines are what they are, and what it plays is what came."""

from pathlib import Path

import msgspec
import pytest

from tests import make as core
from tests.sim.make import STEP, profile
from tests.sim.week import API, USUAL, Week
from tidegate.core.model import Ending, Endpoint, Policy, replace
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.step import StepTime
from tidegate.sim import inferred
from tidegate.sim.api import ApiProfile, CacheProfile
from tidegate.sim.binder import Binder
from tidegate.sim.observed import Attempted, Down, ObservedError, known, observe
from tidegate.sim.place import Local, Remote
from tidegate.sim.practice import OursOnly
from tidegate.sim.preview import figures_of
from tidegate.sim.schema import FaultKind
from tidegate.sim.twin import played, stand, twin
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


def attempt(at_s: float, **changes: object) -> Attempted:
    """One that was answered in half a second to first content, unless it came to something else."""
    ended = core.ended("r", "api", e2e_s=2.5, ttft_s=0.5, prompt_tokens=200, output_tokens=100)
    return Attempted(
        started=core.started(core.request("r"), "api"),
        sent_s=at_s,
        load=0,
        context=0,
        ttft_s=None if changes else 0.5,
        ended=replace(ended, ttft_s=None, output_tokens=None, **changes) if changes else ended,
    )


def api_of(attempts: list[Attempted]) -> ApiProfile:
    found = stand(core.router(API).endpoint("api"), attempts, {}, 0.0).api
    assert found is not None
    return found


@pytest.mark.parametrize("cause", ["status_429", "rate_limited"])
def test_a_limit_is_what_was_let_in_before_others_were_turned_away(cause: str) -> None:
    # Two rushes an hour apart, of which all beyond thirty are turned away, and a few who come in between.
    attempts = [attempt(600.0 * number) for number in range(7)]
    for rush_s in (1_000.0, 4_600.0):
        attempts += [attempt(rush_s + 0.1 * number) for number in range(30)]
        attempts += [
            attempt(rush_s + 5.0 + 0.1 * number, ending=Ending.REFUSED, cause=cause, e2e_s=0.1) for number in range(20)
        ]
    found = api_of(attempts)
    assert (found.requests_per_minute, found.errors) == (30.0, 0.0)


def test_who_is_turned_away_for_lack_of_servers_met_an_error_and_not_a_limit() -> None:
    attempts = [attempt(10.0 * number) for number in range(80)]
    for number, cause in enumerate(("status_500", "status_503", "status_529", "status_503") * 5):
        ending = Ending.FAILED if cause == "status_500" else Ending.REFUSED
        attempts.append(attempt(10.0 * number + 5.0, ending=ending, cause=cause, e2e_s=0.1))
    assert api_of(attempts).requests_per_minute is None
    assert api_of(attempts).errors == pytest.approx(0.2)
    # Of those who come beyond a limit nobody knows whether they would have failed.
    limited = [attempt(10.0 * number + 6.0, ending=Ending.REFUSED, cause="status_429") for number in range(50)]
    assert api_of(attempts + limited).errors == pytest.approx(0.2)


def test_who_met_nobody_while_an_api_was_away_met_no_error() -> None:
    attempts = [attempt(10.0 * number) for number in range(80)]
    failed = {"ending": Ending.FAILED, "cause": "connect_refused"}
    attempts += [attempt(at_s, e2e_s=0.1, **failed) for at_s in (95.0, 300.0, 301.0, 302.0)]
    # Sent before it went away, and cut off by that.
    attempts.append(attempt(298.0, e2e_s=3.0, **failed))
    down = [Down(endpoint="api", at_s=at_s, for_s=3.0) for at_s in (20.0, 299.5, 600.0)]
    attempts.sort(key=lambda one: one.sent_s)
    found = stand(core.router(API).endpoint("api"), attempts, {}, 0.0, down).api
    assert found is not None
    # Those of 20, 300 and 600 seconds came while it was away, and nobody counts what became of them.
    assert found.errors == pytest.approx(1.0 / 78.0)


def test_a_twin_is_away_and_fails_no_more_often_for_it() -> None:
    seen = Week(count=60).observed()
    lost = [
        attempt(1_001.0 + 0.01 * number, ending=Ending.FAILED, cause="connect_refused", e2e_s=0.1)
        for number in range(60)
    ]
    seen.attempts["api"] = [*lost, *seen.attempts.get("api", [])]
    seen.down.append(Down(endpoint="api", at_s=1_000.5, for_s=2.0))
    made = twin(seen, core.router(*seen.endpoints))
    api = made.stands["api"].api
    assert api is not None
    assert (api.errors, [fault.endpoint for fault in made.faults]) == (0.0, ["api"])


@pytest.mark.parametrize("streamed", [True, False])
def test_the_time_that_prompts_take_to_get_there_is_the_ways_and_not_the_apis(streamed: bool) -> None:
    network = core.router(API).endpoint("api").network
    attempts = []
    for number in range(90):
        tokens, output_tokens = 1_000 * (1 + number % 9), 50 * (1 + number % 4)
        request = core.request("r", prompt_tokens=tokens, prompt_bytes=400 * tokens)
        first_s = network.seconds(request.prompt_bytes) + 0.3 + 1e-4 * tokens
        e2e_s = first_s + 0.02 * (output_tokens - 1)
        ended = core.ended("r", "api", e2e_s=e2e_s, prompt_tokens=tokens, output_tokens=output_tokens)
        attempts.append(
            Attempted(
                started=core.started(request, "api"),
                sent_s=20.0 * number,
                load=0,
                context=0,
                ttft_s=first_s if streamed else None,
                ended=replace(ended, ttft_s=first_s if streamed else None),
            )
        )
    found = api_of(attempts)
    # Who saw ends alone cannot tell the first token from the others.
    assert found.ttft_s == pytest.approx(0.3, abs=0.03)
    assert found.ttft_s_per_uncached_token == pytest.approx(1e-4, rel=0.01)
    assert found.tpot_s == pytest.approx(0.02, rel=0.01)


def test_the_time_that_prompts_take_to_get_there_is_the_ways_and_not_the_engines() -> None:
    attempts, bytes_per_s = Week().observed().attempts["own"], 50_000.0
    late = []
    for one in attempts:
        assert one.ended is not None
        upload_s = one.started.prompt_bytes / bytes_per_s
        ttft_s = None if one.ttft_s is None else one.ttft_s + upload_s
        ended = replace(one.ended, ttft_s=ttft_s, e2e_s=one.ended.e2e_s + upload_s)
        late.append(msgspec.structs.replace(one, sent_s=one.sent_s - upload_s, ttft_s=ttft_s, ended=ended))
    here, there = inferred.inferred(attempts, 256, 0.0), inferred.inferred(late, 256, 0.0, bytes_per_s)
    assert here is not None
    assert there is not None
    assert there.request_s == pytest.approx(here.request_s, abs=1e-4)
    assert there.step.takes_s(500, 0.0, 4, 2_000) == pytest.approx(here.step.takes_s(500, 0.0, 4, 2_000), rel=0.01)


def test_who_decides_in_the_routers_place_knows_what_was_known() -> None:
    week, told = Week(count=50), list[bytes]()
    learned = known(week.lines)
    made = msgspec.structs.replace(week.twin(), state=learned.state)

    def otherwise(endpoints: tuple[Endpoint, ...], policy: Policy, state: State) -> Binder:
        decider = Binder(OursOnly(), endpoints, policy, state)
        told.append(bytes(decider.snapshot()))
        return decider

    assert {one.endpoint for one in played(made, core.policy(), decider=otherwise)} == {"own"}
    assert told == [bytes(learned.snapshot())]
    assert told != [bytes(Router(made.endpoints, core.policy()).snapshot())]


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
