"""What a simulated world needs of whoever decides in it, and what all share who decide in the router's place."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Protocol

import msgspec

from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Decision, Drawn, Endpoint, Observation, Policy, Request, Run, Started, replace
from tidegate.core.reserve import Reservation
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.core.why import Why


class Decider(Protocol):
    """Who decides: the part of `Router` that a world needs."""

    @property
    def held(self) -> int:
        """How many requests are held."""

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where a request goes."""

    def due(self, now_s: float) -> list[Request]:
        """Held requests whose turn has come."""

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact."""

    def at_stake_usd(self, request: Request, left_usd: float | None) -> float:
        """The most that it can cost where only one of what it knows to be left and `left_usd` is enough to pay it."""

    def is_news(self, fact: Drawn, now_s: float) -> bool:
        """Whether to tell what a budget has spent."""

    def may_hedge(self, endpoints: Iterable[str]) -> bool:
        """Whether another attempt may start now beside those at these endpoints."""

    def warm_ups(self, now_s: float) -> list[str]:
        """The endpoints whose model is to be loaded now for nobody in particular."""

    def alike(self, name: str) -> tuple[str, ...]:
        """The endpoints that are known to have the same model as this one, itself included."""

    def forbids(self, request: Request, endpoint: str, now_s: float) -> Why | None:
        """What excludes an endpoint now, None if nothing does."""

    def reserved(self, endpoint: str, request_id: str) -> Reservation | None:
        """What is under way there for this request, to read."""

    def endpoint(self, name: str) -> EndpointModel:
        """The model of one endpoint, to read."""

    def snapshot(self) -> msgspec.Raw:
        """The whole state as JSON."""


class Follower:
    """Decides otherwise, and leaves everything else to a router: what is known, and what is forbidden."""

    def __init__(self, endpoints: tuple[Endpoint, ...], policy: Policy, state: State | None = None) -> None:
        """`state` is what is known at first: nothing, unless it is given."""
        self._router, self._policy = Router(endpoints, policy, state), policy

    @property
    def held(self) -> int:
        """How many requests are held."""
        return self._router.held

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact. A rule fills engines as it says itself: a promise that is not told makes no batch smaller."""
        if isinstance(fact, Started):
            fact = replace(fact, promised_tpot_s=None)
        self._router.observe(fact, now_s)

    def at_stake_usd(self, request: Request, left_usd: float | None) -> float:
        """See `Router`."""
        return self._router.at_stake_usd(request, left_usd)

    def is_news(self, fact: Drawn, now_s: float) -> bool:
        """Whether the router would be told."""
        return self._router.is_news(fact, now_s)

    def may_hedge(self, endpoints: Iterable[str]) -> bool:  # noqa: ARG002 - as its plans say
        """Always."""
        return True

    def warm_ups(self, now_s: float) -> list[str]:  # noqa: ARG002 - nothing is done before somebody asks
        """None."""
        return []

    def alike(self, name: str) -> tuple[str, ...]:
        """As the router knows them."""
        return self._router.alike(name)

    def forbids(self, request: Request, endpoint: str, now_s: float) -> Why | None:
        """What the router would say."""
        return self._router.forbids(request, endpoint, now_s)

    def reserved(self, endpoint: str, request_id: str) -> Reservation | None:
        """What the router has reserved."""
        return self._router.reserved(endpoint, request_id)

    def endpoint(self, name: str) -> EndpointModel:
        """The model of one endpoint, to read."""
        return self._router.endpoint(name)

    def snapshot(self) -> msgspec.Raw:
        """The whole state as JSON."""
        return self._router.snapshot()


class AtOnce(Follower):
    """Sends each request `where` it goes, by id, or where all others go, as soon as it comes.

    That is a fact, whatever the rules say that the policy has; and its answer is waited for as long as the world lets a
    request take."""

    def __init__(
        self,
        where: Mapping[str, str],
        endpoints: tuple[Endpoint, ...],
        policy: Policy,
        state: State | None = None,
        *,
        usual: str = "",
    ) -> None:
        super().__init__(endpoints, policy, state)
        self._where, self._usual = where, usual

    def decide(self, request: Request, now_s: float) -> Decision:  # noqa: ARG002 - whenever that is
        """There."""
        step = Run(endpoint=self._where.get(request.id, self._usual), timeout_s=inf)
        return Decision(request_id=request.id, plan=(step,), why=Why.STATIC_RULE)

    def due(self, now_s: float) -> list[Request]:  # noqa: ARG002 - nothing is held
        """None."""
        return []
