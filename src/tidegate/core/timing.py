"""The times of one endpoint, to first content, per token and end to end: what attempts teach of them, and promises."""

from bisect import bisect_left
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Final

from tidegate.core.calibration import Promises
from tidegate.core.latency import Latency, Sent
from tidegate.core.load import LOAD_EDGES
from tidegate.core.model import Ended, Ending, Endpoint, Prior
from tidegate.core.others import Others
from tidegate.core.output import OUTPUT_ROWS
from tidegate.core.parts import ENGINE_S_MIN, FIRST_MEASURED, TPOT_S_MIN, Parts
from tidegate.core.reserve import Reservation
from tidegate.core.state import EndpointState

# Uncached prompt tokens: what parts of a prefill do not explain differs by the length of the prompt.
LENGTH_EDGES: Final[tuple[float, ...]] = (64.0, 256.0, 1024.0, 4096.0, 16384.0)
# Whose KV cache has come from elsewhere: that is restored, and one token computed, as of no prompt of any length.
SHIPPED_ROW: Final = len(LENGTH_EDGES) + 1
ROWS: Final = len(LENGTH_EDGES) + 2
COLUMNS: Final = len(LOAD_EDGES) + 1
# The column of so many others in flight; of more than these it is the last one.
COLUMN_OF: Final = [bisect_left(LOAD_EDGES, load) for load in range(LOAD_EDGES[-1] + 1)]
# Shorter outputs say little about the time per token.
TPOT_TOKENS_MIN: Final = 4
# Of one that is as short, a single prompt of others is half of the time: it says half as much of a change.
SHORT_TOKENS: Final = 16.0
# Of an answer that comes in one piece, a part that makes less of it than this is not told by how long it took.
TELLING_SHARE: Final = 1.0 / 3.0
# How much of a sample it is for other kinds what is left of a prompt that was computed elsewhere.
TELLING_SHIPPED: Final = 0.02
# Seven in a hundred prompts of those that were not cached are as much sooner than expected.
QUICK_DEVIATIONS: Final = 1.5


class Timing:
    """What times are made of at one endpoint. `first`, `judge`, `learn`, `learn_whole` and `learn_silence`
    write, the rest reads.

    `ttft` is the engine's share of the time to first content and `tpot` the time per token, both sums of `parts`.
    Promises lie so many `deviations` above the median, at the quantile.
    """

    __slots__ = ("_e2e", "_local", "_others", "deviations", "parts", "stretches", "tpot", "ttft")

    def __init__(self, endpoint: Endpoint, prior: Prior, quantile: float, state: EndpointState, others: Others) -> None:
        """What was learned on top of the prior, or nothing yet: then it begins in `state`."""
        self._others, self._local = others, endpoint.local
        self.deviations = NormalDist().inv_cdf(quantile)
        self.parts = parts = Parts(endpoint, prior)
        self.ttft = Latency(parts.first_believed, FIRST_MEASURED, ROWS, 1, prior.sigma, quantile, state.ttft)
        self.tpot = Latency(parts.token_believed, (), 1, COLUMNS, prior.sigma, quantile, state.tpot)
        state.ttft, state.tpot = self.ttft.learned, self.tpot.learned
        self._e2e = Promises(OUTPUT_ROWS, quantile, state.e2e)
        # By `OUTPUT_EDGES`, as `stretch` found them; 0 is not known yet.
        self.stretches = [0.0] * OUTPUT_ROWS

    # --- reading ------------------------------------------------------------------------------------------------

    def stretch(self, row: int) -> float:
        """By how much more than its parts say the time end to end scatters, of outputs of this row."""
        found = self.stretches[row] = self._e2e.stretch(row)
        return found

    @staticmethod
    def tpot_s(sent: Reservation, fact: Ended) -> float | None:
        """The time per token of an answer that came to its end; None where it was too short to tell."""
        # Several completions are decoded side by side: a step yields one token of each.
        tokens = (fact.output_tokens or 0) / sent.completions
        if fact.ttft_s is None or fact.ending is not Ending.OK or tokens < TPOT_TOKENS_MIN:
            return None
        return max((fact.e2e_s - fact.ttft_s) / (tokens - 1.0), TPOT_S_MIN)

    def prompt_s(self, parts: list[float]) -> float:
        """What a prompt keeps the engine busy with. Corrections are not in it: they would feed on themselves.

        Of what every prompt takes, however short, it keeps others waiting for as much as its tokens fill of an
        iteration: those that are computed in the same one have it in common.
        """
        factors, filled = self.ttft.factors, parts[1] / self.parts.chunk_s
        overhead_s = factors[0] * parts[0]
        if filled < 1.0:
            overhead_s *= filled
        return overhead_s + factors[1] * parts[1] + factors[2] * parts[2]

    # --- learning -----------------------------------------------------------------------------------------------

    def _settle(self, now_s: float) -> None:
        """Before anything is learned: what belongs to moments of times to first content is over with them."""
        if now_s > self.ttft.learned.shift.at_s and self._e2e.settle():
            self.stretches = [0.0] * OUTPUT_ROWS

    def first(self, sent: Reservation, ttft_s: float, now_s: float, *, cache_told: bool) -> None:
        """Its first content is here. `cache_told`: at its end, the engine will tell what was cached."""
        self._settle(now_s)
        if not self._waits(sent, ttft_s, cache_told=cache_told):
            self._correct_ttft(sent, sent.ttft, ttft_s, now_s)
        elif self._local and not sent.was_cold and ttft_s > sent.warm_s_high:
            # Later than with nothing cached it is for the engine, whatever was cached.
            whole = sent.ttft.had(self.ttft.factors, self.parts.computed(sent.ttft, sent.prompt_tokens, 0.0))
            if ttft_s - sent.network_s > sent.stretch * whole.high_s(self.deviations):
                self._correct_ttft(sent, whole, ttft_s, now_s)

    def judge(self, sent: Reservation, fact: Ended, now_s: float) -> None:
        """Whether the promise of the whole was kept."""
        self._settle(now_s)
        # Who left before it was late does not tell whether it would have been; a load is another cause.
        missed = fact.e2e_s > sent.e2e_s_high
        known = fact.ending is Ending.OK or (missed and fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT))
        first, rest = self.ttft.holds_since(sent.started_s, now_s), self.tpot.holds_since(sent.started_s, now_s)
        if known and first and rest and not sent.was_cold:
            self._e2e.learn(sent.output_row, missed)
            self.stretches = [0.0] * OUTPUT_ROWS

    def learn(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        """It has ended after it had shown content."""
        self._settle(now_s)
        # What a load explains says nothing of how fast the engine is.
        if not sent.was_cold:
            self._fit_ttft(sent, fact, ttft_s, now_s)
        self._learn_tpot(sent, fact, ttft_s, now_s)

    def learn_whole(self, sent: Reservation, fact: Ended, now_s: float) -> None:
        """Of an answer that came in one piece it is known how long all of it took: what it is off is in its prompt and
        in its tokens by as much as each makes of it.

        Answers of other lengths are made up otherwise, so in time each part is as long as it has to be. That says where
        the middle is; nobody saw how far each scatters around it, so promises of either are not judged.
        """
        self._settle(now_s)
        took_s = fact.e2e_s - sent.network_s
        if sent.was_cold or fact.output_tokens is None or took_s <= 0.0:
            return
        tokens = fact.output_tokens / sent.completions
        rest_s = max(0.0, tokens - 1.0) * sent.tpot.median_s
        ttft = self.parts.told(sent, fact, max(took_s - rest_s, ENGINE_S_MIN), self.ttft.factors)
        first_s = sent.stretch * ttft.median_s
        whole_s = first_s + rest_s
        first = first_s / whole_s
        rest = 1.0 - first
        # The least that has to change for the sum to be right, to first order.
        error = log(max(took_s, ENGINE_S_MIN) / whole_s) / (first * first + rest * rest)
        share = _share_alone(sent)
        if first >= TELLING_SHARE:
            found_s = max(ttft.median_s * exp(first * error), ENGINE_S_MIN)
            parts, telling = self._computed(sent, fact), _telling(sent)
            self.ttft.correct(ttft, found_s, 1.0, None, sent.started_s, now_s, first * share, telling)
            if ttft is sent.ttft:
                self.ttft.amend(sent.ttft, parts, found_s, sent.started_s, now_s)
            if not sent.shipped:
                self.ttft.fit(sent.ttft, parts, found_s, now_s, now_s)
        if rest >= TELLING_SHARE and tokens >= TPOT_TOKENS_MIN:
            found_s = max(sent.tpot.median_s * exp(rest * error), TPOT_S_MIN)
            self.tpot.correct(sent.tpot, found_s, 1.0, None, sent.started_s, now_s, rest * share)
            self.tpot.fit(sent.tpot, sent.tpot.parts, found_s, now_s, now_s)

    def learn_silence(self, sent: Reservation, waited_s: float, now_s: float) -> None:
        """It was given up before any content, for no load: the time to first content is at least this."""
        self._settle(now_s)
        # Nothing may have been cached.
        predicted = sent.ttft
        if sent.cached_tokens:
            parts = self.parts.computed(predicted, sent.prompt_tokens, 0.0)
            predicted = predicted.had(self.ttft.factors, parts)
        took_s = max(waited_s - sent.network_s, ENGINE_S_MIN) / sent.stretch
        self.ttft.learn_at_least(predicted, took_s, waited_s > sent.warm_s_high, sent.started_s, now_s)

    def _waits(self, sent: Reservation, ttft_s: float, *, cache_told: bool) -> bool:
        """Whether it is better understood at its end.

        Where it depends on what was cached, and where it came sooner than expected, that has to be told first; what
        is later than promised may be the network, of which a probe will have told by then.
        """
        if sent.was_cold or (sent.given is not None and sent.given.spans and cache_told):
            return True
        if ttft_s > sent.warm_s_high:
            return not self._local
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
        if self._others.told:
            waits = self.ttft.factors[6] * predicted.parts[6] / predicted.raw_s
            alone_s = max((1.0 - waits) * predicted.median_s, ENGINE_S_MIN)
            self._others.met(sent.tpot.column, log(took_s / alone_s), sent.trust, now_s)
            if waits and sent.gain:
                self._others.waited(alone_s, waits * predicted.median_s / sent.gain, took_s / sent.stretch, now_s)
        missed = ttft_s > sent.warm_s_high
        share, telling = _share_alone(sent), _telling(sent)
        self.ttft.correct(predicted, took_s / sent.stretch, 1.0, missed, sent.started_s, now_s, share, telling)

    def _fit_ttft(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        took_s, parts = max(ttft_s - sent.network_s, ENGINE_S_MIN) / sent.stretch, self._computed(sent, fact)
        # Where something was expected to be cached, it may have been taken in by what was without.
        taken = None if sent.cached_tokens else sent.ttft
        if not sent.corrected:
            taken = self.parts.told(sent, fact, took_s, self.ttft.factors)
            self._correct_ttft(sent, taken, ttft_s, now_s)
        if ttft_s >= sent.network_s:
            if taken is sent.ttft:
                self.ttft.amend(sent.ttft, parts, took_s, sent.started_s, now_s)
            # What is restored is no part of what is predicted.
            if not sent.shipped:
                self.ttft.fit(sent.ttft, parts, took_s, sent.started_s + ttft_s, now_s)

    def _computed(self, sent: Reservation, fact: Ended) -> list[float]:
        """The parts of what was really computed, not of what the bytes suggested: the engine counts, and knows its
        cache."""
        if fact.prompt_tokens is None:
            return sent.ttft.parts
        tokens, cached_tokens = fact.prompt_tokens, sent.cached_tokens
        if fact.cached_tokens is not None:
            cached_tokens = float(fact.cached_tokens)
        elif cached_tokens:
            # Both as they were estimated, or both as they were counted.
            cached_tokens *= tokens / sent.prompt_tokens
        if (tokens, cached_tokens) == (sent.prompt_tokens, sent.cached_tokens):
            return sent.ttft.parts
        return self.parts.computed(sent.ttft, tokens, min(cached_tokens, tokens))

    def _learn_tpot(self, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        tpot_s = self.tpot_s(sent, fact)
        if tpot_s is not None:
            tokens = (fact.output_tokens or 0) / sent.completions
            missed = tpot_s > sent.tpot.high_s(self.deviations)
            share = _share_alone(sent) * tokens / (tokens + SHORT_TOKENS)
            self.tpot.correct(sent.tpot, tpot_s, tokens - 1.0, missed, sent.started_s, now_s, share)
            self.tpot.fit(sent.tpot, sent.tpot.parts, tpot_s, sent.started_s + ttft_s, now_s)


def _share_alone(sent: Reservation) -> float:
    """How much its times prove of a lasting change: those of several at once are late for the same reason."""
    return 1.0 / sqrt(1.0 + sent.tpot.column)


def _telling(sent: Reservation) -> float:
    """How much it tells of other kinds: a tenth of a second more is all that a KV cache takes that has come, and
    nothing of a prompt."""
    return TELLING_SHIPPED if sent.shipped else 1.0
