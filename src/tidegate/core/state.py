"""All that the core learns and tracks: a snapshot is this, encoded."""

import msgspec

from tidegate.core.breaker import Breaker
from tidegate.core.calibration import Cell, UpperQuantile
from tidegate.core.model import Capability, Request
from tidegate.core.network import Network
from tidegate.core.reserve import Prefills, Reservation


class EndpointState(msgspec.Struct, kw_only=True):
    """All that is learned and tracked of one endpoint."""

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
    drifted: bool = False


class State(msgspec.Struct, kw_only=True):
    """Everything learned and tracked."""

    endpoints: dict[str, EndpointState] = {}
    lengths: dict[str, Cell] = {}
    held: dict[str, Request] = {}
    static_until_s: float = 0.0
