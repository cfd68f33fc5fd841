"""Requests that are held: which may wait, and where each would go now."""

from collections.abc import Iterable, Mapping
from math import inf
from statistics import fmean
from typing import Final

from tidegate.core import fair, places, plan
from tidegate.core.base import Base, asked
from tidegate.core.budget import Budgets
from tidegate.core.cached import Prompt
from tidegate.core.dual import Duals
from tidegate.core.eligible import Eligible
from tidegate.core.endpoint import EndpointModel
from tidegate.core.fair import Standing
from tidegate.core.handover import Handovers
from tidegate.core.hold import schedule
from tidegate.core.length import LengthModel
from tidegate.core.model import (
    DecisionOverran,
    Drawn,
    Ended,
    Held,
    Judged,
    ModelFailed,
    Observation,
    Overrides,
    Policy,
    Released,
    Request,
)
from tidegate.core.moment import Moment
from tidegate.core.output import Length
from tidegate.core.plan import Option
from tidegate.core.promise import ends_s, is_urgent
from tidegate.core.queue import SCHEDULED_MAX, Queue
from tidegate.core.shares import GIVEN_S, Shares, flow_of, had_s, owed
from tidegate.core.starts import Fit, Item, Place, Pool, fitted, latest_start_s
from tidegate.core.value import worth_usd

# So often a gateway looks at the time. A request may take minutes, and what is held looks again twice a second; a pass
# over a thousand requests in flight costs 0.1 ms. Cutovers have timers of their own, since they come as late as they
# can without being too late.
SWEEP_S: Final = 0.05
# While nobody has come for as long whose promise is too short to wait, no slot is left to such a one: a night of batch
# work has the whole engine.
QUIET_S: Final = 300.0
# Of an engine's seconds so many are believed to be left for those that are late, where those in time take all.
LEFT_LEAST: Final = 0.02


class Waiting:
    """The `requests` that are held, by id. `hold`, `release` and `forget` write, the rest reads."""

    __slots__ = (
        "_at_s",
        "_budgets",
        "_duals",
        "_eligible",
        "_fits",
        "_handovers",
        "_items",
        "_known_lengths",
        "_lengths",
        "_models",
        "_passed_by",
        "_places",
        "_policy",
        "_prompts",
        "_queue",
        "_scheduled",
        "_shares",
        "_urgent",
        "requests",
    )

    def __init__(
        self,
        requests: dict[str, Request],
        models: Mapping[str, EndpointModel],
        eligible: Eligible,
        handovers: Handovers,
        lengths: LengthModel,
        duals: Duals,
        budgets: Budgets,
        shares: Shares,
        policy: Policy,
        urgent: dict[str, float],
    ) -> None:
        """`urgent` is by model when somebody came last who could not wait."""
        self.requests = requests
        self._urgent = urgent
        for gone in [name for name in urgent if not eligible.serving(name)]:
            del urgent[gone]
        self._models, self._eligible, self._lengths, self._duals = models, eligible, lengths, duals
        self._handovers = handovers
        self._budgets, self._shares, self._policy = budgets, shares, policy
        self._queue = Queue(requests, shares, policy)
        # By id, what endpoints are asked about.
        self._prompts: dict[str, Prompt] = {name: asked(request) for name, request in requests.items()}
        # By endpoint, what was predicted at one moment, by request: while several are released, most of it stays.
        self._fits: dict[str, tuple[Moment, dict[str, Fit]]] = {}
        self._at_s = 0.0
        # What is believed of their outputs, until another one teaches.
        self._known_lengths: dict[str, Length] = {}
        # Which of them are looked at at one moment, which of those ours can serve, and where they go, until a fact
        # changes it.
        self._scheduled: tuple[float, dict[str, Request]] | None = None
        self._passed_by: set[str] = set()
        self._items: tuple[float, list[Item]] | None = None
        self._places: tuple[float, dict[str, Place]] | None = None

    # --- reading ------------------------------------------------------------------------------------------------

    def may_wait(self, request: Request, now_s: float) -> bool:
        """Whether it may wait on, or there is room for it to begin to."""
        if request.id in self.requests:
            return not self.expired(request, now_s) and request.id not in self.displaced(now_s)
        if len(self.requests) < self._policy.held_max:
            return True
        # Full: who has less than its share of the places takes that of another, who is told with the next look.
        room = len(self.requests) < 2 * self._policy.held_max
        return room and places.below_share(request, self.requests.values(), self._policy.held_max)

    def displaced(self, now_s: float) -> set[str]:
        """Of more than there is room for, those who have to go: the last ones of who has most beyond its share."""
        if len(self.requests) <= self._policy.held_max:
            return set()
        return places.displaced(self.requests.values(), self._policy.held_max, now_s)

    def held_for(self, models: Iterable[str]) -> int:
        """How many are held for one of these models."""
        return self._queue.held_for(models)

    def beside_others(self, request: Request) -> bool:
        """Whether other tenants have requests that are held."""
        return any(one.key != request.key for one in self.requests.values())

    def expired(self, request: Request, now_s: float) -> bool:
        """Whether it has waited for as long as it may: a promise that can still be kept is worth waiting for."""
        if now_s - request.arrived_s < self._policy.hold_s_max:
            return False
        ends = ends_s(request)
        return ends == inf or now_s >= ends

    def hopeless_s(
        self, own: Mapping[str, Option], name: str, request: Request, start_s: float, now_s: float
    ) -> float | None:
        """After how many seconds a request that comes now has its turn at these engines, of which `name` is the first,
        if it would be late and that is longer than it may wait: of their seconds, those that are in time leave too few
        for all that are late. Better it is told so at once.
        """
        # Where there are several tenants or classes, a share is kept for all that are late.
        if start_s <= latest_start_s(request, own[name].base) or self._queue.is_shared_with(request):
            return None
        late_per_s = all_per_s = 0.0
        for option in own.values():
            state, each_s = option.model.state, _each_s(option)
            in_time = (had_s(state.given, now_s) - had_s(state.given_rest, now_s)) / GIVEN_S
            late_per_s += max(LEFT_LEAST, 1.0 - in_time) / each_s
            all_per_s += 1.0 / each_s
        # Until it is served, less what it takes itself.
        waits_s = (1 + self._queue.late(request.model, self.unserved(now_s), now_s)) / late_per_s - 1.0 / all_per_s
        return waits_s if waits_s > self._policy.hold_s_max else None

    def turn_s(self, own: Mapping[str, Option], request: Request, now_s: float) -> float:
        """About when a request that comes now would have its turn at these engines: once a slot is free, and those that
        are held before it have had theirs."""
        # Who of them could not be served here would take as long to find out as all that a refusal spares.
        before = self._queue.before(request, (), fairly=self._queue.is_shared_with(request))
        first_s, per_s = inf, 0.0
        for option in own.values():
            first_s = min(first_s, option.model.slots_free_s(now_s)[0])
            per_s += 1.0 / _each_s(option)
        return first_s + float(before) / per_s

    def headroom(self, model: EndpointModel, now_s: float) -> bool:
        """Whether what can wait leaves one of its slots to who cannot: such a one came of late."""
        urgent = self._urgent
        return bool(urgent) and any(now_s - urgent.get(name, -inf) < QUIET_S for name in model.endpoint.models)

    def scheduled(self, now_s: float) -> dict[str, Request]:
        """Those that are looked at now."""
        if self._scheduled is None or self._scheduled[0] != now_s:
            found, self._passed_by = self._queue.first(self._serves, now_s)
            self._scheduled = now_s, found
        return self._scheduled[1]

    def unserved(self, now_s: float) -> set[str]:
        """Those of whom it is known that nothing of ours can serve them."""
        served = {item.request.id for item in self._served(now_s)}
        return self._passed_by.union([name for name in self.scheduled(now_s) if name not in served])

    def _serves(self, request: Request, now_s: float) -> bool:
        """Whether anything of ours can serve it."""
        return bool(self._eligible.own(request, self._length(request), now_s))

    def order(self, request: Request, now_s: float) -> tuple[bool, tuple[float, float, str]]:
        """Whose turn is before another's."""
        return self._queue.order(request, now_s)

    def places(self, now_s: float) -> dict[str, Place]:
        """Where each of those that are scheduled goes, by id. Whom nothing of ours can serve has no place."""
        if self._places is None or self._places[0] != now_s:
            items = self._served(now_s)
            pools = self._pools(len(items), now_s)
            self._places = now_s, self._schedule(items, pools, now_s, fairly=self._queue.is_shared)
        return self._places[1]

    def behind(self, request: Request, now_s: float) -> bool:
        """Whether it is held behind more than are scheduled, and may wait on."""
        return (
            request.id in self.requests
            and self.may_wait(request, now_s)
            and request.id not in self.scheduled(now_s)
            and request.id not in self.places(now_s)
        )

    def place(self, work: Item, now_s: float) -> Place:
        """Where one goes beside them, whether it waits already or not; behind more than are scheduled, it goes behind
        the work of all of them."""
        request = work.request
        fairly = self._queue.is_shared_with(request)
        before = self._queue.before(request, self.unserved(now_s), fairly=fairly)
        others = [one for one in self._served(now_s) if one.request.id != request.id]
        pools = self._pools(1 + len(others), now_s)
        if before <= SCHEDULED_MAX:
            return self._schedule([work, *others], pools, now_s, fairly=fairly)[request.id]
        bases: dict[str, list[Base]] = {}
        for name in work.own:
            if found := [one.own[name].base for one in others if name in one.own]:
                bases[name] = found
        # Each engine has as many of them as it is quick.
        per_s = {name: pools[name].slots / fmean([base.occupies_s for base in bases[name]]) for name in bases}
        total_per_s = sum(per_s.values())
        for name, found in bases.items():
            pools[name] = _behind(pools[name], before * per_s[name] / total_per_s, found, now_s)
        return self._schedule([work], pools, now_s, fairly=False)[request.id]

    def _schedule(self, items: list[Item], pools: dict[str, Pool], now_s: float, *, fairly: bool) -> dict[str, Place]:
        rooms = {name: model.room for name, model in self._models.items() if not model.owned}
        if not fairly:
            return schedule(items, pools, rooms, lambda request: self._elsewhere(request, now_s), now_s)
        standing = self._standing(items, now_s)
        return fair.schedule(items, pools, rooms, lambda request: self._elsewhere(request, now_s), standing, now_s)

    def _standing(self, items: list[Item], now_s: float) -> Standing:
        """What was given of late, as far as it concerns these."""
        requests, shares = [one.request for one in items], self._shares
        return Standing(
            tenants_s={one.id: shares.tenant_s(one, now_s) for one in requests},
            flows_s={flow: shares.flow_s(flow, now_s) for flow in {flow_of(one): None for one in requests}},
            owed=[
                name
                for name, model in self._models.items()
                if model.owned and owed(model.state.given_rest, model.state.given, now_s)
            ],
            came_s=self._queue.came_s(now_s),
        )

    def _served(self, now_s: float) -> list[Item]:
        """Those that are looked at now, as the schedule sees them, that something of ours can serve."""
        if self._items is None or self._items[0] != now_s:
            items = list[Item]()
            for request in self.scheduled(now_s).values():
                length = self._length(request)
                own = self._own(request, length, now_s)
                if own:
                    priced = self._budgets.priced(self._duals.priced(request, now_s))
                    items.append(fitted(priced, worth_usd(priced, length), own))
            self._items = now_s, items
        return self._items[1]

    def _pools(self, items: int, now_s: float) -> dict[str, Pool]:
        """Our own, for a schedule of so many."""
        return {
            name: Pool(
                model.slots_free_s(now_s, items + 1),
                model.memory.spare(now_s),
                model.prompts_done_s(now_s),
                model.ahead_s,
                self.headroom(model, now_s),
                model.places,
            )
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

    def _own(self, request: Request, length: Length, now_s: float) -> dict[str, Fit]:
        """What it would take at each of our own that it may wait for."""
        if now_s != self._at_s:
            self._fits.clear()
            self._at_s = now_s
        own: dict[str, Fit] = {}
        for model in self._eligible.own(request, length, now_s):
            known = self._fits.get(model.name)
            if known is None:
                known = self._fits[model.name] = model.moment(now_s), {}
            moment, fits = known
            fit = fits.get(request.id)
            if fit is None:
                base = model.base(request, length, now_s, self._prompts[request.id], moment)
                fit = fits[request.id] = Fit(request, base)
            own[model.name] = fit
        return own

    def _elsewhere(self, request: Request, now_s: float) -> list[tuple[float, str]]:
        """What it would be worth at each endpoint that is not ours, best first."""
        length = self._length(request)
        others = self._eligible.others(request, length, now_s)
        worth = worth_usd(request, length)
        options = plan.weigh(request, others, length, worth, now_s)
        if self._handovers.models:
            models = others + self._eligible.own(request, length, now_s)
            handovers = self._handovers.now(request, models, now_s)
            options += plan.weigh_handovers(request, handovers, length, worth, now_s)
        return plan.best_first(options)

    # --- writing ------------------------------------------------------------------------------------------------

    def urge(self, model: str, now_s: float) -> None:
        """Somebody came for this model whose promise is too short to wait."""
        self._urgent[model] = now_s

    def hold(self, request: Request, now_s: float) -> None:
        """It waits from now on."""
        if is_urgent(request):
            self.urge(request.model, now_s)
        if request.id not in self.requests:
            self._queue.add(request)
            self._prompts[request.id] = asked(request)
        for _, fits in self._fits.values():
            fits.pop(request.id, None)
        self._known_lengths.pop(request.id, None)

    def release(self, request_id: str) -> Request | None:
        """It waits no more; None where it did not."""
        request = self._queue.remove(request_id)
        if request is not None:
            del self._prompts[request_id]
            self._known_lengths.pop(request_id, None)
        return request

    def forget(self, fact: Observation) -> None:
        """A fact is about to be taken in: predictions that it may change count no more, though no time has passed."""
        self._scheduled = self._items = self._places = None
        if isinstance(fact, Ended):
            # It tells of lengths, too.
            self._known_lengths.clear()
            self._fits.clear()
        elif self._fits and not isinstance(
            fact, Held | Released | Judged | Drawn | Overrides | DecisionOverran | ModelFailed
        ):
            # Those are not about how long anything takes.
            self._fits.pop(fact.endpoint, None)


def _each_s(option: Option) -> float:
    """How long one like it takes the engine."""
    return option.base.occupies_s / option.model.places + option.base.prompt_s


def _behind(pool: Pool, count: float, bases: list[Base], now_s: float) -> Pool:
    """The same once it is through with so many like these."""
    slots_s = count * fmean([base.occupies_s for base in bases]) / pool.slots
    prompts_s = count * fmean([base.prompt_s for base in bases])
    done_s = max(pool.prompts_done_s, now_s) + prompts_s
    free_s = [at_s + slots_s for at_s in pool.slots_s]
    return Pool(free_s, pool.spare, done_s, pool.ahead_s, pool.headroom, pool.slots)
