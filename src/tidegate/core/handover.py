"""Remote prefill: a prompt is computed on one endpoint, and its KV cache is sent to another, which decodes.

What that takes is the sum of what the one is expected to take for the prompt, the link for its KV cache behind those
that are to be sent before, and the other for the rest, once it has a slot. Each part is learned where it is measured:
the prompt at the endpoint that computes it, the rate of the link here.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heapreplace
from math import inf, sqrt
from typing import Final

from tidegate.core import breaker, network
from tidegate.core.base import TO, Base, asked
from tidegate.core.breaker import Breaker
from tidegate.core.endpoint import EndpointModel
from tidegate.core.health import GONE
from tidegate.core.model import Capability, Ended, Ending, Handover, Policy, Request, Shipped, Started, replace
from tidegate.core.network import NetworkModel
from tidegate.core.output import Length
from tidegate.core.rules import attempts_max, cost_usd_bound
from tidegate.core.sending import prefill_of
from tidegate.core.state import HandoverState, KvSize, UnderWay
from tidegate.core.why import Why

# The one token that comes with a prompt, and that nobody gets.
_ONE: Final = Length(1.0, 1.0, 1.0, sigma=0.0)
# Of a prompt whose KV cache has come, less than this share of its tokens cached is a failed handover.
CACHED_LEAST: Final = 0.9
# Who shows nothing may have found nothing where the KV cache should have been, or cannot do with what was there.
_CAME_TO_NOTHING: Final = frozenset({Ending.FAILED, Ending.TIMED_OUT})
# Spread of log(true / declared) of a link's rate. That of an endpoint's upload is mostly a default, and this never is:
# somebody looked it up. Of a gigabit couriers make use to 0.99, of four to 0.8.
LINK_SIGMA: Final = 0.25
# How large KV caches were beside what is declared counts half as much after so long: an engine may be started anew with
# another type of KV.
HALF_LIFE_S: Final = 3600.0
# What is sent between two engines is text; what stands for images there, nobody has tried.
_NEVER: Final = frozenset({Capability.EMBEDDING, Capability.VISION, Capability.AUDIO})


class HandoverModel:
    """One handover, from its `source` to its `target`, as it is `declared`. `base` reads, and `started`, `computed`,
    `shipped`, `used` and `over` write. Those `inbound` are all that have the same target, this one among them.
    """

    __slots__ = ("declared", "inbound", "name", "network", "source", "state", "target")

    def __init__(self, source: EndpointModel, target: EndpointModel, handover: Handover, state: HandoverState) -> None:
        self.name = source.name + TO + target.name
        self.source, self.target, self.state = source, target, state
        self.declared = handover
        self.inbound: list[HandoverModel] = [self]
        _measure_by(state, KvSize(handover.kv_bytes_fixed, handover.kv_bytes_per_token, handover.whole))
        self.network = NetworkModel(0.0, handover.bytes_per_s, state.network, LINK_SIGMA)

    def excluded(self, request: Request, now_s: float) -> Why | None:
        """What forbids it for this, of a request that may be shipped at all: both must have the same model for sure."""
        if request.completions > 1 or not _NEVER.isdisjoint(request.needs):
            return Why.LACKS_CAPABILITY
        if not self.source.is_one_with(self.target):
            return Why.KV_UNLIKE
        if request.cost_usd_max is not None:
            sent_usd = self.kv_bytes(request, now_s) * self.declared.usd_per_byte
            asked_usd = cost_usd_bound(prefill_of(request), self.source) + cost_usd_bound(request, self.target)
            if asked_usd + sent_usd > request.cost_usd_max:
                return Why.OVER_MAX_COST
        known = self.state.breaker
        return Why.BREAKER_OPEN if known.openings and known.blocks(now_s) else None

    def base(self, request: Request, length: Length, now_s: float) -> Base:
        """What the request would take if its prompt were computed over there now; in `network_s` is what sending its
        KV cache takes, and in `queue_s` what it waits for: others' prompts, the link, and a slot."""
        first = self.source.base(prefill_of(request), _ONE, now_s)
        rest = self.target.base(replace(request, shipped=self.name), length, now_s)
        kv_bytes = self.kv_bytes(request, now_s)
        ready_s = now_s + first.first_s
        begins_s, arrives_s, variance_s2 = self._carried(kv_bytes, ready_s, first.prefill_s, now_s)
        slot_s = self._slot_s(arrives_s, now_s)
        # Prompts that keep the target busy now are computed further by then.
        queue_s = max(0.0, rest.queue_s - (slot_s - now_s))
        rest_s = rest.first_s - rest.queue_s + queue_s
        first_s = slot_s - now_s + rest_s
        waits_s = slot_s - arrives_s
        most_s = max(first.warm_s, first.sure_s)
        spread = (most_s * first.sigma) ** 2 + (rest_s * rest.sigma) ** 2 + variance_s2 + waits_s * waits_s
        egress_usd = kv_bytes * self.declared.usd_per_byte
        found = rest.copied()
        found.network_s = first.network_s + (arrives_s - begins_s) + rest.network_s
        found.queue_s = first.queue_s + (begins_s - ready_s) + waits_s + queue_s
        found.prefill_s = first.prefill_s + rest.prefill_s
        found.prefill_s_mean = first.prefill_s_mean + rest.prefill_s_mean
        found.first_s = first_s
        found.warm_s = first_s - first.first_s + most_s
        found.sure_s = first_s - first.first_s + most_s
        found.sigma = sqrt(spread) / first_s
        found.deviations = max(first.deviations, rest.deviations)
        found.outcomes = ()
        found.cold_share = first.cold_share
        found.load_s = first.load_s
        found.load_sigma = first.load_sigma
        found.cost_usd = first.cost_usd + egress_usd + rest.cost_usd
        found.paid_usd = first.paid_usd + egress_usd + rest.paid_usd
        found.rule_usd = first.rule_usd + rest.rule_usd
        found.cached = first.cached
        found.failing = first.failing
        return found

    def kv_bytes(self, request: Request | Started, now_s: float) -> float:
        """How many bytes are expected to be sent: those that are declared, as far as others had as many."""
        state, declared_bytes = self.state, self._declared_bytes(request, now_s)
        return declared_bytes * state.sent_bytes / state.declared_bytes if state.declared_bytes else declared_bytes

    def _declared_bytes(self, request: Request | Started, now_s: float) -> float:
        handover, tokens = self.declared, float(request.prompt_tokens)
        if not handover.whole and request.prefix:
            tokens -= self.target.prefixes.cached(asked(request), now_s).tokens
        return handover.kv_bytes_fixed + tokens * handover.kv_bytes_per_token

    def stages_s(self, request: Request, now_s: float) -> tuple[float, float, float]:
        """How long it is expected to take until its prompt is computed, then until its KV cache is there, behind those
        before it, and then until it has a slot."""
        first = self.source.base(prefill_of(request), _ONE, now_s)
        ready_s = now_s + first.first_s
        arrives_s = self._carried(self.kv_bytes(request, now_s), ready_s, first.prefill_s, now_s)[1]
        return first.first_s, arrives_s - ready_s, self._slot_s(arrives_s, now_s) - arrives_s

    def _under_way(self, now_s: float) -> list[tuple[float, UnderWay]]:
        """When each of those under way is expected to be there, in the order in which they are sent."""
        state, rate = self.state, self.network.upload_bytes_per_s
        at_s, found = state.free_s, list[tuple[float, UnderWay]]()
        for one in sorted(state.under_way.values(), key=_ready_s):
            # What is late is expected any moment.
            ready_s = one.ready_s if one.computed else max(one.ready_s, now_s)
            at_s = max(now_s, max(at_s, ready_s) + one.kv_bytes / rate)
            found.append((at_s, one))
        return found

    def _carried(self, kv_bytes: float, ready_s: float, prefill_s: float, now_s: float) -> tuple[float, float, float]:
        """When the link begins with what is computed at `ready_s`, when it is there, and the variance of that."""
        before_s = [at_s for at_s, one in self._under_way(now_s) if one.ready_s <= ready_s]
        begins_s = max(ready_s, before_s[-1] if before_s else now_s)
        layers, rate = self.declared.layers, self.network.upload_bytes_per_s
        if layers > 1:
            # Most of it is sent meanwhile, and the last layer at least afterwards.
            kv_bytes = max(kv_bytes - rate * prefill_s, kv_bytes / layers)
        took_s, variance_s2 = self.network.moments(kv_bytes, now_s)
        return begins_s, begins_s + took_s + self.source.network.rtt_s / 2.0, variance_s2

    def _slot_s(self, arrives_s: float, now_s: float) -> float:
        """When what is there at `arrives_s` has a slot of the target, with those that are there before it in theirs,
        and the target has not got prompts enough to read first."""
        begins_s = max(arrives_s, self.target.prompts_done_s(now_s) - self.target.ahead_s)
        under_way = [(at_s, one.occupies_s) for model in self.inbound for at_s, one in model._under_way(now_s)]
        slots_s = self.target.slots_free_s(now_s, len(under_way) + 1).copy()
        if not slots_s:
            return begins_s
        heapify(slots_s)
        for at_s, occupies_s in sorted(under_way):
            if at_s <= arrives_s:
                heapreplace(slots_s, max(at_s, slots_s[0]) + occupies_s)
        return max(begins_s, slots_s[0])

    # --- writing ------------------------------------------------------------------------------------------------

    def started(self, fact: Started, length: Length, now_s: float) -> None:
        """A prompt is being computed over there; its answer is of `length`."""
        sent = self.source.state.reservations[fact.request_id]
        rest = replace(fact, target="", shipped=self.name, endpoint=self.target.name, output_tokens_max=None)
        self.state.under_way[fact.request_id] = UnderWay(
            ready_s=now_s + sent.ttft_s,
            kv_bytes=self.kv_bytes(fact, now_s),
            declared_bytes=self._declared_bytes(fact, now_s),
            occupies_s=self.target.base(rest, length, now_s).occupies_s,
        )
        breaker.started(self.state.breaker, fact.request_id, now_s)

    def computed(self, request_id: str, ending: Ending, now_s: float) -> None:
        """It is computed, or will never be, which is not the link's fault."""
        one = self.state.under_way.get(request_id)
        if one is None:
            return
        if ending is Ending.OK:
            one.ready_s, one.computed = now_s, True
        else:
            del self.state.under_way[request_id]
            breaker.learn(self.state.breaker, request_id, Ending.CANCELLED, now_s)

    def shipped(self, fact: Shipped, now_s: float) -> None:
        """Its KV cache has come, or did not."""
        state = self.state
        one = state.under_way.pop(fact.request_id, None)
        _fade(state, now_s)
        # Whether what has come is of use, the answer tells; until then it makes no failure good but that of a trial,
        # and of that only for as long as the answer is under way.
        if not fact.ok:
            ending = Ending.CANCELLED if fact.given_up else Ending.FAILED
            breaker.learn(state.breaker, fact.request_id, ending, now_s)
        else:
            breaker.first(state.breaker, fact.request_id)
        if fact.ok and fact.kv_bytes > 0:
            self.network.learn_upload(fact.left_bytes, fact.seconds, now_s)
            if one is not None and one.declared_bytes:
                state.sent_bytes += fact.kv_bytes
                state.declared_bytes += one.declared_bytes

    def over(self, request_id: str, now_s: float) -> None:
        """It waits for the target no more, or has gone elsewhere: of a trial whose KV cache had come, nobody finds out
        whether that was of use."""
        known = self.state.breaker
        if known.answered and known.trial == request_id and request_id not in self.target.state.reservations:
            breaker.learn(known, request_id, Ending.CANCELLED, now_s)

    def keep_books(self, fact: Ended | Shipped, now_s: float) -> None:
        """Nothing is under way of what the model could not take in, unless it has been computed, and is to be sent."""
        if isinstance(fact, Ended) and fact.ending is Ending.OK and not fact.cause:
            return
        self.state.under_way.pop(fact.request_id, None)
        if self.state.breaker.trial == fact.request_id:
            breaker.learn(self.state.breaker, fact.request_id, Ending.CANCELLED, now_s)

    def used(self, fact: Ended, now_s: float) -> None:
        """The target has answered such a request, by what it took from the cache, or has failed at it, or found no
        KV cache to use."""
        if fact.ending is Ending.OK and fact.prompt_tokens and fact.cached_tokens is not None:
            of_use = fact.cached_tokens >= CACHED_LEAST * fact.prompt_tokens
            breaker.learn(self.state.breaker, fact.request_id, Ending.OK if of_use else Ending.FAILED, now_s)
        elif fact.cause == GONE or (fact.ending in _CAME_TO_NOTHING and fact.ttft_s is None and not fact.output_tokens):
            breaker.learn(self.state.breaker, fact.request_id, Ending.FAILED, now_s)
        else:
            # Nobody tells; if it was the trial, that it has come is all that is known of it.
            breaker.learn(self.state.breaker, fact.request_id, Ending.CANCELLED, now_s)


class Handovers:
    """All of them. `models` by name; `ends` are the endpoints at either side of one."""

    __slots__ = ("_policy", "ends", "models")

    def __init__(self, endpoints: Mapping[str, EndpointModel], policy: Policy) -> None:
        self._policy = policy
        self.models: dict[str, HandoverModel] = {}
        for source in endpoints.values():
            states = source.state.handovers
            source.state.handovers = {}
            for handover in source.endpoint.handovers:
                target = endpoints.get(handover.target)
                if target is None:
                    continue
                state = states.get(target.name) or HandoverState(breaker=Breaker())
                source.state.handovers[target.name] = state
                model = HandoverModel(source, target, handover, state)
                self.models[model.name] = model
        for model in self.models.values():
            model.inbound = [one for one in self.models.values() if one.target is model.target]
        self.ends = frozenset([end.name for one in self.models.values() for end in (one.source, one.target)])

    def now(self, request: Request, models: Iterable[EndpointModel], now_s: float) -> list[HandoverModel]:
        """Those that may be used for this, of whose endpoints nothing excludes either."""
        if not self.models or not self.may_ship(request):
            return []
        names = {model.name for model in models}
        return [
            one
            for one in self.models.values()
            if one.source.name in names and one.target.name in names and one.excluded(request, now_s) is None
        ]

    def may_ship(self, request: Request) -> bool:
        """Whether its prompt may be computed elsewhere: once, and where another attempt can make good what fails."""
        return not request.shipped and attempts_max(request, self._policy) > 1

    def over(self, request_id: str, now_s: float) -> None:
        """It waits no more, or an attempt at it is over that no KV cache was sent for."""
        for one in self.models.values():
            one.over(request_id, now_s)

    def keep_books(self, fact: Ended | Shipped, now_s: float) -> None:
        """What was to come from this endpoint, where the model could not take in what has become of it."""
        for one in self.models.values():
            if one.source.name == fact.endpoint:
                one.keep_books(fact, now_s)

    def of(self, source: str, target: str) -> HandoverModel | None:
        """That between these two; None where it is gone."""
        return self.models.get(source + TO + target)


def revived(state: HandoverState, now_s: float) -> HandoverState:
    """What is left after a restart: nothing is under way any more; see `core.revive`."""
    return HandoverState(
        breaker=breaker.revived(state.breaker, now_s),
        network=network.revived(state.network, now_s),
        free_s=min(state.free_s, now_s),
        sent_bytes=state.sent_bytes,
        declared_bytes=state.declared_bytes,
        size=state.size,
    )


def fault(states: Mapping[str, HandoverState]) -> str:
    """What is wrong with these that no router of this software made; empty where nothing is."""
    for name, state in states.items():
        if why := network.fault(state.network):
            return f"`handovers` to {name}: {why}"
        if not 0.0 <= state.sent_bytes < inf or not 0.0 <= state.declared_bytes < inf:
            return f"`handovers` has sent a number of bytes to {name} that cannot be"
    return ""


def combined(one: HandoverState, other: HandoverState) -> HandoverState:
    """What two have learned of one handover, as if one had seen it all, as of the later of the two; what is under way
    is each one's own, and so is its breaker."""
    free_s = max(one.free_s, other.free_s)
    one, other = replace(one), replace(other)
    for each in (one, other):
        _fade(each, free_s)
    return HandoverState(
        breaker=Breaker(),
        network=network.combined(one.network, other.network),
        free_s=free_s,
        sent_bytes=one.sent_bytes + other.sent_bytes,
        declared_bytes=one.declared_bytes + other.declared_bytes,
        size=one.size or other.size,
    )


def _measure_by(state: HandoverState, size: KvSize) -> None:
    """From now on KV caches are declared to be of this size. How they were beside another one says nothing of it."""
    if state.size not in (None, size):
        state.sent_bytes = state.declared_bytes = 0.0
        for one in state.under_way.values():
            one.declared_bytes = 0.0
    state.size = size


def _fade(state: HandoverState, now_s: float) -> None:
    """One more is over now: what was sent before counts less."""
    kept = 0.5 ** (max(0.0, now_s - state.free_s) / HALF_LIFE_S)
    state.sent_bytes *= kept
    state.declared_bytes *= kept
    state.free_s = now_s


def _ready_s(one: UnderWay) -> float:
    return one.ready_s
