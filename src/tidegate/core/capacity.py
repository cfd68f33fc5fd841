"""How many requests an endpoint takes at once."""

from tidegate.core.base import Base
from tidegate.core.health import Health
from tidegate.core.memory import Memory
from tidegate.core.model import Ended, Endpoint, Started
from tidegate.core.reserve import Reservation
from tidegate.core.state import EndpointState
from tidegate.core.timing import Timing


class Capacity:
    """As many as are configured, as its memory has slots for and as its health lets it; and of an engine of ours, as
    it is quick with. `settle` and `learn` write, the rest reads.

    It takes so many `places`; what comes there sees no more than `load_max` beside it, None where nothing bounds that.
    """

    __slots__ = ("_endpoint", "_health", "_memory", "_state", "load_max", "places")

    def __init__(self, endpoint: Endpoint, memory: Memory, health: Health, state: EndpointState) -> None:
        self._endpoint, self._memory, self._health, self._state = endpoint, memory, health, state
        self.places: int
        self.load_max: int | None
        # As of when that was learned; what time has done since, the next fact tells.
        self.settle(state.batch.at_s)

    def settle(self, now_s: float) -> None:
        """What is ours gets no more than it has slots, and is quick with, so that the rest waits here; and nobody more
        than it stands."""
        endpoint, slots, places = self._endpoint, self._memory.slots, self._endpoint.concurrency
        if endpoint.owned:
            # One by one, answers say nothing of a larger batch: only time makes it larger again.
            self._state.batch.settle(now_s)
            places = self._state.batch.of(places if slots is None else min(slots, places))
        self.places = self._health.places(places)
        # It takes the next request once a slot is free: that will never see more beside it than this.
        self.load_max = self.places - 1 if endpoint.owned else None

    def promised(self, fact: Started, base: Base, timing: Timing) -> float | None:
        """The time per token that it was promised, where its batch is ours to make smaller, and one that is alone there
        is believed to keep that."""
        promised_s = fact.promised_tpot_s
        if promised_s is None or not (self._endpoint.owned and self._endpoint.shares_compute):
            return None
        return promised_s if timing.tpot.alone_s(base.tpot.parts[0]) <= promised_s else None

    def learn(self, sent: Reservation, fact: Ended, now_s: float) -> None:
        """Whether its tokens took longer than was promised, and others were there at which to look for the reason."""
        promised_s, tpot_s = sent.promised_tpot_s, Timing.tpot_s(sent, fact)
        if promised_s is None or tpot_s is None or not sent.tpot.column:
            return
        self._state.batch.learn(tpot_s > promised_s, now_s)
        self.settle(now_s)
