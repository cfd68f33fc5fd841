"""Whether an endpoint serves what it is given, and how many it is given at once, by endings and probes."""

from typing import Final

from tidegate.core import breaker, failures, limit
from tidegate.core.failing import NEVER, Failing
from tidegate.core.headroom import tokens_counted
from tidegate.core.inflight import missed_s
from tidegate.core.model import Ended, Ending, Started
from tidegate.core.reserve import Reservation
from tidegate.core.state import EndpointState

# The cause an engine's dialect gives where the prompt did not fit after all: no fault of the endpoint.
CONTEXT_EXCEEDED: Final = "context_exceeded"
# And the one where it will not serve what is asked, which another endpoint may.
UNFIT: Final = "unfit"
# What a single request brings about, and would again: none of them is a fault of the endpoint.
OF_THE_REQUEST: Final = (CONTEXT_EXCEEDED, UNFIT)
# The cause where the KV cache that was to be used was not there any more: the endpoint itself was not even asked.
GONE: Final = "gone"
# What is said of a request that is at fault itself, wherever it goes.
CLIENT_ERROR: Final = "client_error"
# What a gateway and a simulated world say of a refusal that is for a quota of ours, however busy it is.
QUOTA: Final = frozenset({"status_429", "rate_limited"})
# Causes for which nobody sends a bill: it was not accepted, never arrived, or was never sent.
UNBILLED: Final = frozenset({CLIENT_ERROR, GONE, "connect_timeout", "no_descriptor", "ledger"})
# An endpoint that asks for more peace than this is tried again all the same: one request an hour harms nobody.
RETRY_AFTER_S_MAX: Final = 3600.0
# First content that is there within a quarter of a second strains no promise; and when hundreds come at once, the loop
# that looks at the clock is as late itself.
STRAIN_S_MIN: Final = 0.25


class Health:
    """One endpoint's breaker, failures, limit and allowances, and when it was heard from last.

    `places`, `is_limited` and `failing` read.
    """

    __slots__ = ("_concurrency", "_failures", "_state")

    def __init__(self, concurrency: int, state: EndpointState) -> None:
        """`concurrency` is what is configured."""
        self._concurrency, self._state, self._failures = concurrency, state, state.failures

    def places(self, places: int) -> int:
        """How many of so many are used."""
        return self._state.limit.of(places)

    @property
    def is_limited(self) -> bool:
        """Whether fewer are used than there are, or may be once this moment is over."""
        known = self._state.limit
        return known.most > 0.0 or known.ramp > 0.0 or known.refused > 0 or bool(known.denied)

    def failing(self, now_s: float) -> Failing:
        """How many of its attempts fail between others that serve."""
        seen = self._failures
        # Mostly nothing fails, and every prediction asks.
        return failures.at(seen, now_s) if seen.failed or seen.broke else NEVER

    def started(self, fact: Started, now_s: float) -> None:
        """An attempt is sent."""
        breaker.started(self._state.breaker, fact.request_id, now_s)
        allowances = self._state.allowances
        if allowances.requests is not None or allowances.tokens is not None:
            allowances.take(tokens_counted(fact), now_s)

    def first(self, request_id: str, ttft_s: float, predicted_s: float, in_flight: int, now_s: float) -> None:
        """First content came, `ttft_s` after it was sent: it bears what it has been given, or takes longer under it
        than it should. That of a trial says that it is there again, however long the answer goes on."""
        state = self._state
        state.heard_s = max(state.heard_s, now_s)
        if breaker.first(state.breaker, request_id):
            state.limit.came_back(in_flight, now_s)
        else:
            breaker.answers(state.breaker, now_s - ttft_s)
            self._bears(ttft_s, predicted_s, in_flight, now_s)

    def ended(self, fact: Ended, sent: Reservation, in_flight: int, now_s: float, *, hot: bool) -> bool:
        """One of so many attempts is over. Whether it was given up in a silence that counts as an outage. Whoever is
        silent that was not `hot`, used just before, may be loading its model."""
        state = self._state
        was_open, silent = state.breaker.openings > 0, self._is_silent(sent, fact, now_s)
        # A prompt that did not fit teaches what a client that left would.
        ending = Ending.CANCELLED if fact.cause in OF_THE_REQUEST else fact.ending
        if silent:
            ending = Ending.TIMED_OUT
        back_s = state.limit.back_s
        if ending is not Ending.OK and sent.started_s < back_s and (sent.first_s is None or sent.first_s < back_s):
            # Sent before it went away and came back: that it was lost is known. Who has begun to answer since then, as
            # its trial does, fails by itself.
            ending = Ending.CANCELLED
        breaker.learn(state.breaker, fact.request_id, ending, now_s)
        self._count(ending, fact.e2e_s, now_s, begun=sent.first_s is not None, loads=silent and not hot)
        if was_open and not state.breaker.openings:
            state.limit.came_back(in_flight - 1, now_s)
        elif ending is Ending.REFUSED:
            limit.settle(state.limit, self._concurrency, now_s)
            state.limit.refuse(in_flight, now_s, quota=fact.cause in QUOTA)
        elif ending is Ending.OK and sent.first_s is None:
            if fact.ttft_s is not None:
                self._bears(fact.ttft_s, sent.ttft_s, in_flight, now_s)
            elif fact.output_tokens is not None:
                # All of it in one piece: what strained it is in the whole.
                self._bears(fact.e2e_s, _whole_s(sent, fact.output_tokens), in_flight, now_s)
            else:
                # Whether it strained nobody can tell, but it was borne.
                limit.settle(state.limit, self._concurrency, now_s)
                limit.answer(state.limit, in_flight, now_s)
        if fact.retry_after_s is not None:
            state.not_before_s = max(state.not_before_s, now_s + min(fact.retry_after_s, RETRY_AFTER_S_MAX))
        return silent

    def probed(self, *, up: bool, now_s: float) -> None:
        """A probe came back, or did not; with it `state.up` is to change."""
        state = self._state
        # What was found of its limit is forgotten with time, also where nobody asks.
        limit.settle(state.limit, self._concurrency, now_s)
        if up and not state.up:
            # Whatever it failed at before: it is there again, and one request finds out whether it serves.
            state.breaker.reachable(now_s)
            if state.limit.away:
                state.limit.came_back(len(state.reservations), now_s)
        elif state.up and not up:
            state.limit.away = True

    def _count(self, ending: Ending, after_s: float, now_s: float, *, begun: bool, loads: bool) -> None:
        state = self._state
        if ending is Ending.OK:
            state.heard_s = max(state.heard_s, now_s)
            failures.served(self._failures, now_s)
        elif state.breaker.openings:
            failures.goes_away(self._failures)
        elif ending in (Ending.FAILED, Ending.TIMED_OUT) and not loads:
            failures.fail(self._failures, after_s, now_s, begun=begun)

    def _bears(self, ttft_s: float, predicted_s: float, in_flight: int, now_s: float) -> None:
        known = self._state.limit
        limit.settle(known, self._concurrency, now_s)
        limit.answer(known, in_flight, now_s)
        limit.took(known, max(ttft_s, STRAIN_S_MIN), max(predicted_s, STRAIN_S_MIN), in_flight, now_s)

    def _is_silent(self, sent: Reservation, fact: Ended, now_s: float) -> bool:
        """Whether it was overdue when it was given up, and nobody has heard from here since it was sent.

        Then it is not slow, but away. A model that may have to be loaded first is silent for that reason.
        """
        if sent.first_s is not None or fact.ending not in (Ending.CANCELLED, Ending.TIMED_OUT) or sent.load_s_mean:
            return False
        if fact.cause == GONE:
            return False
        return self._state.heard_s < sent.started_s and missed_s(sent, now_s - sent.started_s) > sent.ttft_s_high


def _whole_s(sent: Reservation, output_tokens: int) -> float:
    """How long an answer of so many tokens was predicted to take."""
    # Several completions are decoded side by side: a step yields one token of each.
    return sent.ttft_s + max(0.0, output_tokens / sent.completions - 1.0) * sent.tpot.median_s
