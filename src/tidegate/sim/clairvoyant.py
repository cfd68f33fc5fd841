"""What can be reached: a schedule found by somebody who knows everything, and plays the same day again and again.

Each day shows who was late. On the next one that work is sent away, or cheaper work before it that takes as long; and
where there was time to spare, dear work is brought back.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from random import Random

import msgspec

from tidegate.sim.needs import Need, Piece, Pool, lines, need, slots_of
from tidegate.sim.outcome import Outcome
from tidegate.sim.planned import Plan

Play = Callable[[Plan], list[Outcome]]
"""What becomes of the same work under this plan."""

# Who waits no longer than that did not wait: the iteration under way, and those who came at the same time.
_WAITED_S = 0.05
# So many times what was tried is mended, before it goes on from the best.
_MENDED_MAX = 2
# How much is brought back at once: less after it was too much, more after it was not.
_BOLD, _BOLDER, _MEEKER = 0.5, 1.4, 0.6
# Where so many of those who were late had their first token in time, the engine runs fewer at once.
_SLOW_SHARE = 0.5


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The best plan, what it was worth in dollars when it was played, and after how many plays it was found."""

    plan: Plan
    usd: float
    plays: int


def value_usd(outcomes: Sequence[Outcome], pieces: Mapping[str, Piece]) -> float:
    """Worth of promises that were kept, less what was paid, and less the remote's price for what was not served."""
    return sum(
        pieces[one.request.id].worth_usd * one.kept
        - one.usd
        - (0.0 if one.outcome == "ok" else pieces[one.request.id].remote_usd)
        for one in sorted(outcomes, key=lambda one: one.request.id)
    )


def search(
    pieces: Sequence[Piece],
    pools: Mapping[str, Pool],
    play: Play,
    *,
    local: Mapping[str, Sequence[float]],
    plays_max: int = 24,
    seed: int = 0,
) -> Found:
    """The best plan of those that were played, at most so many.

    `pools` are by the names of their endpoints, and numbered in their order; `local` are the shares that a bound has of
    each request on them, in the same order. Played are first: everything away, everything here, and the bound's plan.
    """
    assert plays_max >= 3, "the simple plans come first"
    return _Search(pieces, pools, play, local, seed).run(plays_max)


class _Seen(msgspec.Struct):
    """A request that was served here: how long it waited, and how much later it could have been."""

    piece: Piece
    place: str
    waited_s: float
    spare_s: float


class _Day(msgspec.Struct):
    """A plan that was played."""

    places: dict[str, str]
    running: dict[str, int]
    outcomes: list[Outcome]
    usd: float


class _Search:
    def __init__(
        self,
        pieces: Sequence[Piece],
        pools: Mapping[str, Pool],
        play: Play,
        local: Mapping[str, Sequence[float]],
        seed: int,
    ) -> None:
        self._pieces = sorted(pieces, key=lambda piece: (piece.arrived_s, piece.id))
        self._pools, self._play, self._local = pools, play, local
        self._random = Random(seed)
        self._needs = {
            name: _needs([piece for piece in self._pieces if piece.may_go_to(number)], pool)
            for number, (name, pool) in enumerate(pools.items())
        }
        self._seconds = {
            name: {id: _seconds(one, pools[name]) for id, one in needs.items()} for name, needs in self._needs.items()
        }
        self._by_id = {piece.id: piece for piece in pieces}
        self._best: Found | None = None
        self._plays = 0

    def run(self, plays_max: int) -> Found:
        """Play, and change what did not go well."""
        slots = {name: slots_of(pool) for name, pool in self._pools.items()}
        everything = {piece.id: name for piece in self._pieces if (name := self._quickest(piece)) is not None}
        best = _Day({}, slots, [], -inf)
        for places in ({}, everything, self._rounded()):
            best = max(best, self._day(places, slots), key=lambda day: day.usd)
        bold = _BOLD
        latest, mended = best, 0
        while self._plays < plays_max:
            if latest is best:
                latest = self._day(self._changed(latest, bold), self._fewer(latest))
            elif mended < _MENDED_MAX and any(not one.kept for one in latest.outcomes):
                latest, mended = self._day(self._changed(latest, 0.0), latest.running), mended + 1
            else:
                latest, mended, bold = best, 0, bold * _MEEKER
                continue
            if latest.usd > best.usd:
                bold *= _BOLDER if mended == 0 else 1.0
                best, mended = latest, 0
        assert self._best is not None
        return self._best

    def _day(self, places: dict[str, str], running: dict[str, int]) -> "_Day":
        starts_by_s = {
            piece.id: piece.arrived_s + piece.first_by_s - self._needs[places[piece.id]][piece.id].first_s
            for piece in self._pieces
            if piece.id in places
        }
        made = Plan(places=dict(places), starts_by_s=starts_by_s, running=running)
        outcomes = self._play(made)
        self._plays += 1
        usd = value_usd(outcomes, self._by_id)
        if self._best is None or usd > self._best.usd:
            self._best = Found(plan=made, usd=usd, plays=self._plays)
        return _Day(places, running, outcomes, usd)

    def _quickest(self, piece: Piece) -> str | None:
        """The pool of which it takes least; None where none may serve it, or it fits none."""
        fits = [(seconds[piece.id], name) for name, seconds in self._seconds.items() if piece.id in seconds]
        return min(fits)[1] if fits else None

    def _rounded(self) -> dict[str, str]:
        """Where most of each request is in the bound's plan."""
        names, places = list(self._pools), {}
        for piece in self._pieces:
            shares = self._local.get(piece.id, ())
            if sum(shares) >= 0.5:
                places[piece.id] = names[max(range(len(shares)), key=lambda at: (shares[at], -at))]
        return places

    # --- the next day -------------------------------------------------------------------------------------------------

    def _changed(self, day: "_Day", bold: float) -> dict[str, str]:
        """Late work leaves, and where time was to spare, some comes back, the more the bolder."""
        changed = dict(day.places)
        by_id = {one.request.id: one for one in day.outcomes}
        for name in self._pools:
            seen = [self._seen(one, name, by_id[one.id]) for one in self._pieces if day.places.get(one.id) == name]
            sent = self._relieve(seen)
            for id in sent:
                del changed[id]
            if bold > 0.0:
                away = [one for one in self._pieces if one.id not in day.places and one.id in self._needs[name]]
                # Some of them: each day others.
                away = [one for one in away if self._random.random() < bold]
                for id in self._fill(seen, sent, away, name, bold):
                    changed.setdefault(id, name)
        return changed

    def _fewer(self, day: "_Day") -> dict[str, int]:
        """How many run at once on the next day."""
        late = [one for one in day.outcomes if one.request.id in day.places and one.outcome == "ok" and not one.kept]
        by_id = {piece.id: piece for piece in self._pieces}
        running = dict(day.running)
        for name, slots in running.items():
            here = [one for one in late if one.endpoint == name]
            slow = [one for one in here if one.ttft_s is not None and one.ttft_s <= by_id[one.request.id].first_by_s]
            if here and len(slow) > _SLOW_SHARE * len(here):
                running[name] = max(1, slots - max(1, slots // 8))
        return running

    def _seen(self, piece: Piece, name: str, one: Outcome) -> _Seen:
        least_s = self._needs[name][piece.id].first_s
        ttft_s = inf if one.ttft_s is None else one.ttft_s
        spare_s = piece.first_by_s - ttft_s
        tpot_s = one.tpot_s
        if tpot_s is not None and piece.token_by_s < inf:
            # What is late in its tokens is late too, by as much as would have helped.
            spare_s = min(
                spare_s, (piece.token_by_s - tpot_s) * (one.output_tokens - 1) if tpot_s > piece.token_by_s else inf
            )
        return _Seen(piece, name, ttft_s - least_s, spare_s)

    def _relieve(self, seen: list[_Seen]) -> set[str]:
        """Whom to send away for those who were late: them, or cheaper work before them that takes as long.

        What leaves makes all that comes after it earlier by as much, until nobody waits any more.
        """
        sent: set[str] = set()
        begins, relief_s = 0, 0.0
        for number, one in enumerate(seen):
            relief_s = min(relief_s, one.waited_s)
            if one.waited_s <= _WAITED_S:
                begins = number
            seconds = self._seconds[one.place]
            lacking_s = min(seconds[one.piece.id], -one.spare_s - relief_s)
            if lacking_s <= 0.0 or one.piece.id in sent:
                continue
            usd = self._saved_usd(one.piece)
            chosen, freed_s = list[str](), 0.0
            before = [other for other in seen[begins:number] if other.piece.id not in sent and other.piece.remote_kept]
            before.sort(key=lambda other: (self._usd_per_s(other.piece, other.place), other.piece.id))
            for other in before:
                usd -= self._saved_usd(other.piece)
                if freed_s >= lacking_s or usd <= 0.0:
                    break
                chosen.append(other.piece.id)
                freed_s += seconds[other.piece.id]
            if freed_s < lacking_s:
                chosen = [one.piece.id] if one.piece.remote_kept else []
                freed_s = seconds[one.piece.id] * len(chosen)
            sent.update(chosen)
            relief_s += freed_s
        return sent

    def _fill(self, seen: list[_Seen], sent: set[str], away: list[Piece], name: str, bold: float) -> list[str]:
        """Whom to bring back: dear work first, where all that waits behind it has time for that."""
        stays = [one for one in seen if one.piece.id not in sent]
        times = [one.piece.arrived_s for one in stays]
        spare = [max(0.0, one.spare_s) for one in stays]
        found = []
        away.sort(key=lambda piece: (-self._usd_per_s(piece, name), piece.id))
        for piece in away:
            seconds = self._seconds[name][piece.id] / bold
            first = next((at for at, at_s in enumerate(times) if at_s >= piece.arrived_s), len(times))
            last = first
            while last < len(times) and (stays[last].waited_s > _WAITED_S or last == first):
                last += 1
            if all(spare_s > seconds for spare_s in spare[max(0, first - 1) : last]):
                found.append(piece.id)
                for at in range(first, last):
                    spare[at] -= seconds
        return found

    def _usd_per_s(self, piece: Piece, name: str) -> float:
        """What a second of the engine's time saves that it serves this."""
        return self._saved_usd(piece) / max(1e-9, self._seconds[name][piece.id])

    @staticmethod
    def _saved_usd(piece: Piece) -> float:
        return min(piece.worth_usd, piece.remote_usd) if piece.remote_kept else piece.worth_usd


def _needs(pieces: Sequence[Piece], pool: Pool) -> dict[str, Need]:
    iteration = lines(pool.profile)
    found = {piece.id: need(piece, pool.profile, iteration, tight=False) for piece in pieces}
    return {id: one for id, one in found.items() if one is not None}


def _seconds(one: Need, pool: Pool) -> float:
    """Of the engine's time, in a full batch."""
    slots, line = slots_of(pool), lines(pool.profile)[0]
    prefill_s = one.prompt_tokens * (line.prompt_token_s + line.iteration_s / pool.profile.batch_tokens)
    decode_s = one.decodes * (line.decoded_token_s + line.iteration_s / slots)
    return prefill_s + one.prefill_s + one.prefill_growth_s + decode_s + one.decode_s + one.decode_growth_s
