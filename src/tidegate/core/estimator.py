"""TTFT, TPOT and cost of a request at one endpoint: predict, and learn from how attempts end."""

from bisect import bisect_left
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Final

from tidegate.core import identity, likeness
from tidegate.core.base import Base, asked
from tidegate.core.breaker import Breaker
from tidegate.core.calibration import Promises, unjudged
from tidegate.core.coldstart import RESPONSIBLE, WARM, ColdModel
from tidegate.core.counts import Turns
from tidegate.core.fingerprint import OF_THE_MODEL, differs, one_model
from tidegate.core.latency import Latency, Sent, sum_of
from tidegate.core.length import OUTPUT_EDGES, OUTPUT_ROWS, Length, beginnings_of
from tidegate.core.likeness import Doubts
from tidegate.core.load import FINENESS
from tidegate.core.load import LOAD_EDGES as LOAD_EDGES
from tidegate.core.memory import Memory
from tidegate.core.model import (
    Checked,
    Ended,
    Ending,
    Endpoint,
    Fingerprint,
    Likeness,
    Prior,
    Probed,
    Request,
    Started,
    Uploaded,
)
from tidegate.core.network import RTT_NOISE_S, NetworkModel
from tidegate.core.others import NOBODY, Foreign, Others
from tidegate.core.pace import Pace
from tidegate.core.parts import ENGINE_S_MIN, FIRST_MEASURED, LIKELY, TPOT_S_MIN, Parts
from tidegate.core.prefix import Prefixes
from tidegate.core.prompts import NOTHING, Given, Prompt
from tidegate.core.reserve import Prefills, Reservation
from tidegate.core.state import EndpointState

# Uncached prompt tokens: what parts of a prefill do not explain differs by the length of the prompt.
LENGTH_EDGES: Final[tuple[int, ...]] = (64, 256, 1024, 4096, 16384)
ROWS: Final = len(LENGTH_EDGES) + 1
COLUMNS: Final = len(LOAD_EDGES) + 1
# The column of so many others in flight; of more than these it is the last one.
COLUMN_OF: Final = [bisect_left(LOAD_EDGES, load) for load in range(LOAD_EDGES[-1] + 1)]
# The cause an engine's dialect gives where the prompt did not fit after all: no fault of the endpoint.
CONTEXT_EXCEEDED: Final = "context_exceeded"
# Shorter outputs say little about the time per token.
TPOT_TOKENS_MIN: Final = 4
# Of one that is as short, a single prompt of others is half of the time: it says half as much of a change.
SHORT_TOKENS: Final = 16.0
# One promise in ten is missed by chance, so that one in a hundred times it is two in a row. One that is missed by as
# much again is as good as two: whoever asks one by one is answered by an estimator that has learned from the last one.
SURPRISES: Final = 2
# Seven in a hundred prompts of those that were not cached are as much sooner than expected.
QUICK_DEVIATIONS: Final = 1.5
# An endpoint that asks for more peace than this is tried again all the same: one request an hour harms nobody.
RETRY_AFTER_S_MAX: Final = 3600.0


def fresh() -> EndpointState:
    """The state of an endpoint of which nothing is known but what its configuration says, which stands there."""
    return EndpointState(
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
        "_cached_usd",
        "_context_tokens",
        "_deviations",
        "_e2e",
        "_e2e_stretches",
        "_input_usd",
        "_input_usd_least",
        "_load_max",
        "_output_usd",
        "_pace",
        "_parts",
        "_prefills",
        "_price",
        "_quantile",
        "_reservations",
        "_shares_compute",
        "_slots",
        "_surprises",
        "_tiered",
        "_usd_per_s",
        "capabilities",
        "cold",
        "doubts",
        "drained",
        "endpoint",
        "fingerprint",
        "likeness",
        "memory",
        "name",
        "network",
        "others",
        "owned",
        "places",
        "prefixes",
        "prior",
        "state",
        "tpot",
        "ttft",
    )

    def __init__(self, endpoint: Endpoint, quantile: float, state: EndpointState | None = None) -> None:
        """`quantile` is what promises are held to."""
        state = fresh() if state is None else state
        self.endpoint = endpoint
        self.name, self.owned = endpoint.name, endpoint.owned
        self.capabilities = frozenset(state.capabilities or endpoint.capabilities)
        self.drained = False
        self.state = state
        self.others = Others(state.load)
        self.memory = Memory(state.memory, state.reservations, owned=endpoint.owned)
        self._reservations, self._prefills, self._pace = state.reservations, state.prefills, state.pace
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
        self._declare_memory()
        self.cold = ColdModel(identity.load_s(endpoint, self.fingerprint), self.prior.unload_after_s, state.cold)
        # Prompt tokens of all that is in flight: their contexts are read for each output token.
        self._context_tokens = sum(r.prompt_tokens for r in state.reservations.values())
        self.network = NetworkModel(endpoint.prior.rtt_s, endpoint.prior.upload_bytes_per_s, state.network)
        self._price, self._usd_per_s = endpoint.price, endpoint.running_usd(1.0)
        self._tiered = bool(endpoint.price.tiers)
        self._input_usd, self._output_usd = endpoint.price.usd_per_input_token, endpoint.price.usd_per_output_token
        self._e2e: Promises
        self._e2e_stretches: list[float]  # 0 is not known yet
        self._promise()
        cached_usd = endpoint.price.usd_per_cached_token
        # What a token costs more that is cached; mostly it is less.
        self._cached_usd = 0.0 if cached_usd is None else cached_usd - self._input_usd
        self._input_usd_least = self._input_usd + min(0.0, self._cached_usd)
        self.prefixes = Prefixes(endpoint.prior.cache, state.prompts)
        self._load_max: int | None
        self._seat()
        self._slots: tuple[float, list[float]] | None = None
        # Adds up over attempts in a row whose first content came later than promised, or sooner than it can.
        self._surprises = 0

    @property
    def context_tokens(self) -> int:
        """The window as probed, else as declared."""
        return self.state.context_tokens or self.endpoint.context_tokens

    @property
    def room(self) -> int:
        """How many more requests it takes; negative where fail-over has filled it beyond."""
        return self.places - len(self.state.reservations)

    @property
    def doubts_network(self) -> bool:
        """Whether the way there may be another one by now, so that a probe should tell before its turn."""
        return self.network.unsettled or self._surprises >= SURPRISES

    def is_one_with(self, other: "EndpointModel") -> bool:
        """Whether a conversation that the other one served goes on here with the same model."""
        return self is other or one_model(self.fingerprint, other.fingerprint)

    def base(self, request: Request | Started, length: Length, now_s: float, prompt: Prompt | None = None) -> Base:
        """What this request would take here, beside what is in flight now; beside what is left of it once a slot is
        free, where that has to come first. `prompt` is its own, where somebody has made it already."""
        parts, others = self._parts, self.others
        load = in_flight = len(self._reservations)
        if self._load_max is not None and load > self._load_max:
            load = self._load_max
        column = COLUMN_OF[load] if load < len(COLUMN_OF) else COLUMNS - 1
        tokens = request.prompt_tokens
        cached, cached_tokens, cached_tokens_mean, uncached = NOTHING, 0.0, 0.0, float(tokens)
        if request.prefix or self.prefixes.keeping.surprises:
            cached = self.prefixes.cached(prompt or asked(request), now_s)
            cached_tokens, cached_tokens_mean = cached.at_least(LIKELY), cached.tokens
            uncached = tokens - cached_tokens
        output_tokens = length.expected_tokens
        length_row = bisect_left(OUTPUT_EDGES, output_tokens)
        others_tokens = self._context_tokens * load / in_flight if in_flight else 0.0
        foreign, running, waits = NOBODY, 0.0, 0.0
        if others.told:
            foreign = others.at(now_s)
            running, waits = foreign.running, others.waiting * foreign.queued
        load_mean, prompts = self._pace.at(in_flight, now_s)
        token = parts.token(tokens, output_tokens, load, others_tokens, load_mean, prompts, running)
        tpot = self.tpot.predict(token, 0, column, now_s)
        tpot_s = tpot.median_s
        if tpot_s < TPOT_S_MIN:
            tpot_s = TPOT_S_MIN
        queue_s = 0.0
        if self._shares_compute and self._prefills.count:
            queue_s = self._queue_s(uncached, in_flight > load, now_s)
        factors = self.ttft.factors
        # As many prompts come while this one is computed as have come of late, and may join its batch.
        meanwhile_s = prompts * factors[1] * uncached * parts.token_s
        first = parts.first(tokens, cached_tokens, queue_s, load, others_tokens, tpot_s, meanwhile_s, waits)
        row = bisect_left(LENGTH_EDGES, uncached)
        ttft = self.ttft.predict(first, row, 0, now_s)
        if cached_tokens and row != (whole := bisect_left(LENGTH_EDGES, tokens)):
            # Whatever corrections say of short prompts: what is cached makes none slower.
            ttft = min(ttft, self.ttft.predict(first, whole, 0, now_s), key=_median_s)
        stretch = 1.0 if foreign is NOBODY else self._beside(foreign, ttft, column, now_s)
        queued_s, ttft_s = 0.0, ttft.median_s
        if queue_s or waits:
            queued_s = (factors[3] * queue_s + factors[6] * first[6]) * stretch * ttft_s / ttft.raw_s
        engine_s = stretch * ttft_s
        if engine_s < ENGINE_S_MIN:
            engine_s = ENGINE_S_MIN
        prefill_s = engine_s - queued_s
        network_s, network_s2 = self.network.moments(request.prompt_bytes, now_s)
        decode_s_mean = output_tokens * tpot_s * tpot.mean_ratio
        first_s = sure_s = network_s + engine_s
        sigma, mean_ratio = ttft.sigma, ttft.mean_ratio
        prefill_s_mean = prefill_s * mean_ratio
        outcomes: tuple[tuple[float, float], ...] = ()
        if cached_tokens_mean:
            sure_s, mean_s, outcomes = parts.outcomes(cached, cached_tokens, first_s, factors, ttft, stretch)
            prefill_s_mean = max(0.0, prefill_s + mean_s - first_s) * mean_ratio
        # Of what is promised: with what is cached for sure.
        most_s = first_s if first_s > sure_s else sure_s
        warm_s, cold_share, load_s, load_sigma, load_s_mean = first_s, 0.0, 0.0, 0.0, 0.0
        # Whoever waits for a slot comes after somebody for whom the model was there.
        cold = WARM if in_flight > load else self.cold.at(now_s, in_flight)
        if cold is not WARM:
            cold_share, load_s, load_sigma = cold.share, cold.load_s, cold.sigma
            load_s_mean = cold_share * cold.load_s_mean
            if cold_share > 0.5:
                first_s = most_s + load_s
        return Base(
            network_s,
            queued_s,
            prefill_s,
            prefill_s_mean,
            first_s,
            sqrt(sigma * sigma + network_s2 / (most_s * most_s)),
            self._deviations,
            tpot_s,
            tpot.sigma,
            length.median_tokens * tpot_s,
            decode_s_mean,
            length,
            self._tokens_usd(tokens, output_tokens * request.completions, cached_tokens_mean)
            + self._usd_per_s * (queued_s + prefill_s_mean + decode_s_mean + load_s_mean),
            ttft,
            tpot,
            others.trust,
            others.waiting,
            stretch,
            cached,
            sure_s,
            outcomes,
            warm_s,
            cold_share,
            load_s,
            load_sigma,
            self._e2e_stretches[length_row] or self._stretch(length_row),
        )

    def _beside(self, foreign: Foreign, ttft: Sent, column: int, now_s: float) -> float:
        """Widen what is predicted by what is not known of others; returns by how much they stretch it, as usual."""
        variance, stretch = ttft.sigma * ttft.sigma, 1.0
        if foreign.variance:
            one_s = self.others.waiting * self.ttft.factors[6] * self._parts.foreign_s
            waits_s = one_s * (1.0 / FINENESS + foreign.queued)
            # So much of the logarithm's spread is that of the level of what waits.
            share = waits_s / (ttft.raw_s + waits_s)
            variance += share * share * foreign.variance
        if foreign.usual:
            usual, scatter = self.others.usual(column, now_s)
            variance += (1.0 - foreign.known) * max(0.0, scatter - variance)
            stretch = exp(foreign.usual * usual)
        ttft.sigma = sqrt(variance)
        # What others do is no change of the engine.
        ttft.trust *= 1.0 - self.ttft.factors[6] * ttft.parts[6] / ttft.raw_s
        return stretch

    def _own_s(self, parts: list[float]) -> float:
        """What a prompt keeps the engine busy with. Corrections are not in it: they would feed on themselves."""
        factors = self.ttft.factors
        return factors[0] * parts[0] + factors[1] * parts[1] + factors[2] * parts[2]

    def _queue_s(self, tokens: float, filled_beyond: bool, now_s: float) -> float:
        """How long other prompts are computed before one of so many uncached tokens."""
        parts, factors = self._parts, self.ttft.factors
        if parts.step_s is None:
            queue_s = self._prefills.left_s(now_s)
        else:
            own_s = factors[0] * parts.overhead_s + tokens * factors[1] * parts.token_s
            queue_s = self._prefills.beside_s(own_s, factors[1] * parts.step_s, now_s)
        if filled_beyond:
            queue_s = max(0.0, queue_s - (self.slots_free_s(now_s)[0] - now_s))
        return queue_s

    def _tokens_usd(self, tokens: int, output_tokens: float, cached_tokens: float) -> float:
        """What so many tokens cost here, so many of the prompt's cached."""
        if self._tiered:
            return self._price.usd(tokens, output_tokens, cached_tokens)
        return tokens * self._input_usd + output_tokens * self._output_usd + cached_tokens * self._cached_usd

    def cost_usd_least(self, request: Request, length: Length) -> float:
        """What the tokens of this request are expected to cost here at least, whatever is cached."""
        output_tokens = length.expected_tokens * request.completions
        if self._tiered:
            return min(self._price.usd(request.prompt_tokens, output_tokens, c) for c in (0.0, request.prompt_tokens))
        return request.prompt_tokens * self._input_usd_least + output_tokens * self._output_usd

    def slots_free_s(self, now_s: float) -> list[float]:
        """When each of the `places` is expected to be free, soonest first.

        Each attempt has three moments at which it may end; the next slot is free when three of all these have passed.
        """
        if self._slots is not None and self._slots[0] == now_s:
            return self._slots[1]
        ends_s = sorted([end_s for r in self.state.reservations.values() for end_s in r.ends_s(now_s)])
        busy = [sum(ends_s[index : index + 3]) / 3.0 for index in range(0, len(ends_s), 3)]
        places = self.places
        free = [now_s] * max(0, places - len(busy))
        # Filled beyond them (fail-over does that): as many must end as there are too many.
        slots_s = free + busy[max(0, len(busy) - places) :]
        self._slots = (now_s, slots_s)
        return slots_s

    # --- learning -----------------------------------------------------------------------------------------------

    def started(self, fact: Started, base: Base, now_s: float, turns: Turns | None = None) -> None:
        """Reserve. `base` is what this model predicts of it now, `turns` what is known of its conversation."""
        state, in_flight = self.state, len(self.state.reservations)
        self.prefixes.settle(now_s)
        state.pace.pass_until(in_flight, now_s)
        warm_s = max(base.warm_s, base.sure_s)
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
            e2e_s_high=base.e2e_s_high,
            output_row=bisect_left(OUTPUT_EDGES, base.output_tokens),
            ttft=base.ttft,
            tpot=base.tpot,
            prefill_s=self._own_s(base.ttft.parts),
            first_s_mean=base.first_s_mean,
            decode_s_mean=base.decode_s_mean,
            ahead=base.length.ahead(),
            model=fact.model,
            key=fact.key,
            trust=base.trust,
            gain=base.gain,
            stretch=base.stretch,
            session=fact.session,
            beginning=next(reversed(beginnings_of(fact)), 0),
            turns=turns,
            cached_tokens=base.cached.at_least(LIKELY),
            given=self.prefixes.given(fact.prefix, fact.prompt_tokens, base.cached, now_s),
            load_s=base.load_s if base.cold_share > 0.5 else 0.0,
            load_s_mean=base.load_s_mean,
            cold=self.cold.started(
                warm_s,
                base.sigma,
                now_s,
                in_flight,
                measured=base.ttft.trust > 0.0,
                believed_s=base.network_s + sum_of(self._parts.first_believed, base.ttft.parts),
            ),
            output_tokens_high=int(base.length.high_tokens),
        )
        state.reservations[fact.request_id] = reservation
        self.memory.started(reservation)
        self._context_tokens += reservation.prompt_tokens
        if self._shares_compute:
            state.prefills.add(reservation)
            state.pace.came(reservation.prefill_s)
        state.breaker.started(fact.request_id, now_s)
        self._slots = None

    def uploaded(self, fact: Uploaded, now_s: float) -> None:
        """Take in how long a request was on its way: of this one it is known now, and need not be predicted."""
        self.network.learn_upload(fact.upload_bytes, fact.seconds, now_s, at_most=fact.at_most)
        sent = self.state.reservations.get(fact.request_id)
        if sent is None:
            return
        network_s = self.network.rtt_s + fact.seconds
        if fact.at_most:
            network_s = min(network_s, sent.network_s)
        sent.first_s_mean += network_s - sent.network_s
        sent.network_s = network_s
        self._slots = None

    def first(self, request_id: str, now_s: float) -> Reservation | None:
        """Its prefill is done. Returns its reservation."""
        reservation = self.state.reservations.get(request_id)
        if reservation is not None and reservation.first_s is None:
            oldest = self._oldest_waiting()
            reservation.first_s = now_s
            self.memory.answers()
            ttft_s = now_s - reservation.started_s
            self._used(now_s)
            self._learn_load(reservation, ttft_s, now_s)
            surprise = 0 if reservation.was_cold else _surprise(reservation, ttft_s)
            self._surprises = self._surprises + surprise if surprise else 0
            self._settle(now_s, head_done=oldest is reservation)
            if (given := reservation.given) is not None:
                self.prefixes.put(given, now_s)
            if not self._waits(reservation, ttft_s):
                self._correct_ttft(reservation, reservation.ttft, ttft_s, now_s)
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
        if reservation.first_s is None:
            self._surprises += _surprise(reservation, max(fact.e2e_s, reservation.network_s))
        self._context_tokens -= reservation.prompt_tokens
        self.others.ended(reservation, now_s)
        self.memory.ended(reservation, now_s)
        if fact.ending is Ending.OK or reservation.first_s is not None:
            self._used(now_s)
        self.cold.ended(in_flight - 1, now_s)
        self._settle(now_s, head_done=oldest is reservation)
        # A prompt that did not fit is no fault of the endpoint, so it teaches what a client that left would.
        ending = Ending.CANCELLED if fact.cause == CONTEXT_EXCEEDED else fact.ending
        state.breaker.learn(fact.request_id, ending, now_s)
        if fact.retry_after_s is not None:
            state.not_before_s = max(state.not_before_s, now_s + min(fact.retry_after_s, RETRY_AFTER_S_MAX))
        if reservation.given is not None:
            self._learn_cached(reservation.given, fact, now_s)
        if not reservation.teaches:
            return reservation
        self._judge_e2e(reservation, fact, now_s)
        if fact.ttft_s is not None:
            if reservation.first_s is None:
                self._learn_load(reservation, fact.ttft_s, now_s)
            # What a load explains says nothing of how fast the engine is.
            if not reservation.was_cold:
                self._fit_ttft(reservation, fact, fact.ttft_s, now_s)
            self._learn_tpot(reservation, fact, fact.ttft_s, now_s)
        elif fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT):
            self._learn_silence(reservation, fact.e2e_s, now_s)
        return reservation

    def probed(self, fact: Probed, now_s: float) -> None:
        """Take in what a probe saw."""
        if fact.resident is False or (fact.up and not self.state.up):
            self.prefixes.forget()
        self.state.up = fact.up
        self.cold.told(fact.resident, now_s, loading=fact.loading)
        self._surprises = 0
        if self._shares_compute and fact.running is not None:
            measured_s = now_s if fact.measured_s is None else fact.measured_s
            self.others.report(fact.running, fact.queued, self.state.reservations.values(), measured_s, now_s)
        if fact.up:
            self._remember(fact, now_s)
        if fact.rtt_s is not None:
            before_s = self.network.rtt_s
            self.network.learn_rtt(fact.rtt_s, now_s)
            self._rerouted(self.network.rtt_s - before_s)
        if fact.context_tokens is not None:
            self.state.context_tokens = fact.context_tokens
        if fact.capabilities is not None:
            self.state.capabilities = fact.capabilities
            self.capabilities = frozenset(fact.capabilities)
        if fact.fingerprint is not None:
            self._recognise(fact.fingerprint)

    def _rerouted(self, longer_s: float) -> None:
        """The round trip is another one: what is under way may have gone there in it already."""
        if abs(longer_s) < RTT_NOISE_S:
            return
        for sent in self.state.reservations.values():
            ttft_s, first_s = sent.ttft_s, sent.ttft_s + longer_s
            # Whose first content has come tells by its time; the engine must not be blamed for what the network did.
            if sent.first_s is None or abs(sent.first_s - sent.started_s - first_s) < abs(
                sent.first_s - sent.started_s - ttft_s
            ):
                sent.network_s += longer_s
                sent.first_s_mean += longer_s
        self._slots = None

    def _recognise(self, told: Fingerprint) -> None:
        """Take in what it says of its model; of another one nothing is known yet of how long it takes."""
        state, before = self.state, self.fingerprint
        another = identity.recognise(state, told)
        self._judge()
        if another:
            self.cold.forget_loads()
        if differs(before, self.fingerprint, OF_THE_MODEL):
            self.prefixes.forget()
        prior = identity.prior(self.endpoint, self.fingerprint)
        if prior != self.prior:
            another = True
            for reservation in state.reservations.values():
                reservation.teaches = False
        if another:
            self.prior = prior
            state.ttft = state.tpot = None
            self._believe()
            state.e2e = unjudged(OUTPUT_ROWS)
            self._promise()
        self._declare_memory()
        self.cold.expects(identity.load_s(self.endpoint, self.fingerprint), self.prior.unload_after_s)

    def _remember(self, fact: Probed, now_s: float) -> None:
        """Take in what it tells of its memory."""
        self.memory.report(fact, now_s)
        self._slots = None
        self._seat()

    def _seat(self) -> None:
        """How many it takes at once: what is ours gets no more than it has slots, so that the rest waits here."""
        slots, concurrency = self.memory.slots, self.endpoint.concurrency
        self.places = concurrency if slots is None or not self.owned else min(slots, concurrency)
        # It takes the next request once a slot is free: that will never see more beside it than this.
        self._load_max = self.places - 1 if self.owned else None

    def _declare_memory(self) -> None:
        machine = self.endpoint.machine
        sure = machine is not None and machine.model is not None
        self.memory.declare(identity.memory_tokens(self.endpoint, self.fingerprint), sure=sure)

    def _believe(self) -> None:
        """What was learned on top of the prior, or nothing yet."""
        state, sigma, quantile = self.state, self.prior.sigma, self._quantile
        self._parts = parts = Parts(self.endpoint, self.prior)
        self.ttft = Latency(parts.first_believed, FIRST_MEASURED, ROWS, 1, sigma, quantile, state.ttft)
        self.tpot = Latency(parts.token_believed, (), 1, COLUMNS, sigma, quantile, state.tpot)
        state.ttft, state.tpot = self.ttft.learned, self.tpot.learned

    def _promise(self) -> None:
        self._e2e = Promises(OUTPUT_ROWS, self._quantile, self.state.e2e)
        self._e2e_stretches = [0.0] * OUTPUT_ROWS

    def _stretch(self, row: int) -> float:
        found = self._e2e_stretches[row] = self._e2e.stretch(row)
        return found

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

    def _learn_load(self, sent: Reservation, ttft_s: float, now_s: float) -> None:
        if sent.teaches and sent.cold is not None:
            sent.was_cold = self.cold.learn(sent.cold, ttft_s, now_s) > RESPONSIBLE

    def _oldest_waiting(self) -> Reservation | None:
        if not self._shares_compute:
            return None
        return next((r for r in self.state.reservations.values() if r.first_s is None), None)

    def _settle(self, now_s: float, *, head_done: bool) -> None:
        if self._shares_compute:
            waiting = [r for r in self.state.reservations.values() if r.first_s is None]
            self.state.prefills.settle(waiting, now_s, head_done=head_done)
        self._slots = None

    def _learn_cached(self, given: Given, fact: Ended, now_s: float) -> None:
        served = fact.ending is Ending.OK and not fact.cause
        if served and not given.computed:
            # Its first token was not seen.
            self.prefixes.put(given, now_s)
        cached_tokens = fact.cached_tokens if served else None
        self.prefixes.learn(given, fact.output_tokens or 0, fact.prompt_tokens, cached_tokens, now_s)

    def _waits(self, sent: Reservation, ttft_s: float) -> bool:
        """Whether it is better understood at its end.

        Where it depends on what was cached, and where it came sooner than expected, that has to be told first; what
        is later than promised may be the network, of which a probe will have told by then.
        """
        if sent.was_cold or (sent.given is not None and sent.given.spans and self.prefixes.told):
            return True
        if ttft_s > sent.warm_s_high:
            return not self.endpoint.local
        return (ttft_s - sent.network_s) / sent.stretch < sent.ttft.low_s(QUICK_DEVIATIONS)

    def _correct_ttft(self, sent: Reservation, predicted: Sent, ttft_s: float, now_s: float) -> None:
        """When its first content is here, and not only when its answer ends: changes are seen then.

        Where it is here before the network would let it, that was not what it was taken for: of the engine this says
        nothing.
        """
        sent.corrected = True
        took_s = max(ttft_s - sent.network_s, ENGINE_S_MIN)
        if not sent.teaches or ttft_s < sent.network_s:
            return
        if self.others.told:
            waits = self.ttft.factors[6] * predicted.parts[6] / predicted.raw_s
            alone_s = max((1.0 - waits) * predicted.median_s, ENGINE_S_MIN)
            self.others.met(sent.tpot.column, log(took_s / alone_s), sent.trust, now_s)
            if waits and sent.gain:
                self.others.waited(alone_s, waits * predicted.median_s / sent.gain, took_s / sent.stretch, now_s)
        missed = ttft_s > sent.warm_s_high
        share = _share_alone(sent)
        self.ttft.correct(predicted, took_s / sent.stretch, 1.0, missed, sent.started_s, now_s, share)

    def _fit_ttft(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        took_s, parts = max(ttft_s - sent.network_s, ENGINE_S_MIN) / sent.stretch, sent.ttft.parts
        if fact.prompt_tokens is not None:
            # What was really computed, not what the bytes suggested: the engine counts, and knows its cache.
            tokens, cached_tokens = fact.prompt_tokens, sent.cached_tokens
            if fact.cached_tokens is not None:
                cached_tokens = float(fact.cached_tokens)
            if (tokens, cached_tokens) != (sent.prompt_tokens, sent.cached_tokens):
                parts = self._parts.computed(sent.ttft, tokens, min(cached_tokens, tokens))
        if not sent.corrected:
            self._correct_ttft(sent, self._parts.told(sent, fact, took_s, self.ttft.factors), ttft_s, now_s)
        if ttft_s >= sent.network_s:
            self.ttft.fit(sent.ttft, parts, took_s, sent.started_s + ttft_s, now_s)

    def _learn_silence(self, sent: Reservation, waited_s: float, now_s: float) -> None:
        if sent.cold is not None and self.cold.learn_silence(sent.cold, waited_s, now_s) > RESPONSIBLE:
            return
        # Given up before any content: the time to first content is at least this. Nothing may have been cached.
        predicted = sent.ttft
        if sent.cached_tokens:
            parts = self._parts.computed(predicted, sent.prompt_tokens, 0.0)
            predicted = predicted.had(self.ttft.factors, parts)
        took_s = max(waited_s - sent.network_s, ENGINE_S_MIN) / sent.stretch
        self.ttft.learn_at_least(predicted, took_s, waited_s > sent.warm_s_high, sent.started_s, now_s)

    def _judge_e2e(self, sent: Reservation, fact: Ended, now_s: float) -> None:
        # Who left before it was late does not tell whether it would have been; a load is another cause.
        missed = fact.e2e_s > sent.e2e_s_high
        known = fact.ending is Ending.OK or (missed and fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT))
        first, rest = self.ttft.holds_since(sent.started_s, now_s), self.tpot.holds_since(sent.started_s, now_s)
        if known and first and rest and not sent.was_cold:
            self._e2e.learn(sent.output_row, missed)
            self._e2e_stretches = [0.0] * OUTPUT_ROWS

    def _learn_tpot(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        # Several completions are decoded side by side: a step yields one token of each.
        tokens = (fact.output_tokens or 0) / sent.completions
        if fact.ending is Ending.OK and tokens >= TPOT_TOKENS_MIN:
            tpot_s = max((fact.e2e_s - ttft_s) / (tokens - 1.0), TPOT_S_MIN)
            missed = tpot_s > sent.tpot.high_s(self._deviations)
            share = _share_alone(sent) * tokens / (tokens + SHORT_TOKENS)
            self.tpot.correct(sent.tpot, tpot_s, tokens - 1.0, missed, sent.started_s, now_s, share)
            self.tpot.fit(sent.tpot, sent.tpot.parts, tpot_s, sent.started_s + ttft_s, now_s)


def _share_alone(sent: Reservation) -> float:
    """How much its times prove of a lasting change: those of several at once are late for the same reason."""
    return 1.0 / (1.0 + sent.tpot.column)


def _median_s(predicted: Sent) -> float:
    return predicted.median_s


def _surprise(sent: Reservation, ttft_s: float) -> int:
    """How odd a time to first content is that may be the network's: it cannot be sooner than that lets it."""
    if ttft_s < sent.network_s:
        return SURPRISES
    if ttft_s > sent.ttft_s_high:
        return SURPRISES if ttft_s > 2.0 * sent.ttft_s_high else 1
    return 0
