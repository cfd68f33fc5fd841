"""TTFT, TPOT and cost of a request at one endpoint: predict, and learn from how attempts end."""

from bisect import bisect_left
from math import exp, log, sqrt

import msgspec

from tidegate.core.breaker import Breaker
from tidegate.core.calibration import Cell, Correction, UpperQuantile
from tidegate.core.length import Length
from tidegate.core.model import Ended, Ending, Endpoint, Request, Started
from tidegate.core.network import Network
from tidegate.core.reserve import Reservation, prefills_done_s

# Uncached prompt tokens: prefill per token differs by the length of the prompt (fixed cost, attention).
LENGTH_EDGES = (64, 256, 1024, 4096, 16384)
# Others in flight: none, one, two or three, more. What they do to each other is learned per bucket.
LOAD_EDGES = (0, 1, 3)
# The cause an engine's dialect gives where the prompt did not fit after all: no fault of the endpoint.
CONTEXT_EXCEEDED = "context_exceeded"
# Shorter outputs say little about the time per token.
TPOT_TOKENS_MIN = 4


class EndpointState(msgspec.Struct, kw_only=True):
    """All that is learned and tracked of one endpoint; a snapshot is this, encoded."""

    network: Network
    quantile: UpperQuantile
    ttft: list[Cell] | None = None
    tpot: list[Cell] | None = None
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    reservations: dict[str, Reservation] = {}
    up: bool = True
    context_tokens: int | None = None
    not_before_s: float = 0.0
    prefills_done_s: float = 0.0


class Base(msgspec.Struct):
    """What a request would take at an endpoint once it is sent; waiting for that is not in it."""

    network_s: float
    queue_s: float
    prefill_s: float
    raw_s: float
    first_s: float
    sigma: float
    deviations: float
    tpot_s: float
    tpot_raw_s: float
    tpot_sigma: float
    decode_s: float
    output_tokens: float
    cost_usd: float

    @property
    def first_s_high(self) -> float:
        """The calibrated upper quantile of the time to first content."""
        return self.first_s * exp(self.deviations * self.sigma)

    @property
    def occupies_s(self) -> float:
        """Expected time in a slot: the mean, not the median, since schedules add them up."""
        return self.first_s * exp(self.sigma * self.sigma / 2.0) + self.decode_s


class EndpointModel:
    """Predicts and learns for one endpoint. `base` reads; `started`, `first`, `ended` and `probed` write."""

    __slots__ = (
        "_batch_slowdown",
        "_overhead_s",
        "_per_token2_s",
        "_per_token_s",
        "_tpot_s",
        "capabilities",
        "endpoint",
        "name",
        "state",
        "tpot",
        "ttft",
    )

    def __init__(self, endpoint: Endpoint, quantile_deviations: float, state: EndpointState | None = None) -> None:
        prior = endpoint.prior
        if state is None:
            network = Network(rtt_s=prior.rtt_s, upload_bytes_per_s=prior.upload_bytes_per_s)
            state = EndpointState(network=network, quantile=UpperQuantile(quantile_deviations))
        self.endpoint = endpoint
        self.name = endpoint.name
        self.capabilities = frozenset(endpoint.capabilities)
        self.state = state
        self.ttft = Correction(len(LENGTH_EDGES) + 1, len(LOAD_EDGES) + 1, prior.sigma, state.ttft)
        self.tpot = Correction(1, len(LOAD_EDGES) + 1, prior.sigma, state.tpot)
        state.ttft, state.tpot = self.ttft.cells, self.tpot.cells
        self._overhead_s = prior.overhead_s
        self._per_token_s = prior.prefill_s_per_token
        self._per_token2_s = prior.prefill_s_per_token2 / 2.0
        self._tpot_s = prior.decode_s_per_token
        self._batch_slowdown = prior.batch_slowdown

    @property
    def context_tokens(self) -> int:
        """The window as probed, else as declared."""
        return self.state.context_tokens or self.endpoint.context_tokens

    def base(self, request: Request, length: Length, now_s: float) -> Base:
        """What this request would take here, with what is in flight now."""
        state = self.state
        load = len(state.reservations)
        column = 0 if load == 0 else bisect_left(LOAD_EDGES, load)
        prompt_tokens = request.prompt_tokens
        ttft = self.ttft.at(bisect_left(LENGTH_EDGES, prompt_tokens), column)
        tpot = self.tpot.at(0, column)
        raw_s = self._overhead_s + prompt_tokens * (self._per_token_s + prompt_tokens * self._per_token2_s)
        factor = exp(ttft.bias)
        prefill_s = factor * raw_s
        queue_s = 0.0
        if load and self.endpoint.shares_compute and state.prefills_done_s > now_s:
            queue_s = state.prefills_done_s - now_s
        network_s = state.network.rtt_s + request.prompt_bytes / state.network.upload_bytes_per_s
        tpot_raw_s = self._tpot_s * (1.0 + self._batch_slowdown * load)
        tpot_s = tpot_raw_s * exp(tpot.bias)
        expected = length.expected_tokens * request.completions
        price = self.endpoint.price
        return Base(
            network_s,
            queue_s,
            prefill_s,
            raw_s + queue_s / factor,
            network_s + queue_s + prefill_s,
            sqrt(self.ttft.variance_at(ttft, now_s)),
            state.quantile.deviations,
            tpot_s,
            tpot_raw_s,
            sqrt(self.tpot.variance_at(tpot, now_s)),
            length.expected_tokens * tpot_s,
            length.expected_tokens,
            prompt_tokens * price.usd_per_input_token + expected * price.usd_per_output_token,
        )

    def slots_free_s(self, now_s: float) -> list[float]:
        """When each of the `concurrency` slots is expected to be free, soonest first."""
        busy = sorted(r.ends_s(now_s) for r in self.state.reservations.values())
        free = [now_s] * max(0, self.endpoint.concurrency - len(busy))
        # Filled beyond its concurrency (fail-over does that): as many must end as there are too many.
        return free + busy[max(0, len(busy) - self.endpoint.concurrency) :]

    # --- learning -----------------------------------------------------------------------------------------------

    def started(self, fact: Started, length: Length, now_s: float) -> None:
        """Reserve."""
        request = Request(
            id=fact.request_id,
            arrived_s=now_s,
            model="",
            klass=fact.klass,
            prompt_tokens=fact.prompt_tokens,
            prompt_bytes=fact.prompt_bytes,
            output_tokens_max=fact.output_tokens_max,
        )
        base = self.base(request, length, now_s)
        state = self.state
        state.reservations[fact.request_id] = Reservation(
            started_s=now_s,
            klass=fact.klass,
            prompt_tokens=fact.prompt_tokens,
            output_tokens=base.output_tokens,
            output_tokens_max=fact.output_tokens_max,
            load=len(state.reservations),
            network_s=base.network_s,
            wait_s=base.queue_s,
            prefill_s=base.prefill_s,
            raw_s=base.raw_s,
            ttft_s=base.first_s,
            ttft_s_high=base.first_s_high,
            tpot_s=base.tpot_s,
            tpot_raw_s=base.tpot_raw_s,
        )
        state.prefills_done_s = max(state.prefills_done_s, now_s) + base.prefill_s

    def first(self, request_id: str, now_s: float) -> None:
        """Its prefill is done."""
        reservation = self.state.reservations.get(request_id)
        if reservation is not None:
            reservation.first_s = now_s
            self.state.prefills_done_s = prefills_done_s(self.state.reservations, now_s)

    def ended(self, fact: Ended, quantile: float, now_s: float) -> Reservation | None:
        """Release, and learn what this ending teaches. Returns the reservation it releases."""
        state = self.state
        reservation = state.reservations.pop(fact.request_id, None)
        if reservation is None:
            return None
        state.prefills_done_s = prefills_done_s(state.reservations, now_s)
        if fact.cause != CONTEXT_EXCEEDED:
            state.breaker.learn(fact.ending, now_s)
            if fact.retry_after_s is not None:
                state.not_before_s = max(state.not_before_s, now_s + fact.retry_after_s)
        if fact.ttft_s is not None:
            self._learn_ttft(reservation, fact, fact.ttft_s, quantile, now_s)
            self._learn_tpot(reservation, fact, fact.ttft_s, now_s)
        elif fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT):
            waited_s = max(fact.e2e_s - reservation.network_s, 1e-3)
            row, column = self._cell(reservation.prompt_tokens, reservation.load)
            self.ttft.learn_at_least(row, column, log(waited_s / reservation.raw_s), now_s)
        return reservation

    def probed(self, up: bool, rtt_s: float | None, context_tokens: int | None) -> None:
        """Take in what a probe saw."""
        self.state.up = up
        if rtt_s is not None:
            self.state.network.learn_rtt(rtt_s)
        if context_tokens is not None:
            self.state.context_tokens = context_tokens

    def _learn_ttft(self, sent: Reservation, fact: Ended, ttft_s: float, quantile: float, now_s: float) -> None:
        self.state.quantile.learn(ttft_s > sent.ttft_s_high, quantile)
        raw_s, tokens = sent.raw_s, sent.prompt_tokens
        if fact.prompt_tokens is not None:
            # What was really computed, not what the bytes suggested: the engine counts, and its cache helps.
            tokens = max(0, fact.prompt_tokens - (fact.cached_tokens or 0))
            raw_s += self._raw_s(tokens) - self._raw_s(sent.prompt_tokens)
        row, column = self._cell(tokens, sent.load)
        engine_s = max(ttft_s - sent.network_s, 1e-3)
        self.ttft.learn(row, column, log(engine_s / max(raw_s, 1e-4)), now_s)

    def _learn_tpot(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        tokens = fact.output_tokens
        if fact.ending is Ending.OK and tokens is not None and tokens >= TPOT_TOKENS_MIN:
            tpot_s = max((fact.e2e_s - ttft_s) / (tokens - 1), 1e-5)
            _, column = self._cell(0, sent.load)
            self.tpot.learn(0, column, log(tpot_s / sent.tpot_raw_s), now_s)

    def _raw_s(self, tokens: int) -> float:
        return self._overhead_s + tokens * (self._per_token_s + tokens * self._per_token2_s)

    @staticmethod
    def _cell(tokens: int, load: int) -> tuple[int, int]:
        return bisect_left(LENGTH_EDGES, tokens), bisect_left(LOAD_EDGES, load)
