"""One engine of ours as a bound sees it: what it has in each span of time, and what a promise that it keeps takes."""

from math import inf

import numpy as np

from tidegate.sim.latest import ends_s
from tidegate.sim.needs import Need, Piece, Pool, is_tight, lines, need, slots_of
from tidegate.sim.program import Option, Part, Resources
from tidegate.sim.spans import Floats, Ints, Speed, merged, overlapping

# What is in time but for rounding is in time.
_ROUNDING_S = 1e-9


class Owned:
    """One engine of ours as the program sees it.

    An iteration takes time, and has room for so many sequences, tokens and contexts; how many iterations there are in
    each span is free to choose.
    """

    def __init__(self, pool: Pool, number: int, pieces: list[Piece]) -> None:
        self.number = number
        self._pool, profile = pool, pool.profile
        pieces = [piece for piece in pieces if piece.may_go_to(number)]
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

    def enter(self, held: Resources, edges: Floats) -> None:
        """What it has of everything."""
        number, profile = self.number, self._pool.profile
        self._edges = edges
        usable_s = np.diff(self._speed.done_s(edges))
        self._merged = merged(edges)
        merged_s = np.bincount(self._merged, usable_s).astype(np.float64)
        several = [""] if len(self._lines) == 1 else [f".{index}" for index in range(len(self._lines))]
        self._seconds = [held.add(f"{number}.seconds{one}", usable_s) for one in several]
        self._seconds_merged = [held.add(f"{number}.seconds{one}.merged", merged_s) for one in several]
        nothing = np.zeros_like(usable_s)
        self._slots = held.add(f"{number}.slots", nothing)
        self._tokens = held.add(f"{number}.tokens", nothing)
        has = [float(slots_of(self._pool)), float(profile.batch_tokens)]
        resources = [self._slots, self._tokens]
        if self._tight:
            self._kv = held.add(f"{number}.kv", nothing)
            self._kv_merged = held.add(f"{number}.kv.merged", np.zeros_like(merged_s))
            has += [float(profile.kv_tokens)] * 2
            resources += [self._kv, self._kv_merged[self._merged]]
        times = [line.iteration_s for line in self._lines]
        seconds = [*self._seconds, *(one[self._merged] for one in self._seconds_merged)]
        for span in range(len(usable_s)):
            most = float(usable_s[span]) / max(times) if max(times) > 0.0 else inf
            rows = tuple(int(one[span]) for one in (*seconds, *resources))
            held.supply(rows, (*times, *times, *(-one for one in has)), most)

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
        at = overlapping(self._edges, from_s, to_s)
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
        at = overlapping(self._edges, from_s, to_s)
        several = np.unique(self._merged[at])
        rows = np.stack([one[several] for one in resources])
        return Part(rows, np.full(rows.shape, use), np.ones(len(several)))
