"""Requests that are held: which may wait, and where each would go now."""

from bisect import bisect_left
from collections.abc import Mapping
from statistics import fmean
from typing import Final

from tidegate.core import plan
from tidegate.core.base import Base, asked
from tidegate.core.budget import Budgets
from tidegate.core.dual import Duals
from tidegate.core.eligible import Eligible
from tidegate.core.estimator import EndpointModel
from tidegate.core.hold import Item, Place, Pool, item, schedule
from tidegate.core.length import Length, LengthModel
from tidegate.core.model import (
    DecisionOverran,
    Drawn,
    Ended,
    Held,
    Judged,
    Observation,
    Overrides,
    Policy,
    Released,
    Request,
)
from tidegate.core.promise import ends_s
from tidegate.core.value import worth_usd

# Of those that wait for a model so many are scheduled, whose promises end first: more could not start soon, and a
# schedule has to be made while streams flow.
SCHEDULED_MAX: Final = 64

_Turn = tuple[float, float, str]
"""When its promise ends, when it came, and its id."""


class Waiting:
    """The `requests` that are held, by id. `hold`, `release` and `forget` write, the rest reads."""

    __slots__ = (
        "_at_s",
        "_bases",
        "_budgets",
        "_duals",
        "_eligible",
        "_known_lengths",
        "_lengths",
        "_models",
        "_places",
        "_policy",
        "_turns",
        "requests",
    )

    def __init__(
        self,
        requests: dict[str, Request],
        models: Mapping[str, EndpointModel],
        eligible: Eligible,
        lengths: LengthModel,
        duals: Duals,
        budgets: Budgets,
        policy: Policy,
    ) -> None:
        self.requests = requests
        self._models, self._eligible, self._lengths, self._duals = models, eligible, lengths, duals
        self._budgets, self._policy = budgets, policy
        # By model, whose turn is when.
        self._turns: dict[str, dict[str, _Turn]] = {}
        for request in requests.values():
            self._turns.setdefault(request.model, {})[request.id] = _turn(request)
        # By endpoint and request, what was predicted at one moment: while several are released, most of it stays.
        self._bases: dict[str, dict[str, Base]] = {}
        self._at_s = 0.0
        # What is believed of their outputs, until another one teaches.
        self._known_lengths: dict[str, Length] = {}
        # Where they go at one moment, until a fact changes it.
        self._places: tuple[float, dict[str, Place]] | None = None

    # --- reading ------------------------------------------------------------------------------------------------

    def may_wait(self, request: Request, now_s: float) -> bool:
        """Whether it may wait on, or there is room for it to begin to."""
        if request.id in self.requests:
            return not self.expired(request, now_s)
        return len(self.requests) < self._policy.held_max

    def expired(self, request: Request, now_s: float) -> bool:
        """Whether it has waited for as long as it may."""
        return now_s - request.arrived_s >= self._policy.hold_s_max

    def scheduled(self, now_s: float) -> list[Request]:
        """Those that are looked at now: of each model those whose promises end first, and then whose have ended."""
        found: list[Request] = []
        for turns in self._turns.values():
            names = [turn[2] for turn in sorted(turns.values())] if len(turns) > SCHEDULED_MAX else list(turns)
            if len(names) > SCHEDULED_MAX:
                past = bisect_left(names, now_s, key=lambda name: turns[name][0])
                names = (names[past:] + names[:past])[:SCHEDULED_MAX]
            found += [self.requests[name] for name in names]
        return found

    def places(self, now_s: float) -> dict[str, Place]:
        """Where each of those that are scheduled goes, by id. Whom nothing of ours can serve has no place."""
        if self._places is None or self._places[0] != now_s:
            self._places = now_s, self._schedule(self._items(self.scheduled(now_s), now_s), self._pools(now_s), now_s)
        return self._places[1]

    def place(self, work: Item, now_s: float) -> Place:
        """Where one goes beside them, whether it waits already or not; behind more than are scheduled, it goes behind
        the work of all of them."""
        request, turn = work.request, _turn(work.request)
        before = sum([one < turn for one in self._turns.get(request.model, {}).values()])
        others = self._items([one for one in self.scheduled(now_s) if one.id != request.id], now_s)
        if before <= SCHEDULED_MAX:
            return self._schedule([work, *others], self._pools(now_s), now_s)[request.id]
        pools = self._pools(now_s)
        for name in work.own:
            if bases := [one.own[name].base for one in others if name in one.own]:
                pools[name] = _behind(pools[name], before, bases, now_s)
        return self._schedule([work], pools, now_s)[request.id]

    def _schedule(self, items: list[Item], pools: dict[str, Pool], now_s: float) -> dict[str, Place]:
        rooms = {name: model.room for name, model in self._models.items() if not model.owned}
        return schedule(items, pools, rooms, lambda request: self._elsewhere(request, now_s), now_s)

    def _items(self, requests: list[Request], now_s: float) -> list[Item]:
        """Those of them as the schedule sees them that something of ours can serve."""
        items = []
        for request in requests:
            length = self._length(request)
            own = self._own(request, length, now_s)
            if own:
                priced = self._budgets.priced(self._duals.priced(request, now_s))
                items.append(item(priced, worth_usd(priced, length), own))
        return items

    def _pools(self, now_s: float) -> dict[str, Pool]:
        return {
            name: Pool(model.slots_free_s(now_s), model.memory.spare(now_s), model.prompts_done_s(now_s), model.ahead_s)
            for name, model in self._models.items()
            if model.owned
        }

    def _length(self, request: Request) -> Length:
        length = self._known_lengths.get(request.id)
        if length is None:
            length = self._lengths.of(request)
            if request.id in self.requests:
                self._known_lengths[request.id] = length
        return length

    def _own(self, request: Request, length: Length, now_s: float) -> dict[str, Base]:
        """What it would take at each of our own that it may wait for."""
        if now_s != self._at_s:
            self._bases.clear()
            self._at_s = now_s
        own: dict[str, Base] = {}
        for model in self._eligible.own(request, length, now_s):
            known = self._bases.get(model.name)
            if known is None:
                known = self._bases[model.name] = {}
            base = known.get(request.id)
            if base is None:
                prompt = asked(request) if request.prefix else None
                base = known[request.id] = model.base(request, length, now_s, prompt)
            own[model.name] = base
        return own

    def _elsewhere(self, request: Request, now_s: float) -> list[tuple[float, str]]:
        """What it would be worth at each endpoint that is not ours, best first."""
        length = self._length(request)
        models, _ = self._eligible.now(request, length, now_s)
        others = [m for m in models if not m.owned]
        return plan.best_first(plan.weigh(request, others, length, worth_usd(request, length), now_s))

    # --- writing ------------------------------------------------------------------------------------------------

    def hold(self, request: Request) -> None:
        """It waits from now on."""
        self.requests[request.id] = request
        self._turns.setdefault(request.model, {})[request.id] = _turn(request)
        for known in self._bases.values():
            known.pop(request.id, None)
        self._known_lengths.pop(request.id, None)

    def release(self, request_id: str) -> None:
        """It waits no more, if it did."""
        request = self.requests.pop(request_id, None)
        if request is not None:
            turns = self._turns[request.model]
            del turns[request_id]
            if not turns:
                del self._turns[request.model]
            self._known_lengths.pop(request_id, None)

    def forget(self, fact: Observation) -> None:
        """A fact is about to be taken in: predictions that it may change count no more, though no time has passed."""
        self._places = None
        if isinstance(fact, Ended):
            # It tells of lengths, too.
            self._known_lengths.clear()
            self._bases.clear()
        elif self._bases and not isinstance(fact, Held | Released | Judged | Drawn | Overrides | DecisionOverran):
            # Those are not about how long anything takes.
            self._bases.pop(fact.endpoint, None)


def _behind(pool: Pool, count: int, bases: list[Base], now_s: float) -> Pool:
    """The same once it is through with so many like these."""
    slots_s = count * fmean([base.occupies_s for base in bases]) / len(pool.slots_s)
    prompts_s = count * fmean([base.prompt_s for base in bases])
    done_s = max(pool.prompts_done_s, now_s) + prompts_s
    return Pool([at_s + slots_s for at_s in pool.slots_s], pool.spare, done_s, pool.ahead_s)


def _turn(request: Request) -> _Turn:
    """By the end of its promise; whom nothing was promised comes last."""
    return ends_s(request), request.arrived_s, request.id
