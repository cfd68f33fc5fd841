"""A simulated installation of one engine of ours and one API, asked for a while: its journal, and the twin of that."""

from collections.abc import Callable

from tests import make as core
from tests.sim.days import LONG_S, Listed, Way
from tests.sim.make import profile
from tidegate.core.model import Line, Price, Slo
from tidegate.sim.api import Api, ApiProfile, Spread
from tidegate.sim.chance import Chance
from tidegate.sim.engine import Engine, EngineProfile
from tidegate.sim.job import Job
from tidegate.sim.observed import Observed, known, observe
from tidegate.sim.place import Local, Remote
from tidegate.sim.twin import Twin, twin
from tidegate.sim.world import World

OWN = core.endpoint("own", concurrency=8, usd_per_s=1e-4)
API = core.endpoint("api", local=False, price=Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6))
USUAL = ApiProfile(
    ttft_s=0.4,
    ttft_s_per_uncached_token=1e-4,
    ttft_spread=Spread(sigma=0.3),
    tpot_s=0.02,
    tpot_spread=Spread(sigma=0.1),
)


class Week:
    """An engine and an API, asked for a while; `befalls` them what may."""

    def __init__(
        self,
        *,
        seed: int = 1,
        engine: EngineProfile | None = None,
        api: ApiProfile = USUAL,
        count: int = 500,
        rate: float = 10.0,
        befalls: Callable[[World, Local, Remote], None] = lambda world, own, api: None,
        blocks: Callable[[int], tuple[int, ...]] = lambda number: (),
    ) -> None:
        self.lines: list[Line] = []
        self.world = world = World((OWN, API), core.policy(), start_s=1_000.0, journal=self.lines.append)
        chance = Chance(seed)
        own = Local("own", Engine(engine or profile(slots=8), 1_000.0), world.loop, world)
        away = Remote("api", Api(api, chance, "api"), world.loop, world, Way(0.05))
        draw, at_s, jobs = chance.at("jobs"), 1_000.0, []
        for number in range(count):
            # By turns few come and many.
            at_s += draw.expovariate(rate * (0.3 if int(at_s) // 20 % 2 else 1.7))
            known = blocks(number)
            tokens = max(256 * len(known) + 10, int(draw.lognormvariate(6.0, 0.7)))
            request = core.request(
                f"r{number}",
                arrived_s=at_s,
                prompt_tokens=tokens,
                prompt_bytes=4 * tokens,
                output_tokens_max=None,
                slo=Slo(ttft_s=1.0, tpot_s=0.05),
                prefix=known,
            )
            output_tokens = max(1, int(draw.lognormvariate(4.0, 0.7)))
            jobs.append(
                Job(request=request, prompt_tokens=tokens, output_tokens=output_tokens, blocks=known, block_tokens=256)
            )
        befalls(world, own, away)
        world.run({"own": own, "api": away}, Listed(jobs), probe_s=5.0, until_s=LONG_S)

    def observed(self) -> Observed:
        return observe(self.lines)

    def twin(self) -> Twin:
        return twin(self.observed(), known(self.lines))
