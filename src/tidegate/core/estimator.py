"""TTFT, TPOT and cost of a request at one endpoint: predict, and learn from how attempts end."""

from bisect import bisect_left
from math import ceil, log

from tidegate.core import density, facts, likeness
from tidegate.core.base import Base
from tidegate.core.breaker import Breaker
from tidegate.core.calibration import UpperQuantile
from tidegate.core.coldstart import RESPONSIBLE, WARM, ColdModel
from tidegate.core.correction import Correction
from tidegate.core.fingerprint import OF_THE_MODEL, OF_THE_SPEED, differs, filled, later, one_model
from tidegate.core.length import Length
from tidegate.core.likeness import Doubts
from tidegate.core.loading import LOAD_S, usual_load_s
from tidegate.core.model import Checked, Ended, Ending, Endpoint, Fingerprint, Likeness, Prior, Probed, Request, Started
from tidegate.core.network import Network
from tidegate.core.prior import crowd
from tidegate.core.reserve import Prefills, Reservation
from tidegate.core.state import EndpointState

# Uncached prompt tokens: prefill per token differs by the length of the prompt (fixed cost, attention).
LENGTH_EDGES = (64, 256, 1024, 4096, 16384)
# Others in flight: none, one, two or three, more. What they do to each other is learned per bucket.
LOAD_EDGES = (0, 1, 3)
# The cause an engine's dialect gives where the prompt did not fit after all: no fault of the endpoint.
CONTEXT_EXCEEDED = "context_exceeded"
# Shorter outputs say little about the time per token.
TPOT_TOKENS_MIN = 4
# No engine answers sooner; it also keeps logarithms finite where clocks and declared speeds do not.
ENGINE_S_MIN = 1e-3
TPOT_S_MIN = 1e-5
# An endpoint that asks for more peace than this is tried again all the same: one request an hour harms nobody.
RETRY_AFTER_S_MAX = 3600.0


def fresh(endpoint: Endpoint, quantile_deviations: float) -> EndpointState:
    """The state of an endpoint of which nothing is known but what its configuration says."""
    prior = endpoint.prior
    return EndpointState(
        network=Network(rtt_s=prior.rtt_s, upload_bytes_per_s=prior.upload_bytes_per_s),
        quantile=UpperQuantile(quantile_deviations),
        breaker=Breaker(),
        prefills=Prefills(),
    )


class EndpointModel:
    """Predicts and learns for one endpoint. `base` reads; `started`, `first`, `ended`, `probed` and `checked`
    write.

    `likeness` is how alike it is now to what each name promises; a name that is not in it is `identical`.
    """

    __slots__ = (
        "_batch_fading",
        "_batch_s",
        "_batch_slowdown",
        "_chunk_tokens",
        "_context_s_per_token",
        "_context_tokens",
        "_counts_contexts",
        "_decode_s",
        "_deviations",
        "_input_usd",
        "_load_max",
        "_output_usd",
        "_overhead_s",
        "_per_token2_s",
        "_per_token_s",
        "_price",
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

    def __init__(self, endpoint: Endpoint, quantile_deviations: float, state: EndpointState | None = None) -> None:
        state = fresh(endpoint, quantile_deviations) if state is None else state
        self.endpoint = endpoint
        self.name, self.owned = endpoint.name, endpoint.owned
        self.capabilities = frozenset(state.capabilities or endpoint.capabilities)
        self.drained = False
        self.state = state
        # What is known of its model, by which names it is not what it should be, and so how alike it is to each.
        self.fingerprint: Fingerprint
        self.doubts: dict[str, Doubts]
        self.likeness: dict[str, Likeness]
        self._shares_compute = endpoint.shares_compute
        # On declared hardware, prompts are computed chunk by chunk in iterations with the tokens of others.
        machine = endpoint.machine if endpoint.shares_compute else None
        self._chunk_tokens = 0 if machine is None else machine.setup.batch_tokens
        self._judge()
        # What is believed of it before anything was measured: as configured, or as its hardware makes of what it tells.
        self.prior: Prior
        self._believe(self._prior())
        self.cold = ColdModel(self._load_s(), self.prior.unload_after_s, state.cold)
        self.ttft: Correction
        self.tpot: Correction
        self._correct()
        self._deviations = quantile_deviations
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
        state = self.state
        load = in_flight = len(state.reservations)
        if self._load_max is not None and load > self._load_max:
            load = self._load_max
        column = bisect_left(LOAD_EDGES, load)
        prompt_tokens = request.prompt_tokens
        ttft, sigma = self.ttft.at(bisect_left(LENGTH_EDGES, prompt_tokens), column, now_s)
        tpot, tpot_sigma = self.tpot.at(0, column, now_s)
        output_tokens = length.expected_tokens
        raw_s = self._overhead_s + prompt_tokens * (self._per_token_s + prompt_tokens * self._per_token2_s)
        if self._counts_contexts:
            others_tokens = self._context_tokens * load / in_flight if in_flight else 0.0
            more_s, tpot_raw_s = self._beside(prompt_tokens, output_tokens, load, others_tokens)
            raw_s += more_s
        else:
            tpot_raw_s = self._decode_s * (1.0 + self._batch_slowdown * load)
        prefill_s = ttft.factor * raw_s
        queue_s = 0.0
        if in_flight and self._shares_compute:
            step_s = None if self._batch_s is None else ttft.factor * self._batch_s
            queue_s = state.prefills.before_s(prefill_s, step_s, now_s)
            if in_flight > load:
                queue_s = max(0.0, queue_s - (self.slots_free_s(now_s)[0] - now_s))
            elif self._chunk_tokens:
                # Half an iteration of the others is still to end.
                queue_s = max(queue_s, tpot_raw_s * tpot.factor / 2.0)
        network = state.network
        network_s = network.rtt_s + request.prompt_bytes / network.upload_bytes_per_s
        tpot_s = tpot_raw_s * tpot.factor
        decode_s = output_tokens * tpot_s
        first_s = network_s + queue_s + prefill_s
        # Whoever waits for a slot comes after somebody for whom the model was there.
        cold = WARM if in_flight > load else self.cold.at(now_s, in_flight)
        load_s_mean = 0.0
        if cold is not WARM:
            load_s_mean = cold.share * cold.load_s_mean
            if cold.share > 0.5:
                first_s += cold.load_s
        return Base(
            network_s,
            queue_s,
            prefill_s,
            prefill_s * ttft.mean_ratio,
            raw_s + queue_s / ttft.factor,
            first_s,
            sigma,
            state.quantile.deviations,
            tpot_s,
            tpot_raw_s,
            tpot_sigma,
            decode_s,
            decode_s * tpot.mean_ratio,
            output_tokens,
            self.cost_usd(request, length)
            + self._usd_per_s * (queue_s + prefill_s * ttft.mean_ratio + decode_s * tpot.mean_ratio + load_s_mean),
            cold.share,
            cold.load_s,
            cold.sigma,
        )

    def _beside(self, prompt_tokens: int, output_tokens: float, load: int, others_tokens: float) -> tuple[float, float]:
        """What `load` others add to the prefill, and the time per output token beside them; before correction.

        `others_tokens` is the size of their contexts together.
        """
        tpot_s = self._decode_s * (1.0 + self._batch_slowdown * crowd(self._batch_fading, load))
        # On average, half of its output is context too.
        tpot_s += self._context_s_per_token * (prompt_tokens + output_tokens / 2.0 + others_tokens)
        if not self._chunk_tokens or not load:
            return 0.0, tpot_s
        # By Little's law, as many others come during an answer as are there at any time, with prompts like theirs.
        tpot_s += others_tokens * self._per_token_s / max(1.0, output_tokens)
        # While this prompt is computed the others go on: with each chunk of it their contexts are read.
        chunks = ceil(prompt_tokens / self._chunk_tokens)
        return chunks * others_tokens * self._context_s_per_token, tpot_s

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
        reservation = Reservation(
            started_s=now_s,
            klass=fact.klass,
            prompt_tokens=fact.prompt_tokens,
            output_tokens_max=fact.output_tokens_max,
            completions=fact.completions,
            load=in_flight,
            network_s=base.network_s,
            raw_s=base.raw_s,
            ttft_s=base.first_s,
            ttft_s_high=base.warm_s_high,
            tpot_raw_s=base.tpot_raw_s,
            prefill_s=base.prefill_s_mean,
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
        return reservation

    def ended(self, fact: Ended, quantile: float, now_s: float) -> Reservation | None:
        """Release, and learn what this ending teaches. Returns the reservation it releases."""
        state = self.state
        oldest = self._oldest_waiting()
        reservation = state.reservations.pop(fact.request_id, None)
        if reservation is None:
            return None
        self._context_tokens -= reservation.prompt_tokens
        if fact.ending is Ending.OK or reservation.first_s is not None:
            self._used(now_s)
        self.cold.ended(len(state.reservations), now_s)
        self._settle(now_s, head_done=oldest is reservation)
        # A prompt that did not fit is no fault of the endpoint, so it teaches what a client that left would.
        ending = Ending.CANCELLED if fact.cause == CONTEXT_EXCEEDED else fact.ending
        state.breaker.learn(fact.request_id, ending, now_s)
        if fact.retry_after_s is not None:
            state.not_before_s = max(state.not_before_s, now_s + min(fact.retry_after_s, RETRY_AFTER_S_MAX))
        if not reservation.teaches:
            return reservation
        if fact.ttft_s is not None:
            self._learn_ttft(reservation, fact, fact.ttft_s, quantile, now_s)
            self._learn_tpot(reservation, fact, fact.ttft_s, now_s)
        elif fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT):
            self._learn_silence(reservation, fact.e2e_s, quantile, now_s)
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
        state, before = self.state, self.state.fingerprint
        after = state.fingerprint = later(before, told)
        if state.trusted is None:
            state.trusted = after
        elif not differs(state.trusted, after, OF_THE_MODEL):
            # What it could not tell at first is believed when it is told.
            state.trusted = filled(state.trusted, after)
        if before is not None and differs(before, after, OF_THE_SPEED):
            state.ttft = state.tpot = None
            state.quantile = UpperQuantile(self._deviations)
            self._correct()
            self.cold.forget_loads()
        self._judge()
        self.cold.expects(self._load_s(), self.prior.unload_after_s)
        if (prior := self._prior()) != self.prior:
            self._believe(prior)
            state.ttft = state.tpot = None
            state.quantile = UpperQuantile(self._deviations)
            self._correct()
            for reservation in state.reservations.values():
                reservation.teaches = False

    def _prior(self) -> Prior:
        """A declared model holds, and so does what was made of it; else what the engine tells of its own."""
        endpoint, machine = self.endpoint, self.endpoint.machine
        if machine is None or machine.model is not None:
            return endpoint.prior
        told = facts.told(self.fingerprint, machine.assumed)
        return endpoint.prior if told is None else density.prior(endpoint.prior, machine, told, endpoint.concurrency)

    def _load_s(self) -> float:
        """What a load of its model is believed to take: as written, or as its weights have it."""
        endpoint, machine = self.endpoint, self.endpoint.machine
        if endpoint.prior.load_s is not None:
            return endpoint.prior.load_s
        known = density.model_at(machine, self.fingerprint) if machine is not None else facts.told(self.fingerprint)
        return LOAD_S if known is None else usual_load_s(known.parameters * known.weight_bytes)

    def _believe(self, prior: Prior) -> None:
        self.prior = prior
        self._overhead_s = max(prior.overhead_s, ENGINE_S_MIN)
        self._per_token_s = prior.prefill_s_per_token
        self._per_token2_s = prior.prefill_s_per_token2 / 2.0
        self._decode_s = max(prior.decode_s_per_token, TPOT_S_MIN)
        self._batch_slowdown, self._batch_fading = prior.batch_slowdown, prior.batch_fading
        self._context_s_per_token = prior.decode_s_per_context_token
        self._counts_contexts = bool(self._chunk_tokens or self._context_s_per_token) or self._batch_fading < 1.0
        self._batch_s = None if prior.batch_tokens is None else prior.batch_tokens * prior.prefill_s_per_token

    def _judge(self) -> None:
        state = self.state
        self.fingerprint = likeness.in_force(self.endpoint, state.fingerprint)
        self.doubts = likeness.doubts(self.endpoint, state.fingerprint, state.trusted)
        self.likeness = likeness.effective(self.endpoint, self.doubts, drifted=state.drifted)

    def _correct(self) -> None:
        """The corrections as they were learned, or new ones."""
        state, sigma = self.state, self.prior.sigma
        self.ttft = Correction(len(LENGTH_EDGES) + 1, len(LOAD_EDGES) + 1, sigma, state.ttft)
        self.tpot = Correction(1, len(LOAD_EDGES) + 1, sigma, state.tpot)
        state.ttft, state.tpot = self.ttft.cells, self.tpot.cells

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

    def _learn_ttft(self, sent: Reservation, fact: Ended, ttft_s: float, quantile: float, now_s: float) -> None:
        # What a cold start explains says nothing of how fast the engine is.
        if sent.cold is not None and self.cold.learn(sent.cold, ttft_s, now_s) > RESPONSIBLE:
            return
        self.state.quantile.learn(ttft_s > sent.ttft_s_high, quantile)
        raw_s, tokens = sent.raw_s, sent.prompt_tokens
        if fact.prompt_tokens is not None:
            # What was really computed, not what the bytes suggested: the engine counts, and its cache helps.
            tokens = max(0, fact.prompt_tokens - (fact.cached_tokens or 0))
            raw_s += self._raw_s(tokens) - self._raw_s(sent.prompt_tokens)
        row, column = self._cell(tokens, sent.load)
        engine_s = max(ttft_s - sent.network_s, ENGINE_S_MIN)
        self.ttft.learn(row, column, log(engine_s / raw_s), now_s)

    def _learn_silence(self, sent: Reservation, waited_s: float, quantile: float, now_s: float) -> None:
        if sent.cold is not None and self.cold.learn_silence(sent.cold, waited_s, now_s) > RESPONSIBLE:
            return
        # Given up before any content: the time to first content is at least this.
        if waited_s > sent.ttft_s_high:
            self.state.quantile.learn(True, quantile)
        row, column = self._cell(sent.prompt_tokens, sent.load)
        engine_s = max(waited_s - sent.network_s, ENGINE_S_MIN)
        self.ttft.learn_at_least(row, column, log(engine_s / sent.raw_s), now_s)

    def _learn_tpot(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        # Several completions are decoded side by side: a step yields one token of each.
        tokens = (fact.output_tokens or 0) / sent.completions
        if fact.ending is Ending.OK and tokens >= TPOT_TOKENS_MIN:
            tpot_s = max((fact.e2e_s - ttft_s) / (tokens - 1.0), TPOT_S_MIN)
            _, column = self._cell(0, sent.load)
            self.tpot.learn(0, column, log(tpot_s / sent.tpot_raw_s), now_s)

    def _raw_s(self, tokens: int) -> float:
        return self._overhead_s + tokens * (self._per_token_s + tokens * self._per_token2_s)

    @staticmethod
    def _cell(tokens: int, load: int) -> tuple[int, int]:
        return bisect_left(LENGTH_EDGES, tokens), bisect_left(LOAD_EDGES, load)
