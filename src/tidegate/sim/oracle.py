"""What no policy can exceed: the most dollars that given work can be worth, to somebody who knows all of it before.

Time is cut into spans. What requests need of an engine in them is a lower bound (`needs`), what there is an upper one,
and work may be done by halves and in any order: a linear program, whose value no schedule exceeds. Reported is the
value of its Lagrangian dual, which is a bound at any prices, however exactly they were found.
"""

from collections.abc import Sequence
from math import inf
from statistics import median_low

import msgspec
import numpy as np

from tidegate.sim.needs import Piece, Pool
from tidegate.sim.owned import Owned
from tidegate.sim.program import Option, Part, Program, Resources, solve
from tidegate.sim.spans import Floats, overlapping, spans

# A promise's window has so many spans: twice as many make the bound tighter by 0.3 %, and take twice as long.
SPANS = 8
# Where the windows of all requests have more than that together, spans are longer.
PLACES_MAX = 30_000


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A remote takes so many requests in any t seconds: `burst + t * requests_per_s`."""

    requests_per_s: float
    burst: float = 0.0


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars for one more of each resource: by its name one for each span.

    Spans are those between `edges_s`. Names are `limit`, and for each pool by its number `0.seconds`, `0.slots` and
    `0.tokens` (of iterations), and, where memory may be short, `0.kv`; what may be anywhere in several spans has prices
    of its own, `0.seconds.merged`.
    """

    edges_s: tuple[float, ...]
    by_name: dict[str, tuple[float, ...]]


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """No policy makes more than `usd` of it.

    `local` has of each request the share on each pool, and `remote` what is sent away. The linear program itself comes
    to `relaxed_usd`, which its solver tells.
    """

    usd: float
    relaxed_usd: float
    local: dict[str, tuple[float, ...]]
    remote: dict[str, float]
    prices: Prices


def bound(
    pieces: Sequence[Piece], pools: Sequence[Pool], *, limit: Limit | None = None, span_s: float | None = None
) -> Bound:
    """The bound, with spans of `span_s`, or such that windows have some."""
    world = _World(pieces, pools, limit, span_s)
    solved = solve(world.program)
    usd = world.program.dual(solved.prices)
    local, remote = world.shares(solved.shares)
    prices = world.prices(solved.prices)
    return Bound(usd=usd, relaxed_usd=solved.usd, local=local, remote=remote, prices=prices)


def dual(
    pieces: Sequence[Piece],
    pools: Sequence[Pool],
    prices: Prices,
    *,
    limit: Limit | None = None,
    span_s: float | None = None,
) -> float:
    """What no policy exceeds, at any prices: what each takes that costs it least, and the price of all there is.

    The rest must be what `bound` was given, which tells the spans.
    """
    world = _World(pieces, pools, limit, span_s)
    return world.program.dual(world.flat(prices))


def exact(
    pieces: Sequence[Piece], pools: Sequence[Pool], *, limit: Limit | None = None, span_s: float | None = None
) -> float:
    """The same where each request is served as a whole: for few of them, to tell what halves are worth."""
    return solve(_World(pieces, pools, limit, span_s).program, whole=True).usd


class _World:
    """The program of some work, and what its rows and columns stand for."""

    def __init__(
        self, pieces: Sequence[Piece], pools: Sequence[Pool], limit: Limit | None, span_s: float | None
    ) -> None:
        # In an order of their own, so that theirs makes no difference.
        self._pieces = sorted(pieces, key=lambda piece: (piece.arrived_s, piece.id))
        self._held = held = Resources()
        self._owned = [Owned(pool, number, self._pieces) for number, pool in enumerate(pools)]
        windows = [window for owned in self._owned for window in owned.windows()]
        if limit:
            windows += [(one.arrived_s, one.arrived_s + one.first_by_s, -inf) for one in self._pieces]
        self.edges = _edges([window for window in windows if window[1] < inf], span_s)
        self._limit = held.add("limit", _refilled(limit, self.edges)) if limit else None
        if limit:
            self._bucket(limit)
        for owned in self._owned:
            owned.enter(held, self.edges)
        choices = [self._options(piece) for piece in self._pieces]
        self._where = [[where for where, _ in options] for options in choices]
        self.program = Program([[one for _, one in options] for options in choices], held.supplies, held.capacity)

    # --- to be told, and to be read -----------------------------------------------------------------------------------

    def shares(self, shares: list[list[float]]) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
        """By request on each pool, and at the remote."""
        local, remote = {}, {}
        for piece, where, taken in zip(self._pieces, self._where, shares, strict=True):
            by = dict(zip(where, taken, strict=True))
            local[piece.id] = tuple(by.get(number, 0.0) for number in range(len(self._owned)))
            remote[piece.id] = by.get(_REMOTE, 0.0)
        return local, remote

    def prices(self, flat: Floats) -> Prices:
        """By name."""
        named = {name: tuple(flat[rows].tolist()) for name, rows in self._held.rows.items()}
        return Prices(edges_s=tuple(self.edges.tolist()), by_name=named)

    def flat(self, prices: Prices) -> Floats:
        """The other way round."""
        assert prices.by_name.keys() == self._held.rows.keys(), "these are prices of something else"
        flat = np.zeros_like(self._held.capacity)
        for name, rows in self._held.rows.items():
            flat[rows] = prices.by_name[name]
        return flat

    # --- to be built --------------------------------------------------------------------------------------------------

    def _bucket(self, limit: Limit) -> None:
        """What is left in it at the end of a span is there in the next one, up to `burst`."""
        assert self._limit is not None
        for row, following in zip(self._limit[:-1].tolist(), self._limit[1:].tolist(), strict=True):
            self._held.supply((row, following), (1.0, -1.0), limit.burst)

    def _options(self, piece: Piece) -> list[tuple[int, Option]]:
        """Where its promise can be kept, and what that is worth."""
        found = [(owned.number, option) for owned in self._owned if (option := owned.option(piece)) is not None]
        if piece.remote_kept and piece.worth_usd > piece.remote_usd:
            found.append((_REMOTE, Option(piece.worth_usd - piece.remote_usd, self._sent(piece))))
        return found

    def _sent(self, piece: Piece) -> tuple[Part, ...]:
        if self._limit is None or piece.first_by_s == inf:
            return ()
        at = overlapping(self.edges, piece.arrived_s, piece.arrived_s + piece.first_by_s)
        return (Part(rows := self._limit[at][None, :], np.ones(rows.shape), np.ones(at.stop - at.start)),)


_REMOTE = -1


def _edges(windows: list[tuple[float, float, float]], span_s: float | None) -> Floats:
    """Spans for all that has to be begun, and be over, by some time."""
    if not windows:
        return np.zeros(1)
    ends = [max(to_s, end_s if end_s < inf else to_s) for _, to_s, end_s in windows]
    if span_s is None:
        span_s = median_low(to_s - from_s for from_s, to_s, _ in windows) / SPANS
        total_s = sum(end_s - from_s for (from_s, _, _), end_s in zip(windows, ends, strict=True))
        span_s = max(span_s, total_s / PLACES_MAX) or 1.0
    assert span_s > 0.0, "a span is longer than nothing"
    return spans([(from_s, to_s) for from_s, to_s, _ in windows], ends, span_s)


def _refilled(limit: Limit, edges: Floats) -> Floats:
    """What comes into the bucket in each span; at the beginning it is full."""
    comes = np.diff(edges) * limit.requests_per_s
    comes[:1] += limit.burst
    return comes
