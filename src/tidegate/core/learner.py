"""What a fact teaches: all that a router knows is changed here, and nowhere else."""

from math import inf

from tidegate.core.base import Base
from tidegate.core.endpoint import EndpointModel
from tidegate.core.fingerprint import OF_THE_MODEL, differs
from tidegate.core.health import UNBILLED
from tidegate.core.known import Decided, Known
from tidegate.core.length import beginnings_of
from tidegate.core.model import (
    Checked,
    DecisionOverran,
    Drawn,
    Ended,
    Ending,
    FirstToken,
    Headroom,
    Held,
    Judged,
    ModelFailed,
    Observation,
    Overrides,
    Probed,
    Released,
    Request,
    Shipped,
    Started,
    Uploaded,
    Warmed,
    Warming,
)
from tidegate.core.reserve import Reservation
from tidegate.core.shares import give, left
from tidegate.core.starts import latest_start_s

# Where the static rule is to take over for no time at all, it still does for the decision that failed.
STATIC_S_LEAST = 0.001


class Learner:
    """Takes facts in, one after the other.

    An endpoint that a reload took out may still have attempts under way: nothing is left to learn of it.
    """

    __slots__ = ("_known",)

    def __init__(self, known: Known) -> None:
        self._known = known

    def observe(self, fact: Observation, decided: Decided | None, now_s: float) -> None:
        """Take in a fact. `decided` is what was decided last: this fact may be what came of it.

        Raises what a model raises that cannot take it in. What is under way, held and said by operators is known all
        the same, so that the static rule can go on.
        """
        try:
            self._take_in(fact, decided, now_s)
        except Exception:
            self._keep_books(fact, now_s)
            raise

    def _take_in(self, fact: Observation, decided: Decided | None, now_s: float) -> None:
        known = self._known
        known.waiting.forget(fact)
        known.duals.settle(now_s)
        known.budgets.settle(now_s)
        known.hedges.settle(now_s)
        match fact:  # what is told most often comes first
            case Started():
                held = known.waiting.release(fact.request_id)
                if fact.urgent and known.eligible.serving(fact.model):
                    known.waiting.urge(fact.model, now_s)
                if (model := known.models.get(fact.endpoint)) is not None:
                    self._asked(fact, model, decided, now_s)
                    beginnings = beginnings_of(fact)
                    turns = known.lengths.turns(fact.session, beginnings)
                    base = known.predicted(fact, model, decided, turns, now_s)
                    model.started(fact, base, now_s, turns, beginnings[-1] if beginnings else 0)
                    if model.owned:
                        self._given(fact, model, held, decided, base, now_s)
                    if fact.target:
                        self._computes(fact, now_s)
                    if fact.hedge:
                        self._races(fact, model, base, now_s)
            case Ended():
                self._ended(fact, now_s)
            case Uploaded():
                if (model := known.models.get(fact.endpoint)) is not None:
                    model.uploaded(fact, now_s)
            case Shipped():
                if (handover := known.handovers.of(fact.endpoint, fact.target)) is not None:
                    handover.shipped(fact, now_s)
            case FirstToken():
                if (model := known.models.get(fact.endpoint)) is not None:
                    sent = model.first(fact.request_id, now_s)
                    if sent is not None and sent.session:
                        known.sessions.served(sent.session, model.name, now_s)
            case Headroom():
                if (model := known.models.get(fact.endpoint)) is not None:
                    model.state.allowances.learn(fact, now_s)
            case Judged():
                known.duals.judged(fact, now_s)
            case Drawn():
                known.budgets.drawn(fact, now_s)
            case Held():
                known.waiting.hold(fact.request, now_s)
                known.duals.hold(fact.request, now_s)
            case Released():
                known.waiting.release(fact.request_id)
                known.handovers.over(fact.request_id, now_s)
            case Probed():
                if (model := known.models.get(fact.endpoint)) is not None:
                    self._probed(fact, model, now_s)
            case Warming():
                if (model := known.models.get(fact.endpoint)) is not None:
                    known.warm_ups.begun(model, known.lengths.at("", 1), now_s)
            case Warmed():
                if (model := known.models.get(fact.endpoint)) is not None:
                    known.warm_ups.over(model, fact, now_s)
            case Checked():
                if (model := known.models.get(fact.endpoint)) is not None:
                    model.identity.checked(drifted=fact.drifted)
            case DecisionOverran():
                self._fall_back(known.policy.static_s, now_s)
            case ModelFailed():
                self._fall_back(max(known.policy.static_s, STATIC_S_LEAST), now_s)
            case Overrides():
                known.override(fact)

    def _keep_books(self, fact: Observation, now_s: float) -> None:
        """What has to be known of a fact that the model could not take in, whatever it has got to."""
        known = self._known
        match fact:
            case Held():
                known.waiting.hold(fact.request, now_s)
            case Released():
                known.waiting.release(fact.request_id)
            case Started():
                known.waiting.release(fact.request_id)
                if (model := known.models.get(fact.endpoint)) is not None:
                    model.keep_books(fact, now_s)
            case Ended():
                if (model := known.models.get(fact.endpoint)) is not None:
                    model.keep_books(fact, now_s)
                known.handovers.keep_books(fact, now_s)
            case Shipped():
                known.handovers.keep_books(fact, now_s)
            case Judged():
                known.duals.over(fact.request_id)
            case Probed():
                if (model := known.models.get(fact.endpoint)) is not None:
                    model.state.up = fact.up
            case ModelFailed():
                self._fall_back(max(known.policy.static_s, STATIC_S_LEAST), now_s)
            case Overrides():
                known.override(fact)
            case _:
                pass

    def _computes(self, fact: Started, now_s: float) -> None:
        """Its prompt is computed there for another one."""
        known = self._known
        if (handover := known.handovers.of(fact.endpoint, fact.target)) is not None:
            length = known.lengths.at(fact.klass, None, fact.model, fact.key, fact.prompt_tokens)
            handover.started(fact, length, now_s)

    def _asked(self, fact: Started, model: EndpointModel, decided: Decided | None, now_s: float) -> None:
        """A request goes there; had another model been loaded, it might have gone to that one."""
        warm_ups = self._known.warm_ups
        warm_ups.asked(model, now_s)
        if decided is not None and _is_of(fact, decided, now_s):
            warm_ups.missed(fact, decided.request, decided.offered, now_s)

    def _given(
        self,
        fact: Started,
        model: EndpointModel,
        held: Request | None,
        decided: Decided | None,
        base: Base,
        now_s: float,
    ) -> None:
        """One of ours was given work: as much as is expected, which its tenant has had from now on."""
        sent = model.state.reservations[fact.request_id]
        if held is not None:
            latest_s = latest_start_s(held, base)
            sent.rest = latest_s == inf or latest_s < now_s
        elif decided is not None and _is_of(fact, decided, now_s):
            # What is promised nothing and did not wait has taken nothing from who waits.
            sent.rest = latest_start_s(decided.request, base) < now_s
        self._give(model, sent, sent.engine_s, now_s)

    def _taken(self, fact: Ended, model: EndpointModel, sent: Reservation, now_s: float) -> None:
        """An attempt is over: what it took takes the place of what was expected."""
        expected_s = left(sent.engine_s, now_s - sent.started_s)
        self._give(model, sent, model.engine_s(sent, fact.e2e_s) - expected_s, now_s)

    def _give(self, model: EndpointModel, sent: Reservation, seconds: float, now_s: float) -> None:
        """So many seconds of an engine of ours go to an attempt; or so many less than was expected."""
        self._known.shares.add(sent.key, sent.klass, seconds, now_s)
        give(model.state.given, seconds, now_s)
        if sent.rest:
            give(model.state.given_rest, seconds, now_s)

    def _races(self, fact: Started, model: EndpointModel, base: Base, now_s: float) -> None:
        """A second attempt has begun. Beside one that is paid, what it costs may be lost, and what that one costs."""
        beside = [m for m in self._known.models.values() if m is not model and m.cost.is_paid]
        raced = [sent for m in beside if (sent := m.state.reservations.get(fact.request_id)) is not None]
        if not raced:
            return
        hedge = model.state.reservations[fact.request_id]
        hedge.hedge_usd = model.cost.usd(fact.prompt_tokens, 0.0, base.cached.tokens)
        self._known.hedges.lost(hedge.hedge_usd, now_s)
        for sent in (*raced, hedge):
            sent.raced = True

    def _paid(self, fact: Ended, model: EndpointModel, sent: Reservation, now_s: float) -> None:
        """An attempt that is paid is over: it has served, or is lost to the one that did."""
        tokens = sent.prompt_tokens if fact.prompt_tokens is None else fact.prompt_tokens
        usd = model.cost.usd(tokens, fact.output_tokens or 0, fact.cached_tokens or 0)
        if fact.ending is Ending.OK and fact.cause not in UNBILLED:
            self._known.hedges.paid(usd, now_s)
        if sent.raced:
            # Who has shown content first has beaten the other, whatever becomes of its client.
            beaten = fact.ending is Ending.CANCELLED and sent.first_s is None and fact.cause not in UNBILLED
            self._known.hedges.lost((usd if beaten else 0.0) - sent.hedge_usd, now_s)

    def _probed(self, fact: Probed, model: EndpointModel, now_s: float) -> None:
        before = model.identity.fingerprint
        model.prefixes.settle(now_s)
        model.probed(fact, now_s)
        if differs(before, model.identity.fingerprint, OF_THE_MODEL):
            self._known.sessions.became(model, before, self._known.models)

    def _ended(self, fact: Ended, now_s: float) -> None:
        model = self._known.models.get(fact.endpoint)
        sent = model.ended(fact, now_s) if model is not None else None
        if model is None or sent is None:
            return
        if sent.engine_s:
            self._taken(fact, model, sent, now_s)
        if model.cost.is_paid:
            self._paid(fact, model, sent, now_s)
        if sent.target or sent.shipped:
            self._handed_over(fact, sent, now_s)
        elif self._known.handovers.models:
            self._known.handovers.over(fact.request_id, now_s)
        # An engine that finds fault with a request has not served it.
        if sent.session and fact.ending is Ending.OK and not fact.cause:
            self._known.sessions.served(sent.session, fact.endpoint, now_s)
        # Who computed the prompt alone was asked for no answer.
        if fact.output_tokens is not None and not sent.target:
            tokens = fact.output_tokens / sent.completions
            cut = sent.output_tokens_max is not None and tokens >= sent.output_tokens_max
            at_least = cut or fact.ending is not Ending.OK
            self._known.lengths.learn(
                sent.klass,
                # Of an answer that was resumed, all of it.
                tokens + sent.said_tokens,
                now_s,
                at_least=at_least,
                model=sent.model,
                key=sent.key,
                prompt_tokens=sent.prompt_tokens - sent.said_tokens,
                session=sent.session,
                beginning=sent.beginning,
                turns=sent.turns,
                request_id=fact.request_id,
            )

    def _handed_over(self, fact: Ended, sent: Reservation, now_s: float) -> None:
        """A prompt was computed for another endpoint, or one that had come from elsewhere was used."""
        handovers = self._known.handovers
        if sent.target and (handover := handovers.of(fact.endpoint, sent.target)) is not None:
            # An engine that finds fault with a request has not computed its prompt.
            ending = Ending.CANCELLED if fact.cause else fact.ending
            handover.computed(fact.request_id, ending, now_s)
        if sent.shipped and (used := handovers.models.get(sent.shipped)) is not None:
            used.used(fact, now_s)

    def _fall_back(self, for_s: float, now_s: float) -> None:
        """The static rule is in force for so long."""
        state = self._known.state
        state.static_until_s = max(state.static_until_s, now_s + for_s)


def _is_of(fact: Started, decided: Decided, now_s: float) -> bool:
    """Whether this attempt is of the request that has just been decided."""
    return decided.at_s == now_s and decided.request.id == fact.request_id
