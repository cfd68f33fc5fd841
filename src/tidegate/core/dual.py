"""What a kept promise is worth where operators say how many of a class are to be kept.

The target is a constraint, and worth its dual variable: each promise that is missed makes all of the class worth a
little more, each that is kept a little less, by so much that they balance where as many are missed as may be. So worth
settles at what the last promise costs that has to be bought, whatever engines and prices are. It is learned from what
became of requests, and bounded by the most that operators would pay.
"""

from heapq import heapify, heappop, heappush
from math import exp, inf, log, sqrt
from typing import Final

import msgspec

from tidegate.core.classify import base_of
from tidegate.core.model import Judged, Request, replace
from tidegate.core.promise import ends_s

# How far one promise moves it, as a standard deviation where as many are kept as should be: so it wanders as much for
# one target as for another. At nine in ten, each that is missed makes the next ones worth 3 % more, and each that is
# kept 0.3 % less. In larger steps a queue that has formed overshoots, since it was decided before it was known; in
# smaller ones, hours pass until worth is found.
STEP: Final = 0.01
# A tenth of the most: with the usual bound, what classes are worth by default.
BEGINS: Final = -log(10.0)
# A thousandth of the most: there, nothing is bought.
LEAST: Final = -log(1000.0)
# Where nobody asks for as long, what was learned fades: the next to come may find another load. While requests come it
# does not, else a target of few requests would never be met.
SILENCE_S: Final = 600.0
HALF_LIFE_S: Final = 3600.0
# Classes are configured, and that many by nobody; those that a reload took out leave in the end.
CLASSES_MAX: Final = 256
# Of fewer, those that are over are not looked for.
_ENDS_MIN: Final = 64


class Dual(msgspec.Struct):
    """What a kept promise of a class is worth, as the logarithm of its share of the most: 0 is all of that.

    What is missed in one moment has `raised` it by so much, and what is kept has `lowered` it. Both count with their
    bounds when the moment is over, so that they have no order.
    """

    level: float = BEGINS
    raised: float = 0.0
    lowered: float = 0.0
    at_s: float = 0.0

    def learn(self, kept: bool, attainment: float, now_s: float) -> None:
        """Of one more request the promise was kept, or not, where this share of them has to be."""
        self.settle(now_s)
        missable = 1.0 - attainment
        step = STEP / sqrt(attainment * missable)
        if kept:
            self.lowered += step * missable
        else:
            self.raised += step * attainment

    def settle(self, now_s: float) -> None:
        """With a new moment, the one before is over."""
        if now_s > self.at_s:
            self.level, self.raised, self.lowered, self.at_s = self.level_at(now_s), 0.0, 0.0, now_s

    def level_at(self, now_s: float) -> float:
        """As far as is known now: what nobody has asked about for long goes back to where it began."""
        level = min(max(self.level + self.raised - self.lowered, LEAST), 0.0)
        silent_s = now_s - self.at_s - SILENCE_S
        if silent_s <= 0.0:
            return level
        return float(BEGINS + (level - BEGINS) * 0.5 ** (silent_s / HALF_LIFE_S))

    def share_at(self, now_s: float) -> float:
        """The share of the most that a kept promise is worth, from a thousandth to 1."""
        return exp(self.level_at(now_s))


class Duals:
    """What promises of classes with a target are worth. `hold`, `settle`, `judged` and `over` write, the rest reads.

    What is held beyond its promise is missed, however long it is held after that: it counts then, and is `overdue`
    until it is over. Else all that is kept would be known at once, and what is missed when it is too late.
    """

    __slots__ = ("_by_class", "_ends", "_held", "_overdue")

    def __init__(self, by_class: dict[str, Dual], overdue: dict[str, bool], held: dict[str, Request]) -> None:
        self._by_class, self._overdue, self._held = by_class, overdue, held
        # When the promises of what is held end, the next one first. Some of them may be held no more, or with another
        # promise.
        self._ends: list[tuple[float, str]] = []
        for one in held.values():
            self._add(one)

    def share(self, klass: str, now_s: float) -> float:
        """The share of the most that a kept promise of this class is worth."""
        dual = self._by_class.get(base_of(klass))
        return exp(BEGINS) if dual is None else dual.share_at(now_s)

    def priced(self, request: Request, now_s: float) -> Request:
        """The request with what it is worth now; what is late loses as much less, so that both weigh alike.

        One whose worth is given is what it was, and so is one that is priced.
        """
        if request.attainment is None:
            return request
        share = self.share(request.klass, now_s)
        return replace(
            request,
            attainment=None,
            worth_usd=share * request.worth_usd,
            worth_usd_per_1k_tokens=share * request.worth_usd_per_1k_tokens,
            late_usd_per_s=share * request.late_usd_per_s,
        )

    def hold(self, request: Request, now_s: float) -> None:
        """It waits from now on."""
        if request.attainment is not None:
            self._add(request)
            self.settle(now_s)

    def _add(self, request: Request) -> None:
        if request.attainment is None or (end_s := ends_s(request)) == inf:
            return  # what promises no time is not missed while it is held
        if len(self._ends) >= 2 * max(len(self._held), _ENDS_MIN):
            # Most are held no more, of promises that end in hours.
            self._ends = [end for end in self._ends if end[1] in self._held]
            heapify(self._ends)
        heappush(self._ends, (end_s, request.id))

    def settle(self, now_s: float) -> None:
        """What is held until now, and should have shown something before, has missed its promise: the one that it is
        held with, for the rest of an answer is promised later than its beginning was."""
        while self._ends and self._ends[0][0] <= now_s:
            request = self._held.get(heappop(self._ends)[1])
            if request is None or request.attainment is None or request.id in self._overdue:
                continue
            if ends_s(request) <= now_s:
                self._overdue[request.id] = True
                self._learn(request.klass, False, request.attainment, now_s)

    def judged(self, fact: Judged, now_s: float) -> None:
        """What became of a promise, unless that is known."""
        if self._overdue.pop(fact.request_id, None) is None and fact.kept is not None:
            self._learn(fact.klass, fact.kept, fact.attainment, now_s)

    def over(self, request_id: str) -> None:
        """It is over, and nothing is learned of it."""
        self._overdue.pop(request_id, None)

    def _learn(self, klass: str, kept: bool, attainment: float, now_s: float) -> None:
        name, known = base_of(klass), self._by_class
        dual = known.get(name)
        if dual is None:
            if len(known) >= CLASSES_MAX:
                del known[min(known, key=lambda one: (known[one].at_s, one))]
            dual = known[name] = Dual()
        dual.learn(kept, attainment, now_s)


def combined(one: Dual, other: Dual) -> Dual:
    """What two gateways have found for the same class: the more of both, since a target is a floor, as of the later."""
    at_s = max(one.at_s, other.at_s)
    return Dual(level=max(one.level_at(at_s), other.level_at(at_s)), at_s=at_s)


def fault(by_class: dict[str, Dual]) -> str:
    """What is wrong with them, empty where nothing is."""
    if len(by_class) > CLASSES_MAX:
        return f"has {len(by_class)} classes, and {CLASSES_MAX} at most are kept"
    for name, dual in by_class.items():
        if not LEAST <= dual.level <= 0.0:
            return f"of class `{name}` is more than the most, or less than a thousandth of it"
        if not (0.0 <= dual.raised < inf and 0.0 <= dual.lowered < inf):
            return f"of class `{name}` moves the wrong way, or without bounds"
    return ""
