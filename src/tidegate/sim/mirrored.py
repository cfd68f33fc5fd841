"""Mirrored requests, as they come: decided in a world that keeps pace with the real one, and sent nowhere.

What stands behind the endpoints is what the configuration says of them, and how long answers are is what is believed of
such requests before anything is learned: nobody tells a mirror what came of it. So all that is said here is one
prediction beside another. Beside Tidegate's world there may be one in which all goes to one endpoint, as it does now.
"""

from collections import Counter, deque
from collections.abc import Callable, Container, Sequence
from math import exp

import msgspec

from tidegate.core.length import LengthModel
from tidegate.core.model import Decision, Endpoint, Line, Policy, Record, Request, Segment, replace
from tidegate.core.output import Length
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.sim.api import Spread
from tidegate.sim.chance import Chance
from tidegate.sim.decider import AtOnce, Decider
from tidegate.sim.job import Job
from tidegate.sim.outcome import Outcome, side_by_side
from tidegate.sim.preview import Figures, Interval, blocks_of, dear_usd, figures_of, gained, interval, pairs_of
from tidegate.sim.purse import Purse
from tidegate.sim.twin import TIMEOUT_S, Asks, Stand, placed, prompt_blocks, stand
from tidegate.sim.world import World

PROBE_S = 5.0
# As times to first token of one vendor scatter in public measurements, about their median.
SCATTER = 0.3
# Of a longer time the last so many: a request is a kilobyte.
KEPT_MAX = 20_000


class Mirror(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What a mirror has come to: of the last requests that are over, and in all by endpoint and by reason.

    Over is here, too, what is under way and has missed its promise, but for dollars: of it nobody knows yet what it
    costs. `theirs` and the differences are None where nobody said where all goes now, and both sides are of the same
    requests where somebody did. `saved_usd_per_1k` is what Tidegate would save, None while no request has ended in both
    worlds; promises are `missed` that only theirs keeps, and `gained` that only Tidegate does.
    """

    requests: int
    by_endpoint: dict[str, int]
    by_why: dict[str, int]
    ours: Figures
    theirs: Figures | None = None
    saved_usd_per_1k: Interval | None = None
    missed: int | None = None
    gained: int | None = None


class Mirrored:
    """Takes requests in, in the order of their times. `journal` is given every line but the segment's."""

    def __init__(
        self,
        endpoints: tuple[Endpoint, ...],
        policy: Policy,
        *,
        start_s: float,
        now: str | None = None,
        purse: Purse | None = None,
        journal: Callable[[Line], None] = lambda _: None,
        seed: int = 0,
    ) -> None:
        """All goes to the endpoint `now`, as things are; None where that is not so. What Tidegate would spend comes out
        of the `purse`; None is without a limit."""
        self._endpoints, self._policy, self._journal = endpoints, policy, journal
        self._away = {endpoint.name for endpoint in endpoints if not endpoint.local}
        self._lengths, self._chance = LengthModel(State().lengths), Chance(seed)
        # Who arrives, and what is decided of it at once.
        self._asked = ""
        self._decided: Decision | None = None
        self.router = Router(endpoints, policy)
        self._ours = self._world(self.router, start_s, self._write, purse)
        self._theirs = (
            None
            if now is None
            else self._world(AtOnce({}, endpoints, policy, usual=now), start_s, lambda _: None, None)
        )
        self._over: deque[Outcome] = deque(maxlen=KEPT_MAX)
        self._their_over: deque[Outcome] = deque(maxlen=KEPT_MAX)
        self._by_endpoint, self._by_why = Counter[str](), Counter[str]()
        self._count = 0

    def take(self, request: Request) -> Decision:
        """Where it would go, decided as all that came before it has left its world."""
        # Two that come together may be told of in either order.
        now_s = max(request.arrived_s, self._ours.loop.now_s)
        self.pass_until(now_s)
        self._count += 1
        self._asked, self._decided = request.id, None
        tokens = self._output_tokens(request)
        blocks, block_tokens = prompt_blocks(request, request.prompt_tokens)
        job = Job(
            request=request,
            prompt_tokens=request.prompt_tokens,
            output_tokens=tokens,
            blocks=blocks,
            block_tokens=block_tokens,
        )
        for world in self._worlds():
            world.arrive(job)
            world.loop.run(now_s)
        assert self._decided is not None, "who arrives is decided on"
        return self._decided

    def pass_until(self, now_s: float) -> None:
        """Let happen what would have happened by then."""
        for world in self._worlds():
            world.loop.run(now_s)
            world.loop.now_s = max(world.loop.now_s, now_s)
        self._gather(self._ours, self._over)
        if self._theirs is not None:
            self._gather(self._theirs, self._their_over)

    def told(self) -> Mirror:
        """What it has come to."""
        overdue = self._ours.overdue()
        ours, late = [*self._over, *overdue], {one.request.id for one in overdue}
        found = Mirror(
            requests=self._count,
            by_endpoint=dict(self._by_endpoint.most_common()),
            by_why=dict(self._by_why.most_common()),
            ours=self._figures(ours, late),
        )
        if self._theirs is None:
            return found
        overdue = self._theirs.overdue()
        late |= {one.request.id for one in overdue}
        pairs = pairs_of(*side_by_side([*self._their_over, *overdue], ours))
        pairs.sort(key=lambda pair: pair[0].request.arrived_s)
        return replace(
            found,
            ours=self._figures([b for _, b in pairs], late),
            theirs=self._figures([a for a, _ in pairs], late),
            saved_usd_per_1k=_saved([(a, b) for a, b in pairs if a.request.id not in late]),
            missed=sum(gained(a, b) < 0 for a, b in pairs),
            gained=sum(gained(a, b) > 0 for a, b in pairs),
        )

    def _figures(self, outcomes: Sequence[Outcome], late: Container[str]) -> Figures:
        """Dollars are of those that are not `late`, and under way still."""
        ended = figures_of([one for one in outcomes if one.request.id not in late], self._away)
        return replace(figures_of(outcomes, self._away), usd_per_1k=ended.usd_per_1k)

    def _worlds(self) -> tuple[World, ...]:
        return (self._ours,) if self._theirs is None else (self._ours, self._theirs)

    def _world(self, decider: Decider, start_s: float, journal: Callable[[Line], None], purse: Purse | None) -> World:
        world = World(
            self._endpoints,
            self._policy,
            start_s=start_s,
            request_timeout_s=TIMEOUT_S,
            router=decider,
            purse=purse,
            journal=journal,
        )
        stands = {one.name: _scattered(stand(decider.endpoint(one.name), (), {}, start_s)) for one in self._endpoints}
        world.open(placed(stands, world, self._chance), Asks(()), probe_s=PROBE_S)
        _beat(world)
        return world

    def _write(self, line: Line) -> None:
        fact = line.fact
        if isinstance(fact, Segment):
            return
        if isinstance(fact, Decision) and fact.request_id == self._asked:
            self._decided = fact
        self._journal(line)

    def _gather(self, world: World, kept: deque[Outcome]) -> None:
        over, world.outcomes = world.outcomes, []
        for one in over:
            if world is self._ours:
                self._by_endpoint[one.endpoint or "nobody"] += 1
                self._by_why[str(one.why)] += 1
            kept.append(msgspec.structs.replace(one, request=replace(one.request, prefix=())))

    def _output_tokens(self, request: Request) -> int:
        """How long its answer would be, drawn by what is believed of such."""
        length: Length = self._lengths.of(request)
        drawn = length.median_tokens * exp(self._chance.at("length", request.id).gauss(0.0, length.sigma))
        return max(1, round(drawn))


def _saved(pairs: Sequence[tuple[Outcome, Outcome]]) -> Interval | None:
    """What the second of each would save of a thousand requests."""
    if not pairs:
        return None
    blocks = blocks_of([a.request.arrived_s for a, _ in pairs])
    return interval([1000.0 * (a.usd - b.usd) for a, b in pairs], blocks, least=dear_usd([a for a, _ in pairs]))


def _scattered(one: Stand) -> Stand:
    """What is declared of an API is a median."""
    if one.api is None:
        return one
    return replace(one, api=replace(one.api, ttft_spread=Spread(sigma=SCATTER)))


def _beat(world: World) -> None:
    """Something is always to happen, so that probes go on while nobody asks."""
    world.loop.at(world.loop.now_s + PROBE_S, _beat, world)
