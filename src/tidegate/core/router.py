"""The router: `decide` reads, `observe` writes."""

from collections.abc import Collection, Iterable
from math import ceil, inf

import msgspec

from tidegate.core import memory
from tidegate.core.base import Base
from tidegate.core.decider import Decider
from tidegate.core.endpoint import EndpointModel
from tidegate.core.handover import HandoverModel
from tidegate.core.known import Known
from tidegate.core.learner import Learner
from tidegate.core.length import beginnings_of
from tidegate.core.model import (
    Candidate,
    Decision,
    Drawn,
    Endpoint,
    Headroom,
    Likeness,
    Observation,
    Overrides,
    Policy,
    Request,
    Started,
    Wait,
)
from tidegate.core.network import NetworkModel
from tidegate.core.reserve import Reservation
from tidegate.core.ruled import barred_by
from tidegate.core.rules import budget_usd_bound, excluded_ever, longest_tokens, tokens_needed_least
from tidegate.core.starts import item
from tidegate.core.state import State
from tidegate.core.value import contributions_usd, estimate, worth_usd
from tidegate.core.why import Why


class Router:
    """Decides where each request runs, and learns from what happened.

    The same configuration, snapshot and sequence of calls to `observe` give the same decisions.
    """

    __slots__ = ("_decider", "_known", "_learner")

    def __init__(self, endpoints: tuple[Endpoint, ...], policy: Policy, state: State | None = None) -> None:
        self._known = Known(endpoints, policy, state if state is not None else State())
        self._learner = Learner(self._known)
        self._decider = Decider(self._known)

    # --- reading ------------------------------------------------------------------------------------------------

    def decide(self, request: Request, now_s: float) -> Decision:
        """Where this request goes now, or that it waits, or why it is refused. Changes nothing."""
        return self._decider.decide(request, now_s)

    def due(self, now_s: float) -> list[Request]:
        """Held requests whose turn has come, in its order: `decide` lets none of them wait on, and else only who would
        find no room after them.

        A slot is free, or they are sent away, or they have waited too long, or nothing of ours can serve them any more,
        or the hold queue is full and others have less than their share of its places.
        """
        waiting = self._known.waiting
        held = waiting.requests
        if not held:
            return []
        if self._known.is_static(now_s):
            return [r for r in held.values() if not _waits(self.decide(r, now_s))]
        places, displaced = waiting.places(now_s), waiting.displaced(now_s)
        unserved = waiting.unserved(now_s)
        unplaced = [
            r
            for r in held.values()
            if r.id not in places and (r.id in unserved or r.id in displaced or waiting.expired(r, now_s))
        ]
        return self._unplaced_due(unplaced, now_s) + [
            held[name]
            for name, place in places.items()
            if place.away or place.start_s <= now_s or name in displaced or waiting.expired(held[name], now_s)
        ]

    def _unplaced_due(self, requests: list[Request], now_s: float) -> list[Request]:
        """Of those that wait for nothing of ours, those that may go, in their turn: no more than there is room for."""
        found, rooms = list[Request](), dict[str, int]()
        for request in sorted(requests, key=lambda one: self._known.waiting.order(one, now_s)):
            decision = self.decide(request, now_s)
            if _waits(decision):
                continue
            if decision.plan:
                # It is decided once more when its turn comes: where its first choice is full by then, for its second.
                names = [step.endpoint for step in decision.plan if not isinstance(step, Wait)]
                for name in names:
                    if name not in rooms:
                        rooms[name] = self._known.models[name].room
                free = [name for name in names if rooms[name] > 0]
                if not free:
                    continue
                rooms[free[0]] -= 1
            found.append(request)
        return found

    def candidates(self, request: Request, now_s: float) -> list[Candidate]:
        """Every endpoint as `decide` sees it: what excluded it, or its estimate and what makes up its value."""
        length = self._known.lengths.of(request)
        request = self._known.priced(request, now_s)
        worth = worth_usd(request, length)
        _, reasons = self._known.eligible.now(request, length, now_s)
        found = []
        for model in self._known.models.values():
            if request.model not in model.endpoint.models:
                found.append(Candidate(endpoint=model.name, excluded=Why.UNKNOWN_MODEL))
                continue
            why = reasons.get(model.name)
            # What a rule excludes is still predicted: a reader wants to know what it would have been.
            base = model.base(request, length, now_s)
            wait_s = 0.0
            if (
                why is None
                and model.owned
                and (self._known.waiting.requests or not self._decider.begins(model, request, length, now_s))
            ):
                alone = item(request, worth, {model.name: base}, [])
                wait_s = self._known.waiting.place(alone, now_s).as_if_s - now_s
            parts = contributions_usd(request, base, worth, now_s + wait_s - request.arrived_s)
            spare = model.memory.spare(now_s)
            found.append(
                Candidate(
                    endpoint=model.name,
                    excluded=why,
                    rule=barred_by(request.rulings, model.name) if why is Why.RULED_OUT else "",
                    estimate=estimate(request, base, wait_s, now_s),
                    value_usd=sum(parts.values()),
                    contributions_usd=parts,
                    kv_tokens=memory.kv_tokens_to_begin(request, length, owned=model.owned),
                    kv_free_tokens=None if spare is None else max(0, spare.free_tokens),
                )
            )
        return found

    def prefills(self, request: Request, now_s: float) -> list[Candidate]:
        """The same of every handover that may compute its prompt for one of ours."""
        if not self._known.handovers.may_ship(request):
            return []
        length = self._known.lengths.of(request)
        request = self._known.priced(request, now_s)
        worth = worth_usd(request, length)
        _, reasons = self._known.eligible.now(request, length, now_s)
        found = []
        for one in self._known.handovers.models.values():
            if any(request.model not in end.endpoint.models for end in (one.source, one.target)):
                continue
            barred = [name for name in (one.source.name, one.target.name) if reasons.get(name) is Why.RULED_OUT]
            why = reasons.get(one.source.name) or reasons.get(one.target.name) or one.excluded(request, now_s)
            base = one.base(request, length, now_s)
            parts = contributions_usd(request, base, worth, now_s - request.arrived_s)
            computed_s, ship_s, slot_s = one.stages_s(request, now_s)
            found.append(
                Candidate(
                    endpoint=one.source.name,
                    target=one.target.name,
                    kv_bytes=int(one.kv_bytes(request, now_s)),
                    computed_s=computed_s,
                    ship_s=ship_s,
                    slot_s=slot_s,
                    excluded=why,
                    rule=barred_by(request.rulings, barred[0]) if barred and why is Why.RULED_OUT else "",
                    estimate=estimate(request, base, 0.0, now_s),
                    value_usd=sum(parts.values()),
                    contributions_usd=parts,
                )
            )
        return found

    def worth_usd(self, request: Request, now_s: float) -> float:
        """What keeping its promise is worth, as `decide` sees it."""
        return worth_usd(self._known.duals.priced(request, now_s), self._known.lengths.of(request))

    def worth_share(self, klass: str, now_s: float) -> float:
        """What a kept promise of a class with a target is worth, as a share of the most that it may be."""
        return self._known.duals.share(klass, now_s)

    def shares(self, now_s: float) -> dict[str, float]:
        """The share of what our engines did of late that each tenant has had, by key: they add up to one.

        Empty where they have done nothing.
        """
        told = self._known.shares.told(now_s)
        total = sum(told.values())
        return {key: seconds / total for key, seconds in sorted(told.items())} if total > 0.0 else {}

    def budget_price(self, budget: str) -> float:
        """What a dollar of a budget is worth beyond itself; 0 where it lasts anyway."""
        return self._known.budgets.price(budget)

    def may_hedge(self, endpoints: Iterable[str]) -> bool:
        """Whether another attempt may start now beside those at these endpoints: always, where none of them is paid."""
        models = self._known.models
        paid = any(models[name].cost.is_paid for name in endpoints if name in models)
        return not paid or self._known.hedges.left_usd > 0.0

    @property
    def hedge_left_usd(self) -> float:
        """What may be lost on hedges now."""
        return self._known.hedges.left_usd

    @property
    def hedge_price(self) -> float:
        """What a dollar that is lost on a hedge has to save beyond itself; no end of it where none may be lost."""
        return self._known.hedges.price

    def warm_ups(self, now_s: float) -> list[str]:
        """The endpoints whose model is to be loaded now for nobody in particular, or used so that it stays loaded."""
        return [] if self._known.is_static(now_s) else self._known.warm_ups.due(now_s)

    def is_news(self, fact: Drawn, now_s: float) -> bool:
        """Whether to tell what a budget has spent."""
        return self._known.budgets.is_news(fact, now_s)

    def tells_headroom(self, fact: Headroom) -> bool:
        """Whether to tell what a vendor has said is left of its limits."""
        known = self._known.models.get(fact.endpoint)
        return known is not None and known.state.allowances.is_news(fact)

    def serves(self, model: str) -> bool:
        """Whether any endpoint serves this model name."""
        return bool(self._known.eligible.serving(model))

    def serving(self, model: str) -> list[EndpointModel]:
        """The endpoints that serve this model name, to read."""
        return list(self._known.eligible.serving(model))

    def forbids(self, request: Request, endpoint: str, now_s: float) -> Why | None:
        """What excludes an endpoint now that an earlier decision picked, None if it may still be used."""
        length = self._decider.length(request, static=self._known.is_static(now_s))
        return self._known.eligible.forbids(request, endpoint, length, now_s)

    def at_stake_usd(self, request: Request, left_usd: float | None) -> float:
        """The most that the request can cost at an endpoint that may be paid for with what it knows to be left, or with
        `left_usd`, and not with both; 0 where there is none. None is no limit."""
        known_usd = inf if request.budget_usd is None else request.budget_usd
        other_usd = inf if left_usd is None else left_usd
        most_usd = 0.0
        if known_usd != other_usd:
            needed = tokens_needed_least(request)
            for model in self._known.eligible.serving(request.model):
                usd = budget_usd_bound(request, model.endpoint, model.context_tokens)
                if (usd > known_usd) is not (usd > other_usd) and excluded_ever(request, model, needed) is None:
                    most_usd = max(most_usd, usd)
        return most_usd

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """As they are configured, by name."""
        return tuple([model.endpoint for model in self._known.models.values()])

    @property
    def policy(self) -> Policy:
        """The settings that it decides by."""
        return self._known.policy

    @property
    def state(self) -> State:
        """All that is learned and tracked; whoever changes it takes this router's place."""
        return self._known.state

    @property
    def overrides(self) -> Overrides:
        """What operators have set by hand."""
        return self._known.state.overrides

    @property
    def held(self) -> int:
        """How many requests are held."""
        return len(self._known.waiting.requests)

    @property
    def sessions(self) -> int:
        """How many conversations have a place to stay with."""
        return len(self._known.state.sessions)

    def endpoint(self, name: str) -> EndpointModel:
        """The model of one endpoint, to read."""
        return self._known.models[name]

    def alike(self, name: str) -> tuple[str, ...]:
        """The endpoints that are known to have the same model as this one, itself included; none if it is gone."""
        home = self._known.models.get(name)
        return () if home is None else tuple([m.name for m in self._known.models.values() if m.is_one_with(home)])

    @property
    def handing(self) -> Collection[str]:
        """The endpoints that compute prompts for others, and these."""
        return self._known.handovers.ends

    @property
    def handovers(self) -> Collection[HandoverModel]:
        """All of them, to read."""
        return self._known.handovers.models.values()

    def handover(self, source: str, target: str) -> HandoverModel | None:
        """The handover between two endpoints, to read; None if it is gone."""
        return self._known.handovers.of(source, target)

    def network(self, endpoint: str) -> NetworkModel | None:
        """The way to an endpoint, to read; None if it is gone."""
        known = self._known.models.get(endpoint)
        return None if known is None else known.network

    def doubts_rate(self, endpoint: str, now_s: float) -> bool:
        """Whether a probe should find out, by bytes that serve nothing, whether the way there is quick again."""
        known = self._known.models.get(endpoint)
        return known is not None and known.doubts_rate(now_s)

    def telling_bytes(self, endpoint: str) -> float:
        """From how many bytes on an upload there is worth being timed; infinity if it is gone."""
        known = self._known.models.get(endpoint)
        return inf if known is None else known.late.telling_bytes

    def doubts_network(self, endpoint: str) -> bool:
        """Whether a probe should tell before its turn what the way there is like now."""
        known = self._known.models.get(endpoint)
        return known is not None and known.late.doubts_network

    def likeness(self, endpoint: str, model: str) -> Likeness | None:
        """How alike an endpoint is to what a model's name promises, as far as is known now; None if it is gone."""
        known = self._known.models.get(endpoint)
        return None if known is None else known.identity.likeness.get(model, Likeness.IDENTICAL)

    def predicted(self, fact: Started, now_s: float) -> Base | None:
        """What an attempt is believed to take that is sent now, None where no such endpoint is known."""
        model = self._known.models.get(fact.endpoint)
        turns = self._known.lengths.turns(fact.session, beginnings_of(fact))
        return None if model is None else self._known.predicted(fact, model, self._decider.decided, turns, now_s)

    def predicted_ttft_s(self, endpoint: str, request_id: str) -> float | None:
        """What was predicted when this attempt was sent, None where no such attempt is under way."""
        model = self._known.models.get(endpoint)
        reservation = None if model is None else model.state.reservations.get(request_id)
        return None if reservation is None else reservation.ttft_s

    def reserved(self, endpoint: str, request_id: str) -> Reservation | None:
        """What is under way there for this request, to read; None where nothing is."""
        model = self._known.models.get(endpoint)
        return None if model is None else model.state.reservations.get(request_id)

    def foreseen(self, request_id: str, endpoint: str) -> tuple[float, float] | None:
        """The time to first content and the dollars that the last decision predicted of this request at an endpoint.

        None where it predicted nothing there, or something was told since.
        """
        decided = self._decider.decided
        if decided is not None and decided.request.id == request_id:
            for option in decided.options:
                if option.model.name == endpoint:
                    return option.base.first_s, option.base.cost_usd
        return None

    def alone_usd(
        self, request: Request, prompt_tokens: int, output_tokens: int, *, local: bool, now_s: float
    ) -> tuple[str, float] | None:
        """Who would serve this if all went to local endpoints, or to remote ones, and what so many tokens would cost
        there: who has the lowest list price and may ever serve it. None where nobody may.

        Nothing is cached, nobody is full or down, and nothing fails. Running an engine costs what a request like this
        is predicted to take there as it is now.
        """
        # Each of several completions stands in a window of its own, and they are decoded side by side.
        each = output_tokens / request.completions
        tokens = longest_tokens(request, prompt_tokens) + ceil(each)
        model = self._known.eligible.cheapest_ever(request, tokens, local=local)
        if model is None:
            return None
        usd = model.cost.usd(prompt_tokens, output_tokens, 0.0)
        if model.cost.usd_per_s:
            base = model.base(request, self._known.lengths.of(request), now_s)
            decode_s = base.decode_s_mean * each / base.output_tokens
            usd += model.cost.usd_per_s * (base.queue_s + base.prefill_s_mean + base.load_s_mean + decode_s)
        return model.name, usd

    def snapshot(self, *, held: bool = True) -> msgspec.Raw:
        """The whole state as JSON, or without what ends with the process: held requests, pins of sessions, and what
        is known of conversations, whose digests nobody can make again. `State` decodes it."""
        state = self._known.state
        if not held:
            lengths = msgspec.structs.replace(state.lengths, sessions={}, beginnings={})
            state = msgspec.structs.replace(state, held={}, overdue={}, sessions={}, lengths=lengths)
        return msgspec.Raw(msgspec.json.encode(state))

    # --- writing ------------------------------------------------------------------------------------------------

    def observe(self, fact: Observation, now_s: float) -> None:
        """Take in a fact. All learning happens here.

        Raises what a model raises that cannot take it in; the static rule can go on all the same.
        """
        decided, self._decider.decided = self._decider.decided, None
        self._learner.observe(fact, decided, now_s)


def _waits(decision: Decision) -> bool:
    return bool(decision.plan) and isinstance(decision.plan[0], Wait)
