"""The order in which requests that are held are looked at: by when their promises end, among tenants and classes."""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping
from math import inf
from typing import Final

from tidegate.core.model import Policy, Request
from tidegate.core.promise import ends_s
from tidegate.core.shares import PATIENCE_SHARE, Shares, flow_of

# Of those that wait for a model so many are scheduled, whose promises end first: more could not start soon, and a
# schedule has to be made while streams flow.
SCHEDULED_MAX: Final = 64
# Of so many at most it is asked first whether anything of ours can serve them at all.
ASKED_MAX: Final = 4 * SCHEDULED_MAX
# So many of these are looked at though others' promises end first, where they are late or were promised nothing and
# have waited for long: one of each starts at a time, at each endpoint.
REST_SEATS: Final = 8

_Turn = tuple[float, float, str]
"""When its promise ends, when it came, and its id."""


class Queue:
    """The `requests` that are held, by id. `add` and `remove` write, the rest reads."""

    __slots__ = ("_flow_of", "_flows", "_policy", "_shares", "_turns", "requests")

    def __init__(self, requests: dict[str, Request], shares: Shares, policy: Policy) -> None:
        self.requests = requests
        self._shares, self._policy = shares, policy
        # By model, whose turn is when.
        self._turns: dict[str, dict[str, _Turn]] = {}
        # By id, whose class of which tenant it is; and how many of that are held.
        self._flow_of: dict[str, str] = {}
        self._flows: dict[str, int] = {}
        for request in requests.values():
            self._line_up(request)

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether there are several tenants or classes in it."""
        return len(self._flows) > 1

    def is_shared_with(self, request: Request) -> bool:
        """Whether there are others in it than of this one's class and tenant."""
        return bool(self._flows) and self._flows.keys() != {flow_of(request)}

    def came_s(self, now_s: float) -> float:
        """Who came before that has waited for long."""
        return now_s - PATIENCE_SHARE * self._policy.hold_s_max

    def order(self, request: Request, now_s: float) -> tuple[bool, _Turn]:
        """Whose turn is before another's: first whose promise ends first, and last whose has ended."""
        turn = _turn(request)
        return turn[0] <= now_s, turn

    def held_for(self, models: Iterable[str]) -> int:
        """How many wait for one of these models."""
        return sum([len(self._turns[model]) for model in models if model in self._turns])

    def late(self, model: str, unserved: Container[str], now_s: float) -> int:
        """How many wait for this model whose promises have ended, but those that are `unserved`."""
        turns = self._turns.get(model, {})
        return sum([turn[0] <= now_s for name, turn in turns.items() if name not in unserved])

    def first(self, serves: Callable[[Request, float], bool], now_s: float) -> tuple[dict[str, Request], set[str]]:
        """Those that are looked at now: of each model those whose promises end first, and then whose have ended. And
        who would have been, were there anything of ours that `serves` it."""
        found: dict[str, Request] = {}
        unserved = set[str]()
        for turns in self._turns.values():
            names = list(turns)
            if len(names) > SCHEDULED_MAX:
                in_order = sorted(turns.values())
                past = bisect_left(in_order, now_s, key=_ends_s)
                served = self._served(in_order[past:] + in_order[:past], serves, unserved, now_s)
                names = self._of_each(served, now_s)
            found.update({name: self.requests[name] for name in names})
        return found, unserved

    def before(self, request: Request, unserved: Container[str], *, fairly: bool) -> int:
        """How many are scheduled before it: of its own tenant, and then as many of each other one. Those that are
        `unserved` wait for nothing of ours, and are before nobody."""
        # Late ones count as if they came first, which they do not: who is refused for that leaves time for those that
        # are held. Counted as scheduled, a twentieth less is kept of three times too much (`bench.overload`).
        turn, turns = _turn(request), self._turns.get(request.model, {})
        if not fairly:
            return sum([one < turn for name, one in turns.items() if name not in unserved])
        before, counts = 0, dict[str, int]()
        for name, one in turns.items():
            if name in unserved:
                continue
            key = self.requests[name].key
            if key == request.key:
                before += one < turn
            else:
                counts[key] = counts.get(key, 0) + 1
        return before + sum([min(count, before + 1) for count in counts.values()])

    def _served(
        self, turns: list[_Turn], serves: Callable[[Request, float], bool], unserved: set[str], now_s: float
    ) -> list[_Turn]:
        """Without those of the first of them that nothing of ours can serve: they would keep places that stay empty."""
        found = list[_Turn]()
        for at, turn in enumerate(turns):
            if at == ASKED_MAX or (len(found) == SCHEDULED_MAX and not self.is_shared):
                return found + turns[at:]
            request = self.requests[turn[2]]
            if serves(request, now_s):
                found.append(turn)
            else:
                unserved.add(request.id)
        return found

    def _of_each(self, turns: list[_Turn], now_s: float) -> list[str]:
        """As many of them as are scheduled: of each tenant as many, first of who has had least; and of each class some
        that are late or were promised nothing, once they have waited for long."""
        names = [name for _, _, name in turns]
        if not self.is_shared:
            return names[:SCHEDULED_MAX]
        came_s, requests = self.came_s(now_s), self.requests
        past = {name for end_s, at_s, name in turns if at_s <= came_s and (end_s <= now_s or end_s == inf)}
        names = self._in_turn(names, {name: requests[name].key for name in names}, now_s)
        found, others = names[: SCHEDULED_MAX - REST_SEATS], names[SCHEDULED_MAX - REST_SEATS :]
        waited = [name for name in others if name in past]
        seated = set(self._in_turn(waited, self._flow_of, now_s)[:REST_SEATS])
        return (found + sorted(seated) + [name for name in others if name not in seated])[:SCHEDULED_MAX]

    def _in_turn(self, names: list[str], kind_of: Mapping[str, str], now_s: float) -> list[str]:
        """One of each kind after the other, in rounds; first of who has had least."""
        kinds: dict[str, list[str]] = {}
        for name in names:
            kind = kind_of[name]
            if kind in kinds:
                kinds[kind].append(name)
            else:
                kinds[kind] = [name]
        if len(kinds) < 2:
            return names
        order = sorted(kinds, key=lambda kind: (*self._had(self.requests[kinds[kind][0]], now_s), kind))
        rounds = range(max([len(some) for some in kinds.values()]))
        return [kinds[kind][place] for place in rounds for kind in order if place < len(kinds[kind])]

    def _had(self, request: Request, now_s: float) -> tuple[float, float]:
        """What its tenant has had of late, and its class of that."""
        return self._shares.tenant_s(request, now_s), self._shares.flow_s(flow_of(request), now_s)

    # --- writing ------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """It waits from now on."""
        self.requests[request.id] = request
        self._line_up(request)

    def _line_up(self, request: Request) -> None:
        self._turns.setdefault(request.model, {})[request.id] = _turn(request)
        flow = self._flow_of[request.id] = flow_of(request)
        self._flows[flow] = self._flows.get(flow, 0) + 1

    def remove(self, request_id: str) -> Request | None:
        """It waits no more; None where it did not."""
        request = self.requests.pop(request_id, None)
        if request is not None:
            turns = self._turns[request.model]
            del turns[request_id]
            if not turns:
                del self._turns[request.model]
            flow = self._flow_of.pop(request_id)
            self._flows[flow] -= 1
            if not self._flows[flow]:
                del self._flows[flow]
        return request


def _turn(request: Request) -> _Turn:
    """By the end of its promise; whom nothing was promised comes last."""
    return ends_s(request), request.arrived_s, request.id


def _ends_s(turn: _Turn) -> float:
    return turn[0]
