"""Whether a prompt is prefilled at a remote site, whose KV cache then crosses a link, or here: for one such path.

Sending is worth what the request itself gains, in seconds of its time to first token, and what those who come later do:
the seconds of local prefill that are saved, less the remote seconds and the bytes that are taken, at their prices. Both
together make a length beyond which prompts are sent; nobody sets it, and it moves with queues, link, load and lengths.

Queues count in the request's own time alone, and prices are those at which the throughput model reaches its best rate,
for the lengths that come and the link as it is: the slow loop finds them, each minute and as soon as the link has
changed. What a second of anyone's is worth to others follows how busy the pools are: where nothing waits, nothing is.
"""

from bisect import insort
from collections.abc import Sequence
from functools import partial
from math import inf, log
from typing import Final

import msgspec

from tidegate.core.bins import BINS, bin_of
from tidegate.core.model import replace
from tidegate.core.network import SAMPLES_MAX, UPLOAD_SIGMA, level
from tidegate.core.state import Network, Sample
from tidegate.core.throughput import Bin, Bound, Curve, Model, Pools, Prices, counted, fluid, split, threshold

# What came counts half as much after so long: long enough for a hundred long prompts, and short against the hours of
# a day.
LENGTHS_HALF_LIFE_S: Final = 600.0
# The same for how many come a second.
LOAD_HALF_LIFE_S: Final = 60.0
# All seconds that ever were, faded by that, come to so many.
LOAD_S: Final = LOAD_HALF_LIFE_S / log(2.0)
# A path begins as if nobody had come for a second: those of the first moment are not infinitely many.
BEGINS_S: Final = 1.0
# The slow loop, where nothing has changed.
SOLVE_S: Final = 60.0
# A link that differs by less is the same one, and prices stay: hysteresis.
RATE_CHANGE: Final = 0.1
# So many prompts are a distribution.
KNOWN: Final = 20.0
# One second of work makes those who come later wait for load / (1 - load) seconds, which has no end where the load
# is one.
BUSY_MAX: Final = 16.0
# What was found of a link so long ago, while nothing crosses it, is asked of it again.
LOOK_S: Final = 60.0
# Fewer than this of a length came so long ago that they are gone.
SEEN: Final = 0.001
# How full pools may be: prompts differ by a factor of a thousand and instances are few, so that prefill queues long
# before it is full; slots to decode are many, and each is taken for about as long.
PREFILL_FULL, DECODE_FULL = 0.9, 0.97
# Nodes are moved for no less: it takes minutes, in which they serve nobody.
WORTHWHILE: Final = 0.02


class Work(msgspec.Struct, frozen=True, gc=False):
    """What one prompt would take: seconds of a local instance or of a remote one, and bytes of its KV cache."""

    local_s: float
    remote_s: float
    kv_bytes: float


class Backlog(msgspec.Struct, frozen=True, gc=False):
    """What is before a newcomer: seconds until an instance here or there could begin, and bytes that are to cross."""

    local_s: float
    remote_s: float
    link_bytes: float


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """How local nodes should be split between prefill and decode, with what that is derived from.

    Rates are what can be served with room for queues, of prompts as they come; `asked_per_s` do. With the advised
    split, `bound` is what bounds that, and prompts beyond `threshold_tokens` are sent away.
    """

    prefill: int
    decode: int
    per_s: float
    prefill_now: int
    decode_now: int
    per_s_now: float
    asked_per_s: float
    link_bytes_per_s: float
    threshold_tokens: float
    bound: Bound


class Path(msgspec.Struct, kw_only=True):
    """What is known of one path: all that decisions follow from, as JSON.

    By length, as in `core/bins`: how many came, and the sums of their tokens and of what they take, which fade as often
    as prices are found. `link` has the last rates at which caches crossed, as uploads, and `link_bytes_per_s` is what
    they come to.
    """

    pools: Pools
    prices: Prices
    best_per_s: float
    """Of requests like those that come, what can be prefilled at most; 0 where that is not known."""
    came: list[float]
    tokens: list[float]
    local_s: list[float]
    remote_s: list[float]
    kv_bytes: list[float]
    recent: float
    recent_s: float
    link: Network
    link_bytes_per_s: float
    solved_bytes_per_s: float
    solved_s: float
    at_s: float

    # --- what writes --------------------------------------------------------------------------------------------------

    def arrived(self, tokens: float, work: Work, now_s: float) -> None:
        """Somebody asks, with so many tokens that are not cached here."""
        self.settle(now_s)
        place = bin_of(tokens)
        self.came[place] += 1.0
        self.tokens[place] += tokens
        self.local_s[place] += work.local_s
        self.remote_s[place] += work.remote_s
        self.kv_bytes[place] += work.kv_bytes
        self.recent += 1.0

    def crossed(self, kv_bytes: float, seconds: float, now_s: float) -> None:
        """So many bytes have crossed the link, which carried nothing else of ours in these seconds."""
        self.settle(now_s)
        if kv_bytes > 0.0 and 0.0 < seconds < inf:
            rates = self.link.uploads
            insort(rates, Sample(now_s, kv_bytes / seconds))
            del rates[:-SAMPLES_MAX]
            self.link_bytes_per_s = level(rates, self.pools.link_bytes_per_s, UPLOAD_SIGMA, 0.0).value

    def told(self, pools: Pools, now_s: float) -> None:
        """There are other instances now, or another link, of which this is declared."""
        self.settle(now_s)
        self.pools = pools
        self.link_bytes_per_s = level(self.link.uploads, pools.link_bytes_per_s, UPLOAD_SIGMA, 0.0).value
        self._solve(now_s)

    def settle(self, now_s: float) -> None:
        """With a new moment, the one before is over: prices follow what has changed in it, and what is old fades."""
        seconds = now_s - self.at_s
        if seconds <= 0.0:
            return
        changed = abs(self.link_bytes_per_s / self.solved_bytes_per_s - 1.0) > RATE_CHANGE
        if changed or now_s - self.solved_s >= SOLVE_S:
            self._solve(now_s)
        faded = float(0.5 ** (seconds / LOAD_HALF_LIFE_S))
        self.recent *= faded
        # The seconds fade like those who came in them: a night in which nobody did is no more than what is left of it.
        self.recent_s = self.recent_s * faded + LOAD_S * (1.0 - faded)
        self.at_s = now_s

    def _solve(self, now_s: float) -> None:
        """The slow loop."""
        if sum(self.came) >= KNOWN:
            # Whatever decoding allows: it is no price of a prompt that it has to be decoded here.
            pools = replace(self.pools, decode=inf, link_bytes_per_s=self.link_bytes_per_s)
            self.best_per_s, self.prices = fluid(self._model(), self._bins(), pools)
        faded = float(0.5 ** ((now_s - self.solved_s) / LENGTHS_HALF_LIFE_S))
        for sums in (self.came, self.tokens, self.local_s, self.remote_s, self.kv_bytes):
            for place in range(BINS):
                sums[place] *= faded
        self.solved_s, self.solved_bytes_per_s = now_s, self.link_bytes_per_s

    # --- what reads ---------------------------------------------------------------------------------------------------

    def gain_s(self, work: Work, backlog: Backlog, now_s: float) -> float:
        """Seconds that sending it saves, its own and others': it is sent where that is more than nothing."""
        return self.sooner_s(work, backlog, now_s) + self.spares_s(work)

    def sooner_s(self, work: Work, backlog: Backlog, now_s: float) -> float:
        """How much sooner its KV cache is here if it is sent."""
        rate = self._rate(backlog, now_s)
        # A cache crosses while it is computed, after those before it.
        away_s = max(backlog.remote_s + work.remote_s, (backlog.link_bytes + work.kv_bytes) / rate)
        return backlog.local_s + work.local_s - away_s

    def spares_s(self, work: Work) -> float:
        """How much less all who come later wait if it is sent; below zero, more."""
        prices = self.prices
        spared_s = prices.local * work.local_s - prices.remote * work.remote_s - prices.link * work.kv_bytes
        return self.busy * spared_s

    @property
    def busy(self) -> float:
        """Seconds that others wait for each second of work that is put before them."""
        if not self.best_per_s:
            return 0.0
        load = self.recent / self.recent_s / self.best_per_s
        return min(load / (1.0 - load), BUSY_MAX) if load < 1.0 else BUSY_MAX

    def advice(self) -> Advice | None:
        """How the local nodes should be split, as long as that is known; as they are, where little is gained.

        It takes ten times as long as finding prices: nothing for who decides about requests.
        """
        if sum(self.came) < KNOWN:
            return None
        model, bins = self._model(), self._bins()
        now = replace(self.pools, link_bytes_per_s=self.link_bytes_per_s)
        best = advised(model, bins, now)
        per_s, per_s_now = roomy(model, bins, best), roomy(model, bins, now)
        if per_s < (1.0 + WORTHWHILE) * per_s_now:
            best, per_s = now, per_s_now
        flow = threshold(model, bins, best)
        sent = [one.tokens for one, share in zip(bins, flow.shares, strict=True) if share > 0.0]
        return Advice(
            prefill=round(best.prefill),
            decode=round(best.decode),
            per_s=per_s,
            prefill_now=round(now.prefill),
            decode_now=round(now.decode),
            per_s_now=per_s_now,
            asked_per_s=self.recent / self.recent_s,
            link_bytes_per_s=self.link_bytes_per_s,
            threshold_tokens=min(sent, default=inf),
            bound=flow.bound,
        )

    def _rate(self, backlog: Backlog, now_s: float) -> float:
        """Bytes a second of the link. What was found long ago does not keep anyone from trying again."""
        rates = self.link.uploads
        if rates and not backlog.link_bytes and now_s - rates[-1].at_s > LOOK_S:
            return max(self.pools.link_bytes_per_s, self.link_bytes_per_s)
        return self.link_bytes_per_s

    def _bins(self) -> tuple[Bin, ...]:
        return counted([self.tokens[i] / self.came[i] for i in self._seen()], [self.came[i] for i in self._seen()])

    def _model(self) -> Model:
        return Model(
            local_s=self._curve(self.local_s), remote_s=self._curve(self.remote_s), kv_bytes=self._curve(self.kv_bytes)
        )

    def _curve(self, sums: list[float]) -> Curve:
        """The mean of each bin, by its mean of tokens: these rise from bin to bin."""
        return Curve(tuple([(self.tokens[i] / self.came[i], sums[i] / self.came[i]) for i in self._seen()]))

    def _seen(self) -> list[int]:
        """The bins in which somebody came lately."""
        return [i for i in range(BINS) if self.came[i] > SEEN]


def advised(model: Model, bins: Sequence[Bin], pools: Pools) -> Pools:
    """The pools with the best split of their local nodes, where each has room for queues."""
    return split(round(pools.prefill + pools.decode), pools, partial(roomy, model, bins))


def roomy(model: Model, bins: Sequence[Bin], pools: Pools) -> float:
    """Requests a second that keep no pool fuller than it may be."""
    prefilled_per_s, _ = fluid(model, bins, replace(pools, decode=inf))
    return min(PREFILL_FULL * prefilled_per_s, DECODE_FULL * pools.decode * pools.decode_per_s)


def fresh(pools: Pools, now_s: float) -> Path:
    """A path of which nothing is known but what is declared: prompts go where they are ready first."""
    return Path(
        pools=pools,
        prices=Prices(local=1.0, remote=0.0, link=0.0),
        best_per_s=0.0,
        came=[0.0] * BINS,
        tokens=[0.0] * BINS,
        local_s=[0.0] * BINS,
        remote_s=[0.0] * BINS,
        kv_bytes=[0.0] * BINS,
        recent=0.0,
        recent_s=BEGINS_S,
        link=Network(),
        link_bytes_per_s=pools.link_bytes_per_s,
        solved_bytes_per_s=pools.link_bytes_per_s,
        solved_s=now_s,
        at_s=now_s,
    )


def fault(path: Path) -> str:
    """What is wrong with one that was written down, empty where nothing is."""
    sums = (path.came, path.tokens, path.local_s, path.remote_s, path.kv_bytes)
    found = [sample.value for sample in path.link.uploads]
    if any(len(one) != BINS for one in sums) or len(found) > SAMPLES_MAX:
        return f"of a path have more or less than {BINS} lengths, or more than {SAMPLES_MAX} rates"
    rates = (
        path.link_bytes_per_s,
        path.solved_bytes_per_s,
        path.recent_s,
        *[sample.value for sample in path.link.uploads],
    )
    if not all(0.0 < each < inf for each in rates):
        return "of a path have rates that cannot be"
    prices = path.prices.local, path.prices.remote, path.prices.link, path.best_per_s, path.recent
    if not all(0.0 <= each < inf for one in (prices, *sums) for each in one):
        return "of a path have prices or sums that cannot be"
    return ""
