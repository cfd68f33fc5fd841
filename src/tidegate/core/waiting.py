"""Requests that are held: which may wait, and where each would go now."""

from collections.abc import Mapping

from tidegate.core import plan
from tidegate.core.base import Base, asked
from tidegate.core.eligible import Eligible
from tidegate.core.estimator import EndpointModel
from tidegate.core.hold import Item, Place, Pool, item, schedule
from tidegate.core.length import Length, LengthModel
from tidegate.core.model import DecisionOverran, Ended, Held, Observation, Overrides, Policy, Released, Request
from tidegate.core.value import worth_usd


class Waiting:
    """The `requests` that are held, by id. `hold`, `release` and `forget` write, the rest reads."""

    __slots__ = ("_at_s", "_bases", "_eligible", "_lengths", "_models", "_policy", "requests")

    def __init__(
        self,
        requests: dict[str, Request],
        models: Mapping[str, EndpointModel],
        eligible: Eligible,
        lengths: LengthModel,
        policy: Policy,
    ) -> None:
        self.requests = requests
        self._models, self._eligible, self._lengths, self._policy = models, eligible, lengths, policy
        # By endpoint and request, what was predicted at one moment: while several are released, most of it stays.
        self._bases: dict[str, dict[str, Base]] = {}
        self._at_s = 0.0

    # --- reading ------------------------------------------------------------------------------------------------

    def may_wait(self, request: Request, now_s: float) -> bool:
        """Whether it may wait on, or there is room for it to begin to."""
        if request.id in self.requests:
            return not self.expired(request, now_s)
        return len(self.requests) < self._policy.held_max

    def expired(self, request: Request, now_s: float) -> bool:
        """Whether it has waited for as long as it may."""
        return now_s - request.arrived_s >= self._policy.hold_s_max

    def places(self, new: Item | None, now_s: float) -> dict[str, Place]:
        """Where each of them goes, by id, with one more where given. Whom nothing of ours can serve has no place."""
        items = [] if new is None else [new]
        for request in self.requests.values():
            if new is not None and request.id == new.request.id:
                continue
            length = self._lengths.of(request)
            own = self._own(request, length, now_s)
            if own:
                items.append(item(request, worth_usd(request, length), own))
        pools: dict[str, Pool] = {}
        rooms: dict[str, int] = {}
        for name, model in self._models.items():
            if model.owned:
                pools[name] = Pool(
                    model.slots_free_s(now_s), model.memory.spare(now_s), model.prompts_done_s(now_s), model.ahead_s
                )
            else:
                rooms[name] = model.room
        return schedule(items, pools, rooms, lambda request: self._elsewhere(request, now_s), now_s)

    def _own(self, request: Request, length: Length, now_s: float) -> dict[str, Base]:
        """What it would take at each of our own that it may wait for."""
        if now_s != self._at_s:
            self._bases.clear()
            self._at_s = now_s
        own: dict[str, Base] = {}
        for model in self._eligible.own(request, length, now_s):
            known = self._bases.get(model.name)
            if known is None:
                known = self._bases[model.name] = {}
            base = known.get(request.id)
            if base is None:
                prompt = asked(request) if request.prefix else None
                base = known[request.id] = model.base(request, length, now_s, prompt)
            own[model.name] = base
        return own

    def _elsewhere(self, request: Request, now_s: float) -> list[tuple[float, str]]:
        """What it would be worth at each endpoint that is not ours, best first."""
        length = self._lengths.of(request)
        models, _ = self._eligible.now(request, length, now_s)
        others = [m for m in models if not m.owned]
        return plan.best_first(plan.weigh(request, others, length, worth_usd(request, length), now_s))

    # --- writing ------------------------------------------------------------------------------------------------

    def hold(self, request: Request) -> None:
        """It waits from now on."""
        self.requests[request.id] = request
        for known in self._bases.values():
            known.pop(request.id, None)

    def release(self, request_id: str) -> None:
        """It waits no more, if it did."""
        self.requests.pop(request_id, None)

    def forget(self, fact: Observation) -> None:
        """A fact is about to be taken in: predictions that it may change count no more, though no time has passed."""
        if not self._bases:
            return
        match fact:
            case Held() | Released() | Overrides() | DecisionOverran():
                # None of these is about how long anything takes.
                pass
            case Ended():
                # It tells of lengths, too.
                self._bases.clear()
            case _:
                self._bases.pop(fact.endpoint, None)
