"""A decider to whom everything was said before: what goes away, and in which order the rest is served here."""

from collections.abc import Iterable

import msgspec

from tidegate.core import plan, rules
from tidegate.core.estimator import EndpointModel
from tidegate.core.model import Decision, Endpoint, Observation, Policy, Request, Run, Wait
from tidegate.core.router import Router
from tidegate.core.why import Why


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done with each request, by its id.

    Those in `places` are served at that endpoint of ours, the others go away at once. `starts_by_s` is when each has to
    start to be in time. So many are `running` at once at each endpoint of ours.
    """

    places: dict[str, str]
    starts_by_s: dict[str, float]
    running: dict[str, int]


class Planned:
    """Decides by a plan, and leaves the facts to a router.

    What is served here waits until a slot is free: who has to start first is first, and who is late lets all others go
    before. Where an attempt fails, the others are tried, the remote ones last.
    """

    def __init__(self, made: Plan, endpoints: tuple[Endpoint, ...], policy: Policy) -> None:
        self._plan = made
        self._router = Router(endpoints, policy)
        self._policy = policy
        self._remote = sorted(e.name for e in endpoints if e.name not in made.running)

    @property
    def held(self) -> int:
        """How many requests are held."""
        return self._router.held

    def decide(self, request: Request, now_s: float) -> Decision:
        """What the plan says. Changes nothing."""
        name = self._plan.places.get(request.id)
        away = [remote for remote in self._remote if rules.may_go_to(request, self._router.endpoint(remote).endpoint)]
        if name is None:
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

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact."""
        self._router.observe(fact, now_s)

    def predicted_ttft_s(self, endpoint: str, request_id: str) -> float | None:
        """What the router would have predicted."""
        return self._router.predicted_ttft_s(endpoint, request_id)

    def endpoint(self, name: str) -> EndpointModel:
        """The model of one endpoint, to read."""
        return self._router.endpoint(name)

    def snapshot(self) -> msgspec.Raw:
        """The whole state as JSON."""
        return self._router.snapshot()

    def _next(self, requests: Iterable[Request], name: str, now_s: float) -> list[Request]:
        """Of these, those that can start there now."""
        room = self._plan.running[name] - len(self._router.endpoint(name).state.reservations)
        if room <= 0:
            return []
        by_s = self._plan.starts_by_s
        here = [one for one in requests if self._plan.places.get(one.id) == name]
        here.sort(key=lambda one: (by_s[one.id] < now_s, by_s[one.id], one.id))
        return here[:room]

    def _run(self, request: Request, names: list[str]) -> Decision:
        names = names[: self._policy.attempts_max if request.failover else 1]
        steps = tuple(Run(endpoint=name, timeout_s=plan.TIMEOUT_S_STATIC) for name in names)
        return Decision(request_id=request.id, plan=steps, why=Why.STATIC_RULE)
