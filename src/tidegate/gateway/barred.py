"""Where a request was not sent, although its plan said so: the core is told, and decides among the others."""

from collections.abc import Iterable, Mapping
from typing import Final

from tidegate.engines.base import Failure
from tidegate.gateway.failures import NEVER_HERE
from tidegate.gateway.spending import OVER_BUDGET, UNPRICED

_NOBODY: Final = frozenset[str]()
_NOTHING: Final[Mapping[str, float]] = {}


class Barred:
    """Endpoints at which a turn would come to nothing again.

    steps   how many of its plans were passed over
    """

    __slots__ = ("_never", "_too_dear", "_unpaid", "steps")

    def __init__(self) -> None:
        # Whose dialect cannot say what is asked, who has found it unfit or too long, for which there was no descriptor,
        # or that have no price that could be held back.
        self._never = _NOBODY
        # Those whose price is beyond what it may cost, and those that need so many dollars, more than the core counts.
        self._too_dear = _NOBODY
        self._unpaid = _NOTHING
        self.steps = 0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._never or self._too_dear or self._unpaid)

    def never(self, endpoint: str) -> None:
        """Whatever is asked, it is not asked there."""
        self._never |= {endpoint}

    def unpaid(self, endpoint: str, refused: Failure, most_usd: float, counted_usd: float, *, beside: bool) -> None:
        """It was `refused` to pay for an attempt there, which costs at most so much; the core counts `counted_usd`, and
        knows by itself where less is left than that.

        `beside` others that are under way: what these may cost may come back to the request's own limit.
        """
        if refused.cause == OVER_BUDGET:
            if most_usd > counted_usd:
                self._unpaid = {**self._unpaid, endpoint: most_usd}
        elif refused.cause in NEVER_HERE and not beside:
            if refused.cause == UNPRICED:
                self._never |= {endpoint}
            else:
                self._too_dear |= {endpoint}

    def asks_less(self) -> None:
        """Less is asked for from now on than what could not be paid."""
        self._too_dear = _NOBODY
        self._unpaid = _NOTHING

    def others(self, endpoints: Iterable[str], left_usd: float | None) -> tuple[str, ...]:
        """Those of these `endpoints` where a turn need not come to nothing, now that so many dollars are left of the
        least of the request's budgets, None without any. Whom that is enough for is barred no more."""
        self._unpaid = {n: usd for n, usd in self._unpaid.items() if left_usd is not None and usd > left_usd}
        barred = self._never.union(self._too_dear, self._unpaid)
        return tuple([name for name in endpoints if name not in barred])

    def awaited_usd(self, left_usd: float) -> float:
        """The most that it needs at an endpoint which so many dollars would be enough for; 0 where there is none."""
        return max([usd for usd in self._unpaid.values() if usd <= left_usd], default=0.0)
