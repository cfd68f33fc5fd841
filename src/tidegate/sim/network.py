"""The way to an endpoint: round trips, a rate that its users share, and how both change.

An outage is for the world to make: `down`. What was sent before it arrives as was said, and what is to come back while
it lasts has to wait for its end.
"""

import math
from bisect import bisect_right
from statistics import NormalDist
from typing import Annotated

from msgspec import Meta

from tidegate.core.model import Record
from tidegate.sim.chance import Chance
from tidegate.wire.tokens import PRIOR_BYTES_PER_TOKEN

# Rates of Mathis, Semke, Mahdavi and Ott (1997): segment / round trip * sqrt(3/2) / sqrt(loss).
SEGMENT_BYTES = 1460
MATHIS = math.sqrt(1.5)

_MASK = (1 << 64) - 1
_z = NormalDist().inv_cdf


def prompt_bytes(tokens: int) -> int:
    """A prompt of so many tokens as text."""
    return round(tokens * PRIOR_BYTES_PER_TOKEN)


def kv_bytes(tokens: int, kv_bytes_per_token: float, state_bytes: float = 0.0) -> int:
    """The KV cache of so many tokens, and the state of a hybrid model, which does not grow with them."""
    return round(state_bytes + tokens * kv_bytes_per_token)


class Regimes(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """Factors that each hold for a time, about `hold_s`.

    A factor is drawn anew for each time, from `quantiles`: pairs of a share and the factor that so many stay below,
    in order, with the logarithm between two of them on a line.
    """

    hold_s: Annotated[float, Meta(ge=0.01)]
    quantiles: Annotated[tuple[tuple[float, float], ...], Meta(min_length=1, max_length=64)]

    def __post_init__(self) -> None:
        for low, high in zip(self.quantiles, self.quantiles[1:], strict=False):
            if not (low[0] < high[0] and low[1] <= high[1]):
                raise ValueError("`quantiles` must have rising shares, and factors that do not fall")
        if self.quantiles[0][0] < 0.0 or self.quantiles[-1][0] > 1.0 or self.quantiles[0][1] <= 0.0:
            raise ValueError("`quantiles` must have shares from 0 to 1, and factors above 0")


STEADY = Regimes(hold_s=3600.0, quantiles=((0.5, 1.0),))


class LinkProfile(Record, frozen=True, kw_only=True, omit_defaults=False, forbid_unknown_fields=True):
    """What a way is like. `rtt_s` is the least of its round trips.

    A way of half a round trip takes exp(`jitter` * |z|) times as long, z standard normal. Of the packets `loss` are
    lost, which slows one connection down to Mathis's rate, and not the others. Rates and round trips go through
    regimes of their own.
    """

    rtt_s: Annotated[float, Meta(ge=0)]
    upload_bytes_per_s: Annotated[float, Meta(gt=0)]
    download_bytes_per_s: Annotated[float, Meta(gt=0)]
    jitter: Annotated[float, Meta(ge=0, le=3)] = 0.0
    loss: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    rate_regimes: Regimes = STEADY
    rtt_regimes: Regimes = STEADY

    def __post_init__(self) -> None:
        if self.rtt_regimes.quantiles[0][1] < 1.0:
            raise ValueError("`rtt_regimes` must not have factors below 1: `rtt_s` is the least")

    @property
    def flow_bytes_per_s(self) -> float:
        """The most that one connection gets through."""
        if self.loss == 0.0 or self.rtt_s == 0.0:
            return math.inf
        return SEGMENT_BYTES / self.rtt_s * MATHIS / math.sqrt(self.loss)


def _uniform(seed: int, number: int) -> float:
    """Chance by number, within (0, 1): splitmix64. A stream of `Chance` costs more than a link may."""
    x = (seed + number * 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
    return ((x ^ x >> 31) >> 12) * 2.0**-52 + 2.0**-53


class Changing:
    """A factor that goes through regimes. What it is at a time does not depend on what was asked before.

    Time is cut into windows of `hold_s` with one change in each, somewhere in its middle four fifths: a regime holds
    for a fifth of `hold_s` at least, for 1.8 times at most, and once on average.
    """

    def __init__(self, regimes: Regimes, seed: int) -> None:
        self._hold_s = regimes.hold_s
        self._shares = [share for share, _ in regimes.quantiles]
        self._logs = [math.log(factor) for _, factor in regimes.quantiles]
        self._seed = seed
        self._from_s = self._until_s = 0.0
        self._factor = 1.0

    def at(self, now_s: float) -> tuple[float, float]:
        """The factor now, and until when it holds."""
        if not self._from_s <= now_s < self._until_s:
            window = math.floor(now_s / self._hold_s)
            if now_s < self._change_s(window):
                window -= 1
            self._from_s, self._until_s = self._change_s(window), self._change_s(window + 1)
            self._factor = self._drawn(_uniform(self._seed, 2 * window))
        return self._factor, self._until_s

    def _change_s(self, window: int) -> float:
        return (window + 0.1 + 0.8 * _uniform(self._seed, 2 * window + 1)) * self._hold_s

    def _drawn(self, share: float) -> float:
        above = bisect_right(self._shares, share)
        if above == 0 or above == len(self._shares):
            return math.exp(self._logs[max(0, above - 1)])
        low, high = self._shares[above - 1], self._shares[above]
        part = (share - low) / (high - low)
        return math.exp(self._logs[above - 1] * (1.0 - part) + self._logs[above] * part)


class _Road:
    """One direction: who comes first is carried first.

    Not the same share for everybody at once, as the world's connections have it: when a payload arrives is said when it
    is sent, and could not be taken back for one that is sent later. The road is never idle while there is something to
    carry, so that the last of a number of payloads arrives when it would; one that would overtake does not.
    Who sends gigabytes sends them in pieces, as KV caches are sent layer by layer, and lets others between.
    """

    def __init__(self, bytes_per_s: float, flow_bytes_per_s: float, rate: Changing) -> None:
        self._bytes_per_s = bytes_per_s
        self._flow_bytes_per_s = flow_bytes_per_s
        self._rate = rate
        self._free_at_s = -math.inf

    def carried_s(self, payload_bytes: int, now_s: float) -> float:
        """When the last byte has been put on its way."""
        self._free_at_s, carried_s = self._carrying(payload_bytes, now_s)
        return carried_s

    def would_be_carried_s(self, payload_bytes: int, now_s: float) -> float:
        """The same, of what is not sent."""
        return self._carrying(payload_bytes, now_s)[1]

    def _carrying(self, payload_bytes: int, now_s: float) -> tuple[float, float]:
        """When the road is free again, and when the last byte has been put on its way."""
        begun_s = at_s = max(now_s, self._free_at_s)
        left_bytes = float(payload_bytes)
        while True:
            factor, until_s = self._rate.at(at_s)
            rate = self._bytes_per_s * factor
            end_s = at_s + left_bytes / rate
            if end_s <= until_s:
                break
            left_bytes -= (until_s - at_s) * rate
            at_s = until_s
        # A connection that loses packets takes longer, and leaves room for others meanwhile.
        return end_s, max(end_s, begun_s + payload_bytes / self._flow_bytes_per_s)


class Link:
    """The way to one endpoint and back. Times of calls must not fall, since payloads queue."""

    def __init__(self, profile: LinkProfile, chance: Chance, name: str) -> None:
        self.profile = profile
        self.down = False
        draw = chance.at("link", name)
        rate = Changing(profile.rate_regimes, draw.getrandbits(64))
        self._rtt = Changing(profile.rtt_regimes, draw.getrandbits(64))
        self._there_seed, self._back_seed, self._probe_seed = (draw.getrandbits(64) for _ in range(3))
        self._there = _Road(profile.upload_bytes_per_s, profile.flow_bytes_per_s, rate)
        self._back = _Road(profile.download_bytes_per_s, profile.flow_bytes_per_s, rate)

    def sent(self, payload_bytes: int, now_s: float) -> float:
        """When the last byte of what is sent now has arrived; never (infinity) while the link is down."""
        if self.down:
            return math.inf
        return self._there.carried_s(payload_bytes, now_s) + 0.5 * self._trip_s(self._there_seed, now_s)

    def upload_s(self, payload_bytes: int, now_s: float) -> float:
        """How long it would be until the last byte of what is sent now has set out."""
        return self._there.would_be_carried_s(payload_bytes, now_s) - now_s

    def answered(self, now_s: float, payload_bytes: int = 0) -> float:
        """When what is sent back now has arrived, by default a first byte; never while the link is down."""
        if self.down:
            return math.inf
        return self._back.carried_s(payload_bytes, now_s) + 0.5 * self._trip_s(self._back_seed, now_s)

    def rtt_s(self, now_s: float) -> float:
        """What a probe would see now. It changes nothing, and does not queue: it has a connection of its own."""
        return math.inf if self.down else self._trip_s(self._probe_seed, now_s)

    def _trip_s(self, seed: int, now_s: float) -> float:
        """A round trip that begins now. By the time and not by the payload, so that more bytes never arrive sooner."""
        factor, _ = self._rtt.at(now_s)
        rtt_s = self.profile.rtt_s * factor
        if self.profile.jitter == 0.0:
            return rtt_s
        return rtt_s * math.exp(self.profile.jitter * abs(_z(_uniform(seed, int(now_s * 1e6)))))


# --- presets ----------------------------------------------------------------------------------------------------
# `python -m bench.fit_network` prints what the data says beside these constants.

# Throughput between two cloud regions, over what it was five days before: 3,906 pairs (Skyplane project, 2022,
# Apache-2.0). So a preset's rate is that of the day it was measured, and these factors what becomes of it. Two
# measurements five days apart do not tell how long a regime holds: half an hour is an assumption.
_CLOUD_RATE = Regimes(
    hold_s=1800.0,
    quantiles=(
        (0.01, 0.616),
        (0.05, 0.873),
        (0.10, 0.941),
        (0.25, 0.993),
        (0.50, 1.0),
        (0.75, 1.267),
        (0.90, 1.582),
        (0.95, 1.885),
        (0.99, 2.31),
    ),
)
# Such that two draws differ as the round trips of 3,984 pairs did, seen from one end and, another time, from the other.
_CLOUD_RTT = Regimes(
    hold_s=1800.0, quantiles=((0.50, 1.0), (0.75, 1.006), (0.90, 1.065), (0.95, 1.225), (0.975, 1.497), (0.99, 2.17))
)
# Rates of home connections over the median of their trace (FCC, Measuring Broadband America 2016). What they have in
# common with those 5 s later, 0.19 of it in the median trace, is what regimes of six seconds have.
_HOME_RATE = Regimes(
    hold_s=6.0,
    quantiles=(
        (0.01, 0.226),
        (0.05, 0.594),
        (0.10, 0.772),
        (0.25, 0.925),
        (0.50, 1.0),
        (0.75, 1.065),
        (0.90, 1.615),
        (0.95, 2.57),
        (0.99, 4.65),
    ),
)


def _cloud(rtt_s: float, jitter: float, bytes_per_s: float, loss: float) -> LinkProfile:
    """Between regions of clouds: medians of Skyplane, with 64 connections between two machines.

    A single one gets at least a 64th of it, and `loss` is what holds it there; between near regions nothing does.
    """
    return LinkProfile(
        rtt_s=rtt_s,
        upload_bytes_per_s=bytes_per_s,
        download_bytes_per_s=bytes_per_s,
        jitter=jitter,
        loss=loss,
        rate_regimes=_CLOUD_RATE,
        rtt_regimes=_CLOUD_RTT,
    )


PRESETS: dict[str, LinkProfile] = {
    # Declared, not measured: within one machine, and a gigabit on a switch.
    "loopback": LinkProfile(rtt_s=0.00005, upload_bytes_per_s=2e9, download_bytes_per_s=2e9, jitter=0.1),
    "lan": LinkProfile(rtt_s=0.0005, upload_bytes_per_s=117e6, download_bytes_per_s=117e6, jitter=0.1),
    # Below 5 ms, below 80 ms and beyond.
    "metro": _cloud(0.0024, 0.059, 895e6, 0.0),
    "continent": _cloud(0.0327, 0.012, 588e6, 3.5e-5),
    "ocean": _cloud(0.175, 0.004, 419e6, 2.4e-6),
    # 100 and 20 Mbit/s are what the FCC calls broadband since 2024; round trips and jitter are declared.
    "home-broadband": LinkProfile(
        rtt_s=0.02, upload_bytes_per_s=2.5e6, download_bytes_per_s=12.5e6, jitter=0.2, rate_regimes=_HOME_RATE
    ),
}
