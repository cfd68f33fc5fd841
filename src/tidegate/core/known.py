"""All that a router knows: of its endpoints, of what it was asked, and of what it has promised."""

from tidegate.core.base import Base
from tidegate.core.budget import Budgets
from tidegate.core.counts import Turns
from tidegate.core.dual import Duals
from tidegate.core.eligible import Eligible
from tidegate.core.endpoint import EndpointModel
from tidegate.core.handover import Handovers
from tidegate.core.hedge import Hedges
from tidegate.core.length import LengthModel
from tidegate.core.model import Endpoint, Overrides, Policy, Request, Started
from tidegate.core.plan import Option
from tidegate.core.record import Fixed
from tidegate.core.session import Sessions
from tidegate.core.shares import Shares
from tidegate.core.state import State
from tidegate.core.waiting import Waiting
from tidegate.core.warmup import WarmUps


class Decided(Fixed, frozen=True):
    """The request that was decided last, when, and what was predicted of it; forgotten with the next fact. `offered`
    are its options also where they may be of a wait, so that what it takes where it goes is predicted anew."""

    request: Request
    at_s: float
    options: list[Option]
    offered: list[Option]


class Known:
    """Parts that read and write the same state, each its own of it. What is asked here changes nothing."""

    __slots__ = (
        "budgets",
        "duals",
        "eligible",
        "handovers",
        "hedges",
        "lengths",
        "models",
        "policy",
        "sessions",
        "shares",
        "state",
        "waiting",
        "warm_ups",
    )

    def __init__(self, endpoints: tuple[Endpoint, ...], policy: Policy, state: State) -> None:
        self.state = state
        self.policy = policy
        # By name: neither the order of configuration nor that of a set may break a tie.
        self.models = {
            e.name: EndpointModel(e, policy.quantile, state.endpoints.get(e.name))
            for e in sorted(endpoints, key=lambda e: e.name)
        }
        state.endpoints = {name: m.state for name, m in self.models.items()}
        self.handovers = Handovers(self.models, policy)
        self.lengths = LengthModel(state.lengths)
        self.sessions = Sessions(state.sessions)
        self.eligible = Eligible(self.models, self.sessions)
        self.duals = Duals(state.duals, state.overdue, state.held)
        self.shares = Shares(state.tenants, state.flows)
        self.budgets = Budgets(state.budgets)
        self.hedges = Hedges(state.hedging, policy.hedge_share)
        self.warm_ups = WarmUps(self.models)
        self.waiting = Waiting(
            state.held,
            self.models,
            self.eligible,
            self.handovers,
            self.lengths,
            self.duals,
            self.budgets,
            self.shares,
            policy,
            state.urgent,
        )
        self.override(state.overrides)

    def override(self, overrides: Overrides) -> None:
        """What operators have set by hand is in force from now on."""
        self.state.overrides = overrides
        self.eligible.override(overrides)

    def priced(self, request: Request, now_s: float) -> Request:
        """The request with what its promise is worth now, and the dollars that it would cost."""
        return self.budgets.priced(self.duals.priced(request, now_s))

    def is_static(self, now_s: float) -> bool:
        """Whether the static rule decides now."""
        return now_s < self.state.static_until_s or self.state.overrides.static

    def predicted(
        self, fact: Started, model: EndpointModel, decided: Decided | None, turns: Turns | None, now_s: float
    ) -> Base:
        """What is predicted of an attempt: what its decision found, where it is sent at once."""
        if decided is not None and decided.at_s == now_s and decided.request.id == fact.request_id:
            for option in decided.options:
                if option.model is model and not option.target and not fact.target:
                    return option.base
        return model.base(fact, self.lengths.asked(fact, turns), now_s)
