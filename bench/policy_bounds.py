"""What nobody can do better than in one world, and what somebody can do who knows everything."""

from collections.abc import Sequence
from functools import partial

import msgspec

from bench.policy_figures import Tried, tried
from bench.policy_settings import DRIFT_PARTS, DRIFT_TO, LIMIT_SHARE, OUTAGE_S, OWN, WARM_UP, Regime
from bench.policy_worlds import Scene, play, tokens_usd
from tidegate.sim.clairvoyant import search
from tidegate.sim.needs import Piece, Pool
from tidegate.sim.oracle import Limit, bound
from tidegate.sim.outcome import Outcome
from tidegate.sim.planned import Planned

# What the vendor does to a request depends on when it is sent: another moment may be better than that of its arrival.
MOVING = (Regime.LINK_CHANGING, Regime.COLD, Regime.OUTAGE, Regime.LIMITS)
# Days that who knows everything plays before the best of them counts.
PLAYS_MAX = 12


class Bracket(msgspec.Struct, kw_only=True):
    """The bound above all schedules, and the best schedule that was found by somebody who knows everything.

    Both are a request's value, in what sending it away takes.
    """

    bound: float
    schedule: float

    @property
    def wide(self) -> float:
        """How far they are apart, as a share of the bound."""
        return (self.bound - self.schedule) / self.bound


def bracket(
    world: Scene, remote: Sequence[Outcome], factors: Sequence[float], unit_usd: float
) -> tuple[Bracket, Tried]:
    """Both, and what came of that schedule.

    `remote` is what comes of each request that is sent away; `factors` are on the price for those that count. The bound
    is on these alone, as if the others had needed nothing.
    """
    before = [1.0] * WARM_UP
    pieces = _pieces(world, remote, [*before, *factors])
    pools = _pools(world)
    found = bound(pieces[WARM_UP:], list(pools.values()), limit=_limit(world))
    everything = bound(pieces, list(pools.values()), limit=_limit(world))
    best = search(
        pieces,
        pools,
        lambda plan: play(world, partial(Planned, plan)),
        local=everything.local,
        plays_max=PLAYS_MAX,
        seed=world.case.seed,
    )
    outcomes = play(world, partial(Planned, best.plan))
    reached = tried(world, "schedule", 0.0, outcomes, factors)
    return Bracket(bound=found.usd / len(factors) / unit_usd, schedule=reached.value_each / unit_usd), reached


def _pieces(world: Scene, remote: Sequence[Outcome], factors: Sequence[float]) -> list[Piece]:
    cached, moving = _cached_tokens(world), world.case.regime in MOVING
    pieces = []
    for job, outcome, factor in zip(world.jobs, remote, factors, strict=True):
        slo, usd = job.request.slo, factor * tokens_usd(world, job)
        served = outcome.outcome == "ok"
        pieces.append(
            Piece(
                id=job.request.id,
                arrived_s=job.request.arrived_s,
                prompt_tokens=max(1, job.prompt_tokens - cached.get(job.request.id, 0)),
                context_tokens=job.prompt_tokens,
                output_tokens=job.target,
                first_by_s=float("inf") if slo.ttft_s is None else slo.ttft_s,
                token_by_s=float("inf") if slo.tpot_s is None else slo.tpot_s,
                worth_usd=world.worth * tokens_usd(world, job),
                remote_usd=min(usd, outcome.usd) if served else usd,
                remote_kept=outcome.kept or moving,
            )
        )
    return pieces


def _cached_tokens(world: Scene) -> dict[str, int]:
    """What a cache that forgets nothing would have of each prompt."""
    if world.case.regime is not Regime.PREFIX:
        return {}
    seen: set[int] = set()
    found = {}
    for job in world.jobs:
        known = 0
        for block in job.blocks:
            if block not in seen:
                break
            known += 1
        seen.update(job.blocks)
        found[job.request.id] = min(known * job.block_tokens, job.prompt_tokens - 1)
    return found


def _pools(world: Scene) -> dict[str, Pool]:
    regime, span_s = world.case.regime, world.ends_s
    down: tuple[tuple[float, float], ...] = ()
    slowdown: tuple[tuple[float, float], ...] = ()
    if regime is Regime.OUTAGE:
        down = ((span_s / 3.0, span_s / 3.0 + OUTAGE_S),)
    elif regime is Regime.STEP_DRIFT:
        parts = range(1, DRIFT_PARTS + 1)
        slowdown = tuple((span_s * part / (DRIFT_PARTS + 1), DRIFT_TO ** (part / DRIFT_PARTS)) for part in parts)
    return {
        name: Pool(
            profile=profile,
            slots=profile.slots,
            down=down if name == OWN else (),
            slowdown=slowdown if name == OWN else (),
        )
        for name, profile in world.pools.items()
    }


def _limit(world: Scene) -> Limit | None:
    if world.case.regime is not Regime.LIMITS:
        return None
    per_s = LIMIT_SHARE * len(world.jobs) / world.ends_s
    return Limit(requests_per_s=per_s, burst=60.0 * per_s)
