"""What goes wrong in a scenario, and what operators do by hand: put into the world's time."""

from collections.abc import Mapping

from tidegate.core.base import TO
from tidegate.core.model import Overrides
from tidegate.sim.carrier import Carrier
from tidegate.sim.place import Local, Remote
from tidegate.sim.schema import FaultKind, FaultTable
from tidegate.sim.world import World


class Trouble:
    """Arranges faults. Where two of one kind overlap at one endpoint, the earlier end does not end the later one."""

    def __init__(
        self, world: World, places: Mapping[str, Local | Remote], carriers: Mapping[str, Carrier] | None = None
    ) -> None:
        """`carriers` are those of the handovers, by name."""
        self._world = world
        self._places = places
        self._carriers = carriers or {}
        self._under_way: dict[tuple[FaultKind, str, str], list[FaultTable]] = {}

    def arrange(self, fault: FaultTable) -> None:
        """Let this happen at its time, counted from now."""
        at_s = self._world.loop.now_s + fault.at_s
        self._world.loop.at(at_s, self._begin, fault)
        self._world.loop.at(at_s + fault.for_s, self._end, fault)

    def _begin(self, fault: FaultTable) -> None:
        now_s, place = self._world.loop.now_s, self._places.get(fault.endpoint)
        self._under_way.setdefault((fault.kind, fault.endpoint, fault.to), []).append(fault)
        if isinstance(place, Local) and fault.kind is FaultKind.CRASH:
            place.crash(now_s + fault.for_s)
        elif isinstance(place, Local) and fault.kind is FaultKind.FREEZE:
            place.freeze(now_s + fault.for_s)
        else:
            self._apply(fault)

    def _end(self, fault: FaultTable) -> None:
        self._under_way[fault.kind, fault.endpoint, fault.to].remove(fault)
        self._apply(fault)

    def _apply(self, fault: FaultTable) -> None:
        """Make it so as the latest of those under way says, or as it was before any."""
        under_way = self._under_way[fault.kind, fault.endpoint, fault.to]
        latest = under_way[-1] if under_way else None
        place, now_s = self._places.get(fault.endpoint), self._world.loop.now_s
        match fault.kind:
            case FaultKind.DRAIN | FaultKind.PIN | FaultKind.STATIC:
                self._world.override(self._overrides())
            case FaultKind.OUTAGE if fault.to:
                self._carriers[fault.endpoint + TO + fault.to].link.down = latest is not None
            case FaultKind.OUTAGE:
                assert place is not None, "the scenario is checked"
                if latest is None:
                    place.mend()
                else:
                    place.cut()
            case FaultKind.SLOW:
                factor = 1.0 if latest is None or latest.factor is None else latest.factor
                if isinstance(place, Local):
                    place.slow(factor)
                elif isinstance(place, Remote):
                    place.api.slowdown = factor
            case FaultKind.UNAVAILABLE if isinstance(place, Remote):
                place.api.down = latest is not None
            case FaultKind.RATE_LIMIT if isinstance(place, Remote):
                usual = place.api.profile.requests_per_minute
                place.api.limit(usual if latest is None else latest.requests_per_minute, now_s)

    def _overrides(self) -> Overrides:
        def named(kind: FaultKind) -> tuple[str, ...]:
            return tuple(sorted(name for (one, name, _), faults in self._under_way.items() if one is kind and faults))

        return Overrides(
            drained=named(FaultKind.DRAIN), pinned=named(FaultKind.PIN), static=bool(named(FaultKind.STATIC))
        )
