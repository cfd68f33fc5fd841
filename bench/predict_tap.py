"""What is seen of each attempt: what was predicted of it when it was sent, and what it came to.

A tap stands between a simulated world and its router. It passes everything on and changes nothing. All that it has to
know of the router's inside is in `predicted`.
"""

from collections.abc import Callable, Iterable
from math import exp, inf
from random import Random

import msgspec

from tidegate.core.base import Base
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Decision, Drawn, Ended, Ending, FirstToken, Observation, Request, Slo, Started, replace
from tidegate.core.reserve import Reservation
from tidegate.core.router import Router
from tidegate.core.value import attainment
from tidegate.core.why import Why

# Shorter outputs say little about the time per token.
TPOT_TOKENS_MIN = 4
DIGEST_TOKENS = 256

FEATURES = (
    "prompt_tokens",
    "seen_tokens",
    "in_flight",
    "waiting_tokens",
    "decoding",
    "context_tokens",
    "output_tokens",
    "prompt_bytes",
    "idle_s",
    "at_s",
)
"""What is known when an attempt is sent: the size of its prompt as estimated, and how much of it began earlier ones
that were sent there; others in flight, prompt tokens of those without content, how many have content, tokens of all
their prompts; the output that is expected; bytes; time since the endpoint was last used; time."""


class Predicted(msgspec.Struct, frozen=True, gc=False):
    """Medians and upper quantiles. `first_s_mean` and `tpot_s_mean` are what schedules add up. `attainment` is how
    likely it is that a promise is kept which was `drawn` for it: whatever is asked for, the answer has to be true."""

    ttft_s: float
    ttft_s_high: float
    tpot_s: float
    first_s_mean: float
    tpot_s_mean: float
    output_tokens: float
    e2e_s_high: float
    drawn: Slo
    attainment: float


class Row(msgspec.Struct, kw_only=True):
    """One attempt. `ttft_s` and `tpot_s` are None where they were not to be seen, `given_up_s` None where it had
    content: else it is when nobody waited for it any more."""

    request_id: str
    sent_s: float
    features: tuple[float, ...]
    predicted: Predicted
    ended_s: float = inf
    ttft_s: float | None = None
    tpot_s: float | None = None
    given_up_s: float | None = None
    e2e_s: float = 0.0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    def feature(self, name: str) -> float:
        """One of its features."""
        return self.features[FEATURES.index(name)]


def predicted(router: Router, request: Request, endpoint: str, now_s: float) -> Predicted:
    """What the router predicts of a request that is sent now."""
    length = router._known.lengths.of(request)
    base = router.endpoint(endpoint).base(request, length, now_s)
    return Predicted(
        base.first_s,
        base.first_s_high,
        base.tpot_s,
        base.first_s_mean,
        base.decode_s_mean / base.output_tokens,
        base.output_tokens,
        base.e2e_s_high,
        drawn := _drawn(request, base),
        attainment(replace(request, slo=drawn), base, 0.0),
    )


def _drawn(request: Request, base: Base) -> Slo:
    """From half to three times what is expected, each axis by itself; the same in every run."""
    draw = Random(f"{request.id} promise")
    first_s, tpot_s, e2e_s = (exp(draw.uniform(-0.7, 1.1)) for _ in range(3))
    return Slo(ttft_s=first_s * base.first_s, tpot_s=tpot_s * base.tpot_s, e2e_s=e2e_s * (base.first_s + base.decode_s))


class _Seen:
    """What is in flight at one endpoint, from facts alone."""

    def __init__(self) -> None:
        self.waiting: dict[str, int] = {}
        self.decoding: dict[str, int] = {}
        self.used_s = -inf
        self.prefixes: set[int] = set()

    def features(self, request: Request, output_tokens: float, now_s: float) -> tuple[float, ...]:
        """In the order of `FEATURES`."""
        known = 0
        for digest in request.prefix:
            if digest not in self.prefixes:
                break
            known += 1
        waiting, decoding = self.waiting, self.decoding
        idle_s = 0.0 if waiting or decoding else now_s - self.used_s
        return (
            float(request.prompt_tokens),
            float(min(known * DIGEST_TOKENS, request.prompt_tokens)),
            float(len(waiting) + len(decoding)),
            float(sum(waiting.values())),
            float(len(decoding)),
            float(sum(waiting.values()) + sum(decoding.values())),
            output_tokens,
            float(request.prompt_bytes),
            min(idle_s, 1e6),
            now_s,
        )


class Tap:
    """A `Decider` that lets the router decide, and writes down what it predicts. `rows` by endpoint, as sent."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.rows: dict[str, list[Row]] = {name: [] for name in router.state.endpoints}
        self._open: dict[tuple[str, str], Row] = {}
        self._requests: dict[str, Request] = {}
        self._seen = {name: _Seen() for name in self.rows}
        self._after: dict[str, tuple[int, Callable[[], None]]] = {}

    def after(self, endpoint: str, count: int, act: Callable[[], None]) -> None:
        """Call `act` when so many attempts have been sent to the endpoint."""
        self._after[endpoint] = (count, act)

    # --- as the router ----------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """See `Decider`."""
        return self.router.held

    def decide(self, request: Request, now_s: float) -> Decision:
        """See `Decider`."""
        self._requests[request.id] = request
        return self.router.decide(request, now_s)

    def due(self, now_s: float) -> list[Request]:
        """See `Decider`."""
        return self.router.due(now_s)

    def at_stake_usd(self, request: Request, left_usd: float | None) -> float:
        """See `Decider`."""
        return self.router.at_stake_usd(request, left_usd)

    def is_news(self, fact: Drawn, now_s: float) -> bool:
        """See `Decider`."""
        return self.router.is_news(fact, now_s)

    def warm_ups(self, now_s: float) -> list[str]:
        """See `Decider`."""
        return self.router.warm_ups(now_s)

    def may_hedge(self, endpoints: Iterable[str]) -> bool:
        """See `Decider`."""
        return self.router.may_hedge(endpoints)

    def alike(self, name: str) -> tuple[str, ...]:
        """See `Decider`."""
        return self.router.alike(name)

    def forbids(self, request: Request, endpoint: str, now_s: float) -> Why | None:
        """See `Decider`."""
        return self.router.forbids(request, endpoint, now_s)

    def reserved(self, endpoint: str, request_id: str) -> Reservation | None:
        """See `Decider`."""
        return self.router.reserved(endpoint, request_id)

    def endpoint(self, name: str) -> EndpointModel:
        """See `Decider`."""
        return self.router.endpoint(name)

    def snapshot(self) -> msgspec.Raw:
        """See `Decider`."""
        return self.router.snapshot()

    def observe(self, fact: Observation, now_s: float) -> None:
        """See `Decider`."""
        match fact:
            case Started():
                self._started(fact, now_s)
            case FirstToken():
                seen = self._seen[fact.endpoint]
                seen.decoding[fact.request_id] = seen.waiting.pop(fact.request_id, 0)
            case Ended():
                self._ended(fact, now_s)
        self.router.observe(fact, now_s)

    def _started(self, fact: Started, now_s: float) -> None:
        request, seen, rows = self._requests[fact.request_id], self._seen[fact.endpoint], self.rows[fact.endpoint]
        found = predicted(self.router, request, fact.endpoint, now_s)
        row = Row(
            request_id=fact.request_id,
            sent_s=now_s,
            features=seen.features(request, found.output_tokens, now_s),
            predicted=found,
        )
        rows.append(row)
        self._open[fact.request_id, fact.endpoint] = row
        seen.waiting[fact.request_id] = request.prompt_tokens
        seen.used_s = now_s
        seen.prefixes.update(request.prefix)
        count, act = self._after.get(fact.endpoint, (0, None))
        if act is not None and len(rows) == count:
            act()

    def _ended(self, fact: Ended, now_s: float) -> None:
        row, seen = self._open.pop((fact.request_id, fact.endpoint)), self._seen[fact.endpoint]
        seen.waiting.pop(fact.request_id, None)
        seen.decoding.pop(fact.request_id, None)
        seen.used_s = now_s
        row.ended_s, row.e2e_s, row.ttft_s = now_s, fact.e2e_s, fact.ttft_s
        if fact.ttft_s is None:
            row.given_up_s = fact.e2e_s if fact.ending in (Ending.CANCELLED, Ending.TIMED_OUT) else 0.0
        elif fact.ending is Ending.OK and fact.output_tokens is not None:
            row.prompt_tokens, row.cached_tokens = fact.prompt_tokens, fact.cached_tokens
            row.output_tokens = fact.output_tokens
            if fact.output_tokens >= TPOT_TOKENS_MIN:
                row.tpot_s = (fact.e2e_s - fact.ttft_s) / (fact.output_tokens - 1)
