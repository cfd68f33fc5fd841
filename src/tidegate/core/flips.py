"""The least that would have to be otherwise for a decision to be another: found by deciding again, one thing changed.

Each axis is walked away from where it stands, outwards, until the request would go elsewhere, wait, or be refused; then
the place in between is halved until nothing nearer is known to do it. Every answer is one of the real router's, on a
copy of all that it knows. Who explores does so by chance, which is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from math import ceil, inf, log, sqrt
from typing import Final, NamedTuple, TypeVar

import msgspec

from tidegate.core.base import TO
from tidegate.core.classify import base_of, classify
from tidegate.core.model import (
    Decision,
    Ended,
    Ending,
    Endpoint,
    Prefill,
    Price,
    Record,
    Request,
    Wait,
    replace,
)
from tidegate.core.price import Rates
from tidegate.core.prompts import BLOCK_BYTES
from tidegate.core.router import Router
from tidegate.core.sending import started
from tidegate.core.state import Network, Sample, State

_Rates = TypeVar("_Rates", bound=Rates)

# Two flips within one step of these are not told apart. Prices and times move a value steadily, so that there is one;
# a prompt's length has tables in its way.
STEP_PROMPT: Final = 1.01
STEP: Final = 1.25
# What is a thousand times as much is another world.
FACTOR_MAX: Final = 1_000.0
# A flip is known to one part in so many, in so many halvings at most.
PRECISION: Final = 1e6
HALVINGS: Final = 64
# Beyond every window a prompt is refused, which is worth being told, and further on it stays so.
BEYOND: Final = 1.05
IN_FLIGHT_MORE: Final = 64
# Of the endpoints, those worth most; the others would have to change by more.
ENDPOINTS_MAX: Final = 4
# Where an engine costs nothing, the least that it is tried with, in dollars a second: three cents an hour.
USD_PER_S_LEAST: Final = 1e-5
# Less than that makes no difference to anybody, though it may break a tie.
USD_PER_S_NOTHING: Final = 1e-9


class Axis(StrEnum):
    """What is changed: of the request, or of one endpoint."""

    PROMPT_TOKENS = "prompt_tokens"
    TTFT_S = "ttft_s"
    TPOT_S = "tpot_s"
    E2E_S = "e2e_s"
    WORTH = "worth"
    IN_FLIGHT = "in_flight"
    PRICE = "price"
    USD_PER_S = "usd_per_s"
    RTT_S = "rtt_s"
    UPLOAD = "upload_bytes_per_s"


class Flip(Record, frozen=True, kw_only=True):
    """From `at` on, away from `now`, it goes to another endpoint first, or by a handover, or waits for one; it is
    refused where that is empty.

    Of an endpoint's axes `endpoint` is the name. `worth` and `price` are factors of what they are, `in_flight`
    counts requests, and the others are in the units of their names.
    """

    axis: Axis
    endpoint: str = ""
    now: float
    at: float
    goes_to: str
    waits: bool = False


class First(NamedTuple):
    """What a plan does first: the endpoint or the handover, empty for a refusal, and whether it is waited for."""

    endpoint: str
    waits: bool


def first(decision: Decision) -> First:
    """What this one does first."""
    if not decision.plan:
        return First("", waits=False)
    step = decision.plan[0]
    if isinstance(step, Prefill):
        return First(step.endpoint + TO + step.target, waits=False)
    return First(step.endpoint, isinstance(step, Wait))


def vanish(router: Router, endpoint: str, request_id: str, now_s: float) -> None:
    """Tell a copy that this attempt is under way no more. It did not really end: so it teaches neither how long an
    answer takes, nor that its model is away, nor that its endpoint is silent, and gave nobody more of an engine."""
    state = router.endpoint(endpoint).state
    sent = state.reservations[request_id]
    sent.teaches, sent.cold, sent.engine_s, state.heard_s = False, None, 0.0, now_s
    e2e_s = max(0.0, now_s - sent.started_s)
    router.observe(Ended(request_id=request_id, endpoint=endpoint, ending=Ending.CANCELLED, e2e_s=e2e_s), now_s)


class Copy:
    """A router of its own that knows what another one did, to be asked what would be."""

    def __init__(self, router: Router) -> None:
        self.endpoints = {endpoint.name: endpoint for endpoint in router.endpoints}
        self._policy = replace(router.policy, explore_share=0.0)
        self._state = msgspec.json.decode(router.snapshot(), type=State)
        self.router = self._with(self._state)

    def holds(self, request_id: str) -> bool:
        """Whether it is held."""
        return request_id in self._state.held

    def asked(self, request: Request, now_s: float) -> First:
        """Were this the request."""
        held = self._state.held
        if request.id not in held:
            return first(self.router.decide(request, now_s))
        state = msgspec.structs.replace(self._state, held=held | {request.id: request})
        return first(self._with(state).decide(request, now_s))

    def priced(self, endpoint: Endpoint, request: Request, now_s: float) -> First:
        """Were this endpoint in the place of the one with its name."""
        router = self._with(msgspec.structs.replace(self._state), self.endpoints | {endpoint.name: endpoint})
        return first(router.decide(request, now_s))

    def over(self, endpoint: Endpoint, network: Network, request: Request, now_s: float) -> First:
        """Were it reached by this network."""
        known = msgspec.structs.replace(self._state.endpoints[endpoint.name], network=network)
        state = msgspec.structs.replace(self._state, endpoints=self._state.endpoints | {endpoint.name: known})
        return first(self._with(state, self.endpoints | {endpoint.name: endpoint}).decide(request, now_s))

    def _with(self, state: State, endpoints: dict[str, Endpoint] | None = None) -> Router:
        return Router(tuple((endpoints or self.endpoints).values()), self._policy, state)


class Walk(msgspec.Struct, frozen=True):
    """One axis, from where it stands `now` outwards on each of its `sides`; `ask` says what would be at a value.

    Two values that are no further `apart` are the same.
    """

    axis: Axis
    now: float
    ask: Callable[[float], First]
    sides: tuple[Iterable[float], ...]
    endpoint: str = ""
    apart: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether it counts something."""
        return self.axis in (Axis.PROMPT_TOKENS, Axis.IN_FLIGHT)


def flips(copy: Copy, request: Request, now_s: float) -> tuple[Flip, ...]:
    """The nearest flip on each axis and side of it, of this request's decision at `now_s`."""
    here = copy.asked(request, now_s)
    found = [_nearest(walk, here, side) for walk in walks(copy, request, now_s) for side in walk.sides]
    return tuple(flip for flip in found if flip is not None)


def walks(copy: Copy, request: Request, now_s: float) -> Iterator[Walk]:
    """What is tried: the request's own axes, then those of the endpoints that are worth most to it."""
    yield from _of_request(copy, request, now_s)
    worth = [(-c.value_usd, c.endpoint) for c in copy.router.candidates(request, now_s) if c.value_usd is not None]
    for _, name in sorted(worth)[:ENDPOINTS_MAX]:
        endpoint = copy.endpoints[name]
        yield _in_flight(copy, endpoint, request, now_s)
        yield from _prices(copy, endpoint, request, now_s)
        yield from _network(copy, endpoint, request, now_s)


def _nearest(walk: Walk, here: First, values: Iterable[float]) -> Flip | None:
    """The first of these values, or what is in between, where another answer is given; None where none is."""
    same = walk.now
    for value in values:
        answer = walk.ask(value)
        if answer == here:
            same = value
            continue
        for _ in range(HALVINGS):
            if abs(value - same) <= (1.0 if walk.whole else max(max(value, same) / PRECISION, walk.apart)):
                break
            middle = float((value + same) // 2) if walk.whole else _between(value, same)
            between = walk.ask(middle)
            if between == here:
                same = middle
            else:
                value, answer = middle, between
        return Flip(
            axis=walk.axis,
            endpoint=walk.endpoint,
            now=walk.now,
            at=value,
            goes_to=answer.endpoint,
            waits=answer.waits,
        )
    return None


def _between(one: float, other: float) -> float:
    return sqrt(one * other) if one > 0.0 and other > 0.0 else (one + other) / 2.0


def _up(now: float, step: float, most: float = inf) -> list[float]:
    """Values above, each larger by this factor than the one before."""
    most = now * FACTOR_MAX if most == inf else most
    count = max(0, ceil(log(most / now) / log(step)))
    return [min(now * step**number, most) for number in range(1, count + 1)]


def _down(now: float, step: float, least: float = 0.0) -> list[float]:
    """Values below, each smaller by this factor than the one before."""
    least = least or now / FACTOR_MAX
    count = max(0, ceil(log(now / least) / log(step)))
    return [max(now / step**number, least) for number in range(1, count + 1)]


def _whole(values: list[float], now: float) -> list[float]:
    """As whole numbers, each once."""
    return [number for number in dict.fromkeys(float(round(value)) for value in values) if number != now]


# --- the request's own --------------------------------------------------------------------------------------------


def _of_request(copy: Copy, request: Request, now_s: float) -> Iterator[Walk]:
    def walk(axis: Axis, now: float, changed: Callable[[float], Request]) -> Walk:
        return Walk(axis, now, lambda value: copy.asked(changed(value), now_s), (_up(now, STEP), _down(now, STEP)))

    windows = [model.context_tokens for model in copy.router.serving(request.model)]
    # Several prompts have a window each.
    tokens, most = float(request.prompt_tokens), BEYOND * max(windows, default=0) * request.prompts
    if tokens >= 1.0:
        # What is held is looked at in the midst of all that is: each question takes a while.
        step = STEP if copy.holds(request.id) else STEP_PROMPT
        sides = (_whole(_up(tokens, step, max(most, tokens)), tokens), _whole(_down(tokens, step, 1.0), tokens))
        yield Walk(Axis.PROMPT_TOKENS, tokens, lambda value: copy.asked(longer(request, round(value)), now_s), sides)
    slo = request.slo
    if slo.ttft_s is not None:
        yield walk(Axis.TTFT_S, slo.ttft_s, lambda s: replace(request, slo=replace(slo, ttft_s=s)))
    if slo.tpot_s is not None:
        yield walk(Axis.TPOT_S, slo.tpot_s, lambda s: replace(request, slo=replace(slo, tpot_s=s)))
    if slo.e2e_s is not None:
        yield walk(Axis.E2E_S, slo.e2e_s, lambda s: replace(request, slo=replace(slo, e2e_s=s)))
    if request.worth_usd or request.worth_usd_per_1k_tokens:
        yield walk(Axis.WORTH, 1.0, lambda factor: _worth(request, factor))


def longer(request: Request, prompt_tokens: int) -> Request:
    """The same with a longer or shorter prompt: its beginning is what it was, and what is added nobody has seen. Where
    its class is that of its length, it follows, as it does when requests come."""
    base, klass = base_of(request.klass), request.klass
    if klass == classify(base, request.prompt_tokens):
        klass = classify(base, prompt_tokens)
    prompt_bytes = max(1, round(request.prompt_bytes * prompt_tokens / max(1, request.prompt_tokens)))
    preamble_bytes = min(request.preamble_bytes, prompt_bytes)
    blocks = (prompt_bytes - preamble_bytes) // BLOCK_BYTES
    most = request.prompt_tokens_most
    return replace(
        request,
        klass=klass,
        prompt_tokens=prompt_tokens,
        prompt_bytes=prompt_bytes,
        prompt_tokens_most=most and max(1, most + prompt_bytes - request.prompt_bytes),
        preamble_bytes=preamble_bytes,
        prefix=request.prefix[:blocks],
    )


def _worth(request: Request, factor: float) -> Request:
    per_1k_tokens = request.worth_usd_per_1k_tokens * factor
    return replace(request, worth_usd=request.worth_usd * factor, worth_usd_per_1k_tokens=per_1k_tokens)


# --- an endpoint's ------------------------------------------------------------------------------------------------


def _prices(copy: Copy, endpoint: Endpoint, request: Request, now_s: float) -> Iterator[Walk]:
    def tokens(factor: float) -> First:
        return copy.priced(replace(endpoint, price=scaled(endpoint.price, factor)), request, now_s)

    def running(usd_per_s: float) -> First:
        return copy.priced(replace(endpoint, usd_per_s=usd_per_s), request, now_s)

    if endpoint.price != Price():
        yield Walk(Axis.PRICE, 1.0, tokens, (_up(1.0, STEP), _down(1.0, STEP)), endpoint.name)
    now = endpoint.usd_per_s
    if endpoint.owned and now:
        yield Walk(Axis.USD_PER_S, now, running, (_up(now, STEP), _down(now, STEP)), endpoint.name)
    elif endpoint.owned:
        side = (USD_PER_S_LEAST, *_up(USD_PER_S_LEAST, STEP))
        yield Walk(Axis.USD_PER_S, 0.0, running, (side,), endpoint.name, USD_PER_S_NOTHING)


def _network(copy: Copy, endpoint: Endpoint, request: Request, now_s: float) -> Iterator[Walk]:
    network, prior = copy.router.endpoint(endpoint.name).network, endpoint.prior
    rtts, uploads, rtt_s, upload = network.state.rtts, network.state.uploads, network.rtt_s, network.upload_bytes_per_s

    def distant(seconds: float) -> First:
        factor = seconds / rtt_s
        moved = replace(endpoint, prior=replace(prior, rtt_s=prior.rtt_s * factor))
        return copy.over(moved, Network(rtts=_scaled(rtts, factor), uploads=uploads), request, now_s)

    def narrow(bytes_per_s: float) -> First:
        factor = bytes_per_s / upload
        moved = replace(endpoint, prior=replace(prior, upload_bytes_per_s=prior.upload_bytes_per_s * factor))
        return copy.over(moved, Network(rtts=rtts, uploads=_scaled(uploads, factor)), request, now_s)

    for axis, now, ask in ((Axis.RTT_S, rtt_s, distant), (Axis.UPLOAD, upload, narrow)):
        if 0.0 < now < inf:
            yield Walk(axis, now, ask, (_up(now, STEP), _down(now, STEP)), endpoint.name)


def _in_flight(copy: Copy, endpoint: Endpoint, request: Request, now_s: float) -> Walk:
    """Were more like this one in flight there, or fewer of those that are, the latest gone first."""
    now = len(copy.router.endpoint(endpoint.name).state.reservations)
    most = min(now + IN_FLIGHT_MORE, max(now, endpoint.concurrency))
    sides = ([float(count) for count in range(now + 1, most + 1)], [float(count) for count in range(now - 1, -1, -1)])
    return Walk(Axis.IN_FLIGHT, float(now), _Crowd(copy, endpoint.name, request, now_s), sides, endpoint.name)


class _Crowd:
    """Says what would be with so many in flight at an endpoint, by telling a copy of what has not happened."""

    def __init__(self, copy: Copy, endpoint: str, request: Request, now_s: float) -> None:
        self._copy, self._endpoint, self._request, self._now_s = copy, endpoint, request, now_s
        self._told: Copy | None = None

    def __call__(self, count: float) -> First:
        known, now_s = self._copy.router.endpoint(self._endpoint).state.reservations, self._now_s
        told = self._told
        if told is None or not min(len(known), count) <= self._there(told) <= max(len(known), count):
            # Who has come does not go again as if he had never been there.
            told = self._told = Copy(self._copy.router)
        streamed = self._copy.router.endpoint(self._endpoint).endpoint.streams_to(self._request)
        while (there := self._there(told)) < count:
            # Of no conversation, whose place it would move.
            one = replace(self._request, id=f"{self._request.id} {there}", session="")
            told.router.observe(started(one, self._endpoint, streamed=streamed), now_s)
        while self._there(told) > count:
            reservations = told.router.endpoint(self._endpoint).state.reservations
            latest = max(reservations, key=lambda one: (reservations[one].started_s, one))
            vanish(told.router, self._endpoint, latest, now_s)
        return first(told.router.decide(self._request, now_s))

    def _there(self, copy: Copy) -> int:
        return len(copy.router.endpoint(self._endpoint).state.reservations)


def scaled(price: Price, factor: float) -> Price:
    """All of its rates times this."""
    made = _rates(price, factor)
    return replace(made, tiers=tuple(_rates(tier, factor) for tier in price.tiers))


def _rates(rates: _Rates, factor: float) -> _Rates:
    told = ((name, getattr(rates, name)) for name in rates.__struct_fields__ if name.startswith("usd_per_"))
    return replace(rates, **{name: usd * factor for name, usd in told if usd is not None})


def _scaled(samples: list[Sample], factor: float) -> list[Sample]:
    return [Sample(one.at_s, one.value * factor) for one in samples]
