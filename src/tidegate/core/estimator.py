"""One endpoint: what a request would take and cost there now."""

from math import exp, inf, log, sqrt
from typing import Final

from tidegate.core import prefills
from tidegate.core.base import Base, asked, has_come
from tidegate.core.cached import NOTHING, Prompt
from tidegate.core.calibration import of_sum
from tidegate.core.capacity import Capacity
from tidegate.core.coldstart import WARM, ColdModel
from tidegate.core.cost import Cost
from tidegate.core.edges import place_of
from tidegate.core.fingerprint import one_model
from tidegate.core.health import Health
from tidegate.core.identity import Identity
from tidegate.core.inflight import begins_s, ends_s, sample_of
from tidegate.core.late import LateAnswers
from tidegate.core.latency import Sent
from tidegate.core.line import ahead_bytes
from tidegate.core.load import FINENESS
from tidegate.core.memory import Memory
from tidegate.core.model import (
    Endpoint,
    Request,
    Started,
)
from tidegate.core.moment import Moment
from tidegate.core.network import NetworkModel
from tidegate.core.others import NOBODY, SOMEBODY, Foreign, Others
from tidegate.core.output import OUTPUT_EDGES, Length
from tidegate.core.pace import means
from tidegate.core.parts import ENGINE_S_MIN, LIKELY, TPOT_S_MIN
from tidegate.core.prefills import PromptLine
from tidegate.core.prefix import Prefixes
from tidegate.core.reserve import Reservation
from tidegate.core.ruled import break_usd
from tidegate.core.slots import free_s
from tidegate.core.state import EndpointState
from tidegate.core.timing import COLUMN_OF, COLUMNS, LENGTH_EDGES, SHIPPED_ROW, Timing

# Prompt tokens that an engine of ours is given beyond what it computes: enough for its next iteration.
AHEAD_TOKENS: Final = 2000.0
# And at least as much as takes it so long: that a prompt is done is known when the loop of events comes to it, some
# hundredths of a second later where many stream, and until then an engine that is quicker would idle.
AHEAD_S_MIN: Final = 0.05
# So many free slots are found at least: who asks for the first one often asks for those of some that wait next.
SLOTS_LEAST: Final = 16
# What is predicted with a spread wider than that, as where caches surprise, is held against what all of the prompt
# takes: most are not, and each such look costs as much as the prediction.
WIDE: Final = 0.5
# A prior that deserves no more trust is a guess, and may be as wrong as one of a processor is of an accelerator.
GUESS_SIGMA: Final = 1.0


class Estimator:
    """Predicts for one endpoint, from what its parts have learned and what is under way there; it changes nothing of
    either. `EndpointModel` does."""

    __slots__ = (
        "_context_tokens",
        "_line",
        "_pace",
        "_prompts",
        "_quantile",
        "_reservations",
        "_shares_compute",
        "_slots",
        "_waits_for_load",
        "capabilities",
        "capacity",
        "cold",
        "cost",
        "drained",
        "endpoint",
        "health",
        "identity",
        "late",
        "memory",
        "name",
        "network",
        "others",
        "owned",
        "prefixes",
        "prior",
        "state",
        "timing",
    )

    def __init__(self, endpoint: Endpoint, quantile: float, state: EndpointState | None = None) -> None:
        """`quantile` is what promises are held to."""
        state = EndpointState() if state is None else state
        self.endpoint = endpoint
        self.name, self.owned = endpoint.name, endpoint.owned
        self.capabilities = frozenset(state.capabilities or endpoint.capabilities)
        self.drained = False
        self.state = state
        self.others = Others(state.load)
        self.memory = Memory(state.memory, state.reservations, owned=endpoint.owned)
        self._quantile = quantile
        self._shares_compute = endpoint.shares_compute
        self._reservations, self._pace = state.reservations, state.pace
        self._prompts = PromptLine(
            state.prefills,
            state.reservations,
            shares_compute=endpoint.shares_compute,
            by_slot=endpoint.prior.batch_tokens is not None,
        )
        self._waits_for_load = any(r.load_s_mean > 0.0 for r in state.reservations.values())
        self.identity = Identity(endpoint, state)
        # What is believed of it before anything was measured: as configured, or as its hardware makes of what it tells.
        self.prior = self.identity.prior()
        self.timing = Timing(endpoint, self.prior, quantile, state, self.others)
        self._declare_memory()
        self.cold = ColdModel(self.identity.load_s(), self.prior.unload_after_s, state.cold)
        # Prompt tokens of all that is in flight: their contexts are read for each output token.
        self._context_tokens = sum(r.prompt_tokens for r in state.reservations.values())
        self.network = NetworkModel(endpoint.prior.rtt_s, endpoint.prior.upload_bytes_per_s, state.network)
        self._line = state.line
        self.cost = Cost(endpoint)
        self.health = Health(endpoint.concurrency, state)
        self.prefixes = Prefixes(endpoint.prior.cache, state.prompts)
        self.late = LateAnswers(endpoint, self.network, state)
        self.capacity = Capacity(endpoint, self.memory, self.health, state)
        self._slots: tuple[float, list[float]] | None = None

    def _declare_memory(self) -> None:
        machine = self.endpoint.machine
        sure = machine is not None and machine.model is not None
        self.memory.declare(self.identity.memory_tokens(), sure=sure)

    @property
    def context_tokens(self) -> int:
        """The window as probed, else as declared."""
        return self.state.context_tokens or self.endpoint.context_tokens

    @property
    def places(self) -> int:
        """How many it takes at once."""
        return self.capacity.places

    @property
    def room(self) -> int:
        """How many more requests it takes; negative where fail-over has filled it beyond."""
        return self.places - len(self.state.reservations)

    @property
    def used_s(self) -> float:
        """When an attempt of ours began or ended here last; 0 where none ever did."""
        return self._pace.at_s

    @property
    def is_guessed(self) -> bool:
        """Whether nothing was ever asked here, and how quick it is, nobody has said who would know."""
        return not self.used_s and self.prior.sigma >= GUESS_SIGMA

    def is_used(self, now_s: float) -> bool:
        """Whether anything is under way, of ours or, as far as it tells, of others."""
        return bool(self._reservations) or (self.others.told and self.others.at(now_s).running >= SOMEBODY)

    def is_one_with(self, other: "Estimator") -> bool:
        """Whether a conversation that the other one served goes on here with the same model."""
        return self is other or one_model(self.identity.fingerprint, other.identity.fingerprint)

    def moment(self, now_s: float) -> Moment:
        """What every `base` of now begins with."""
        others, foreign, waits = self.others, NOBODY, 0.0
        load = in_flight = len(self._reservations)
        load_max = self.capacity.load_max
        if load_max is not None and load > load_max:
            load = load_max
        if others.told:
            foreign = others.at(now_s)
            waits = others.waiting * foreign.queued
        return Moment(
            in_flight,
            load,
            COLUMN_OF[load] if load < len(COLUMN_OF) else COLUMNS - 1,
            self._context_tokens * load / in_flight if in_flight else 0.0,
            foreign,
            waits,
            means(self._pace, in_flight, now_s),
            ahead_bytes(self._line, self.network.upload_bytes_per_s, now_s),
            # Whoever waits for a slot comes after somebody for whom the model was there.
            WARM if in_flight > load else self.cold.at(now_s, in_flight),
            self.health.failing(now_s),
        )

    def base(
        self,
        request: Request | Started,
        length: Length,
        now_s: float,
        prompt: Prompt | None = None,
        moment: Moment | None = None,
    ) -> Base:
        """What this request would take here, beside what is in flight now; beside what is left of it once a slot is
        free, where that has to come first. `prompt` is its own, and `moment` that of now, where somebody has made them
        already."""
        if moment is None:
            moment = self.moment(now_s)
        timing, others = self.timing, self.others
        parts, factors = timing.parts, timing.ttft.factors
        tokens, load = request.prompt_tokens, moment.load
        cached = nothing = NOTHING
        cached_tokens, cached_tokens_mean = 0.0, 0.0
        come = request.shipped != "" and has_come(request.shipped, self.name)
        if come:
            cached = self.prefixes.all_cached(prompt or asked(request))
        elif request.prefix or self.prefixes.keeping.surprises:
            cached = self.prefixes.cached(prompt or asked(request), now_s)
        if cached is not nothing:
            cached_tokens, cached_tokens_mean = cached.at_least(LIKELY), cached.tokens
        output_tokens = length.expected_tokens
        length_row = place_of(OUTPUT_EDGES, output_tokens)
        token = parts.token(
            tokens, output_tokens, load, moment.others_tokens, moment.load_mean, moment.prompts, moment.running
        )
        tpot = timing.tpot.predict(token, 0, moment.column, now_s)
        tpot_s = tpot.median_s
        if tpot_s < TPOT_S_MIN:
            tpot_s = TPOT_S_MIN
        queue_s, unsure_s = 0.0, 0.0
        if not self._prompts.is_empty:
            queue_s, unsure_s = self._queue_s(moment.in_flight > load, now_s)
        ttft = self._ttft(tokens, cached_tokens, queue_s, tpot_s, moment, now_s, come)
        stretch = self._widen(ttft, unsure_s, moment, now_s)
        queued_s, ttft_s = 0.0, ttft.median_s
        if queue_s or moment.waits:
            queued_s = (factors[3] * queue_s + factors[6] * ttft.parts[6]) * stretch * ttft_s / ttft.raw_s
        engine_s = stretch * ttft_s
        if engine_s < ENGINE_S_MIN:
            engine_s = ENGINE_S_MIN
        prefill_s = max(0.0, engine_s - queued_s)
        network = self.network
        network_s, network_s2 = network.moments(request.prompt_bytes + moment.ahead_bytes, now_s)
        decode_s_mean = output_tokens * tpot_s * tpot.mean_ratio
        first_s = sure_s = network_s + engine_s
        mean_ratio = ttft.mean_ratio
        prefill_s_mean = prefill_s * mean_ratio
        firsts: tuple[tuple[float, float], ...] = ()
        if cached_tokens_mean:
            sure_s, mean_s, firsts = parts.outcomes(cached, cached_tokens, first_s, factors, ttft, stretch)
            prefill_s_mean = max(0.0, prefill_s + mean_s - first_s) * mean_ratio
        # Of what is promised: with what is cached for sure.
        most_s = first_s if first_s > sure_s else sure_s
        deviations, high_s = timing.deviations, inf
        spread = _spread(network_s, network_s2, most_s, ttft.sigma, deviations)
        if spread > WIDE and cached_tokens and not come:
            # What is cached may be a surprise, and makes nothing slower.
            whole = self._ttft(tokens, 0.0, queue_s, tpot_s, moment, now_s, come)
            whole_s = max(network_s + self._widen(whole, unsure_s, moment, now_s) * whole.median_s, most_s)
            high_s = whole_s * exp(deviations * _spread(network_s, network_s2, whole_s, whole.sigma, deviations))
            spread = _spread(network_s, network_s2, most_s, ttft.sigma, deviations, high_s)
        outcomes: tuple[tuple[float, float, float], ...] = ()
        if firsts:
            # The more of it is the way, the less it scatters.
            outcomes = tuple(
                [
                    (after_s, p, _spread(network_s, network_s2, after_s, ttft.sigma, deviations, high_s))
                    for after_s, p in firsts
                ]
            )
        warm_s, cold_share, load_s, load_sigma, load_s_mean = first_s, 0.0, 0.0, 0.0, 0.0
        cold = moment.cold
        if cold is not WARM:
            cold_share, load_s, load_sigma = cold.share, cold.load_s, cold.sigma
            load_s_mean = cold_share * cold.load_s_mean
            if cold_share > 0.5:
                first_s = most_s + load_s
        paid_usd = self.cost.usd(tokens, output_tokens * request.completions, cached_tokens_mean)
        return Base(
            network_s,
            queued_s,
            prefill_s,
            prefill_s_mean,
            first_s,
            spread,
            deviations,
            tpot_s,
            tpot.sigma,
            length.median_tokens * tpot_s,
            decode_s_mean,
            length,
            paid_usd + self.cost.usd_per_s * (queued_s + prefill_s_mean + decode_s_mean + load_s_mean),
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
            timing.stretches[length_row] or timing.stretch(length_row),
            timing.prompt_s(ttft.parts) * stretch * ttft_s / ttft.raw_s if self._shares_compute else 0.0,
            break_usd(request.rulings, self.name) if isinstance(request, Request) and request.rulings else 0.0,
            paid_usd,
            moment.failing,
        )

    def _ttft(
        self,
        tokens: int,
        cached_tokens: float,
        queue_s: float,
        tpot_s: float,
        moment: Moment,
        now_s: float,
        come: bool,  # compiled, one by its place costs less
    ) -> Sent:
        """What a prompt of which so much is cached takes the engine to its first token, behind `queue_s` of others."""
        timing, parts = self.timing, self.timing.parts
        uncached = tokens - cached_tokens
        # As many prompts come while this one is computed as have come of late, and may join its batch.
        meanwhile_s = moment.prompts * timing.ttft.factors[1] * uncached * parts.token_s
        first = parts.first(
            tokens, cached_tokens, queue_s, moment.load, moment.others_tokens, tpot_s, meanwhile_s, moment.waits
        )
        row = SHIPPED_ROW if come else place_of(LENGTH_EDGES, uncached)
        ttft = timing.ttft.predict(first, row, 0, now_s)
        if cached_tokens and not come:
            # Whatever corrections say of short prompts: what is cached makes none slower. But what is learned of it is
            # of short ones: a tenth of a second more or less says nothing of how long all of this prompt would take.
            whole_row = place_of(LENGTH_EDGES, tokens)
            if timing.ttft.median_s(ttft.raw_s, whole_row, 0) < ttft.median_s:
                ttft, ttft.row = timing.ttft.predict(first, whole_row, 0, now_s), row
        return ttft

    def _widen(self, ttft: Sent, unsure_s: float, moment: Moment, now_s: float) -> float:
        """Widen what is predicted by what is not known of the prompts before it, and of others; returns by how much
        these stretch it, as usual."""
        if unsure_s:
            unsure = unsure_s * self.timing.ttft.factors[3] / ttft.raw_s
            ttft.sigma = sqrt(ttft.sigma * ttft.sigma + unsure * unsure)
        foreign = moment.foreign
        return 1.0 if foreign is NOBODY else self._beside(foreign, ttft, moment.column, now_s)

    def _beside(self, foreign: Foreign, ttft: Sent, column: int, now_s: float) -> float:
        factors, variance, stretch = self.timing.ttft.factors, ttft.sigma * ttft.sigma, 1.0
        if foreign.variance:
            one_s = self.others.waiting * factors[6] * self.timing.parts.foreign_s
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
        ttft.trust *= max(0.0, 1.0 - factors[6] * ttft.parts[6] / ttft.raw_s)
        return stretch

    def _queue_s(self, filled_beyond: bool, now_s: float) -> tuple[float, float]:
        """How long other prompts are computed before a new one, and the standard deviation of that."""
        parts, factors, line = self.timing.parts, self.timing.ttft.factors, self._prompts.at(now_s)
        waits_s = self.slots_free_s(now_s)[0] - now_s if filled_beyond else 0.0
        if parts.step_s is not None:
            # Elsewhere nothing is held, and all of it is sent at once.
            ahead_s = self.ahead_s if self.owned else inf
            return prefills.by_slot_s(line, factors[1] * parts.step_s, waits_s, ahead_s, now_s)
        return max(0.0, prefills.left_s(line, now_s) - waits_s), 0.0

    def doubts_rate(self, now_s: float) -> bool:
        """Whether to find out, by bytes that serve nothing, whether the way there is quick again: not while a request's
        are on it, of which it will be known how long they took."""
        return self.network.doubts_rate(now_s) and not self._is_sending()

    def _is_sending(self) -> bool:
        telling_bytes, carried_bytes = self.network.telling_bytes, self._line.carried_bytes
        for sent in self._reservations.values():
            carried = sent.carried
            if sent.first_s is not None or carried is None or carried.mark <= carried_bytes:
                continue
            if carried.upload_bytes >= telling_bytes:
                return True
        return False

    def slots_free_s(self, now_s: float, count: int = 1) -> list[float]:
        """When the first `count` of the `places` are expected to be free, soonest first; all, if they are fewer.

        Where very many have one, some stand for all.
        """
        if self._slots is None or self._slots[0] != now_s or len(self._slots[1]) < min(count, self.places):
            self._slots = now_s, self._first_free_s(now_s, min(max(count, SLOTS_LEAST), self.places))
        return self._slots[1]

    def _first_free_s(self, now_s: float, count: int) -> list[float]:
        there = len(self.state.reservations)
        free = self.places - there
        if free >= count:
            return [now_s] * count
        attempts = [(begins_s(one, now_s), ends_s(one, now_s)) for one in sample_of(self.state.reservations)]
        # Filled beyond them (fail-over does that): as many must end as there are too many.
        busy = free_s(attempts, now_s, count - free, there / len(attempts))
        return [now_s] * free + busy if free > 0 else busy[-free:]

    def prompts_done_s(self, now_s: float) -> float:
        """When the prompts that it has are expected to be computed; now, where that holds up nobody."""
        if not self._shares_compute:
            return now_s
        shared = self.others.told and self.others.at(now_s).running >= SOMEBODY
        return now_s + self.timing.ttft.factors[3] * prefills.planned_s(self._prompts.at(now_s), now_s, shared=shared)

    @property
    def ahead_s(self) -> float:
        """So much work on prompts an engine of ours is given ahead: it never idles, and what follows can still go
        elsewhere."""
        timing = self.timing
        return max(AHEAD_TOKENS * timing.ttft.factors[1] * timing.parts.token_s, AHEAD_S_MIN) + self.network.rtt_s

    def engine_s(self, sent: Reservation, occupies_s: float) -> float:
        """So many of its seconds an attempt takes that has a slot for so long: its share of that time, and all of its
        prompt, for which the others wait."""
        return occupies_s / self.places + sent.prefill_s


def _spread(
    network_s: float, network_s2: float, first_s: float, sigma: float, deviations: float, high_s: float = inf
) -> float:
    """That of the logarithm of `first_s`: what the engine makes of it scatters by `sigma`, and the way there does not;
    how long that is may be another matter, by a variance of `network_s2`. A wide one has no quantile beyond `high_s`.
    """
    own = of_sum(network_s / first_s, sigma, deviations)
    spread = sqrt(own * own + network_s2 / (first_s * first_s))
    return spread if spread <= WIDE else min(spread, max(WIDE, log(high_s / first_s) / deviations))
