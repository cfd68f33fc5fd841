"""What another policy is worth by what was tried: a doubly robust estimate, from the propensities in a journal.

Each request is worth what is predicted of where the other policy sends it; where it was sent there in truth, what came
of it corrects that, the more the less likely it was to be. So no model of the installation is needed; but what nobody
ever tried tells nothing, and then there is no estimate.

What is predicted and what came are the same dollars: what a kept promise was worth when it was decided, times the
chance that it is kept or whether it was, less what is paid.
"""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import NamedTuple

import msgspec

from tidegate.core.model import (
    Candidate,
    Decision,
    Endpoint,
    Line,
    Record,
    Request,
    Run,
    Segment,
    Started,
    replace,
)
from tidegate.core.plan import shows
from tidegate.core.replay import Replay
from tidegate.core.router import Router
from tidegate.core.why import Why
from tidegate.sim.changed import Changed
from tidegate.sim.observed import LEFT
from tidegate.sim.outcome import Outcome

# Fewer than so many, and one of them decides.
EFFECTIVE_MIN = 30.0
NORMAL90 = 1.645
# As often as not, and for so many ids: then whatever chance may do with a request has been seen, but for one in ten
# thousand where five endpoints may be tried.
EVEN_SHARE, DRAWS_MAX = 0.5, 100


class Robust(Record, frozen=True, kw_only=True, omit_defaults=False):
    """By how many dollars of a thousand requests the other policy is worth more than what was done, of `requests`.

    It decides otherwise for `otherwise` of them; what was tried of that counts as much as `effective` requests that
    were sent there for sure. Where that is too few there are no figures. In none are those that are `untried`: it would
    do with them what was certain not to be done, or what chance never tries, such as another attempt beside the first
    or none, so that nothing could correct what is predicted of it. Nor are those `unseen`, of which nobody sees whether
    their promises are kept, here or there.
    """

    requests: int
    otherwise: int
    untried: int
    unseen: int
    effective: float
    more_usd_per_1k: float | None = None
    low: float | None = None
    high: float | None = None


class _First(NamedTuple):
    """What is done first. An answer beside which another one starts is not what it is alone."""

    endpoint: str
    cutover_s: float | None


class _Choice(msgspec.Struct, frozen=True):
    """One decision: what was predicted of where it went (`here`) and of where it would go, in dollars, and how likely
    it was. Keeping the promise was worth `worth_usd`.

    `same`: the other policy would do that, too. `untried`: chance could not have done what it would do. `unseen`:
    nobody sees whether the promise is kept, here or there. `otherwise`: it would send it elsewhere than it goes as a
    rule.
    """

    here: str
    there_usd: float
    here_usd: float
    worth_usd: float
    same: bool
    untried: bool
    unseen: bool
    propensity: float
    otherwise: bool


def robust(lines: Iterable[Line], changed: Changed, outcomes: Iterable[Outcome]) -> Robust:
    """From the lines of one segment on, and what came of its requests. Raises `ReplayError`."""
    came = {one.request.id: one for one in outcomes if one.outcome != LEFT}
    choices = _choices(lines, changed, came.__contains__)
    tried = [(one, came[request_id]) for request_id, one in choices.items() if not one.untried]
    seen = [(one, outcome) for one, outcome in tried if not (one.unseen or _is_unseen(outcome))]
    values = [_more_usd(one, outcome) for one, outcome in seen]
    weights = [1.0 / one.propensity for one, _ in seen if one.otherwise and one.same]
    effective = sum(weights) ** 2 / sum(weight * weight for weight in weights) if weights else 0.0
    found = Robust(
        requests=len(choices),
        otherwise=sum(one.otherwise for one in choices.values()),
        untried=len(choices) - len(tried),
        unseen=len(tried) - len(seen),
        effective=effective,
    )
    if effective < EFFECTIVE_MIN:
        return found
    mean = sum(values) / len(values)
    half = NORMAL90 * sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    figures = (1000.0 * usd for usd in (mean, mean - half, mean + half))
    more, low, high = figures
    return replace(found, more_usd_per_1k=more, low=low, high=high)


def _more_usd(one: _Choice, outcome: Outcome) -> float:
    """What it is worth more where it would go, corrected by what came of it where it went there."""
    real_usd = one.worth_usd * outcome.kept - outcome.usd
    correction = (real_usd - one.here_usd) / one.propensity if one.same else 0.0
    return one.there_usd + correction - real_usd


def _is_unseen(outcome: Outcome) -> bool:
    """Whether nobody can say of an answer whether it kept the promise."""
    return outcome.outcome == "ok" and outcome.judged is None


def _choices(lines: Iterable[Line], changed: Changed, wanted: Callable[[str], bool]) -> dict[str, _Choice]:
    """What was chosen first of each request that was sent there at once, and what would have been."""
    told = _Told(changed)
    found: dict[str, _Choice] = {}
    # Those that were decided before, and choices of which it is not known yet whether they were sent there.
    decided = set[str]()
    chosen: dict[str, _Choice] = {}
    for line in lines:
        fact = line.fact
        if isinstance(fact, Decision):
            if fact.request_id not in decided and wanted(fact.request_id):
                choice = told.choice(fact, line.at_s)
                if choice is not None:
                    chosen[fact.request_id] = choice
            decided.add(fact.request_id)
            continue
        told.feed(line)
        if isinstance(fact, Segment):
            # Whoever is held there waits since before it.
            decided |= told.router.state.held.keys()
        elif isinstance(fact, Started):
            choice = chosen.pop(fact.request_id, None)
            # Where it could not be sent, what another one made of it says nothing of who was chosen.
            if choice is not None and choice.here == fact.endpoint:
                found[fact.request_id] = choice
    return found


class _Told:
    """Who decided, the other policy, and one that draws `EVEN_SHARE` of all that may explore: they are told of all that
    happened."""

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._ours, self._other, self._even = Replay(), Replay(), Replay()

    def feed(self, line: Line) -> None:
        """Take in what is no decision."""
        self._ours.feed(line)
        if not isinstance(line.fact, Segment):
            self._other.feed(line)
            self._even.feed(line)
            return
        other = replace(self._changed.policy, explore_share=0.0)
        even = replace(line.fact.policy, explore_share=EVEN_SHARE)
        self._other.feed(replace(line, fact=replace(line.fact, policy=other)))
        self._even.feed(replace(line, fact=replace(line.fact, policy=even)))

    @property
    def router(self) -> Router:
        """Who decided."""
        return _router(self._ours)

    def choice(self, decision: Decision, now_s: float) -> _Choice | None:
        """What was chosen by this decision, and what would have been; None where it was not, or would not be, sent at
        once, or is no request as it came."""
        request, here = self._ours.requests.get(decision.request_id), _first(decision)
        if request is None or here is None or request.said_tokens or request.shipped:
            return None
        there = _first(_router(self._other).decide(self._changed(request), now_s))
        if there is None:
            return None
        worth_usd = self.router.worth_usd(request, now_s)
        usd = {one.endpoint: _predicted_usd(one, worth_usd) for one in self.router.candidates(request, now_s)}
        here_usd, there_usd = usd.get(here.endpoint), usd.get(there.endpoint)
        if here_usd is None or there_usd is None:
            return None
        usual, trials = here, set[_First]()
        if decision.propensity < 1.0 and (decision.why is Why.EXPLORES or there != here):
            usual, trials = self._drawn(request, here, now_s)
        return _Choice(
            here=here.endpoint,
            there_usd=there_usd,
            here_usd=here_usd,
            worth_usd=worth_usd,
            same=there == here,
            # With another attempt beside it and without are two things, of which chance tries one.
            untried=there != here and (there.endpoint == here.endpoint or there not in (usual, *trials)),
            unseen=not all(_is_seen(request, self.router.endpoint(one.endpoint).endpoint) for one in (here, there)),
            propensity=max(decision.propensity, 1e-6),
            otherwise=there.endpoint != usual.endpoint,
        )

    def _drawn(self, request: Request, here: _First, now_s: float) -> tuple[_First, set[_First]]:
        """What is done as a rule with a request that went `here`, and what chance may do instead: it is drawn by the
        id, so that other ids are other draws."""
        router, usual, trials, among = _router(self._even), None, set[_First](), 1
        for number in range(DRAWS_MAX):
            decision = router.decide(replace(request, id=f"{request.id} {number}"), now_s)
            first = _first(decision)
            if first is None:
                break
            if decision.why is Why.EXPLORES:
                trials.add(first)
                among = round(EVEN_SHARE / decision.propensity)
            else:
                usual = first
            if usual is not None and len(trials) == among:
                break
        return here if usual is None else usual, trials


def _router(replay: Replay) -> Router:
    assert replay.router is not None, "the lines begin with a segment"
    return replay.router


def _first(decision: Decision) -> _First | None:
    """Where it is sent at once; None where it is not."""
    first = decision.plan[0] if decision.plan else None
    return _First(first.endpoint, first.cutover_s) if isinstance(first, Run) else None


def _predicted_usd(one: Candidate, worth_usd: float) -> float | None:
    """What is predicted of what is counted when it has come: the promise, and what it costs."""
    estimate = one.estimate
    return None if estimate is None else worth_usd * estimate.attainment - estimate.cost_usd


def _is_seen(request: Request, endpoint: Endpoint) -> bool:
    """Whether it shows there whether the promise is kept: of an answer in one piece nobody sees when it begins."""
    slo = request.slo
    return (slo.ttft_s is None and slo.tpot_s is None) or shows(request, endpoint)
