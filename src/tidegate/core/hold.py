"""Late binding: what is held here, in which order it will start, and what is sent away so that the rest is in time.

Our own engines are not filled beyond the concurrency at which they are efficient; the rest waits here, ordered by the
latest start that still keeps its promise. The schedule of the held work is predicted; where something in it would be
late, work is sent away until it is not, chosen among what still arrives in time elsewhere (decision model, section 6).
"""

from heapq import heapify, heapreplace

import msgspec

from tidegate.core.estimator import Base
from tidegate.core.model import Request
from tidegate.core.value import value_usd


class Item(msgspec.Struct):
    """One piece of work as the schedule sees it: our own endpoints it may wait for, others it may be sent to."""

    request: Request
    worth_usd: float
    own: dict[str, Base]
    away: dict[str, Base]
    latest_start_s: float


class Place(msgspec.Struct):
    """Where one piece of work is expected to go, and when it is bound."""

    endpoint: str
    start_s: float
    away: bool = False
    shed: bool = False


def latest_start_s(request: Request, own: dict[str, Base]) -> float:
    """The latest moment at which sending it to the quickest of our own still keeps its promise, at the quantile."""
    base = min(own.values(), key=lambda b: b.first_s)
    slo = request.slo
    latest_s = float("inf")
    if slo.ttft_s is not None:
        latest_s = request.arrived_s + slo.ttft_s - base.first_s_high
    if slo.e2e_s is not None:
        latest_s = min(latest_s, request.arrived_s + slo.e2e_s - base.first_s_high - base.decode_s)
    return latest_s


def schedule(
    items: list[Item], slots_s: dict[str, list[float]], rooms: dict[str, int], now_s: float
) -> dict[str, Place]:
    """Where each item goes, by request id.

    `slots_s`: when each slot of our own endpoints is free. `rooms`: how many more the others take. Neither is changed.
    """
    order = sorted(items, key=lambda i: (i.latest_start_s, i.request.arrived_s, i.request.id))
    table = _Table(order, slots_s, dict(rooms), now_s)
    settled: set[str] = set()
    # Each round sends something away or settles something as late, so the rounds are bounded by the items.
    while True:
        table.place()
        late = next((i for i in order if i.request.id not in settled and table.is_late(i)), None)
        if late is None:
            return table.places
        if not table.relieve(late):
            settled.add(late.request.id)


class _Table:
    """A schedule in the making."""

    def __init__(self, order: list[Item], slots_s: dict[str, list[float]], rooms: dict[str, int], now_s: float) -> None:
        self._order, self._slots_s, self._rooms, self._now_s = order, slots_s, rooms, now_s
        self._sent: dict[str, Place] = {}
        self.places: dict[str, Place] = {}

    def place(self) -> None:
        """Put every item that is not sent away on the slot that is free first, in order."""
        free = {name: list(slots) for name, slots in self._slots_s.items()}
        for slots in free.values():
            heapify(slots)
        self.places = dict(self._sent)
        for item in self._order:
            if item.request.id not in self._sent:
                name = min(item.own, key=lambda n: (free[n][0], n))
                start_s = max(free[name][0], self._now_s)
                heapreplace(free[name], start_s + item.own[name].occupies_s)
                self.places[item.request.id] = Place(name, start_s)

    def is_late(self, item: Item) -> bool:
        """Whether it would start here too late for its promise, at the quantile."""
        place = self.places[item.request.id]
        return not place.away and place.start_s > item.latest_start_s

    def relieve(self, late: Item) -> bool:
        """Send away `late` itself, or the cheapest work before it until it is in time: whichever gains more dollars.

        False where neither gains anything.
        """
        itself = self._exchange_usd(late)
        others, others_usd = self._make_way(late)
        if itself is not None and itself[0] > max(0.0, others_usd):
            self._send(late, itself[1], shed=False)
            return True
        if others_usd <= 0.0:
            return False
        for item, endpoint in others:
            self._send(item, endpoint, shed=True)
        return True

    def _make_way(self, late: Item) -> tuple[list[tuple[Item, str]], float]:
        """The cheapest work before `late` whose leaving lets it start in time, and what that gains."""
        place = self.places[late.request.id]
        own = late.own[place.endpoint]
        gained_usd = self._value(late, own, late.latest_start_s) - self._value(late, own, place.start_s)
        behind_s = place.start_s - late.latest_start_s
        rooms = dict(self._rooms)
        leaving: list[tuple[Item, str]] = []
        for item, usd, endpoint in self._cheapest_before(late, place.endpoint):
            if rooms[endpoint] > 0:
                rooms[endpoint] -= 1
                leaving.append((item, endpoint))
                gained_usd += usd
                behind_s -= item.own[place.endpoint].occupies_s / len(self._slots_s[place.endpoint])
                if behind_s <= 0.0:
                    return leaving, gained_usd
        return [], 0.0

    def _cheapest_before(self, late: Item, endpoint: str) -> list[tuple[Item, float, str]]:
        found = []
        for item in self._order:
            if item is late:
                break
            place = self.places[item.request.id]
            if not place.away and place.endpoint == endpoint:
                exchange = self._exchange_usd(item)
                if exchange is not None:
                    found.append((item, exchange[0], exchange[1]))
        return sorted(found, key=lambda f: (-f[1], f[0].request.id))

    def _exchange_usd(self, item: Item) -> tuple[float, str] | None:
        """What going to the best other endpoint now gains over staying in place, None where none has room."""
        best: tuple[float, str] | None = None
        for name, base in item.away.items():
            if self._rooms.get(name, 0) > 0:
                usd = self._value(item, base, self._now_s)
                if best is None or usd > best[0]:
                    best = (usd, name)
        if best is None:
            return None
        place = self.places[item.request.id]
        return best[0] - self._value(item, item.own[place.endpoint], place.start_s), best[1]

    def _send(self, item: Item, endpoint: str, *, shed: bool) -> None:
        self._rooms[endpoint] -= 1
        self._sent[item.request.id] = Place(endpoint, self._now_s, away=True, shed=shed)

    @staticmethod
    def _value(item: Item, base: Base, start_s: float) -> float:
        return value_usd(item.request, base, item.worth_usd, start_s - item.request.arrived_s)
