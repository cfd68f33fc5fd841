"""What a journal's segment begins with, as far as whoever folds its facts has to know it."""

import msgspec

from tidegate.core.model import Capability, Fingerprint, Segment
from tidegate.core.state import EndpointState, MemoryState, State


class _Places(msgspec.Struct):
    """As much of an endpoint's state as tells what is under way there, and what may ever be."""

    class Handover(msgspec.Struct):
        under_way: dict[str, msgspec.Raw] = {}

    reservations: dict[str, msgspec.Raw] = {}
    handovers: dict[str, Handover] = {}
    context_tokens: int | None = None
    capabilities: tuple[Capability, ...] | None = None
    fingerprint: Fingerprint | None = None
    trusted: Fingerprint | None = None
    drifted: bool = False
    memory: MemoryState = msgspec.field(default_factory=MemoryState)


class Begun(msgspec.Struct):
    """As much of what a segment begins with."""

    endpoints: dict[str, _Places] = {}
    held: dict[str, msgspec.Raw] = {}
    going_on: tuple[str, ...] = ()

    @property
    def under_way(self) -> set[str]:
        """The requests that are, wherever."""
        return under_way(self).union(self.going_on)

    def state_of(self, endpoint: str) -> EndpointState:
        """What it is known to be, and nothing that it is doing."""
        state, known = EndpointState(), self.endpoints.get(endpoint, _Places())
        state.context_tokens, state.capabilities = known.context_tokens, known.capabilities
        state.fingerprint, state.trusted, state.drifted = known.fingerprint, known.trusted, known.drifted
        state.memory = known.memory
        return state


def under_way(state: State | Begun) -> set[str]:
    """The requests that are held, or under way at an endpoint that is known."""
    found = set(state.held)
    for places in state.endpoints.values():
        found.update(places.reservations, *(one.under_way for one in places.handovers.values()))
    return found


def begun(segment: Segment) -> Begun:
    """What it begins with; of its state nothing where that cannot be read."""
    try:
        found = msgspec.json.decode(segment.state, type=Begun)
    except msgspec.MsgspecError:
        found = Begun()
    found.going_on = segment.going_on
    return found
