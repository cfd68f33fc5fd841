"""Time in spans, for bounds: where one ends and the next begins, and how much of each an engine can use."""

from bisect import bisect_left
from collections.abc import Sequence
from math import ceil, floor, inf

import numpy as np
from numpy.typing import NDArray

from tidegate.sim.needs import Pool

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# So many spans are merged at once where nothing has to begin, and for what may be anywhere in a while.
MERGED = 8


def spans(windows: Sequence[tuple[float, float]], ends_s: Sequence[float], span_s: float) -> Floats:
    """Where spans begin and end: of `span_s` in these windows, of `MERGED` times that from each up to its end, and one
    of any length while nothing can be under way, since a day or a month without work has nothing to be bound."""
    fine: set[int] = set()
    busy: set[int] = set()
    last = 0
    for (from_s, to_s), end_s in zip(windows, ends_s, strict=True):
        begins, over = floor(from_s / span_s), ceil(to_s / span_s)
        until = max(over, ceil(end_s / span_s))
        fine.update(range(begins, over + 1))
        busy.update(range(begins // MERGED, until // MERGED + 1))
        last = max(last, until)
    whiles = sorted(busy)
    edges = [min(fine)]
    while edges[-1] < last:
        at = edges[-1]
        if at in fine:
            ends = at + 1
        elif at // MERGED in busy:
            # Of merged ones, each ends where all of them would.
            coarse = (at // MERGED + 1) * MERGED
            ends = min((one for one in range(at + 1, coarse) if one in fine), default=coarse)
        else:
            ends = whiles[bisect_left(whiles, at // MERGED)] * MERGED
        edges.append(ends)
    return np.array(edges, dtype=np.float64) * span_s


def merged(edges: Floats) -> Ints:
    """Of each span the number of the one that it belongs to, of those that are `MERGED` of the shortest."""
    if len(edges) < 2:
        return np.zeros(0, dtype=np.int64)
    shortest_s = float(np.diff(edges).min())
    of = np.round(edges[:-1] / shortest_s).astype(np.int64) // MERGED
    return np.asarray(np.unique(of, return_inverse=True)[1], dtype=np.int64)


def overlapping(edges: Floats, from_s: float, to_s: float) -> slice:
    """The spans that have some of this time."""
    first = int(np.searchsorted(edges, from_s, side="right")) - 1
    last = int(np.searchsorted(edges, to_s, side="left"))
    first = min(max(first, 0), len(edges) - 2)
    return slice(first, max(last, first + 1))


class Speed:
    """How fast an engine computes, in seconds of its usual speed; never less than it does."""

    def __init__(self, pool: Pool, longest_s: float) -> None:
        """An iteration that is under way when the engine becomes slower goes on as before; it takes `longest_s` at
        most."""
        changes = sorted({-inf, *(at for at, _ in pool.slowdown), *(at for span in pool.down for at in span)})
        factors = [1.0, *(factor for _, factor in sorted(pool.slowdown))]
        begins = [-inf, *(at for at, _ in sorted(pool.slowdown))]
        legs = [
            (from_s, to_s + longest_s * factor, 1.0 / factor)
            for from_s, to_s, factor in zip(begins, [*begins[1:], inf], factors, strict=True)
        ]
        ends = [to_s for _, to_s, _ in legs if to_s < inf]
        self._at_s = np.array(sorted({0.0, *ends, *(at for at in changes if at > -inf)}))
        # Before, between and after these.
        middles = [-inf, *((self._at_s[:-1] + self._at_s[1:]) / 2.0), inf]
        self._speeds = np.array([_speed(pool, legs, at) for at in middles])
        inner = self._speeds[1:-1] * np.diff(self._at_s)
        self._done_s: Floats = np.concatenate([[0.0], np.cumsum(inner)])

    @property
    def most(self) -> float:
        """The fastest it ever is."""
        return float(self._speeds.max())

    def done_s(self, at_s: Floats) -> Floats:
        """What it can have done by then, from some moment on."""
        within = np.interp(at_s, self._at_s, self._done_s)
        before = np.minimum(0.0, at_s - self._at_s[0]) * self._speeds[0]
        after = np.maximum(0.0, at_s - self._at_s[-1]) * self._speeds[-1]
        return np.asarray(within + before + after)

    def between_s(self, from_s: float, to_s: float) -> float:
        """What it can do from one time to another."""
        first, last = self.done_s(np.array([from_s, to_s]))
        return float(last - first)

    def after(self, from_s: float, work_s: float) -> float:
        """When so much is done at the soonest."""
        goal = float(self.done_s(np.array([from_s]))[0]) + work_s
        times = [from_s, *(float(at) for at in self._at_s if at > from_s)]
        done = self.done_s(np.array(times))
        for index, at_s in enumerate(times):
            following = done[index + 1] if index + 1 < len(times) else inf
            if following >= goal:
                if index + 1 < len(times):
                    share = (goal - done[index]) / (following - done[index]) if following > done[index] else 0.0
                    return at_s + float(share) * (times[index + 1] - at_s)
                speed = float(self._speeds[-1])
                return at_s + (goal - float(done[index])) / speed if speed > 0.0 else inf
        raise AssertionError("the last is followed by infinity")


def _speed(pool: Pool, legs: list[tuple[float, float, float]], at_s: float) -> float:
    if any(from_s <= at_s < to_s for from_s, to_s in pool.down):
        return 0.0
    return max(speed for from_s, to_s, speed in legs if from_s <= at_s <= to_s)
