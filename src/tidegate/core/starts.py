"""When and where work starts at our own endpoints, in a given order: where all go if nobody is sent away.

`hold` decides who is; this knows slots, memory and the prompts before it.
"""

from bisect import insort
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import Final

import msgspec

from tidegate.core.base import Base
from tidegate.core.memory import Spare, kv_tokens_needed
from tidegate.core.model import Request
from tidegate.core.value import value_usd

# By so much longer than expected a wait is reckoned with: by then nobody else may be in time any more. Of 0, 0.15, 0.3
# and 0.6 it was worth most in development worlds of bench/policy.py.
LONGER: Final = 0.15


class Fit:
    """How one piece of work fits one of our own endpoints: how long it takes a slot, how much memory it takes, and from
    when on it is late. `queue_s`, `prompt_s` and `first_s` are those of its `base`.
    """

    __slots__ = ("base", "first_s", "kv_tokens", "latest_start_s", "occupies_s", "prompt_s", "queue_s")

    def __init__(self, request: Request, base: Base) -> None:
        self.base = base
        self.first_s, self.queue_s, self.prompt_s = base.first_s, base.queue_s, base.prompt_s
        self.occupies_s = base.occupies_s
        self.latest_start_s = latest_start_s(request, base)
        self.kv_tokens = kv_tokens_needed(request, base.length)

    def takes_s(self, slots: int) -> float:
        """How long it takes the engine: its share of the time in a slot, and all of its prompt."""
        return self.occupies_s / slots + self.prompt_s


Start = tuple[float, float, float, int]
"""When work starts at an endpoint, when the engine turns to its prompt, how much memory is free then, and how many ends
have passed for that."""


class Item:
    """One piece of work as the schedule sees it: its fit to each of our own endpoints that it may wait for.

    Where it is `ruled`, operators' rules would rather have it at some of them than at others.
    `elsewhere` are the other endpoints it may be sent to now, each with what that is worth in dollars, best first;
    None until somebody asks.
    """

    __slots__ = ("elsewhere", "latest_start_s", "own", "request", "ruled", "worth_usd")

    def __init__(
        self,
        request: Request,
        worth_usd: float,
        own: dict[str, Fit],
        latest_start_s: float,
        elsewhere: list[tuple[float, str]] | None = None,
        ruled: bool = False,
    ) -> None:
        self.request = request
        self.worth_usd = worth_usd
        self.own = own
        self.latest_start_s = latest_start_s
        self.elsewhere = elsewhere
        self.ruled = ruled


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


class Pool:
    """What one of our own endpoints has: how many `slots`, and when each is free, and its memory, where that is known.
    Of the slots those will do that are free first, one more than there is work.

    The prompts that it was given are computed by `prompts_done_s`, and work starts there `ahead_s` before that at the
    soonest: the engine never idles, and what is not needed yet can still go elsewhere. With `headroom`, what can wait
    leaves one slot to who cannot.
    """

    __slots__ = ("ahead_s", "headroom", "prompts_done_s", "slots", "slots_s", "spare")

    def __init__(
        self,
        slots_s: list[float],
        spare: Spare | None = None,
        prompts_done_s: float = -inf,
        ahead_s: float = 0.0,
        headroom: bool = False,
        slots: int | None = None,
    ) -> None:
        self.slots_s = slots_s
        self.slots = len(slots_s) if slots is None else slots
        self.spare = spare
        self.prompts_done_s = prompts_done_s
        self.ahead_s = ahead_s
        self.headroom = headroom


def item(
    request: Request, worth_usd: float, own: dict[str, Base], elsewhere: list[tuple[float, str]] | None = None
) -> Item:
    """A piece of work that may wait for `own`."""
    return fitted(request, worth_usd, {name: Fit(request, base) for name, base in own.items()}, elsewhere)


def fitted(
    request: Request, worth_usd: float, own: dict[str, Fit], elsewhere: list[tuple[float, str]] | None = None
) -> Item:
    """The same, where it is known how it fits them; its place in the order is that of the quickest of them."""
    latest_s = max([fit.latest_start_s for fit in own.values()])
    ruled = bool(request.rulings) and any(fit.base.rule_usd for fit in own.values())
    return Item(request, worth_usd, own, latest_s, elsewhere, ruled)


def latest_start_s(request: Request, base: Base) -> float:
    """The latest moment at which sending it there still keeps its promise, and safely so."""
    slo = request.slo
    latest_s = inf
    if slo.ttft_s is not None or slo.e2e_s is not None:
        first_s_safe = base.first_s_safe
        if slo.ttft_s is not None:
            latest_s = request.arrived_s + slo.ttft_s - first_s_safe
        if slo.e2e_s is not None:
            latest_s = min(latest_s, request.arrived_s + slo.e2e_s - first_s_safe - base.decode_s)
    return latest_s


class Placement:
    """Where all go that are not `leaving`, each where it shows content first. It is made as far as somebody asks: where
    one goes does not depend on those after it.
    """

    __slots__ = ("_lanes", "_leaving", "_order", "_patient", "_places")

    def __init__(
        self, order: list[Item], leaving: frozenset[int], patient: list[bool], lanes: dict[str, "Lane"]
    ) -> None:
        self._order, self._leaving, self._patient, self._lanes = order, leaving, patient, lanes
        self._places: list[Place | None] = []

    def place(self, index: int) -> Place:
        """Of one that is not leaving."""
        self._place_until(index + 1)
        place = self._places[index]
        assert place is not None, "it does not leave"
        return place

    def without(self, index: int) -> "Placement | None":
        """The same once this one has left as well; None where it has its place already."""
        if index < len(self._places):
            return None
        self._place_until(index)
        lanes = {name: lane.copy() for name, lane in self._lanes.items()}
        run = Placement(self._order, self._leaving | {index}, self._patient, lanes)
        run._places = self._places.copy()
        return run

    def _place_until(self, end: int) -> None:
        places = self._places
        for i in range(len(places), end):
            places.append(None if i in self._leaving else _take(self._order[i], self._lanes, self._patient[i]))


class Lane:
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
        "_name",
        "_now_s",
        "_place",
        "_pool",
        "_queue_s",
        "_slots_s",
        "_tokens_max",
    )

    def __init__(self, name: str, pool: Pool, slots_s: list[float], now_s: float, *, headroom: bool) -> None:
        """`slots_s` is a heap of when each slot is free, and this lane's own. Without `headroom` none is left."""
        self._name, self._pool, self._slots_s = name, pool, slots_s
        self._now_s, self._ahead_s = now_s, pool.ahead_s
        self._headroom = headroom and pool.slots > 1
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

    def copy(self) -> "Lane":
        """Another one with the same there."""
        lane = Lane(self._name, self._pool, self._slots_s.copy(), self._now_s, headroom=self._headroom)
        lane._done_s, lane._queue_s, lane._begun_s = self._done_s, self._queue_s, self._begun_s
        lane._free_tokens, lane._place, lane._ends = self._free_tokens, self._place, self._ends.copy()
        return lane

    def look(self, fit: Fit, headroom: bool) -> Start:
        """How it would start there next. With `headroom` it leaves a slot."""
        slots_s, done_s = self._slots_s, self._done_s
        # In a heap, one of the next two is the second smallest.
        start_s = min(slots_s[1:3]) if headroom and self._headroom else slots_s[0]
        if start_s < self._begun_s:
            start_s = self._begun_s
        if start_s < done_s - self._ahead_s:
            start_s = done_s - self._ahead_s
        # All that there are is enough for what needs more.
        tokens = min(float(fit.kv_tokens), self._tokens_max)
        free_tokens, place = self._free_tokens, self._place
        while free_tokens < tokens:
            end_s, freed = self._ends[place]
            if start_s < end_s:
                start_s = end_s
            free_tokens += freed
            place += 1
        shows_s = start_s
        if done_s > start_s:
            # Were it the next, other prompts would delay it for its `queue_s`: all that is left of them, or less where
            # some may come after it.
            # What it is not sent before is over by then.
            over_s = max(0.0, self._queue_s - self._ahead_s)
            left_s = self._queue_s - over_s
            share = 1.0 if left_s <= 0.0 else min(1.0, max(0.0, fit.queue_s - over_s) / left_s)
            shows_s += share * (done_s - start_s)
        return start_s, shows_s, free_tokens, place

    def as_if_s(self, fit: Fit, start: Start) -> float:
        """When it would have to be sent, to a queue as it is now, to show content then. Never before now: of what waits
        there of others, no more is gone by then than has had the time."""
        sent_s = start[1] - fit.queue_s
        return sent_s if sent_s > self._now_s else self._now_s

    def take(self, fit: Fit, start: Start, headroom: bool) -> Place:
        """It starts there so."""
        start_s, shows_s, free_tokens, place = start
        if place > self._place:
            self._begun_s, self._place = start_s, place
        tokens = min(float(fit.kv_tokens), self._tokens_max)
        self._free_tokens = free_tokens - tokens
        leaves = headroom and self._headroom
        if start_s <= self._now_s or not leaves:
            # Whoever takes the slot that is left does not wait for prompts that come later.
            self._done_s = (start_s if start_s > self._done_s else self._done_s) + fit.prompt_s
        as_if_s = self.as_if_s(fit, start)
        end_s = as_if_s + fit.occupies_s
        if leaves:
            # The slot that is free first stays free.
            first_s = heappop(self._slots_s)
            heapreplace(self._slots_s, end_s)
            heappush(self._slots_s, first_s)
        else:
            heapreplace(self._slots_s, end_s)
        if self._tokens_max != inf:
            insort(self._ends, (end_s, int(tokens)), place)
        return Place(self._name, start_s, as_if_s, as_if_s + LONGER * (shows_s - self._now_s))


def _take(item: Item, lanes: dict[str, Lane], headroom: bool) -> Place:
    """Where it shows content first, with its place there taken; where rules prefer some, where it is worth most."""
    best, best_s, best_usd, best_start = "", inf, -inf, (inf, inf, 0.0, 0)
    for name, fit in item.own.items():
        start = lanes[name].look(fit, headroom)
        as_if_s = lanes[name].as_if_s(fit, start)
        shown_s, usd = as_if_s + fit.first_s, 0.0
        if item.ruled:
            usd = value_usd(item.request, fit.base, item.worth_usd, as_if_s - item.request.arrived_s)
        # Most that wait may go to one place only.
        if not best or usd > best_usd or (usd == best_usd and (shown_s, name) < (best_s, best)):
            best, best_s, best_usd, best_start = name, shown_s, usd, start
    return lanes[best].take(item.own[best], best_start, headroom)


def in_time(item: Item, place: Place) -> bool:
    """Whether it starts in time at that place of ours, at the quantile."""
    return place.feared_s <= item.own[place.endpoint].latest_start_s
