"""What all clients together may spend: held back before it is sent, settled after, as the gateway's ledger does."""

from collections.abc import Iterable

from tidegate.config.cap import Cap
from tidegate.config.moment import day_number
from tidegate.core.model import Drawn, Endpoint, Request
from tidegate.core.rules import budget_usd_bound


class Purse:
    """Dollars left under some caps. Without caps there is no limit."""

    def __init__(self, caps: Iterable[Cap] = (), *, paced: bool = True) -> None:
        """`paced`: they are to last until they are renewed."""
        self._caps = tuple(caps)
        self._paced = paced
        self._spent: dict[tuple[Cap, int], float] = {}
        self._held_usd: dict[tuple[str, str], float] = {}

    def left_usd(self, now_s: float) -> float | None:
        """The most that one more request may cost; None without a limit."""
        if not self._caps:
            return None
        spent = [cap.usd - self._spent.get((cap, cap.period.number(day_number(now_s))), 0.0) for cap in self._caps]
        return min(spent) - sum(self._held_usd.values())

    def drawn(self, now_s: float) -> list[Drawn]:
        """What is spent of each, of those that are to last."""
        if not self._paced:
            return []
        day = day_number(now_s)
        return [cap.drawn(self._spent.get((cap, cap.period.number(day)), 0.0), day) for cap in self._caps]

    def hold(self, request: Request, endpoint: Endpoint, now_s: float) -> bool:
        """Hold back the most that this may cost there; False, and nothing held, where there is not so much left."""
        if not self._caps or not endpoint.price.asks_money:
            return True
        usd, left = budget_usd_bound(request, endpoint, endpoint.context_tokens), self.left_usd(now_s)
        if left is not None and usd > left:
            return False
        self._held_usd[request.id, endpoint.name] = usd
        return True

    def settle(self, request: Request, endpoint: Endpoint, usd: float, now_s: float) -> None:
        """It is over, and has cost this much."""
        if self._held_usd.pop((request.id, endpoint.name), None) is None:
            return
        for cap in self._caps:
            key = cap, cap.period.number(day_number(now_s))
            self._spent[key] = self._spent.get(key, 0.0) + usd
