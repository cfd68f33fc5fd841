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

from tidegate.sim.latest import ends_s
from tidegate.sim.needs import Need, Piece, Pool, is_tight, lines, need, slots_of
from tidegate.sim.program import Floats, Ints, Option, Part, Program, Supply, solve
from tidegate.sim.spans import MERGED, Speed, spans

# A promise's window has so many spans: twice as many make the bound tighter by 0.3 %, and take twice as long.
SPANS = 8
# Where the windows of all requests have more than that together, spans are longer.
PLACES_MAX = 30_000
# What is in time but for rounding is in time.
_ROUNDING_S = 1e-9


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
        self._rows: dict[str, Ints] = {}
        self._capacity: list[Floats] = []
        self._supplies: list[Supply] = []
        self._owned = [_Owned(pool, number, self._pieces) for number, pool in enumerate(pools)]
        windows = [window for owned in self._owned for window in owned.windows()]
        if limit:
            windows += [(one.arrived_s, one.arrived_s + one.first_by_s, -inf) for one in self._pieces]
        self.edges = _edges([window for window in windows if window[1] < inf], span_s)
        self._limit = self.resource("limit", _refilled(limit, self.edges)) if limit else None
        if limit:
            self._bucket(limit)
        for owned in self._owned:
            owned.enter(self)
        choices = [self._options(piece) for piece in self._pieces]
        capacity = np.concatenate(self._capacity) if self._capacity else np.zeros(0)
        self._where = [[where for where, _ in options] for options in choices]
        self.program = Program([[one for _, one in options] for options in choices], self._supplies, capacity)

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
        named = {name: tuple(flat[rows].tolist()) for name, rows in self._rows.items()}
        return Prices(edges_s=tuple(self.edges.tolist()), by_name=named)

    def flat(self, prices: Prices) -> Floats:
        """The other way round."""
        assert prices.by_name.keys() == self._rows.keys(), "these are prices of something else"
        flat = np.zeros(sum(len(one) for one in self._capacity))
        for name, rows in self._rows.items():
            flat[rows] = prices.by_name[name]
        return flat

    # --- to be built --------------------------------------------------------------------------------------------------

    def resource(self, name: str, capacity: Floats) -> Ints:
        """One more resource, of which there is so much in each span."""
        first = sum(len(one) for one in self._capacity)
        self._capacity.append(capacity)
        rows = self._rows[name] = np.arange(first, first + len(capacity))
        return rows

    def supply(self, resources: tuple[int, ...], uses: tuple[float, ...], most: float) -> None:
        """Something that may be done for all."""
        self._supplies.append(Supply(resources, uses, most))

    def _bucket(self, limit: Limit) -> None:
        """What is left in it at the end of a span is there in the next one, up to `burst`."""
        assert self._limit is not None
        for row, following in zip(self._limit[:-1].tolist(), self._limit[1:].tolist(), strict=True):
            self.supply((row, following), (1.0, -1.0), limit.burst)

    def _options(self, piece: Piece) -> list[tuple[int, Option]]:
        """Where its promise can be kept, and what that is worth."""
        found = [(owned.number, option) for owned in self._owned if (option := owned.option(piece)) is not None]
        if piece.remote_kept and piece.worth_usd > piece.remote_usd:
            found.append((_REMOTE, Option(piece.worth_usd - piece.remote_usd, self._sent(piece))))
        return found

    def _sent(self, piece: Piece) -> tuple[Part, ...]:
        if self._limit is None or piece.first_by_s == inf:
            return ()
        at = _overlapping(self.edges, piece.arrived_s, piece.arrived_s + piece.first_by_s)
        return (Part(rows := self._limit[at][None, :], np.ones(rows.shape), np.ones(at.stop - at.start)),)


_REMOTE = -1


class _Owned:
    """One engine of ours as the program sees it.

    An iteration takes time, and has room for so many sequences, tokens and contexts; how many iterations there are in
    each span is free to choose.
    """

    def __init__(self, pool: Pool, number: int, pieces: list[Piece]) -> None:
        self.number = number
        self._pool, profile = pool, pool.profile
        self._lines = lines(profile)
        self._tight = is_tight(pool, pieces)
        longest_s = profile.step.takes_s(
            profile.batch_tokens, float(profile.batch_tokens) * profile.kv_tokens, pool.slots, profile.kv_tokens
        )
        self._speed = Speed(pool, longest_s)
        # Of what needs nothing, since nothing was promised, the ids; of the rest what it needs, and when it is over.
        self._free: set[str] = set()
        self._needs: dict[str, Need] = {}
        self._kept = self._look(pieces)
        found = ends_s(self._kept, list(self._needs.values()), pool, tight=self._tight)
        self._ends_s = dict(zip(self._needs, found.tolist(), strict=True))

    def windows(self) -> list[tuple[float, float, float]]:
        """Of all that can be in time here: when it comes, when it has its first token, and when it is over, at the
        latest; the end is infinite where it does not matter."""
        return [(one.arrived_s, one.arrived_s + one.first_by_s, self._ends_s[one.id]) for one in self._kept]

    def enter(self, world: _World) -> None:
        """What it has of everything."""
        number, profile = self.number, self._pool.profile
        self._edges = edges = world.edges
        usable_s = np.diff(self._speed.done_s(edges))
        self._merged = _merged(edges)
        merged_s = np.bincount(self._merged, usable_s).astype(np.float64)
        several = [""] if len(self._lines) == 1 else [f".{index}" for index in range(len(self._lines))]
        self._seconds = [world.resource(f"{number}.seconds{one}", usable_s) for one in several]
        self._seconds_merged = [world.resource(f"{number}.seconds{one}.merged", merged_s) for one in several]
        nothing = np.zeros_like(usable_s)
        self._slots = world.resource(f"{number}.slots", nothing)
        self._tokens = world.resource(f"{number}.tokens", nothing)
        has = [float(slots_of(self._pool)), float(profile.batch_tokens)]
        resources = [self._slots, self._tokens]
        if self._tight:
            self._kv = world.resource(f"{number}.kv", nothing)
            self._kv_merged = world.resource(f"{number}.kv.merged", np.zeros_like(merged_s))
            has += [float(profile.kv_tokens)] * 2
            resources += [self._kv, self._kv_merged[self._merged]]
        times = [line.iteration_s for line in self._lines]
        seconds = [*self._seconds, *(one[self._merged] for one in self._seconds_merged)]
        for span in range(len(usable_s)):
            most = float(usable_s[span]) / max(times) if max(times) > 0.0 else inf
            rows = tuple(int(one[span]) for one in (*seconds, *resources))
            world.supply(rows, (*times, *times, *(-one for one in has)), most)

    def option(self, piece: Piece) -> Option | None:
        """What it takes that its promise is kept here; None where that cannot be."""
        if piece.id in self._free:
            return Option(piece.worth_usd, ())
        needed = self._needs.get(piece.id)
        if needed is None:
            return None
        begins_s, first_by_s = piece.arrived_s, piece.arrived_s + piece.first_by_s
        first_s = self._speed.after(begins_s, needed.first_s)
        last_s = self._ends_s[piece.id]
        parts = [self._prefill(needed, begins_s, first_by_s)]
        if needed.prefill_growth_s > 0.0:
            parts.append(self._growth(self._seconds_merged, needed.prefill_growth_s, begins_s, first_by_s))
        if needed.decodes and last_s < inf:
            parts.append(self._decode(needed, first_s, last_s))
            if needed.decode_growth_s > 0.0:
                parts.append(self._growth(self._seconds_merged, needed.decode_growth_s, first_s, last_s))
            if self._tight and needed.kv_growth > 0.0:
                parts.append(self._growth([self._kv_merged], needed.kv_growth, first_s, last_s))
        return Option(piece.worth_usd, tuple(parts))

    def _in_time(self, piece: Piece, needed: Need) -> bool:
        """Whether the engine could keep its promise, did it nothing else."""
        begins_s, first_by_s = piece.arrived_s, piece.arrived_s + piece.first_by_s
        if self._speed.between_s(begins_s, first_by_s) < needed.first_s - _ROUNDING_S:
            return False
        rest_s = needed.decodes * piece.token_by_s if needed.decodes else 0.0
        if rest_s == inf:
            return True
        first_s = self._speed.after(begins_s, needed.first_s)
        enough_s = min(self._speed.between_s(first_s, first_by_s + rest_s), rest_s * self._speed.most)
        return enough_s >= needed.rest_s - _ROUNDING_S

    def _look(self, pieces: list[Piece]) -> list[Piece]:
        """Those whose promise can be kept here, if there is one."""
        kept = []
        for piece in pieces:
            needed = need(piece, self._pool.profile, self._lines, tight=self._tight)
            if needed is None or piece.worth_usd <= 0.0:
                continue
            if piece.first_by_s == inf:
                self._free.add(piece.id)
            elif self._in_time(piece, needed):
                self._needs[piece.id] = needed
                kept.append(piece)
        return kept

    def _prefill(self, needed: Need, from_s: float, to_s: float) -> Part:
        tokens, iterations = needed.prompt_tokens, needed.prompt_iterations
        times = [line.prompt_token_s * tokens + needed.prefill_s for line in self._lines]
        return self._work(times, iterations, tokens, needed.kv_tokens, from_s, to_s)

    def _decode(self, needed: Need, from_s: float, to_s: float) -> Part:
        count = needed.decodes
        times = [line.decoded_token_s * count + needed.decode_s for line in self._lines]
        return self._work(times, float(count), count, needed.kv_tokens, from_s, to_s)

    def _work(self, times: list[float], iterations: float, tokens: int, kv: int, from_s: float, to_s: float) -> Part:
        """Work in so many iterations; no span has room for more of it than an engine of its own would have."""
        alone_s = max(one + line.iteration_s * iterations for one, line in zip(times, self._lines, strict=True))
        at = _overlapping(self._edges, from_s, to_s)
        rows = [*(one[at] for one in self._seconds), *(one[self._merged[at]] for one in self._seconds_merged)]
        rows += [self._slots[at], self._tokens[at]]
        uses = [*times, *times, iterations, float(tokens)]
        if self._tight:
            rows += [self._kv[at], self._kv_merged[self._merged[at]]]
            uses += [kv * iterations] * 2
        within = self._edges[at.start : at.stop + 1].clip(from_s, to_s)
        most = np.diff(self._speed.done_s(within)) / alone_s
        # What is enough but for rounding is enough.
        most = np.minimum(1.0, most * max(1.0, (1.0 + _ROUNDING_S) / max(float(most.sum()), 0.5)))
        used = np.repeat(np.array(uses)[:, None], len(most), axis=1)
        return Part(np.stack(rows), used, most)

    def _growth(self, resources: list[Ints], use: float, from_s: float, to_s: float) -> Part:
        at = _overlapping(self._edges, from_s, to_s)
        merged = np.unique(self._merged[at])
        rows = np.stack([one[merged] for one in resources])
        return Part(rows, np.full(rows.shape, use), np.ones(len(merged)))


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
    return spans([(from_s, to_s) for from_s, to_s, _ in windows], max(ends), span_s)


def _merged(edges: Floats) -> Ints:
    """Of each span the number of the one that it belongs to, of those that are `MERGED` of the shortest."""
    if len(edges) < 2:
        return np.zeros(0, dtype=np.int64)
    shortest_s = float(np.diff(edges).min())
    of = np.round(edges[:-1] / shortest_s).astype(np.int64) // MERGED
    return np.asarray(np.unique(of, return_inverse=True)[1], dtype=np.int64)


def _overlapping(edges: Floats, from_s: float, to_s: float) -> slice:
    """The spans that have some of this time."""
    first = int(np.searchsorted(edges, from_s, side="right")) - 1
    last = int(np.searchsorted(edges, to_s, side="left"))
    first = min(max(first, 0), len(edges) - 2)
    return slice(first, max(last, first + 1))


def _refilled(limit: Limit, edges: Floats) -> Floats:
    """What comes into the bucket in each span; at the beginning it is full."""
    comes = np.diff(edges) * limit.requests_per_s
    comes[:1] += limit.burst
    return comes
