"""What tenants have had of our engines of late: who has had less than the share of their weight comes first where not
all can be in time.

A tenant is a client's key; what comes without one is a tenant, too. Its classes are not tenants: else who names more of
them would be given more. What they are worth to each other, their owner has said; of them it is counted only who has
had less of what is kept for those that are late or were promised nothing.
"""

from math import floor, log, pow
from typing import Final

import msgspec

from tidegate.core.classify import base_of
from tidegate.core.model import Request
from tidegate.core.record import Untracked

# By then half is forgotten: longer than any burst of a tenant that is modest on average, and shorter than people wait
# before they ask what is wrong.
HALF_LIFE_S: Final = 60.0
# So many seconds' worth of what is given all the time is remembered.
GIVEN_S: Final = HALF_LIFE_S / log(2.0)
# Keys that share engines at the same time are dozens. Who has had least is forgotten first: they are nearly even with
# those who have had nothing.
FLOWS_MAX: Final = 256
# Of these, so many go at once, so that finding them costs little.
_FORGOTTEN: Final = FLOWS_MAX // 4
# Of an engine's seconds so many are kept for those that are late or were promised nothing, while somebody else is
# promised something: enough that each comes to an end, and little to those who are in time.
REST_SHARE: Final = 0.1
# They are owed it once they have waited for a quarter of `hold_s_max`: before that a slot may be free anyway.
PATIENCE_SHARE: Final = 0.25
_US: Final = 1e6


class Served(Untracked):
    """Seconds of engines, each of which counts half after `HALF_LIFE_S`, as of `at_s`.

    What is learned in one moment is in `fresh_us`, in whole microseconds, so that it has no order.
    """

    seconds: float = 0.0
    fresh_us: int = 0
    at_s: float = 0.0


# Each attempt is counted four times: functions take half as long as methods of a record do where this is compiled.
def give(served: Served, seconds: float, now_s: float) -> None:
    """So much more; less than nothing takes back what was expected too much."""
    if now_s > served.at_s:
        served.seconds, served.fresh_us, served.at_s = had_s(served, now_s), 0, now_s
    served.fresh_us += floor(seconds * _US + 0.5)


def had_s(served: Served, now_s: float) -> float:
    """What is left of them."""
    seconds = max(0.0, served.seconds + served.fresh_us / _US)
    age_s = now_s - served.at_s
    return left(seconds, age_s) if age_s > 0.0 else seconds


class Shares:
    """What each tenant has had of our engines of late, and each of its classes. `add` writes, the rest reads."""

    __slots__ = ("_classes", "_tenants")

    def __init__(self, tenants: dict[str, Served], classes: dict[str, Served]) -> None:
        self._tenants, self._classes = tenants, classes

    def tenant_s(self, request: Request, now_s: float) -> float:
        """The seconds that its tenant has had, for each unit of its weight."""
        served = self._tenants.get(request.key)
        return 0.0 if served is None else had_s(served, now_s) / request.weight

    def flow_s(self, flow: str, now_s: float) -> float:
        """The seconds that a tenant's class has had, by `flow_of`."""
        served = self._classes.get(flow)
        return 0.0 if served is None else had_s(served, now_s)

    def told(self, now_s: float) -> dict[str, float]:
        """The seconds of each tenant that is known."""
        return {key: had_s(served, now_s) for key, served in self._tenants.items()}

    def add(self, key: str, klass: str, seconds: float, now_s: float) -> None:
        """An attempt takes so many seconds of an engine; or so many less than was expected."""
        give(_known(self._tenants, key, now_s), seconds, now_s)
        give(_known(self._classes, flow(key, klass), now_s), seconds, now_s)


def flow(key: str, klass: str) -> str:
    """The name of a tenant's class."""
    return f"{key}/{base_of(klass)}"


def flow_of(request: Request) -> str:
    """The name of its tenant's class."""
    return flow(request.key, request.klass)


def left(seconds: float, age_s: float) -> float:
    """What is left of seconds that were counted so long ago."""
    return seconds * pow(0.5, age_s / HALF_LIFE_S)


def owed(rest: Served, given: Served, now_s: float) -> bool:
    """Whether of what an engine was given, less than their share went to those that were late or promised nothing."""
    return had_s(rest, now_s) < REST_SHARE * had_s(given, now_s)


def combined(one: dict[str, Served], other: dict[str, Served]) -> dict[str, Served]:
    """What two gateways have given: the seconds add up. Who has had least is forgotten, where they are too many."""
    found: dict[str, Served] = {}
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name, Served()), other.get(name, Served())
        at_s = max(a.at_s, b.at_s)
        found[name] = Served(had_s(a, at_s) + had_s(b, at_s), 0, at_s)
    now_s = max([served.at_s for served in found.values()], default=0.0)
    for name in _least(found, len(found) - FLOWS_MAX, now_s):
        del found[name]
    return found


def revived(known: dict[str, Served], now_s: float) -> dict[str, Served]:
    """The same after a restart, at times that are not after `now_s`."""
    return {name: msgspec.structs.replace(served, at_s=min(served.at_s, now_s)) for name, served in known.items()}


def fault(known: dict[str, Served]) -> str:
    """What is wrong with them, empty where nothing is."""
    if len(known) > FLOWS_MAX:
        return f"has {len(known)} keys or classes, and {FLOWS_MAX} at most are kept"
    for name, served in known.items():
        if not 0.0 <= served.seconds < float("inf"):
            return f"of `{name}` has had less than nothing, or more than there is"
    return ""


def _known(known: dict[str, Served], name: str, now_s: float) -> Served:
    served = known.get(name)
    if served is None:
        if len(known) >= FLOWS_MAX:
            for least in _least(known, _FORGOTTEN, now_s):
                del known[least]
        served = known[name] = Served()
    return served


def _least(known: dict[str, Served], count: int, now_s: float) -> list[str]:
    """The names of so many that have had least."""
    return sorted(known, key=lambda name: (had_s(known[name], now_s), name))[: max(0, count)]
