"""A twin of a simulated installation: its engines are what they are, and what it plays is what came."""

from functools import partial
from math import inf
from pathlib import Path
from statistics import fmean

import msgspec
import pytest

from tests import make as core
from tests.sim.make import STEP, profile
from tests.sim.week import API, OWN, USUAL, Week
from tidegate.core.model import (
    Capability,
    Decision,
    Ending,
    Endpoint,
    Line,
    Overrides,
    Policy,
    Probed,
    Request,
    Run,
    Segment,
    replace,
)
from tidegate.core.router import Router
from tidegate.core.state import EndpointState, State
from tidegate.core.step import StepTime
from tidegate.core.why import Why
from tidegate.sim import inferred
from tidegate.sim.api import ApiProfile, CacheProfile
from tidegate.sim.binder import Binder
from tidegate.sim.decider import AtOnce
from tidegate.sim.job import Job
from tidegate.sim.observed import Attempted, Down, ObservedError, known, observe
from tidegate.sim.place import Local, Remote
from tidegate.sim.practice import OursOnly, RemoteOnly
from tidegate.sim.preview import Figures, figures_of
from tidegate.sim.schema import FaultKind
from tidegate.sim.twin import TIMEOUT_S, Redrawn, played, stand, twin
from tidegate.sim.world import World

ENDPOINTS = (OWN, API)


@pytest.mark.lengthy
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


@pytest.mark.lengthy
def test_what_is_played_is_what_came() -> None:
    # Of one week chance alone moves what goes away by two points of a hundred either way.
    weeks = [Week(seed=seed) for seed in (1, 2, 3)]
    real = [figures_of(week.world.outcomes, {"api"}) for week in weeks]
    found = [figures_of(played(week.twin(), week.observed().policy), {"api"}) for week in weeks]

    def of(figures: list[Figures], name: str) -> float:
        return fmean(getattr(one, name) for one in figures)

    assert [one.requests for one in found] == [one.requests for one in real]
    assert of(found, "kept") == pytest.approx(of(real, "kept"), abs=0.03)
    assert of(found, "away") == pytest.approx(of(real, "away"), abs=0.05)
    assert of(found, "usd_per_1k") == pytest.approx(of(real, "usd_per_1k"), rel=0.15)
    assert of(found, "ttft_s_p50") == pytest.approx(of(real, "ttft_s_p50"), rel=0.15)


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
    # Most of them were refusals, and say more of the endpoint than of the request.
    assert api_of(attempts).error_status == 503
    failed = [attempt(10.0 * number + 7.0, ending=Ending.FAILED, cause="status_500") for number in range(20)]
    assert api_of(attempts + failed).error_status == 500
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


def test_errors_take_as_long_as_they_took() -> None:
    attempts = [attempt(10.0 * number) for number in range(80)]
    attempts += [
        attempt(10.0 * number + 5.0, ending=Ending.FAILED, cause="status_500", e2e_s=9.0) for number in range(20)
    ]
    found = api_of(attempts)
    network = core.router(API).endpoint("api").network
    assert found.errors == pytest.approx(0.2)
    assert set(found.error_times_s) == {9.0 - network.seconds(800)}


@pytest.mark.lengthy
def test_streams_break_off_as_often_as_they_did() -> None:
    week = Week(engine=profile(slots=1), api=replace(USUAL, broken=0.2))
    assert sum(one.outcome == "failed_mid_stream" for one in week.world.outcomes) > 30
    made = week.twin()
    api = made.stands["api"].api
    assert api is not None
    assert api.broken == pytest.approx(0.2, abs=0.05)
    assert api.errors == 0.0
    away = played(made, week.observed().policy, decider=partial(AtOnce, {}, usual="api"))
    broken = sum(one.outcome == "failed_mid_stream" for one in away) / len(away)
    assert broken == pytest.approx(api.broken, abs=0.05)


def test_what_a_client_or_the_gateway_ended_has_not_broken_off() -> None:
    attempts = [attempt(10.0 * number) for number in range(80)]
    for number, (ending, cause) in enumerate(
        [(Ending.FAILED, "truncated_stream"), (Ending.CANCELLED, ""), (Ending.TIMED_OUT, "stalled")] * 20
    ):
        one = attempt(10.0 * number + 5.0)
        assert one.ended is not None
        one.ended = replace(one.ended, ending=ending, cause=cause)
        attempts.append(one)
    assert api_of(attempts).broken == pytest.approx(0.2)
    assert api_of(attempts[:5] + attempts[80:]).broken == pytest.approx(0.8)
    # Of few nothing is known.
    assert api_of(attempts[80:95]).broken == 0.0


GIVEN_UP = {"ending": Ending.TIMED_OUT, "cause": "no_content"}
BEATEN = {"ending": Ending.CANCELLED, "cause": ""}


@pytest.mark.parametrize("how", [GIVEN_UP, BEATEN], ids=["given up", "beaten by a hedge"])
@pytest.mark.parametrize("streamed", [True, False])
def test_what_outlasted_every_answer_in_silence_never_comes(how: dict[str, object], streamed: bool) -> None:
    attempts = [attempt(10.0 * number) for number in range(97)]
    if not streamed:
        for one in attempts:
            assert one.ended is not None
            one.ttft_s, one.ended = None, replace(one.ended, ttft_s=None)
    attempts += [attempt(10.0 * number + 5.0, e2e_s=40.0, **how) for number in range(3)]
    spread = api_of(attempts).ttft_spread
    assert isinstance(spread, Redrawn)
    assert len(spread.factors) == 100
    assert spread.factors.count(inf) == 3


def test_what_was_given_up_sooner_than_others_answered_would_have_answered_as_late_as_they_did() -> None:
    attempts = []
    for number in range(100):
        one = attempt(10.0 * number)
        assert one.ended is not None
        one.ttft_s = 0.5 if number % 2 else 2.0
        one.ended = replace(one.ended, ttft_s=one.ttft_s)
        attempts.append(one)
    attempts += [attempt(10.0 * number + 5.0, e2e_s=1.0, **BEATEN) for number in range(20)]
    api = api_of(attempts)
    assert isinstance(api.ttft_spread, Redrawn)
    late = sum(factor * api.ttft_s > 1.0 for factor in api.ttft_spread.factors)
    assert (late, len(api.ttft_spread.factors)) == (70, 120)
    # What failed in the gateway, or was turned away, has waited for nothing.
    others = [attempt(5.0, e2e_s=40.0, ending=Ending.CANCELLED, cause="internal")]
    others += [attempt(5.0, e2e_s=40.0, ending=Ending.REFUSED, cause="status_429")]
    assert api_of([*attempts, *others]).ttft_spread == api.ttft_spread


def test_what_never_comes_in_a_twin_is_given_up_there() -> None:
    made = Week(count=60).twin()
    api = made.stands["api"].api
    assert api is not None
    hangs = msgspec.structs.replace(made.stands["api"], api=replace(api, ttft_spread=Redrawn(factors=(1.0, inf))))
    made = msgspec.structs.replace(made, stands={**made.stands, "api": hangs})
    found = played(made, core.policy(), decider=partial(Binder, RemoteOnly()))
    assert {one.outcome for one in found} > {"ok"}
    assert all(one.ttft_s is None for one in found if one.outcome != "ok")


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


def test_a_window_that_an_engine_told_after_the_start_is_known_from_the_start() -> None:
    week = Week(count=50)
    tells = Probed(endpoint="own", up=True, context_tokens=99_000, capabilities=(Capability.VISION,))
    (header, *rest) = week.lines
    lines = [header, Line(at_s=header.at_s, fact=tells), *rest]
    state = twin(observe(lines), known(lines)).state
    began = Router(week.twin().endpoints, core.policy(), state)
    assert began.endpoint("own").context_tokens == 99_000
    assert began.endpoint("own").capabilities == {Capability.VISION}
    assert began.endpoint("api").context_tokens == API.context_tokens
    # What a header knows was told before it.
    assert isinstance(header.fact, Segment)
    before = State(endpoints={"own": EndpointState(context_tokens=50_000)})
    knows = replace(header.fact, state=msgspec.Raw(msgspec.json.encode(before)))
    lines[0] = replace(header, fact=knows)
    assert twin(observe(lines), known(lines)).state.endpoints["own"].context_tokens == 50_000


def test_what_operators_had_set_before_the_first_line_is_not_played_and_told() -> None:
    week = Week(count=50)
    (header, *rest) = week.lines
    assert isinstance(header.fact, Segment)
    drained = State(overrides=Overrides(drained=("own",)))
    lines = [replace(header, fact=replace(header.fact, state=msgspec.Raw(msgspec.json.encode(drained)))), *rest]
    observed = observe(lines)
    assert observed.overridden == 1
    assert "own" in {one.endpoint for one in played(twin(observed, known(lines)), core.policy())}


def test_what_went_away_goes_away_at_the_same_times() -> None:
    def befalls(world: World, own: Local, api: Remote) -> None:
        world.loop.at(1_020.0, lambda: own.crash(1_050.0))

    week = Week(befalls=befalls)
    (fault,) = week.twin().faults
    assert (fault.kind, fault.endpoint) == (FaultKind.CRASH, "own")
    assert 20.0 <= fault.at_s <= 26.0
    assert fault.at_s + fault.for_s == pytest.approx(50.0, abs=6.0)


def test_what_writes_to_caches_and_what_reasons_is_billed_as_it_was() -> None:
    attempts = [attempt(10.0 * number) for number in range(40)]
    for one in attempts:
        assert one.ended is not None
        one.ended = replace(one.ended, cached_tokens=100, cache_write_tokens=75, reasoning_tokens=25)
    found = stand(core.router(API).endpoint("api"), attempts, {}, 0.0)
    assert (found.written, found.reasoned) == pytest.approx((0.75, 0.25))
    # What is billed of a token of each direction follows, while who decides sees prices as they are declared.
    made = Week(count=60).twin()
    price = replace(API.price, usd_per_cache_write_token=3e-6, usd_per_reasoning_token=2e-5)
    dear = tuple(replace(one, price=price) if one.name == "api" else one for one in made.endpoints)
    priced = msgspec.structs.replace(made, endpoints=dear)
    writes = replace(made.stands["api"], written=0.75, reasoned=0.25)
    writing = msgspec.structs.replace(priced, stands={**made.stands, "api": writes})
    away = partial(Binder, RemoteOnly())
    plain, kinds = (played(one, core.policy(), decider=away) for one in (priced, writing))
    for usual, more in zip(plain, kinds, strict=True):
        more_usd = usual.prompt_tokens * 0.75 * 2e-6 + usual.output_tokens * 0.25 * 1.6e-5
        assert more.usd - usual.usd == pytest.approx(more_usd)


def test_a_prompt_is_known_by_its_tools_and_by_all_of_it_in_blocks_of_its_own_size() -> None:
    # Forty KiB of tools and forty of conversation, of four bytes and a half a token.
    request = core.request(
        "r", prefix=tuple(range(7, 47)), prompt_bytes=81 * 1024, preamble_bytes=40 * 1024, prompt_tokens=18_432
    )
    (job,) = jobs_of(request)
    assert len(job.blocks) == len(set(job.blocks)) == 80
    assert job.blocks[40:] == request.prefix
    assert job.block_tokens == 224
    # Who has the same tools and goes on otherwise is another prompt, as far as digests tell.
    (other,) = jobs_of(replace(request, prefix=(8, *request.prefix[1:])))
    assert not set(other.blocks[:40]) & set(job.blocks[:40])
    # Who has all of the digests in common has what comes after them in common, as far as the shorter goes.
    longer, shorter = (
        jobs_of(core.request("r", prefix=tuple(range(256)), prompt_bytes=kib * 1024, prompt_tokens=256 * kib))[0]
        for kib in (500, 400)
    )
    assert (len(longer.blocks), len(shorter.blocks)) == (500, 400)
    assert longer.blocks[:400] == shorter.blocks


def jobs_of(request: Request) -> tuple[Job, ...]:
    return twin(observe([*Week(count=1).lines[:1], *asked(request)]), core.router(*ENDPOINTS)).jobs


def test_what_took_longer_than_a_gateway_waits_by_default_is_waited_for() -> None:
    made = Week(count=30).twin()
    slow = msgspec.structs.replace(made.stands["api"], api=ApiProfile(ttft_s=0.1, tpot_s=10.0))
    made = msgspec.structs.replace(
        made,
        jobs=tuple(msgspec.structs.replace(job, output_tokens=70) for job in made.jobs),
        stands={**made.stands, "api": slow},
    )
    lines: list[Line] = list(Week(count=1).lines[:1])
    (request,) = (core.request("r", arrived_s=1_000.0),)
    lines += asked(request, e2e_s=900.0)
    assert twin(observe(lines), core.router(*ENDPOINTS)).timeout_s == 900.0
    assert made.timeout_s == TIMEOUT_S
    policy, away = core.policy(stall_s=1e6), partial(Binder, RemoteOnly())
    assert {one.outcome for one in played(made, policy, decider=away)} == {"timed_out"}
    patient = msgspec.structs.replace(made, timeout_s=900.0)
    assert {one.outcome for one in played(patient, policy, decider=away)} == {"ok"}


def test_several_inputs_that_memory_cannot_hold_together_are_played_and_spoil_nothing() -> None:
    many = core.request(prompt_tokens=60_000, prompts=100, output_tokens_max=0)
    lines: list[Line] = list(Week(count=1).lines[:1])
    for number in range(3):
        lines += asked(replace(many, id=f"r{number}", arrived_s=1_000.0 + number), output_tokens=0)
    lines += asked(core.request("small", arrived_s=1_005.0))
    made = twin(observe(lines), core.router(*ENDPOINTS))
    own = msgspec.structs.replace(made.stands["own"], engine=profile(kv_tokens=32_768))
    made = msgspec.structs.replace(made, stands={**made.stands, "own": own})
    outcomes = played(made, core.policy(), decider=partial(Binder, OursOnly()))
    assert [(one.outcome, one.endpoint) for one in outcomes] == [("ok", "own")] * 4


def test_an_answer_that_does_not_say_what_it_took_is_as_long_as_others() -> None:
    lines: list[Line] = list(Week(count=1).lines[:1])
    for number in range(5):
        lines += asked(core.request(f"r{number}", arrived_s=1_000.0 + number), output_tokens=80)
    lines += asked(core.request("s", arrived_s=1_010.0, stream=False), output_tokens=None)
    assert {job.output_tokens for job in twin(observe(lines), core.router(*ENDPOINTS)).jobs} == {80}


def asked(request: Request, *, e2e_s: float = 1.0, output_tokens: int | None = 10) -> list[Line]:
    """A request that the API has answered."""
    step = Run(endpoint="api", timeout_s=9.0)
    decision = Decision(request_id=request.id, plan=(step,), why=Why.CHEAPEST_ON_TIME)
    end = core.ended(request.id, "api", e2e_s=e2e_s, prompt_tokens=request.prompt_tokens, output_tokens=output_tokens)
    begin_s = request.arrived_s
    lines = [Line(at_s=begin_s, fact=fact) for fact in (request, decision, core.started(request, "api"))]
    return [*lines, Line(at_s=begin_s + e2e_s, fact=end)]


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
