"""From an estimate to dollars (decision model, section 5).

`value = worth * attainment - late_usd_per_s * lateness - cost - rules - budgets`. Rules are what operators' own put
on an endpoint; budgets, what is paid to others times the price of their dollars (budget.py). The shadow price of our
own capacity is not in it: held work is scheduled instead (hold.py), and charging for the same seconds twice was
measured to lose.
"""

from math import exp, inf, log
from typing import Final

from tidegate.core.base import Base
from tidegate.core.failing import NEVER
from tidegate.core.model import Estimate, Request
from tidegate.core.output import Length

# A promise that is as likely as this to be kept is kept for sure: nearer to certainty, no prediction tells endpoints
# apart, and of two that both keep it the quicker one is to be chosen.
SURE: Final = 0.99
SURE_DEVIATIONS: Final = log(SURE / (1.0 - SURE)) / 1.702
_STRETCH: Final = 0.5 / (SURE - 0.5)


def worth_usd(request: Request, length: Length) -> float:
    """What meeting the promise is worth: it grows with the work, as the work's price does."""
    tokens = request.prompt_tokens + length.expected_tokens * request.completions
    return request.worth_usd + request.worth_usd_per_1k_tokens * tokens / 1000.0


def attainment(request: Request, base: Base, spent_s: float) -> float:
    """P(every axis of the SLO is met) if sent when `spent_s` have passed since arrival.

    The axes share their causes, so the least likely one decides (comonotone), not the product. An attempt that fails
    before any content is made elsewhere, as if it were sent again there after the time that took; one that breaks off
    is lost.
    """
    attained, failing = _served(request, base, spent_s), base.failing
    if failing is NEVER or not attained:
        return attained
    again = _served(request, base, spent_s + failing.after_s) if request.failover else 0.0
    return (1.0 - failing.broken) * (attained + failing.failed * (again - attained))


def _served(request: Request, base: Base, spent_s: float) -> float:
    """The same of an attempt that does not fail."""
    tpot_s, steady, output_tokens_max = request.slo.tpot_s, inf, request.output_tokens_max
    # An answer without a second token keeps any promise of the time between them.
    if tpot_s is not None and (output_tokens_max is None or output_tokens_max > 1):
        steady = log(tpot_s / base.tpot_s) / base.tpot_sigma
    if base.cold_share:
        mixture = base.mixture
        warm = _warm(request, base, base.warm_s, spent_s, steady)
        cold = _attained(request, base, mixture.cold_s, mixture.cold_sigma, spent_s, steady)
        # No load saves time.
        return warm + base.cold_share * min(0.0, cold - warm)
    return _warm(request, base, base.first_s, spent_s, steady)


def _warm(request: Request, base: Base, first_s: float, spent_s: float, steady: float) -> float:
    """The same of a model that is there: all that it may come to with what is cached of the prompt counts."""
    if not base.outcomes:
        return _attained(request, base, first_s, base.sigma, spent_s, steady)
    attained = 0.0
    for after_s, p, sigma in base.outcomes:
        attained += p * _attained(request, base, after_s, sigma, spent_s, steady)
    return attained


def _attained(request: Request, base: Base, first_s: float, sigma: float, spent_s: float, steady: float) -> float:
    """The same where the first content comes after `first_s`, in the median, and tokens so many deviations in time."""
    slo, deviations = request.slo, steady
    ttft_s = slo.ttft_s
    if ttft_s is not None:
        left_s = ttft_s - spent_s
        if left_s <= 0.0:
            return 0.0
        first = log(left_s / first_s) / sigma
        if first < deviations:
            deviations = first
    if slo.e2e_s is not None:
        left_s = slo.e2e_s - spent_s
        if left_s <= 0.0:
            return 0.0
        deviations = min(deviations, log(left_s / (first_s + base.decode_s)) / base.e2e_sigma(first_s, sigma))
    return probability_below(deviations)


def late_share(base: Base, left_s: float) -> float:
    """P(first content takes longer than `left_s`), never quite zero: a logistic tail, since latencies have such."""
    if left_s <= 0.0:
        return 1.0
    if base.outcomes:
        warm = 0.0
        for after_s, p, sigma in base.outcomes:
            warm += p * _late(left_s, after_s, sigma)
    else:
        warm = _late(left_s, base.warm_s if base.cold_share else base.first_s, base.sigma)
    if not base.cold_share:
        return warm
    mixture = base.mixture
    return warm + base.cold_share * max(0.0, _late(left_s, mixture.cold_s, mixture.cold_sigma) - warm)


def _late(left_s: float, first_s: float, sigma: float) -> float:
    deviations = log(left_s / first_s) / sigma
    return 1.0 / (1.0 + exp(1.702 * deviations)) if deviations < 300.0 else 0.0


def lateness_s(request: Request, base: Base, spent_s: float) -> float:
    """Expected seconds beyond the promise: the worse of TTFT and end to end."""
    if not base.cold_share:
        return _late_s(request, base, base.first_s, spent_s)
    warm_s = _late_s(request, base, base.warm_s, spent_s)
    return warm_s + base.cold_share * (_late_s(request, base, base.cold_s, spent_s) - warm_s)


def _late_s(request: Request, base: Base, first_s: float, spent_s: float) -> float:
    slo = request.slo
    late_s = 0.0
    if slo.ttft_s is not None:
        late_s = spent_s + first_s - slo.ttft_s
    if slo.e2e_s is not None:
        late_s = max(late_s, spent_s + first_s + base.decode_s - slo.e2e_s)
    return late_s if late_s > 0.0 else 0.0


def value_usd(request: Request, base: Base, worth: float, spent_s: float) -> float:
    """Expected worth of meeting the promise here, less lateness, what it costs to try, and what rules and budgets
    put on it."""
    return net_usd(request, base, worth, spent_s, attainment(request, base, spent_s))


def net_usd(request: Request, base: Base, worth: float, spent_s: float, attained: float) -> float:
    """`value_usd` where the attainment is known already."""
    usd = worth * attained - base.cost_usd - base.rule_usd
    if request.late_usd_per_s:
        usd -= request.late_usd_per_s * lateness_s(request, base, spent_s)
    if request.budget_price:
        usd -= request.budget_price * base.paid_usd
    return usd


def contributions_usd(request: Request, base: Base, worth: float, spent_s: float) -> dict[str, float]:
    """The terms of `value_usd`, which add up to it."""
    parts = {
        "promise": worth * attainment(request, base, spent_s),
        "lateness": -request.late_usd_per_s * lateness_s(request, base, spent_s),
        "cost": -base.cost_usd,
    }
    if base.rule_usd:
        parts["rule"] = -base.rule_usd
    if request.budget_price and base.paid_usd:
        parts["budget"] = -request.budget_price * base.paid_usd
    return parts


def estimate(request: Request, base: Base, wait_s: float, now_s: float) -> Estimate:
    """The whole prediction, for people and records: what `base` says after waiting for `wait_s`."""
    spent_s = now_s + wait_s - request.arrived_s
    return Estimate(
        wait_s=wait_s,
        network_s=base.network_s,
        prefill_s=base.queue_s + base.prefill_s,
        ttft_s=wait_s + base.first_s,
        ttft_s_high=wait_s + base.first_s_high,
        tpot_s=base.tpot_s,
        output_tokens=base.output_tokens,
        e2e_s=wait_s + base.first_s + base.decode_s,
        sigma=base.sigma,
        attainment=attainment(request, base, spent_s),
        lateness_s=lateness_s(request, base, spent_s),
        cost_usd=base.cost_usd,
        cached_tokens=base.cached.tokens,
        cached_sd_tokens=base.cached.sd,
        cold_share=base.cold_share,
        load_s=base.load_s,
        failed_share=base.failing.failed,
        failed_after_s=base.failing.after_s,
        broken_share=base.failing.broken,
    )


def probability_below(deviations: float) -> float:
    """P(X <= `deviations`) of a standard normal value.

    The logistic curve stands in for the normal one: within 0.01 of it, and half the price. Its upper half is stretched
    by as much, so that it reaches 1.
    """
    if deviations > SURE_DEVIATIONS:
        return 1.0
    if deviations < -18.0:
        return 0.0
    p = 1.0 / (1.0 + exp(-1.702 * deviations))
    return p if p < 0.5 else 0.5 + (p - 0.5) * _STRETCH
