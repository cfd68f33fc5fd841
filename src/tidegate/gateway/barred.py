"""Where a request was not sent, although its plan said so, and what its next turn leaves out for that."""

from collections.abc import Callable

from tidegate.core.model import Prefill, Run
from tidegate.engines.base import Failure
from tidegate.gateway.failures import NEVER_HERE
from tidegate.gateway.spending import OVER_BUDGET, UNPRICED


class Barred:
    """Endpoints at which a turn would come to nothing again, and use up an attempt.

    steps   how many of its plans were passed over
    """

    __slots__ = ("_never", "_too_dear", "_unpaid", "steps")

    def __init__(self) -> None:
        # Whose dialect cannot say what is asked, for which there was no descriptor, or that have no price that could be
        # held back.
        self._never: set[str] = set()
        # Those whose price is beyond what it may cost, and those that may not be paid for all of it, or for its prompt
        # alone, until so many dollars are left.
        self._too_dear: set[str] = set()
        self._unpaid: dict[tuple[str, bool], float] = {}
        self.steps = 0

    def __bool__(self) -> bool:
        """Whether a plan has to be looked through for them."""
        return bool(self._never or self._too_dear or self._unpaid)

    def never(self, endpoint: str) -> None:
        """Whatever is asked, it is not asked there."""
        self._never.add(endpoint)

    def unpaid(self, endpoint: str, refused: Failure, most_usd: float, *, prompt_only: bool, beside: bool) -> None:
        """It was `refused` to pay for an attempt there, all of it or its `prompt_only`, which costs at most so much.

        `beside` others that are under way: what these may cost may come back to the request's own limit.
        """
        if refused.cause == OVER_BUDGET:
            self._unpaid[endpoint, prompt_only] = most_usd
        elif refused.cause in NEVER_HERE and not beside:
            (self._never if refused.cause == UNPRICED else self._too_dear).add(endpoint)

    def asks_less(self) -> None:
        """Less is asked for from now on than what could not be paid."""
        self._too_dear.clear()
        self._unpaid.clear()

    def lets(self, step: Run | Prefill, left_usd: Callable[[], float | None]) -> bool:
        """Whether a turn there need not come to nothing. `left_usd` is asked for what is left of the least of the
        request's budgets, None without any."""
        if step.endpoint in self._never or step.endpoint in self._too_dear:
            return False
        needed_usd = self._unpaid.get((step.endpoint, isinstance(step, Prefill)))
        if needed_usd is None:
            return True
        left = left_usd()
        return left is None or left >= needed_usd
