"""Looks at simulated places, as a gateway takes them: by the clock, and before their turn where there is doubt."""

from collections.abc import Callable, Mapping

from tidegate.core.model import Observation, Probed, Uploaded
from tidegate.core.network import LOOK_S, RATE_LOOK_BYTES, UPLOAD_S_LEAST, UPLOAD_S_SURE
from tidegate.sim.decider import Decider
from tidegate.sim.loop import Loop
from tidegate.sim.place import Place

# What a look finds is told in another moment than what has called for it.
MOMENT_S = 1e-6


class Looks:
    """Probes `places` and tells the router what they saw."""

    def __init__(
        self,
        places: Mapping[str, Place],
        loop: Loop,
        router: Decider,
        tell: Callable[[Observation], None],
        told: Callable[[], None],
        every_s: float,
    ) -> None:
        """`tell` passes a fact on; `told` is called after each look, which may change what becomes of who waits. All of
        them are looked at `every_s`, by whoever calls `all`."""
        self._places, self._loop, self._router = places, loop, router
        self._tell, self._told = tell, told
        # As a gateway does, which probes every five seconds; where a long run is probed more rarely, in proportion.
        self._away_look_s = max(LOOK_S, every_s / 5.0)
        # When each place was probed last, and which are to be before their turn.
        self._looked_s: dict[str, float] = {}
        self._looking: set[str] = set()
        self._rate_looks: set[str] = set()
        # Those that were not found the last time.
        self._away: set[str] = set()

    def all(self) -> None:
        """Look at every place."""
        for name in self._places:
            self._look(name)

    def again(self, endpoint: str) -> None:
        """Before its turn, where the network is in doubt, or nobody was there."""
        # Where only the next probes are left to come, nobody asks any more.
        if endpoint in self._away or self._router.endpoint(endpoint).late.doubts_network:
            self._soon(endpoint)

    def _look(self, endpoint: str) -> None:
        self._seen(endpoint, self._places[endpoint].probe())

    def _seen(self, endpoint: str, seen: Probed) -> None:
        self._looked_s[endpoint] = self._loop.now_s
        if seen.up:
            self._away.discard(endpoint)
        else:
            self._away.add(endpoint)
        self._tell(seen)
        self._told()
        self._look_at_rate(endpoint)
        self.again(endpoint)

    def _soon(self, endpoint: str) -> None:
        # Where nothing is left to come but looks, nobody looks any more.
        if endpoint not in self._looking and self._loop.waiting > 1 + len(self._looking):
            self._looking.add(endpoint)
            after_s = self._away_look_s if endpoint in self._away else LOOK_S
            at_s = max(self._looked_s[endpoint] + after_s, self._loop.now_s + MOMENT_S)
            self._loop.at(at_s, self._settle, endpoint)

    def _settle(self, endpoint: str) -> None:
        self._looking.discard(endpoint)
        if endpoint in self._away:
            self._look_for(endpoint)
        else:
            # As a gateway does, also where nothing is in doubt any more: what was late waits for it.
            self._look(endpoint)

    def _look_for(self, endpoint: str) -> None:
        """Between probes; that it is still away is told no more often than it is of others."""
        seen = self._places[endpoint].probe()
        if seen.up:
            self._seen(endpoint, seen)
        else:
            self._looked_s[endpoint] = self._loop.now_s
            self._soon(endpoint)

    def _look_at_rate(self, endpoint: str) -> None:
        """By bytes that serve nothing, where it may be better than it was found to be."""
        model = self._router.endpoint(endpoint)
        if endpoint in self._rate_looks or not model.doubts_rate(self._loop.now_s):
            return
        seconds = self._places[endpoint].upload_s(RATE_LOOK_BYTES)
        if seconds is None:
            return
        at_most, seconds = seconds < UPLOAD_S_SURE, max(seconds, UPLOAD_S_LEAST)
        if model.network.is_news(RATE_LOOK_BYTES, seconds, at_most=at_most):
            fact = Uploaded(
                request_id="",
                endpoint=endpoint,
                upload_bytes=RATE_LOOK_BYTES,
                seconds=seconds,
                at_most=at_most,
            )
            self._rate_looks.add(endpoint)
            self._loop.at(self._loop.now_s + seconds, self._rate_seen, fact)

    def _rate_seen(self, fact: Uploaded) -> None:
        self._rate_looks.discard(fact.endpoint)
        self._tell(fact)
        if self._router.endpoint(fact.endpoint).network.rate_unsettled:
            self._soon(fact.endpoint)
