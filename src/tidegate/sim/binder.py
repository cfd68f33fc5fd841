"""Binds each request as it arrives, by a simple rule: what is done today, and what predicts a little.

What a rule sends to an engine of ours waits for a slot in the order of arrival, as it would in the engine itself. Rules
see the same facts, predictions and hard rules as the real router.
"""

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import Protocol

import msgspec

from tidegate.core import plan
from tidegate.core.base import Base
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.model import (
    Decision,
    Endpoint,
    Held,
    Observation,
    Policy,
    Released,
    Request,
    Started,
    Wait,
    replace,
)
from tidegate.core.refusal import refuse
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.value import attainment
from tidegate.core.why import Why
from tidegate.sim.decider import Follower

_FULL = (Why.BUSY, Why.MEMORY_TAKEN)


class Waiting(msgspec.Struct, frozen=True):
    """A request that is bound to an engine of ours and waits there: how long it will have a slot, and its tokens."""

    endpoint: str
    occupies_s: float
    tokens: float


class Sight:
    """One endpoint as a rule sees it for one request. What has to be predicted for that is predicted when asked for."""

    def __init__(
        self, model: EndpointModel, request: Request, lengths: LengthModel, waiting: Sequence[Waiting], now_s: float
    ) -> None:
        self.model = model
        self.endpoint = model.endpoint
        self._request, self._lengths, self._waiting, self._now_s = request, lengths, waiting, now_s
        self._base: Base | None = None
        self._wait_s: float | None = None

    @property
    def base(self) -> Base:
        """What is predicted of the request here, once it is sent."""
        if self._base is None:
            self._base = self.model.base(self._request, self._lengths.of(self._request), self._now_s)
        return self._base

    @property
    def there(self) -> int:
        """Requests that are there or wait for it."""
        return len(self.model.state.reservations) + len(self._waiting)

    @property
    def tokens(self) -> float:
        """Tokens of these, of prompts and of what is expected of outputs."""
        there = self.model.state.reservations.values()
        return sum([r.prompt_tokens + r.output_tokens_high for r in there]) + sum([w.tokens for w in self._waiting])

    @property
    def wait_s(self) -> float:
        """Until a slot is free, after all that wait for it already."""
        if self._wait_s is None:
            slots_s = [0.0]
            if self.endpoint.owned:
                free_s = self.model.slots_free_s(self._now_s, len(self._waiting) + 1)
                slots_s = [max(0.0, at_s - self._now_s) for at_s in free_s]
                heapify(slots_s)
                for one in self._waiting:
                    heapreplace(slots_s, slots_s[0] + one.occupies_s)
            self._wait_s = slots_s[0]
        return self._wait_s

    @property
    def ttft_s(self) -> float:
        """The median time to first content, waiting included."""
        return self.wait_s + self.base.first_s

    @property
    def spent_s(self) -> float:
        """How long ago it came when it has a slot."""
        return self._now_s - self._request.arrived_s + self.wait_s

    @property
    def attainment(self) -> float:
        """P(every axis of the promise is kept)."""
        return attainment(self._request, self.base, self.spent_s)


class Rule(Protocol):
    """Picks one of the endpoints that no hard rule excludes; there is one at least. None: nobody but whom it names."""

    @property
    def patience_s(self) -> float | None:
        """After so long without content what is ours is given up for what is not; None is never."""

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight | None:
        """Where it goes."""


class Binder(Follower):
    """Decides by a rule, once."""

    def __init__(self, rule: Rule, endpoints: tuple[Endpoint, ...], policy: Policy, state: State | None = None) -> None:
        super().__init__(endpoints, policy, state)
        self._rule = rule
        self._lengths = LengthModel(self._router.state.lengths)
        self._waiting: dict[str, Waiting] = {}
        # What was decided last to wait: it is bound with the fact that it does.
        self._binding: tuple[str, Waiting] | None = None

    def reprice(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Go on with other prices."""
        self._router = Router(endpoints, self._policy, self._router.state)
        self._lengths = LengthModel(self._router.state.lengths)

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where the rule sends it, or that it waits there, or why it is refused."""
        models, reasons = self._allowed(request, now_s)
        bound = self._waiting.get(request.id)
        patience_s, waited_s = self._rule.patience_s, now_s - request.arrived_s
        others = [model for model in models if not model.owned]
        if bound is not None and patience_s is not None and waited_s >= patience_s and others:
            return self._go(request, others, patience_left_s=None)
        model = next((m for m in models if bound is not None and m.name == bound.endpoint), None)
        if model is not None:
            ahead = sum(w.endpoint == model.name for w in self._before(request.id))
        else:
            sights = [self._sight(model, request, now_s) for model in models]
            sight = self._rule.pick(request, sights) if sights else None
            if sight is None:
                unused = dict.fromkeys((m.name for m in models), Why.BUSY)
                known = {m.name: m for m in self._router.serving(request.model)}
                return refuse(request, reasons | unused, known, now_s)
            model = sight.model
            ahead = sum(w.endpoint == model.name for w in self._waiting.values())
            if model.owned and ahead >= model.room:
                length = sight.base.length
                tokens = request.prompt_tokens + length.high_tokens
                self._binding = request.id, Waiting(model.name, sight.base.occupies_s, tokens)
        if model.owned and ahead >= model.room:
            until_s = now_s + self._policy.recheck_s
            if patience_s is not None and waited_s < patience_s:
                until_s = min(until_s, request.arrived_s + patience_s)
            wait = Wait(endpoint=model.name, until_s=plan.to_ms(until_s))
            return Decision(request_id=request.id, plan=(wait,), why=Why.WAITS_FOR_SLOT)
        left_s = None if patience_s is None or not model.owned else max(0.001, patience_s - waited_s)
        rest = [other for other in models if other is not model and not other.owned]
        return self._go(request, [model, *rest], left_s)

    def due(self, now_s: float) -> list[Request]:
        """Held requests that do not wait on, the first come first."""
        held = self._router.state.held
        rooms: dict[str, int] = {}
        found = []
        for name, waiting in self._waiting.items():
            request = held[name]
            model = self._router.endpoint(waiting.endpoint)
            room = rooms.setdefault(model.name, model.room)
            patience_s = self._rule.patience_s
            left = patience_s is not None and now_s - request.arrived_s >= patience_s
            rooms[model.name] -= 1
            if room > 0 or left or self._router.forbids(request, model.name, now_s) not in (None, *_FULL):
                found.append(request)
        return found

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact."""
        super().observe(fact, now_s)
        if isinstance(fact, Held):
            if self._binding is not None and self._binding[0] == fact.request.id:
                self._waiting[fact.request.id] = self._binding[1]
        elif isinstance(fact, Started | Released):
            self._waiting.pop(fact.request_id, None)
        self._binding = None

    def _before(self, request_id: str) -> list[Waiting]:
        """What waits and came earlier."""
        found = []
        for name, waiting in self._waiting.items():
            if name == request_id:
                break
            found.append(waiting)
        return found

    def _allowed(self, request: Request, now_s: float) -> tuple[list[EndpointModel], dict[str, Why]]:
        models, reasons = [], {}
        for model in self._router.serving(request.model):
            why = self._router.forbids(request, model.name, now_s)
            if why is None or (model.owned and why in _FULL):
                models.append(model)
            else:
                reasons[model.name] = why
        return models, reasons

    def _sight(self, model: EndpointModel, request: Request, now_s: float) -> Sight:
        waiting = [w for w in self._waiting.values() if w.endpoint == model.name]
        return Sight(model, request, self._lengths, waiting, now_s)

    def _go(self, request: Request, models: list[EndpointModel], patience_left_s: float | None) -> Decision:
        attempts = self._policy.attempts_max if request.failover else 1
        steps = list(plan.static_steps(request, models[:attempts]))
        if patience_left_s is not None:
            steps[0] = replace(steps[0], timeout_s=plan.to_ms(patience_left_s))
        return Decision(request_id=request.id, plan=tuple(steps), why=Why.STATIC_RULE)
