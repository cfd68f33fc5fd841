"""All that the core learns and tracks: a snapshot is this, encoded."""

import msgspec

from tidegate.core.breaker import Breaker
from tidegate.core.counts import Lengths
from tidegate.core.latency import Learned
from tidegate.core.load import Load
from tidegate.core.model import Capability, Fingerprint, Overrides, Request
from tidegate.core.network import Network
from tidegate.core.pace import Pace
from tidegate.core.prompts import Prompts
from tidegate.core.reserve import Prefills, Reservation


class EndpointState(msgspec.Struct, kw_only=True):
    """All that is learned and tracked of one endpoint.

    `fingerprint` is what its probes told last, `trusted` what they told first since the configuration is in force: on
    first use it is believed. `prompts` are those that it was given, and how long it keeps what it computed of them.
    """

    breaker: Breaker
    prefills: Prefills
    pace: Pace
    network: Network = msgspec.field(default_factory=Network)
    ttft: Learned | None = None
    tpot: Learned | None = None
    reservations: dict[str, Reservation] = {}
    up: bool = True
    context_tokens: int | None = None
    capabilities: tuple[Capability, ...] | None = None
    not_before_s: float = 0.0
    fingerprint: Fingerprint | None = None
    trusted: Fingerprint | None = None
    drifted: bool = False
    prompts: Prompts = msgspec.field(default_factory=Prompts)
    load: Load = msgspec.field(default_factory=Load)


class Pin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a conversation was served last, and when."""

    endpoint: str
    used_s: float


class State(msgspec.Struct, kw_only=True):
    """Everything learned and tracked. `sessions` by conversation, the one that was used last at the end."""

    endpoints: dict[str, EndpointState] = {}
    lengths: Lengths = msgspec.field(default_factory=Lengths)
    held: dict[str, Request] = {}
    overrides: Overrides = Overrides()
    sessions: dict[str, Pin] = {}
    static_until_s: float = 0.0
