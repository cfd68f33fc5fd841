"""Conversations find back to the engine that has their beginning, and what is expected to be cached is what comes."""

from collections.abc import Callable

import pytest

from tests import make as core
from tests.sim.clients import ask, data
from tests.sim.make import profile
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    Endpoint,
    Line,
    Observation,
    Policy,
    Prior,
    Request,
    Started,
    replace,
)
from tidegate.core.replay import replay
from tidegate.core.router import Router
from tidegate.core.step import StepTime
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.fitted import fitted
from tidegate.sim.job import Traffic
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local
from tidegate.sim.recorded import recorded
from tidegate.sim.world import World

# A 70B model on four fast accelerators, roughly.
STEP = StepTime(base_s=0.012, per_token_s=1.5e-5, per_sequence_s=2e-5, per_context_token_s=1e-8, per_pair_s=3e-10)
PRIOR = Prior(overhead_s=0.02, prefill_s_per_token=2e-5, decode_s_per_token=0.015)
Routers = Callable[[tuple[Endpoint, ...], Policy], Router]


class Blind(Router):
    """A router that is not told how prompts begin."""

    def decide(self, request: Request, now_s: float) -> Decision:
        return super().decide(replace(request, prefix=()), now_s)

    def observe(self, fact: Observation, now_s: float) -> None:
        super().observe(replace(fact, prefix=None) if isinstance(fact, Started) else fact, now_s)


class Watching(Router):
    """A router that sums up what it expected to be cached, and what came, in tokens as estimated."""

    expected = came = prompts = 0.0

    def observe(self, fact: Observation, now_s: float) -> None:
        if isinstance(fact, Ended) and fact.ending is Ending.OK:
            given = self.endpoint(fact.endpoint).state.reservations[fact.request_id].given
            assert given is not None
            assert fact.prompt_tokens is not None
            assert fact.cached_tokens is not None
            Watching.expected += given.cached
            Watching.came += given.tokens * fact.cached_tokens / fact.prompt_tokens
            Watching.prompts += given.tokens
        super().observe(fact, now_s)


def run(
    traffic: Traffic,
    router: Routers = Router,
    *,
    engines: int = 2,
    kv_tokens: int = 1_000_000,
    lines: list[Line] | None = None,
) -> list[Outcome]:
    endpoints = tuple(
        core.endpoint(f"engine-{n}", concurrency=64, context_tokens=1_000_000, prior=PRIOR) for n in range(engines)
    )
    journal = None if lines is None else lines.append
    world = World(endpoints, core.policy(), router=router(endpoints, core.policy()), journal=journal)
    engine = profile(kv_tokens=kv_tokens, step=STEP, slots=64, batch_tokens=8192)
    places = {e.name: Local(e.name, Engine(engine), world.loop, world) for e in endpoints}
    world.run(places, traffic, probe_s=5.0, until_s=1e9)
    return world.outcomes


def cached_share(outcomes: list[Outcome]) -> float:
    return sum(o.cached_tokens for o in outcomes) / sum(o.prompt_tokens for o in outcomes)


def ttft_s(outcomes: list[Outcome]) -> float:
    found = [o.ttft_s for o in outcomes if o.ttft_s is not None]
    return sum(found) / len(found)


def talks(seed: int) -> Traffic:
    return fitted("mooncake-conv", ask(), Chance(seed), rate_per_s=3.0, requests_max=600)


@pytest.mark.slow
def test_conversations_go_back_to_the_engine_that_has_their_beginning() -> None:
    told = blind = told_s = blind_s = 0.0
    for seed in range(3):
        one, other = run(talks(seed)), run(talks(seed), Blind)
        assert len(one) == len(other) == 600
        told, blind = told + cached_share(one), blind + cached_share(other)
        told_s, blind_s = told_s + ttft_s(one), blind_s + ttft_s(other)
    assert told > 1.1 * blind
    assert told_s < blind_s


def test_a_world_with_prefixes_replays() -> None:
    lines: list[Line] = []
    run(fitted("mooncake-conv", ask(), Chance(1), rate_per_s=0.4, requests_max=40), lines=lines)
    assert replay(lines).difference is None
    assert any(isinstance(line.fact, Started) and line.fact.prefix is not None for line in lines)


@pytest.mark.slow
def test_before_an_engine_that_forgets_nothing_as_much_is_expected_as_is_shared() -> None:
    """The share of reused tokens in this trace is known: 0.3551625."""
    trace = data("requests/mooncake_conversation_trace.jsonl.gz")
    Watching.expected = Watching.came = Watching.prompts = 0.0
    traffic = recorded(trace, "mooncake", ask(), Chance(1), speed=0.5)
    outcomes = run(traffic, Watching, engines=1, kv_tokens=10**9)
    assert cached_share(outcomes) == pytest.approx(0.3551625, rel=0.01)
    # What others have left there is found out on the way, and a tenth or so of it was there before that.
    assert 0.85 < Watching.expected / Watching.prompts / 0.3551625 < 1.0
