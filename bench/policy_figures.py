"""What policies came to in one world, held against each other. Pure: the same outcomes are the same figures.

Dollars are those per request that counted. Whoever did not serve a request is charged what the vendor takes for it, so
that refusing dear work does not pay. Intervals are of differences in the same world: outcomes are cut into blocks of
requests in a row, since queues couple neighbours, and blocks are drawn again and again (the block bootstrap, Kuensch
1989).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

import msgspec

from bench.policy_settings import PRICE_STEP, WARM_UP, Regime
from bench.policy_worlds import Scene, tokens_usd
from tidegate.sim.outcome import Outcome

BLOCKS, DRAWS = 20, 400
COURSE = 24
"""Moments at which regret is told, after as many requests each."""
# Where the hull costs less than this share of sending everything away, ratios say nothing: differences are held
# against so much.
LEAST_SHARE = 0.02


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in one world: for each request whether its promise was kept, and the dollars that it took."""

    name: str
    knob: float
    kept: list[bool]
    usd: list[float]
    worth_usd: list[float]
    ours: float
    unserved: int

    @property
    def attainment(self) -> float:
        """The share of promises that was kept."""
        return sum(self.kept) / len(self.kept)

    @property
    def usd_each(self) -> float:
        """Dollars a request."""
        return sum(self.usd) / len(self.usd)

    @property
    def values(self) -> list[float]:
        """What each request was worth, less what it took."""
        return [w * k - u for w, k, u in zip(self.worth_usd, self.kept, self.usd, strict=True)]

    @property
    def value_each(self) -> float:
        """Worth less dollars, a request."""
        return sum(self.values) / len(self.usd)


class Interval(msgspec.Struct, frozen=True):
    """A figure, and where 95 % of the draws lie."""

    figure: float
    low: float
    high: float


class Mixed(msgspec.Struct, frozen=True):
    """So much of one policy, and the rest of another: a point of the lower hull."""

    first: Tried
    second: Tried
    share: float

    @property
    def usd_each(self) -> float:
        """Dollars a request."""
        return self.share * self.first.usd_each + (1.0 - self.share) * self.second.usd_each

    @property
    def attainment(self) -> float:
        """The share of promises that is kept."""
        return self.share * self.first.attainment + (1.0 - self.share) * self.second.attainment


def price_factors(scene: Scene) -> list[float]:
    """What the vendor's price is multiplied by when each request comes that counts."""
    arrivals = [job.request.arrived_s for job in scene.jobs[WARM_UP:]]
    changes = scene.case.regime is Regime.PRICE_STEP
    return [PRICE_STEP if changes and at_s >= scene.ends_s / 2.0 else 1.0 for at_s in arrivals]


def unit_usd(scene: Scene, factors: Sequence[float]) -> float:
    """What sending everything away takes, a request."""
    usd = [factor * tokens_usd(scene, job) for factor, job in zip(factors, scene.jobs[WARM_UP:], strict=True)]
    return sum(usd) / len(usd)


def tried(scene: Scene, name: str, knob: float, outcomes: Sequence[Outcome], factors: Sequence[float]) -> Tried:
    """What came of one policy. `factors` are on the vendor's price, when each request came that counts."""
    jobs = scene.jobs[WARM_UP:]
    usd, worth = [], []
    outcomes = outcomes[WARM_UP:]
    for job, outcome, factor in zip(jobs, outcomes, factors, strict=True):
        away_usd = tokens_usd(scene, job)
        usd.append(outcome.usd + (0.0 if outcome.outcome == "ok" else factor * away_usd))
        worth.append(scene.worth * away_usd)
    return Tried(
        name=name,
        knob=knob,
        kept=[outcome.kept for outcome in outcomes],
        usd=usd,
        worth_usd=worth,
        ours=sum(outcome.endpoint in scene.pools for outcome in outcomes) / len(outcomes),
        unserved=sum(outcome.outcome != "ok" for outcome in outcomes),
    )


def hull_at(rivals: Sequence[Tried], attainment: float) -> Mixed:
    """The cheapest mixture of two that keeps at least so many promises; the one that keeps most, where none does."""
    enough = [one for one in rivals if one.attainment >= attainment]
    if not enough:
        best = max(rivals, key=lambda one: (one.attainment, -one.usd_each))
        return Mixed(best, best, 1.0)
    found = min((Mixed(one, one, 1.0) for one in enough), key=lambda mixed: mixed.usd_each)
    for high in enough:
        for low in rivals:
            if low.attainment < attainment and low.usd_each < high.usd_each:
                share = (attainment - low.attainment) / (high.attainment - low.attainment)
                mixed = Mixed(high, low, share)
                if mixed.usd_each < found.usd_each:
                    found = mixed
    return found


def saving(ours: Tried, mixed: Mixed, remote: Tried) -> Interval:
    """How much less a kept promise costs than by that mixture, as a share of what it costs there."""
    least = LEAST_SHARE * remote.usd_each

    def share(places: Sequence[int]) -> float:
        size = len(places)
        usd = sum([ours.usd[i] for i in places]) / size
        kept = sum([ours.kept[i] for i in places]) / size
        first, second, part = mixed.first, mixed.second, mixed.share
        mixed_usd = sum([part * first.usd[i] + (1.0 - part) * second.usd[i] for i in places]) / size
        mixed_kept = sum([part * first.kept[i] + (1.0 - part) * second.kept[i] for i in places]) / size
        if not kept or not mixed_kept:
            return 0.0
        return (mixed_usd / mixed_kept - usd / kept) / max(mixed_usd / mixed_kept, least)

    return _interval(share, len(ours.usd))


def gain(ours: Tried, rival: Tried) -> Interval:
    """By how much more a request is worth, in dollars."""
    apart = [a - b for a, b in zip(ours.values, rival.values, strict=True)]
    return _interval(lambda places: sum([apart[i] for i in places]) / len(places), len(apart))


def kept_more(ours: Tried, rival: Tried) -> Interval:
    """How many promises more are kept, as a share of all."""
    apart = [float(a) - float(b) for a, b in zip(ours.kept, rival.kept, strict=True)]
    return _interval(lambda places: sum([apart[i] for i in places]) / len(places), len(apart))


def regret(ours: Tried, rival: Tried) -> list[float]:
    """How much more a rival's requests were worth up to each moment, in dollars."""
    behind = list(accumulate([b - a for a, b in zip(ours.values, rival.values, strict=True)]))
    return [behind[len(behind) * part // COURSE - 1] for part in range(1, COURSE + 1)]


def closed(ours: float, rival: float, bound: float) -> float | None:
    """The share of the gap between a rival and a bound that is closed; None where there is no gap to speak of."""
    gap = bound - rival
    return (ours - rival) / gap if gap > 1e-3 * abs(bound) else None


def _interval(figure: Callable[[Sequence[int]], float], count: int) -> Interval:
    draw = Random(0)
    size = max(1, count // BLOCKS)
    blocks = [list(range(first, min(first + size, count))) for first in range(0, count, size)]
    drawn = []
    for _ in range(DRAWS):
        places = [place for _ in blocks for place in draw.choice(blocks)]
        drawn.append(figure(places))
    drawn.sort()
    return Interval(figure(range(count)), drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1])
