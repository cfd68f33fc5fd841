"""The router: `decide` reads, `observe` writes."""

import msgspec

from tidegate.core import rules
from tidegate.core.baseline import static_order
from tidegate.core.calibration import Cell
from tidegate.core.estimator import Base, EndpointModel, EndpointState
from tidegate.core.hold import Item, Place, latest_start_s, schedule
from tidegate.core.length import Length, LengthModel
from tidegate.core.model import (
    Candidate,
    Decision,
    DecisionOverran,
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Observation,
    Policy,
    Probed,
    Released,
    Request,
    Run,
    Started,
    Wait,
    Why,
)
from tidegate.core.value import attainment, contributions_usd, estimate, value_usd, worth_usd

# Normal deviations of the quantile a promise is first judged at, before the tracker has seen anything.
DEVIATIONS = {0.8: 0.84, 0.9: 1.28, 0.95: 1.64, 0.99: 2.33}
# Without content for this long, an attempt is given up at the earliest: prompts of any size have started by
# then on an engine that answers at all, or their own prediction says otherwise.
TIMEOUT_S_MIN = 10.0
TIMEOUT_FACTOR = 4.0
# Told to come back when a slot is expected, but never sooner than this: clients retry in step.
RETRY_AFTER_S_MIN = 1.0


class State(msgspec.Struct, kw_only=True):
    """Everything learned and tracked; a snapshot is this, encoded."""

    endpoints: dict[str, EndpointState] = {}
    lengths: dict[str, Cell] = {}
    held: dict[str, Request] = {}
    static_until_s: float = 0.0


class Option(msgspec.Struct):
    """An endpoint that no rule excludes, as this decision sees it."""

    model: EndpointModel
    base: Base
    value_usd: float
    room: int


class Router:
    """Decides where each request runs, and learns from what happened.

    The same configuration, snapshot and sequence of calls to `observe` give the same decisions.
    """

    __slots__ = ("_by_model", "_lengths", "_models", "_policy", "_state")

    def __init__(self, endpoints: tuple[Endpoint, ...], policy: Policy, state: State | None = None) -> None:
        self._state = state if state is not None else State()
        self._policy = policy
        deviations = DEVIATIONS[policy.quantile]
        # By name: neither the order of configuration nor that of a set may break a tie.
        self._models = {
            e.name: EndpointModel(e, deviations, self._state.endpoints.get(e.name))
            for e in sorted(endpoints, key=lambda e: e.name)
        }
        self._state.endpoints = {name: m.state for name, m in self._models.items()}
        self._lengths = LengthModel(self._state.lengths)
        self._by_model: dict[str, list[EndpointModel]] = {}
        for model in self._models.values():
            for name in model.endpoint.models:
                self._by_model.setdefault(name, []).append(model)

    # --- reading ------------------------------------------------------------------------------------------------

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where this request goes now, or that it waits, or why it is refused. Changes nothing."""
        length = self._lengths.at(request.klass, request.output_tokens_max)
        worth = worth_usd(request, length)
        options, reasons = self._weigh(request, length, worth, now_s)
        if not options:
            return self._refuse(request, reasons, now_s)
        if now_s < self._state.static_until_s:
            return self._static(request, options, now_s)
        held = self._state.held
        if held or any(o.room <= 0 for o in options):
            own = [o for o in options if o.model.endpoint.owned]
            if own:
                return self._bind(request, options, reasons, worth, now_s)
            options = [o for o in options if o.room > 0]
            if not options:
                return self._refuse(request, [*reasons, Why.BUSY], now_s)
        return self._run(request, options, reasons, worth, now_s)

    def due(self, now_s: float) -> list[Request]:
        """Held requests whose turn has come: a slot is free, they are sent away, or they have waited too long."""
        if not self._state.held:
            return []
        places = self._schedule(None, now_s)
        ready = []
        for request in self._state.held.values():
            place = places.get(request.id)
            expired = now_s - request.arrived_s >= self._policy.hold_s_max
            if place is None or expired or place.start_s <= now_s:
                ready.append((place.start_s if place else now_s, request.arrived_s, request.id, request))
        return [r[-1] for r in sorted(ready, key=lambda r: r[:3])]

    def candidates(self, request: Request, now_s: float) -> list[Candidate]:
        """Every endpoint as `decide` sees it: what excluded it, or its estimate and what makes up its value."""
        length = self._lengths.at(request.klass, request.output_tokens_max)
        worth = worth_usd(request, length)
        needed = rules.tokens_needed(request, length)
        found = []
        for model in self._models.values():
            if request.model not in model.endpoint.models:
                found.append(Candidate(endpoint=model.name, excluded=Why.UNKNOWN_MODEL))
                continue
            why = rules.excluded(request, model, needed, length, now_s)
            room = model.endpoint.concurrency - len(model.state.reservations)
            if why is None and room <= 0 and not model.endpoint.owned:
                why = Why.BUSY
            # What a rule excludes is still predicted: a reader wants to know what it would have been.
            base = model.base(request, length, now_s)
            wait_s = 0.0
            if model.endpoint.owned and why is None and (room <= 0 or self._state.held):
                wait_s = self._wait_s(request, model, base, worth, now_s)
            spent_s = now_s + wait_s - request.arrived_s
            parts = contributions_usd(request, base, worth, spent_s)
            found.append(
                Candidate(
                    endpoint=model.name,
                    excluded=why,
                    estimate=estimate(request, base, wait_s, now_s),
                    value_usd=sum(parts.values()),
                    contributions_usd=parts,
                )
            )
        return found

    def serves(self, model: str) -> bool:
        """Whether any endpoint serves this model name."""
        return model in self._by_model

    @property
    def held(self) -> int:
        """How many requests are held."""
        return len(self._state.held)

    def endpoint(self, name: str) -> EndpointModel:
        """The model of one endpoint, to read."""
        return self._models[name]

    def snapshot(self) -> msgspec.Raw:
        """The whole state as JSON; `State` decodes it."""
        return msgspec.Raw(msgspec.json.encode(self._state))

    # --- writing ------------------------------------------------------------------------------------------------

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact. All learning happens here."""
        match fact:
            case Started():
                self._state.held.pop(fact.request_id, None)
                length = self._lengths.at(fact.klass, fact.output_tokens_max)
                self._models[fact.endpoint].started(fact, length, now_s)
            case FirstToken():
                self._models[fact.endpoint].first(fact.request_id, now_s)
            case Ended():
                self._ended(fact, now_s)
            case Held():
                self._state.held[fact.request.id] = fact.request
            case Released():
                self._state.held.pop(fact.request_id, None)
            case Probed():
                self._models[fact.endpoint].probed(fact.up, fact.rtt_s, fact.context_tokens)
            case DecisionOverran():
                self._state.static_until_s = max(self._state.static_until_s, now_s + self._policy.static_s)

    def _ended(self, fact: Ended, now_s: float) -> None:
        sent = self._models[fact.endpoint].ended(fact, self._policy.quantile, now_s)
        if sent is not None and fact.output_tokens is not None:
            cut = sent.output_tokens_max is not None and fact.output_tokens >= sent.output_tokens_max
            at_least = cut or fact.ending is not Ending.OK
            self._lengths.learn(sent.klass, fact.output_tokens, now_s, at_least=at_least)

    # --- deciding -----------------------------------------------------------------------------------------------

    def _weigh(self, request: Request, length: Length, worth: float, now_s: float) -> tuple[list[Option], list[Why]]:
        options: list[Option] = []
        reasons: list[Why] = []
        needed = rules.tokens_needed(request, length)
        spent_s = now_s - request.arrived_s
        for model in self._by_model.get(request.model, ()):
            why = rules.excluded(request, model, needed, length, now_s)
            room = model.endpoint.concurrency - len(model.state.reservations)
            if why is None and room <= 0 and not model.endpoint.owned:
                why = Why.BUSY
            if why is not None:
                reasons.append(why)
                continue
            base = model.base(request, length, now_s)
            options.append(Option(model, base, value_usd(request, base, worth, spent_s), room))
        return options, reasons

    def _run(self, request: Request, options: list[Option], reasons: list[Why], worth: float, now_s: float) -> Decision:
        """Send it now, to the option worth most; the others follow as the plan's next steps."""
        ranked = sorted(options, key=lambda o: (-o.value_usd, o.base.first_s, o.model.name))
        best = ranked[0]
        if len(ranked) == 1:
            why = rules.why_only(reasons)
        elif attainment(request, best.base, now_s - request.arrived_s) < 0.5:
            why = Why.LEAST_LOSS
        elif best.base.cost_usd <= min(o.base.cost_usd for o in ranked):
            why = Why.CHEAPEST_ON_TIME
        else:
            why = Why.WORTH_THE_PRICE
        return Decision(request_id=request.id, plan=self._plan(request, ranked, worth, now_s), why=why)

    def _plan(self, request: Request, ranked: list[Option], worth: float, now_s: float) -> tuple[Run, ...]:
        steps_max = self._policy.attempts_max if request.failover else 1
        steps = ranked[:steps_max]
        spent_s = now_s - request.arrived_s
        plan = []
        for option, following in zip(steps, [*steps[1:], None], strict=True):
            first_s_high = option.base.first_s_high
            cutover_s = None
            if following is not None and request.slo.ttft_s is not None:
                # As late as the next endpoint could still be in time, and never before this one is overdue.
                latest_s = request.slo.ttft_s - spent_s - following.base.first_s_high
                if latest_s >= first_s_high:
                    gain_usd = worth * attainment(request, following.base, spent_s + latest_s)
                    cutover_s = latest_s if gain_usd > following.base.cost_usd else None
            timeout_s = max(TIMEOUT_S_MIN, TIMEOUT_FACTOR * first_s_high)
            plan.append(Run(endpoint=option.model.name, timeout_s=timeout_s, cutover_s=cutover_s))
        return tuple(plan)

    def _bind(
        self, request: Request, options: list[Option], reasons: list[Why], worth: float, now_s: float
    ) -> Decision:
        """Some of our own slots are taken or spoken for: start in turn, wait, or go elsewhere."""
        policy = self._policy
        if request.id in self._state.held and now_s - request.arrived_s >= policy.hold_s_max:
            return self._refuse(request, [*reasons, Why.BUSY], now_s)
        place = self._schedule(self._item(request, options, worth), now_s)[request.id]
        others = [o for o in options if not o.model.endpoint.owned and o.room > 0]
        if place.away:
            others.sort(key=lambda o: o.model.name != place.endpoint)
            plan = self._plan(request, others, worth, now_s)
            return Decision(request_id=request.id, plan=plan, why=self._why_away(place, others))
        if place.start_s <= now_s:
            start = [o for o in options if o.model.name == place.endpoint]
            return self._run(request, start + others, reasons, worth, now_s)
        own = next(o for o in options if o.model.name == place.endpoint)
        wait_usd = value_usd(request, own.base, worth, place.start_s - request.arrived_s)
        if others and max(o.value_usd for o in others) > wait_usd:
            return self._run(request, others, [*reasons, Why.BUSY], worth, now_s)
        if request.id not in self._state.held and len(self._state.held) >= policy.held_max:
            if others:
                return self._run(request, others, [*reasons, Why.BUSY], worth, now_s)
            return self._refuse(request, [*reasons, Why.HOLD_FULL], now_s)
        until_s = min(place.start_s, now_s + policy.recheck_s)
        wait = Wait(endpoint=place.endpoint, until_s=until_s)
        return Decision(request_id=request.id, plan=(wait,), why=Why.WAITS_FOR_SLOT)

    @staticmethod
    def _why_away(place: Place, others: list[Option]) -> Why:
        assert others, "only an endpoint with room is chosen to send work to"
        return Why.SENT_AWAY if place.shed else Why.WORTH_THE_PRICE

    def _static(self, request: Request, options: list[Option], now_s: float) -> Decision:
        ranked = static_order([(o.model.endpoint, o.room, o.base.cost_usd) for o in options])
        if not ranked:
            return self._refuse(request, [Why.BUSY], now_s)
        steps = tuple(
            Run(endpoint=name, timeout_s=TIMEOUT_S_MIN * TIMEOUT_FACTOR)
            for name in ranked[: self._policy.attempts_max if request.failover else 1]
        )
        return Decision(request_id=request.id, plan=steps, why=Why.STATIC_RULE)

    def _refuse(self, request: Request, reasons: list[Why], now_s: float) -> Decision:
        why = rules.why_refused(reasons)
        back_s = None
        models = self._by_model.get(request.model, [])
        if why in (Why.BUSY, Why.HOLD_FULL):
            back_s = min((min(m.slots_free_s(now_s)) for m in models), default=now_s)
        elif why in (Why.BREAKER_OPEN, Why.TOLD_TO_WAIT, Why.DOWN):
            back_s = min((max(m.state.breaker.open_until_s, m.state.not_before_s) for m in models), default=now_s)
        retry_after_s = None if back_s is None else max(RETRY_AFTER_S_MIN, back_s - now_s)
        return Decision(request_id=request.id, plan=(), why=why, retry_after_s=retry_after_s)

    # --- the held schedule --------------------------------------------------------------------------------------

    @staticmethod
    def _item(request: Request, options: list[Option], worth: float) -> Item:
        own = {o.model.name: o.base for o in options if o.model.endpoint.owned}
        away = {o.model.name: o.base for o in options if not o.model.endpoint.owned and o.room > 0}
        if not request.failover:
            away = {}
        return Item(request, worth, own, away, latest_start_s(request, own))

    def _schedule(self, new: Item | None, now_s: float) -> dict[str, Place]:
        """The schedule of the held work, with one more item where given."""
        items = [] if new is None else [new]
        for request in self._state.held.values():
            if new is not None and request.id == new.request.id:
                continue
            length = self._lengths.at(request.klass, request.output_tokens_max)
            worth = worth_usd(request, length)
            options, _ = self._weigh(request, length, worth, now_s)
            if any(o.model.endpoint.owned for o in options):
                items.append(self._item(request, options, worth))
        slots_s, rooms = {}, {}
        for name, model in self._models.items():
            if model.endpoint.owned:
                slots_s[name] = model.slots_free_s(now_s)
            else:
                rooms[name] = model.endpoint.concurrency - len(model.state.reservations)
        return schedule(items, slots_s, rooms, now_s)

    def _wait_s(self, request: Request, model: EndpointModel, base: Base, worth: float, now_s: float) -> float:
        item = Item(request, worth, {model.name: base}, {}, latest_start_s(request, {model.name: base}))
        return max(0.0, self._schedule(item, now_s)[request.id].start_s - now_s)
