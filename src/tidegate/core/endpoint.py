"""One endpoint: what is under way there, and who learns from what becomes of it."""

from tidegate.core import breaker
from tidegate.core.base import Base
from tidegate.core.batch import Batch
from tidegate.core.calibration import unjudged
from tidegate.core.capacity import Capacity
from tidegate.core.counts import Turns
from tidegate.core.edges import place_of
from tidegate.core.estimator import Estimator
from tidegate.core.fingerprint import OF_THE_MODEL, differs
from tidegate.core.inflight import loaded, looked_at_s, missed_s
from tidegate.core.latency import TRUST_MIN, sum_of
from tidegate.core.line import send
from tidegate.core.memory import Memory
from tidegate.core.model import (
    Ended,
    Ending,
    Fingerprint,
    Probed,
    Started,
    Uploaded,
)
from tidegate.core.network import RTT_NOISE_S
from tidegate.core.output import OUTPUT_EDGES, OUTPUT_ROWS
from tidegate.core.pace import came, pass_until
from tidegate.core.parts import LIKELY
from tidegate.core.prompts import Given
from tidegate.core.reserve import Reservation, unpredicted
from tidegate.core.sampling import stands_for
from tidegate.core.timing import Timing


class EndpointModel(Estimator):
    """Keeps the books of what is under way at one endpoint, and passes on what attempts and probes tell to who learns
    from it: `started`, `uploaded`, `first`, `ended`, `probed` and `warmed` write, all else reads."""

    __slots__ = ()

    def started(self, fact: Started, base: Base, now_s: float, turns: Turns | None = None, beginning: int = 0) -> None:
        """Reserve. `base` is what this model predicts of it now, `turns` what is known of its conversation, and
        `beginning` what that is known by, where it has no session."""
        state, in_flight = self.state, len(self.state.reservations)
        self._prompts.pass_unseen(now_s)
        self.prefixes.settle(now_s)
        pass_until(self._pace, in_flight, now_s)
        warm_s, warm_s_high = max(base.warm_s, base.sure_s), base.warm_s_high
        output_row = place_of(OUTPUT_EDGES, base.output_tokens)
        kind = base.ttft.row * OUTPUT_ROWS + output_row
        cold = self.cold.started(
            warm_s,
            base.sigma,
            now_s,
            in_flight,
            measured=base.ttft.trust > 0.0,
            believed_s=base.network_s + sum_of(self.timing.parts.first_believed, base.ttft.parts),
        )
        # By their places, as a `Base` has its fields: of so many keywords, each is searched for among all of them.
        reservation = Reservation(
            now_s,
            fact.klass,
            fact.prompt_tokens,
            fact.output_tokens_max,
            fact.completions,
            base.network_s,
            base.first_s,
            # `ttft_s_high`; the same, where nothing need be loaded: a quantile of several outcomes is dear.
            warm_s_high if base.outcomes and not base.cold_share else base.first_s_high,
            warm_s_high,
            base.e2e_s_high,
            output_row,
            base.ttft,
            base.tpot,
            self.timing.prompt_s(base.ttft.parts),
            base.first_s_mean,
            base.decode_s_mean,
            base.length.ahead(),
            None,  # first_s
            fact.model,
            fact.key,
            base.trust,
            base.gain,
            base.stretch,
            fact.session,
            beginning,
            turns,
            base.cached.at_least(LIKELY),
            self.prefixes.given(fact.prefix, fact.prompt_tokens, base.cached, now_s),
            False,  # corrected
            True,  # teaches
            stands_for(state.sampling, kind, fact.request_id, now_s) > 0.0,
            base.load_s if base.cold_share > 0.5 else 0.0,
            base.load_s_mean,
            cold,
            False,  # was_cold
            int(base.length.high_tokens),
            self.capacity.promised(fact, base, self.timing),
            0.0,  # engine_s
            False,  # rest
            False,  # raced
            0.0,  # hedge_usd
            send(self._line, fact.prompt_bytes, self.network.upload_bytes_per_s, now_s),
            fact.said_tokens,
            fact.target,
            fact.shipped,
            fact.stream,
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
        reservations, known = self.state.reservations, self.state.breaker
        if isinstance(fact, Started):
            if fact.request_id not in reservations:
                reservations[fact.request_id] = unpredicted(fact, now_s)
            breaker.started(known, fact.request_id, now_s)
        else:
            reservations.pop(fact.request_id, None)
            if known.trial == fact.request_id:
                breaker.learn(known, fact.request_id, fact.ending, now_s)
        self._context_tokens = sum([r.prompt_tokens for r in reservations.values()])
        self._slots = None
        self._prompts.line_up_anew(now_s)
        self.memory = Memory(self.state.memory, reservations, owned=self.owned)
        self._declare_memory()
        self.capacity = Capacity(self.endpoint, self.memory, self.health, self.state)

    def probed(self, fact: Probed, now_s: float) -> None:
        """Take in what a probe saw."""
        back = fact.up and not self.state.up
        if back or fact.resident is False:
            self.prefixes.forget()
        self.health.probed(up=fact.up, now_s=now_s)
        self._seat(now_s)
        self.state.up = fact.up
        self.identity.looked()
        self.cold.told(fact.resident, now_s, loading=fact.loading, back=back)
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
