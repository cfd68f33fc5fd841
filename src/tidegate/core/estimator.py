"""TTFT, TPOT and cost of a request at one endpoint: predict, and learn from how attempts end."""

from bisect import bisect_left
from statistics import NormalDist

from tidegate.core import identity, likeness
from tidegate.core.base import Base
from tidegate.core.breaker import Breaker
from tidegate.core.coldstart import RESPONSIBLE, WARM, ColdModel
from tidegate.core.fingerprint import one_model
from tidegate.core.latency import Latency
from tidegate.core.length import Length
from tidegate.core.likeness import Doubts
from tidegate.core.model import Checked, Ended, Ending, Endpoint, Fingerprint, Likeness, Prior, Probed, Request, Started
from tidegate.core.network import Network
from tidegate.core.pace import Pace
from tidegate.core.parts import ENGINE_S_MIN, FIRST_MEASURED, TPOT_S_MIN, Parts
from tidegate.core.reserve import Prefills, Reservation
from tidegate.core.state import EndpointState

# Uncached prompt tokens: what parts of a prefill do not explain differs by the length of the prompt.
LENGTH_EDGES = (64, 256, 1024, 4096, 16384)
# Others in flight: none, one, two or three, more. What they do to each other's tokens is learned per bucket; of what
# they do to a prompt, its parts tell more than buckets (bench/predict.py), and more of it never makes one faster.
LOAD_EDGES = (0, 1, 3)
ROWS, COLUMNS = len(LENGTH_EDGES) + 1, len(LOAD_EDGES) + 1
# The cause an engine's dialect gives where the prompt did not fit after all: no fault of the endpoint.
CONTEXT_EXCEEDED = "context_exceeded"
# Shorter outputs say little about the time per token.
TPOT_TOKENS_MIN = 4
# An endpoint that asks for more peace than this is tried again all the same: one request an hour harms nobody.
RETRY_AFTER_S_MAX = 3600.0


def fresh(endpoint: Endpoint) -> EndpointState:
    """The state of an endpoint of which nothing is known but what its configuration says."""
    prior = endpoint.prior
    return EndpointState(
        network=Network(rtt_s=prior.rtt_s, upload_bytes_per_s=prior.upload_bytes_per_s),
        breaker=Breaker(),
        prefills=Prefills(),
        pace=Pace(),
    )


class EndpointModel:
    """Predicts and learns for one endpoint. `base` reads; `started`, `first`, `ended`, `probed` and `checked`
    write.

    `likeness` is how alike it is now to what each name promises; a name that is not in it is `identical`.
    """

    __slots__ = (
        "_context_tokens",
        "_deviations",
        "_input_usd",
        "_load_max",
        "_output_usd",
        "_parts",
        "_price",
        "_quantile",
        "_shares_compute",
        "_slots",
        "_usd_per_s",
        "capabilities",
        "cold",
        "doubts",
        "drained",
        "endpoint",
        "fingerprint",
        "likeness",
        "name",
        "owned",
        "prior",
        "state",
        "tpot",
        "ttft",
    )

    def __init__(self, endpoint: Endpoint, quantile: float, state: EndpointState | None = None) -> None:
        """`quantile` is what promises are held to."""
        state = fresh(endpoint) if state is None else state
        self.endpoint = endpoint
        self.name, self.owned = endpoint.name, endpoint.owned
        self.capabilities = frozenset(state.capabilities or endpoint.capabilities)
        self.drained = False
        self.state = state
        self._quantile = quantile
        self._deviations = NormalDist().inv_cdf(quantile)
        self._shares_compute = endpoint.shares_compute
        # What is known of its model, by which names it is not what it should be, and so how alike it is to each.
        self.fingerprint: Fingerprint
        self.doubts: dict[str, Doubts]
        self.likeness: dict[str, Likeness]
        self._judge()
        # What is believed of it before anything was measured: as configured, or as its hardware makes of what it tells.
        self.prior: Prior = identity.prior(endpoint, self.fingerprint)
        self._parts: Parts
        self.ttft: Latency
        self.tpot: Latency
        self._believe()
        self.cold = ColdModel(identity.load_s(endpoint, self.fingerprint), self.prior.unload_after_s, state.cold)
        # Prompt tokens of all that is in flight: their contexts are read for each output token.
        self._context_tokens = sum(r.prompt_tokens for r in state.reservations.values())
        self._price, self._usd_per_s = endpoint.price, endpoint.running_usd(1.0)
        self._input_usd, self._output_usd = endpoint.price.usd_per_input_token, endpoint.price.usd_per_output_token
        # What is ours takes the next request once a slot is free: it will never see more beside it than this.
        self._load_max = endpoint.concurrency - 1 if endpoint.owned else None
        self._slots: tuple[float, list[float]] | None = None

    @property
    def context_tokens(self) -> int:
        """The window as probed, else as declared."""
        return self.state.context_tokens or self.endpoint.context_tokens

    @property
    def room(self) -> int:
        """How many more requests it takes; negative where fail-over has filled it beyond."""
        return self.endpoint.concurrency - len(self.state.reservations)

    def is_one_with(self, other: "EndpointModel") -> bool:
        """Whether a conversation that the other one served goes on here with the same model."""
        return self is other or one_model(self.fingerprint, other.fingerprint)

    def base(self, request: Request | Started, length: Length, now_s: float) -> Base:
        """What this request would take here, beside what is in flight now; beside what is left of it once a slot is
        free, where that has to come first."""
        state, parts = self.state, self._parts
        load = in_flight = len(state.reservations)
        if self._load_max is not None and load > self._load_max:
            load = self._load_max
        column = bisect_left(LOAD_EDGES, load)
        tokens = request.prompt_tokens
        output_tokens = length.expected_tokens
        others_tokens = self._context_tokens * load / in_flight if in_flight else 0.0
        pace = state.pace
        tpot = self.tpot.predict(
            parts.token(
                tokens, output_tokens, load, others_tokens, pace.load_at(in_flight, now_s), pace.prompts_at(now_s)
            ),
            0,
            column,
            now_s,
        )
        tpot_s = tpot.median_s if tpot.median_s > TPOT_S_MIN else TPOT_S_MIN
        queue_s = 0.0
        if in_flight and self._shares_compute:
            queue_s = self._queue_s(tokens, in_flight > load, now_s)
        row = bisect_left(LENGTH_EDGES, tokens)
        ttft = self.ttft.predict(parts.first(tokens, queue_s, load, others_tokens, tpot_s), row, 0, now_s)
        queued_s = self.ttft.factors[3] * queue_s * ttft.median_s / ttft.raw_s
        engine_s = ttft.median_s if ttft.median_s > ENGINE_S_MIN else ENGINE_S_MIN
        prefill_s = engine_s - queued_s
        network = state.network
        network_s = network.rtt_s + request.prompt_bytes / network.upload_bytes_per_s
        decode_s = output_tokens * tpot_s
        first_s = network_s + engine_s
        # Whoever waits for a slot comes after somebody for whom the model was there.
        cold = WARM if in_flight > load else self.cold.at(now_s, in_flight)
        load_s_mean = 0.0
        if cold is not WARM:
            load_s_mean = cold.share * cold.load_s_mean
            if cold.share > 0.5:
                first_s += cold.load_s
        return Base(
            network_s,
            queued_s,
            prefill_s,
            prefill_s * ttft.mean_ratio,
            first_s,
            ttft.sigma,
            self._deviations,
            tpot_s,
            tpot.sigma,
            decode_s,
            decode_s * tpot.mean_ratio,
            output_tokens,
            self.cost_usd(request, length)
            + self._usd_per_s * (queued_s + prefill_s * ttft.mean_ratio + decode_s * tpot.mean_ratio + load_s_mean),
            ttft,
            tpot,
            cold.share,
            cold.load_s,
            cold.sigma,
        )

    def _own_s(self, parts: list[float]) -> float:
        """What a prompt keeps the engine busy with. Corrections are not in it: they would feed on themselves."""
        factors = self.ttft.factors
        return factors[0] * parts[0] + factors[1] * parts[1] + factors[2] * parts[2]

    def _queue_s(self, tokens: int, filled_beyond: bool, now_s: float) -> float:
        """How long other prompts are computed before one of so many tokens."""
        parts, factors = self._parts, self.ttft.factors
        step_s = None if parts.step_s is None else factors[1] * parts.step_s
        own_s = factors[0] * parts.overhead_s + tokens * factors[1] * parts.token_s
        queue_s = self.state.prefills.before_s(own_s, step_s, now_s)
        if filled_beyond:
            queue_s = max(0.0, queue_s - (self.slots_free_s(now_s)[0] - now_s))
        return queue_s

    def cost_usd(self, request: Request | Started, length: Length) -> float:
        """What the tokens of this request are expected to cost here, none of them cached."""
        output_tokens = length.expected_tokens * request.completions
        if self._price.tiers:
            return self._price.usd(request.prompt_tokens, output_tokens)
        return request.prompt_tokens * self._input_usd + output_tokens * self._output_usd

    def slots_free_s(self, now_s: float) -> list[float]:
        """When each of the `concurrency` slots is expected to be free, soonest first."""
        if self._slots is not None and self._slots[0] == now_s:
            return self._slots[1]
        busy = sorted(r.ends_s(now_s) for r in self.state.reservations.values())
        free = [now_s] * max(0, self.endpoint.concurrency - len(busy))
        # Filled beyond its concurrency (fail-over does that): as many must end as there are too many.
        slots_s = free + busy[max(0, len(busy) - self.endpoint.concurrency) :]
        self._slots = (now_s, slots_s)
        return slots_s

    # --- learning -----------------------------------------------------------------------------------------------

    def started(self, fact: Started, base: Base, now_s: float) -> None:
        """Reserve. `base` is what this model predicts of it now."""
        state, in_flight = self.state, len(self.state.reservations)
        state.pace.pass_until(in_flight, now_s)
        reservation = Reservation(
            started_s=now_s,
            klass=fact.klass,
            prompt_tokens=fact.prompt_tokens,
            output_tokens_max=fact.output_tokens_max,
            completions=fact.completions,
            network_s=base.network_s,
            ttft_s=base.first_s,
            ttft_s_high=base.first_s_high,
            warm_s_high=base.warm_s_high,
            ttft=base.ttft,
            tpot=base.tpot,
            prefill_s=self._own_s(base.ttft.parts),
            first_s_mean=base.first_s_mean,
            decode_s_mean=base.decode_s_mean,
            session=fact.session,
            load_s=base.load_s if base.cold_share > 0.5 else 0.0,
            load_s_mean=base.load_s_mean,
            cold=self.cold.started(base.warm_s, base.sigma, now_s, in_flight),
        )
        state.reservations[fact.request_id] = reservation
        self._context_tokens += reservation.prompt_tokens
        if self._shares_compute:
            state.prefills.add(reservation)
            state.pace.came(reservation.prefill_s)
        state.breaker.started(fact.request_id, now_s)
        self._slots = None

    def first(self, request_id: str, now_s: float) -> Reservation | None:
        """Its prefill is done. Returns its reservation."""
        reservation = self.state.reservations.get(request_id)
        if reservation is not None and reservation.first_s is None:
            oldest = self._oldest_waiting()
            reservation.first_s = now_s
            self._used(now_s)
            self._settle(now_s, head_done=oldest is reservation)
            self._correct_ttft(reservation, now_s - reservation.started_s, now_s)
        return reservation

    def ended(self, fact: Ended, now_s: float) -> Reservation | None:
        """Release, and learn what this ending teaches. Returns the reservation it releases."""
        state = self.state
        oldest = self._oldest_waiting()
        in_flight = len(state.reservations)
        reservation = state.reservations.pop(fact.request_id, None)
        if reservation is None:
            return None
        state.pace.pass_until(in_flight, now_s)
        self._context_tokens -= reservation.prompt_tokens
        if fact.ending is Ending.OK or reservation.first_s is not None:
            self._used(now_s)
        self.cold.ended(in_flight - 1, now_s)
        self._settle(now_s, head_done=oldest is reservation)
        # A prompt that did not fit is no fault of the endpoint, so it teaches what a client that left would.
        ending = Ending.CANCELLED if fact.cause == CONTEXT_EXCEEDED else fact.ending
        state.breaker.learn(fact.request_id, ending, now_s)
        if fact.retry_after_s is not None:
            state.not_before_s = max(state.not_before_s, now_s + min(fact.retry_after_s, RETRY_AFTER_S_MAX))
        if not reservation.teaches:
            return reservation
        if fact.ttft_s is not None:
            if reservation.first_s is None:
                self._correct_ttft(reservation, fact.ttft_s, now_s)
            if not reservation.was_cold:
                self._fit_ttft(reservation, fact, fact.ttft_s, now_s)
            self._learn_tpot(reservation, fact, fact.ttft_s, now_s)
        elif fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT):
            self._learn_silence(reservation, fact.e2e_s, now_s)
        return reservation

    def probed(self, fact: Probed, now_s: float) -> None:
        """Take in what a probe saw."""
        self.state.up = fact.up
        self.cold.told(fact.resident, now_s, loading=fact.loading)
        if fact.rtt_s is not None:
            self.state.network.learn_rtt(fact.rtt_s)
        if fact.context_tokens is not None:
            self.state.context_tokens = fact.context_tokens
        if fact.capabilities is not None:
            self.state.capabilities = fact.capabilities
            self.capabilities = frozenset(fact.capabilities)
        if fact.fingerprint is not None:
            self._recognise(fact.fingerprint)

    def _recognise(self, told: Fingerprint) -> None:
        """Take in what it says of its model; of another one nothing is known yet of how long it takes."""
        state = self.state
        another = identity.recognise(state, told)
        self._judge()
        if another:
            self.cold.forget_loads()
        prior = identity.prior(self.endpoint, self.fingerprint)
        if prior != self.prior:
            another = True
            for reservation in state.reservations.values():
                reservation.teaches = False
        if another:
            self.prior = prior
            state.ttft = state.tpot = None
            self._believe()
        self.cold.expects(identity.load_s(self.endpoint, self.fingerprint), self.prior.unload_after_s)

    def _believe(self) -> None:
        """What was learned on top of the prior, or nothing yet."""
        state, sigma, quantile = self.state, self.prior.sigma, self._quantile
        self._parts = parts = Parts(self.endpoint, self.prior)
        self.ttft = Latency(parts.first_believed, FIRST_MEASURED, ROWS, 1, sigma, quantile, state.ttft)
        self.tpot = Latency(parts.token_believed, (), 1, COLUMNS, sigma, quantile, state.tpot)
        state.ttft, state.tpot = self.ttft.learned, self.tpot.learned

    def _judge(self) -> None:
        state = self.state
        self.fingerprint = likeness.in_force(self.endpoint, state.fingerprint)
        self.doubts = likeness.doubts(self.endpoint, state.fingerprint, state.trusted)
        self.likeness = likeness.effective(self.endpoint, self.doubts, drifted=state.drifted)

    def checked(self, fact: Checked) -> None:
        """Take in what a canary found."""
        self.state.drifted = fact.drifted
        self._judge()

    def _used(self, now_s: float) -> None:
        """The model is there: what waited for a load waits no more."""
        if self.cold.state.loading is not None:
            for reservation in self.state.reservations.values():
                reservation.loaded(now_s)
        self.cold.used(now_s)

    def _oldest_waiting(self) -> Reservation | None:
        if not self._shares_compute:
            return None
        return next((r for r in self.state.reservations.values() if r.first_s is None), None)

    def _settle(self, now_s: float, *, head_done: bool) -> None:
        if self._shares_compute:
            waiting = [r for r in self.state.reservations.values() if r.first_s is None]
            self.state.prefills.settle(waiting, now_s, head_done=head_done)
        self._slots = None

    def _correct_ttft(self, sent: Reservation, ttft_s: float, now_s: float) -> None:
        """When its first content is here, and not only when its answer ends: changes are seen then."""
        if sent.teaches and sent.cold is not None:
            sent.was_cold = self.cold.learn(sent.cold, ttft_s, now_s) > RESPONSIBLE
        # What a cold start explains says nothing of how fast the engine is.
        if sent.teaches and not sent.was_cold:
            took_s = max(ttft_s - sent.network_s, ENGINE_S_MIN)
            self.ttft.correct(sent.ttft, took_s, 1.0, ttft_s > sent.warm_s_high, sent.started_s, now_s)

    def _fit_ttft(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        parts = sent.ttft.parts
        if fact.prompt_tokens is not None:
            # What was really computed, not what the bytes suggested: the engine counts, and its cache helps.
            tokens = max(0, fact.prompt_tokens - (fact.cached_tokens or 0))
            if tokens != sent.prompt_tokens:
                parts = self._parts.computed(sent.ttft, tokens)
        took_s = max(ttft_s - sent.network_s, ENGINE_S_MIN)
        self.ttft.fit(sent.ttft, parts, took_s, sent.started_s + ttft_s, now_s)

    def _learn_silence(self, sent: Reservation, waited_s: float, now_s: float) -> None:
        if sent.cold is not None and self.cold.learn_silence(sent.cold, waited_s, now_s) > RESPONSIBLE:
            return
        # Given up before any content: the time to first content is at least this.
        took_s = max(waited_s - sent.network_s, ENGINE_S_MIN)
        self.ttft.learn_at_least(sent.ttft, took_s, waited_s > sent.warm_s_high, sent.started_s, now_s)

    def _learn_tpot(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        # Several completions are decoded side by side: a step yields one token of each.
        tokens = (fact.output_tokens or 0) / sent.completions
        if fact.ending is Ending.OK and tokens >= TPOT_TOKENS_MIN:
            tpot_s = max((fact.e2e_s - ttft_s) / (tokens - 1.0), TPOT_S_MIN)
            missed = tpot_s > sent.tpot.high_s(self._deviations)
            self.tpot.correct(sent.tpot, tpot_s, tokens - 1.0, missed, sent.started_s, now_s)
            self.tpot.fit(sent.tpot, sent.tpot.parts, tpot_s, sent.started_s + ttft_s, now_s)
