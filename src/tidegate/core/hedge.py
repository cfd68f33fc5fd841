"""When a second attempt starts beside the first, and how much may be lost on attempts that another one has beaten.

A second attempt is worth what it saves: the first one's promise would be broken, and the second one still keeps it. It
costs what is paid for the one that loses, if it comes to that. The later it starts, the less often it has to, and the
less time is left to it; so the best moment lies between. Where the first runs on an engine that is not paid by the
token, nothing is paid twice: then it is simply the next step, once the first is overdue.

What is lost on hedges is a share of what is paid in all, saved up in a bucket: the emptier that is, the more a hedge
has to save. So all of them share one price, and the tail is cut where a dollar cuts most of it.
"""

from math import inf
from typing import Final

import msgspec

from tidegate.core.base import Base
from tidegate.core.model import Request
from tidegate.core.record import Untracked
from tidegate.core.value import attainment, late_share

# So many attempts' worth may be saved up: enough for all that are under way when an endpoint falls silent.
SAVED: Final = 20.0
# What an attempt costs is the mean of about so many.
RECENT: Final = 50.0
# Of the time that is left, when a hedge may start: finer steps change the value by less than predictions are off.
MOMENTS: Final = 8


class Hedging(Untracked):
    """What may still be lost on hedges, and what a paid attempt costs of late. What is told in one moment, `at_s`,
    counts when that is over: until then so much was `paid_usd` in `paid` attempts, and so much `lost_usd`."""

    left_usd: float = 0.0
    each_usd: float = 0.0
    at_s: float = 0.0
    paid: int = 0
    paid_usd: float = 0.0
    lost_usd: float = 0.0


class Hedges:
    """The bucket of hedges. `paid`, `lost` and `settle` write, the rest reads."""

    __slots__ = ("_share", "_state")

    def __init__(self, state: Hedging, share: float) -> None:
        """`share` of what is paid may be lost."""
        self._state = state
        self._share = share

    @property
    def left_usd(self) -> float:
        """What may still be lost; less than nothing where more was lost than was meant to be."""
        state = self._state
        return state.left_usd + self._share * state.paid_usd - state.lost_usd

    @property
    def price(self) -> float:
        """What a dollar that is lost has to save beyond itself: nothing while the bucket is full, and no end of it
        while it is empty."""
        left_usd, full_usd = self.left_usd, SAVED * self._state.each_usd
        if left_usd <= 0.0 or full_usd <= 0.0:
            return inf
        return max(0.0, full_usd / left_usd - 1.0)

    def settle(self, now_s: float) -> None:
        """With a new moment, the one before is over."""
        state = self._state
        if now_s <= state.at_s or not (state.paid or state.lost_usd):
            return
        if state.paid:
            kept = (1.0 - 1.0 / RECENT) ** state.paid if state.each_usd else 0.0
            state.each_usd = kept * state.each_usd + (1.0 - kept) * state.paid_usd / state.paid
        state.left_usd = min(self.left_usd, SAVED * state.each_usd)
        state.paid, state.paid_usd, state.lost_usd = 0, 0.0, 0.0

    def paid(self, usd: float, now_s: float) -> None:
        """An answer was paid for."""
        self._state.at_s = max(self._state.at_s, now_s)
        self._state.paid += 1
        self._state.paid_usd += usd

    def lost(self, usd: float, now_s: float) -> None:
        """So much is lost on an attempt that another one has beaten, or may be; a negative amount is not after all."""
        self._state.at_s = max(self._state.at_s, now_s)
        self._state.lost_usd += usd


def revived(state: Hedging, now_s: float) -> Hedging:
    """A copy after a restart. What was held back for hedges under way stays lost: they may have been paid."""
    return msgspec.structs.replace(state, at_s=min(state.at_s, now_s))


def fault(state: Hedging) -> str:
    """What is wrong with a state that no router of this software made; empty where nothing is."""
    numbers = (state.left_usd, state.each_usd, state.paid_usd, state.lost_usd, state.at_s)
    return "" if all(-inf < n < inf for n in numbers) and state.each_usd >= 0.0 else "has numbers that none can be"


def starts_s(
    request: Request, first: Base, second: Base, worth_usd: float, spent_s: float, prompt_usd: float, price: float
) -> float | None:
    """After how many seconds without content `second` is best started beside `first`, which is paid as well; None where
    it is never worth it.

    `spent_s` have passed since the request's arrival. Whichever loses, its prompt was paid for, which costs
    `prompt_usd`, and a dollar that is lost has this `price` beyond itself.
    """
    ttft_s = request.slo.ttft_s
    if ttft_s is None or price == inf or (left_s := ttft_s - spent_s) <= 0.0:
        return None
    late = late_share(first, left_s)
    lost_usd = (1.0 + price + request.budget_price) * (prompt_usd + max(0.0, second.paid_usd - first.paid_usd))
    lost_usd += second.rule_usd
    if worth_usd <= lost_usd:
        return None
    best_usd, best_s = 0.0, None
    for moment in range(1, MOMENTS):
        after_s = left_s * moment / MOMENTS
        saved_usd = worth_usd * late * attainment(request, second, spent_s + after_s)
        usd = saved_usd - lost_usd * late_share(first, after_s)
        if usd > best_usd:
            best_usd, best_s = usd, after_s
    return best_s
