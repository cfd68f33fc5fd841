"""What one request came to: told as its attempts start and end, and written down when it is over."""

from tidegate.core.flight import Flight
from tidegate.core.model import Decision, Ended, Ending, FirstToken, Held, Likeness, Released, Request, Started
from tidegate.gateway.attempt import Attempt
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.reply import Headers, own_lines
from tidegate.http.client import Cause
from tidegate.telemetry.event import WideEvent
from tidegate.wire.openai import Call

_IDENTICAL = Likeness.IDENTICAL
# Causes for which nobody sends a bill: it was not accepted, or never arrived.
_UNBILLED = frozenset({"client_error", Cause.CONNECT_TIMEOUT.value})


class Account:
    """Keeps the books of one request."""

    __slots__ = (
        "_call",
        "_dispatch",
        "_first_s",
        "_hedged",
        "_held_s",
        "_overhead_s",
        "_predicted_ttft_s",
        "_received_s",
        "_request",
        "_request_id",
        "cause",
        "spent_usd",
    )

    def __init__(self, dispatch: Dispatch, call: Call, request: Request, request_id: str, received_s: float) -> None:
        """`request_id` is the client's own, or ours where it gave none."""
        self._dispatch = dispatch
        self._call = call
        self._request = request
        self._request_id = request_id
        self._received_s = received_s
        self._first_s: float | None = None
        self._held_s = 0.0
        self._hedged = False
        self._overhead_s: float | None = None
        self._predicted_ttft_s: float | None = None
        self.cause: str | None = None
        self.spent_usd = 0.0

    def held(self, now_s: float) -> None:
        """It waits for a slot."""
        self._dispatch.tell(Held(request=self._request), now_s)

    def unheld(self, now_s: float, *, released: bool) -> None:
        """It waits no more. `released`: and will not be sent."""
        self._held_s = now_s - self._request.arrived_s
        self._dispatch.metrics.held_for(self._held_s)
        if released:
            self._dispatch.tell(Released(request_id=self._request.id), now_s)

    def started(self, endpoint: str, now_s: float, *, hedge: bool) -> None:
        """An attempt begins: from here on the endpoint's capacity is reserved."""
        request = self._request
        fact = Started(
            request_id=request.id,
            endpoint=endpoint,
            klass=request.klass,
            prompt_tokens=request.prompt_tokens,
            prompt_bytes=request.prompt_bytes,
            output_tokens_max=request.output_tokens_max,
            completions=request.completions,
            hedge=hedge,
        )
        self._dispatch.tell(fact, now_s)
        self._hedged = self._hedged or hedge
        if self._overhead_s is None:
            # Our own share: until the first attempt is sent, without the time held.
            self._overhead_s = now_s - self._received_s - self._held_s
            reserved = self._dispatch.router.endpoint(endpoint).state.reservations[request.id]
            self._predicted_ttft_s = now_s - request.arrived_s + reserved.ttft_s

    def first(self, attempt: Attempt, now_s: float) -> None:
        """First content of an attempt."""
        ttft_s = now_s - attempt.sent_s
        self._dispatch.tell(FirstToken(request_id=self._request.id, endpoint=attempt.endpoint, ttft_s=ttft_s), now_s)
        if self._first_s is None:
            self._first_s = now_s

    def ended(
        self, attempt: Attempt, ending: Ending, now_s: float, cause: str = "", retry_after_s: float | None = None
    ) -> None:
        """Tell what an attempt came to, and count what it cost."""
        usage = attempt.reader.usage
        # An answer given whole is one chunk, which says nothing of its tokens.
        chunks = attempt.reader.output_chunks or None if attempt.streamed else None
        fact = Ended(
            request_id=self._request.id,
            endpoint=attempt.endpoint,
            ending=ending,
            e2e_s=now_s - attempt.sent_s,
            ttft_s=None if attempt.first_s is None else attempt.first_s - attempt.sent_s,
            prompt_tokens=usage.prompt_tokens if usage else None,
            cached_tokens=usage.cached_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else chunks,
            retry_after_s=retry_after_s,
            cause=cause,
        )
        usd = self._cost_usd(attempt, fact)
        self.spent_usd += usd
        reserved = self._dispatch.router.endpoint(attempt.endpoint).state.reservations.get(self._request.id)
        predicted_s = reserved.ttft_s if reserved is not None else None
        self._dispatch.tell(fact, now_s)
        self._dispatch.metrics.attempt_ended(fact, usd, predicted_s, hedge=attempt.hedge)

    def _cost_usd(self, attempt: Attempt, fact: Ended) -> float:
        """What the attempt is billed: its usage, or what is known of it where it was cut short.

        A provider bills the prompt once it has begun to work, whoever leaves; a request that it refused, or that
        never reached it, is free.
        """
        price = self._dispatch.upstreams[attempt.endpoint].endpoint.price
        if fact.prompt_tokens is None and (
            fact.ending is Ending.REFUSED or (attempt.status != 200 and fact.ending is Ending.FAILED)
        ):
            return 0.0
        if fact.cause in _UNBILLED:
            return 0.0
        prompt_tokens = fact.prompt_tokens if fact.prompt_tokens is not None else self._request.prompt_tokens
        return price.usd(prompt_tokens, fact.output_tokens or 0, fact.cached_tokens or 0)

    def headers(self, decision: Decision, attempts: int, endpoint: str = "") -> tuple[Headers, bytes]:
        """What the answer says of how it came about: what many say alike, and the lines that are its own.

        `endpoint` is who gave it, if anybody did.
        """
        overhead_s = self._overhead_s
        if overhead_s is None:
            overhead_s = self._dispatch.clock.now_s() - self._received_s - self._held_s
        alike: Headers = ((b"x-tidegate-why", decision.why.encode()), (b"x-tidegate-attempts", b"%d" % attempts))
        if endpoint:
            upstream = self._dispatch.upstreams[endpoint]
            likeness = upstream.endpoint.likeness.get(self._request.model, _IDENTICAL)
            alike += (
                (b"x-tidegate-endpoint", endpoint.encode()),
                (b"x-tidegate-model", (upstream.model or self._request.model).encode()),
                (b"x-tidegate-likeness", likeness.encode()),
            )
        return alike, own_lines(self._request_id, self._request.id, overhead_s)

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
        request = self._request
        ttft_s = None if self._first_s is None else self._first_s - request.arrived_s
        usage = attempt.reader.usage if attempt is not None else None
        self._dispatch.metrics.request_ended(request.klass, outcome, ttft_s, now_s - request.arrived_s)
        self._dispatch.log.request(
            WideEvent(
                at_s=now_s,
                request_id=self._request_id,
                decision_id=request.id,
                klass=request.klass,
                model=request.model,
                endpoint=flight.winner or None,
                why=decision.why,
                attempts=attempts,
                hedged=self._hedged,
                stream=self._call.stream,
                status=status,
                outcome=outcome,
                code=code,
                cause=self.cause,
                prompt_tokens=usage.prompt_tokens if usage else request.prompt_tokens,
                output_tokens=usage.output_tokens if usage else None,
                ttft_s=ttft_s,
                predicted_ttft_s=self._predicted_ttft_s,
                e2e_s=now_s - request.arrived_s,
                held_s=self._held_s,
                cost_usd=self.spent_usd,
            )
        )
