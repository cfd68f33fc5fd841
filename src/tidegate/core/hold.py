"""Late binding: what is held here, in which order it will start, and what is sent away so that the rest is in time.

Our own engines are not filled beyond the concurrency at which they are efficient; the rest waits here, ordered by the
latest start that still keeps its promise. The schedule of the held work is predicted; where something in it would be
late, work is sent away until it is not, chosen among what still arrives in time elsewhere (decision model, section 6).
"""

from bisect import insort
from collections.abc import Callable, Container, Mapping
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import Final

import msgspec

from tidegate.core.base import TO, Base
from tidegate.core.memory import Spare, kv_tokens_needed
from tidegate.core.model import Request
from tidegate.core.value import value_usd

# Sending more than this away for the sake of one late request is no relief; it also bounds the search.
LEAVING_MAX: Final = 8
# By so much longer than expected a wait is reckoned with: by then nobody else may be in time any more. Of 0, 0.15, 0.3
# and 0.6 it was worth most in development worlds of bench/policy.py.
LONGER: Final = 0.15
# What could begin later by more than this, and still be in time, leaves the last free slot of an engine to who cannot
# wait. One slot: of none, one, two and three it lost least once little was left to the rest.
PATIENT_S: Final = 10.0


class Fit(msgspec.Struct):
    """How one piece of work fits one of our own endpoints: how long it takes a slot, how much memory it takes, and from
    when on it is late.
    """

    base: Base
    first_s: float
    occupies_s: float
    latest_start_s: float
    kv_tokens: int

    def takes_s(self, slots: int) -> float:
        """How long it takes the engine: its share of the time in a slot, and all of its prompt."""
        return self.occupies_s / slots + self.base.prompt_s


class Item(msgspec.Struct):
    """One piece of work as the schedule sees it: its fit to each of our own endpoints that it may wait for.

    Where it is `ruled`, operators' rules would rather have it at some of them than at others.
    `elsewhere` are the other endpoints it may be sent to now, each with what that is worth in dollars, best first;
    None until somebody asks.
    """

    request: Request
    worth_usd: float
    own: dict[str, Fit]
    latest_start_s: float
    elsewhere: list[tuple[float, str]] | None = None
    ruled: bool = False


class Place(msgspec.Struct):
    """Where one piece of work is expected to go, and when it is bound. `shed`: for the sake of another.

    At one of ours it is expected to fare as if it had started at `as_if_s` with as many prompts before it as are there
    now: later than `start_s` where those before it leave more, sooner where they leave less. `feared_s` is the same
    should the wait be longer. It is `behind` where it waits for the sake of a tenant that has had less, and `owed`
    where it starts in the share that is kept for those who are late or were promised nothing.
    """

    endpoint: str
    start_s: float
    as_if_s: float
    feared_s: float
    away: bool = False
    shed: bool = False
    behind: bool = False
    owed: bool = False


class Pool(msgspec.Struct):
    """What one of our own endpoints has: when each slot is free, and its memory, where that is known.

    The prompts that it was given are computed by `prompts_done_s`, and work starts there `ahead_s` before that at the
    soonest: the engine never idles, and what is not needed yet can still go elsewhere. With `headroom`, what can wait
    leaves one slot to who cannot.
    """

    slots_s: list[float]
    spare: Spare | None = None
    prompts_done_s: float = -inf
    ahead_s: float = 0.0
    headroom: bool = False


Elsewhere = Callable[[Request], list[tuple[float, str]]]


def item(
    request: Request, worth_usd: float, own: dict[str, Base], elsewhere: list[tuple[float, str]] | None = None
) -> Item:
    """A piece of work that may wait for `own`; its place in the order is that of the quickest of them."""
    fits = {
        name: Fit(b, b.first_s, b.occupies_s, latest_start_s(request, b), kv_tokens_needed(request, b.length))
        for name, b in own.items()
    }
    ruled = bool(request.rulings) and any(base.rule_usd for base in own.values())
    return Item(request, worth_usd, fits, max(f.latest_start_s for f in fits.values()), elsewhere, ruled)


def latest_start_s(request: Request, base: Base) -> float:
    """The latest moment at which sending it there still keeps its promise, at the quantile."""
    slo = request.slo
    latest_s = float("inf")
    if slo.ttft_s is not None or slo.e2e_s is not None:
        first_s_high = base.first_s_high
        if slo.ttft_s is not None:
            latest_s = request.arrived_s + slo.ttft_s - first_s_high
        if slo.e2e_s is not None:
            latest_s = min(latest_s, request.arrived_s + slo.e2e_s - first_s_high - base.decode_s)
    return latest_s


def schedule(
    items: list[Item],
    pools: Mapping[str, Pool],
    rooms: dict[str, int],
    elsewhere: Elsewhere,
    now_s: float,
) -> dict[str, Place]:
    """Where each item goes, by request id. `pools` are our own endpoints, `rooms` how many more the others take.

    None of them is changed.
    """
    table = Table(ranked(items, now_s), pools, dict(rooms), elsewhere, now_s)
    table.settle()
    return table.places


def ranked(items: list[Item], now_s: float) -> list[Item]:
    """In the order of their promises."""
    return sorted(items, key=lambda i: (turn(i, now_s), i.latest_start_s, i.request.arrived_s, i.request.id))


def turn(item: Item, now_s: float) -> int:
    """Who can still be in time goes first, then who is late already, and last who was promised nothing."""
    if item.latest_start_s < now_s:
        return 1
    return 2 if item.latest_start_s == inf else 0


class Table:
    """A schedule in the making. Who has a lower one of the `tags` does not make way for another tenant, and who is
    `due` starts in any slot."""

    def __init__(
        self,
        order: list[Item],
        pools: Mapping[str, Pool],
        rooms: dict[str, int],
        elsewhere: Elsewhere,
        now_s: float,
        tags: Mapping[str, float] | None = None,
        due: Container[str] = (),
    ) -> None:
        self._order, self._pools, self._rooms, self._now_s = order, pools, rooms, now_s
        # Each pool's slots, none of them free before now; in order, they are a heap.
        self._slots_s = {name: sorted([max(at_s, now_s) for at_s in pool.slots_s]) for name, pool in pools.items()}
        self._value_elsewhere, self._tags = elsewhere, tags
        self._due = due
        self.headroom = any(pool.headroom for pool in pools.values()) and any(self.is_patient(one) for one in order)
        self._sent: dict[str, Place] = {}
        self._stay_usd: dict[str, float] = {}
        self.places: dict[str, Place] = {}

    def settle(self) -> None:
        """Place all, and send away what should be, until nothing is late that others could relieve."""
        self.place()
        if self.headroom and any(self.is_patient(one) and self.is_late(one) for one in self._order):
            # What can wait would wait for too long: no slot is left to who may come.
            self.headroom = False
            self.place()
        index = 0
        # Each round sends something away or leaves an item behind, so the rounds are bounded by the items.
        while index < len(self._order):
            if self.is_late(self._order[index]) and self.relieve(self._order[index]):
                self.place()
            else:
                index += 1

    def reorder(self, order: list[Item]) -> None:
        """Another order for those that are here."""
        self._order = order

    def place(self) -> None:
        """Put every item that is not sent away where it shows content first, in order."""
        lanes = self._lanes()
        self._stay_usd = {}
        self.places = places = dict(self._sent)
        for item in self._order:
            if item.request.id not in self._sent:
                places[item.request.id] = self._take(item, lanes)

    def is_late(self, item: Item) -> bool:
        """Whether it would start here too late for its promise, at the quantile."""
        place = self.places[item.request.id]
        return not place.away and place.feared_s > item.own[place.endpoint].latest_start_s

    def is_patient(self, item: Item) -> bool:
        """Whether it is in time though it began much later, and has not waited for its share already."""
        return item.request.id not in self._due and item.latest_start_s - self._now_s > PATIENT_S

    def relieve(self, late: Item) -> bool:
        """Send away `late` itself, or the cheapest work before it that lets it be in time: whichever gains more.

        False where neither gains a dollar.
        """
        itself = self._exchange(late, self._rooms)
        others, others_usd = self._make_way(late)
        if itself is not None and itself[0] > max(0.0, others_usd):
            self._send(late, itself[1], shed=False)
            return True
        if others_usd <= 0.0:
            return False
        for leaving in others:
            self._send(leaving.item, leaving.endpoint, shed=True)
        return True

    def _make_way(self, late: Item) -> tuple[list["_Leaving"], float]:
        """The cheapest work before `late` whose leaving lets it start in time, and what that gains in dollars."""
        place = self.places[late.request.id]
        fit = late.own[place.endpoint]
        if fit.latest_start_s < self._now_s:
            return [], 0.0
        leaving = self._cheapest_before(late, place.endpoint)
        if not leaving:
            return [], 0.0
        in_time_usd = self._value(late, fit.base, fit.latest_start_s)
        return leaving, in_time_usd - self._stay(late) + sum(one.gain_usd for one in leaving)

    def _cheapest_before(self, late: Item, endpoint: str) -> list["_Leaving"]:
        """Work before `late` without which it is in time, at the least loss; empty where that is not to be had."""
        found = []
        for item in self._order:
            if item is late:
                break
            place = self.places[item.request.id]
            if not place.away and place.endpoint == endpoint and self._makes_way(item, late):
                exchange = self._exchange(item, self._rooms)
                if exchange is not None:
                    found.append(_Leaving(item, exchange[1], exchange[0]))
        slots = len(self._pools[endpoint].slots_s)
        found.sort(key=lambda one: (-one.gain_usd / one.item.own[endpoint].takes_s(slots), one.item.request.id))
        rooms, chosen = dict(self._rooms), dict[str, _Leaving]()
        for one in found[:LEAVING_MAX]:
            # The best of the others may be full by now; the next best will do.
            exchange = self._exchange(one.item, rooms)
            if exchange is not None:
                one.gain_usd, one.endpoint = exchange
                rooms[_asked(one.endpoint)] -= 1
                chosen[one.item.request.id] = one
                if self._in_time(late, chosen):
                    return self._without_needless(late, chosen)
        return []

    def _makes_way(self, item: Item, late: Item) -> bool:
        """Whether it may be sent away for the sake of the other one: not where its own tenant has had less."""
        if self._tags is None or item.request.key == late.request.key:
            return True
        return self._tags[item.request.id] >= self._tags[late.request.id]

    def _without_needless(self, late: Item, chosen: dict[str, "_Leaving"]) -> list["_Leaving"]:
        """What has to leave after all: the dearest without which `late` is in time as well stay."""
        for name in sorted(chosen, key=lambda name: (chosen[name].gain_usd, name)):
            kept = {n: one for n, one in chosen.items() if n != name}
            if self._in_time(late, kept):
                chosen = kept
        return list(chosen.values())

    def _in_time(self, late: Item, leaving: Container[str]) -> bool:
        """Whether `late` starts in time once these have left."""
        lanes = self._lanes()
        for item in self._order:
            if item.request.id not in self._sent and item.request.id not in leaving:
                place = self._take(item, lanes)
                if item is late:
                    return place.feared_s <= item.own[place.endpoint].latest_start_s
        raise AssertionError("what is late has not left")

    def _take(self, item: Item, lanes: dict[str, "_Lane"]) -> Place:
        """Where it shows content first, with its place there taken."""
        headroom = self.headroom and self.is_patient(item)
        name = _seat(item, lanes, headroom)
        return Place(name, *lanes[name].take(item.own[name], headroom))

    def _lanes(self) -> dict[str, "_Lane"]:
        """What each of our own endpoints has, with nothing of this placed yet."""
        return {name: _Lane(pool, self._slots_s[name].copy(), self._now_s) for name, pool in self._pools.items()}

    def _exchange(self, item: Item, rooms: dict[str, int]) -> tuple[float, str] | None:
        """What going to the best other endpoint now gains over staying in place, None where none has room."""
        if item.elsewhere is None:
            item.elsewhere = self._value_elsewhere(item.request)
        for usd, name in item.elsewhere:
            if rooms[_asked(name)] > 0:
                return usd - self._stay(item), name
        return None

    def _stay(self, item: Item) -> float:
        usd = self._stay_usd.get(item.request.id)
        if usd is None:
            place = self.places[item.request.id]
            usd = self._value(item, item.own[place.endpoint].base, place.feared_s)
            self._stay_usd[item.request.id] = usd
        return usd

    def _send(self, item: Item, endpoint: str, *, shed: bool) -> None:
        self._rooms[_asked(endpoint)] -= 1
        self._sent[item.request.id] = Place(endpoint, self._now_s, self._now_s, self._now_s, away=True, shed=shed)

    @staticmethod
    def _value(item: Item, base: Base, start_s: float) -> float:
        return value_usd(item.request, base, item.worth_usd, start_s - item.request.arrived_s)


class _Leaving(msgspec.Struct):
    """Work that could go elsewhere, and what that gains in dollars."""

    item: Item
    endpoint: str
    gain_usd: float


class _Lane:
    """When one endpoint can begin with work: once a slot is free, and memory.

    What waits for memory is not overtaken there by what comes after it: else what needs much would never begin.
    """

    __slots__ = (
        "_ahead_s",
        "_begun_s",
        "_done_s",
        "_ends",
        "_free_tokens",
        "_headroom",
        "_now_s",
        "_place",
        "_queue_s",
        "_slots_s",
        "_tokens_max",
    )

    def __init__(self, pool: Pool, slots_s: list[float], now_s: float) -> None:
        """`slots_s` is a heap of when each slot is free, and this lane's own."""
        self._slots_s = slots_s
        self._now_s, self._ahead_s = now_s, pool.ahead_s
        self._headroom = pool.headroom and len(self._slots_s) > 1
        # When all prompts are computed, with those that were placed; and how long that takes once a slot is free.
        self._done_s = pool.prompts_done_s
        self._queue_s = pool.prompts_done_s - self._slots_s[0]
        self._begun_s = now_s
        self._tokens_max: float = inf
        self._free_tokens: float = inf
        self._ends: list[tuple[float, int]] = []
        # Of the ends, how many are counted in what is free.
        self._place = 0
        if (spare := pool.spare) is not None:
            self._tokens_max, self._free_tokens = float(spare.tokens_max), float(spare.free_tokens)
            self._ends = list(spare.ends)

    def as_if_s(self, fit: Fit, headroom: bool) -> float:
        """As if it started then, with as many prompts before it as are there now. With `headroom` it leaves a slot."""
        start_s = self._next(min(float(fit.kv_tokens), self._tokens_max), headroom)[0]
        return start_s + self._prompts_s(fit, start_s) - fit.base.queue_s

    def take(self, fit: Fit, headroom: bool) -> tuple[float, float, float]:
        """Place it. When that starts, as if when, and the same should the wait be longer."""
        tokens = min(float(fit.kv_tokens), self._tokens_max)
        start_s, free_tokens, place = self._next(tokens, headroom)
        if place > self._place:
            self._begun_s, self._place = start_s, place
        self._free_tokens = free_tokens - tokens
        prompts_s = self._prompts_s(fit, start_s)
        if start_s <= self._now_s or not (headroom and self._headroom):
            # Whoever takes the slot that is left does not wait for prompts that come later.
            self._done_s = max(self._done_s, start_s) + fit.base.prompt_s
        as_if_s = start_s + prompts_s - fit.base.queue_s
        end_s = as_if_s + fit.occupies_s
        self._occupy(end_s, headroom)
        if self._tokens_max != inf:
            insort(self._ends, (end_s, int(tokens)), place)
        return start_s, as_if_s, as_if_s + LONGER * (start_s + prompts_s - self._now_s)

    def _occupy(self, until_s: float, headroom: bool) -> None:
        """Take the slot that is free first, or the next one."""
        if headroom and self._headroom:
            first_s = heappop(self._slots_s)
            heapreplace(self._slots_s, until_s)
            heappush(self._slots_s, first_s)
        else:
            heapreplace(self._slots_s, until_s)

    def _prompts_s(self, fit: Fit, start_s: float) -> float:
        """How long other prompts delay it there then. Were it the next, it would be for its `queue_s`: all that is left
        of them, or less where some are computed beside it."""
        share = 1.0 if self._queue_s <= 0.0 else min(1.0, fit.base.queue_s / self._queue_s)
        return share * max(0.0, self._done_s - start_s)

    def _next(self, tokens: float, headroom: bool) -> tuple[float, float, int]:
        """When so much is free beside a slot, how much then is, and how many ends have passed for that."""
        # In a heap, one of the next two is the second smallest.
        slot_s = min(self._slots_s[1:3]) if headroom and self._headroom else self._slots_s[0]
        start_s = max(slot_s, self._begun_s, self._done_s - self._ahead_s)
        free_tokens, place = self._free_tokens, self._place
        while free_tokens < tokens:
            end_s, freed = self._ends[place]
            start_s = max(start_s, end_s)
            free_tokens += freed
            place += 1
        return start_s, free_tokens, place


def _asked(name: str) -> str:
    """Of an endpoint or a handover, the endpoint that is asked."""
    return name.partition(TO)[0]


def _seat(item: Item, lanes: dict[str, _Lane], headroom: bool) -> str:
    """The endpoint of our own at which it shows content first; where rules prefer some, at which it is worth most."""
    own = item.own
    if len(own) == 1:
        return next(iter(own))
    if item.ruled:
        return min(own, key=lambda name: _loss(item, own[name], lanes[name].as_if_s(own[name], headroom), name))
    best, best_s = "", inf
    for name, fit in own.items():
        shown_s = lanes[name].as_if_s(fit, headroom) + fit.first_s
        if not best or shown_s < best_s or (shown_s == best_s and name < best):
            best, best_s = name, shown_s
    return best


def _loss(item: Item, fit: Fit, as_if_s: float, name: str) -> tuple[float, float, str]:
    """Sorts the endpoint first at which it is worth most, by when it would start there; then the quickest."""
    usd = value_usd(item.request, fit.base, item.worth_usd, as_if_s - item.request.arrived_s)
    return -usd, as_if_s + fit.first_s, name
