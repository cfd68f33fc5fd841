"""Which other endpoint than the best is asked first now and then, so that it is known what it is like.

What is never asked teaches nothing: an endpoint that was slow once stays slow, as far as anybody knows. And no other
policy can be judged on a journal in which everything was certain. So a small share of requests explores, of those only
that have slack: either the promise is as good as sure at the other endpoint, too, or the best can start beside it while
there is time, and keep it then. In both cases next to nothing is lost, by construction.

The draw is by key, so that a decision stays a read, and a journal comes out again.
"""

from hashlib import blake2b
from typing import Final

import msgspec

from tidegate.core import plan
from tidegate.core.model import Request, Slo, replace
from tidegate.core.plan import Option
from tidegate.core.value import attainment

# Nineteen in twenty: what is less likely to be kept has no slack to give away.
ATTAINMENT_LEAST: Final = 0.95
# Nor has what would be at risk there by more than it is anyway.
ATTAINMENT_LESS_MAX: Final = 0.02
# What exploring costs at most, as predicted, of what a kept promise is worth. So all requests together lose no more
# than `explore_share` times this of their worth: 0.1 % of it at one in a hundred.
LOSS_SHARE_MAX: Final = 0.1
# Of the time that is left for first content, the explored one has so much for itself: the best has as much again.
PATIENCE: Final = 0.5
# Where somebody's budget ends, a request is no occasion to spend more: what it costs is to fit a hundred times.
BUDGET_SHARE_MAX: Final = 0.01


class Trial(msgspec.Struct, frozen=True, gc=False):
    """One that may be asked before the best, which starts beside it after `cutover_s` without content.

    None: as any other plan has it.
    """

    option: Option
    cutover_s: float | None


def trials(request: Request, options: list[Option], worth_usd: float, spent_s: float) -> list[Trial]:
    """Of what a decision has predicted `spent_s` after the request's arrival, those that may be asked before the best,
    by name; the best is none of them.

    Of our own engines none is given its last slot for this.
    """
    if len(options) < 2:
        return []
    best = min(options, key=plan.by_value)
    if best.attainment < ATTAINMENT_LEAST:
        return []
    found = []
    for option in options:
        if option is best or option.model.state.breaker.openings or option.base.rule_usd > best.base.rule_usd:
            continue
        if option.model.owned and option.model.room <= 1:
            continue
        trial = _trial(request, best, option, worth_usd, spent_s)
        if trial is not None:
            found.append(trial)
    found.sort(key=_name)
    return found


def pick(found: list[Trial], share: float, seed: int, request_id: str) -> tuple[Trial | None, float]:
    """Which of them is asked first, None for the best, and how likely that was.

    All of them are as likely: weights by what is least known would leave some with next to no chance, and then a
    journal says nothing about policies that would choose those.
    """
    drawn = uniform(seed, "explore", request_id)
    if drawn >= share:
        return None, 1.0 - share
    return found[min(int(drawn / share * len(found)), len(found) - 1)], share / len(found)


def uniform(seed: int, purpose: str, key: str) -> float:
    """A reproducible draw from [0, 1)."""
    digest = blake2b(f"{seed}|{purpose}|{key}".encode(), digest_size=8).digest()
    # 53 bits, as many as a float has: with more, the largest would round to 1.
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53


def _trial(request: Request, best: Option, option: Option, worth_usd: float, spent_s: float) -> Trial | None:
    least = max(ATTAINMENT_LEAST, best.attainment - ATTAINMENT_LESS_MAX)
    usd_max = LOSS_SHARE_MAX * worth_usd
    cost_usd, best_usd = option.base.cost_usd, best.base.cost_usd
    if option.attainment >= least:
        sure = best.value_usd - option.value_usd <= usd_max and _affords(request, cost_usd, best_usd)
        return Trial(option, None) if sure else None
    slo = request.slo
    # The end of an answer is up to whoever began it, and comes too late to begin another one.
    if slo.ttft_s is None or slo.e2e_s is not None or (best.model.owned and best.model.room <= 1):
        return None
    cutover_s = PATIENCE * (slo.ttft_s - spent_s)
    if cutover_s <= 0.0 or not _affords(request, cost_usd + best_usd, best_usd):
        return None
    kept = attainment(request, best.base, spent_s + cutover_s)
    if slo.tpot_s is not None:
        kept = min(kept, attainment(replace(request, slo=Slo(tpot_s=slo.tpot_s)), option.base, spent_s))
    first = attainment(replace(request, slo=Slo(ttft_s=spent_s + cutover_s)), option.base, spent_s)
    # As if nothing that the other one begins were kept any better, and the best were paid whenever it starts.
    lost_usd = worth_usd * (best.attainment - kept) + cost_usd - best_usd + (1.0 - first) * best_usd
    return Trial(option, plan.to_ms(cutover_s)) if kept >= least and lost_usd <= usd_max else None


def _affords(request: Request, cost_usd: float, best_usd: float) -> bool:
    left_usd = request.budget_usd
    return left_usd is None or cost_usd <= best_usd or cost_usd <= BUDGET_SHARE_MAX * left_usd


def _name(trial: Trial) -> str:
    return trial.option.model.name
