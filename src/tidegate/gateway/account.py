"""What one request came to: told as its attempts start and end, and written down when it is over."""

from math import inf
from typing import Final

from msgspec import Raw, structs

from tidegate.core.flight import Flight
from tidegate.core.health import UNBILLED
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    FirstToken,
    Held,
    Likeness,
    Released,
    Request,
    Shipped,
    Uploaded,
    replace,
)
from tidegate.core.promise import ending_of, is_left, judged, was_kept
from tidegate.core.reserve import Reservation
from tidegate.core.rules import cost_usd_bound, may_go_to
from tidegate.core.sending import prefill_of, started
from tidegate.engines.base import Failure
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.auth import Grant
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.failures import OVER_MAX_COST
from tidegate.gateway.meter import Meter, meter_of
from tidegate.gateway.reply import lines_alike, own_lines
from tidegate.gateway.spending import upper_usd
from tidegate.gateway.upstream import Upstream
from tidegate.telemetry.event import WideEvent
from tidegate.telemetry.metrics import TIERS
from tidegate.telemetry.trace import Attempted, Trace, error_of
from tidegate.wire.chunks import Usage
from tidegate.wire.openai import EMBEDDING, Call

_IDENTICAL = Likeness.IDENTICAL
_ONE_TOKEN = {"max_tokens": Raw(b"1")}
# Of all that pay nothing: nothing is put into it.
_NOTHING: Final[dict[str, "HeldBack"]] = {}
# Windows are told late, or assumed: only what is beyond twice a window is surely beyond it.
_SURELY = 2


class HeldBack:
    """What is held back for an attempt that is paid for.

    most_usd   what it may cost at most, of a request that has a limit
    meter      how long its answer may become, where anything bounds it
    """

    __slots__ = ("lease_id", "meter", "most_usd")

    def __init__(self, lease_id: str, most_usd: float, meter: Meter | None) -> None:
        self.lease_id = lease_id
        self.most_usd = most_usd
        self.meter = meter


class Account:
    """Keeps the books of one request."""

    __slots__ = (
        "_answer_usd",
        "_asked",
        "_call",
        "_dispatch",
        "_first_s",
        "_grant",
        "_hedged",
        "_held_back",
        "_held_s",
        "_held_since_s",
        "_overhead_s",
        "_predicted_ttft_s",
        "_received_s",
        "_request",
        "_request_id",
        "_unconfirmed_usd",
        "_upstreams",
        "_used_tokens",
        "cause",
        "spent_usd",
        "trace",
    )

    def __init__(
        self, dispatch: Dispatch, call: Call, request: Request, request_id: str, received_s: float, grant: Grant
    ) -> None:
        """`request_id` is the client's own, or ours where it gave none."""
        self._dispatch = dispatch
        self._call = call
        # As it came, and as it is asked for now: of an answer that broke off, its rest.
        self._request = self._asked = request
        self._request_id = request_id
        self._received_s = received_s
        self._grant = grant
        self._first_s = inf  # until any content has come
        self._held_s = 0.0
        # Since when, as long as it is.
        self._held_since_s = request.arrived_s
        self._hedged = False
        # By the endpoint of an attempt; an endpoint may be tried again under another plan.
        self._held_back = _NOTHING
        # What those may have cost beyond what is known that are over.
        self._unconfirmed_usd = 0.0
        # As they were when something was sent there: a reload changes neither a price that was agreed to nor a name.
        self._upstreams: dict[str, Upstream] = {}
        # Until an attempt is sent.
        self._overhead_s = self._predicted_ttft_s = inf
        self.cause: str | None = None
        self.spent_usd = 0.0
        # Of this, on the attempt that gave the whole answer.
        self._answer_usd = 0.0
        self._used_tokens = 0
        self.trace: Trace | None = None

    def sets_out(self, request: Request) -> None:
        """It is decided for the first time, with what is known then, which is in the journal already."""
        self._request = self._asked = request

    def may_spend(self, upstream: Upstream, attempt: int, now_s: float, target: str = "") -> Failure | None:
        """Hold back what an attempt may cost; the reason if it may not be made. `attempt` counts the request's; for a
        `target` it computes the prompt alone."""
        if not upstream.asks_money:
            return None
        most_usd, limit_usd = 0.0, self._request.cost_usd_max
        if limit_usd is not None:
            asked = prefill_of(self._asked) if target else self._asked
            most_usd = cost_usd_bound(asked, self._dispatch.router.endpoint(upstream.endpoint.name))
            under_way_usd = sum([held.most_usd for held in self._held_back.values()])
            if self.spent_usd + self._unconfirmed_usd + under_way_usd + most_usd > limit_usd:
                return OVER_MAX_COST
        lease_id = f"{self._asked.id}/{attempt}"
        asked, spending = self._asked, self._dispatch.spending
        endpoint, call = upstream.endpoint, self._as_sent(upstream, target)
        window = self._dispatch.window(endpoint.name)
        meter = meter_of(endpoint, call, window, assumed=upstream.assumes_window)
        refused = spending.hold(lease_id, asked.key, endpoint, call, window, now_s)
        if refused is None:
            self._held_back = self._held_back | {endpoint.name: HeldBack(lease_id, most_usd, meter)}
        return refused

    def unsent_there(self, endpoint: str, now_s: float) -> None:
        """Nothing is sent there after all, by a fault of ours: what was held back for that is there again."""
        held_back = self._held_back.pop(endpoint, None)
        if held_back is not None:
            self._dispatch.spending.settle(held_back.lease_id, 0.0, now_s, endpoint)

    def most_usd(self, upstream: Upstream, target: str = "") -> float:
        """The most that an attempt there can cost: what has to be left of every budget. `target` as above."""
        endpoint, call = upstream.endpoint, self._as_sent(upstream, target)
        return upper_usd(endpoint, call, self._dispatch.window(endpoint.name))

    def _as_sent(self, upstream: Upstream, target: str) -> Call:
        """What it is sent: for one token where it computes the prompt for a `target`, and as it came only where it
        speaks the client's own dialect."""
        native = self._call.native
        if target:
            fields = self._call.fields | _ONE_TOKEN
            return structs.replace(self._call, fields=fields, output_tokens_max=1, native=None)
        if native is None or native.dialect == upstream.dialect.name:
            return self._call
        return structs.replace(self._call, native=None)

    def let_go(self, call: Call) -> None:
        """Nothing is sent any more: this is all that is kept of what was asked."""
        self._call = call

    def resumed(self, call: Call, request: Request, now_s: float) -> None:
        """Its answer broke off: from now on the rest is asked for."""
        self._call, self._asked = call, request
        self._dispatch.resumed(request, now_s)

    def asks(self, request: Request, now_s: float) -> None:
        """What is asked for from now on, of the same answer."""
        self._asked = request
        self._dispatch.resumed(request, now_s)

    @property
    def seen(self) -> bool:
        """Whether any content has come."""
        return self._first_s < inf

    def pays(self, endpoint: str) -> bool:
        """Whether something is held back for the attempt there."""
        return endpoint in self._held_back

    def overran(self, attempt: Attempt) -> bool:
        """Whether it is paid for, and has surely brought more than it was asked for at most."""
        meter = self._meter(attempt)
        return meter is not None and meter.overran(attempt.reader)

    def metered_s(self, attempt: Attempt, now_s: float) -> float:
        """When to ask that again; never where nothing is paid, or nothing bounds it."""
        meter = self._meter(attempt)
        if meter is None:
            return inf
        return now_s + meter.again_s(attempt.reader, now_s - attempt.first_s if attempt.begun else 0.0)

    def _meter(self, attempt: Attempt) -> Meter | None:
        held_back = self._held_back.get(attempt.endpoint)
        return None if held_back is None else held_back.meter

    def told(self, attempt: Attempt) -> Usage | None:
        """What its engine tells of its tokens, as far as that can be so; None where it tells nothing."""
        usage = attempt.reader.usage
        if usage is None or self._is_usual(attempt, usage):
            return usage
        most = self._countable(attempt)
        speaks = attempt.reader.content and self._call.kind is not EMBEDDING
        prompt = _count(usage.prompt_tokens, most, some=self._asked.prompt_tokens > 0)
        output = _count(usage.output_tokens, most, some=speaks)
        if prompt is not None and output is not None:
            return usage
        # A part of what is not known tells nothing.
        return Usage(
            prompt_tokens=prompt,
            output_tokens=output,
            cached_tokens=None if prompt is None else usage.cached_tokens,
            cache_write_tokens=None if prompt is None else usage.cache_write_tokens,
            reasoning_tokens=None if output is None else usage.reasoning_tokens,
        )

    def _is_usual(self, attempt: Attempt, usage: Usage) -> bool:
        """Whether it tells all, and no more than one window: that needs no closer look, and nearly all do."""
        prompt, output, window = usage.prompt_tokens, usage.output_tokens, attempt.upstream.endpoint.context_tokens
        return prompt is not None and output is not None and 0 < prompt <= window and 0 < output <= window

    def _tells_more(self, attempt: Attempt) -> bool:
        """Whether its engine tells of more than there can be."""
        usage = attempt.reader.usage
        if usage is None or self._is_usual(attempt, usage):
            return False
        most = self._countable(attempt)
        return (usage.prompt_tokens or 0) > most or (usage.output_tokens or 0) > most

    def _countable(self, attempt: Attempt) -> int:
        """The most tokens that its prompts or its answers can have: each of them has a window."""
        endpoint, call = self._upstreams[attempt.endpoint].endpoint, self._call
        window = max(self._dispatch.window(endpoint.name), endpoint.context_tokens)
        return _SURELY * window * max(call.prompts, call.completions, call.generated)

    def held(self, now_s: float) -> None:
        """It waits for a slot: since it arrived, unless it has waited before, or anything was sent."""
        before = self._held_s > 0.0 or self._overhead_s < inf
        self._held_since_s = now_s if before else self._request.arrived_s
        self._dispatch.tell(Held(request=self._asked), now_s)

    def unheld(self, now_s: float, *, released: bool, cause: str = "") -> None:
        """It waits no more. `released`: and will not be sent; the `cause` is why it came to nothing here, if it did."""
        held_s = now_s - self._held_since_s
        self._held_s += held_s
        self._dispatch.metrics.held_for(held_s)
        if released:
            self._dispatch.tell(Released(request_id=self._request.id, cause=cause), now_s)

    def unsent(self, cause: str, now_s: float) -> None:
        """Nobody is left to whom it could be sent, and no end of an attempt tells why."""
        self._dispatch.tell(Released(request_id=self._request.id, cause=cause), now_s)

    def started(
        self, upstream: Upstream, now_s: float, *, hedge: bool, target: str = "", streamed: bool = False
    ) -> None:
        """An attempt begins: from here on the endpoint's capacity is reserved. See `core.sending` for the others."""
        request, endpoint = self._asked, upstream.endpoint.name
        self._upstreams[endpoint] = upstream
        if not may_go_to(request, upstream.endpoint):
            # The rules have seen to it; this is who would notice.
            self._dispatch.metrics.breached()
        fact = started(request, endpoint, hedge=hedge, target=target, streamed=streamed)
        self._dispatch.tell(fact, now_s)
        self._hedged = self._hedged or hedge
        if self._predicted_ttft_s == inf:
            predicted_s = self._dispatch.router.predicted_ttft_s(endpoint, request.id)
            assert predicted_s is not None, "it was reserved just now"
            self._predicted_ttft_s = now_s - request.arrived_s + predicted_s

    def sent(self) -> None:
        """An attempt is on its way: until the first one is, time is ours, but for what it was held."""
        if self._overhead_s == inf:
            self._overhead_s = self._dispatch.now_s() - self._received_s - self._held_s

    def uploaded(self, attempt: Attempt, upload_bytes: int, seconds: float, *, at_most: bool) -> None:
        """So much of its request has got there."""
        fact = Uploaded(
            request_id=self._request.id,
            endpoint=attempt.endpoint,
            upload_bytes=upload_bytes,
            seconds=seconds,
            at_most=at_most,
        )
        self._dispatch.tell(fact, self._dispatch.now_s())

    def computed(self, attempt: Attempt, now_s: float) -> None:
        """First content of an attempt, of which its client need not know."""
        ttft_s = now_s - attempt.sent_s
        self._dispatch.tell(FirstToken(request_id=self._request.id, endpoint=attempt.endpoint, ttft_s=ttft_s), now_s)

    def shipped(self, fact: Shipped, seconds: float, now_s: float) -> None:
        """The KV cache of its prompt has come, or will not, so many seconds after it was computed.

        What of it had been sent is paid for in either case.
        """
        handover = self._upstreams[fact.endpoint].endpoint.handover_to(fact.target)
        if handover is not None:
            usd = fact.kv_bytes * handover.usd_per_byte
            self.spent_usd += usd
            self._dispatch.metrics.spent_besides(fact.endpoint, usd)
        self._dispatch.tell(fact, now_s)
        self._dispatch.metrics.shipped(fact, seconds)

    def first(self, attempt: Attempt, now_s: float) -> None:
        """First content of an attempt."""
        self.computed(attempt, now_s)
        if not self.seen:
            self._first_s = now_s

    def ended(
        self, attempt: Attempt, ending: Ending, now_s: float, cause: str = "", retry_after_s: float | None = None
    ) -> None:
        """Tell what an attempt came to, and count what it cost."""
        usage = self.told(attempt)
        sent = self._dispatch.router.reserved(attempt.endpoint, self._request.id)
        fact = Ended(
            request_id=self._request.id,
            endpoint=attempt.endpoint,
            ending=ending,
            e2e_s=now_s - attempt.sent_s,
            ttft_s=attempt.first_s - attempt.sent_s if attempt.begun else None,
            prompt_tokens=usage.prompt_tokens if usage else None,
            cached_tokens=usage.cached_tokens if usage else None,
            cache_write_tokens=usage.cache_write_tokens if usage else None,
            reasoning_tokens=usage.reasoning_tokens if usage else None,
            output_tokens=_output_tokens(attempt, usage),
            retry_after_s=retry_after_s,
            cause=cause,
            predicted_ttft_s=None if sent is None else sent.ttft_s,
            predicted_ttft_s_high=None if sent is None else sent.ttft_s_high,
        )
        begun = fact.ending in (Ending.OK, Ending.CANCELLED) and fact.cause not in UNBILLED
        if attempt.sent and (begun or fact.output_tokens):
            # The most of any attempt: what hedging repeats is our affair, not the client's.
            prompt_tokens = self._asked.prompt_tokens if fact.prompt_tokens is None else fact.prompt_tokens
            made_tokens = fact.output_tokens or 0
            if self._is_untold(attempt, fact):
                asked = prefill_of(self._asked) if attempt.target else self._asked
                made_tokens = (asked.output_tokens_max or 0) * asked.completions
            self._used_tokens = max(self._used_tokens, prompt_tokens + made_tokens)
        billed_usd = self._billed_usd(attempt, fact)
        held_back = self._held_back.pop(attempt.endpoint, None)
        if held_back is not None:
            # Embeddings have no output of which nobody could know.
            prompt_only = self._call.kind is EMBEDDING and billed_usd > 0.0
            # Where what was told is not believed, the bill may be anything up to what was held back.
            absurd = self._tells_more(attempt)
            whole = not absurd and (prompt_only or _is_whole_bill(attempt, fact))
            self._unconfirmed_usd += 0.0 if whole else max(0.0, held_back.most_usd - billed_usd)
            self._dispatch.spending.settle(
                held_back.lease_id, billed_usd, now_s, attempt.endpoint, whole=whole, absurd=absurd
            )
        usd, endpoint = billed_usd, self._upstreams[attempt.endpoint].endpoint
        if endpoint.usd_per_s:
            usd += endpoint.running_usd(fact.e2e_s)
        self.spent_usd += usd
        if ending is Ending.OK:
            self._answer_usd = usd
        elif not self._call.stream and attempt.first_s == self._first_s and not is_left(fact):
            # Of an answer in one piece nobody was shown anything: another one's content is the first.
            self._first_s = inf
        self._dispatch.tell(fact, now_s)
        self._dispatch.metrics.attempt_ended(fact, usd, sent, hedge=attempt.hedge)
        if self.trace is not None and self.trace.sampled:
            self._traced(self.trace, attempt, fact, usd, sent)

    def decided(self, decision: Decision, now_s: float) -> None:
        """What was decided about it is told with its trace, if that is told."""
        if self.trace is not None and self.trace.sampled:
            router, endpoint = self._dispatch.router, decision.plan[0].endpoint if decision.plan else ""
            candidates = len(router.serving(self._request.model))
            self.trace.decided(decision, candidates, router.foreseen(self._request.id, endpoint), now_s)

    def _traced(self, trace: Trace, attempt: Attempt, fact: Ended, usd: float, sent: Reservation | None) -> None:
        span_id = trace.span_of(attempt.endpoint)
        if span_id is None:
            return
        upstream = self._upstreams[attempt.endpoint]
        origin, endpoint = upstream.pool.origin, upstream.endpoint
        trace.attempts.append(
            Attempted(
                span_id=span_id,
                started_s=attempt.sent_s,
                ended_s=attempt.sent_s + fact.e2e_s,
                endpoint=attempt.endpoint,
                tier=TIERS[endpoint.local],
                site=endpoint.site,
                engine=upstream.dialect.name,
                host=origin.host,
                port=origin.port,
                model=upstream.called(self._request.model),
                operation=trace.came.operation,
                stream=attempt.streamed,
                output_tokens_max=trace.came.output_tokens_max,
                status=attempt.status or None,
                ending=fact.ending,
                error=error_of(fact),
                hedge=attempt.hedge or None,
                target=attempt.target or None,
                prompt_tokens=fact.prompt_tokens,
                cached_tokens=fact.cached_tokens,
                cache_write_tokens=fact.cache_write_tokens,
                output_tokens=fact.output_tokens,
                reasoning_tokens=fact.reasoning_tokens,
                ttft_s=fact.ttft_s,
                predicted_ttft_s=None if sent is None else sent.ttft_s,
                predicted_ttft_s_high=None if sent is None else sent.ttft_s_high,
                cost_usd=usd,
            )
        )

    def _billed_usd(self, attempt: Attempt, fact: Ended) -> float:
        """What the attempt is billed at least: its usage, or what is known of it where it was cut short.

        A provider bills the prompt once it has begun to work, whoever leaves; a request that it refused, or that
        never reached it, is free.
        """
        upstream = self._upstreams[attempt.endpoint]
        if not (attempt.sent and upstream.asks_money):
            return 0.0
        if fact.prompt_tokens is None and _is_unbegun(attempt, fact.ending):
            return 0.0
        if fact.cause in UNBILLED:
            return 0.0
        if self._is_untold(attempt, fact):
            # Unknown is never nothing: it is the most it can be.
            return self.most_usd(upstream, attempt.target)
        prompt_tokens = fact.prompt_tokens if fact.prompt_tokens is not None else self._asked.prompt_tokens
        return upstream.endpoint.price.usd(
            prompt_tokens,
            fact.output_tokens or 0,
            fact.cached_tokens or 0,
            fact.cache_write_tokens or 0,
            fact.reasoning_tokens or 0,
        )

    def _is_untold(self, attempt: Attempt, fact: Ended) -> bool:
        """Whether it is an answer in one piece that does not say what it took."""
        unknown = fact.output_tokens is None and not attempt.streamed
        return unknown and fact.ending is Ending.OK and not fact.cause and self._call.kind is not EMBEDDING

    def lines(self, decision: Decision, attempts: int, endpoint: str = "") -> bytes:
        """The header lines by which the answer says how it came about: what many say alike, then what is its own.

        `endpoint` is who gave it, if anybody did.
        """
        overhead_s = self._overhead_s
        if overhead_s == inf:
            overhead_s = self._dispatch.now_s() - self._received_s - self._held_s
        if endpoint:
            upstream = self._upstreams[endpoint]
            # As alike as it is known to be now, which may be less than is configured.
            likeness = self._dispatch.router.likeness(endpoint, self._request.model)
            if likeness is None:
                likeness = upstream.endpoint.likeness.get(self._request.model, _IDENTICAL)
            model = upstream.called(self._request.model)
            alike = lines_alike(decision.why, attempts, endpoint, model, likeness)
        else:
            alike = lines_alike(decision.why, attempts)
        lines = alike + own_lines(self._request_id, self._request.id, overhead_s)
        if self._grant.limited:
            lines += self._grant.lines(self._dispatch.now_s())
        return lines

    def over(
        self,
        now_s: float,
        flight: Flight,
        decision: Decision,
        *,
        attempts: int,
        status: int,
        outcome: str,
        attempt: Attempt | None = None,
        code: str | None = None,
    ) -> None:
        """The request has ended: count it, and write its one line."""
        request, said_tokens = self._request, self._asked.said_tokens
        # First what others wait for, whatever fails below.
        self._grant.end(request, self._used_tokens, now_s)
        if self._held_back:
            self._let_go_of_money(now_s)
        first_s = self._first_s if self.seen or attempt is None else attempt.first_s
        ttft_s = first_s - request.arrived_s if first_s < inf else None
        usage = self.told(attempt) if attempt is not None else None
        output_tokens = None if attempt is None else _output_tokens(attempt, usage)
        if usage is not None and said_tokens:
            usage = _of_whole(usage, said_tokens)
        prompt_tokens, made_tokens = (None, None) if usage is None else (usage.prompt_tokens, usage.output_tokens)
        ending, e2e_s = ending_of(outcome), now_s - request.arrived_s
        if output_tokens is not None:
            output_tokens += said_tokens
        kept = was_kept(request, decision, ending, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens)
        told = judged(request, ending, kept)
        if told is not None:
            self._dispatch.tell(told, now_s)
        if self._dispatch.switchback is not None:
            self._dispatch.switchback.over(
                request, ending, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens, usd=self.spent_usd
            )
        served = self._upstreams.get(flight.winner)
        local = None if served is None else served.endpoint.local
        metrics = self._dispatch.metrics
        metrics.request_ended(request, outcome, flight.winner, local, kept, ttft_s, e2e_s, output_tokens)
        alone = served is not None and not said_tokens and not self._asked.shipped
        if alone and prompt_tokens is not None and made_tokens is not None:
            self._compare(prompt_tokens, made_tokens, flight.winner, now_s)
        if request.key:
            metrics.key_ended(request.key, outcome, self._used_tokens, self.spent_usd)
        # By their places, as a `WideEvent` has its fields: of so many keywords, each is searched for among all of them.
        event = WideEvent(
            now_s,
            self._request_id,
            request.id,
            request.key or None,
            request.klass,
            request.model,
            flight.winner or None,
            decision.why,
            attempts,
            self._hedged,
            said_tokens > 0,  # resumed
            self._call.stream,
            status,
            outcome,
            code,
            self.cause,
            request.prompt_tokens if prompt_tokens is None else prompt_tokens,
            made_tokens,
            ttft_s,
            self._predicted_ttft_s if self._predicted_ttft_s < inf else None,
            e2e_s,
            self._held_s,
            self.spent_usd,
        )
        self._dispatch.log.request(event)
        if self.trace is not None and self._dispatch.tracer is not None:
            self._dispatch.tracer.over(self.trace, event)

    def _let_go_of_money(self, now_s: float) -> None:
        """Of what has no end, by a fault of ours, nobody knows whether it was sent: all that is held back for it may
        have been spent."""
        for endpoint, held_back in self._held_back.items():
            self._dispatch.spending.settle(held_back.lease_id, 0.0, now_s, endpoint, whole=False)
        self._held_back = _NOTHING

    def _compare(self, prompt_tokens: int, output_tokens: int, served: str, now_s: float) -> None:
        """What an answer that one endpoint gave whole would have cost in one tier alone, beside what it did cost."""
        local_usd = self._alone_usd(prompt_tokens, output_tokens, served, now_s, local=True)
        remote_usd = self._alone_usd(prompt_tokens, output_tokens, served, now_s, local=False)
        self._dispatch.metrics.compared(self.spent_usd, local_usd, remote_usd)

    def _alone_usd(self, prompt_tokens: int, output_tokens: int, served: str, now_s: float, *, local: bool) -> float:
        """What it did cost where nobody of that tier may ever serve it, and no more than its last attempt did where it
        went there."""
        found = self._dispatch.alone_usd(self._request, prompt_tokens, output_tokens, local=local, now_s=now_s)
        if found is None:
            return self.spent_usd
        if self._upstreams[served].endpoint.local is not local:
            return found[1]
        return self._answer_usd if found[0] == served else min(found[1], self._answer_usd)


def _count(told: int | None, most: int, *, some: bool) -> int | None:
    """A count that can be so: not above the `most`, nor zero where there are `some`."""
    return None if told is None or told > most or (some and not told) else told


def _of_whole(usage: Usage, said_tokens: int) -> Usage:
    """The usage of an answer whose last part was told: to who gave that, the others were a part of the prompt."""
    prompt, output = usage.prompt_tokens, usage.output_tokens
    return replace(
        usage,
        prompt_tokens=None if prompt is None else max(prompt - said_tokens, 0),
        output_tokens=None if output is None else output + said_tokens,
    )


def _is_unbegun(attempt: Attempt, ending: Ending) -> bool:
    """Whether nobody is known to have begun to work on it: it was refused before anything came, its head was no
    answer's, whatever became of the body, or its connection was lost before there was a head."""
    if ending is Ending.REFUSED:
        return not attempt.reader.tokens_seen
    return attempt.status != 200 and (attempt.status > 0 or ending is Ending.FAILED)


def _is_whole_bill(attempt: Attempt, fact: Ended) -> bool:
    """Whether more than what is known of it cannot have been billed. What was sent over a connection that was lost
    before there was a head may have been answered, and how much was made of an answer in one piece that never came,
    nobody tells; a stream has come as far as it was made (but for reasoning that a vendor keeps to itself), a prompt
    that is computed for another is all there is, and a head that is no answer's costs nothing."""
    if not attempt.sent or fact.output_tokens is not None:
        return True
    if fact.ending in (Ending.OK, Ending.REFUSED) or fact.cause in UNBILLED:
        return True
    if attempt.streamed or attempt.target:
        return attempt.status > 0 or fact.ending is not Ending.FAILED
    return attempt.status not in (0, 200)


def _output_tokens(attempt: Attempt, usage: Usage | None) -> int | None:
    """What was told of its output, else about how many tokens have come, of which some vendors put many into one chunk;
    None where neither is known."""
    if usage is not None and (usage.output_tokens is not None or not attempt.streamed):
        return usage.output_tokens
    # An answer given whole is one chunk, which says nothing of its tokens.
    return attempt.reader.tokens_seen or None if attempt.streamed else None
