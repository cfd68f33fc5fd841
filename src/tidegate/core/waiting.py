"""Requests that are held: which may wait, and where each would go now."""

from bisect import bisect_left
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
from tidegate.core.estimator import EndpointModel
from tidegate.core.fair import Standing
from tidegate.core.handover import Handovers
from tidegate.core.hold import Fit, Item, Place, Pool, fitted, latest_start_s, schedule
from tidegate.core.length import Length, LengthModel
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
from tidegate.core.plan import Option
from tidegate.core.promise import ends_s, is_urgent
from tidegate.core.shares import GIVEN_S, PATIENCE_SHARE, Shares, flow_of, had_s, owed
from tidegate.core.value import worth_usd

# Of those that wait for a model so many are scheduled, whose promises end first: more could not start soon, and a
# schedule has to be made while streams flow.
SCHEDULED_MAX: Final = 64
# Of so many at most it is asked first whether anything of ours can serve them at all.
ASKED_MAX: Final = 4 * SCHEDULED_MAX
# While nobody has come for as long whose promise is too short to wait, no slot is left to such a one: a night of batch
# work has the whole engine.
QUIET_S: Final = 300.0
# So many of these are looked at though others' promises end first, where they are late or were promised nothing and
# have waited for long: one of each starts at a time, at each endpoint.
REST_SEATS: Final = 8
# Of an engine's seconds so many are believed to be left for those that are late, where those in time take all.
LEFT_LEAST: Final = 0.02

_Turn = tuple[float, float, str]
"""When its promise ends, when it came, and its id."""


class Waiting:
    """The `requests` that are held, by id. `hold`, `release` and `forget` write, the rest reads."""

    __slots__ = (
        "_at_s",
        "_budgets",
        "_duals",
        "_eligible",
        "_fits",
        "_flow_of",
        "_flows",
        "_handovers",
        "_known_lengths",
        "_lengths",
        "_models",
        "_passed_by",
        "_places",
        "_policy",
        "_prompts",
        "_scheduled",
        "_shares",
        "_turns",
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
        # By model, whose turn is when.
        self._turns: dict[str, dict[str, _Turn]] = {}
        # By id, what endpoints are asked about.
        self._prompts: dict[str, Prompt] = {}
        # By id, whose class of which tenant it is; and how many of that are held.
        self._flow_of: dict[str, str] = {}
        self._flows: dict[str, int] = {}
        for request in requests.values():
            self._queue(request)
        # By endpoint, what was predicted at one moment, by request: while several are released, most of it stays.
        self._fits: dict[str, tuple[Moment, dict[str, Fit]]] = {}
        self._at_s = 0.0
        # What is believed of their outputs, until another one teaches.
        self._known_lengths: dict[str, Length] = {}
        # Which of them are looked at at one moment, and where they go, until a fact changes it.
        self._scheduled: tuple[float, dict[str, Request]] | None = None
        self._passed_by: set[str] = set()
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
        """After how many seconds a request that comes now is served by these engines, of which `name` is the first, if
        it would be late and that is longer than it may wait: of their seconds, those that are in time leave too few for
        all that are late. Better it is told so at once.
        """
        # Where there are several tenants or classes, a share is kept for all that are late.
        if start_s <= latest_start_s(request, own[name].base) or not self._flows.keys() <= {flow_of(request)}:
            return None
        late = 1 + sum([ends_s(one) <= now_s for one in self.requests.values() if one.model == request.model])
        late_per_s = 0.0
        for option in own.values():
            model, base = option.model, option.base
            in_time = (had_s(model.state.given, now_s) - had_s(model.state.given_rest, now_s)) / GIVEN_S
            each_s = base.occupies_s / model.places + base.prompt_s
            late_per_s += max(LEFT_LEAST, 1.0 - in_time) / each_s
        served_s = late / late_per_s
        return served_s if served_s > self._policy.hold_s_max else None

    def headroom(self, model: EndpointModel, now_s: float) -> bool:
        """Whether what can wait leaves one of its slots to who cannot: such a one came of late."""
        urgent = self._urgent
        return bool(urgent) and any(now_s - urgent.get(name, -inf) < QUIET_S for name in model.endpoint.models)

    def scheduled(self, now_s: float) -> dict[str, Request]:
        """Those that are looked at now: of each model those whose promises end first, and then whose have ended."""
        if self._scheduled is None or self._scheduled[0] != now_s:
            found: dict[str, Request] = {}
            self._passed_by = set()
            for turns in self._turns.values():
                names = list(turns)
                if len(names) > SCHEDULED_MAX:
                    in_order = sorted(turns.values())
                    past = bisect_left(in_order, now_s, key=lambda turn: turn[0])
                    names = self._of_each(self._served(in_order[past:] + in_order[:past], now_s), now_s)
                found.update({name: self.requests[name] for name in names})
            self._scheduled = now_s, found
        return self._scheduled[1]

    def unserved(self, now_s: float) -> set[str]:
        """Those of whom it is known that nothing of ours can serve them."""
        scheduled, places = self.scheduled(now_s), self.places(now_s)
        return self._passed_by | {name for name in scheduled if name not in places}

    def _served(self, turns: list[_Turn], now_s: float) -> list[_Turn]:
        """Without those of the first of them that nothing of ours can serve: they would keep places that stay empty."""
        found = list[_Turn]()
        alone = len(self._flows) < 2
        for at, turn in enumerate(turns):
            if at == ASKED_MAX or (alone and len(found) == SCHEDULED_MAX):
                return found + turns[at:]
            request = self.requests[turn[2]]
            if self._eligible.own(request, self._length(request), now_s):
                found.append(turn)
            else:
                self._passed_by.add(request.id)
        return found

    def order(self, request: Request, now_s: float) -> tuple[bool, _Turn]:
        """Whose turn is before another's: first whose promise ends first, and last whose has ended."""
        turn = _turn(request)
        return turn[0] <= now_s, turn

    def _of_each(self, turns: list[_Turn], now_s: float) -> list[str]:
        """As many of them as are scheduled: of each tenant as many, first of who has had least; and of each class some
        that are late or were promised nothing, once they have waited for long."""
        names = [name for _, _, name in turns]
        if len(self._flows) < 2:
            return names[:SCHEDULED_MAX]
        came_s, requests = self._came_s(now_s), self.requests
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

    def _came_s(self, now_s: float) -> float:
        """Who came before that has waited for long."""
        return now_s - PATIENCE_SHARE * self._policy.hold_s_max

    def places(self, now_s: float) -> dict[str, Place]:
        """Where each of those that are scheduled goes, by id. Whom nothing of ours can serve has no place."""
        if self._places is None or self._places[0] != now_s:
            items = self._items(self.scheduled(now_s).values(), now_s)
            self._places = now_s, self._schedule(items, self._pools(now_s), now_s, fairly=len(self._flows) > 1)
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
        fairly = bool(self._flows) and self._flows.keys() != {flow_of(request)}
        before = self._before(request, fairly=fairly)
        others = self._items([one for one in self.scheduled(now_s).values() if one.id != request.id], now_s)
        if before <= SCHEDULED_MAX:
            return self._schedule([work, *others], self._pools(now_s), now_s, fairly=fairly)[request.id]
        pools, bases = self._pools(now_s), dict[str, list[Base]]()
        for name in work.own:
            if found := [one.own[name].base for one in others if name in one.own]:
                bases[name] = found
        # Each engine has as many of them as it is quick.
        per_s = {name: len(pools[name].slots_s) / fmean([base.occupies_s for base in bases[name]]) for name in bases}
        total_per_s = sum(per_s.values())
        for name, found in bases.items():
            pools[name] = _behind(pools[name], before * per_s[name] / total_per_s, found, now_s)
        return self._schedule([work], pools, now_s, fairly=False)[request.id]

    def _before(self, request: Request, *, fairly: bool) -> int:
        """How many are scheduled before it: of its own tenant, and then as many of each other one."""
        # Late ones count as if they came first, which they do not: who is refused for that leaves time for those that
        # are held. Counted as scheduled, a twentieth less is kept of three times too much (`bench.overload`).
        turn, turns = _turn(request), self._turns.get(request.model, {})
        if not fairly:
            return sum([one < turn for one in turns.values()])
        before, counts = 0, dict[str, int]()
        for name, one in turns.items():
            key = self.requests[name].key
            if key == request.key:
                before += one < turn
            else:
                counts[key] = counts.get(key, 0) + 1
        return before + sum([min(count, before + 1) for count in counts.values()])

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
            came_s=self._came_s(now_s),
        )

    def _items(self, requests: Iterable[Request], now_s: float) -> list[Item]:
        """Those of them as the schedule sees them that something of ours can serve."""
        items = []
        for request in requests:
            length = self._length(request)
            own = self._own(request, length, now_s)
            if own:
                priced = self._budgets.priced(self._duals.priced(request, now_s))
                items.append(fitted(priced, worth_usd(priced, length), own))
        return items

    def _pools(self, now_s: float) -> dict[str, Pool]:
        return {
            name: Pool(
                model.slots_free_s(now_s),
                model.memory.spare(now_s),
                model.prompts_done_s(now_s),
                model.ahead_s,
                self.headroom(model, now_s),
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
            self.requests[request.id] = request
            self._queue(request)
        for _, fits in self._fits.values():
            fits.pop(request.id, None)
        self._known_lengths.pop(request.id, None)

    def _queue(self, request: Request) -> None:
        self._turns.setdefault(request.model, {})[request.id] = _turn(request)
        self._prompts[request.id] = asked(request)
        flow = self._flow_of[request.id] = flow_of(request)
        self._flows[flow] = self._flows.get(flow, 0) + 1

    def release(self, request_id: str) -> Request | None:
        """It waits no more; None where it did not."""
        request = self.requests.pop(request_id, None)
        if request is not None:
            turns = self._turns[request.model]
            del turns[request_id]
            if not turns:
                del self._turns[request.model]
            del self._prompts[request_id]
            flow = self._flow_of.pop(request_id)
            self._flows[flow] -= 1
            if not self._flows[flow]:
                del self._flows[flow]
            self._known_lengths.pop(request_id, None)
        return request

    def forget(self, fact: Observation) -> None:
        """A fact is about to be taken in: predictions that it may change count no more, though no time has passed."""
        self._scheduled = self._places = None
        if isinstance(fact, Ended):
            # It tells of lengths, too.
            self._known_lengths.clear()
            self._fits.clear()
        elif self._fits and not isinstance(
            fact, Held | Released | Judged | Drawn | Overrides | DecisionOverran | ModelFailed
        ):
            # Those are not about how long anything takes.
            self._fits.pop(fact.endpoint, None)


def _behind(pool: Pool, count: float, bases: list[Base], now_s: float) -> Pool:
    """The same once it is through with so many like these."""
    slots_s = count * fmean([base.occupies_s for base in bases]) / len(pool.slots_s)
    prompts_s = count * fmean([base.prompt_s for base in bases])
    done_s = max(pool.prompts_done_s, now_s) + prompts_s
    return Pool([at_s + slots_s for at_s in pool.slots_s], pool.spare, done_s, pool.ahead_s, pool.headroom)


def _turn(request: Request) -> _Turn:
    """By the end of its promise; whom nothing was promised comes last."""
    return ends_s(request), request.arrived_s, request.id
