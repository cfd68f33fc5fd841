"""The one place where the core meets the world: every decision is made and every fact is told through here.

What passes is journalled in the order in which the router saw it, so that replay can follow.
"""

import asyncio
import resource
from collections import OrderedDict, deque
from collections.abc import Callable, Set
from math import inf
from typing import Final, Protocol

import msgspec

from tidegate.clock import Clock, tick_s
from tidegate.core.model import (
    Decision,
    DecisionOverran,
    Ended,
    FirstToken,
    ModelFailed,
    Observation,
    Overrides,
    Policy,
    Probed,
    Request,
    Started,
    Warmed,
)
from tidegate.core.plan import to_ms
from tidegate.core.router import Router
from tidegate.core.waiting import SWEEP_S
from tidegate.core.why import Why
from tidegate.gateway.couriers import Couriers
from tidegate.gateway.failures import NO_DESCRIPTOR
from tidegate.gateway.outage import MORE_FILES, UNKNOWN, Outage, Outages
from tidegate.gateway.recognition import Recognition
from tidegate.gateway.slots import Slots
from tidegate.gateway.spending import Spending
from tidegate.gateway.switchback import Switchback
from tidegate.gateway.upstream import Upstream
from tidegate.telemetry.journal import Journal
from tidegate.telemetry.log import Log, where
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.tick import ANSWERED, ASKED, HELD, Tick, failed, run
from tidegate.telemetry.trace import Tracer
from tidegate.wire.tokens import TokenRatio

# Where not even the static rule could decide: a client may try again, and whatever it was may have passed.
FAILED_RETRY_S = 1.0
# So often the log tells that descriptors are used up, or that a vendor turns our account away, while that is so.
TOLD_S = 60.0
# Times in seconds since the epoch are that exact.
LOST_S: Final = 5e-7
# What is further away is left to the sweep: the loop's own timer is made when a late sweep might miss it.
NEAR_S: Final = 2 * SWEEP_S
# Recent decisions kept for /api/decisions where there is no journal: a few MB, and minutes of traffic.
RECENT_MAX = 2000
# What is decided first waits for as many decisions more, at 50 us each, before it is sent.
ROW_MAX: Final = 16


class Timed(Protocol):
    """Something under way that must act when its time comes."""

    request: Request

    @property
    def seen(self) -> bool:
        """Whether any content of it was seen."""

    def awaited_usd(self, left_usd: float) -> float:
        """What it may cost at most where it could not be paid for, and where so many dollars are enough; 0 where
        there is nobody."""

    def depart(self) -> None:
        """All that came with it is read: it is decided for the first time."""

    def land(self) -> None:
        """The same of its answer, which is dealt with."""

    def timer(self, now_s: float) -> None:
        """Its time has come."""

    def expire(self, now_s: float) -> None:
        """It has taken longer than any request may."""

    def stop(self, now_s: float) -> None:
        """The gateway goes down, and waits no longer. Raises nothing."""

    def turn(self, now_s: float) -> None:
        """It is held, and should be decided again."""


class Recent(msgspec.Struct):
    """What is remembered of a request for the admin address where no journal has it. It grows as it goes on."""

    request: Request
    decisions: list[tuple[float, Decision]]
    endings: list[Ended]


class Dispatch:
    """Owns the router and tells it everything; owns the timers of what is under way."""

    def __init__(
        self,
        *,
        clock: Clock,
        policy: Policy,
        router: Router,
        journal: Journal | None,
        metrics: Metrics,
        log: Log,
        spending: Spending,
        request_timeout_s: float,
        tick: Tick,
    ) -> None:
        self.clock = clock
        self.now_s: Callable[[], float] = clock.now_s
        self.router = router
        self.upstreams: dict[str, Upstream] = {}
        # Counts the settings that were in force, and what operators did by hand: a plan may be older than that.
        self.epoch = 0
        self.metrics = metrics
        metrics.hold_to(policy.quantile)
        self.log = log
        self.spending = spending
        self.ratios: dict[str, TokenRatio] = {}
        # Where no journal has it: what thousands are remembered by is in no cache of the core any more when it goes.
        # The oldest first: of a plain dictionary, each that goes would be looked for behind all that went before.
        self.recent: OrderedDict[str, Recent] = OrderedDict()
        # What is under way at an endpoint for nobody, and gives way when a client's request was sent there.
        self.guests: dict[str, Callable[[], None]] = {}
        # By endpoint, who looks at the way there when it is in doubt.
        self.lookers: dict[str, Callable[[], None]] = {}
        # By endpoint, who is told that it was down and is back.
        self.returns: dict[str, Callable[[], None]] = {}
        # Who counts what becomes of requests, where two settings are tried by turns.
        self.switchback: Switchback | None = None
        # Who tells of requests as traces, where that is asked for.
        self.tracer: Tracer | None = None
        # By endpoint, who loads its model for nobody in particular.
        self.warmers: dict[str, Callable[[], None]] = {}
        # Who sends KV caches between engines, and into which slots of these requests go.
        self.couriers = Couriers(None, clock, log)
        self._slots: dict[str, Slots] = {}
        self._policy = policy
        self._recognition = Recognition(log)
        self.outages = Outages(log)
        self._journal = journal
        self._request_timeout_s = request_timeout_s
        # With the time at which it has taken too long: another time-out is for those that come after it.
        self._live: dict[str, tuple[Timed, float]] = {}
        # The first of these times, or earlier: so long nobody has to be looked for.
        self._expires_s = inf
        # With the time on our clock, which may be put forward, as the loop's own cannot be; without a handle as long as
        # it is far away.
        self._timers: dict[str, tuple[float, asyncio.TimerHandle | None]] = {}
        # The first of those times, or earlier.
        self._near_s = inf
        self._held: dict[str, Timed] = {}
        self._checked_s = 0.0
        self._enriched_s = 0.0
        self._tick = tick
        # What is to be done with the requests, and with the answers, that have come in this tick.
        self._asked: list[Timed] = []
        self._answered: list[Timed] = []
        # Whether several requests are decided in a row, and what is sent after that.
        self.in_a_row = False
        self._row: list[Callable[[], None]] = []
        # Methods are bound anew whenever they are looked up: those that each request needs are once and for all.
        self._departures: Callable[[], None] = self._depart
        self._landings: Callable[[], None] = self._land
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._swept_s = 0.0
        self._forward_s = clock.forward_s  # as far as the timers know
        # Until when the log has told of a failure of the model, and that descriptors are used up.
        self._failure_told_s = self._descriptors_told_s = 0.0
        # When the log may tell again that a vendor turns our account away, by endpoint.
        self._turned_away_s: dict[str, float] = {}

    def window(self, endpoint: str) -> int:
        """Tokens of context that its engine tells, where nobody has written them; 0 once a reload has taken it out."""
        return self.router.endpoint(endpoint).context_tokens if endpoint in self.upstreams else 0

    def slots_of(self, endpoint: str) -> Slots | None:
        """Those of an endpoint whose KV caches are sent somewhere, or that is sent some; None of any other, or where
        nobody has told how many there are: engines do not check."""
        router = self.router
        if endpoint not in router.handing:
            return None
        count = router.endpoint(endpoint).memory.slots
        if count is None:
            return None
        slots = self._slots.get(endpoint)
        if slots is None or slots.count != count:
            slots = self._slots[endpoint] = Slots(count)
        return slots

    def unseen(self) -> list[Request]:
        """The requests under way of which nobody has seen content."""
        return [drive.request for drive, _ in self._live.values() if not drive.seen]

    # --- the core -------------------------------------------------------------------------------------------------

    def decide(self, request: Request, now_s: float) -> Decision:
        """Ask the router, write down what it said, and tell it if it took too long."""
        started_s = tick_s()
        try:
            decision = self.router.decide(request, now_s)
        except Exception as error:
            decision = self._decided_without(request, error, now_s)
        spent_s = tick_s() - started_s
        if spent_s > self._policy.decide_budget_s and decision.why is not Why.MODEL_FAILED:
            # A neighbour that took the core is not to blame on the decision: being a read, it can be timed again.
            started_s = tick_s()
            self.router.decide(request, now_s)
            spent_s = min(spent_s, tick_s() - started_s)
        self.metrics.decided(decision.why, spent_s, refused=not decision.plan, rest=request.said_tokens > 0)
        if self._journal is not None:
            self._journal.append(decision, now_s)
        else:
            self._remember(request, decision, now_s)
        if spent_s > self._policy.decide_budget_s:
            self.metrics.fell_back("overran")
            self.tell(DecisionOverran(spent_s=spent_s), now_s)
        return decision

    def _remember(self, request: Request, decision: Decision, now_s: float) -> None:
        known = self.recent.get(request.id)
        if known is None:
            if len(self.recent) >= RECENT_MAX:
                self.recent.popitem(last=False)
            self.recent[request.id] = Recent(request, [(now_s, decision)], [])
        elif len(known.decisions) < 8:
            known.decisions.append((now_s, decision))

    def _decided_without(self, request: Request, error: Exception, now_s: float) -> Decision:
        """The model failed: the static rule decides, and if that fails, too, the request is refused."""
        self._fall_back("decide", error, now_s)
        try:
            return self.router.decide(request, now_s)
        except Exception as again:
            self._fall_back("decide", again, now_s)
            return Decision(
                request_id=request.id, plan=(), why=Why.MODEL_FAILED, retry_after_s=max(FAILED_RETRY_S, self._static_s)
            )

    def leads_to(self, upstream: Upstream) -> bool:
        """Whether what is told there is still of its endpoint: by a reload its name may lead elsewhere, or be opened
        by another key."""
        known = self.upstreams.get(upstream.endpoint.name)
        return known is not None and known.pool is upstream.pool and known.headers == upstream.headers

    def forbids(self, request: Request, endpoint: str, now_s: float) -> Why | None:
        """What excludes an endpoint now that an earlier decision picked; a model that cannot say allows nothing."""
        try:
            return self.router.forbids(request, endpoint, now_s)
        except Exception as error:
            self._fall_back("forbids", error, now_s)
            return Why.MODEL_FAILED

    def alone_usd(
        self, request: Request, prompt_tokens: int, output_tokens: int, *, local: bool, now_s: float
    ) -> tuple[str, float] | None:
        """See `Router.alone_usd`; None, too, where the model cannot say: no answer is lost for a figure about it."""
        try:
            return self.router.alone_usd(request, prompt_tokens, output_tokens, local=local, now_s=now_s)
        except Exception as error:
            self._fall_back("compare", error, now_s)
            return None

    def _fall_back(self, during: str, error: Exception, now_s: float) -> None:
        """Let the static rule take over, and say so: in the journal, a metric, and one line of the log for as long."""
        at = where(error)
        self.metrics.fell_back(during)
        if now_s >= self._failure_told_s:
            self._failure_told_s = now_s + max(FAILED_RETRY_S, self._static_s)
            self.log.event("error", "model failed", during=during, error=at, static_for_s=self._static_s)
        self.tell(ModelFailed(during=during, error=at), now_s)

    @property
    def _static_s(self) -> float:
        return self._policy.static_s

    @property
    def stall_s(self) -> float:
        """How long an answer that has begun may bring nothing."""
        return self._policy.stall_s

    def arrived(self, request: Request, now_s: float) -> None:
        """Write down a request, and what its budgets have spent, before anything is decided about it."""
        for one in request.rulings:
            self.metrics.ruled(one.rule)
        if self._journal is not None:
            self._journal.append(request, now_s)
        if request.budgets:
            for told in self.spending.drawn(request.key, now_s):
                if self.router.is_news(told, now_s):
                    self.tell(told, now_s)

    @property
    def resumes(self) -> bool:
        """Whether the rest of an answer that broke off is asked for."""
        return self._policy.resume

    def resumed(self, request: Request, now_s: float) -> None:
        """Write down what is asked for from now on, under the same id."""
        if self._journal is not None:
            self._journal.append(request, now_s)

    def tell(self, fact: Observation, now_s: float) -> None:
        """Tell the router a fact, and write it down."""
        failure: Exception | None = None
        try:
            self.router.observe(fact, now_s)
        except Exception as error:
            failure = error
        if self._journal is not None:
            self._journal.append(fact, now_s)
        if failure is not None and not isinstance(fact, ModelFailed):
            # The next line of the journal says that this one was not taken in whole.
            self._fall_back(str(fact.__struct_config__.tag), failure, now_s)
        # One by one, the most frequent first: compiled code makes a tuple of classes anew at each look.
        if isinstance(fact, Started):
            if (give_way := self.guests.get(fact.endpoint)) is not None:
                give_way()
        elif isinstance(fact, FirstToken):
            self._look_if_in_doubt(fact.endpoint)
            self._check_soon()
        elif isinstance(fact, Ended):
            if (known := self.recent.get(fact.request_id)) is not None:
                known.endings.append(fact)
            if fact.cause == NO_DESCRIPTOR.cause:
                self.lacks_descriptors(now_s)
            self._look_if_in_doubt(fact.endpoint)
            self._check_soon()
        elif isinstance(fact, Probed):
            self.warm_up(now_s)
        elif isinstance(fact, Warmed):
            self.warm_up(now_s)
            self._check_soon()

    def lacks_descriptors(self, now_s: float) -> None:
        """We may open no more files. One line of the log for a minute of that."""
        if now_s >= self._descriptors_told_s:
            self._descriptors_told_s = now_s + TOLD_S
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            remedy = f"{MORE_FILES}, or lower gateway.connections_max"
            self.log.event("error", "no file descriptor left", limit=limit, remedy=remedy)

    def turned_away(self, endpoint: str, said: str, now_s: float) -> None:
        """A vendor has `said` something of our key or account. One line of the log for a minute of that."""
        if now_s >= self._turned_away_s.get(endpoint, 0.0):
            self._turned_away_s[endpoint] = now_s + TOLD_S
            remedy = "see that the endpoint's key is good, and its account paid for"
            self.log.event("warning", "account turned away", endpoint=endpoint, said=said, remedy=remedy)

    def probed(self, fact: Probed, outage: Outage = UNKNOWN) -> None:
        """Tell the router what a probe saw, with the `outage` that it met where it found none up, and let held work go
        where it opened a way."""
        state = self.router.endpoint(fact.endpoint).state
        before, was_up = state.fingerprint, state.up
        self.tell(fact, self.now_s())
        self._recognition.probed(self.router, fact.endpoint, before)
        self.outages.probed(self.upstreams[fact.endpoint], None if fact.up else outage)
        # Now: between two looks of who waits for that, it may go and come back.
        if fact.up and not was_up and (returned := self.returns.get(fact.endpoint)) is not None:
            returned()
        self._look_if_in_doubt(fact.endpoint)
        self._check_soon()

    def warm_up(self, now_s: float) -> None:
        """Let models be loaded whose absence has cost enough, or be used that are kept."""
        for endpoint in self.router.warm_ups(now_s):
            begin = self.warmers.get(endpoint)
            if begin is not None:
                begin()

    def _look_if_in_doubt(self, endpoint: str) -> None:
        """Let the way there be looked at before its turn, where what is known of it may be wrong."""
        if self.router.doubts_network(endpoint) and (look := self.lookers.get(endpoint)) is not None:
            look()

    def configure(
        self,
        router: Router,
        upstreams: dict[str, Upstream],
        same: Set[str],
        policy: Policy,
        request_timeout_s: float,
    ) -> None:
        """Go on with other settings; `router` has taken over the state of the one before. Of the endpoints these are
        the `same` model of the same engine."""
        for name in [n for n in self._slots if n not in same]:
            del self._slots[name]
        self._recognition.keep(same)
        self.router, self.upstreams = router, upstreams
        self.metrics.hold_to(policy.quantile)
        self._policy, self._request_timeout_s = policy, request_timeout_s
        self.outages.keep(upstreams)
        for model in [m for m in self.ratios if not router.serves(m)]:
            del self.ratios[model]
        for name in [n for n in self._turned_away_s if n not in upstreams]:
            del self._turned_away_s[name]
        self._reconsider()

    def override(self, overrides: Overrides) -> None:
        """Operators have taken a hand."""
        self.tell(overrides, self.now_s())
        self._reconsider()

    def _reconsider(self) -> None:
        self.epoch += 1
        self._check_soon()

    def written(self, release: Callable[[], None]) -> None:
        """Call `release` once all that was told so far is written: the final bytes of an answer wait for it."""
        if self._journal is None:
            release()
        else:
            self._journal.after_write(release)

    def ratio(self, model: str) -> TokenRatio:
        """Bytes per token of a model; the names are those that are configured, so their number is bounded."""
        found = self.ratios.get(model)
        if found is None:
            found = TokenRatio()
            if self.router.serves(model):
                self.ratios[model] = found
        return found

    # --- what is under way ----------------------------------------------------------------------------------------

    @property
    def live(self) -> Set[str]:
        """The ids of requests under way, held ones included."""
        return self._live.keys()

    @property
    def in_flight(self) -> int:
        """Requests under way, held ones included."""
        return len(self._live)

    def asked(self, drive: Timed) -> None:
        """A request has come: let it `depart` when all that has come in this tick is read."""
        self._asked.append(drive)
        self._tick.soon(ASKED, self._departures)

    def answered(self, drive: Timed) -> None:
        """The same of an answer, which is to `land`: what it makes room for is known before anything is decided."""
        self._answered.append(drive)
        self._tick.soon(ANSWERED, self._landings)

    def catch_up(self) -> None:
        """Do now what was left for the end of this tick: what comes next takes long, or is the end."""
        self._land()
        self._depart()

    def _depart(self) -> None:
        asked, self._asked = self._asked, []
        self.in_a_row = len(asked) > 1  # one alone is sent at once, and told of afterwards
        for drive in asked:
            try:
                drive.depart()
            except Exception as error:
                failed(error)
        self._send_row()

    def send_in_turn(self, begin: Callable[[], None]) -> None:
        """Have an attempt `begin` once more of this row are decided. Sent one right after the other, requests take less
        code from memory, and engines sleep less often between them, each of which costs whoever wakes them."""
        self._row.append(begin)
        if len(self._row) >= ROW_MAX:
            self._send_row()
            self.in_a_row = True

    def _send_row(self) -> None:
        self.in_a_row = False
        row, self._row = self._row, []
        for begin in row:
            run(begin)

    def _land(self) -> None:
        answered, self._answered = self._answered, []
        for drive in answered:
            try:
                drive.land()
            except Exception as error:
                failed(error)

    def begin(self, drive: Timed) -> None:
        """A request is under way."""
        until_s = drive.request.arrived_s + self._request_timeout_s
        self._live[drive.request.id] = drive, until_s
        self._expires_s = min(self._expires_s, until_s)
        if self._sweep_handle is None:
            self._swept_s = self.now_s()
            self._sweep_handle = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def end(self, drive: Timed) -> None:
        """It is over."""
        request_id = drive.request.id
        self._live.pop(request_id, None)
        self._held.pop(request_id, None)
        self._unset_timer(request_id)

    def set_timer(self, drive: Timed, at_s: float, now_s: float) -> None:
        """Call its `timer` at this time, instead of any earlier order."""
        request_id = drive.request.id
        self._unset_timer(request_id)
        if at_s - now_s <= NEAR_S:
            # Loops count in milliseconds: one that is asked for less calls at once, and would be asked again and again.
            # For what is lost of a difference of times it is not asked for one more.
            self._start_timer(drive, at_s, to_ms(max(0.0, at_s - self.now_s() - LOST_S)))
            return
        # Nearly all are over before: for those the loop has nothing to remember, and to forget.
        due_s = now_s + to_ms(at_s - now_s - LOST_S)
        self._timers[request_id] = due_s, None
        self._near_s = min(self._near_s, due_s)

    def _start_timer(self, drive: Timed, at_s: float, wait_s: float) -> None:
        handle = asyncio.get_running_loop().call_later(wait_s, self._time_has_come, drive)
        self._timers[drive.request.id] = at_s, handle

    def hold(self, drive: Timed) -> None:
        """It waits for its turn."""
        self._held[drive.request.id] = drive

    def unhold(self, drive: Timed) -> None:
        """It waits no more."""
        self._held.pop(drive.request.id, None)

    def _unset_timer(self, request_id: str) -> None:
        timer = self._timers.pop(request_id, None)
        if timer is not None and timer[1] is not None:
            timer[1].cancel()

    def _time_has_come(self, drive: Timed) -> None:
        self._unset_timer(drive.request.id)
        drive.timer(self.now_s())

    def _check_soon(self) -> None:
        """There may be room for what is held."""
        if self._held:
            self._tick.soon(HELD, self._check_held)

    def _check_held(self) -> None:
        """Bind what is due, one by one: each changes what the next one finds."""
        self._checked_s = now_s = self.now_s()
        turns = deque(self._due(now_s))
        if now_s - self._enriched_s >= SWEEP_S:
            # To look at all of them with whatever ends would cost more than most of that.
            self._enriched_s, due = now_s, {request.id for request in turns}
            turns.extend([request for request in self._enriched(now_s) if request.id not in due])
        self.in_a_row = len(turns) > 1
        while turns:
            drive = self._held.get(turns.popleft().id)
            if drive is not None:
                try:
                    drive.turn(now_s)
                except Exception as error:
                    failed(error)
        self._send_row()

    def _due(self, now_s: float) -> list[Request]:
        """Those whose turn has come; all, where the model cannot say, so that the static rule does of each."""
        try:
            return self.router.due(now_s)
        except Exception as error:
            self._fall_back("due", error, now_s)
            return [drive.request for drive in self._held.values()]

    def _enriched(self, now_s: float) -> list[Request]:
        """Those for whom more is left than they know of, by which somebody may be paid for them: no more of them than
        there is money for."""
        found, left_usd = list[Request](), dict[str, float]()
        for drive in self._held.values():
            request = drive.request
            if request.budget_usd is None:
                continue
            if request.key not in left_usd:
                usd = self.spending.headroom_usd(request.key, now_s)
                left_usd[request.key] = inf if usd is None else usd
            left, usd = left_usd[request.key], drive.awaited_usd(left_usd[request.key])
            if left > request.budget_usd:
                usd = max(usd, self.router.at_stake_usd(request, left))
            if usd > 0.0:
                left_usd[request.key] -= usd
                found.append(request)
        return found

    def _sweep(self) -> None:
        now_s = self.now_s()
        self.metrics.loop_lag(max(0.0, now_s - self._swept_s - SWEEP_S))
        self._swept_s = now_s
        # The next sweep comes whatever a request does in its turn: the others keep their time.
        self._sweep_handle = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        # To look at each that is under way would cost as much as a chunk of each.
        if self._expires_s < now_s:
            self._expire(now_s)
        if self._forward_s != self.clock.forward_s:
            self._forward_s = self.clock.forward_s
            self._call_late(now_s)
        if self._near_s <= now_s + NEAR_S:
            self._start_near(now_s)
        # What requests make of that can wait for a sweep: to ask of all endpoints costs more than most of what is told.
        self.warm_up(now_s)
        if self._held and now_s - self._checked_s >= self._policy.recheck_s:
            self._check_held()
        if not self._live:
            self.close()

    def _expire(self, now_s: float) -> None:
        """End what takes too long."""
        for drive in [d for d, until_s in self._live.values() if until_s < now_s]:
            del self._live[drive.request.id]
            self._unset_timer(drive.request.id)
            try:
                drive.expire(now_s)
            except Exception as error:
                failed(error)
        self._expires_s = min([until_s for _, until_s in self._live.values()], default=inf)

    def _call_late(self, now_s: float) -> None:
        """Call whose time has come by our clock, and not by the loop's."""
        for request_id in [name for name, (at_s, _) in self._timers.items() if at_s < now_s]:
            if request_id in self._live:
                try:
                    self._time_has_come(self._live[request_id][0])
                except Exception as error:
                    failed(error)

    def _start_near(self, now_s: float) -> None:
        """Leave to the loop whose time comes soon: whole milliseconds after it was asked for, not after now."""
        self._near_s = inf
        for request_id in [name for name, (_, handle) in self._timers.items() if handle is None]:
            at_s = self._timers[request_id][0]
            if at_s > now_s + NEAR_S:
                self._near_s = min(self._near_s, at_s)
            elif request_id in self._live:
                self._start_timer(self._live[request_id][0], at_s, max(0.0, at_s - now_s))
            else:
                del self._timers[request_id]

    def stop(self) -> None:
        """End what is under way: the gateway goes down, and has waited for it."""
        self.catch_up()
        now_s = self.now_s()
        for drive in [d for d, _ in self._live.values()]:
            drive.stop(now_s)

    def close(self) -> None:
        """Stop the timers."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
            self._sweep_handle = None
        for request_id in list(self._timers):
            self._unset_timer(request_id)
