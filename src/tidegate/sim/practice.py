"""Rules that bind on arrival, each with a knob: what people configure today, and the strongest of those that predict.

Sources: Dynamo's conditional disaggregation (threshold and queue gate), Mooncake's Algorithm 1 and GORGO (least
predicted time to first token), LiteLLM and other gateways (a time-out, then the next one).
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import inf

import msgspec

from tidegate.core.model import Request
from tidegate.core.value import value_usd, worth_usd
from tidegate.sim.binder import Sight
from tidegate.sim.chance import Chance


def _least_there(sights: Sequence[Sight]) -> Sight:
    """The one that has least of what it can take; ties by name."""
    return min(sights, key=lambda one: (one.there / one.endpoint.concurrency, one.endpoint.name))


def _cheapest(sights: Sequence[Sight]) -> Sight:
    """The one whose tokens cost least; ties by name."""
    return min(sights, key=lambda one: (one.endpoint.price.usd_per_input_token, one.endpoint.name))


def _choose(sights: Sequence[Sight], *, ours: bool) -> Sight:
    """One of ours or of the others; where there is none, one of what there is."""
    mine = [one for one in sights if one.endpoint.owned]
    others = [one for one in sights if not one.endpoint.owned]
    if (ours and mine) or not others:
        return _least_there(mine)
    return _cheapest(others)


class OursOnly(msgspec.Struct, frozen=True):
    """Our own engines, whatever waits there."""

    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:  # noqa: ARG002 # it does not matter
        """See `Rule`."""
        return _choose(sights, ours=True)


class RemoteOnly(msgspec.Struct, frozen=True):
    """The cheapest that is not ours."""

    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:  # noqa: ARG002 # it does not matter
        """See `Rule`."""
        return _choose(sights, ours=False)


class RandomSplit(msgspec.Struct, frozen=True):
    """Our own engines get this share of requests, whichever."""

    share: float
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:
        """See `Rule`."""
        return _choose(sights, ours=Chance(0).at("split", request.id).random() < self.share)


class Threshold(msgspec.Struct, frozen=True):
    """Prompts of more than so many tokens go away."""

    tokens: float
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:
        """See `Rule`."""
        return _choose(sights, ours=request.prompt_tokens <= self.tokens)


class ThresholdByTime(msgspec.Struct, frozen=True):
    """The same with a threshold for each stretch of time: (when it begins, tokens), in order."""

    tokens: tuple[tuple[float, float], ...]
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:
        """See `Rule`."""
        place = bisect_right(self.tokens, (request.arrived_s, inf)) - 1
        return _choose(sights, ours=request.prompt_tokens <= self.tokens[max(0, place)][1])


class QueueGate(msgspec.Struct, frozen=True):
    """Prompts of more than `tokens` go away while our engines have `queue` times as many requests as slots."""

    tokens: float
    queue: float
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:
        """See `Rule`."""
        mine = _choose(sights, ours=True)
        away = request.prompt_tokens > self.tokens and mine.there >= self.queue * mine.endpoint.concurrency
        return _choose(sights, ours=False) if away else mine


class RemoteGate(msgspec.Struct, frozen=True):
    """Dynamo's own rule: prompts with more than `tokens` to compute go away while the other side has less than `queue`
    requests of ours."""

    tokens: float
    queue: int
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:
        """See `Rule`."""
        mine, other = _choose(sights, ours=True), _choose(sights, ours=False)
        if other.there >= self.queue or not mine.endpoint.owned:
            return mine
        uncached = request.prompt_tokens - (mine.base.cached.tokens if request.prefix else 0.0)
        return other if uncached > self.tokens else mine


class LeastTtft(msgspec.Struct, frozen=True):
    """Where the first token is predicted soonest, with that of what is not ours multiplied by `factor`."""

    factor: float
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:  # noqa: ARG002 # sights know it
        """See `Rule`."""
        return min(
            sights, key=lambda one: (one.ttft_s * (1.0 if one.endpoint.owned else self.factor), one.endpoint.name)
        )


class LeastWork(msgspec.Struct, frozen=True):
    """Where the fewest tokens are under way, with those of what is not ours multiplied by `factor`."""

    factor: float
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:  # noqa: ARG002 # its size is the same everywhere
        """See `Rule`."""
        return min(
            sights, key=lambda one: (one.tokens * (1.0 if one.endpoint.owned else self.factor), one.endpoint.name)
        )


class Patience(msgspec.Struct, frozen=True):
    """Our own engines first; after `patience_s` without content, another."""

    patience_s: float | None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:  # noqa: ARG002 # it does not matter
        """See `Rule`."""
        return _choose(sights, ours=True)


class CheapestOnTime(msgspec.Struct, frozen=True):
    """The cheapest endpoint that is predicted to keep the promise with at least this chance, else the likeliest."""

    chance: float
    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:  # noqa: ARG002 # sights know it
        """See `Rule`."""
        on_time = [one for one in sights if one.attainment >= self.chance]
        if on_time:
            return min(on_time, key=lambda one: (one.base.cost_usd, one.ttft_s, one.endpoint.name))
        return min(sights, key=lambda one: (-one.attainment, one.base.cost_usd, one.endpoint.name))


class MostValue(msgspec.Struct, frozen=True):
    """Where it is worth most, waiting included: what the router decides by, once and for all as it comes."""

    patience_s: float | None = None

    def pick(self, request: Request, sights: Sequence[Sight]) -> Sight:
        """See `Rule`."""

        def usd(one: Sight) -> float:
            worth = worth_usd(request, one.base.length)
            return value_usd(request, one.base, worth, one.spent_s)

        return min(sights, key=lambda one: (-usd(one), one.ttft_s, one.endpoint.name))
