"""What was believed a while ago: a router beside the real one that is told the same and learns later.

Predictions follow a change within a few attempts, so their errors hardly show it. What was believed before it does.
"""

from collections.abc import Sequence

import msgspec

from tidegate.core.model import Ended, Ending, Endpoint, Fingerprint, FirstToken, Line, Policy, Probed, Started
from tidegate.core.router import Router
from tidegate.core.state import EndpointState, State

# What is believed of an endpoint is what was, between one and two times so many of its attempts ago.
ATTEMPTS = 50


class _Kept:
    """What was learned of one endpoint: `older` is believed, `newer` will be. None is not enough to believe yet."""

    __slots__ = ("attempts", "newer", "older")

    def __init__(self) -> None:
        self.attempts = 0
        self.older: EndpointState | None = None
        self.newer: EndpointState | None = None


class Reference:
    """Tell it each line after the real router was told; `router` predicts as was believed a while ago."""

    def __init__(self) -> None:
        self.router: Router | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._kept: dict[str, _Kept] = {}

    def knows(self, endpoint: str) -> bool:
        """Whether enough was learned of it, long enough ago."""
        kept = self._kept.get(endpoint)
        return kept is not None and kept.older is not None

    def begin(self, endpoints: Sequence[Endpoint], policy: Policy, real: Router) -> None:
        """A segment begins. Of an endpoint that is not what it was, what was believed is forgotten."""
        before, self._endpoints = self._endpoints, {endpoint.name: endpoint for endpoint in endpoints}
        self._kept = {
            name: kept
            for name, kept in self._kept.items()
            if self._endpoints.get(name) == before[name]
            and self._serves(name, real.endpoint(name).identity.fingerprint)
        }
        state = msgspec.json.decode(real.snapshot(), type=State)
        for name in state.endpoints:
            kept = self._kept.setdefault(name, _Kept())
            if kept.older is not None:
                assert self.router is not None, "what is kept was learned by one"
                # How much came of late is counted in seconds as believed.
                pace = self.router.state.endpoints[name].pace
                believing = _believing(state.endpoints[name], kept.older)
                state.endpoints[name] = msgspec.structs.replace(believing, pace=pace)
            for reservation in state.endpoints[name].reservations.values():
                reservation.teaches = False
        self._policy = policy
        self.router = Router(tuple(endpoints), policy, state)

    def _serves(self, name: str, told: Fingerprint) -> bool:
        return self.router is not None and self.router.endpoint(name).identity.fingerprint == told

    def feed(self, line: Line, real: Router) -> None:
        """One more line, which is no segment. Where the model fails at it, what was believed is forgotten."""
        fact, router = line.fact, self.router
        if router is None or not isinstance(fact, Started | FirstToken | Ended | Probed):
            return
        try:
            self._take_in(fact, router, line.at_s, real)
        except Exception:
            # The real one fails at it, too, or did when these beliefs were taken from it.
            if fact.endpoint in self._kept:
                self._kept[fact.endpoint] = _Kept()

    def _take_in(self, fact: Started | FirstToken | Ended | Probed, router: Router, now_s: float, real: Router) -> None:
        if isinstance(fact, Probed) and fact.endpoint in self._kept:
            before = router.endpoint(fact.endpoint).identity.fingerprint
            router.observe(fact, now_s)
            if router.endpoint(fact.endpoint).identity.fingerprint != before:
                # Another model: what was believed of it is what was believed of the other one.
                self._kept[fact.endpoint] = _Kept()
            return
        router.observe(fact, now_s)
        if isinstance(fact, Started):
            known = router.state.endpoints.get(fact.endpoint)
            if known is not None:
                known.reservations[fact.request_id].teaches = False
        elif isinstance(fact, Ended) and _tells(fact) and fact.endpoint in self._kept:
            self._learn(self._kept[fact.endpoint], fact.endpoint, real)

    def _learn(self, kept: _Kept, name: str, real: Router) -> None:
        kept.attempts += 1
        if kept.attempts % ATTEMPTS:
            return
        learned = msgspec.json.encode(real.state.endpoints[name])
        kept.older, kept.newer = kept.newer, msgspec.json.decode(learned, type=EndpointState)
        if kept.older is None:
            kept.older = kept.newer
        assert self.router is not None, "it was fed"
        state = self.router.state
        state.endpoints[name] = _believing(state.endpoints[name], kept.older)
        self.router = Router(tuple(self._endpoints.values()), self._policy, state)


def _tells(fact: Ended) -> bool:
    """Whether an attempt says how long things take: its first content came, or a whole answer with its tokens."""
    return fact.ttft_s is not None or (fact.ending is Ending.OK and bool(fact.output_tokens))


def _believing(now: EndpointState, then: EndpointState) -> EndpointState:
    """As it is, with how long things take as it was believed then; a copy, since routers change theirs."""
    learned = msgspec.json.decode(msgspec.json.encode(then), type=EndpointState)
    load = msgspec.structs.replace(now.load, waiting=learned.load.waiting, usual=learned.load.usual)
    cold = msgspec.structs.replace(
        now.cold,
        idle=learned.cold.idle,
        levels=learned.cold.levels,
        resident=learned.cold.resident,
        away=learned.cold.away,
        loads=learned.cold.loads,
    )
    return msgspec.structs.replace(now, ttft=learned.ttft, tpot=learned.tpot, e2e=learned.e2e, load=load, cold=cold)
