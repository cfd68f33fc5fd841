"""From endpoints that may be used to the ordered steps of a plan, and the reason for the first of them."""

from heapq import heappush, heappushpop
from math import ceil, exp

from tidegate.core.base import Base, asked
from tidegate.core.endpoint import EndpointModel
from tidegate.core.handover import HandoverModel
from tidegate.core.hedge import starts_s
from tidegate.core.model import Capability, Endpoint, Prefill, Request, Run
from tidegate.core.output import Length
from tidegate.core.value import attainment, net_usd
from tidegate.core.why import Why

# Without content for this long, an attempt is given up at the earliest: prompts of any size have started by
# then on an engine that answers at all, or their own prediction says otherwise.
TIMEOUT_S_MIN = 10.0
TIMEOUT_FACTOR = 4.0
# An answer that has begun goes on as long as its tokens come within so many times their upper quantile: a batch that
# fills up makes them a few times slower, and a broken engine much more. Nobody is sent away for less than two a second.
TOKEN_FACTOR = 10.0
TOKEN_S_LEAST = 0.5
# The static rule predicts nothing, so it waits as it would for a first answer in TIMEOUT_S_MIN.
TIMEOUT_S_STATIC = TIMEOUT_FACTOR * TIMEOUT_S_MIN
# So long OpenAI's own client waits for an answer in one piece. All attempts share it: of one that takes longer than its
# share nobody knows whether it is made at all, and another one may have it in time.
WHOLE_S = 600.0
# The upper quantile of an endpoint that has missed again and again is far out; its time-out follows only so far. Where
# the model may have to be loaded, what that takes counts: giving up then only begins the next load.
TIMEOUT_MEDIANS_MAX = 16.0
# What is less likely than this to keep its promise is not expected to.
EXPECTED = 0.5
# What is worth the same but for the last digits of a sum is worth the same.
ROUNDING = 1e-12


class Option:
    """An endpoint that no rule excludes, as one decision sees it; with a `target` it computes the prompt for that one.

    Its `name` is that of the endpoint, or of the handover.
    """

    __slots__ = ("attainment", "base", "model", "name", "target", "value_usd")

    def __init__(
        self, model: EndpointModel, base: Base, value_usd: float, attainment: float, name: str, target: str = ""
    ) -> None:
        self.model = model
        self.base = base
        self.value_usd = value_usd
        self.attainment = attainment
        self.name = name
        self.target = target


def weigh(
    request: Request,
    models: list[EndpointModel],
    length: Length,
    worth: float,
    now_s: float,
    keep: int | None = None,
) -> list[Option]:
    """What each is worth, the cheapest first; with `keep`, until no other can be among so many best.

    Nothing is worth more than its promise kept for sure, less its cost: most of it needs no prediction.
    """
    spent_s = now_s - request.arrived_s
    options: list[Option] = []
    best: list[float] = []
    prompt = asked(request) if request.prefix else None
    dollar = 1.0 + request.budget_price
    for cost_usd, _, model in cheapest_first(request, models, length):
        if len(best) == keep and worth - dollar * cost_usd < best[0] - ROUNDING * abs(best[0]):
            break
        base = model.base(request, length, now_s, prompt)
        attained = attainment(request, base, spent_s)
        usd = net_usd(request, base, worth, spent_s, attained)
        options.append(Option(model, base, usd, attained, model.name))
        if keep is not None:
            heappush(best, usd) if len(best) < keep else heappushpop(best, usd)
    return options


def cheapest_first(
    request: Request, models: list[EndpointModel], length: Length
) -> list[tuple[float, str, EndpointModel]]:
    """What each costs at least, its name, and itself."""
    tokens, output_tokens = request.prompt_tokens, length.expected_tokens * request.completions
    return sorted([(model.cost.usd_least(tokens, output_tokens), model.name, model) for model in models])


def weigh_handovers(
    request: Request, handovers: list[HandoverModel], length: Length, worth: float, now_s: float
) -> list[Option]:
    """The same of what may compute its prompt for one of ours."""
    spent_s = now_s - request.arrived_s
    options = []
    for one in handovers:
        base = one.base(request, length, now_s)
        attained = attainment(request, base, spent_s)
        usd = net_usd(request, base, worth, spent_s, attained)
        options.append(Option(one.source, base, usd, attained, one.name, one.target.name))
    return options


def in_turn(ranked: list[Option]) -> list[Option]:
    """The first, and then others whole: after trouble, nobody computes a prompt for another. Each endpoint once."""
    first = ranked[0]
    return [o for o in ranked if o is first or not (o.target or o.model is first.model)]


def best_first(options: list[Option]) -> list[tuple[float, str]]:
    """What each is worth and its name, the best first."""
    return sorted([(option.value_usd, option.name) for option in options], key=lambda v: (-v[0], v[1]))


def in_order(options: list[Option]) -> list[Option]:
    """That worth most first; ties go to the quicker one, then by name: no two have one name."""
    ranked: list[Option] = []
    # They are few: put in one by one, they take a third of what keys take that are made and sorted.
    for option in options:
        low, high = 0, len(ranked)
        while low < high:
            middle = (low + high) >> 1
            if _is_before(option, ranked[middle]):
                high = middle
            else:
                low = middle + 1
        ranked.insert(low, option)
    return ranked


def _is_before(one: Option, other: Option) -> bool:
    if one.value_usd != other.value_usd:
        return one.value_usd > other.value_usd
    one_s, other_s = one.base.first_s, other.base.first_s
    return one_s < other_s if one_s != other_s else one.name < other.name


def shows(request: Request, endpoint: Endpoint) -> bool:
    """Whether first content is seen there when it comes, and not with the rest of the answer."""
    return request.stream or endpoint.streams or Capability.EMBEDDING in request.needs


def steps(
    request: Request, ranked: list[Option], worth_usd: float, spent_s: float, hedge_price: float
) -> tuple[Run | Prefill, ...]:
    """One attempt at each option, in this order, `spent_s` after the request's arrival.

    A dollar that is lost on a hedge has this price beyond itself."""
    plan: list[Run | Prefill] = []
    safes_s = [option.base.first_s_safe for option in ranked]
    for index, option in enumerate(ranked):
        cutover_s = None
        shown = option.target != "" or shows(request, option.model.endpoint)
        is_last = index + 1 == len(ranked)
        if not is_last and request.slo.ttft_s is not None:
            if option.base.paid_usd > 0.0 and ranked[index + 1].base.paid_usd > 0.0:
                if shown:
                    cutover_s = _hedge_s(request, option, ranked[index + 1], worth_usd, spent_s, hedge_price)
            else:
                # As late as the next one could still be in time, and never before this one is overdue.
                latest_s = request.slo.ttft_s - spent_s - safes_s[index + 1]
                # Of an answer that comes in one piece nobody knows before whether its first content is late.
                if latest_s >= safes_s[index] and (shown or _is_whole_by(latest_s, option.base, safes_s[index])):
                    cutover_s = _cutover_s(request, ranked[index + 1].base, latest_s, worth_usd, spent_s)
            spent_s += cutover_s or 0.0
        timeout_s = _timeout_s(option.base, safes_s[index], shown=shown)
        if not shown and not is_last and timeout_s > WHOLE_S / len(ranked):
            timeout_s = min(timeout_s, to_ms(max(_whole_s_safe(option.base), WHOLE_S / len(ranked))))
        name = option.model.name
        if option.target:
            plan.append(Prefill(endpoint=name, target=option.target, timeout_s=timeout_s, cutover_s=cutover_s))
            continue
        plan.append(
            Run(
                endpoint=name,
                timeout_s=timeout_s,
                cutover_s=cutover_s,
                token_s_max=_token_s_max(option.base),
            )
        )
    return tuple(plan)


def _whole_s_safe(base: Base) -> float:
    """By when all of an answer is there, as safely as `first_s_safe`, with a load where there may be one."""
    return base.first_s_safe + max(0.0, base.e2e_s_high - base.warm_s_high)


def _is_whole_by(by_s: float, base: Base, first_s_safe: float) -> bool:
    """Whether `_whole_s_safe` is no later; quantiles of several outcomes are dear, and mostly their bounds tell."""
    if base.outcomes:
        least_s, most_s = base.rest_s_bounds
        if by_s < first_s_safe + max(0.0, least_s):
            return False
        if by_s >= first_s_safe + max(0.0, most_s):
            return True
    return by_s >= _whole_s_safe(base)


def _timeout_s(base: Base, first_s_safe: float, *, shown: bool) -> float:
    """For how long nothing may be seen: of first content where that is `shown`, else of all of it."""
    timeout_s = min(TIMEOUT_FACTOR * first_s_safe, TIMEOUT_MEDIANS_MAX * base.cold_s)
    if base.outcomes:
        # Nothing may be cached after all, and then it is not late before all of its prompt could be computed.
        timeout_s *= max(1.0, base.outcomes[0][0] / base.warm_s)
    if not shown:
        # Of the whole, the median tells little: one answer in twenty may be a hundred times as long.
        timeout_s += TIMEOUT_FACTOR * base.length.high_tokens * base.tpot_s * exp(base.deviations * base.tpot_sigma)
    return to_ms(max(TIMEOUT_S_MIN, timeout_s))


def static_steps(request: Request, models: list[EndpointModel]) -> tuple[Run, ...]:
    """One attempt at each, in this order, where nothing is predicted."""
    shown = [shows(request, one.endpoint) for one in models]
    rest_s = WHOLE_S - TIMEOUT_S_STATIC * shown.count(True)
    whole_s = to_ms(rest_s / max(1, shown.count(False)))
    pairs = zip(models, shown, strict=True)
    return tuple([Run(endpoint=one.name, timeout_s=TIMEOUT_S_STATIC if seen else whole_s) for one, seen in pairs])


def _token_s_max(base: Base) -> float:
    """Slower than this, an answer is no answer: who reads keeps up with two tokens a second on any engine that is not
    that slow itself."""
    return to_ms(max(TOKEN_S_LEAST, TOKEN_FACTOR * base.tpot_s * exp(base.deviations * base.tpot_sigma)))


def _hedge_s(
    request: Request, first: Option, second: Option, worth_usd: float, spent_s: float, price: float
) -> float | None:
    """When `second` is started beside the first, where both are paid."""
    base = second.base
    prompt_usd = second.model.cost.usd(request.prompt_tokens, 0.0, base.cached.tokens)
    after_s = starts_s(request, first.base, base, worth_usd, spent_s, prompt_usd, price)
    return None if after_s is None else to_ms(after_s)


def _cutover_s(request: Request, following: Base, latest_s: float, worth_usd: float, spent_s: float) -> float | None:
    """When `following` is started beside the one before it; not at all where that costs more than it may save."""
    gain_usd = worth_usd * attainment(request, following, spent_s + latest_s)
    costs_usd = following.cost_usd + following.rule_usd + request.budget_price * following.paid_usd
    return to_ms(latest_s) if gain_usd > costs_usd else None


def is_worth_paying(request: Request, others: list[Option], worth_usd: float) -> bool:
    """Whether one of these gains what its dollars are worth, for a request that would be refused else.

    Where dollars have no price, serving it is reason enough.
    """
    price = request.budget_price
    if not price:
        return True
    for one in others:
        base = one.base
        if worth_usd * one.attainment >= base.cost_usd + price * base.paid_usd or not base.paid_usd:
            return True
    return False


def why_first(ranked: list[Option]) -> Why:
    """Why the first of several options comes first."""
    best = ranked[0]
    if best.attainment < EXPECTED:
        if all(option.attainment < EXPECTED for option in ranked):
            return Why.LEAST_LOSS
        return Why.NOT_WORTH_MORE
    cost_usd = best.base.cost_usd
    for option in ranked:
        if option.base.cost_usd < cost_usd:
            return Why.WORTH_THE_PRICE
    return Why.CHEAPEST_ON_TIME


def rules_decide(best: Option, options: list[Option]) -> bool:
    """Whether another of these would be worth more than `best` without operators' rules."""
    unruled_usd = best.value_usd + best.base.rule_usd
    return any(o.value_usd + o.base.rule_usd > unruled_usd for o in options if o.base.rule_usd > best.base.rule_usd)


def budget_decides(
    request: Request,
    best: Option,
    options: list[Option],
    unseen: list[EndpointModel] | None,
    worth: float,
    now_s: float,
) -> bool:
    """Whether another of these would be worth more than `best`, were a budget's dollars worth no more than themselves.

    Of those `unseen` only who may be is predicted: nothing is worth more than its promise kept, less its cost.
    """
    unpriced_usd = best.value_usd + request.budget_price * best.base.paid_usd
    if _is_beaten(request, best, unpriced_usd, options):
        return True
    if not unseen:
        return False
    length = best.base.length
    rivals = [one for usd, _, one in cheapest_first(request, unseen, length) if worth - usd > unpriced_usd]
    return _is_beaten(request, best, unpriced_usd, weigh(request, rivals, length, worth, now_s))


def _is_beaten(request: Request, best: Option, unpriced_usd: float, options: list[Option]) -> bool:
    """Whether one of these, for which more is paid than for `best`, is worth more before the budget's price."""
    price, paid_usd = request.budget_price, best.base.paid_usd
    for option in options:
        more_usd = option.base.paid_usd
        if more_usd > paid_usd and option.value_usd + price * more_usd > unpriced_usd:
            return True
    return False


def to_ms(seconds: float) -> float:
    """Whole milliseconds: finer differences are those of one machine's logarithm, and a journal is for all of them."""
    return ceil(seconds * 1000.0) / 1000.0
