"""Rules that need no prediction: what decides when the model may not, and what its decisions are measured against."""

from collections.abc import Callable, Iterable, Sequence

from tidegate.core.model import Endpoint


def static_order(options: Iterable[tuple[Endpoint, int, float]]) -> list[str]:
    """Names of endpoints with room, local ones first, then by cost; ties by name.

    `options` are endpoints that no rule excludes, each with how many more requests it takes and what it would cost.
    """
    ranked = sorted((not e.local, usd, e.name) for e, room, usd in options if room > 0)
    return [name for _, _, name in ranked]


Options = Sequence[tuple[Endpoint, int, float]]
"""Endpoints that no rule excludes, as in `static_order`."""
Baseline = Callable[[Options, int], list[str]]
"""From these, and the number of requests sent so far, to names in the order in which to try them.

None of them is where the request waits for room.
"""


def local_first(options: Options, _: int) -> list[str]:
    """Local where there is room, else the cheapest remote: the static rule."""
    return static_order(options)


def cheapest(options: Options, _: int) -> list[str]:
    """The cheapest with room, wherever it is; ties go to the local ones, then by name."""
    ranked = sorted((usd, not e.local, e.name) for e, room, usd in options if room > 0)
    return [name for _, _, name in ranked]


def round_robin(options: Options, sent: int) -> list[str]:
    """Those with room in turn, by name."""
    names = sorted(e.name for e, room, _ in options if room > 0)
    first = sent % len(names) if names else 0
    return names[first:] + names[:first]


def least_loaded(options: Options, _: int) -> list[str]:
    """The one of which the least share of its concurrency is in use; ties by name."""
    ranked = sorted((1.0 - room / e.concurrency, e.name) for e, room, _ in options if room > 0)
    return [name for _, name in ranked]


def always_local(options: Options, _: int) -> list[str]:
    """Local ones with room, the emptiest first, and nowhere else."""
    return least_loaded([option for option in options if option[0].local], 0)


def always_remote(options: Options, _: int) -> list[str]:
    """The cheapest remote with room, and nowhere else."""
    return cheapest([option for option in options if not option[0].local], 0)


BASELINES: dict[str, Baseline] = {
    "local-first": local_first,
    "cheapest": cheapest,
    "round-robin": round_robin,
    "least-loaded": least_loaded,
    "always-local": always_local,
    "always-remote": always_remote,
}
"""What everybody compares with, by name."""
