"""Loads of a model for nobody in particular: when one begins, and what the model's absence has cost.

Whoever would have been served best by a model that is away goes elsewhere, so that nobody would ever load it. What that
costs adds up until it comes to what a load costs. Then one is begun, and requests go elsewhere until it is done: ski
rental, never more than twice what would have been best. Where a request waits for a load itself, one is begun beside
it, which does not end should its client leave. An engine has one at a time, none soon after one that failed, and none
that takes it from another model that was used just now.

One whose speed is a guess is loaded as if it would have served best: else it were never asked, and never known.

Where operators say what it costs to keep a model loaded, it is, until that has cost as much as its absence would.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

from tidegate.core.coldstart import ColdModel
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Request, Started, Warmed
from tidegate.core.output import Length
from tidegate.core.plan import Option
from tidegate.core.value import value_usd, worth_usd

# More likely than not, it is away.
AWAY: Final = 0.5
# So much of the time passes after which an engine unloads, before its model is used for nobody.
KEPT_SHARE: Final = 0.8
# A load that failed is not begun again at once: it may have left memory behind, and what fails is often the same.
REST_S: Final = 10.0
REST_S_MAX: Final = 600.0
RESTS_MAX: Final = 8
# A load is given up after ten times what one takes, within these: hundreds of gigabytes from a disk take half an hour.
HANGS_FACTOR: Final = 10.0
HANGS_S_MIN, HANGS_S_MAX = 60.0, 1800.0
# The prompt of a request that is for nobody, template included; and that request, as far as its prediction goes.
WARM_UP_TOKENS: Final = 32
_ASKED = Started(request_id="", endpoint="", klass="", prompt_tokens=WARM_UP_TOKENS, prompt_bytes=4 * WARM_UP_TOKENS)


def within_s(cold: ColdModel, now_s: float) -> float:
    """What takes longer than this is no load any more: a connection hangs, or an engine."""
    return min(max(HANGS_FACTOR * cold.load_s_mean(now_s), HANGS_S_MIN), HANGS_S_MAX)


def load_usd(model: EndpointModel, load_s: float) -> float:
    """What it costs to load a model, if that takes so long."""
    return model.endpoint.usd_per_s * load_s + model.cost.usd(WARM_UP_TOKENS, 1.0, 0.0)


class WarmUps:
    """Of the endpoints that may be warmed up. `due` reads, the rest writes."""

    __slots__ = ("_all", "_models")

    def __init__(self, models: Mapping[str, EndpointModel]) -> None:
        self._all = models
        self._models = [model for model in models.values() if model.endpoint.warms_up]

    def due(self, now_s: float) -> list[str]:
        """The endpoints whose model is to be loaded now, or used so that it stays: of one engine no two."""
        found: list[str] = []
        for model in self._models:
            if any(name in found for name in model.endpoint.beside):
                continue
            if self._may(model, now_s) and self._is_due(model, now_s):
                found.append(model.name)
        return found

    def missed(self, fact: Started, request: Request, options: Sequence[Option], now_s: float) -> None:
        """A request goes to one of these: to another than it would have gone to, had a model been there."""
        for option in options:
            base, model = option.base, option.model
            if base.cold_share and model.endpoint.warms_up and model.name != fact.endpoint and not option.target:
                chosen = next((one for one in options if one.name == fact.endpoint), None)
                if chosen is not None:
                    there = base.copied()
                    there.cold_share = 0.0
                    there.first_s = max(base.warm_s, base.sure_s)
                    there.cost_usd -= base.load_s_mean * model.cost.usd_per_s
                    usd = value_usd(request, there, worth_usd(request, base.length), now_s - request.arrived_s)
                    missed_usd = max(0.0, usd - chosen.value_usd)
                    if model.is_guessed:
                        # What it would be worth, nobody knows before it is there and was asked once.
                        missed_usd = max(missed_usd, worth_usd(request, base.length))
                    model.state.cold.warm_up.missed_usd += missed_usd

    def asked(self, model: EndpointModel, now_s: float) -> None:
        """A client has asked for it."""
        if model.endpoint.warms_up:
            model.state.cold.warm_up.asked_s = now_s

    def begun(self, model: EndpointModel, length: Length, now_s: float) -> None:
        """A load is under way; `length` is that of one token."""
        base = model.base(_ASKED, length, now_s)
        warm_s = max(base.warm_s, base.sure_s)
        model.cold.begin_warm_up(warm_s, base.sigma, now_s, len(model.state.reservations))

    def over(self, model: EndpointModel, fact: Warmed, now_s: float) -> None:
        """It is there, or was given up, or could not be loaded, and then the next one is not begun at once."""
        model.warmed(fact.took_s if fact.served else None, now_s)
        warm_up = model.state.cold.warm_up
        if fact.served:
            warm_up.failed = 0
        elif not fact.given_up:
            warm_up.failed += 1
            warm_up.not_before_s = now_s + min(REST_S * 2.0 ** (min(warm_up.failed, RESTS_MAX) - 1), REST_S_MAX)

    def _may(self, model: EndpointModel, now_s: float) -> bool:
        state = model.state
        warm_up = state.cold.warm_up
        if warm_up.sent is not None or now_s < warm_up.not_before_s or now_s < state.not_before_s:
            return False
        if not state.up or model.drained or (state.breaker.openings and state.breaker.blocks(now_s)):
            return False
        return not any(other.state.cold.warm_up.sent is not None for other in self._beside(model))

    def _is_due(self, model: EndpointModel, now_s: float) -> bool:
        state = model.state
        cold = model.cold.at(now_s, len(state.reservations))
        if state.reservations:
            return cold.share > AWAY
        missed_usd = state.cold.warm_up.missed_usd
        # Whether it is away may be as uncertain as you like: to ask for one token tells.
        if not missed_usd or not cold.share or missed_usd < cold.share * load_usd(model, cold.load_s_mean):
            if cold.share > AWAY or not self._would_go(model, now_s):
                return False
            # Where nobody told that it is there, it may have gone for whoever was used since: that is kept no more.
            told = model.cold.resident()
            late_s = model.cold.load_s_mean(now_s) if told else model.cold.idle_s(now_s)
            return self._is_free(model, late_s, now_s)
        return self._is_free(model, cold.load_s, now_s)

    def _is_free(self, model: EndpointModel, of_late_s: float, now_s: float) -> bool:
        """Whether nobody uses another model of its engine, or did so of late."""
        return not any(self._is_used(other, of_late_s, now_s) for other in self._beside(model))

    def _beside(self, model: EndpointModel) -> list[EndpointModel]:
        """The others of its engine."""
        return [self._all[name] for name in model.endpoint.beside if name in self._all]

    @staticmethod
    def _is_used(model: EndpointModel, of_late_s: float, now_s: float) -> bool:
        """Whether somebody is served there, or was within the last `of_late_s`."""
        state = model.state
        used_s = state.cold.used_s
        return bool(state.reservations) or (used_s is not None and now_s - used_s < of_late_s)

    @staticmethod
    def _would_go(model: EndpointModel, now_s: float) -> bool:
        """Whether it is there and soon would not be, and keeping it has cost less than its absence would."""
        usd_per_s, state = model.endpoint.kept_usd_per_s, model.state
        warm_up = state.cold.warm_up
        if usd_per_s is None or warm_up.asked_s is None:
            return False
        idle_s = model.cold.idle_s(now_s)
        if idle_s == inf or idle_s < KEPT_SHARE * model.cold.leaves_s:
            return False
        toll_usd = warm_up.toll_usd + load_usd(model, model.cold.load_s_mean(now_s))
        return usd_per_s * (now_s - warm_up.asked_s) <= toll_usd
