"""Facts folded into one row a request: what it came to, for tables and indexes; line by line, in bounded memory."""

from enum import StrEnum
from math import ceil

import msgspec

from tidegate.core.base import TO
from tidegate.core.begun import begun
from tidegate.core.endpoint import EndpointModel
from tidegate.core.health import CLIENT_ERROR, OF_THE_REQUEST, UNBILLED
from tidegate.core.model import (
    Capability,
    Checked,
    Decision,
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Judged,
    Line,
    Probed,
    Record,
    Released,
    Request,
    Segment,
    Shipped,
    Slo,
    Started,
    Wait,
    replace,
)
from tidegate.core.promise import ending_of, is_left, per_token_s, was_kept
from tidegate.core.rules import excluded_ever, longest_tokens
from tidegate.core.why import Why

# Requests that are not over: each has a connection to the gateway, and no process has so many. The oldest is let go.
OPEN_MAX = 65_536
# Whoever goes on with a request does so in the moment in which an attempt ends: so long after that, nobody does.
SETTLED_S = 1.0
# Causes that are found in an answer alone: who has begun one has begun to work, whether content came or not.
ANSWERED = frozenset(
    {"unexpected_content", "malformed_chunk", "truncated_stream", "oversized_answer", "error_event", "no_form"}
)

_NO_PROMISE = Slo()


class Came(StrEnum):
    """What came of a request, in the words of the gateway's log.

    `unknown`: the journal, or its process, ended before it did.
    """

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    FAILED_MID_STREAM = "failed_mid_stream"
    CLIENT_LEFT = "client_left"
    CLIENT_ERROR = "client_error"
    UNKNOWN = "unknown"


# What came of a request that could not be sent, by the cause that is told.
_UNSENT = {CLIENT_ERROR: Came.CLIENT_ERROR, Why.OVER_BUDGET.value: Came.REFUSED}


class Row(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One request that is over. Times count from its arrival; None is not known, or there was none.

    `endpoint` is who answered, or began to; where nobody did, who was asked last; empty where nobody was. `local` is
    whether who answered is, None where nobody did. `why` is the reason of the last decision. Tokens are those that the
    engine told, else what was estimated of the prompt, and with the output what had come of it before it broke off. Of
    the promise (`slo_...`) was `kept` every axis, None where there was none, or nobody can say. It cost `usd`, of which
    `paid_usd` are paid to others and the rest is running our own; it would have cost `remote_usd` at the cheapest
    remote endpoint that may ever serve it: the same tokens by its list, and at who gave the answer, what that did
    cost. None where none may, or no whole answer came. It was held here for `held_s`. When the attempt there
    was sent, `sent_s` after the arrival, first content was predicted `predicted_ttft_s` after the arrival, and
    `predicted_ttft_s_high` as the quantile that the policy names; None where that was not told, or content had come
    before. Its prompt's KV cache came, or was to come, by `handover` (`source>target`), which took `handover_s` from
    the moment at which it was computed, None where it did not come.
    """

    id: str
    arrived_s: float
    klass: str
    model: str
    key: str
    prompt_tokens: int
    cached_tokens: int | None
    output_tokens: int | None
    endpoint: str
    site: str
    local: bool | None
    why: Why | None
    outcome: Came
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float
    sent_s: float | None
    predicted_ttft_s: float | None
    predicted_ttft_s_high: float | None
    slo_ttft_s: float | None
    slo_tpot_s: float | None
    slo_e2e_s: float | None
    kept: bool | None
    usd: float
    paid_usd: float
    remote_usd: float | None
    attempts: int
    hedged: bool
    held_s: float
    handover: str
    handover_s: float | None


class _Sent(msgspec.Struct):
    """An attempt. `endpoint` is None where the segment knows no such one."""

    started: Started
    endpoint: Endpoint | None
    sent_s: float
    predicted_ttft_s: float | None = None
    predicted_ttft_s_high: float | None = None


class _Open(msgspec.Struct):
    """A request that is not over: what is known of it so far."""

    request: Request
    # When something was told of it last.
    at_s: float
    decision: Decision | None = None
    attempts: int = 0
    hedged: bool = False
    held_since_s: float | None = None
    held_s: float = 0.0
    # When it was decided last, whether it waits by that, and how it was let go while it did.
    decided_s: float = 0.0
    waits: bool = False
    released: Released | None = None
    # By endpoint: attempts, and since when a KV cache is on its way from there.
    under_way: dict[str, _Sent] = {}
    shipping: dict[str, float] = {}
    handover: str = ""
    handover_s: float | None = None
    first_s: float | None = None
    # Who answers or did, and who was asked last.
    winner: _Sent | None = None
    last: _Sent | None = None
    # What was told with the output that is counted, besides `said_tokens` of answers that broke off before.
    told: Ended | None = None
    said_tokens: int = 0
    # How the last attempt ended, if one did, and whether the request itself was at fault in all that failed, or in the
    # end.
    ending: Ending | None = None
    at_fault: bool = True
    # Whether anybody has said that it is wrong: who is cancelled after that was given up, and no client left.
    wrong: bool = False
    answered: bool = False
    refused: bool = False
    kept: bool | None = None
    judged: bool = False
    usd: float = 0.0
    paid_usd: float = 0.0
    # Of this, on the attempt that gave the answer.
    answer_usd: float = 0.0

    @property
    def stands_still(self) -> bool:
        """Whether nothing is under way for it."""
        return not self.under_way and not self.shipping and self.held_since_s is None


class Rows:
    """Feed it the journal of one run, line by line: out come the rows of requests that are over, as they end.

    Runs that overlap are told apart by their files, and each needs a fold of its own. A request that was asked before
    the journal begins has no row.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._open: dict[str, _Open] = {}
        # Those for which nothing is under way, by when that was told, the longest ago first.
        self._still: dict[str, float] = {}
        # The remote endpoints as they are known to be, by name, and those that serve a model.
        self._remote: dict[str, EndpointModel] = {}
        self._serving: dict[str, list[EndpointModel]] = {}

    @property
    def open(self) -> int:
        """How many requests are not over."""
        return len(self._open)

    def feed(self, line: Line) -> list[Row]:
        """Take in one line; the requests that are known to be over with it."""
        fact, now_s = line.fact, line.at_s
        rows: list[Row] = []
        match fact:
            case Started() | Ended() | Decision() | FirstToken() | Shipped() | Released() | Judged():
                if self._told(fact.request_id, fact, now_s):
                    rows.append(self._over(fact.request_id))
            case Request():
                rows += self._asked(fact, now_s)
            case Held():
                self._told(fact.request.id, fact, now_s)
            case Probed() if fact.endpoint in self._remote:
                self._remote[fact.endpoint].probed(fact, now_s)
            case Checked() if fact.endpoint in self._remote:
                self._remote[fact.endpoint].identity.checked(drifted=fact.drifted)
            case Segment():
                rows += self._segment(fact)
        while self._still:
            request_id = next(iter(self._still))
            if self._still[request_id] + SETTLED_S >= now_s:
                break
            rows.append(self._over(request_id))
        return rows

    def rest(self) -> list[Row]:
        """The journal has ended: what is not over is unknown."""
        return [self._over(request_id) for request_id in list(self._open)]

    def _segment(self, segment: Segment) -> list[Row]:
        self._endpoints = {endpoint.name: endpoint for endpoint in segment.endpoints}
        begins = begun(segment)
        self._remote = {
            endpoint.name: EndpointModel(endpoint, segment.policy.quantile, begins.state_of(endpoint.name))
            for endpoint in segment.endpoints
            if not endpoint.local
        }
        self._serving = {}
        for model in self._remote.values():
            for name in dict.fromkeys(model.endpoint.models):
                self._serving.setdefault(name, []).append(model)
        if segment.follows or not self._open:
            return []
        # Whatever is not under way there has ended with its process.
        going_on = begins.under_way
        return [self._over(request_id) for request_id in list(self._open) if request_id not in going_on]

    def _asked(self, request: Request, now_s: float) -> list[Row]:
        known = self._open.get(request.id)
        if known is not None:
            if request.said_tokens > known.said_tokens:
                known.said_tokens, known.told, known.answered = request.said_tokens, None, False
            self._at(known, now_s)
            return []
        rows = [self._over(next(iter(self._open)))] if len(self._open) >= OPEN_MAX else []
        # Digests of its prompt would be most of the memory.
        known = self._open[request.id] = _Open(replace(request, prefix=()) if request.prefix else request, now_s)
        self._at(known, now_s)
        return rows

    def _told(self, request_id: str, fact: object, now_s: float) -> bool:
        """One more fact about a request; whether it is over with that."""
        known = self._open.get(request_id)
        if known is None:
            return False
        over = False
        match fact:
            case Started():
                self._started(known, fact, now_s)
            case Ended():
                over = self._ended(known, fact, now_s)
            case Decision():
                known.decision, known.decided_s, known.released = fact, now_s, None
                known.waits = bool(fact.plan) and isinstance(fact.plan[0], Wait)
                over = known.refused = not fact.plan and not known.under_way
                if over:
                    _unhold(known, now_s)
            case FirstToken():
                sent = known.under_way.get(fact.endpoint)
                if sent is not None and not sent.started.target:
                    known.winner = sent
                    known.first_s = now_s if known.first_s is None else known.first_s
            case Held():
                known.held_since_s, known.waits, known.released = now_s, True, None
            case Released():
                _unhold(known, now_s)
                # Where a step is passed over, that is in the moment of its decision. Behind it, it may wait on, unless
                # that is told to be why it came to nothing.
                known.released = fact if fact.cause or known.waits or known.decided_s < now_s else None
            case Shipped():
                self._shipped(known, fact, now_s)
            case Judged():
                # What counts as kept for the worth of a class may be what nobody can say.
                known.kept, known.judged = fact.kept, fact.kept is not True
                over = known.stands_still
        self._at(known, now_s)
        return over

    def _at(self, known: _Open, now_s: float) -> None:
        """Something was told of it: nothing is under way for it since now, or something is."""
        known.at_s = now_s
        self._still.pop(known.request.id, None)
        if known.stands_still:
            self._still[known.request.id] = now_s

    def _started(self, known: _Open, fact: Started, now_s: float) -> None:
        _unhold(known, now_s)
        sent = _Sent(fact, self._endpoints.get(fact.endpoint), now_s)
        known.under_way[fact.endpoint] = sent
        known.attempts += 1
        known.hedged = known.hedged or fact.hedge
        if not fact.target or known.last is None:
            known.last = sent

    def _ended(self, known: _Open, fact: Ended, now_s: float) -> bool:
        sent = known.under_way.pop(fact.endpoint, None)
        if sent is None:
            return False
        sent.predicted_ttft_s, sent.predicted_ttft_s_high = fact.predicted_ttft_s, fact.predicted_ttft_s_high
        usd = 0.0
        if sent.endpoint is not None:
            paid_usd = attempt_usd(sent.endpoint, known.request, sent.started, fact)
            usd = paid_usd + sent.endpoint.running_usd(fact.e2e_s)
            known.paid_usd += paid_usd
            known.usd += usd
        served = fact.ending is Ending.OK and fact.cause != CLIENT_ERROR
        if served and sent.started.target:
            known.shipping[fact.endpoint] = now_s
            known.handover, known.handover_s = fact.endpoint + TO + sent.started.target, None
            return False
        if served:
            known.answered, known.winner, known.told, known.answer_usd = True, sent, fact, usd
            if known.first_s is None and fact.ttft_s is not None:
                # An embedding: all there is, is its first content.
                known.first_s = sent.sent_s + fact.ttft_s
        elif fact.ending is not Ending.CANCELLED or not known.wrong:
            known.wrong = known.wrong or fact.cause == CLIENT_ERROR
            known.ending = Ending.CANCELLED if is_left(fact) else Ending.FAILED
            # Whoever says that it is wrong has the last word, whatever failed before.
            at_fault = known.at_fault and fact.cause in (CLIENT_ERROR, *OF_THE_REQUEST)
            known.at_fault = at_fault or fact.ending is Ending.OK
            if fact.ttft_s is not None and not sent.started.target and not known.answered:
                known.told = fact
            if known.winner is sent and not known.request.stream and not is_left(fact):
                # Of an answer in one piece nobody was shown anything: another one's content is the first.
                known.winner = known.first_s = None
        return known.answered and known.stands_still

    def _shipped(self, known: _Open, fact: Shipped, now_s: float) -> None:
        computed_s = known.shipping.pop(fact.endpoint, None)
        if computed_s is None:
            return
        source = self._endpoints.get(fact.endpoint)
        handover = None if source is None else source.handover_to(fact.target)
        usd = 0.0 if handover is None else fact.kv_bytes * handover.usd_per_byte
        known.usd, known.paid_usd = known.usd + usd, known.paid_usd + usd
        if fact.ok:
            known.handover_s = now_s - computed_s
        else:
            known.ending = Ending.CANCELLED if fact.given_up and not fact.cause else Ending.FAILED
            known.at_fault = False

    def _over(self, request_id: str) -> Row:
        known = self._open.pop(request_id)
        self._still.pop(request_id, None)
        request, decision, told = known.request, known.decision, known.told
        came = _came(known)
        sent = known.winner or known.last
        endpoint = None if sent is None else sent.endpoint
        e2e_s = known.at_s - request.arrived_s
        ttft_s = None if known.first_s is None else known.first_s - request.arrived_s
        output_tokens = None if told is None else told.output_tokens
        if known.said_tokens:
            output_tokens = known.said_tokens + (output_tokens or 0)
        prompt_tokens = None if told is None or known.said_tokens else told.prompt_tokens
        prompt_tokens = request.prompt_tokens if prompt_tokens is None else prompt_tokens
        kept = known.kept
        if not known.judged and request.slo != _NO_PROMISE and decision is not None and came is not Came.UNKNOWN:
            ending = ending_of(came)
            kept = was_kept(request, decision, ending, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens)
        return Row(
            id=request.id,
            arrived_s=request.arrived_s,
            klass=request.klass,
            model=request.model,
            key=request.key,
            prompt_tokens=prompt_tokens,
            cached_tokens=None if told is None else told.cached_tokens,
            output_tokens=output_tokens,
            endpoint="" if sent is None else sent.started.endpoint,
            site="" if endpoint is None else endpoint.site,
            local=None if known.winner is None or endpoint is None else endpoint.local,
            why=None if decision is None else decision.why,
            outcome=came,
            ttft_s=ttft_s,
            tpot_s=_tpot_s(request, came, ttft_s, e2e_s, output_tokens),
            e2e_s=e2e_s,
            sent_s=None if sent is None else sent.sent_s - request.arrived_s,
            predicted_ttft_s=None if sent is None else _predicted(known, sent, sent.predicted_ttft_s),
            predicted_ttft_s_high=None if sent is None else _predicted(known, sent, sent.predicted_ttft_s_high),
            slo_ttft_s=request.slo.ttft_s,
            slo_tpot_s=request.slo.tpot_s,
            slo_e2e_s=request.slo.e2e_s,
            kept=kept,
            usd=known.usd,
            paid_usd=known.paid_usd,
            remote_usd=self._remote_usd(known, prompt_tokens, output_tokens or 0) if came is Came.OK else None,
            attempts=known.attempts,
            hedged=known.hedged,
            held_s=known.held_s,
            handover=known.handover,
            handover_s=known.handover_s,
        )

    def _remote_usd(self, known: _Open, prompt_tokens: int, output_tokens: int) -> float | None:
        """What the answer costs at the cheapest remote endpoint that may ever serve it."""
        request = known.request
        # Each of several prompts and completions stands in a window of its own.
        tokens = longest_tokens(request, prompt_tokens) + ceil(output_tokens / request.completions)
        winner, gave = known.winner, ""
        # Where a part of it was said before, or its prompt computed elsewhere, its dollars are not those of one answer.
        if winner is not None and not known.said_tokens and not winner.started.shipped:
            gave = winner.started.endpoint
        least_usd: float | None = None
        for model in self._serving.get(request.model, ()):
            # Where it went, it costs what it did cost there, whatever was cached.
            usd = known.answer_usd if model.name == gave else model.endpoint.price.usd(prompt_tokens, output_tokens)
            if (least_usd is None or usd < least_usd) and excluded_ever(request, model, tokens) is None:
                least_usd = usd
        return least_usd


def is_billed(ended: Ended) -> bool:
    """Whether anything is to be paid for an attempt.

    Whoever has begun to work bills the prompt, whoever leaves. What never arrived, or was refused or failed before
    anything came, is free; of a connection that was lost without content, nobody has told whether an answer had begun.
    """
    if ended.cause in UNBILLED:
        return False
    unbegun = ended.ending is Ending.REFUSED or (ended.ending is Ending.FAILED and ended.cause not in ANSWERED)
    return ended.prompt_tokens is not None or ended.ttft_s is not None or not unbegun


def attempt_usd(endpoint: Endpoint, request: Request, started: Started, ended: Ended) -> float:
    """What is paid to others for an attempt, by the usage that was told with its end.

    An answer in one piece, of which no first content is told, is booked as the most that it can be where it does not
    say what it took; a stream as what has come. An answer that finds fault with the request is free; where it stalled,
    or was left, before its end, nothing told here says that it did, and the prompt is booked, though not in the ledger.
    """
    if not is_billed(ended):
        return 0.0
    prompt_tokens = started.prompt_tokens if ended.prompt_tokens is None else ended.prompt_tokens
    unknown = ended.output_tokens is None and ended.ttft_s is None
    if unknown and ended.ending is Ending.OK and Capability.EMBEDDING not in request.needs:
        most = endpoint.context_tokens if endpoint.output_tokens_max is None else endpoint.output_tokens_max
        if started.output_tokens_max is not None:
            most = min(most, started.output_tokens_max)
        return endpoint.price.upper_usd(prompt_tokens, most * started.completions)
    return endpoint.price.usd(
        prompt_tokens,
        ended.output_tokens or 0,
        ended.cached_tokens or 0,
        ended.cache_write_tokens or 0,
        ended.reasoning_tokens or 0,
    )


def _unhold(known: _Open, now_s: float) -> None:
    if known.held_since_s is not None:
        known.held_s += now_s - known.held_since_s
        known.held_since_s = None


def _came(known: _Open) -> Came:
    if known.refused:
        # Nobody takes the rest of an answer that broke off.
        return Came.REFUSED if known.first_s is None else Came.FAILED_MID_STREAM
    if not known.stands_still:
        return Came.UNKNOWN
    if known.answered:
        return Came.OK
    if known.released is not None:
        # Let go while it waited, whatever was tried before: where nothing of ours is the cause, its client is gone.
        if not known.released.cause:
            return Came.CLIENT_LEFT
        if known.released.cause in _UNSENT:
            return _UNSENT[known.released.cause]
    elif known.ending is None:
        # Where it was to wait, its process has ended; else every step was passed over: for a budget, or because no
        # dialect says it.
        return Came.UNKNOWN if known.decision is None or known.waits else Came.FAILED
    elif known.at_fault:
        return Came.CLIENT_ERROR
    elif known.ending is Ending.CANCELLED:
        return Came.CLIENT_LEFT
    return Came.FAILED if known.first_s is None else Came.FAILED_MID_STREAM


def _predicted(known: _Open, sent: _Sent, seconds: float | None) -> float | None:
    """So long after an attempt was sent, from the request's arrival on; None where content had come before that."""
    if seconds is None or (known.first_s is not None and known.first_s < sent.sent_s):
        return None
    return sent.sent_s - known.request.arrived_s + seconds


def _tpot_s(
    request: Request, came: Came, ttft_s: float | None, e2e_s: float, output_tokens: int | None
) -> float | None:
    """Seconds per token after the first, of a whole answer with as many as it takes to tell."""
    if came is not Came.OK or ttft_s is None or output_tokens is None:
        return None
    return per_token_s(ttft_s, e2e_s, output_tokens / request.completions)
