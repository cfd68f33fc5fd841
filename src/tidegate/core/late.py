"""Answers that come later than was promised: whether the engine or the way there is to blame."""

from typing import Final

from tidegate.core.model import Ended, Endpoint
from tidegate.core.network import UPLOAD_BYTES_MIN, NetworkModel
from tidegate.core.reserve import Reservation
from tidegate.core.state import EndpointState, Late
from tidegate.core.timing import Timing

# One promise in ten is missed by chance, so that one in a hundred times it is two in a row. One that is missed by as
# much again is as good as two: whoever asks one by one is answered by an estimator that has learned from the last one.
SURPRISES: Final = 2
# So many late answers wait to be understood; what comes beyond is taken for the engine's, oldest first.
LATE_MAX: Final = 16


class LateAnswers:
    """What is late may be the network's, of which the next probe tells: until then it teaches nothing of the engine.
    `first`, `gave_nothing`, `probed`, `learn` and `settle` write, the rest reads."""

    __slots__ = ("_late", "_local", "_network", "_state", "_surprises")

    def __init__(self, endpoint: Endpoint, network: NetworkModel, state: EndpointState) -> None:
        self._local, self._network, self._state = endpoint.local, network, state
        # Adds up over attempts in a row whose first content came later than promised, or sooner than it can.
        self._surprises = 0
        # Whether the last of them was later than promised.
        self._late = False

    @property
    def doubts_network(self) -> bool:
        """Whether the way there may be another one by now, so that a probe should tell before its turn."""
        return self._network.unsettled or self._surprises >= SURPRISES

    @property
    def telling_bytes(self) -> int:
        """From how many bytes on it is worth timing a request's upload. Where the last first content was late, nearly
        any: the way may be slow that is thought too fast to be timed with less."""
        return UPLOAD_BYTES_MIN if self._late else self._network.telling_bytes

    def first(self, sent: Reservation, ttft_s: float) -> None:
        """Its first content is here."""
        surprise = 0 if sent.was_cold else _surprise(sent, ttft_s)
        self._surprises = self._surprises + surprise if surprise else 0
        self._late = ttft_s > sent.ttft_s_high

    def gave_nothing(self, sent: Reservation, waited_s: float) -> None:
        """It is over, and nobody saw content after so long."""
        self._surprises += _surprise(sent, max(waited_s, sent.network_s))
        self._late = self._late or waited_s > sent.ttft_s_high

    def probed(self) -> None:
        """A probe has answered, or nothing did."""
        self._surprises = 0

    def learn(self, timing: Timing, sent: Reservation, fact: Ended, ttft_s: float, now_s: float) -> None:
        """It has ended after it had shown content: that teaches now, or once the network has been measured."""
        if not self._may_be_the_network(sent, ttft_s):
            timing.learn(sent, fact, ttft_s, now_s)
            return
        late = self._state.late
        late.append(Late(sent, fact))
        if len(late) > LATE_MAX:
            _teach(timing, late.pop(0), now_s)

    def settle(self, timing: Timing, now_s: float) -> None:
        """The round trip has been measured: what waited for that teaches, unless it is not settled yet."""
        if self._network.unsettled:
            return
        late, self._state.late = self._state.late, []
        for one in late:
            _teach(timing, one, now_s)

    def _may_be_the_network(self, sent: Reservation, ttft_s: float) -> bool:
        """Whether it was late, and the round trip has not been measured since it was sent: a probe is to tell first.

        An answer of a few words is over before one could have told.
        """
        if self._local or sent.corrected or sent.was_cold or ttft_s <= sent.warm_s_high:
            return False
        return self._network.measured_s < sent.started_s


def _teach(timing: Timing, late: Late, now_s: float) -> None:
    """It is known now how much of its time was the network's."""
    assert late.ended.ttft_s is not None, "it had content"
    timing.learn(late.sent, late.ended, late.ended.ttft_s, now_s)


def _surprise(sent: Reservation, ttft_s: float) -> int:
    """How odd a time to first content is that may be the network's: it cannot be sooner than that lets it."""
    if ttft_s < sent.network_s:
        return SURPRISES
    if ttft_s > sent.ttft_s_high:
        return SURPRISES if ttft_s > 2.0 * sent.ttft_s_high else 1
    return 0
