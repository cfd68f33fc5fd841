"""All that the core learns and tracks: a snapshot is this, encoded."""

import msgspec

from tidegate.core.breaker import Breaker
from tidegate.core.calibration import Cell, UpperQuantile
from tidegate.core.coldstart import ColdState
from tidegate.core.model import Capability, Fingerprint, Overrides, Request
from tidegate.core.network import Network
from tidegate.core.reserve import Prefills, Reservation


class EndpointState(msgspec.Struct, kw_only=True):
    """All that is learned and tracked of one endpoint.

    `fingerprint` is what its probes told last, `trusted` what they told first since the configuration is in force: on
    first use it is believed.
    """

    network: Network
    quantile: UpperQuantile
    breaker: Breaker
    prefills: Prefills
    ttft: list[Cell] | None = None
    tpot: list[Cell] | None = None
    reservations: dict[str, Reservation] = {}
    up: bool = True
    context_tokens: int | None = None
    capabilities: tuple[Capability, ...] | None = None
    not_before_s: float = 0.0
    fingerprint: Fingerprint | None = None
    trusted: Fingerprint | None = None
    drifted: bool = False
    cold: ColdState = msgspec.field(default_factory=ColdState)


class Pin(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a conversation was served last, and when."""

    endpoint: str
    used_s: float


class State(msgspec.Struct, kw_only=True):
    """Everything learned and tracked. `sessions` by conversation, the one that was used last at the end."""

    endpoints: dict[str, EndpointState] = {}
    lengths: dict[str, Cell] = {}
    held: dict[str, Request] = {}
    overrides: Overrides = Overrides()
    sessions: dict[str, Pin] = {}
    static_until_s: float = 0.0
