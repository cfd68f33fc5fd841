"""What a journal tells of an installation: who asked for what and when, what came of it, and how endpoints behaved."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tidegate.core.begun import begun
from tidegate.core.health import CLIENT_ERROR, OF_THE_REQUEST
from tidegate.core.model import (
    Capability,
    Decision,
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Line,
    Overrides,
    Policy,
    Probed,
    Released,
    Request,
    Run,
    Segment,
    Shipped,
    Started,
    Wait,
    replace,
)
from tidegate.core.overlap import Overlap
from tidegate.core.promise import is_left
from tidegate.core.replay import Replay, ReplayError
from tidegate.core.resume import PASSED_OVER, narrowed
from tidegate.core.router import Router
from tidegate.core.rows import SETTLED_S, attempt_usd
from tidegate.core.state import State
from tidegate.core.why import Why
from tidegate.sim.outcome import Outcome

# Of a longer journal the last so many, at least: two a second all day long.
REQUESTS_MAX = 200_000
# What nobody waited for has no outcome that another policy could have changed.
LEFT = "left"


class ObservedError(Exception):
    """The journal tells too little; the message says what is missing."""


class Attempted(msgspec.Struct, kw_only=True):
    """One attempt that is over. `load` others were in flight there when it was sent, with so much `context`.

    Tokens are None where the endpoint did not tell, and `ttft_s` where no content came.
    """

    started: Started
    sent_s: float
    load: int
    context: int
    ttft_s: float | None = None
    ended: Ended | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request: as it came, how many tokens it had in truth (None where nobody told), and what came of it.

    Of its answer `seen` tokens came; where it was `whole`, that is all of it, which of an answer that does not say what
    it took nobody knows.
    """

    request: Request
    outcome: Outcome
    prompt_tokens: int | None
    seen: int
    whole: bool


class Down(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that was away."""

    endpoint: str
    at_s: float
    for_s: float


class Observed(msgspec.Struct):
    """All of it. `state` is what was known at the beginning, or in the last header before it."""

    endpoints: tuple[Endpoint, ...]
    policy: Policy
    state: State
    start_s: float
    end_s: float = 0.0
    asked: list[Asked] = []
    attempts: dict[str, list[Attempted]] = {}
    down: list[Down] = []
    # Hands on the wheel, which nobody can foresee: how often.
    overridden: int = 0
    # Requests that are in none of this: those that ask for several answers, those that failed by their own fault, those
    # that a process or the journal ended before, those that came under another configuration, and those before the last
    # `REQUESTS_MAX`.
    several: int = 0
    client_errors: int = 0
    unended: int = 0
    before: int = 0
    # So many runs were at work at the same time, and are read one after the other.
    overlapping: int = 0


def known(lines: Iterable[Line]) -> Router:
    """Who has taken in what the lines tell, which begin with a segment; nothing is decided. Raises `ReplayError`."""
    core = Replay()
    for line in lines:
        if not isinstance(line.fact, Decision):
            core.feed(line)
    if core.router is None:
        raise ReplayError("the journal is empty")
    return core.router


def observe(lines: Iterable[Line]) -> Observed:
    """Read a journal through. Raises `ObservedError` where it does not begin with a segment.

    A configuration counts from when somebody asked for something under it: a process that could not start has left no
    more than a header.
    """
    reading, overlap = _Reading(), Overlap()
    # What comes under another configuration, while nobody has asked for anything there.
    next_one: _Reading | None = None
    for line in lines:
        overlap.feed(line)
        if isinstance(line.fact, Segment):
            if reading.fits(line.fact):
                next_one = None
            elif next_one is None or not next_one.fits(line.fact):
                next_one = _Reading()
        if next_one is None:
            reading.take(line)
            continue
        next_one.take(line)
        if not isinstance(line.fact, Segment | Probed | Overrides | Request):
            # It may be of a request that came before, should the configuration be what it was again.
            reading.take(line)
        if isinstance(line.fact, Request):
            next_one.begin_after(reading)
            reading, next_one = next_one, None
    found = reading.over()
    found.overlapping = overlap.runs
    return found


class _Open(msgspec.Struct):
    """A request that is not over: what is known of it so far."""

    request: Request
    usd: float = 0.0
    attempts: int = 0
    first_s: float | None = None
    decision: Decision | None = None
    said: int = 0
    under_way: int = 0
    held: bool = False
    # KV caches that are on their way to who decodes.
    shipping: int = 0
    refused: bool = False
    # Whatever ended did so because of what was asked, or the last did.
    at_fault: bool = True
    # When it was decided last. Whether it waits by that, and when it was let go while it did, for which cause of ours.
    decided_s: float = 0.0
    waits: bool = False
    released_s: float | None = None
    released_for: str = ""
    # How many steps of its plan have had their turn, and how often anything was set otherwise before it was decided.
    turns: int = 0
    epoch: int = 0
    # Who cannot be sent it, or has found it unfit or too long.
    barred: set[str] = set()
    # The last attempt that ended, and when.
    ended: Ended | None = None
    ended_s: float = 0.0
    # A KV cache that did not arrive, after which nothing was tried and nothing ended.
    lost: Shipped | None = None

    @property
    def stands_still(self) -> bool:
        """Whether nothing is under way for it."""
        return not (self.under_way or self.shipping or self.held)


class _Header(NamedTuple):
    at_s: float
    segment: Segment


class _Reading:
    def __init__(self) -> None:
        self._found: Observed | None = None
        self._endpoints: dict[str, Endpoint] = {}
        # The headers of this configuration, from the last one before the beginning on.
        self._headers: list[_Header] = []
        self._open: dict[str, _Open] = {}
        # Those for which nothing is under way, by when that was told, the longest ago first.
        self._still: dict[str, float] = {}
        self._attempts: dict[tuple[str, str], Attempted] = {}
        self._in_flight: dict[str, dict[str, int]] = {}
        self._down_s: dict[str, float] = {}
        # Headers and hands on the wheel so far: what was decided before one may be forbidden since.
        self._epoch = 0

    def take(self, line: Line) -> None:
        fact, now_s = line.fact, line.at_s
        if isinstance(fact, Segment):
            self._segment(fact, now_s)
            return
        found = self._found
        if found is None:
            raise ObservedError("the journal does not begin with a segment header; give the whole segment file")
        found.end_s = max(found.end_s, now_s)
        match fact:
            case Request():
                self._asked(fact)
                self._told(fact.id, now_s)
            case Held():
                self._held(fact.request.id)
                self._told(fact.request.id, now_s)
            case Decision() | Started() | FirstToken() | Ended() | Shipped() | Released():
                self._happened(fact, now_s)
                self._told(fact.request_id, now_s)
            case Probed():
                self._probed(fact, now_s)
            case Overrides():
                found.overridden += 1
                self._epoch += 1
        while self._still:
            request_id = next(iter(self._still))
            if self._still[request_id] + SETTLED_S >= now_s:
                break
            self._settle(request_id)

    def over(self) -> Observed:
        """The journal has ended."""
        found = self._found
        if found is None:
            raise ObservedError("the journal is empty")
        for request_id in list(self._open):
            self._settle(request_id)
        for endpoint, since_s in self._down_s.items():
            found.down.append(Down(endpoint=endpoint, at_s=since_s, for_s=max(found.end_s - since_s, 0.001)))
        found.asked.sort(key=lambda one: (one.request.arrived_s, one.request.id))
        if found.state.overrides != Overrides():
            # It was set before the first line, and is not played either.
            found.overridden += 1
        return found

    def fits(self, segment: Segment) -> bool:
        """Whether this one is of the same configuration; the first is of any."""
        found = self._found
        return found is None or (found.endpoints, found.policy) == (segment.endpoints, segment.policy)

    def begin_after(self, other: "_Reading") -> None:
        """What came under another configuration tells nothing of this one, and is counted."""
        found, before = self._found, other._found
        assert found is not None, "its header was read"
        assert before is not None, "only what has a configuration has another one after it"
        found.before = before.before + len(before.asked) + len(other._open)

    def _segment(self, segment: Segment, now_s: float) -> None:
        found = self._found
        self._headers.append(_Header(now_s, segment))
        self._epoch += 1
        if found is None:
            self._found = Observed(segment.endpoints, segment.policy, _state(segment), now_s, now_s)
            self._endpoints = {endpoint.name: endpoint for endpoint in segment.endpoints}
            return
        found.end_s = max(found.end_s, now_s)
        if not segment.follows:
            # Whatever was under way ended with its process.
            going_on = begun(segment).under_way
            for request_id in [name for name in self._open if name not in going_on]:
                self._settle(request_id)

    def _happened(self, fact: Decision | Started | FirstToken | Ended | Shipped | Released, now_s: float) -> None:
        """To a request that has come."""
        match fact:
            case Decision():
                self._decided(fact, now_s)
            case Started():
                self._started(fact, now_s)
            case FirstToken():
                self._first(fact, now_s)
            case Ended():
                self._ended(fact, now_s)
            case Shipped():
                self._shipped(fact, now_s)
            case Released():
                self._released(fact, now_s)

    def _told(self, request_id: str, now_s: float) -> None:
        """Something was told of it: nothing is under way for it since now, or something is."""
        self._still.pop(request_id, None)
        known = self._open.get(request_id)
        if known is not None and known.stands_still:
            self._still[request_id] = now_s

    def _asked(self, request: Request) -> None:
        known = self._open.get(request.id)
        if known is None:
            self._open[request.id] = _Open(request)
            return
        known.said = request.said_tokens
        if not known.said and request.rulings != known.request.rulings:
            # It could not be sent to everybody: nor could it be where its day is played again.
            known.request = replace(known.request, rulings=request.rulings)

    def _held(self, request_id: str) -> None:
        known = self._open.get(request_id)
        if known is not None:
            known.held = known.waits = True
            known.released_s = None

    def _released(self, fact: Released, now_s: float) -> None:
        known = self._open.get(fact.request_id)
        if known is not None:
            known.held, known.released_for = False, fact.cause
            # Where a step is passed over, that is in the moment of its decision. Behind it, it may wait on, unless that
            # is told to be why it came to nothing.
            known.released_s = now_s if fact.cause or known.waits or known.decided_s < now_s else None

    def _decided(self, decision: Decision, now_s: float) -> None:
        known = self._open.get(decision.request_id)
        if known is None:
            return
        known.decision, known.decided_s, known.released_s = decision, now_s, None
        known.turns, known.epoch = 0, self._epoch
        known.waits = bool(decision.plan) and isinstance(decision.plan[0], Wait)
        if not decision.plan and not known.under_way:
            known.refused = True
            known.ended_s = now_s
            self._settle(decision.request_id)

    def _started(self, fact: Started, now_s: float) -> None:
        there = self._in_flight.setdefault(fact.endpoint, {})
        self._attempts[fact.request_id, fact.endpoint] = Attempted(
            started=fact, sent_s=now_s, load=len(there), context=sum(there.values())
        )
        there[fact.request_id] = fact.prompt_tokens
        known = self._open.get(fact.request_id)
        if known is not None:
            self._pass_over(known, fact)
            known.attempts += 1
            known.under_way += 1
            known.held = False
            known.lost = None

    def _pass_over(self, known: _Open, fact: Started) -> None:
        """Those of its plan that should have come before this one, and were not asked, could not be sent it.

        Nothing is known of who was passed over since operators have set something, or for want of money of which
        another attempt has taken a part, or of a slot in which to compute a prompt for another: all of that passes.
        """
        known.barred.discard(fact.endpoint)
        plan = () if known.decision is None else known.decision.plan
        turn = next((number for number, step in enumerate(plan) if step.endpoint == fact.endpoint), -1)
        if turn < known.turns:
            return
        passed, known.turns = plan[known.turns : turn], turn + 1
        if known.epoch != self._epoch or fact.said_tokens:
            return
        for step in passed:
            if isinstance(step, Run) and not (known.attempts and self._may_lack_money(known.request, step.endpoint)):
                known.barred.add(step.endpoint)

    def _may_lack_money(self, request: Request, endpoint: str) -> bool:
        bounded = request.cost_usd_max is not None or request.budget_usd is not None
        there = self._endpoints.get(endpoint)
        return bounded and there is not None and there.price.asks_money

    def _first(self, fact: FirstToken, now_s: float) -> None:
        attempt = self._attempts.get((fact.request_id, fact.endpoint))
        if attempt is not None:
            attempt.ttft_s = fact.ttft_s
            if attempt.started.target:
                # Of a prompt alone, nobody sees anything.
                return
        known = self._open.get(fact.request_id)
        if known is not None and known.first_s is None:
            known.first_s = now_s

    def _ended(self, fact: Ended, now_s: float) -> None:
        found = self._found
        assert found is not None
        self._in_flight.get(fact.endpoint, {}).pop(fact.request_id, None)
        attempt = self._attempts.pop((fact.request_id, fact.endpoint), None)
        if attempt is None:
            return
        attempt.ended = fact
        found.attempts.setdefault(fact.endpoint, []).append(attempt)
        known = self._open.get(fact.request_id)
        if known is None:
            return
        known.under_way -= 1
        sent = attempt.started
        if fact.cause in OF_THE_REQUEST and not (sent.target or sent.shipped or sent.said_tokens):
            known.barred.add(fact.endpoint)
        endpoint = next((one for one in found.endpoints if one.name == fact.endpoint), None)
        if endpoint is not None:
            known.usd += attempt_usd(endpoint, known.request, attempt.started, fact) + endpoint.running_usd(fact.e2e_s)
        if attempt.started.target and _served(fact):
            # What it computed is decoded elsewhere.
            known.shipping += 1
            return
        if _served(fact) and fact.ttft_s is not None and attempt.ttft_s is None:
            # An embedding: all there is, is its first content.
            attempt.ttft_s = fact.ttft_s
            known.first_s = attempt.sent_s + fact.ttft_s if known.first_s is None else known.first_s
        if fact.ending is Ending.CANCELLED and known.ended is not None and known.ended.cause == CLIENT_ERROR:
            # Given up beside one who said that the request is wrong: nobody left.
            return
        if attempt.ttft_s is not None and not (known.request.stream or _served(fact) or is_left(fact)):
            # Of an answer in one piece nobody was shown anything: another one's content is the first.
            known.first_s = None
        # Whoever says that it is wrong has the last word, whatever failed before.
        at_fault = known.at_fault and fact.cause in (CLIENT_ERROR, *OF_THE_REQUEST)
        known.at_fault = at_fault or (fact.ending is Ending.OK and not _served(fact))
        if known.ended is None or not _served(known.ended):
            known.ended, known.ended_s = fact, now_s
            known.lost = None
        if fact.ending is Ending.OK and not known.under_way:
            self._settle(fact.request_id)

    def _shipped(self, fact: Shipped, now_s: float) -> None:
        found, known = self._found, self._open.get(fact.request_id)
        assert found is not None
        if known is not None:
            if not fact.ok:
                known.lost, known.ended_s = fact, now_s
            known.shipping = max(0, known.shipping - 1)
            source = next((one for one in found.endpoints if one.name == fact.endpoint), None)
            handover = None if source is None else source.handover_to(fact.target)
            known.usd += 0.0 if handover is None else fact.kv_bytes * handover.usd_per_byte

    def _probed(self, fact: Probed, now_s: float) -> None:
        found = self._found
        assert found is not None
        if not fact.up:
            self._down_s.setdefault(fact.endpoint, now_s)
        elif fact.endpoint in self._down_s:
            since_s = self._down_s.pop(fact.endpoint)
            found.down.append(Down(endpoint=fact.endpoint, at_s=since_s, for_s=max(now_s - since_s, 0.001)))

    def _settle(self, request_id: str) -> None:
        """It is over, as far as the journal says."""
        known, found = self._open.pop(request_id, None), self._found
        if known is None:
            # Whoever was settled before it has shown that it is too old.
            return
        self._still.pop(request_id, None)
        assert found is not None
        request, decision = self._playable(known), known.decision
        ended = known.ended
        how = _named(known)
        if decision is None or how is None:
            found.unended += 1
            return
        if request.completions > 1:
            found.several += 1
            return
        if how == CLIENT_ERROR:
            found.client_errors += 1
            return
        over_s = max(known.ended_s, known.released_s or 0.0, known.decided_s if ended is None else 0.0)
        ok = ended is not None and _served(ended)
        seen = known.said + (0 if ended is None else ended.output_tokens or 0)
        ttft_s = None if known.first_s is None else known.first_s - request.arrived_s
        outcome = Outcome(
            request=replace(request, prefix=()),
            outcome=how,
            endpoint=ended.endpoint if ok and ended is not None else "",
            why=decision.why,
            attempts=known.attempts,
            held_s=0.0,
            ttft_s=ttft_s,
            e2e_s=over_s - request.arrived_s,
            predicted_s=None,
            measured_s=None if ended is None else ended.ttft_s,
            prompt_tokens=request.prompt_tokens if ended is None else ended.prompt_tokens or request.prompt_tokens,
            cached_tokens=0 if ended is None else ended.cached_tokens or 0,
            output_tokens=seen if ok else 0,
            usd=known.usd,
            refused_for_ever=how == "refused" and not known.said and decision.retry_after_s is None,
        )
        told = ended.prompt_tokens if ok and ended is not None and not known.said else None
        whole = ok and ended is not None and _says_length(request, ended)
        found.asked.append(Asked(request=request, outcome=outcome, prompt_tokens=told, seen=seen, whole=whole))
        if len(found.asked) >= 2 * REQUESTS_MAX:
            self._trim(found)

    def _playable(self, known: _Open) -> Request:
        """What was asked, where its day is played again: where it could not be sent it cannot be then, nor be paid for
        where nothing that was left was enough."""
        request = known.request
        if known.released_s is not None and known.released_for == Why.OVER_BUDGET and not known.attempts:
            return replace(request, budget_usd=0.0)
        if not known.barred:
            return request
        serving = tuple([one.name for one in self._endpoints.values() if request.model in one.models])
        to = next((one.to for one in request.rulings if one.rule == PASSED_OVER), serving)
        others = tuple([name for name in to if name not in known.barred])
        return narrowed(request, others) if others and len(others) < len(to) else request

    def _trim(self, found: Observed) -> None:
        """It begins with the last requests: nothing that was before them counts."""
        start_s = sorted(one.request.arrived_s for one in found.asked)[-REQUESTS_MAX]
        asked = [one for one in found.asked if one.request.arrived_s >= start_s]
        older = [name for name, one in self._open.items() if one.request.arrived_s < start_s]
        found.before += len(found.asked) - len(asked) + len(older)
        for request_id in older:
            del self._open[request_id]
            self._still.pop(request_id, None)
        while len(self._headers) > 1 and self._headers[1].at_s <= start_s:
            del self._headers[0]
        found.asked, found.start_s, found.state = asked, start_s, _state(self._headers[0].segment)
        found.attempts = {
            name: [one for one in attempts if one.sent_s >= start_s] for name, attempts in found.attempts.items()
        }
        found.down = [since(one, start_s) for one in found.down if one.at_s + one.for_s > start_s]
        self._down_s = {name: max(at_s, start_s) for name, at_s in self._down_s.items()}


def since(down: Down, at_s: float) -> Down:
    """What is left of it at that time."""
    begins_s = max(down.at_s, at_s)
    return replace(down, at_s=begins_s, for_s=down.at_s + down.for_s - begins_s)


def _state(segment: Segment) -> State:
    try:
        return msgspec.json.decode(segment.state, type=State)
    except msgspec.DecodeError as error:
        raise ObservedError(
            f"the state in a segment header does not fit this software: {error}; read it with {segment.software}"
        ) from None


def _served(ended: Ended) -> bool:
    """Whether that was an answer: of a request that is at fault itself, an endpoint is well all the same."""
    return ended.ending is Ending.OK and ended.cause != CLIENT_ERROR


def _says_length(request: Request, ended: Ended) -> bool:
    """Whether all of an answer's length is known; an embedding has none."""
    return ended.output_tokens is not None or Capability.EMBEDDING in request.needs


def _named(known: _Open) -> str | None:
    """What came of it; None where nobody knows, because the journal or a process ended before it did."""
    ended, decision = known.ended, known.decision
    if known.refused:
        return "refused"
    if ended is not None and _served(ended):
        return "ok"
    if not known.stands_still:
        # Whatever failed before, something goes on for it.
        return None
    if known.released_s is not None:
        # Let go while it waited, whatever was tried before: where nothing of ours is the cause, its client is gone.
        if not known.released_for:
            return LEFT
        if known.released_for == CLIENT_ERROR:
            return CLIENT_ERROR
        if known.released_for == Why.OVER_BUDGET:
            return "refused"
    elif known.lost is not None:
        # Who gave up the wait for a cache is the client, or the gateway, which says why.
        if known.lost.given_up and not known.lost.cause:
            return LEFT
    elif ended is None:
        # Where it was to wait, its process has ended; else every step was passed over: for a budget, or because no
        # dialect says it.
        return None if decision is None or not decision.plan or known.waits or known.attempts else "failed"
    elif known.at_fault:
        return CLIENT_ERROR
    elif is_left(ended):
        return LEFT
    return "failed" if ended is None or known.first_s is None else "failed_mid_stream"
