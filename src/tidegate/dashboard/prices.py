"""What dollars and kept promises are worth, as far as a run's facts have made it: they move no other part of a router,
and need no prediction, so that they are followed for little where a replay would learn everything."""

from collections.abc import Iterator
from math import isfinite
from typing import Final

import msgspec

from tidegate.config.cap import Period
from tidegate.core.budget import Budgets, Spending
from tidegate.core.cost import Cost
from tidegate.core.dual import Dual, Duals
from tidegate.core.health import UNBILLED
from tidegate.core.hedge import Hedges, Hedging
from tidegate.core.model import (
    Drawn,
    Ended,
    Ending,
    Held,
    Judged,
    Observation,
    Record,
    Released,
    Request,
    Segment,
    Started,
)
from tidegate.core.rows import is_billed
from tidegate.dashboard.index import MINUTE_S, Price

OF_ALL: Final = frozenset(Period)
"""Budgets on which all draw are called so; each key may have as many, by a name that has its own in it."""


class Budget(Record, frozen=True, kw_only=True):
    """What of a budget is spent, and what a dollar of it is worth beyond itself. Of budgets of all that is what pricing
    was told last and what was paid since; of a key's, of whom attempts do not tell, what pricing was told."""

    name: str
    usd: float
    spent_usd: float
    begins_s: float
    ends_s: float
    price: float


class _Paid(msgspec.Struct):
    """An attempt that is paid: whether another one runs beside it, and what is held back for it where that is so."""

    prompt_tokens: int
    raced: bool = False
    hedge_usd: float = 0.0


class _Endpoint(msgspec.Struct):
    """As much of an endpoint's state as tells what is under way there."""

    reservations: dict[str, _Paid] = {}


class _State(msgspec.Struct):
    """As much of what a segment begins with as prices follow from."""

    endpoints: dict[str, _Endpoint] = {}
    held: dict[str, Request] = {}
    duals: dict[str, Dual] = {}
    overdue: dict[str, bool] = {}
    budgets: dict[str, Spending] = {}
    hedging: Hedging = msgspec.field(default_factory=Hedging)


class Prices:
    """Feed it the observations of a segment: it prices as a router does that is told them, with the router's own parts.

    One thing is not known without predictions, how much of a hedge's prompt is cached: all of it is held back until the
    hedge is over. msgspec.MsgspecError for a segment whose state cannot be read.
    """

    def __init__(self, segment: Segment) -> None:
        state = msgspec.json.decode(segment.state, type=_State)
        self._names = state.budgets
        self._classes = state.duals
        self._held = state.held
        self._budgets = Budgets(state.budgets)
        self._duals = Duals(state.duals, state.overdue, state.held)
        self._hedges = Hedges(state.hedging, segment.policy.hedge_share)
        self._endpoints = {endpoint.name: endpoint for endpoint in segment.endpoints}
        costs = {endpoint.name: Cost(endpoint) for endpoint in segment.endpoints}
        self._costs = {name: cost for name, cost in costs.items() if cost.is_paid}
        # What was paid since pricing was told, by budget of all.
        self._since_usd = {name: 0.0 for name in state.budgets if name in OF_ALL}
        # By endpoint, and there by request.
        self._paid = {name: state.endpoints.get(name, _Endpoint()).reservations for name in self._costs}

    def go_on(self, before: "Prices") -> None:
        """Nothing was told between what is `before` this and its segment: what was paid since counts on."""
        self._since_usd |= {name: usd for name, usd in before._since_usd.items() if name in self._since_usd}

    def feed(self, fact: Observation, now_s: float) -> None:
        """Take in a fact."""
        self._duals.settle(now_s)
        self._budgets.settle(now_s)
        self._hedges.settle(now_s)
        match fact:
            case Started():
                self._held.pop(fact.request_id, None)
                self._started(fact, now_s)
            case Ended():
                self._ended(fact, now_s)
            case Held():
                self._held[fact.request.id] = fact.request
                self._duals.hold(fact.request, now_s)
            case Released():
                self._held.pop(fact.request_id, None)
            case Judged():
                self._duals.judged(fact, now_s)
            case Drawn():
                self._budgets.drawn(fact, now_s)
                if fact.budget in OF_ALL:
                    self._since_usd[fact.budget] = 0.0

    def budgets(self, limit: int) -> tuple[Budget, ...]:
        """So many of them: those of all first, and then those of keys, by name."""
        found = sorted(self._names.items(), key=lambda one: (one[0] not in OF_ALL, one[0]))
        return tuple(
            Budget(
                name=name,
                usd=one.told_usd,
                spent_usd=one.told_spent_usd + self._since_usd.get(name, 0.0),
                begins_s=one.told_begins_s,
                ends_s=one.told_ends_s,
                price=self._budgets.price(name),
            )
            for name, one in found[:limit]
        )

    def of_minute(self, at_s: float) -> Iterator[Price]:
        """What they were at the end of the minute that began at `at_s`: of budgets those of all, for keys are many."""
        end_s = at_s + MINUTE_S
        for name in sorted(name for name in self._names if name in OF_ALL):
            yield Price(at_s=at_s, what="budget", name=name, value=self._budgets.price(name))
        for name in sorted(self._classes):
            yield Price(at_s=at_s, what="worth", name=name, value=self._duals.share(name, end_s))
        if isfinite(price := self._hedges.price):
            yield Price(at_s=at_s, what="hedge", name="", value=price)

    def _started(self, fact: Started, now_s: float) -> None:
        cost = self._costs.get(fact.endpoint)
        if cost is None and not fact.hedge:
            return
        beside = [sent for name in self._others(fact.endpoint) if (sent := self._paid[name].get(fact.request_id))]
        hedge = _Paid(fact.prompt_tokens, raced=fact.hedge and bool(beside))
        if hedge.raced:
            for sent in beside:
                sent.raced = True
            if cost is not None:
                hedge.hedge_usd = cost.usd(fact.prompt_tokens, 0.0, 0.0)
                self._hedges.lost(hedge.hedge_usd, now_s)
        if cost is not None:
            self._paid[fact.endpoint][fact.request_id] = hedge

    def _ended(self, fact: Ended, now_s: float) -> None:
        cost = self._costs.get(fact.endpoint)
        sent = None if cost is None else self._paid[fact.endpoint].pop(fact.request_id, None)
        if cost is None or sent is None:
            return
        tokens = sent.prompt_tokens if fact.prompt_tokens is None else fact.prompt_tokens
        usd = cost.usd(tokens, fact.output_tokens or 0, fact.cached_tokens or 0)
        if fact.ending is Ending.OK and fact.cause not in UNBILLED:
            self._hedges.paid(usd, now_s)
        if sent.raced:
            lost_usd = usd if fact.ending is Ending.CANCELLED and fact.cause not in UNBILLED else 0.0
            self._hedges.lost(lost_usd - sent.hedge_usd, now_s)
        if is_billed(fact):
            written, reasoning = fact.cache_write_tokens or 0, fact.reasoning_tokens or 0
            price = self._endpoints[fact.endpoint].price
            paid_usd = price.usd(tokens, fact.output_tokens or 0, fact.cached_tokens or 0, written, reasoning)
            for name in self._since_usd:
                self._since_usd[name] += paid_usd

    def _others(self, endpoint: str) -> Iterator[str]:
        return (name for name in self._paid if name != endpoint)
