"""Places in the hold queue: where it is full, each tenant has its share of them, by weight.

While there is room, anybody may have it. Who comes when it is full and has less than its share is held all the same,
and the last one goes of who has most for its weight: it was there to wait for longest, and others need no place that
nobody was promised.
"""

from collections.abc import Collection, Iterable
from math import inf

from tidegate.core.model import Request
from tidegate.core.promise import ends_s


def below_share(request: Request, held: Collection[Request], held_max: int) -> bool:
    """Whether its tenant has less than its share of so many places, beside those who are held."""
    counts, weights = _tenants(held)
    weights[request.key] = request.weight
    return counts.get(request.key, 0) + 1 <= _share(request.key, weights, held_max)


def displaced(held: Collection[Request], held_max: int, now_s: float) -> set[str]:
    """Of more than there are places for, the ids of those who have to go. Where one tenant has all, it keeps them."""
    counts, weights = _tenants(held)
    found: set[str] = set()
    if len(counts) < 2:
        return found
    last = {key: sorted([_order(one, now_s) for one in held if one.key == key]) for key in counts}
    for _ in range(len(held) - held_max):
        key = max(counts, key=lambda key: (counts[key] / weights[key], key))
        if counts[key] <= _share(key, weights, held_max):
            break
        counts[key] -= 1
        found.add(last[key].pop()[3])
    return found


def _share(key: str, weights: dict[str, float], held_max: int) -> float:
    # Whatever their order, the same sum.
    return held_max * weights[key] / sum(sorted(weights.values()))


def _tenants(held: Iterable[Request]) -> tuple[dict[str, int], dict[str, float]]:
    """How many each has, and its weight."""
    counts: dict[str, int] = {}
    weights: dict[str, float] = {}
    for one in held:
        key = one.key
        counts[key] = counts.get(key, 0) + 1
        weights[key] = max(one.weight, weights.get(key, 0.0))
    return counts, weights


def _order(request: Request, now_s: float) -> tuple[int, float, float, str]:
    """Who can be in time goes first, then who is late, and last who was promised nothing, as in the schedule."""
    end_s = ends_s(request)
    turn = 2 if end_s == inf else 1 if end_s <= now_s else 0
    return turn, end_s, request.arrived_s, request.id
