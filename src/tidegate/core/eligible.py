"""Who may serve a request now: by the rules, by where its conversation is at home, and by what operators have set."""

from collections.abc import Mapping

from tidegate.core import rules
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Overrides, Request
from tidegate.core.output import Length
from tidegate.core.session import Sessions
from tidegate.core.why import Why


class Eligible:
    """The endpoints by the names that they serve, and what bars some of them. `override` writes, the rest reads."""

    __slots__ = ("_by_model", "_by_price", "_models", "_others", "_own", "_pinned", "_sessions")

    def __init__(self, models: Mapping[str, EndpointModel], sessions: Sessions) -> None:
        """`models` by name, in the order in which ties are broken."""
        self._models = models
        self._sessions = sessions
        self._by_model: dict[str, list[EndpointModel]] = {}
        for model in models.values():
            for name in dict.fromkeys(model.endpoint.models):
                self._by_model.setdefault(name, []).append(model)
        self._own = {name: [m for m in serving if m.owned] for name, serving in self._by_model.items()}
        self._others = {name: [m for m in serving if not m.owned] for name, serving in self._by_model.items()}
        # By list price and running cost, of which nothing depends on the moment.
        self._by_price = {name: sorted(serving, key=_list_price) for name, serving in self._by_model.items()}
        # By model, the endpoints that it is pinned to; empty where nobody has set a pin, which is nearly always.
        self._pinned: dict[str, frozenset[str]] = {}

    def override(self, overrides: Overrides) -> None:
        """Put in force what operators have set by hand."""
        for name, model in self._models.items():
            model.drained = name in overrides.drained
        pinned: dict[str, set[str]] = {}
        for name in overrides.pinned:
            if (one := self._models.get(name)) is not None:
                for served in one.endpoint.models:
                    pinned.setdefault(served, set()).add(name)
        self._pinned = {served: frozenset(names) for served, names in pinned.items()}

    def serving(self, model: str) -> list[EndpointModel]:
        """The endpoints that serve this name, barred or not; the list is not the reader's to change."""
        found = self._by_model.get(model)
        return [] if found is None else found

    def cheapest_ever(self, request: Request, tokens: int, *, local: bool) -> EndpointModel | None:
        """Of the local endpoints, or of the remote ones, the one with the lowest list price that a request of so many
        tokens may ever go to; None where there is none."""
        for model in self._by_price.get(request.model, ()):
            if model.endpoint.local is local and rules.excluded_ever(request, model, tokens) is None:
                return model
        return None

    def now(self, request: Request, length: Length, now_s: float) -> tuple[list[EndpointModel], dict[str, Why]]:
        """The endpoints that nothing excludes, and by name the reason for each of the others."""
        serving = self.serving(request.model)
        models, reasons = self._within(request, serving, length, rules.tokens_needed(request, length), now_s)
        if not models and request.output_tokens_max is None and Why.CONTEXT_TOO_LONG in reasons.values():
            return self._within(request, serving, length, rules.tokens_needed_least(request), now_s)
        return models, reasons

    def own(self, request: Request, length: Length, now_s: float) -> list[EndpointModel]:
        """Those of `now` that are ours, without a look at the others where there are any."""
        serving = self._own.get(request.model, [])
        models, _ = self._within(request, serving, length, rules.tokens_needed(request, length), now_s)
        return models or [m for m in self.now(request, length, now_s)[0] if m.owned]

    def others(self, request: Request, length: Length, now_s: float) -> list[EndpointModel]:
        """Those of `now` that are not ours, without a look at ours where there are any."""
        serving = self._others.get(request.model, [])
        models, _ = self._within(request, serving, length, rules.tokens_needed(request, length), now_s)
        return models or [m for m in self.now(request, length, now_s)[0] if not m.owned]

    def forbids(self, request: Request, endpoint: str, length: Length, now_s: float) -> Why | None:
        """What excludes one endpoint, None if it may serve."""
        if all(model.name != endpoint for model in self.serving(request.model)):
            return Why.UNKNOWN_MODEL
        return self.now(request, length, now_s)[1].get(endpoint)

    def is_free(self, request: Request, now_s: float) -> bool:
        """Whether neither operators nor its own conversation have a place for it."""
        if self._pinned and request.model in self._pinned:
            return False
        return not request.session or not self._sessions.begun(request.session, now_s)

    def _within(
        self, request: Request, serving: list[EndpointModel], length: Length, needed: int, now_s: float
    ) -> tuple[list[EndpointModel], dict[str, Why]]:
        models: list[EndpointModel] = []
        reasons: dict[str, Why] = {}
        pinned = self._pinned.get(request.model) if self._pinned else None
        home = self._home(request, now_s) if request.session else None
        for model in serving:
            why = rules.excluded(request, model, needed, length, now_s, home)
            if pinned is not None and model.name not in pinned and (why is None or why in rules.PASSING):
                why = Why.PINNED_ELSEWHERE
            if why is None:
                models.append(model)
            else:
                reasons[model.name] = why
        return models, reasons

    def _home(self, request: Request, now_s: float) -> EndpointModel | None:
        return self._sessions.home(request, self.serving(request.model), self._models, now_s)


def _list_price(model: EndpointModel) -> tuple[float, float, str]:
    """Prompts are some three times as long as answers, in tokens."""
    return model.cost.usd(3, 1.0, 0.0), model.cost.usd_per_s, model.name
