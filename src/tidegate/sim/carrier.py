"""The way that KV caches take from one engine to another: one after the other, over a link of their own."""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

from tidegate.core.base import TO
from tidegate.core.handover import HandoverModel
from tidegate.core.model import Endpoint, Handover, Record, replace
from tidegate.sim.chance import Chance
from tidegate.sim.loop import Loop
from tidegate.sim.network import Link, LinkProfile, kv_bytes


class CarrierProfile(Record, frozen=True, kw_only=True):
    """What is true of a handover: its way, and what is sent by it; see `core.model.Handover`."""

    link: LinkProfile
    kv_bytes_per_token: float
    kv_bytes_fixed: float = 0.0
    layers: int = 1


def as_declared(handover: Handover) -> CarrierProfile:
    """A way that is what the configuration says, for all that it is asked."""
    rate = handover.bytes_per_s
    return CarrierProfile(
        link=LinkProfile(rtt_s=0.0, upload_bytes_per_s=rate, download_bytes_per_s=rate),
        kv_bytes_per_token=handover.kv_bytes_per_token,
        kv_bytes_fixed=handover.kv_bytes_fixed,
        layers=handover.layers,
    )


def as_measured(known: HandoverModel) -> CarrierProfile:
    """A way that is what a router has found of it."""
    handover, rate, state = known.declared, known.network.upload_bytes_per_s, known.state
    larger = state.sent_bytes / state.declared_bytes if state.declared_bytes else 1.0
    return replace(
        as_declared(handover),
        link=LinkProfile(rtt_s=0.0, upload_bytes_per_s=rate, download_bytes_per_s=rate),
        kv_bytes_per_token=larger * handover.kv_bytes_per_token,
        kv_bytes_fixed=larger * handover.kv_bytes_fixed,
    )


Arrived = Callable[[int, int, float | None], None]
"""Told how many bytes it had, how many of them were left when it was computed, and how many seconds these took; None is
never."""


class Shipment:
    """The KV cache of one prompt, of which the first `tokens` are to be sent. Once it is `over`, nobody wants it."""

    __slots__ = ("arrived", "over", "prefill_s", "tokens")

    def __init__(self, tokens: int, prefill_s: float, arrived: Arrived) -> None:
        """Computing them took `prefill_s`."""
        self.tokens, self.prefill_s, self.arrived = tokens, prefill_s, arrived
        self.over = False


class Carrier:
    """Sends what it is given in its order."""

    def __init__(self, profile: CarrierProfile, link: Link, loop: Loop) -> None:
        self._profile, self.link, self._loop = profile, link, loop
        self._waiting: deque[Shipment] = deque()
        self._busy = False

    def send(self, shipment: Shipment) -> None:
        """Its prompt is computed."""
        self._waiting.append(shipment)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = False
        while self._waiting:
            shipment = self._waiting.popleft()
            if not shipment.over:
                self._busy = True
                self._carry(shipment)
                return

    def _carry(self, shipment: Shipment) -> None:
        now_s, profile = self._loop.now_s, self._profile
        size = kv_bytes(shipment.tokens, profile.kv_bytes_per_token, profile.kv_bytes_fixed)
        left = size
        if profile.layers > 1:
            # Most layers were sent while the next ones were computed, and the last one could not be.
            sent = profile.link.upload_bytes_per_s * shipment.prefill_s
            left = max(round(size - sent), size // profile.layers)
        arrives_s = self.link.sent(left, now_s)
        if arrives_s == inf:
            self._loop.at(now_s, self._there, shipment, size, left, None)
        else:
            self._loop.at(arrives_s, self._there, shipment, size, left, arrives_s - now_s)

    def _there(self, shipment: Shipment, size: int, left: int, seconds: float | None) -> None:
        if not shipment.over:
            shipment.arrived(size, left, seconds)
        self._next()


def declared(endpoints: Iterable[Endpoint], loop: Loop) -> dict[str, Carrier]:
    """One for each handover, by name, that does what its endpoint declares."""
    chance = Chance(0)
    found = {}
    for endpoint in endpoints:
        for handover in endpoint.handovers:
            name = endpoint.name + TO + handover.target
            profile = as_declared(handover)
            found[name] = Carrier(profile, Link(profile.link, chance, name), loop)
    return found
