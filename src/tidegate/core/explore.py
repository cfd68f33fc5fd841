"""Which other endpoint than the best is asked first now and then, so that it is known what it is like.

What is never asked teaches nothing: an endpoint that was slow once stays slow, as far as anybody knows. And no other
policy can be judged on a journal in which everything was certain. So a small share of requests explores, of those only
that have slack: either the promise is as good as sure at the other endpoint, too, or the best can start beside it while
there is time, and keep it then. In both cases next to nothing is lost, by construction.

The draw is by key, so that a decision stays a read, and a journal comes out again. Nothing is drawn of an engine of
ours that was used once and is left alone since then, or never, on a guess: it is paid for anyway, so now and then it is
asked for sure.
"""

from hashlib import blake2b
from typing import Final

from tidegate.core import plan
from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Request, Slo, replace
from tidegate.core.plan import Option
from tidegate.core.record import Fixed
from tidegate.core.value import attainment
from tidegate.core.warmup import AWAY

# Nineteen in twenty: what is less likely to be kept has no slack to give away.
ATTAINMENT_LEAST: Final = 0.95
# Nor has what would be at risk there by more than it is anyway.
ATTAINMENT_LESS_MAX: Final = 0.02
# What exploring costs at most, as predicted, of what a kept promise is worth. So all requests together lose no more
# than `explore_share` times this of their worth: 0.1 % of it at one in a hundred.
LOSS_SHARE_MAX: Final = 0.1
# Of the time that is left for first content, the explored one has so much for itself: the best has as much again.
PATIENCE: Final = 0.5
# An engine of ours that is left alone for so long is asked once, whatever the share: what makes it slow for a while,
# another job on its machine or heat, is over in minutes, and one request in ten minutes harms nobody.
UNUSED_S: Final = 600.0
# Where somebody's budget ends, a request is no occasion to spend more: what it costs is to fit a hundred times.
BUDGET_SHARE_MAX: Final = 0.01


class Trial(Fixed, frozen=True):
    """One that may be asked before the best, which starts beside it after `cutover_s` without content.

    None: as any other plan has it.
    """

    option: Option
    cutover_s: float | None


class _Rescue(Fixed, frozen=True):
    """The best starts after `cutover_s`, and then keeps the promise with this chance. `early` and `steady` are the
    request with that limit on its first content alone, and with its limit on tokens alone, if it has one."""

    cutover_s: float
    kept: float
    early: Request
    steady: Request | None


def is_due(own: list[EndpointModel], now_s: float) -> bool:
    """Whether nothing is under way at any of these engines of ours, and one of them is left alone."""
    due = False
    for model in own:
        if model.state.reservations:
            return False
        due = due or _is_left_alone(model, now_s)
    return due


def left_alone(found: list[Trial], now_s: float) -> Trial | None:
    """Of those that may be asked first, the engine of ours that has been left alone for longest."""
    longest = None
    for trial in found:
        model = trial.option.model
        if not model.owned or not _is_left_alone(model, now_s):
            continue
        if longest is None or model.used_s < longest.option.model.used_s:
            longest = trial
    return longest


def trials(
    request: Request, options: list[Option], worth_usd: float, now_s: float, hedges_usd: float, *, due: bool
) -> list[Trial]:
    """Of what a decision has predicted, those that may be asked before the best, by name; the best is none of them.

    Engines of ours are only while nobody uses them: what a request takes of their time is in no prediction of value,
    and is lost by those that come next. Whose model is away is warmed up instead. No best starts beside one that is
    paid where `hedges_usd`, which may be lost on that, would not do. One of ours that is `due` may put more at risk,
    for it is one request in ten minutes.
    """
    if len(options) < 2:
        return []
    best = plan.in_order(options)[0]
    # A handover comes first in a plan or not at all: behind another one it could save nothing.
    if best.attainment < ATTAINMENT_LEAST or best.target:
        return []
    least = max(ATTAINMENT_LEAST, best.attainment - ATTAINMENT_LESS_MAX)
    usd_max, spent_s = LOSS_SHARE_MAX * worth_usd, now_s - request.arrived_s
    rescue = _rescue(request, best, least, spent_s)
    found = []
    for option in options:
        alone = due and option.model.owned and _is_left_alone(option.model, now_s)
        # Of ours that are due one whose breaker lets a trial through is asked, too: nobody else would ever close it.
        if option is best or option.target or (option.model.state.breaker.openings and not alone):
            continue
        if option.model.owned and (option.base.cold_share > AWAY or option.model.is_used(now_s)):
            continue
        if option.base.rule_usd > best.base.rule_usd:
            continue
        enough = ATTAINMENT_LEAST if alone else least
        # One whose breaker is open is sure of nothing: the best has to be able to start beside it.
        if option.attainment >= enough and not option.model.state.breaker.openings:
            affords = _affords(request, option.base.cost_usd, best.base.cost_usd)
            if affords and best.value_usd - option.value_usd <= usd_max:
                found.append(Trial(option, None))
            continue
        if rescue is None or (option.model.cost.is_paid and hedges_usd <= option.base.paid_usd):
            continue
        if not plan.shows(request, option.model.endpoint):
            continue  # nobody knows in time that the best has to start
        if _is_saved(request, rescue, best, option, enough, worth_usd, spent_s):
            found.append(Trial(option, plan.to_ms(rescue.cutover_s)))
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


def _is_left_alone(model: EndpointModel, now_s: float) -> bool:
    # Of what was never used, an operator's word is believed, and a guess is put to the test.
    return model.used_s <= now_s - UNUSED_S if model.used_s else model.is_guessed


def _rescue(request: Request, best: Option, least: float, spent_s: float) -> _Rescue | None:
    """How the best still keeps the promise where another one is asked first; None where it may not."""
    slo = request.slo
    # The end of an answer is up to whoever began it, and comes too late to begin another one.
    if slo.ttft_s is None or slo.e2e_s is not None or (best.model.owned and best.model.room <= 1):
        return None
    cutover_s = PATIENCE * (slo.ttft_s - spent_s)
    if cutover_s <= 0.0:
        return None
    kept = attainment(request, best.base, spent_s + cutover_s)
    if kept < least:
        return None
    early = replace(request, slo=Slo(ttft_s=spent_s + cutover_s))
    steady = None if slo.tpot_s is None else replace(request, slo=Slo(tpot_s=slo.tpot_s))
    return _Rescue(cutover_s, kept, early, steady)


def _is_saved(
    request: Request,
    rescue: _Rescue,
    best: Option,
    option: Option,
    least: float,
    worth_usd: float,
    spent_s: float,
) -> bool:
    """Whether asking this one first loses next to nothing, for the best starts beside it in time."""
    cost_usd, best_usd = option.base.cost_usd, best.base.cost_usd
    if not _affords(request, cost_usd + best_usd, best_usd):
        return False
    kept = rescue.kept
    if rescue.steady is not None:
        # Tokens are those of whoever began.
        kept = min(kept, attainment(rescue.steady, option.base, spent_s))
        if kept < least:
            return False
    begins = attainment(rescue.early, option.base, spent_s)
    # As if an answer that it begins were kept no better, and the best were paid whenever it starts.
    lost_usd = worth_usd * (best.attainment - kept) + cost_usd - best_usd + (1.0 - begins) * best_usd
    return lost_usd <= LOSS_SHARE_MAX * worth_usd


def _affords(request: Request, cost_usd: float, best_usd: float) -> bool:
    left_usd = request.budget_usd
    return left_usd is None or cost_usd <= best_usd or cost_usd <= BUDGET_SHARE_MAX * left_usd


def _name(trial: Trial) -> str:
    return trial.option.model.name
