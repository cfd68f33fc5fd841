"""Memory in a simulated world: an engine that runs out of it makes requests give way, and one that is not overfilled
does not. `python -m tests.sim.test_memory_in_world` prints what docs/explanation/memory.md quotes.
"""

from collections.abc import Iterator
from math import log
from random import Random
from statistics import mean, median, quantiles

import pytest

from tests import make as core
from tests.sim.make import profile
from tidegate.core.model import Line, Probed, Slo, replace
from tidegate.core.replay import replay
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Place, Remote
from tidegate.sim.world import World

SLOTS, KV_TOKENS = 16, 8_192
TOLD = {
    "nothing": (),
    "its preemptions": ("preemptions",),
    "how much it has": ("kv_tokens_max",),
    "all of it": ("kv_tokens_max", "kv_share", "preemptions"),
}
API = ApiProfile(ttft_s=0.4, tpot_s=0.012)
PROMISE_S = 2.0
MEMORY = ("kv_tokens_max", "kv_share", "preemptions")


class Chats:
    """Chats with answers of very unequal length, for whom a batch of `SLOTS` is far too much memory."""

    def __init__(self, seed: int, count: int, every_s: float, who: str = "r") -> None:
        draw, at_s = Random(seed), 1.0
        self.jobs = []
        for number in range(count):
            at_s += draw.expovariate(1.0 / every_s)
            tokens = draw.randint(100, 900)
            self.jobs.append(
                Job(
                    request=core.request(
                        f"{who}{number}",
                        arrived_s=at_s,
                        prompt_tokens=tokens,
                        prompt_bytes=4 * tokens,
                        output_tokens_max=None,
                        slo=Slo(ttft_s=PROMISE_S),
                    ),
                    prompt_tokens=tokens,
                    output_tokens=min(4_000, max(1, int(draw.lognormvariate(log(300.0), 0.9)))),
                    blocks=(),
                    block_tokens=64,
                )
            )

    def arrivals(self) -> Iterator[Job]:
        return iter(self.jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


class Telling(Local):
    """An engine that tells some of what is to be told of its memory, and nothing of the rest."""

    told: tuple[str, ...] = ()

    def probe(self) -> Probed:
        return replace(super().probe(), **{name: None for name in MEMORY if name not in self.told})


class Played:
    """What came of a world with one engine of our own, and with `cloud` an API that costs money beside it."""

    def __init__(
        self,
        told: tuple[str, ...],
        seed: int = 1,
        *,
        count: int = 400,
        others: int = 0,
        kv_tokens: int = KV_TOKENS,
        every_s: float = 0.7,
        cloud: bool = False,
    ) -> None:
        endpoints = [core.endpoint("engine", concurrency=SLOTS)]
        if cloud:
            endpoints.append(core.endpoint("cloud", local=False))
        self.lines: list[Line] = []
        world = World(endpoints, core.policy(held_max=10_000, hold_s_max=1e6), journal=self.lines.append)
        self.engine = Engine(profile(slots=SLOTS, kv_tokens=kv_tokens))
        place = Telling("engine", self.engine, world.loop, world, tells_memory=True)
        place.told = told
        if others:
            place.share(iter(Chats(seed + 1000, others, 2 * every_s, "other").jobs))
        places: dict[str, Place] = {"engine": place}
        if cloud:
            places["cloud"] = Remote("cloud", Api(API, Chance(seed), "cloud"), world.loop, world)
        world.run(places, Chats(seed, count, every_s), probe_s=5.0, until_s=1e9)
        self.router = world.router
        self.outcomes: list[Outcome] = world.outcomes


def figures(found: list[Played]) -> dict[str, float]:
    """What became of the same requests, over several seeds; seconds, but for preemptions and the error."""
    outcomes = [outcome for one in found for outcome in one.outcomes]
    ttfts_s, e2es_s = [o.ttft_s for o in outcomes if o.ttft_s is not None], [o.e2e_s for o in outcomes]
    errors = [abs(log(o.measured_s / o.predicted_s)) for o in outcomes if o.measured_s and o.predicted_s]
    return {
        "preemptions": mean(one.engine.preemptions for one in found),
        "busy": mean(one.engine.busy_s for one in found),
        "ttft": mean(ttfts_s),
        "ttft p95": quantiles(ttfts_s, n=20)[-1],
        "e2e": mean(e2es_s),
        "error": median(errors),
        "kept": sum(o.ttft_s is not None and o.ttft_s <= PROMISE_S for o in outcomes) / len(outcomes),
        "usd per 1000": 1000.0 * sum(o.usd for o in outcomes) / len(outcomes),
        "served": sum(o.outcome == "ok" for o in outcomes) / len(outcomes),
    }


@pytest.fixture(scope="module")
def blind() -> list[Played]:
    """Worlds in which nobody is told of memory."""
    return [Played(TOLD["nothing"], seed) for seed in (1, 2)]


SLOW = [pytest.param(TOLD[name], id=name, marks=pytest.mark.slow) for name in list(TOLD)[1:] if name != "all of it"]


@pytest.mark.lengthy
@pytest.mark.parametrize("told", [pytest.param(TOLD["all of it"], id="all of it"), *SLOW])
def test_an_engine_that_is_not_overfilled_preempts_far_less(told: tuple[str, ...], blind: list[Played]) -> None:
    before, after = figures(blind), figures([Played(told, seed) for seed in (1, 2)])
    assert before["preemptions"] > 200
    assert after["preemptions"] < before["preemptions"] / 2.5
    # It is what is foreseen, and not the memory that is bought with it.
    assert after["error"] < before["error"] / 3
    assert after["busy"] < 1.15 * before["busy"]
    # Memory still runs out at times, and who waits for it in the engine may be given up.
    assert after["served"] >= before["served"] - 0.005


def test_beside_an_api_more_promises_are_kept() -> None:
    found = [
        figures([Played(TOLD[name], seed, count=200, cloud=True) for seed in (1, 2)])
        for name in ("nothing", "all of it")
    ]
    without, informed = found
    assert informed["kept"] > 0.995 > without["kept"] + 0.02


@pytest.mark.slow
def test_what_is_told_of_what_is_in_use_counts_where_others_are_there_too() -> None:
    found = {
        name: figures([Played(TOLD[name], seed, count=250, every_s=1.0, others=125) for seed in (1, 2)])
        for name in ("nothing", "how much it has", "all of it")
    }
    assert found["all of it"]["preemptions"] < 0.8 * found["how much it has"]["preemptions"]
    assert found["all of it"]["preemptions"] < 0.6 * found["nothing"]["preemptions"]


def test_with_memory_enough_it_makes_no_difference_what_is_told() -> None:
    found = [Played(told, kv_tokens=262_144, count=150) for told in (TOLD["nothing"], TOLD["all of it"])]
    assert found[0].outcomes == found[1].outcomes
    assert [one.engine.preemptions for one in found] == [0, 0]


def test_what_can_fit_at_all_is_served_at_last() -> None:
    """A memory that holds one long answer at a time: nobody is kept for ever, and nobody is refused."""
    found = Played(TOLD["all of it"], kv_tokens=4_912, count=60)
    assert {one.outcome for one in found.outcomes} == {"ok"}
    assert found.router.held == 0


@pytest.mark.lengthy
def test_the_journal_comes_out_again() -> None:
    assert replay(Played(TOLD["all of it"], count=120, others=40).lines).difference is None


def report() -> None:
    """A table by how dense arrivals are, whether others use the engine, and what it tells."""
    for every_s, others, cloud in ((1.0, 0, False), (0.7, 0, False), (1.0, 150, False), (0.7, 0, True), (0.4, 0, True)):
        for name, told in TOLD.items():
            found = figures([Played(told, s, every_s=every_s, others=others, cloud=cloud) for s in range(1, 6)])
            row = "  ".join(f"{what} {value:.3g}" for what, value in found.items())
            print(f"every {every_s} s, {others} of others, cloud {cloud}, told {name}: {row}", flush=True)


if __name__ == "__main__":
    report()
