"""A router that follows a simple rule, to be compared with the real one: the same facts, the same hard rules."""

from tidegate.core import plan, rules
from tidegate.core.baseline import Baseline, Options
from tidegate.core.endpoint import EndpointModel
from tidegate.core.length import LengthModel
from tidegate.core.model import Decision, Endpoint, Observation, Policy, Request, Started, Wait
from tidegate.core.refusal import refuse
from tidegate.core.why import Why
from tidegate.sim.decider import Follower


class Rival(Follower):
    """Decides by a rule.

    What the rule names nobody for waits, the first come first, as long as there is somebody merely full.
    """

    def __init__(self, rule: Baseline, endpoints: tuple[Endpoint, ...], policy: Policy) -> None:
        super().__init__(endpoints, policy)
        self._rule = rule
        self._names = sorted(endpoint.name for endpoint in endpoints)
        # The router's own lengths, to read: what a request costs depends on them.
        self._lengths = LengthModel(self._router.state.lengths)
        self._sent = 0

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where the rule sends it, or that it waits, or why it is refused. Changes nothing."""
        models, reasons = self._allowed(request, now_s)
        names = self._rule(self._options(request, models), self._sent)
        if names:
            attempts = self._policy.attempts_max if request.failover else 1
            steps = plan.static_steps(request, [self._router.endpoint(name) for name in names[:attempts]])
            return Decision(request_id=request.id, plan=steps, why=Why.STATIC_RULE)
        full = [model.name for model in models if model.room <= 0 and self._would(model)]
        full += [name for name, why in reasons.items() if why is Why.BUSY and self._would(self._router.endpoint(name))]
        held = self._router.state.held
        if request.id in held:
            stays = now_s - request.arrived_s < self._policy.hold_s_max
        else:
            stays = len(held) < self._policy.held_max
        if full and stays:
            until_s = plan.to_ms(now_s + self._policy.recheck_s)
            wait = Wait(endpoint=full[0], until_s=until_s)
            return Decision(request_id=request.id, plan=(wait,), why=Why.WAITS_FOR_SLOT)
        # Whom the rule would not use is as good as full.
        unused = dict.fromkeys((model.name for model in models), Why.BUSY)
        known = {name: self._router.endpoint(name) for name in self._names}
        return refuse(request, reasons | unused, known, now_s)

    def due(self, now_s: float) -> list[Request]:
        """Held requests that do not wait on, the first come first."""
        plans = ((request, self.decide(request, now_s).plan) for request in self._router.state.held.values())
        return [request for request, steps in plans if not steps or not isinstance(steps[0], Wait)]

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact."""
        super().observe(fact, now_s)
        if isinstance(fact, Started) and not fact.hedge:
            self._sent += 1

    def _allowed(self, request: Request, now_s: float) -> tuple[list[EndpointModel], dict[str, Why]]:
        """The endpoints that no rule excludes, and by name the reason for each of the others."""
        models, reasons = [], {}
        for model in self._router.serving(request.model):
            why = self._router.forbids(request, model.name, now_s)
            if why is None:
                models.append(model)
            else:
                reasons[model.name] = why
        return models, reasons

    def _options(self, request: Request, models: list[EndpointModel]) -> Options:
        length = self._lengths.at(request.klass, request.output_tokens_max)
        return [(m.endpoint, m.room, rules.cost_usd_most(request, m.endpoint, length)) for m in models]

    def _would(self, model: EndpointModel) -> bool:
        """Whether the rule would send it there, were there room."""
        return bool(self._rule([(model.endpoint, 1, 0.0)], self._sent))
