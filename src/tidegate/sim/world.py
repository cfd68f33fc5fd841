"""A world in which the real router decides and real flights are flown, on a clock of events.

It does what a gateway does, in the same order, and tells the router the same facts; so it writes the same journal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf

import msgspec

from tidegate.core import actions as do
from tidegate.core.base import TO, has_come
from tidegate.core.flight import Flight
from tidegate.core.model import (
    JOURNAL_VERSION,
    Capability,
    Decision,
    Ended,
    Ending,
    Endpoint,
    Fact,
    FirstToken,
    Held,
    Line,
    Observation,
    Overrides,
    Policy,
    Probed,
    Released,
    Request,
    Segment,
    Shipped,
    Uploaded,
    Warmed,
    replace,
)
from tidegate.core.network import UPLOAD_S_LEAST, UPLOAD_S_SURE
from tidegate.core.promise import ending_of, is_left, judged, kept, was_kept
from tidegate.core.resume import rest_of
from tidegate.core.router import Router
from tidegate.core.ruled import barred_by
from tidegate.core.rules import may_go_to
from tidegate.core.sending import prefill_of, started
from tidegate.core.waiting import SWEEP_S
from tidegate.core.why import Why
from tidegate.sim.carrier import Carrier, Shipment, declared
from tidegate.sim.decider import AtOnce, Decider
from tidegate.sim.job import Job, Traffic
from tidegate.sim.looks import Looks
from tidegate.sim.loop import Loop
from tidegate.sim.outcome import Outcome
from tidegate.sim.place import Attempt, Failure, Local, Place
from tidegate.sim.purse import Purse
from tidegate.sim.sweeps import Rechecks, Sweeps
from tidegate.sim.warmups import WarmUps


class _Drive:
    """One request from its arrival to its end: `job` is what is asked for now, of the one that `came`."""

    __slots__ = (
        "attempts",
        "came",
        "decision",
        "first_s",
        "flight",
        "held_s",
        "held_since_s",
        "job",
        "passed_over",
        "relayed",
        "sent",
        "shipments",
        "timer",
        "unpaid",
        "usd",
    )

    def __init__(self, job: Job, stall_s: float) -> None:
        self.job = self.came = job
        self.flight = Flight(buffered=not job.request.stream, stall_s=stall_s)
        self.attempts: dict[str, Attempt] = {}
        # Where any attempt went, in the order of the first there.
        self.sent: dict[str, None] = {}
        # KV caches that are on their way, by the endpoint that computed them.
        self.shipments: dict[str, tuple[Shipment, str]] = {}
        # Whose content its client was given last.
        self.relayed: Attempt | None = None
        self.decision: Decision | None = None
        self.first_s: float | None = None
        self.held_since_s: float | None = None
        self.held_s = 0.0
        self.timer = 0
        # Steps for which nothing was sent, and whether that was the last that became of it.
        self.passed_over = 0
        self.unpaid = False
        self.usd = 0.0


class World:
    """Owns time, the router, and what is under way. `outcomes` grow as requests end."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        policy: Policy,
        *,
        start_s: float = 0.0,
        request_timeout_s: float = 600.0,
        software: str = "simulated",
        router: Decider | None = None,
        purse: Purse | None = None,
        journal: Callable[[Line], None] | None = None,
    ) -> None:
        """`journal` is given every line as it is written. Who decides is the real router, unless another is given."""
        self.loop = Loop(start_s)
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.router = router if router is not None else Router(tuple(self.endpoints.values()), policy)
        self.outcomes: list[Outcome] = []
        self.in_flight = dict.fromkeys(self.endpoints, 0)
        self.usd = dict.fromkeys(self.endpoints, 0.0)
        # What others have decided may break our rules.
        self._obeys = not isinstance(router, AtOnce)
        self._policy = policy
        self._purse = purse if purse is not None else Purse()
        self._journal = journal
        self._request_timeout_s = request_timeout_s
        self._places: Mapping[str, Place] = {}
        self._carriers: Mapping[str, Carrier] = {}
        self._traffic: Traffic | None = None
        self._drives: dict[str, _Drive] = {}
        self._held: dict[str, _Drive] = {}
        # When it was last looked whether more is left for them than they know of.
        self._enriched_s = 0.0
        segment = Segment(
            version=JOURNAL_VERSION,
            software=software,
            policy=policy,
            endpoints=tuple(self.endpoints.values()),
            state=msgspec.Raw(bytes(self.router.snapshot())),
        )
        self._write(segment)

    def run(
        self,
        places: Mapping[str, Place],
        traffic: Traffic,
        *,
        probe_s: float,
        until_s: float,
        carriers: Mapping[str, Carrier] | None = None,
    ) -> None:
        """Let traffic come, with these places behind the endpoints, until all of it is done or time is up. `carriers`
        are those of the handovers, by name; those that are missing are as their endpoints declare."""
        self.open(places, traffic, probe_s=probe_s, carriers=carriers)
        self._next(iter(traffic.arrivals()))
        self.loop.run(until_s)

    def open(
        self,
        places: Mapping[str, Place],
        traffic: Traffic,
        *,
        probe_s: float,
        carriers: Mapping[str, Carrier] | None = None,
    ) -> None:
        """These places stand behind the endpoints from now on. Nothing happens before the loop runs."""
        assert places.keys() == self.endpoints.keys(), "there is a place behind every endpoint"
        self._places, self._traffic = places, traffic
        self._carriers = {**declared(self.endpoints.values(), self.loop), **(carriers or {})}
        self._warm_ups = WarmUps(places, self.endpoints, self.loop, self.router, self._tell, self.usd)
        self._sweeps = Sweeps(self.loop, self._warm_ups)
        self._rechecks = Rechecks(self.loop, self._sweeps, self._held, self._policy.recheck_s, self._check)
        self._looks = Looks(places, self.loop, self.router, self._tell, self._rechecks.soon, probe_s)
        self._looks.all()
        self.loop.at(self.loop.now_s + probe_s, self._probe, probe_s)

    def arrive(self, job: Job) -> None:
        """One more request, which comes when it says."""
        self.loop.at(job.request.arrived_s, self._begin, job)

    def overdue(self) -> list[Outcome]:
        """Those under way whose promise is missed already, as if they were given up now."""
        found = []
        for drive in self._drives.values():
            request, e2e_s = drive.came.request, self.loop.now_s - drive.came.request.arrived_s
            ttft_s = None if drive.first_s is None else drive.first_s - request.arrived_s
            if kept(request, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=None, whole=False) is False:
                found.append(self._outcome(drive, "timed_out"))
        return found

    @property
    def warm_ups_usd(self) -> float:
        """What is in `usd` and was spent for no request."""
        return self._warm_ups.spent_usd

    def override(self, overrides: Overrides) -> None:
        """Operators have taken a hand."""
        self._tell(overrides)
        self._rechecks.soon()

    # --- what places tell -----------------------------------------------------------------------------------------

    def uploaded(self, attempt: Attempt, seconds: float) -> None:
        """See `Listener`."""
        if attempt.over:
            return
        request, network = attempt.job.request, self.router.endpoint(attempt.endpoint).network
        fact = Uploaded(
            request_id=request.id,
            endpoint=attempt.endpoint,
            upload_bytes=request.prompt_bytes,
            seconds=max(seconds, UPLOAD_S_LEAST),
            at_most=seconds < UPLOAD_S_SURE,
        )
        if network.is_news(fact.upload_bytes, fact.seconds, at_most=fact.at_most):
            self._tell(fact)

    def first(self, attempt: Attempt) -> None:
        """See `Listener`."""
        if attempt.over or attempt in self._warm_ups.under_way:
            return
        now_s = attempt.first_s = self.loop.now_s
        if not attempt.streamed:
            # Nobody sees it before the end.
            return
        attempt.seen_s = now_s
        request_id = attempt.job.request.id
        drive = self._drives[request_id]
        self._tell(FirstToken(request_id=request_id, endpoint=attempt.endpoint, ttft_s=now_s - attempt.sent_s))
        self._looks.again(attempt.endpoint)
        if attempt.target:
            return
        if drive.first_s is None:
            drive.first_s = now_s
        self._act(drive, drive.flight.content(attempt.endpoint, now_s))

    def done(self, attempt: Attempt) -> None:
        """See `Listener`."""
        if attempt.over or self._warm_ups.ended(attempt, served=True):
            return
        drive = self._drives[attempt.job.request.id]
        if Capability.EMBEDDING in attempt.job.request.needs:
            # All there is, is its first content.
            attempt.seen_s = drive.first_s = self.loop.now_s
        self._ended(drive, attempt, Ending.OK)
        if attempt.target:
            self._ship(drive, attempt)
            return
        for action in drive.flight.completed(attempt.endpoint):
            if isinstance(action, do.Finish):
                self._over(drive, "ok", attempt)
            else:
                self._act(drive, [action])

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """See `Listener`."""
        if attempt.over or self._warm_ups.ended(attempt, served=False):
            return
        drive = self._drives[attempt.job.request.id]
        may_resume = self._may_resume(drive, attempt)
        attempt.came_tokens = attempt.output_tokens
        self._ended(drive, attempt, failure.ending, failure.cause, failure.retry_after_s)
        self._act(drive, drive.flight.failed(attempt.endpoint, self.loop.now_s, may_resume=may_resume))

    # --- what happens by itself -----------------------------------------------------------------------------------

    def _next(self, arrivals: Iterator[Job]) -> None:
        job = next(arrivals, None)
        if job is not None:
            self.loop.at(job.request.arrived_s, self._arrives, job, arrivals)

    def _arrives(self, job: Job, arrivals: Iterator[Job]) -> None:
        self._next(arrivals)
        self._begin(job)

    def _begin(self, job: Job) -> None:
        left_usd, drawn = self._purse.left_usd(self.loop.now_s), self._purse.drawn(self.loop.now_s)
        if left_usd is not None:
            budgets = tuple(told.budget for told in drawn)
            job = msgspec.structs.replace(job, request=replace(job.request, budget_usd=left_usd, budgets=budgets))
        if not self._drives:
            self._sweeps.begin()
        drive = self._drives[job.request.id] = _Drive(job, self._policy.stall_s)
        self._write(job.request)
        for told in drawn:
            if self.router.is_news(told, self.loop.now_s):
                self._tell(told)
        self.loop.at(self.loop.now_s + self._request_timeout_s, self._expire, drive)
        self._turn(drive)

    def _probe(self, every_s: float) -> None:
        self._warm_ups.give_up()
        self._looks.all()
        if not self.loop.over:
            self.loop.at(self.loop.now_s + every_s, self._probe, every_s)

    def _expire(self, drive: _Drive) -> None:
        if self._drives.get(drive.job.request.id) is drive:
            self._abandon(drive, Ending.CANCELLED, "request_timeout")
            self._over(drive, "timed_out")

    def _timer(self, drive: _Drive, number: int) -> None:
        if number == drive.timer and drive.job.request.id in self._drives:
            flight = drive.flight
            relayed = drive.attempts.get(flight.winner)
            tokens = None if relayed is None else self._places[relayed.endpoint].generated(relayed)
            may_hedge, may_resume = self.router.may_hedge(flight.open), self._may_resume(drive, relayed)
            self._act(drive, flight.timer(self.loop.now_s, may_hedge=may_hedge, tokens=tokens, may_resume=may_resume))

    # --- a request ------------------------------------------------------------------------------------------------

    def _turn(self, drive: _Drive) -> None:
        now_s = self.loop.now_s
        if drive.held_since_s is not None:
            self._look_at_budget(drive)
        decision = drive.decision = self.router.decide(drive.job.request, now_s)
        self._write(decision)
        if decision.plan:
            self._act(drive, drive.flight.start(decision.plan, now_s))
            return
        self._unhold(drive, released=True)
        self._over(drive, "refused" if drive.relayed is None else "failed_mid_stream")

    def _give_up(self, drive: _Drive, *, committed: bool) -> None:
        """Nobody is left who could be asked."""
        if committed:
            self._over(drive, "failed_mid_stream")
            return
        if drive.unpaid:
            self._tell(Released(request_id=drive.job.request.id, cause=Why.OVER_BUDGET.value))
        self._over(drive, "refused" if drive.unpaid else "failed")

    def _look_at_budget(self, drive: _Drive) -> None:
        """What can be paid for may be otherwise than when it came: then it is held anew, knowing that."""
        request = self._as_known(drive.job.request)
        if request is not drive.job.request:
            self._unhold(drive, released=True)
            drive.job = msgspec.structs.replace(drive.job, request=request)
            self._write(request)

    def _as_known(self, request: Request) -> Request:
        """What is asked, with what is left to pay for it; the same where that is what it says."""
        left_usd = self._purse.left_usd(self.loop.now_s)
        # Without caps there is what was left of others' when it came, in the day that is played again.
        if left_usd is None or not self.router.at_stake_usd(request, left_usd):
            return request
        return replace(request, budget_usd=left_usd)

    def _act(self, drive: _Drive, actions: Iterable[do.Action]) -> None:
        passed_over = drive.passed_over
        for action in actions:
            match action:
                case do.Call():
                    self._send(drive, action)
                case do.Compute():
                    self._send(drive, action)
                case do.Decide():
                    self._arrived(drive, action)
                case do.Again():
                    self._decide_again(drive)
                case do.Timer():
                    # Where a step was passed over meanwhile, the flight has gone on, and has set its timer since.
                    if passed_over == drive.passed_over and action.at_s < inf:
                        drive.timer += 1
                        self.loop.at(action.at_s, self._timer, drive, drive.timer)
                case do.Cancel():
                    if action.gave_up is None:
                        self._cancel(drive, action.endpoint, Ending.CANCELLED)
                    else:
                        self._cancel(drive, action.endpoint, Ending.TIMED_OUT, action.gave_up.value)
                case do.Hold():
                    self._hold(drive)
                case do.GiveUp():
                    self._give_up(drive, committed=action.committed)
                case do.Relay():
                    # Of an answer in one piece its client has nothing before the end.
                    if drive.came.request.stream:
                        drive.relayed = drive.attempts.get(action.endpoint)
                case do.Resume():
                    self._resume(drive)
                case do.Finish():
                    raise AssertionError("only a completed attempt finishes a flight")

    def _decide_again(self, drive: _Drive) -> None:
        """Nothing of its plan could be paid for: who was not in it may serve, unless no less is left than before."""
        asked = drive.job.request
        self._look_at_budget(drive)
        if drive.job.request is asked:
            self._give_up(drive, committed=drive.relayed is not None)
        else:
            self._turn(drive)

    def _may_resume(self, drive: _Drive, attempt: Attempt | None) -> bool:
        """Whether the rest of what this attempt gives the client could be had, if it broke off now."""
        if not self._policy.resume or attempt is None or attempt is not drive.relayed:
            return False
        request = drive.came.request
        return request.failover and request.completions == 1 and bool(self._others(drive, attempt.endpoint))

    def _others(self, drive: _Drive, endpoint: str) -> tuple[str, ...]:
        """Who has the same model: the one that broke off only where nobody else may serve."""
        now_s, alike = self.loop.now_s, self.router.alike(endpoint)
        request = drive.came.request
        others = [name for name in alike if name != endpoint and self.router.forbids(request, name, now_s) is None]
        return tuple(others or alike)

    def _resume(self, drive: _Drive) -> None:
        """Ask for the rest of the answer that broke off, where its turn is best."""
        came, broken = drive.came, drive.relayed
        assert broken is not None, "nothing breaks off that was not relayed"
        # What has come back had content in it.
        said = drive.job.request.said_tokens + max(broken.came_tokens, 1)
        request = rest_of(
            came.request,
            said_tokens=said,
            said_bytes=said * came.request.prompt_bytes // came.request.prompt_tokens,
            spent_usd=drive.usd,
            to=self._others(drive, broken.endpoint),
            now_s=self.loop.now_s,
        )
        request = self._as_known(request)
        drive.job = msgspec.structs.replace(
            came,
            request=request,
            prompt_tokens=came.prompt_tokens + said,
            # The end itself is what is missing, if nothing else is.
            output_tokens=max(came.target - said, 1),
        )
        self._write(request)
        self._turn(drive)

    def _ship(self, drive: _Drive, attempt: Attempt) -> None:
        """A prompt is computed: its KV cache goes to who decodes."""
        request_id, source, target = attempt.job.request.id, attempt.endpoint, attempt.target
        handover = self.endpoints[source].handover_to(target)
        assert handover is not None, "who is asked for it hands it over"

        def there(size: int, left: int, seconds: float | None) -> None:
            del drive.shipments[source]
            fact = Shipped(request_id=request_id, endpoint=source, target=target)
            if seconds is None:
                self._tell(replace(fact, ok=False, cause="unreachable"))
                self._act(drive, drive.flight.failed(source, self.loop.now_s, fetching=True))
            else:
                usd = size * handover.usd_per_byte
                drive.usd += usd
                self.usd[source] += usd
                self._tell(replace(fact, kv_bytes=size, left_bytes=left, seconds=seconds))
                self._act(drive, drive.flight.shipped(source))

        first_s = attempt.sent_s if attempt.first_s is None else attempt.first_s
        tokens = attempt.job.prompt_tokens
        if not handover.whole and isinstance(place := self._places[target], Local):
            tokens -= place.engine.cached_tokens(attempt.job)
        shipment = Shipment(tokens, first_s - attempt.sent_s, there)
        drive.shipments[source] = shipment, target
        self._carriers[source + TO + target].send(shipment)

    def _arrived(self, drive: _Drive, action: do.Decide) -> None:
        """The KV cache of its prompt is where it can be decoded."""
        request = replace(drive.job.request, shipped=action.endpoint + TO + action.target)
        drive.job = msgspec.structs.replace(drive.job, request=request)
        self._write(request)
        self._turn(drive)

    def _send(self, drive: _Drive, action: do.Call | do.Compute) -> None:
        now_s, request, name = self.loop.now_s, drive.job.request, action.endpoint
        target = action.target if isinstance(action, do.Compute) else ""
        if self._obeys:
            assert may_go_to(request, self.endpoints[name]), "data stays where it must"
            assert not barred_by(request.rulings, name), "operators' rules are kept"
        paid = prefill_of(request) if target else request
        if not self._purse.hold(paid, self.endpoints[name], now_s):
            # Decided when there was more left; the next step may be one that costs less.
            drive.passed_over += 1
            drive.unpaid = True
            self._unhold(drive, released=True)
            self._act(drive, drive.flight.passed_over(name, now_s))
            return
        self._unhold(drive, released=False)
        timed = request.prompt_bytes >= self.router.endpoint(name).late.telling_bytes
        job = drive.job
        if target:
            job = msgspec.structs.replace(job, request=paid)
        elif has_come(request.shipped, name):
            job = msgspec.structs.replace(job, computed_tokens=job.prompt_tokens - 1)
        streamed = self.router.endpoint(name).endpoint.streams_to(request)
        fact = started(request, name, hedge=action.hedge, target=target, streamed=streamed)
        attempt = drive.attempts[name] = Attempt(
            job, name, now_s, hedge=action.hedge, timed=timed, target=target, streamed=fact.stream
        )
        self.in_flight[name] += 1
        drive.sent[name] = None
        self._tell(fact)
        sent = self.router.reserved(name, request.id)
        if sent is not None:
            attempt.predicted_s, attempt.predicted_s_high = sent.ttft_s, sent.ttft_s_high
        self._balanced(name)
        self._places[name].send(attempt)

    def _cancel(self, drive: _Drive, endpoint: str, ending: Ending, cause: str = "") -> None:
        if endpoint in drive.shipments:
            shipment, target = drive.shipments.pop(endpoint)
            shipment.over = True
            given_up = ending is Ending.CANCELLED
            request_id = drive.job.request.id
            fact = Shipped(request_id=request_id, endpoint=endpoint, target=target, ok=False, given_up=given_up)
            self._tell(replace(fact, cause=cause))
            return
        attempt, place = drive.attempts[endpoint], self._places[endpoint]
        attempt.came_tokens = place.generated(attempt)
        place.cancel(attempt)
        self._ended(drive, attempt, ending, cause)

    def _ended(
        self, drive: _Drive, attempt: Attempt, ending: Ending, cause: str = "", retry_after_s: float | None = None
    ) -> None:
        attempt.over = True
        name, job = attempt.endpoint, attempt.job
        del drive.attempts[name]
        if ending is not Ending.CANCELLED:
            drive.unpaid = False
        e2e_s = self.loop.now_s - attempt.sent_s
        known = ending is Ending.OK
        endpoint = self.endpoints[name]
        usd = 0.0
        seen = known or attempt.seen_s is not None
        # Where a bill comes, it comes for what was begun; what was refused, or failed before anything came, is free.
        if ending is not Ending.REFUSED and (seen or ending is not Ending.FAILED):
            billed = job.prompt_tokens if seen else job.request.prompt_tokens
            # Of an answer in one piece that never came, nobody tells how much of it was made.
            made, cached = (attempt.output_tokens, attempt.cached_tokens) if seen else (0, 0)
            usd = endpoint.price.usd(billed, made, cached)
        self._purse.settle(job.request, endpoint, usd, self.loop.now_s)
        usd += endpoint.running_usd(e2e_s)
        drive.usd += usd
        self.usd[name] += usd
        self.in_flight[name] -= 1
        fact = Ended(
            request_id=job.request.id,
            endpoint=name,
            ending=ending,
            e2e_s=e2e_s,
            ttft_s=None if attempt.seen_s is None else attempt.seen_s - attempt.sent_s,
            prompt_tokens=job.prompt_tokens if known else None,
            cached_tokens=attempt.cached_tokens if known else None,
            # Of one that was given up, as much as has come.
            output_tokens=(attempt.output_tokens if known else attempt.came_tokens) if seen else None,
            retry_after_s=retry_after_s,
            cause=cause,
            predicted_ttft_s=attempt.predicted_s,
            predicted_ttft_s_high=attempt.predicted_s_high,
        )
        if attempt.seen_s is not None and not (known or is_left(fact) or attempt.target or drive.came.request.stream):
            # Of an answer in one piece nobody was shown anything: another one's content is the first.
            drive.first_s = None
        self._tell(fact)
        self._looks.again(name)
        self._balanced(name)

    def _abandon(self, drive: _Drive, ending: Ending, cause: str) -> None:
        self._unhold(drive, released=True, cause=cause)
        for action in drive.flight.left():
            assert isinstance(action, do.Cancel), "whatever is under way is cancelled"
            self._cancel(drive, action.endpoint, ending, cause)

    def _over(self, drive: _Drive, outcome: str, attempt: Attempt | None = None) -> None:
        now_s, request, decision = self.loop.now_s, drive.came.request, drive.decision
        assert not drive.attempts, "nothing is under way of what is over"
        assert not drive.shipments, "nor its KV cache"
        assert decision is not None, "it was decided"
        del self._drives[request.id]
        if not self._drives:
            self._sweeps.end()
        came, ending = self._outcome(drive, outcome, attempt), ending_of(outcome)
        was = was_kept(
            request, decision, ending, ttft_s=came.ttft_s, e2e_s=came.e2e_s, output_tokens=came.output_tokens
        )
        told = judged(request, ending, was)
        if told is not None:
            self._tell(told)
        self.outcomes.append(came)
        assert self._traffic is not None, "somebody asked"
        follows = self._traffic.follows(drive.came, now_s, served=outcome == "ok")
        if follows is not None:
            self.loop.at(follows.request.arrived_s, self._begin, follows)

    def _outcome(self, drive: _Drive, outcome: str, attempt: Attempt | None = None) -> Outcome:
        """What it comes to where it is over now."""
        job, request, decision = drive.came, drive.came.request, drive.decision
        assert decision is not None, "it was decided"
        return Outcome(
            # Without the prompt's digests, which would be most of the memory of a long run.
            request=replace(request, prefix=()),
            outcome=outcome,
            endpoint="" if attempt is None else attempt.endpoint,
            why=decision.why,
            attempts=drive.flight.attempts,
            held_s=drive.held_s,
            ttft_s=None if drive.first_s is None else drive.first_s - request.arrived_s,
            e2e_s=self.loop.now_s - request.arrived_s,
            predicted_s=None if attempt is None else attempt.predicted_s,
            measured_s=None if attempt is None or attempt.seen_s is None else attempt.seen_s - attempt.sent_s,
            prompt_tokens=job.prompt_tokens,
            cached_tokens=0 if attempt is None else attempt.cached_tokens,
            output_tokens=0 if attempt is None else drive.job.request.said_tokens + attempt.output_tokens,
            usd=drive.usd,
            sent=tuple(drive.sent),
            refused_for_ever=outcome == "refused" and decision.retry_after_s is None,
        )

    # --- held work ------------------------------------------------------------------------------------------------

    def _hold(self, drive: _Drive) -> None:
        if drive.job.request.id not in self._held:
            if drive.flight.attempts or drive.passed_over:
                self._look_at_budget(drive)
            request = drive.job.request
            self._held[request.id] = drive
            drive.held_since_s = self.loop.now_s
            self._tell(Held(request=request))
            if len(self._held) == 1:
                self._rechecks.begin()

    def _unhold(self, drive: _Drive, *, released: bool, cause: str = "") -> None:
        if drive.held_since_s is None:
            return
        drive.held_s += self.loop.now_s - drive.held_since_s
        drive.held_since_s = None
        del self._held[drive.job.request.id]
        if released:
            self._tell(Released(request_id=drive.job.request.id, cause=cause))

    def _check(self) -> None:
        """Decide again what is due."""
        now_s = self.loop.now_s
        assert self.router.held == len(self._held), "the router holds what is held"
        turns = self.router.due(now_s)
        if now_s - self._enriched_s >= SWEEP_S:
            self._enriched_s, due = now_s, {request.id for request in turns}
            turns += [request for request in self._enriched() if request.id not in due]
        for request in turns:
            drive = self._held.get(request.id)
            if drive is not None:
                self._turn(drive)

    def _enriched(self) -> list[Request]:
        """Those for whom more is left than they know of, by which somebody may be paid for them: no more of them than
        there is money for."""
        found, left_usd = list[Request](), self._purse.left_usd(self.loop.now_s)
        if left_usd is None:
            return found
        for drive in self._held.values():
            request = drive.job.request
            if request.budget_usd is None or left_usd <= request.budget_usd:
                continue
            usd = self.router.at_stake_usd(request, left_usd)
            if usd > 0.0:
                left_usd -= usd
                found.append(request)
        return found

    # --- facts ----------------------------------------------------------------------------------------------------

    def _tell(self, fact: Observation) -> None:
        self.router.observe(fact, self.loop.now_s)
        self._write(fact)
        if isinstance(fact, Probed | Warmed):
            self._warm_ups.begin()
        if isinstance(fact, Ended | FirstToken | Warmed):
            self._rechecks.soon()

    def _write(self, fact: Fact) -> None:
        if self._journal is not None:
            self._journal(Line(at_s=self.loop.now_s, fact=fact))

    def _balanced(self, endpoint: str) -> None:
        reserved = len(self.router.endpoint(endpoint).state.reservations)
        assert reserved == self.in_flight[endpoint], "what is reserved is what is under way"
