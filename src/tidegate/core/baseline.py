"""Rules that need no prediction: what decides when the model may not."""

from collections.abc import Iterable

from tidegate.core.model import Endpoint


def static_order(options: Iterable[tuple[Endpoint, int, float]]) -> list[str]:
    """Names of endpoints with room, local ones first, then by cost; ties by name.

    `options` are endpoints that no rule excludes, each with how many more requests it takes and what it would cost.
    """
    ranked = sorted((not e.local, usd, e.name) for e, room, usd in options if room > 0)
    return [name for _, _, name in ranked]
