"""What another policy is worth by what was tried: a doubly robust estimate, from the propensities in a journal.

Each request is worth what is predicted of where the other policy sends it; where it was sent there in truth, what came
of it corrects that, the more the less likely it was to be. So no model of the installation is needed; but what nobody
ever tried tells nothing, and then there is no estimate.
"""

from collections.abc import Callable, Iterable
from math import sqrt

import msgspec

from tidegate.core.model import Decision, Line, Record, Request, Run, Segment, Started, replace
from tidegate.core.replay import Replay
from tidegate.core.router import Router
from tidegate.core.state import State
from tidegate.sim.changed import Changed
from tidegate.sim.observed import LEFT
from tidegate.sim.outcome import Outcome
from tidegate.sim.report import worth_usd

# Fewer than so many, and one of them decides.
EFFECTIVE_MIN = 30.0
NORMAL90 = 1.645


class Robust(Record, frozen=True, kw_only=True, omit_defaults=False):
    """By how many dollars of a thousand requests the other policy is worth more than what was done, of `requests`.

    It decides otherwise for `otherwise` of them; what was tried of that counts as much as `effective` requests that
    were sent there for sure. Where that is too few there are no figures. In none are those that are `untried`: it would
    do with them what was certain not to be done, or what chance never tries, another attempt beside the first or none,
    so that nothing could correct what is predicted of it.
    """

    requests: int
    otherwise: int
    untried: int
    effective: float
    more_usd_per_1k: float | None = None
    low: float | None = None
    high: float | None = None


class _Choice(msgspec.Struct, frozen=True):
    """One decision: what was predicted of where it went (`here`) and of where it would go, in dollars, and how likely
    it was.

    `same`: the other policy would do that, too. `untried`: chance could not have done what it would do. `otherwise`: it
    would send it elsewhere than it goes as a rule.
    """

    here: str
    there_usd: float
    here_usd: float
    same: bool
    untried: bool
    propensity: float
    otherwise: bool


def robust(lines: Iterable[Line], changed: Changed, outcomes: Iterable[Outcome]) -> Robust:
    """From the lines of one segment on, and what came of its requests. Raises `ReplayError`."""
    came = {one.request.id: one for one in outcomes if one.outcome != LEFT}
    choices = _choices(lines, changed, came.__contains__)
    values = []
    for request_id, choice in choices.items():
        if choice.untried:
            continue
        outcome = came[request_id]
        real_usd = (worth_usd(outcome) if outcome.kept else 0.0) - outcome.usd
        correction = (real_usd - choice.here_usd) / choice.propensity if choice.same else 0.0
        values.append(choice.there_usd + correction - real_usd)
    tried = [1.0 / one.propensity for one in choices.values() if one.otherwise and one.same]
    otherwise = sum(one.otherwise for one in choices.values())
    effective = sum(tried) ** 2 / sum(weight * weight for weight in tried) if tried else 0.0
    found = Robust(requests=len(choices), otherwise=otherwise, untried=len(choices) - len(values), effective=effective)
    if effective < EFFECTIVE_MIN:
        return found
    mean = sum(values) / len(values)
    half = NORMAL90 * sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    figures = (1000.0 * usd for usd in (mean, mean - half, mean + half))
    more, low, high = figures
    return replace(found, more_usd_per_1k=more, low=low, high=high)


def _choices(lines: Iterable[Line], changed: Changed, wanted: Callable[[str], bool]) -> dict[str, _Choice]:
    """What was chosen first of each request that was sent there at once, and what would have been."""
    core, other = Replay(), _Other(changed)
    found: dict[str, _Choice] = {}
    # Those that were decided before, and choices of which it is not known yet whether they were sent there.
    decided = set[str]()
    chosen: dict[str, _Choice] = {}
    for line in lines:
        fact = line.fact
        if isinstance(fact, Decision):
            request = core.requests.get(fact.request_id)
            if request is not None and fact.request_id not in decided and wanted(fact.request_id):
                choice = _choice(core.router, other, request, fact, line.at_s)
                if choice is not None:
                    chosen[fact.request_id] = choice
            decided.add(fact.request_id)
            continue
        core.feed(line)
        other.feed(line)
        if isinstance(fact, Segment) and core.router is not None:
            # Whoever is held there waits since before it.
            decided |= core.router.state.held.keys()
        elif isinstance(fact, Started):
            choice = chosen.pop(fact.request_id, None)
            # Where it could not be sent, what another one made of it says nothing of who was chosen.
            if choice is not None and choice.here == fact.endpoint:
                found[fact.request_id] = choice
    return found


def _choice(
    router: Router | None, other: "_Other", request: Request, decision: Decision, now_s: float
) -> _Choice | None:
    """What was chosen by this decision, and what would have been; None where it was not, or would not be, sent at
    once, or is no request as it came."""
    first = decision.plan[0] if decision.plan else None
    if router is None or not isinstance(first, Run) or request.said_tokens or request.shipped:
        return None
    there = other.first(request, now_s)
    if there is None:
        return None
    usd = {one.endpoint: one.value_usd for one in router.candidates(request, now_s)}
    here_usd, there_usd = usd.get(first.endpoint), usd.get(there.endpoint)
    if here_usd is None or there_usd is None:
        return None
    usual = first.endpoint
    if decision.propensity < 1.0:
        # Who has one attempt does not explore.
        greedy = router.decide(replace(request, failover=False), now_s)
        usual = greedy.plan[0].endpoint if greedy.plan else usual
    # An answer beside which another one starts is not what it is alone.
    same = (there.endpoint, there.cutover_s) == (first.endpoint, first.cutover_s)
    # What is tried by chance is another endpoint, never the same with or without one beside it.
    untried = not same and (decision.propensity >= 1.0 or there.endpoint == first.endpoint)
    propensity, otherwise = max(decision.propensity, 1e-6), there.endpoint != usual
    return _Choice(first.endpoint, there_usd, here_usd, same, untried, propensity, otherwise)


class _Other:
    """The other policy, told of everything that happened."""

    def __init__(self, changed: Changed) -> None:
        self._changed = changed
        self._router: Router | None = None

    def feed(self, line: Line) -> None:
        fact = line.fact
        if isinstance(fact, Segment):
            policy = replace(self._changed.policy, explore_share=0.0)
            self._router = Router(fact.endpoints, policy, msgspec.json.decode(fact.state, type=State))
        elif not isinstance(fact, Request | Decision) and self._router is not None:
            self._router.observe(fact, line.at_s)

    def first(self, request: Request, now_s: float) -> Run | None:
        """How it would run this first; None where it would not run it now."""
        assert self._router is not None
        decision = self._router.decide(self._changed(request), now_s)
        step = decision.plan[0] if decision.plan else None
        return step if isinstance(step, Run) else None
