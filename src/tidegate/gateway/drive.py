"""Drives one request: performs what its flight says, and tells the flight what came of it."""

from functools import partial
from typing import Final

from msgspec import Raw

from tidegate.core.actions import (
    Action,
    Again,
    Cancel,
    Compute,
    Decide,
    Finish,
    GiveUp,
    Hold,
    Relay,
    Resume,
    Timer,
)
from tidegate.core.actions import Call as Send
from tidegate.core.base import TO, has_come
from tidegate.core.flight import Flight, State
from tidegate.core.health import CLIENT_ERROR, OF_THE_REQUEST, UNFIT
from tidegate.core.model import Decision, Ending, Headroom, Request, Shipped, replace
from tidegate.core.network import UPLOAD_S_LEAST
from tidegate.core.resume import narrowed
from tidegate.core.rules import LASTING, budget_usd_bound, excluded_ever, tokens_needed_least
from tidegate.core.why import Why
from tidegate.engines.base import UNCARRIED, Failure, Outgoing, in_our_form
from tidegate.gateway.account import Account
from tidegate.gateway.asking import Asking, asking
from tidegate.gateway.attempt import Attempt, report
from tidegate.gateway.auth import Grant
from tidegate.gateway.barred import Barred
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.failures import (
    BROKEN,
    EXPIRED,
    GONE,
    NEVER_HERE,
    NO_DESCRIPTOR,
    NOT_SHIPPED,
    OVERRAN,
    SILENCES,
    STOPPING,
    forbidden,
    last_word,
)
from tidegate.gateway.reply import EVENT_STREAM, JSON, NO_CACHE, ErrorReply, Headers, cost_line, refusal
from tidegate.gateway.resumption import Resumption, never
from tidegate.gateway.shipping import Shipping
from tidegate.gateway.slots import Slot
from tidegate.gateway.spending import OVER_BUDGET, UNRECORDED
from tidegate.gateway.upstream import Upstream
from tidegate.http.server import Exchange
from tidegate.telemetry.trace import OPERATIONS, Arrival
from tidegate.wire.aggregate import Aggregator
from tidegate.wire.alone import told as told_of
from tidegate.wire.errors import error_event
from tidegate.wire.openai import EMBEDDING, Call
from tidegate.wire.translate import Client, Translated, reader
from tidegate.wire.whole import WholeReader

# Whose time is up, or ours, who met a fault of ours, or has more than it asked for, would get no rest in any case.
_NEVER_RESUMED = (EXPIRED, STOPPING, BROKEN, OVERRAN)
# What is known of a request before it is decided, should it come to that.
_UNDECIDED: Final = Decision(request_id="", plan=(), why=Why.MODEL_FAILED)
# What is known of the body of an answer before it is there.
_WHOLE: Final[Headers] = (JSON,)
_STREAMED: Final[Headers] = (EVENT_STREAM, NO_CACHE)
# Of many requests at once: nothing is put into them.
_NO_HEADERS: Final[dict[bytes, bytes]] = {}
_UNTOLD: Final[dict[str, Raw]] = {}


class Drive:
    """One request from its decision to its last byte."""

    __slots__ = (
        "_account",
        "_answer",
        "_attempts",
        "_barred",
        "_call",
        "_client",
        "_decision",
        "_departed",
        "_dispatch",
        "_due_s",
        "_epoch",
        "_exchange",
        "_failure",
        "_flight",
        "_held",
        "_is_over",
        "_relayed",
        "_resumption",
        "_shipping",
        "_stream",
        "_told",
        "_unresumable",
        "request",
    )

    def __init__(
        self,
        dispatch: Dispatch,
        exchange: Exchange,
        call: Call,
        request: Request,
        request_id: str,
        grant: Grant,
        client: Client | None = None,
    ) -> None:
        """`request_id` is the client's own, or ours where it gave none; the request's `id` is always ours.

        `client` is the dialect in which to answer, None for OpenAI's own.
        """
        self.request = request
        self._dispatch = dispatch
        self._exchange = exchange
        self._call = call
        self._client = client
        # What is translated to a client in mid-stream, and has to end in its dialect.
        self._stream: Translated | None = None
        self._flight = Flight(buffered=not call.stream, stall_s=dispatch.stall_s)
        self._due_s = 0.0  # when the flight is to hear of the time
        self._account = Account(dispatch, call, request, request_id, exchange.received_s, grant)
        if dispatch.tracer is not None:
            came = Arrival(
                method=exchange.method,
                path=exchange.path,
                operation=OPERATIONS[call.kind],
                output_tokens_max=call.output_tokens_max,
                completions=call.completions if call.completions > 1 else None,
            )
            self._account.trace = dispatch.tracer.begin(exchange.headers, came)
        # Those under way: what is in here has started and not ended.
        self._attempts: dict[str, Attempt] = {}
        self._failure: Failure | None = None
        # Whose content the client was given last.
        self._relayed: Attempt | None = None
        resumes = call.stream and dispatch.resumes
        # Why its rest will never be asked for, where that is known from the beginning: then nothing is kept for it.
        self._unresumable = never(call, request) if resumes else ""
        self._resumption = Resumption(dispatch, call, request) if resumes and not self._unresumable else None
        # Where its prompt was computed for another endpoint.
        self._shipping: Shipping | None = None
        # Or what its engine has told, for the one that is to fetch the KV cache: it may have the prompt in it.
        self._told = _UNTOLD
        self._held = False
        self._barred = Barred()
        self._epoch = dispatch.epoch
        self._decision = _UNDECIDED
        self._departed = self._is_over = False
        # Who has answered in this tick, with what of it was not passed on yet.
        self._answer: tuple[Attempt, bytes] | None = None

    def begin(self) -> None:
        """Set out at the end of this tick, with what else has come in it."""
        self._exchange.on_left = self._left
        self._dispatch.asked(self)
        # All that it said is known by now, and its answer may take minutes.
        self._exchange.headers = _NO_HEADERS

    def depart(self) -> None:
        """Decide for the first time, unless that is done, and act on it."""
        if self._departed:
            return
        self._departed = True
        # A request that waited behind another one on its connection is decided when its turn has come.
        dispatch, now_s = self._dispatch, self._dispatch.now_s()
        try:
            request = self.request
            if request.budget_usd is not None:
                # Who came before it in this tick has had some of that.
                left_usd = dispatch.spending.headroom_usd(request.key, now_s)
                if left_usd != request.budget_usd:
                    self.request = replace(request, budget_usd=left_usd)
                    self._account.sets_out(self.request)
            dispatch.arrived(self.request, now_s)
            dispatch.begin(self)
            self._turn(now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _catch_up(self) -> bool:
        """Do what was left for the end of this tick before anything else. Whether the request is over."""
        self.depart()
        self.land()
        return self._is_over

    @property
    def seen(self) -> bool:
        """See `Timed`."""
        return self._account.seen

    def awaited_usd(self, left_usd: float) -> float:
        """See `Timed`."""
        return self._barred.awaited_usd(left_usd)

    # --- what the dispatch tells ----------------------------------------------------------------------------------

    def turn(self, now_s: float) -> None:
        """Decide now, for the first time or again after waiting."""
        try:
            self._turn(now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _turn(self, now_s: float) -> None:
        self._epoch = self._dispatch.epoch
        if (self._held or self._barred) and not self._look_again(now_s):
            assert self._failure is not None, "nobody is barred without a reason"
            self._unhold(now_s, released=True, cause=self._failure.cause)
            self._fail(committed=self._exchange.started, now_s=now_s)
            return
        decision = self._decision = self._dispatch.decide(self.request, now_s)
        if self._account.trace is not None:
            self._account.decided(decision, now_s)
        if not decision.plan:
            self._unhold(now_s, released=True)
            self._refuse(decision, now_s)
            return
        self._act(self._flight.start(decision.plan, now_s), now_s)

    def _look_again(self, now_s: float) -> bool:
        """What can be paid for, and where it can go, may be otherwise than when it was asked: then it is asked, and
        held, anew, so that the core knows that. Whether there is anybody to whom it can go."""
        request = self._as_known(self.request, now_s)
        if request is not None and request is not self.request:
            self._unhold(now_s, released=True)
            self.request = request
            self._account.asks(request, now_s)
        return request is not None

    def _as_known(self, request: Request, now_s: float) -> Request | None:
        """What is asked, with what is left of its budgets and where it can go; the same where that is what it says.
        None where it can go nowhere."""
        dispatch = self._dispatch
        left_usd = dispatch.spending.headroom_usd(request.key, now_s)
        begins = request.budget_usd is None and left_usd is not None
        if begins or dispatch.router.at_stake_usd(request, left_usd):
            # Nothing of what is asked has been let go: who is asked for again has nobody's whole answer.
            call = self._call if self._resumption is None else self._resumption.call
            request = replace(request, budget_usd=left_usd, prompt_tokens_most=call.prompt_tokens_most)
        if not self._barred:
            return request
        names = [model.name for model in dispatch.router.serving(request.model)]
        others = self._barred.others(names, left_usd)
        return narrowed(request, None if len(others) == len(names) else others) if others else None

    def timer(self, now_s: float) -> None:
        """See `Timed`."""
        try:
            self._timer(now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _timer(self, now_s: float) -> None:
        if self._catch_up():
            return
        flight = self._flight
        fetching = next((name for name, attempt in self._attempts.items() if attempt.fetching), "")
        relayed = self._attempts.get(flight.winner)
        if relayed is not None and self._account.overran(relayed):
            relayed.give_up(OVERRAN)
            return
        if now_s < self._due_s:
            self._wake(self._due_s, now_s)
            return
        tokens = None if relayed is None else relayed.look()
        finished = relayed is not None and relayed.reader.finished
        if relayed is not None and finished and flight.is_silent(now_s, tokens):
            relayed.conclude()
            return
        actions = flight.timer(
            now_s,
            may_hedge=self._dispatch.router.may_hedge(flight.open),
            tokens=tokens,
            finished=finished,
            may_resume=self._may_resume(relayed),
            fetching=fetching,
        )
        self._act(actions, now_s)

    def _wake(self, at_s: float, now_s: float) -> None:
        """Look at it at this time, and sooner where something comes that is paid for."""
        self._due_s = at_s
        relayed = self._attempts.get(self._flight.winner)
        if relayed is not None:
            metered_s = self._account.metered_s(relayed, now_s)
            if metered_s < at_s:
                at_s = metered_s
        self._dispatch.set_timer(self, at_s, now_s)

    def expire(self, now_s: float) -> None:
        """See `Timed`."""
        try:
            self._end_for(EXPIRED, now_s)
        except Exception as error:
            self._broke(error, now_s)

    def stop(self, now_s: float) -> None:
        """See `Timed`."""
        try:
            self._end_for(STOPPING, now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _end_for(self, failure: Failure, now_s: float) -> None:
        """Nobody may wait for it any longer."""
        if self._catch_up():
            return
        self._abandon(now_s, failure.ending, failure.cause)
        self._remember(failure)
        self._fail(committed=self._exchange.started, now_s=now_s)

    # --- what the attempts tell -----------------------------------------------------------------------------------

    def uploaded(self, attempt: Attempt, upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """See `Listener`."""
        if not self._dispatch.leads_to(attempt.upstream):
            return
        network = self._dispatch.router.network(attempt.endpoint)
        if network is None or (at_most and seconds < network.rtt_s / 2.0):
            # Sooner than a byte gets there: a proxy on the way has taken them, and may be slower than it takes.
            return
        # A response may begin before the first look.
        seconds = max(seconds, UPLOAD_S_LEAST)
        if not network.is_news(upload_bytes, seconds, at_most=at_most):
            return
        self._account.uploaded(attempt, upload_bytes, seconds, at_most=at_most)

    def headroom(self, attempt: Attempt, told: Headroom) -> None:
        """See `Listener`."""
        if self._dispatch.leads_to(attempt.upstream) and self._dispatch.router.tells_headroom(told):
            self._dispatch.tell(told, self._dispatch.now_s())

    def content(self, attempt: Attempt, first: bytes) -> None:
        """See `Listener`."""
        now_s = attempt.first_s
        # An answer that has come whole before it in this tick goes before it: then nobody waits for this one.
        self.land()
        if attempt.over or self._is_over:
            return
        try:
            self._content(attempt, first, now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _content(self, attempt: Attempt, first: bytes, now_s: float) -> None:
        if attempt.target:
            # Of its one token nobody is told.
            self._account.computed(attempt, now_s)
            return
        actions = self._flight.content(attempt.endpoint, now_s)
        # Its client waits for nothing that is learned from it.
        for action in actions:
            if isinstance(action, Relay):
                self._relay(action.endpoint, first)
        self._account.first(attempt, now_s)
        self._act([action for action in actions if not isinstance(action, Relay)], now_s)

    def completed(self, attempt: Attempt, rest: bytes) -> None:
        """See `Listener`."""
        if not self._catch_up():
            self._answer = attempt, rest
            self._dispatch.answered(self)

    def land(self) -> None:
        """Deal with an answer that has come, if one has."""
        answer = self._answer
        if answer is None:
            return
        self._answer = None
        attempt, rest = answer
        now_s = self._dispatch.now_s()
        try:
            self._completed(attempt, rest, now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _completed(self, attempt: Attempt, rest: bytes, now_s: float) -> None:
        usage = self._account.told(attempt)
        call, whole = self._call, not self.request.said_tokens
        if whole and usage is not None and usage.prompt_tokens and not call.media and call.prompt_tokens is None:
            self._dispatch.ratio(self.request.model).learn(call.text_bytes, call.messages, usage.prompt_tokens)
        if attempt.target:
            self._ship(attempt, now_s)
            return
        if call.kind is EMBEDDING:
            # All there is, is its first content.
            attempt.first_s = now_s
        self._ended(attempt, Ending.OK, now_s)
        actions = self._flight.completed(attempt.endpoint)
        for action in actions:
            if isinstance(action, Finish):
                self._finish(attempt, rest, now_s)
            else:
                self._act([action], now_s)

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """See `Listener`."""
        now_s = self._dispatch.now_s()
        try:
            self._failed(attempt, failure, now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _failed(self, attempt: Attempt, failure: Failure, now_s: float) -> None:
        self.land()
        if self._attempts.get(attempt.endpoint) is not attempt:
            return
        if failure.aside and self._dispatch.leads_to(attempt.upstream):
            self._dispatch.turned_away(attempt.endpoint, failure.aside, now_s)
        if failure is BROKEN and (self._exchange.started or len(self._flight.open) < 2):
            # Whoever is asked next might be paid for the same.
            self._give_in(now_s)
            return
        resumes, fetching = failure is not OVERRAN and failure is not BROKEN, attempt.fetching or failure is GONE
        may_resume = resumes and self._may_resume(attempt)
        if failure.final and fetching:
            # Another engine has taken the request: what this one finds fault with is what it was told to fetch, or what
            # a prompt alone does not have. Either is no fault of whoever serves the next one.
            failure = replace(failure, ending=Ending.FAILED, cause=UNFIT, final=False)
        # A prompt alone is our form of it, too: one token may be too few for what is to be called.
        if failure.final and (attempt.target or (not self._exchange.started and self._is_translated(attempt))):
            failure = in_our_form(failure)
        # What is said of a prompt alone, or of a KV cache that was to be fetched, is not said of the request.
        itself = failure.cause in OF_THE_REQUEST and not (attempt.target or fetching)
        if itself or failure is NO_DESCRIPTOR:
            self._barred.never(attempt.endpoint)
        self._ended_by(attempt, failure, now_s)
        self._remember(failure)
        if attempt.target:
            self._handed_over(attempt.endpoint, "", now_s)
        if failure.final and self._flight.state is State.CALLING:
            # The request is at fault: whatever else is tried would say the same.
            self._abandon(now_s, Ending.CANCELLED)
            self._fail(committed=self._exchange.started, now_s=now_s)
        else:
            actions = self._flight.failed(
                attempt.endpoint,
                now_s,
                may_resume=may_resume,
                fetching=fetching,
                at_fault=itself and self.request.failover,
            )
            self._act(actions, now_s)

    def _is_translated(self, attempt: Attempt) -> bool:
        """Whether what was sent is not what the client said, but the same in another dialect."""
        native = self._call.native
        own = native is not None and native.dialect == attempt.upstream.dialect.name
        return isinstance(attempt.reader, Translated) and not own

    def shipped(self, fact: Shipped, seconds: float) -> None:
        """See `shipping.Listener`."""
        now_s = self._dispatch.now_s()
        try:
            self._shipped(fact, seconds, now_s)
        except Exception as error:
            self._broke(error, now_s)

    def _shipped(self, fact: Shipped, seconds: float, now_s: float) -> None:
        self._account.shipped(fact, seconds, now_s)
        self._handed_over(fact.endpoint, fact.target if fact.ok else "", now_s)
        if fact.ok:
            self._act(self._flight.shipped(fact.endpoint), now_s)
        else:
            self._remember(NOT_SHIPPED)
            self._act(self._flight.failed(fact.endpoint, now_s, fetching=True), now_s)

    # --- what the flight says -------------------------------------------------------------------------------------

    def _act(self, actions: list[Action], now_s: float) -> None:
        passed_over = self._barred.steps
        for action in actions:
            match action:  # what is met most often comes first
                case Send() | Compute():
                    self._send(action, now_s)
                case Timer():
                    # Where a step was passed over meanwhile, the flight has gone on, and has set its timer since.
                    if passed_over == self._barred.steps:
                        self._wake(action.at_s, now_s)
                case Relay():
                    self._relay(action.endpoint)
                case Decide():
                    if not action.target:
                        self._handed_over(action.endpoint, "", now_s)
                    self.turn(now_s)
                case Again():
                    self._decide_again(now_s)
                case Cancel():
                    if action.gave_up is None:
                        self._cancel(action.endpoint, now_s, Ending.CANCELLED)
                    else:
                        self._give_up(action.endpoint, SILENCES[action.gave_up], now_s)
                case Hold():
                    self._hold(now_s)
                case Resume():
                    self._resume(now_s)
                case GiveUp():
                    self._fail(committed=action.committed, now_s=now_s)
                case Finish():
                    raise AssertionError("only a completed attempt finishes a flight")

    def _decide_again(self, now_s: float) -> None:
        """Nothing of its plan could be sent: who was not in it may serve, unless the core knows no more than before,
        and decides by the same settings."""
        asked, anew = self.request, self._dispatch.epoch != self._epoch
        if self._look_again(now_s) and (anew or self.request is not asked):
            if anew and self.request is asked:
                # What is decided under other settings is told where these are.
                self._account.asks(asked, now_s)
            self.turn(now_s)
        else:
            self._fail(committed=self._exchange.started, now_s=now_s)

    def _may_resume(self, attempt: Attempt | None) -> bool:
        """Whether the rest of what this attempt gives the client could be had, if it broke off now."""
        if self._resumption is None or attempt is None or attempt is not self._relayed:
            return False
        return self._resumption.may(attempt)

    def _resume(self, now_s: float) -> None:
        """Ask for the rest of the answer that broke off, where its turn is best."""
        resumption, broken = self._resumption, self._relayed
        assert resumption is not None, "nothing is resumed unless it may be"
        assert broken is not None, "nothing breaks off that was not relayed"
        resumption.broke(broken, self._account.spent_usd, now_s)
        self._barred.asks_less()
        self.request = self._as_known(resumption.request, now_s) or resumption.request
        self._account.resumed(resumption.call, self.request, now_s)
        self.turn(now_s)

    def _hold(self, now_s: float) -> None:
        if not self._held:
            if self._flight.attempts or self._barred.steps:
                self._look_again(now_s)
            self._held = True
            self._dispatch.hold(self)
            self._account.held(now_s)

    def _unhold(self, now_s: float, *, released: bool, cause: str = "") -> None:
        if self._held:
            self._held = False
            self._dispatch.unhold(self)
            self._account.unheld(now_s, released=released, cause=cause)

    def _handed_over(self, source: str, target: str, now_s: float) -> None:
        """The KV cache of its prompt is at `target`, or where that is empty, cannot be had: whatever is decided from
        now on knows that, and nobody is asked again to compute it for another."""
        self.request = replace(self.request, shipped=source + TO + target)
        self._account.asks(self.request, now_s)

    def _ship(self, attempt: Attempt, now_s: float) -> None:
        """Its prompt is computed there: have its KV cache sent to who decodes."""
        source, target, slot, usage = attempt.endpoint, attempt.target, attempt.slot, self._account.told(attempt)
        if isinstance(attempt.reader, WholeReader):
            self._hand_on(attempt, attempt.reader.result(), now_s)
            return
        handover = self._dispatch.router.handover(source, target)
        tokens = None if usage is None else usage.prompt_tokens
        if not tokens or handover is None or slot is None:
            # Nobody knows what is in its slot, or a reload has taken the handover out.
            self._ended(attempt, Ending.OK, now_s)
            self.shipped(Shipped(request_id=self.request.id, endpoint=source, target=target, ok=False), 0.0)
            return
        # The slot is kept until its content is saved.
        attempt.slot = None
        self._ended(attempt, Ending.OK, now_s)
        if self._shipping is None:
            self._shipping = Shipping(self._dispatch.couriers, self.request.id, self, self._dispatch.now_s)
        size_bytes = handover.kv_bytes(self.request, now_s)
        self._shipping.ship(source, target, slot, tokens=tokens, size_bytes=size_bytes)

    def _hand_on(self, attempt: Attempt, answer: bytes, now_s: float) -> None:
        """Its prompt is computed there, and its engine tells how another one gets the KV cache: keep that for it."""
        fact = Shipped(request_id=self.request.id, endpoint=attempt.endpoint, target=attempt.target)
        try:
            told = told_of(answer)
        except ValueError:
            fact = replace(fact, ok=False, cause="unreadable")
        else:
            self._told = _UNTOLD if told is None else {attempt.target: told}
        self._ended(attempt, Ending.OK, now_s)
        self.shipped(fact, 0.0)

    def _forbidden(self, action: Send | Compute, now_s: float) -> Failure | None:
        """Why it may not be sent there, where it was decided under other settings, or before operators took a hand."""
        dispatch = self._dispatch
        if dispatch.epoch == self._epoch:
            return None
        names = (action.endpoint, action.target) if isinstance(action, Compute) else (action.endpoint,)
        whys = [why for name in names if (why := dispatch.forbids(self.request, name, now_s)) is not None]
        if not whys and len(names) == 2 and dispatch.router.handover(*names) is None:
            return NOT_SHIPPED
        return forbidden(whys[0]) if whys else None

    def _send(self, action: Send | Compute, now_s: float) -> None:
        dispatch = self._dispatch
        barred = self._forbidden(action, now_s)
        if barred is not None:
            self._pass_over(action, barred, now_s, outdated=True)
            return
        target = action.target if isinstance(action, Compute) else ""
        upstream, resumption = dispatch.upstreams[action.endpoint], self._resumption
        call, again = (self._call, "") if resumption is None else resumption.asked(upstream.dialect)
        # Once the rest of an answer is asked for, the prompt is another.
        told = self._told.pop(action.endpoint, None) if has_come(self.request.shipped, action.endpoint) else None
        asked = asking(dispatch, upstream, call, self.request, target, told)
        if isinstance(asked, Failure):
            if asked.cause == UNCARRIED:
                self._barred.never(action.endpoint)
            self._pass_over(action, asked, now_s)
            return
        try:
            refused = self._account.may_spend(upstream, self._flight.attempts, now_s, target)
            if refused is None:
                attempt = self._attempts[action.endpoint] = self._made(action, asked, again, now_s)
        except Exception:
            asked.leave()
            self._account.unsent_there(action.endpoint, now_s)
            raise
        if refused is not None:
            asked.leave()
            most_usd, beside = self._account.most_usd(upstream, target), bool(self._attempts)
            counted_usd = budget_usd_bound(self.request, upstream.endpoint, dispatch.window(action.endpoint))
            self._barred.unpaid(action.endpoint, refused, most_usd, counted_usd, beside=beside)
            self._pass_over(action, refused, now_s)
            return
        self._unhold(now_s, released=False)
        outgoing = asked.outgoing
        # Into a slot that somebody else is still in, nothing can be put.
        slot = None if asked.waits else asked.slot
        try:
            # No function within this one: compiled, it and what it knows would be in a ring, and with it the request's
            # body, until the next collection of garbage.
            if self._account.pays(action.endpoint):
                dispatch.spending.after_write(partial(self._begin_later, attempt, outgoing, upstream, slot))
            elif dispatch.in_a_row:
                dispatch.send_in_turn(partial(self._begin_later, attempt, outgoing, upstream, slot, None))
            else:
                self._begin(attempt, outgoing, upstream, slot)
        finally:
            # What is told of it can be told while it is on its way.
            self._account.started(upstream, now_s, hedge=action.hedge, target=target, streamed=outgoing.streamed)

    def _made(self, action: Send | Compute, asked: Asking, again: str, now_s: float) -> Attempt:
        """What is to be sent there; `again` is what of the answer it has been told, where its rest is asked for."""
        dispatch, resumption, outgoing = self._dispatch, self._resumption, asked.outgoing
        target = action.target if isinstance(action, Compute) else ""
        upstream = dispatch.upstreams[action.endpoint]
        streamed, client = outgoing.streamed, None if target else self._client
        engine = upstream.dialect.translator(streamed=streamed, now_s=now_s)
        if resumption is None or target:
            # By its name: through a variable, compiled code takes its arguments apart first.
            reads = reader(asked.call, streamed=streamed, engine=engine, client=client, now_s=dispatch.now_s)
        else:
            read = resumption.reader(action.endpoint, again)
            reads = read(asked.call, streamed=streamed, engine=engine, client=client, now_s=dispatch.now_s)
        return Attempt(
            upstream,
            outgoing,
            reads,
            self,
            dispatch.now_s,
            hedge=action.hedge,
            slot=asked.slot,
            target=target,
            fetches=asked.fetches,
            resumes=resumption is not None and resumption.broken is not None,
        )

    def _begin_later(
        self, attempt: Attempt, outgoing: Outgoing, upstream: Upstream, slot: Slot | None, failure: Failure | None
    ) -> None:
        """Its turn has come, or what it may cost could not be written, as `failure` says: of a fault of ours nobody
        else hears."""
        try:
            self._begin(attempt, outgoing, upstream, slot, failure)
        except Exception as error:
            self._broke(error, self._dispatch.now_s())

    def _begin(
        self,
        attempt: Attempt,
        outgoing: Outgoing,
        upstream: Upstream,
        slot: Slot | None,
        failure: Failure | None = None,
    ) -> None:
        """Where its KV cache has come there, that is put into its slot first."""
        attempt.sent_s = self._dispatch.now_s()  # what it waited for until then is not the endpoint's
        if slot is not None and failure is None and not attempt.over and self._shipping is not None:
            launch = partial(self._restored, attempt, outgoing, upstream)
            if self._shipping.restore(attempt.endpoint, slot, launch):
                self._account.sent()
                return
        self._launch(attempt, outgoing, upstream, failure)

    def _restored(
        self, attempt: Attempt, outgoing: Outgoing, upstream: Upstream, failure: Failure | None = None
    ) -> None:
        """Its KV cache is there, or could not be put there. Meanwhile a reload may have led other connections there."""
        now = self._dispatch.upstreams.get(attempt.endpoint)
        if now is not None and now.pool.origin.url == upstream.pool.origin.url:
            upstream = now
        self._launch(attempt, outgoing, upstream, failure)

    def _launch(self, attempt: Attempt, outgoing: Outgoing, upstream: Upstream, failure: Failure | None = None) -> None:
        """Send it, unless nobody wants it any more, or `failure` says why it may not be sent."""
        if attempt.over:
            return
        if failure is not None:
            attempt.give_up(failure)
            return
        timeout_s = self._flight.timeout_s(attempt.endpoint) + 1.0
        dispatch = self._dispatch
        timed = len(outgoing.body) >= dispatch.router.telling_bytes(attempt.endpoint)
        lines = f"x-request-id: {self.request.id}\r\n".encode()
        if self._account.trace is not None:
            lines += self._account.trace.lines(attempt.endpoint, local=upstream.endpoint.local)
        attempt.carry(
            upstream.pool.send(
                b"POST",
                outgoing.target,
                outgoing.headers,
                outgoing.body,
                attempt,
                # The flight's own timer comes first; this one is for the connection's sake.
                first_byte_timeout_s=timeout_s,
                idle_timeout_s=max(dispatch.stall_s, timeout_s),
                lines=lines,
                uploaded=attempt.on_uploaded if timed else None,
            )
        )
        self._account.sent()

    def _pass_over(self, action: Send | Compute, failure: Failure, now_s: float, *, outdated: bool = False) -> None:
        """Nothing is sent there; go on with the next step. `outdated`: see `Flight.passed_over`."""
        self._barred.steps += 1
        self._unhold(now_s, released=True)
        self._remember(failure)
        if isinstance(action, Compute):
            self._handed_over(action.endpoint, "", now_s)
        fetching = failure is NOT_SHIPPED
        self._act(self._flight.passed_over(action.endpoint, now_s, fetching=fetching, outdated=outdated), now_s)

    def _relay(self, endpoint: str, first: bytes = b"") -> None:
        """Give the client what comes from there, from `first` on, which has come already."""
        exchange = self._exchange
        if not self._call.stream:
            return
        attempt, broken = self._attempts.get(endpoint), self._relayed
        # An answer without content is over when it may pass.
        if attempt is not None:
            exchange.on_pause, exchange.on_resume = attempt.pause, attempt.resume
            attempt.pass_to(exchange)
            self._relayed = attempt
            if isinstance(attempt.reader, Translated):
                self._stream = attempt.reader
        if broken is None:
            of = _STREAMED if self._client is None else ((b"content-type", self._client.content_type), NO_CACHE)
            lines = self._account.lines(self._decision, self._flight.attempts, endpoint)
            exchange.start(200, of, lines, first)
            if self._resumption is None:
                self._let_go()
            return
        self._dispatch.metrics.broke_off("resumed")
        if broken.paused and attempt is not None:
            # The client has not caught up yet with what it was given before.
            attempt.pause()
        exchange.write(first)

    def _let_go(self) -> None:
        """Its client has content now, so nothing is sent a second time: an answer may take minutes, and what was asked
        may have megabytes."""
        self._exchange.let_body_go()
        self._decision = replace(self._decision, plan=())
        self._call = self._call.without_text()
        self._account.let_go(self._call)

    def _finish(self, attempt: Attempt, rest: bytes, now_s: float) -> None:
        exchange = self._exchange
        if self._call.stream:
            if rest:
                exchange.write(rest)
            release = partial(exchange.end, attempt.reader.done_frame)
        else:
            gathered = attempt.reader
            assert isinstance(gathered, (Aggregator, WholeReader, Translated)), "an answer given whole was gathered"
            body = gathered.result()
            lines = self._account.lines(self._decision, self._flight.attempts, attempt.endpoint)
            lines += cost_line(self._account.spent_usd)
            release = partial(exchange.respond, 200, _WHOLE, body, lines)
        self._over(now_s, status=200, outcome="ok", attempt=attempt)
        self._dispatch.written(release)

    # --- endings --------------------------------------------------------------------------------------------------

    def _broke(self, error: Exception, now_s: float) -> None:
        """The gateway is at fault: that ends this request, and no other one waits behind it."""
        report(error)
        if not self._is_over:
            self._give_in(now_s)

    def _give_in(self, now_s: float) -> None:
        """The same, of a fault that is told already."""
        try:
            self._abandon(now_s, Ending.CANCELLED, BROKEN.cause)
            self._failure = BROKEN
            self._fail(committed=self._exchange.started, now_s=now_s)
        except Exception as again:
            report(again)
            if not self._is_over:
                self._over(now_s, status=500, outcome="failed", code=BROKEN.code)
            self._exchange.abort()

    def _remember(self, failure: Failure) -> None:
        """What the client is told, if this was the last hope."""
        if self._failure is None or failure.cause not in NEVER_HERE:
            self._failure = failure
            self._account.cause = failure.cause

    def _cancel(self, endpoint: str, now_s: float, ending: Ending, cause: str = "") -> str:
        """Nobody waits for it any more. Whom it was computing the prompt for, if anybody."""
        shipping = self._shipping_from(endpoint)
        if shipping is not None:
            fact = shipping.cancel(endpoint, given_up=ending is Ending.CANCELLED, cause=cause)
            self._account.shipped(fact, 0.0, now_s)
            return fact.target
        attempt = self._attempts[endpoint]
        attempt.cancel()
        if (refused := attempt.refused) is None:
            self._ended(attempt, ending, now_s, cause)
        else:
            self._ended_by(attempt, refused, now_s)
        return attempt.target

    def _give_up(self, endpoint: str, silence: Failure, now_s: float) -> None:
        """It was silent for too long: that is why, unless it had begun to say why not."""
        attempt = self._attempts.get(endpoint)
        refused = None if attempt is None else attempt.refused
        self._remember(refused or silence)
        if self._cancel(endpoint, now_s, silence.ending, silence.cause):
            self._handed_over(endpoint, "", now_s)

    def _shipping_from(self, endpoint: str) -> Shipping | None:
        """What sends the KV cache that was computed there; None where nothing is under way."""
        shipping = self._shipping
        return shipping if shipping is not None and shipping.is_under_way(endpoint) else None

    def _ended_by(self, attempt: Attempt, failure: Failure, now_s: float) -> None:
        waits_s = failure.retry_after_s if self._dispatch.leads_to(attempt.upstream) else None
        self._ended(attempt, failure.ending, now_s, failure.cause, waits_s)

    def _ended(
        self, attempt: Attempt, ending: Ending, now_s: float, cause: str = "", retry_after_s: float | None = None
    ) -> None:
        del self._attempts[attempt.endpoint]
        if attempt.slot is not None:
            attempt.slot.leave()
        self._account.ended(attempt, ending, now_s, cause, retry_after_s)

    def _left(self) -> None:
        """The client is gone."""
        if self._catch_up():
            return
        now_s = self._dispatch.now_s()
        self._abandon(now_s, Ending.CANCELLED)
        self._over(now_s, status=499, outcome="client_left")

    def _abandon(self, now_s: float, ending: Ending, cause: str = "") -> None:
        """End whatever is under way."""
        self._unhold(now_s, released=True, cause=cause)
        for action in self._flight.left():
            assert isinstance(action, Cancel)
            # The flight is not told of the attempt whose failure ends it.
            if action.endpoint in self._attempts or self._shipping_from(action.endpoint) is not None:
                self._cancel(action.endpoint, now_s, ending, cause)

    def _drop(self, now_s: float) -> None:
        """By a fault of ours somebody is at work for it still: nobody would hear of that any more."""
        for attempt in list(self._attempts.values()):
            try:
                attempt.cancel()
                self._ended(attempt, Ending.CANCELLED, now_s, BROKEN.cause)
            except Exception as error:
                report(error)

    def _refuse(self, decision: Decision, now_s: float) -> None:
        if self._exchange.started:
            # Nobody takes the rest of an answer; what its client is told is why it broke off.
            self._fail(committed=True, now_s=now_s)
            return
        if self._dispatch.spending.problem and self._lacks_money(decision, now_s):
            self._remember(UNRECORDED)
            self._answer_error(last_word(UNRECORDED, 0), now_s, outcome="refused", code=UNRECORDED.code)
            return
        barred = self._failure if self._barred else None
        if barred is not None and decision.why in LASTING:
            # To nobody else it may ever go: what is in its way is why it could not be sent.
            reply = last_word(barred, self._flight.attempts)
            self._answer_error(reply, now_s, outcome="refused", code=None if barred.final else barred.code)
            return
        windows = self._too_small() if decision.why is Why.CONTEXT_TOO_LONG else ()
        reply = refusal(narrowed(self.request, None), decision, windows)
        if barred is not None:
            reply = replace(reply, message=f"{reply.message} It could not go elsewhere: {barred.message.rstrip('.')}.")
        self._answer_error(reply, now_s, outcome="refused", code=reply.code)

    def _lacks_money(self, decision: Decision, now_s: float) -> bool:
        """Whether it is refused because nothing can be paid for, whatever else comes closer to serving it."""
        if decision.why is Why.OVER_BUDGET:
            return True
        return bool(self._dispatch.router.decide(replace(self.request, budget_usd=None), now_s).plan)

    def _too_small(self) -> tuple[int, ...]:
        """The context windows of endpoints that might take the request if it were shorter."""
        request, needed = self.request, tokens_needed_least(self.request)
        return tuple(
            model.context_tokens
            for model in self._dispatch.router.serving(request.model)
            if excluded_ever(request, model, needed) is Why.CONTEXT_TOO_LONG
        )

    def _fail(self, *, committed: bool, now_s: float) -> None:
        failure = self._failure
        assert failure is not None, "a flight gives up after a failure"
        reply = last_word(failure, self._flight.attempts)
        if not committed:
            outcome = "client_error" if failure.final or failure.cause in NEVER_HERE else "failed"
            if failure.cause == OVER_BUDGET:
                outcome = "refused"
                self._dispatch.metrics.refused(Why.OVER_BUDGET)
            if self._barred.steps and outcome != "failed":
                self._account.unsent(Why.OVER_BUDGET.value if outcome == "refused" else CLIENT_ERROR, now_s)
            # A final failure is relayed in the engine's words, and these may quote the prompt.
            self._answer_error(reply, now_s, outcome=outcome, code=None if failure.final else failure.code)
            return
        exchange, message = self._exchange, reply.message
        fault = self._unresumable if self._resumption is None else self._resumption.fault
        if fault or self._resumption is not None:
            refused = fault and failure not in _NEVER_RESUMED
            self._dispatch.metrics.broke_off("refused" if refused else "failed")
            message += f" Its rest was not asked for: {fault}." if refused else ""
        if self._stream is None:
            event = error_event(message, reply.kind, reply.param, reply.code)
        else:
            event = self._stream.error(message, reply.kind, reply.param, reply.code)
        self._over(now_s, status=200, outcome="failed_mid_stream", code=None if failure.final else reply.code)
        # The error is in the stream, and no [DONE] follows: a cut answer must not look complete.
        self._dispatch.written(partial(exchange.end, event))

    def _answer_error(self, reply: ErrorReply, now_s: float, *, outcome: str, code: str | None) -> None:
        exchange = self._exchange
        lines = self._account.lines(self._decision, self._flight.attempts)
        body = reply.body(self._client)
        self._over(now_s, status=reply.status, outcome=outcome, code=code)
        self._dispatch.written(partial(exchange.respond, reply.status, reply.headers(), body, lines))

    def _over(
        self, now_s: float, *, status: int, outcome: str, attempt: Attempt | None = None, code: str | None = None
    ) -> None:
        """The request has ended."""
        if self._attempts:
            self._drop(now_s)
        self._is_over = True
        self._exchange.on_left = None
        # It knows this drive, which would go with it only when garbage is collected.
        self._relayed = None
        self._dispatch.end(self)
        try:
            if self._shipping is not None:
                self._shipping.close()
            self._account.over(
                now_s,
                self._flight,
                self._decision,
                attempts=self._flight.attempts,
                status=status,
                outcome=outcome,
                attempt=attempt,
                code=code,
            )
        except Exception as error:
            # Whatever cannot be told of it: its client waits for the answer.
            report(error)
