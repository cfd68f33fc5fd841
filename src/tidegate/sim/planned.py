"""A decider to whom everything was said before: what goes away, and in which order the rest is served here."""

from collections.abc import Iterable

import msgspec

from tidegate.core import plan, rules
from tidegate.core.model import Decision, Endpoint, Policy, Request, Wait
from tidegate.core.state import State
from tidegate.core.why import Why
from tidegate.sim.decider import Follower


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with each request, by its id.

    Those in `places` are served at that endpoint of ours, the others go away at once. `starts_by_s` is when each has to
    start to be in time. So many are `running` at once at each endpoint of ours.
    """

    places: dict[str, str]
    starts_by_s: dict[str, float]
    running: dict[str, int]


class Planned(Follower):
    """Decides by a plan.

    What is served here waits until a slot is free: who has to start first is first, and who is late lets all others go
    before. Where an attempt fails, the others are tried, the remote ones last. Whom a rule ever keeps from its place is
    sent away.
    """

    def __init__(self, made: Plan, endpoints: tuple[Endpoint, ...], policy: Policy, state: State | None = None) -> None:
        super().__init__(endpoints, policy, state)
        self._plan = made
        self._remote = sorted(e.name for e in endpoints if e.name not in made.running)

    def decide(self, request: Request, now_s: float) -> Decision:
        """What the plan says. Changes nothing."""
        name = self._plan.places.get(request.id)
        away = [remote for remote in self._remote if self._allows(request, remote)]
        if name is None or not self._allows(request, name):
            return self._run(request, away)
        if self._router.forbids(request, name, now_s) is Why.DOWN:
            return self._run(request, away or [name])
        others = [one for one in self._router.state.held.values() if one.id != request.id]
        if request.id in {one.id for one in self._next([*others, request], name, now_s)}:
            return self._run(request, [name, *away])
        wait = Wait(endpoint=name, until_s=plan.to_ms(now_s + self._policy.recheck_s))
        return Decision(request_id=request.id, plan=(wait,), why=Why.WAITS_FOR_SLOT)

    def due(self, now_s: float) -> list[Request]:
        """Held requests that can start, in the order in which they do."""
        held = list(self._router.state.held.values())
        due = [request for name in sorted(self._plan.running) for request in self._next(held, name, now_s)]
        down = {name for name in self._plan.running if not self._router.endpoint(name).state.up}
        return due + [one for one in held if one not in due and self._plan.places[one.id] in down]

    def _next(self, requests: Iterable[Request], name: str, now_s: float) -> list[Request]:
        """Of these, those that can start there now."""
        room = self._plan.running[name] - len(self._router.endpoint(name).state.reservations)
        if room <= 0:
            return []
        by_s = self._plan.starts_by_s
        here = [one for one in requests if self._plan.places.get(one.id) == name]
        here.sort(key=lambda one: (by_s[one.id] < now_s, by_s[one.id], one.id))
        return here[:room]

    def _allows(self, request: Request, name: str) -> bool:
        model = self._router.endpoint(name)
        served = request.model in model.endpoint.models
        return served and rules.excluded_ever(request, model, rules.tokens_needed_least(request)) is None

    def _run(self, request: Request, names: list[str]) -> Decision:
        names = names[: self._policy.attempts_max if request.failover else 1]
        steps = plan.static_steps(request, [self._router.endpoint(name) for name in names])
        return Decision(request_id=request.id, plan=steps, why=Why.STATIC_RULE)
