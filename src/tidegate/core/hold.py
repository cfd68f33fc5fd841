"""Late binding: what is held here, in which order it will start, and what is sent away so that the rest is in time.

Our own engines are not filled beyond the concurrency at which they are efficient; the rest waits here, ordered by the
latest start that still keeps its promise. The schedule of the held work is predicted; where something in it would be
late, work is sent away until it is not, chosen among what still arrives in time elsewhere (decision model, section 6).
"""

from bisect import insort
from collections.abc import Callable, Container, Iterable, Mapping
from itertools import zip_longest
from math import inf
from typing import Final

from tidegate.core.base import TO, Base
from tidegate.core.model import Request
from tidegate.core.starts import Item, Lane, Place, Placement, Pool, in_time
from tidegate.core.value import value_usd

# Sending more than this away for the sake of one late request is no relief; it also bounds the search.
LEAVING_MAX: Final = 8
# What could begin later by more than this, and still be in time, leaves the last free slot of an engine to who cannot
# wait. One slot: of none, one, two and three it lost least once little was left to the rest.
PATIENT_S: Final = 10.0


Elsewhere = Callable[[Request], list[tuple[float, str]]]


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
    `due` starts in any slot. Of its `places` there are none before it is settled."""

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
        # Those of ours that leave a slot to who cannot wait.
        self._spared = {name for name, pool in pools.items() if pool.headroom}
        self._sent: dict[str, Place] = {}
        self.places: dict[str, Place] = {}
        # What follows from the order and from what was sent away: where all the others go, and where they would go
        # without some of them, by their places in the order.
        self._gone: frozenset[int]
        self._patient: list[bool]
        self._run: Placement
        self._runs: dict[frozenset[int], Placement]
        self._stay_usd: dict[int, float]
        # By endpoint, those that may make way for what comes after the first so many of the order, dearest last.
        self._leaving: dict[str, list[_Rank]]
        self._looked: int

    def settle(self) -> None:
        """Place all, and send away what should be, until nothing is late that others could relieve."""
        self._begin()
        while needed := self._needed():
            # What can wait would wait for too long: no slot is left there to who may come.
            self._spared -= needed
            self._begin()
        index = 0
        # Each round sends something away or leaves an item behind, so the rounds are bounded by the items. Where nobody
        # has room for it, nothing is sent.
        while index < len(self._order) and max(self._rooms.values(), default=0) > 0:
            if self._starts_late(index) and self._relieve(index):
                self._begin()
            else:
                index += 1
        self.places = self._sent.copy()
        for index, item in enumerate(self._order):
            if index not in self._gone:
                self.places[item.request.id] = self._run.place(index)

    def reorder(self, order: list[Item]) -> None:
        """Another order for those that are here."""
        self._order = order

    def is_late(self, item: Item) -> bool:
        """Whether it would start here too late for its promise, at the quantile."""
        place = self.places[item.request.id]
        return not place.away and not in_time(item, place)

    def is_patient(self, item: Item) -> bool:
        """Whether it is in time though it began much later, and has not waited for its share already."""
        return item.request.id not in self._due and item.latest_start_s - self._now_s > PATIENT_S

    def _begin(self) -> None:
        """Every item that is not sent away goes where it shows content first, in order."""
        self._gone = frozenset([i for i, one in enumerate(self._order) if one.request.id in self._sent])
        self._patient = [bool(self._spared) and self.is_patient(one) for one in self._order]
        self._runs, self._stay_usd, self._leaving, self._looked = {}, {}, {}, 0
        self._run = self._without(frozenset())

    def _without(self, leaving: frozenset[int], begun: Placement | None = None) -> Placement:
        """Where the others go once these have left, by what is `begun` where nobody has looked yet."""
        run = self._runs.get(leaving)
        if run is None and begun is not None:
            run = self._runs[leaving] = begun
        if run is None:
            lanes = {
                name: Lane(name, pool, self._slots_s[name].copy(), self._now_s, headroom=name in self._spared)
                for name, pool in self._pools.items()
            }
            run = self._runs[leaving] = Placement(self._order, self._gone | leaving, self._patient, lanes)
        return run

    def _needed(self) -> set[str]:
        """Those that leave a slot, where something that can wait may go and would be late."""
        late = [i for i, patient in enumerate(self._patient) if patient and self._starts_late(i)]
        return {name for i in late for name in self._order[i].own if name in self._spared}

    def _starts_late(self, index: int) -> bool:
        return index not in self._gone and not in_time(self._order[index], self._run.place(index))

    def _relieve(self, late: int) -> bool:
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
            self._send(leaving.index, leaving.endpoint, shed=True)
        return True

    def _make_way(self, late: int) -> tuple[list["_Leaving"], float]:
        """The cheapest work before `late` whose leaving lets it start in time, and what that gains in dollars."""
        item, place = self._order[late], self._run.place(late)
        fit = item.own[place.endpoint]
        if fit.latest_start_s < self._now_s:
            return [], 0.0
        leaving = self._cheapest_before(late, place.endpoint)
        if not leaving:
            return [], 0.0
        in_time_usd = self._value(item, fit.base, fit.latest_start_s)
        return leaving, in_time_usd - self._stay(late) + sum(one.gain_usd for one in leaving)

    def _cheapest_before(self, late: int, endpoint: str) -> list["_Leaving"]:
        """Work before `late` without which it is in time, at the least loss; empty where that is not to be had."""
        self._look_until(late)
        found = [index for _, _, index in self._leaving.get(endpoint, ()) if self._makes_way(index, late)][:LEAVING_MAX]
        rooms, chosen = dict(self._rooms), dict[int, _Leaving]()
        run: Placement | None = None
        for index, following in zip_longest(found, found[1:]):
            # The best of the others may be full by now; the next best will do.
            exchange = self._exchange(index, rooms)
            if exchange is None:
                run = None
                continue
            gain_usd, elsewhere = exchange
            rooms[_asked(elsewhere)] -= 1
            chosen[index] = _Leaving(index, elsewhere, gain_usd)
            trial = self._without(frozenset(chosen), run)
            # What comes before the one that leaves next stays where it is.
            run = None if following is None else trial.without(following)
            if in_time(self._order[late], trial.place(late)):
                return self._without_needless(late, chosen)
        return []

    def _look_until(self, late: int) -> None:
        """Who of those before it may leave, for what it gains by the second of an engine that becomes free."""
        for index in range(self._looked, late):
            if index not in self._gone and (exchange := self._exchange(index, self._rooms)) is not None:
                item, endpoint = self._order[index], self._run.place(index).endpoint
                takes_s = item.own[endpoint].takes_s(self._pools[endpoint].slots)
                insort(self._leaving.setdefault(endpoint, []), (-exchange[0] / takes_s, item.request.id, index))
        self._looked = late

    def _makes_way(self, index: int, late: int) -> bool:
        """Whether it may be sent away for the sake of the other one: not where its own tenant has had less."""
        one, other = self._order[index].request, self._order[late].request
        return self._tags is None or one.key == other.key or self._tags[one.id] >= self._tags[other.id]

    def _without_needless(self, late: int, chosen: dict[int, "_Leaving"]) -> list["_Leaving"]:
        """What has to leave after all: the dearest without which `late` is in time as well stay."""
        for index in sorted(chosen, key=lambda i: (chosen[i].gain_usd, self._order[i].request.id)):
            kept = {i: one for i, one in chosen.items() if i != index}
            if self._helps(late, kept):
                chosen = kept
        return list(chosen.values())

    def _helps(self, late: int, leaving: Iterable[int]) -> bool:
        """Whether `late` starts in time once these have left."""
        return in_time(self._order[late], self._without(frozenset(leaving)).place(late))

    def _exchange(self, index: int, rooms: dict[str, int]) -> tuple[float, str] | None:
        """What going to the best other endpoint now gains over staying in place, None where none has room."""
        item = self._order[index]
        if item.elsewhere is None:
            item.elsewhere = self._value_elsewhere(item.request)
        for usd, name in item.elsewhere:
            if rooms[_asked(name)] > 0:
                return usd - self._stay(index), name
        return None

    def _stay(self, index: int) -> float:
        usd = self._stay_usd.get(index)
        if usd is None:
            item, place = self._order[index], self._run.place(index)
            usd = self._stay_usd[index] = self._value(item, item.own[place.endpoint].base, place.feared_s)
        return usd

    def _send(self, index: int, endpoint: str, *, shed: bool) -> None:
        self._rooms[_asked(endpoint)] -= 1
        place = Place(endpoint, self._now_s, self._now_s, self._now_s, away=True, shed=shed)
        self._sent[self._order[index].request.id] = place

    @staticmethod
    def _value(item: Item, base: Base, start_s: float) -> float:
        return value_usd(item.request, base, item.worth_usd, start_s - item.request.arrived_s)


_Rank = tuple[float, str, int]
"""Sorts who gains most first by leaving: what that loses by the second that becomes free, its id, and its place in the
order."""


class _Leaving:
    """Work that could go elsewhere, by its place in the order, and what that gains in dollars."""

    __slots__ = ("endpoint", "gain_usd", "index")

    def __init__(self, index: int, endpoint: str, gain_usd: float) -> None:
        self.index = index
        self.endpoint = endpoint
        self.gain_usd = gain_usd


def _asked(name: str) -> str:
    """Of an endpoint or a handover, the endpoint that is asked."""
    return name.partition(TO)[0]
