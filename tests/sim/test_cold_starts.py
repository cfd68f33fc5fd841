"""Cold starts in simulated worlds: after a handful of them they are expected, and what is warm is not disturbed."""

from collections.abc import Iterator
from math import exp, log
from random import Random

import pytest

from tests import make as core
from tests.sim.make import job, profile
from tidegate.core.model import Decision, Endpoint, Line, Prior, Probed, Slo, replace
from tidegate.core.replay import Replay, replay
from tidegate.sim.api import Api, ApiProfile, Spread
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Place, Remote
from tidegate.sim.world import World

LOAD_S, UNLOAD_AFTER_S = 20.0, 300.0
START_S, IDLE_S = 15.0, 300.0
API = ApiProfile(
    ttft_s=0.4,
    ttft_s_per_uncached_token=5e-5,
    ttft_spread=Spread(sigma=0.25, tail=0.1, tail_sigma=0.5),
    tpot_s=0.01,
    idle_s=IDLE_S,
    cold_start_s=START_S,
)
LIMIT_S = 3.0


class Bursts:
    """Clients who come in bursts, with pauses between them that are often longer than a model is kept."""

    def __init__(self, seed: int, count: int) -> None:
        draw, at_s, self.jobs = Random(seed), 0.0, list[Job]()
        for _ in range(count):
            at_s += exp(draw.uniform(log(30.0), log(3_000.0)))
            for index in range(draw.randint(2, 6)):
                tokens = draw.choice((100, 400, 1_500))
                self.jobs.append(
                    job(
                        f"r{len(self.jobs)}",
                        prompt_tokens=tokens,
                        output_tokens=30,
                        arrived_s=at_s,
                        prompt_bytes=4 * tokens,
                        slo=Slo(ttft_s=LIMIT_S),
                    )
                )
                # The first one of a burst is let alone with what it finds.
                at_s += draw.uniform(1.0, 8.0) if index else 60.0

    def arrivals(self) -> Iterator[Job]:
        return iter(self.jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


class Played:
    """What came of a world with one endpoint: an engine that unloads, or an API that does."""

    def __init__(self, kind: str, seed: int = 1, *, tells: bool = False, prior: Prior | None = None) -> None:
        local = kind == "engine"
        self.name = kind
        usual = core.LOCAL_PRIOR if local else core.REMOTE_PRIOR
        endpoint: Endpoint = core.endpoint(kind, local=local, concurrency=4, prior=prior or usual)
        self.lines: list[Line] = []
        self.world = world = World((endpoint,), core.policy(), journal=self.lines.append)
        place: Place
        if local:
            engine = Engine(profile(slots=4, load_s=LOAD_S, unload_after_s=UNLOAD_AFTER_S))
            place = Local(kind, engine, world.loop, world, tells_residency=tells)
        else:
            place = Remote(kind, Api(API, Chance(seed), kind), world.loop, world)
        world.run({kind: place}, Bursts(seed, 40), probe_s=5.0, until_s=1e9)

    @property
    def cold_s(self) -> float:
        """What a cold start takes in truth."""
        return LOAD_S if self.name == "engine" else START_S

    def served(self, *, cold: bool) -> list[Outcome]:
        """Those that met a cold start, or those that did not."""
        return [
            o
            for o in self.world.outcomes
            if o.measured_s is not None and o.predicted_s is not None and (o.measured_s > self.cold_s / 2) is cold
        ]


def errors(outcomes: list[Outcome]) -> list[float]:
    """By how much predictions were off, as shares of what was measured."""
    return [abs((o.predicted_s or 0.0) / (o.measured_s or 1.0) - 1.0) for o in outcomes]


CASES = [("engine", False), ("engine", True), ("api", False)]


@pytest.mark.lengthy
@pytest.mark.parametrize(("kind", "tells"), CASES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_a_handful_of_cold_starts_they_are_predicted(kind: str, tells: bool, seed: int) -> None:
    cold = errors(Played(kind, seed, tells=tells).served(cold=True))
    assert len(cold) > 15
    assert sum(error < 0.25 for error in cold[5:]) / len(cold[5:]) >= 0.9


@pytest.mark.lengthy
@pytest.mark.parametrize(("kind", "tells"), CASES)
def test_what_is_warm_is_predicted_as_where_nothing_is_ever_cold(kind: str, tells: bool) -> None:
    # What is declared is far from what is true, which takes a few requests to be found out.
    warm = errors(Played(kind, tells=tells).served(cold=False))[20:]
    assert len(warm) > 80
    # The engine is exact; the API scatters by a quarter.
    assert sorted(warm)[len(warm) // 2] < (0.1 if kind == "engine" else 0.3)
    assert sum(error < 1.0 for error in warm) / len(warm) > 0.95


def test_an_engine_that_tells_is_expected_to_be_cold_the_first_time() -> None:
    assert (
        errors(Played("engine", tells=True, prior=replace(core.LOCAL_PRIOR, load_s=18.0)).served(cold=True))[0] < 0.15
    )


def test_an_engine_that_tells_says_so_to_probes_and_an_api_does_not() -> None:
    told = {
        (kind, tells): {line.fact.resident for line in Played(kind, tells=tells).lines if isinstance(line.fact, Probed)}
        for kind, tells in CASES
    }
    assert told["engine", True] == {True, False, None}
    assert told["engine", False] == told["api", False] == {None}


def test_a_prior_that_says_when_it_unloads_saves_the_first_surprises() -> None:
    surprised = Played("api")
    warned = Played("api", prior=replace(core.REMOTE_PRIOR, load_s=12.0, unload_after_s=IDLE_S))
    assert sum(o.outcome != "ok" for o in surprised.world.outcomes) > 0
    assert sum(o.outcome != "ok" for o in warned.world.outcomes) == 0


@pytest.mark.lengthy
@pytest.mark.parametrize(("kind", "tells"), CASES)
def test_the_promises_that_are_expected_to_be_kept_are_as_many_as_are(kind: str, tells: bool) -> None:
    played = Played(kind, 4, tells=tells)
    asked = {o.request.id: o for o in played.world.outcomes}
    router, expected = Replay(), dict[str, float]()
    for line in played.lines:
        router.feed(line)
        if isinstance(line.fact, Decision) and router.router is not None:
            name = line.fact.request_id
            (candidate,) = router.router.candidates(router.requests[name], line.at_s)
            assert candidate.estimate is not None
            expected[name] = candidate.estimate.attainment
    late = list(asked)[30:]
    kept = [(asked[i].ttft_s or 1e9) <= LIMIT_S for i in late]
    assert 0.6 < sum(kept) / len(kept) < 0.95
    assert sum(expected[i] for i in late) / len(late) == pytest.approx(sum(kept) / len(kept), abs=0.06)
    # Not only on average: what was called likely was, and what was not was not.
    likely = [k for i, k in zip(late, kept, strict=True) if expected[i] > 0.8]
    rest = [k for i, k in zip(late, kept, strict=True) if expected[i] < 0.3]
    assert sum(likely) / len(likely) > 0.85
    assert sum(rest) / len(rest) < 0.25


@pytest.mark.lengthy
@pytest.mark.parametrize(("kind", "tells"), CASES)
def test_the_journal_comes_out_again(kind: str, tells: bool) -> None:
    assert replay(Played(kind, 5, tells=tells).lines).difference is None
