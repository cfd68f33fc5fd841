"""Small worlds of which everything is known: engines of our own, and a remote that never lies."""

from collections.abc import Callable, Iterator
from random import Random

from tests import make as core
from tests.sim.make import STEP, profile
from tidegate.core.baseline import BASELINES
from tidegate.core.model import Endpoint, Policy, Price, Slo, replace
from tidegate.core.step import Linear
from tidegate.sim.api import Api, ApiProfile
from tidegate.sim.chance import Chance
from tidegate.sim.decider import Decider
from tidegate.sim.engine import Engine
from tidegate.sim.job import Job
from tidegate.sim.needs import Piece, Pool
from tidegate.sim.oracle import Limit
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Local, Remote
from tidegate.sim.rival import Rival
from tidegate.sim.world import World

PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=3e-6)
SOLD = ApiProfile(ttft_s=0.3, tpot_s=0.01)
_SPARSE = Linear(weights_s=0.008, per_token_s=1e-4, experts_s=0.006, expert_share=0.1, per_expert_token_s=2e-5)
# Memory is scarce in the second, and prompts come in pieces; pairs count in the third; the fourth has layers and ranks.
PROFILES = (
    profile(slots=4),
    profile(slots=6, batch_tokens=96, kv_tokens=2_048),
    profile(slots=3, batch_tokens=128, step=replace(STEP, per_pair_s=2e-7, per_context_token_s=2e-6)),
    profile(slots=5, step=replace(STEP, base_s=0.003, linear=_SPARSE, ranks=2)),
)


def rival(name: str) -> Callable[[tuple[Endpoint, ...], Policy], Decider]:
    """One of the simple rules."""
    return lambda endpoints, policy: Rival(BASELINES[name], endpoints, policy)


class Small:
    """Some seconds of traffic, in which everything follows from the seed."""

    def __init__(
        self, seed: int, *, count: int = 25, engines: int | None = None, blocks: bool = False, several: bool = False
    ) -> None:
        draw, inputs = Random(seed), Random(seed)
        number = draw.choice((1, 1, 2)) if engines is None else engines
        self.profiles = [draw.choice(PROFILES) for _ in range(number)]
        self.per_minute = draw.choice((None, None, 60.0))
        self.jobs: list[Job] = []
        at_s = 0.0
        rate = draw.choice((4.0, 12.0, 40.0))
        for index in range(count):
            at_s += draw.expovariate(rate)
            prompts = inputs.choice((1, 3, 20)) if several else 1
            self.jobs.append(_job(draw, index, at_s, blocks=blocks, prompts=prompts))
        self.down = ((0.3 * at_s, 0.5 * at_s),) if draw.random() < 0.2 else ()
        self.slowdown = ((0.4 * at_s, 2.0), (0.7 * at_s, 1.0)) if draw.random() < 0.3 else ()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Ours, and the remote."""
        ours = [
            core.endpoint(f"own{number}", concurrency=one.slots, context_tokens=8_192)
            for number, one in enumerate(self.profiles)
        ]
        return (*ours, core.endpoint("away", local=False, price=PRICE))

    @property
    def pools(self) -> list[Pool]:
        return [Pool(profile=one, slots=one.slots, down=self.down, slowdown=self.slowdown) for one in self.profiles]

    @property
    def limit(self) -> Limit | None:
        per_minute = self.per_minute
        return None if per_minute is None else Limit(requests_per_s=per_minute / 60.0, burst=per_minute)

    @property
    def pieces(self) -> list[Piece]:
        return [_piece(job) for job in self.jobs]

    def play(self, decider: Callable[[tuple[Endpoint, ...], Policy], Decider] | None = None) -> list[Outcome]:
        """What becomes of it; who decides is the real router, unless another is given."""
        endpoints, policy = self.endpoints, core.policy()
        world = World(endpoints, policy, router=None if decider is None else decider(endpoints, policy))
        api = Api(replace(SOLD, requests_per_minute=self.per_minute), Chance(0), "away")
        ours = {
            f"own{number}": Local(f"own{number}", Engine(one), world.loop, world)
            for number, one in enumerate(self.profiles)
        }
        for place in ours.values():
            for from_s, to_s in self.down:
                world.loop.at(from_s, place.crash, to_s)
            for at_s, factor in self.slowdown:
                world.loop.at(at_s, place.slow, factor)
        places: dict[str, Local | Remote] = {**ours, "away": Remote("away", api, world.loop, world)}
        world.run(places, Listed(self.jobs), probe_s=5.0, until_s=1e6)
        return world.outcomes

    def value_usd(self, outcomes: list[Outcome]) -> float:
        """What it was worth: promises kept, less what was paid, and less what would have been paid for the unserved."""
        remote_usd = {piece.id: piece.remote_usd for piece in self.pieces}
        return sum(
            one.request.worth_usd * one.kept - one.usd - (remote_usd[one.request.id] if one.outcome != "ok" else 0.0)
            for one in outcomes
        )


class Listed:
    """Traffic that is written down."""

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs = jobs

    def arrivals(self) -> Iterator[Job]:
        return iter(self._jobs)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:
        return None


def _job(draw: Random, index: int, at_s: float, *, blocks: bool, prompts: int) -> Job:
    """Several `prompts` are so many times as long together."""
    tokens, output = draw.choice((20, 150, 600)), draw.choice((1, 2, 15, 80))
    tokens *= prompts
    common = draw.choice((0, 64, 128)) if blocks else 0
    usd = PRICE.usd(tokens + common, output, 0)
    request = core.request(
        f"r{index}",
        arrived_s=at_s,
        prompt_tokens=tokens + common,
        prompt_bytes=4 * (tokens + common),
        prompts=prompts,
        output_tokens_max=None,
        slo=draw.choice((Slo(ttft_s=0.2, tpot_s=0.03), Slo(ttft_s=1.0, tpot_s=0.1), Slo(ttft_s=1.0), Slo(tpot_s=0.05))),
        worth_usd=usd * draw.choice((0.5, 2.0, 4.0)),
    )
    return Job(
        request=request,
        prompt_tokens=tokens + common,
        output_tokens=output,
        blocks=tuple(range(common // 64)),
        block_tokens=64,
    )


def _piece(job: Job) -> Piece:
    slo = job.request.slo
    kept = (slo.ttft_s is None or slo.ttft_s >= SOLD.ttft_s) and (slo.tpot_s is None or slo.tpot_s >= SOLD.tpot_s)
    inf = float("inf")
    return Piece(
        id=job.request.id,
        arrived_s=job.request.arrived_s,
        prompt_tokens=job.prompt_tokens - job.block_tokens * len(job.blocks),
        context_tokens=job.prompt_tokens,
        prompts=job.request.prompts,
        output_tokens=job.target,
        first_by_s=inf if slo.ttft_s is None else slo.ttft_s,
        token_by_s=inf if slo.tpot_s is None else slo.tpot_s,
        worth_usd=job.request.worth_usd,
        remote_usd=PRICE.usd(job.prompt_tokens, job.target, 0),
        remote_kept=kept,
    )
