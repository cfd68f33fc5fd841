"""How many requests a second pools of engines can serve when some prompts are prefilled elsewhere: a fluid model.

A prompt is prefilled by one of the `remote` instances, and its KV cache crosses the link, or by one of the local
`prefill` instances; decoding is local. What bounds the rate is the pool with the least capacity for what is sent to it
(Prefill-as-a-Service, arXiv 2604.15039, section 4), so the best rule leaves local prefill as busy as what bounds the
other way. Nothing queues here: rates are what is never reached, and times to first token are those of an idle system.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import accumulate
from math import erf, exp, inf, log, sqrt
from typing import Final

import msgspec

from tidegate.core.model import replace

# So often the weight between remote seconds and link bytes is halved: the bound is then right to nine digits.
HALVINGS: Final = 32


class Curve(msgspec.Struct, frozen=True):
    """What a prompt takes by its uncached tokens, in seconds or bytes: straight lines between points, the first and the
    last of which go on."""

    points: tuple[tuple[float, float], ...]

    def at(self, tokens: float) -> float:
        """Never below zero."""
        points = self.points
        if len(points) == 1:
            return points[0][1]
        i = min(max(bisect_right(points, (tokens, inf)), 1), len(points) - 1)
        (low, begun), (high, ended) = points[i - 1], points[i]
        return max(0.0, begun + (ended - begun) * (tokens - low) / (high - low))


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What prompts of one model take: seconds of a local and of a remote instance, and bytes of its KV cache."""

    local_s: Curve
    remote_s: Curve
    kv_bytes: Curve


class Bin(msgspec.Struct, frozen=True):
    """Of all prompts this share has about so many uncached tokens. What is nearly linear in tokens needs no more than
    their mean."""

    tokens: float
    share: float


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """What there is: instances that prefill there and here and that decode here, and the link in between."""

    remote: float
    prefill: float
    decode: float
    decode_per_s: float
    """Requests a second that one instance decodes."""
    link_bytes_per_s: float


class Bound(StrEnum):
    """The pool that bounds a rate."""

    REMOTE = "remote"
    PREFILL = "prefill"
    DECODE = "decode"
    LINK = "link"


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What pools can serve where this share of each bin is sent away, from the shortest to the longest.

    `remote_per_s` to `link_per_s` are the rates at which single pools would be busy all the time, of all requests.
    """

    shares: tuple[float, ...]
    remote_per_s: float
    prefill_per_s: float
    decode_per_s: float
    link_per_s: float

    @property
    def per_s(self) -> float:
        """Requests a second, at most."""
        return min(self.remote_per_s, self.prefill_per_s, self.decode_per_s, self.link_per_s)

    @property
    def bound(self) -> Bound:
        """What the rate is bounded by; of several the first in the order of the enum."""
        rates = (self.remote_per_s, self.prefill_per_s, self.decode_per_s, self.link_per_s)
        return tuple(Bound)[rates.index(self.per_s)]


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """What a second of prefill and a byte of the link are worth, in seconds of a local instance."""

    local: float
    remote: float
    link: float


# --- lengths ------------------------------------------------------------------------------------------------------


def log_normal(mu: float, sigma: float, least: float, most: float, bins: int) -> tuple[Bin, ...]:
    """Lengths whose logarithm is normal, of those within the two bounds, in bins of equal ratio."""
    ratio = log(most / least)
    edges = [least * exp(ratio * i / bins) for i in range(bins + 1)]
    below = [_normal((log(edge) - mu) / sigma) for edge in edges]
    # The partial mean of a log-normal is that of a normal whose middle is moved by sigma squared.
    moved = [_normal((log(edge) - mu) / sigma - sigma) for edge in edges]
    mean, whole = exp(mu + sigma * sigma / 2.0), below[-1] - below[0]
    found = []
    for i in range(bins):
        share = below[i + 1] - below[i]
        if share > 0.0:
            found.append(Bin(mean * (moved[i + 1] - moved[i]) / share, share / whole))
    return tuple(found)


def _normal(x: float) -> float:
    return 0.5 * (1.0 + erf(x / sqrt(2.0)))


def counted(tokens: Sequence[float], weights: Sequence[float]) -> tuple[Bin, ...]:
    """Lengths that were observed, in any order, with how much each counts."""
    whole = sum(weights)
    return tuple(Bin(n, weight / whole) for n, weight in sorted(zip(tokens, weights, strict=True)) if weight > 0.0)


# --- rules --------------------------------------------------------------------------------------------------------


def flow(model: Model, bins: Sequence[Bin], pools: Pools, shares: Sequence[float]) -> Flow:
    """What pools can serve where this share of each bin is sent away."""
    local, remote, link = _loads(model, bins, pools)
    return Flow(
        shares=tuple(shares),
        remote_per_s=_rate(shares, remote),
        prefill_per_s=_rate([1.0 - share for share in shares], local),
        decode_per_s=pools.decode * pools.decode_per_s,
        link_per_s=_rate(shares, link),
    )


def everything(model: Model, bins: Sequence[Bin], pools: Pools) -> Flow:
    """All is prefilled remotely."""
    return flow(model, bins, pools, [1.0] * len(bins))


def nothing(model: Model, bins: Sequence[Bin], pools: Pools) -> Flow:
    """All is prefilled here."""
    return flow(model, bins, pools, [0.0] * len(bins))


def beyond(model: Model, bins: Sequence[Bin], pools: Pools, tokens: float) -> Flow:
    """What is longer than this is prefilled remotely."""
    return flow(model, bins, pools, [1.0 if one.tokens > tokens else 0.0 for one in bins])


def random_split(model: Model, bins: Sequence[Bin], pools: Pools) -> Flow:
    """The best that chance can do: the same share of all lengths."""
    local, remote, link = _loads(model, bins, pools)
    shares = _filled([0], [sum(local)], [sum(remote)], [sum(link)])
    return flow(model, bins, pools, shares * len(bins))


def threshold(model: Model, bins: Sequence[Bin], pools: Pools) -> Flow:
    """The best that one length can do beyond which prompts are sent away; of the bin with that length, a part is."""
    order = range(len(bins) - 1, -1, -1)
    return flow(model, bins, pools, _filled(order, *_loads(model, bins, pools)))


def fluid(model: Model, bins: Sequence[Bin], pools: Pools) -> tuple[float, Prices]:
    """Requests a second that no rule exceeds which chooses by length, and the prices by which one reaches them.

    It is a linear program in the shares of bins. What is sent away uses remote instances and the link: added up with
    any weight the two bound less than each for itself, and then the best is what saves most local seconds for each unit
    of the sum. At one weight that is as little as both allow (a surrogate dual, without a gap for linear programs).
    """
    relaxed = _Relaxed(model, bins, pools)
    # Mostly one of them bounds alone, and the other counts for nothing.
    found = [relaxed.at(1.0), relaxed.at(0.0)]
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        weight = (low + high) / 2.0
        one = relaxed.at(weight)
        found.append(one)
        if one.remote_heavier:
            low = weight
        else:
            high = weight
    best = min(found, key=lambda one: one.per_s)
    return min(best.per_s, pools.decode * pools.decode_per_s), best.prices


class _Bounded(msgspec.Struct, frozen=True):
    """What is best with one weight, and whether it uses more of remote instances than of the link."""

    per_s: float
    prices: Prices
    remote_heavier: bool


class _Relaxed:
    """The linear program with two of its constraints added up."""

    def __init__(self, model: Model, bins: Sequence[Bin], pools: Pools) -> None:
        self._pools = pools
        self._local, self._remote, self._link = _loads(model, bins, pools)

    def at(self, weight: float) -> _Bounded:
        """Remote instances count with this weight, the link with the rest of one."""
        local, pools = self._local, self._pools
        # A pool without weight is not there, though nothing should fit through it.
        both = [
            (weight * r if weight > 0.0 else 0.0) + ((1.0 - weight) * b if weight < 1.0 else 0.0)
            for r, b in zip(self._remote, self._link, strict=True)
        ]
        saved = [_ratio(here, away) for here, away in zip(local, both, strict=True)]
        order = sorted(range(len(both)), key=lambda i: (-saved[i], -i))
        shares = _filled(order, local, both, both)
        kept = [1.0 - share for share in shares]
        # In seconds of an instance, of which there may be none whose time anything would save.
        worth = _marginal(order, shares, saved) * pools.prefill if pools.prefill > 0.0 else 0.0
        return _Bounded(
            per_s=min(_rate(shares, both), _rate(kept, local)),
            prices=Prices(
                local=1.0,
                remote=_ratio(worth * weight, pools.remote),
                link=_ratio(worth * (1.0 - weight), pools.link_bytes_per_s),
            ),
            remote_heavier=_rate(shares, self._remote) < _rate(shares, self._link),
        )


def split(nodes: int, pools: Pools, per_s: Callable[[Pools], float]) -> Pools:
    """The pools with the best split of so many local nodes between prefill and decode, for a rule's rate.

    With each node that prefills, what all but decode allow rises, and what decode does falls: so the less of the two
    rises up to the best split and falls from there. Of splits as good the one with more decode; at least one decodes.
    """
    low, high = 0, nodes - 1
    while low < high:
        middle = (low + high) // 2
        if per_s(_divided(nodes, pools, middle + 1)) > per_s(_divided(nodes, pools, middle)):
            low = middle + 1
        else:
            high = middle
    return _divided(nodes, pools, low)


def _divided(nodes: int, pools: Pools, prefill: int) -> Pools:
    return replace(pools, prefill=float(prefill), decode=float(nodes - prefill))


# --- what a flow comes to -----------------------------------------------------------------------------------------


def offloaded(bins: Sequence[Bin], shares: Sequence[float]) -> float:
    """The share of all requests that is sent away."""
    return sum([one.share * share for one, share in zip(bins, shares, strict=True)])


def tokens_sent(bins: Sequence[Bin], shares: Sequence[float]) -> float:
    """The mean tokens of what is sent away."""
    whole = sum([one.share * share * one.tokens for one, share in zip(bins, shares, strict=True)])
    return _ratio(whole, offloaded(bins, shares))


def kv_bytes(model: Model, bins: Sequence[Bin], shares: Sequence[float]) -> float:
    """Bytes that cross the link, of all requests in the mean."""
    return sum([one.share * share * model.kv_bytes.at(one.tokens) for one, share in zip(bins, shares, strict=True)])


def ttft_s(model: Model, bins: Sequence[Bin], shares: Sequence[float]) -> tuple[float, float]:
    """Mean and 90th percentile of the seconds of prefill: times to first token where nothing waits."""
    here = [(model.local_s.at(one.tokens), one.share * (1.0 - s)) for one, s in zip(bins, shares, strict=True)]
    away = [(model.remote_s.at(one.tokens), one.share * s) for one, s in zip(bins, shares, strict=True)]
    below = list(accumulate(share for _, share in sorted(here + away)))
    p90_s = sorted(here + away)[min(bisect_left(below, 0.9), len(below) - 1)][0]
    return sum([seconds * share for seconds, share in here + away]), p90_s


# --- arithmetic ---------------------------------------------------------------------------------------------------

Loads = list[float]
"""Of each bin: how much of a pool's time one request a second of all takes."""


def _loads(model: Model, bins: Sequence[Bin], pools: Pools) -> tuple[Loads, Loads, Loads]:
    """Of local prefill, remote prefill and the link; infinite where there is none."""
    return (
        [_ratio(one.share * model.local_s.at(one.tokens), pools.prefill) for one in bins],
        [_ratio(one.share * model.remote_s.at(one.tokens), pools.remote) for one in bins],
        [_ratio(one.share * model.kv_bytes.at(one.tokens), pools.link_bytes_per_s) for one in bins],
    )


def _filled(order: Sequence[int], local: Loads, remote: Loads, link: Loads) -> list[float]:
    """Bins are sent away in this order until local prefill is no busier than what they go through."""
    here, there, across = sum(local), 0.0, 0.0
    if here == inf:
        return [1.0] * len(local)
    shares = [0.0] * len(local)
    for i in order:
        part = min(_ratio(here - there, local[i] + remote[i]), _ratio(here - across, local[i] + link[i]))
        shares[i] = min(max(part, 0.0), 1.0)
        if part < 1.0:
            break
        here, there, across = here - local[i], there + remote[i], across + link[i]
    return shares


def _marginal(order: Sequence[int], shares: Sequence[float], saved: Loads) -> float:
    """What is saved by the last that is sent away. Lengths are spread over a bin: it lies between those beside it."""
    last = max([place for place, i in enumerate(order) if shares[i] > 0.0], default=0)
    part, middle = shares[order[last]], saved[order[last]]
    beside = saved[order[min(max(last - 1 if part < 0.5 else last + 1, 0), len(order) - 1)]]
    return middle if middle == beside else middle + (beside - middle) * abs(part - 0.5)


def _rate(shares: Sequence[float], loads: Loads) -> float:
    """Requests a second that keep a pool busy all the time."""
    used = sum([share * load for share, load in zip(shares, loads, strict=True) if share > 0.0])
    return _ratio(1.0, used)


def _ratio(over: float, under: float) -> float:
    """Their quotient; what is divided by nothing has no bound, and nothing is nothing of whatever it is."""
    if over == 0.0:
        return 0.0
    return over / under if under > 0.0 else inf
