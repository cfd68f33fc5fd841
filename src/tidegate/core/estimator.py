"""One endpoint: what a request would take and cost there now, and what is under way there."""

from math import exp, inf, log, sqrt
from typing import Final

from tidegate.core import prefills
from tidegate.core.base import Base, asked, has_come
from tidegate.core.batch import Batch
from tidegate.core.breaker import Breaker
from tidegate.core.cached import NOTHING, Prompt, all_cached
from tidegate.core.calibration import of_sum, unjudged
from tidegate.core.capacity import Capacity
from tidegate.core.coldstart import WARM, ColdModel
from tidegate.core.cost import Cost
from tidegate.core.counts import Turns
from tidegate.core.edges import place_of
from tidegate.core.fingerprint import OF_THE_MODEL, differs, one_model
from tidegate.core.health import Health
from tidegate.core.identity import Identity
from tidegate.core.inflight import begins_s, ends_s, loaded, looked_at_s
from tidegate.core.late import LateAnswers
from tidegate.core.latency import TRUST_MIN, Sent, sum_of
from tidegate.core.length import OUTPUT_EDGES, OUTPUT_ROWS, Length, beginnings_of
from tidegate.core.line import ahead_bytes
from tidegate.core.load import FINENESS
from tidegate.core.memory import Memory
from tidegate.core.model import (
    Ended,
    Ending,
    Endpoint,
    Fingerprint,
    Probed,
    Request,
    Started,
    Uploaded,
)
from tidegate.core.moment import Moment
from tidegate.core.network import RTT_NOISE_S, NetworkModel
from tidegate.core.others import NOBODY, Foreign, Others
from tidegate.core.pace import Pace, came, means, pass_until
from tidegate.core.parts import ENGINE_S_MIN, LIKELY, TPOT_S_MIN
from tidegate.core.prefills import Prefills, PromptLine
from tidegate.core.prefix import Prefixes
from tidegate.core.prompts import Given
from tidegate.core.reserve import Reservation, missed_s, unpredicted
from tidegate.core.ruled import break_usd
from tidegate.core.sampling import stands_for
from tidegate.core.slots import free_s
from tidegate.core.state import EndpointState
from tidegate.core.timing import COLUMN_OF, COLUMNS, LENGTH_EDGES, SHIPPED_ROW, Timing

# Prompt tokens that an engine of ours is given beyond what it computes: enough for its next iteration.
AHEAD_TOKENS: Final = 2000.0
# And at least as much as takes it so long: that a prompt is done is known when the loop of events comes to it, some
# hundredths of a second later where many stream, and until then an engine that is quicker would idle.
AHEAD_S_MIN: Final = 0.05
# What is predicted with a spread wider than that, as where caches surprise, is held against what all of the prompt
# takes: most are not, and each such look costs as much as the prediction.
WIDE: Final = 0.5


def fresh() -> EndpointState:
    """The state of an endpoint of which nothing is known but what its configuration says, which stands there."""
    return EndpointState(
        breaker=Breaker(),
        prefills=Prefills(),
        pace=Pace(),
    )


class EndpointModel:
    """Predicts for one endpoint, and passes on what attempts and probes tell to who learns from it. `base` reads;
    `started`, `uploaded`, `first`, `ended`, `probed` and `warmed` write."""

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
        state = fresh() if state is None else state
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

    def is_used(self, now_s: float) -> bool:
        """Whether anything is under way, of ours or, as far as it tells, of others."""
        return bool(self._reservations) or (self.others.told and self.others.at(now_s).running > 0.0)

    def is_one_with(self, other: "EndpointModel") -> bool:
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
            cached = all_cached(prompt or asked(request))
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
        outcomes: tuple[tuple[float, float], ...] = ()
        if cached_tokens_mean:
            sure_s, mean_s, outcomes = parts.outcomes(cached, cached_tokens, first_s, factors, ttft, stretch)
            prefill_s_mean = max(0.0, prefill_s + mean_s - first_s) * mean_ratio
        # Of what is promised: with what is cached for sure.
        most_s = first_s if first_s > sure_s else sure_s
        spread = _spread(network_s, network_s2, most_s, ttft.sigma, timing.deviations)
        if spread > WIDE and cached_tokens and not come:
            # What is cached may be a surprise, and makes nothing slower.
            whole = self._ttft(tokens, 0.0, queue_s, tpot_s, moment, now_s, come)
            whole_s = max(network_s + self._widen(whole, unsure_s, moment, now_s) * whole.median_s, most_s)
            high = _spread(network_s, network_s2, whole_s, whole.sigma, timing.deviations)
            spread = min(spread, max(WIDE, high + log(whole_s / most_s) / timing.deviations))
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
            timing.deviations,
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
        if cached_tokens and not come and row != (whole_row := place_of(LENGTH_EDGES, tokens)):
            # Whatever corrections say of short prompts: what is cached makes none slower. But what is learned of it is
            # of short ones: a tenth of a second more or less says nothing of how long all of this prompt would take.
            ttft = min(ttft, timing.ttft.predict(first, whole_row, 0, now_s), key=_median_s)
            ttft.row = row
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

    def slots_free_s(self, now_s: float) -> list[float]:
        """When each of the `places` is expected to be free, soonest first."""
        if self._slots is not None and self._slots[0] == now_s:
            return self._slots[1]
        busy = free_s([(begins_s(r, now_s), ends_s(r, now_s)) for r in self.state.reservations.values()], now_s)
        places = self.places
        free = [now_s] * max(0, places - len(busy))
        # Filled beyond them (fail-over does that): as many must end as there are too many.
        slots_s = free + busy[max(0, len(busy) - places) :]
        self._slots = (now_s, slots_s)
        return slots_s

    def prompts_done_s(self, now_s: float) -> float:
        """When the prompts that it has are expected to be computed; now, where that holds up nobody."""
        if not self._shares_compute:
            return now_s
        shared = self.others.told and self.others.at(now_s).running > 0.0
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

    # --- learning -----------------------------------------------------------------------------------------------

    def started(self, fact: Started, base: Base, now_s: float, turns: Turns | None = None) -> None:
        """Reserve. `base` is what this model predicts of it now, `turns` what is known of its conversation."""
        state, in_flight = self.state, len(self.state.reservations)
        self._prompts.pass_unseen(now_s)
        self.prefixes.settle(now_s)
        pass_until(self._pace, in_flight, now_s)
        warm_s = max(base.warm_s, base.sure_s)
        output_row = place_of(OUTPUT_EDGES, base.output_tokens)
        kind = base.ttft.row * OUTPUT_ROWS + output_row
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
            output_row=output_row,
            ttft=base.ttft,
            tpot=base.tpot,
            prefill_s=self.timing.prompt_s(base.ttft.parts),
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
                believed_s=base.network_s + sum_of(self.timing.parts.first_believed, base.ttft.parts),
            ),
            output_tokens_high=int(base.length.high_tokens),
            promised_tpot_s=self.capacity.promised(fact, base, self.timing, now_s),
            said_tokens=fact.said_tokens,
            target=fact.target,
            shipped=fact.shipped,
            stream=fact.stream,
            carried=self._line.sent(fact.prompt_bytes, self.network.upload_bytes_per_s, now_s),
            sampled=stands_for(state.sampling, kind, fact.request_id, now_s) > 0.0,
        )
        if self.owned:
            reservation.engine_s = self.engine_s(reservation, base.occupies_s)
        state.reservations[fact.request_id] = reservation
        self._waits_for_load = self._waits_for_load or reservation.load_s_mean > 0.0
        self.memory.started(reservation)
        self._context_tokens += reservation.prompt_tokens
        self._prompts.add(fact.request_id, reservation)
        if self._shares_compute:
            came(self._pace, reservation.prefill_s)
        self.health.started(fact, now_s)
        self._slots = None

    def uploaded(self, fact: Uploaded, now_s: float) -> None:
        """Take in how long a request was on its way: of this one it is known now, and need not be predicted."""
        sent = self.state.reservations.get(fact.request_id)
        if sent is None:
            # Bytes that serve nothing, and the question without them before: beside a request's bytes, both waited.
            looked_s = now_s - fact.seconds - 2.0 * self.network.rtt_s
            if not self._is_sending() and not self.network.timed_since(looked_s):
                self.network.learn_upload(fact.upload_bytes, fact.seconds, now_s, at_most=fact.at_most)
            return
        self._learn_rate(fact, sent, now_s)
        network_s = self.network.rtt_s + fact.seconds
        if fact.at_most:
            network_s = min(network_s, sent.network_s)
        self._arrives(sent, network_s)
        self.memory.answers()
        self._slots = None

    def _learn_rate(self, fact: Uploaded, sent: Reservation, now_s: float) -> None:
        """Of the way there; what was on it before this request took a part of its seconds."""
        upload_bytes, seconds = fact.upload_bytes, fact.seconds
        if (carried := sent.carried) is not None:
            at_s = sent.started_s + seconds
            # Should it have been idle meanwhile, the request's own seconds tell the more.
            if not fact.at_most and carried.upload_bytes * seconds > upload_bytes * (at_s - carried.since_s):
                upload_bytes, seconds = carried.upload_bytes, at_s - carried.since_s
            self._line.arrived(carried, at_s)
        self.network.learn_upload(upload_bytes, seconds, now_s, at_most=fact.at_most)

    def first(self, request_id: str, now_s: float) -> Reservation | None:
        """Its prefill is done. Returns its reservation."""
        reservation = self.state.reservations.get(request_id)
        if reservation is not None and reservation.first_s is None:
            self._prompts.pass_unseen(now_s)
            reservation.first_s = now_s
            self.memory.answers()
            ttft_s = now_s - reservation.started_s
            self._used(now_s)
            was_limited = self.health.is_limited
            self.health.first(request_id, ttft_s, reservation.ttft_s, len(self.state.reservations), now_s)
            if was_limited or self.health.is_limited:
                self._seat(now_s)
            self.cold.learn_first(reservation, ttft_s, now_s)
            self.late.first(reservation, ttft_s)
            self._prompts.done(request_id, now_s, computed=True)
            self._slots = None
            if (given := reservation.given) is not None:
                self.prefixes.put(given, now_s)
            if reservation.sampled:
                self.timing.first(reservation, ttft_s, now_s, cache_told=self.prefixes.told)
        return reservation

    def ended(self, fact: Ended, now_s: float) -> Reservation | None:
        """Release, and learn what this ending teaches. Returns the reservation it releases."""
        state = self.state
        self._prompts.pass_unseen(now_s)
        in_flight = len(state.reservations)
        reservation = state.reservations.pop(fact.request_id, None)
        if reservation is None:
            return None
        pass_until(self._pace, in_flight, now_s)
        if not state.reservations:
            self._line.clear(now_s)
        # Of an answer in one piece nobody knows when it began.
        without_s = missed_s(reservation, fact.e2e_s)
        waited_s = fact.ttft_s if fact.ending is Ending.OK else without_s
        # What a client's own mistake is answered with takes no model.
        served = fact.ending is Ending.OK and not fact.cause
        if reservation.first_s is None and waited_s is not None:
            self.late.gave_nothing(reservation, waited_s)
        self._context_tokens -= reservation.prompt_tokens
        self.others.ended(reservation, now_s)
        self.memory.ended(reservation, now_s)
        if reservation.first_s is not None or served:
            self._used(now_s)
        self.cold.ended(in_flight - 1, now_s)
        self._prompts.done(fact.request_id, now_s, computed=served)
        self._slots = None
        hot = self.cold.was_hot(reservation.cold)
        was_limited = self.health.is_limited
        silent = self.health.ended(fact, reservation, in_flight, now_s, hot=hot)
        if was_limited or self.health.is_limited or state.batch.less:
            self._seat(now_s)
        if reservation.given is not None:
            self._learn_cached(reservation, reservation.given, fact, now_s)
        if not reservation.teaches:
            return reservation
        if reservation.first_s is None and served:
            self.cold.learn_whole(reservation, fact, now_s)
        if reservation.sampled:
            self.timing.judge(reservation, fact, now_s)
        self.capacity.learn(reservation, fact, now_s)
        self._slots = None
        unexplained = False
        if fact.ttft_s is None and fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT):
            # Who is there again is as quick as before, so that it was away says nothing of times. But of one that was
            # never measured there is no before: it may as well be slower than was believed, and would be given up for
            # ever. Where somebody else answered meanwhile, little was waited for, and a load is as good a reason.
            away = silent and (fact.ending is Ending.CANCELLED or reservation.ttft.trust > TRUST_MIN)
            loads = not (silent and hot) and self.cold.explains(reservation, without_s, now_s)
            unexplained = not (loads or away)
        if reservation.sampled:
            self._learn_times(reservation, fact, now_s, unexplained=unexplained)
        return reservation

    def keep_books(self, fact: Started | Ended, now_s: float) -> None:
        """What holds a place here, where the model could not take in that an attempt began or ended: of one that began
        nothing is predicted, and of one that is over nothing is learned."""
        reservations, breaker = self.state.reservations, self.state.breaker
        if isinstance(fact, Started):
            if fact.request_id not in reservations:
                reservations[fact.request_id] = unpredicted(fact, now_s)
            breaker.started(fact.request_id, now_s)
        else:
            reservations.pop(fact.request_id, None)
            if breaker.trial == fact.request_id:
                breaker.learn(fact.request_id, fact.ending, now_s)
        self._context_tokens = sum([r.prompt_tokens for r in reservations.values()])
        self._slots = None
        self._prompts.line_up()
        self.memory = Memory(self.state.memory, reservations, owned=self.owned)
        self._declare_memory()
        self.capacity = Capacity(self.endpoint, self.memory, self.health, self.state)

    def probed(self, fact: Probed, now_s: float) -> None:
        """Take in what a probe saw."""
        if fact.resident is False or (fact.up and not self.state.up):
            self.prefixes.forget()
        self.health.probed(up=fact.up, now_s=now_s)
        self._seat(now_s)
        self.state.up = fact.up
        self.cold.told(fact.resident, now_s, loading=fact.loading)
        self.late.probed()
        if self._shares_compute and fact.running is not None:
            measured_s = now_s if fact.measured_s is None else fact.measured_s
            self.others.report(fact.running, fact.queued, self.state.reservations.values(), measured_s, now_s)
        if fact.up:
            self._remember(fact, now_s)
        if fact.rtt_s is not None:
            before_s = self.network.rtt_s
            self.network.learn_rtt(fact.rtt_s, now_s)
            self._rerouted(self.network.rtt_s - before_s)
            self.late.settle(self.timing, now_s)
        if fact.context_tokens is not None:
            self.state.context_tokens = fact.context_tokens
        if fact.capabilities is not None:
            self.state.capabilities = fact.capabilities
            self.capabilities = frozenset(fact.capabilities)
        if fact.fingerprint is not None:
            self._recognise(fact.fingerprint, now_s)

    def _rerouted(self, longer_s: float) -> None:
        """The round trip is another one: what is under way may have gone there in it already."""
        if abs(longer_s) < RTT_NOISE_S:
            return
        for sent in (*self.state.reservations.values(), *(one.sent for one in self.state.late)):
            ttft_s, first_s = sent.ttft_s, sent.ttft_s + longer_s
            # Whose first content has come tells by its time; the engine must not be blamed for what the network did.
            if sent.first_s is None or abs(sent.first_s - sent.started_s - first_s) < abs(
                sent.first_s - sent.started_s - ttft_s
            ):
                self._arrives(sent, sent.network_s + longer_s)
        self.memory.answers()
        self._slots = None

    def _arrives(self, sent: Reservation, network_s: float) -> None:
        """It takes so long to get there and for its first content to come back, and not as long as was believed."""
        expected_s = looked_at_s(sent)
        sent.first_s_mean += network_s - sent.network_s
        sent.network_s = network_s
        self._prompts.begins(sent, looked_at_s(sent), expected_s)

    def _learn_times(self, sent: Reservation, fact: Ended, now_s: float, *, unexplained: bool) -> None:
        """How long it took, or that nothing came for so long, `unexplained` by a load or an engine that is down."""
        if fact.ttft_s is None:
            if fact.ending is Ending.OK and not fact.cause:
                self.timing.learn_whole(sent, fact, now_s)
            elif unexplained:
                self.timing.learn_silence(sent, missed_s(sent, fact.e2e_s), now_s)
        else:
            self.late.learn(self.timing, sent, fact, fact.ttft_s, now_s)

    def _recognise(self, told: Fingerprint, now_s: float) -> None:
        """Take in what it says of its model; of another one nothing is known yet of how long it takes."""
        state, identity, before = self.state, self.identity, self.identity.fingerprint
        another = identity.recognise(told)
        if another:
            self.cold.forget_loads()
        if differs(before, identity.fingerprint, OF_THE_MODEL):
            self.prefixes.forget()
        prior = identity.prior()
        if prior != self.prior:
            another = True
            for reservation in state.reservations.values():
                reservation.teaches = False
        if another:
            state.late = []
            self.prior = prior
            state.ttft = state.tpot = None
            state.e2e = unjudged(OUTPUT_ROWS)
            state.batch = Batch()
            self._seat(now_s)
            self.timing = Timing(self.endpoint, prior, self._quantile, state, self.others)
        self._declare_memory()
        self.cold.expects(identity.load_s(), self.prior.unload_after_s)

    def _remember(self, fact: Probed, now_s: float) -> None:
        """Take in what it tells of its memory."""
        self.memory.report(fact, now_s)
        self._seat(now_s)

    def _seat(self, now_s: float) -> None:
        """What it takes at once may have changed."""
        self.capacity.settle(now_s)
        self._slots = None

    def _declare_memory(self) -> None:
        machine = self.endpoint.machine
        sure = machine is not None and machine.model is not None
        self.memory.declare(self.identity.memory_tokens(), sure=sure)

    def warmed(self, took_s: float | None, now_s: float) -> None:
        """A load for nobody in particular is over: the model was there after `took_s`, None where it could not be
        loaded."""
        if took_s is not None:
            self._loaded(now_s)
            self.state.heard_s = max(self.state.heard_s, now_s)
            self.memory.answers()
            self._slots = None
        self.cold.end_warm_up(took_s, now_s)

    def _used(self, now_s: float) -> None:
        """The model is there."""
        self._loaded(now_s)
        self.cold.used(now_s)

    def _loaded(self, now_s: float) -> None:
        """What waited for a load waits no more."""
        if not self._waits_for_load:
            return
        self._waits_for_load = False
        for sent in self.state.reservations.values():
            if sent.load_s_mean:
                waited, expected_s = sent.load_s > 0.0, looked_at_s(sent)
                loaded(sent, now_s)
                if waited:
                    self._prompts.begins(sent, max(looked_at_s(sent), now_s), expected_s)

    def _learn_cached(self, sent: Reservation, given: Given, fact: Ended, now_s: float) -> None:
        served = fact.ending is Ending.OK and not fact.cause
        if served and not given.computed:
            # Its first token was not seen.
            self.prefixes.put(given, now_s)
        # What has come from elsewhere says nothing of what is kept here.
        cached_tokens = fact.cached_tokens if served and not sent.shipped else None
        self.prefixes.learn(given, fact.output_tokens or 0, fact.prompt_tokens, cached_tokens, now_s)


def _spread(network_s: float, network_s2: float, first_s: float, sigma: float, deviations: float) -> float:
    """That of the logarithm of `first_s`: what the engine makes of it scatters by `sigma`, and the way there does not;
    how long that is may be another matter, by a variance of `network_s2`."""
    own = of_sum(network_s / first_s, sigma, deviations)
    return sqrt(own * own + network_s2 / (first_s * first_s))


def _median_s(predicted: Sent) -> float:
    return predicted.median_s
