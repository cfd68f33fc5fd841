"""How far from the best possible: the busiest stretch of a journal, played by its policy, by simple rules, by somebody
who knows everything, and bounded by what nobody exceeds.

All of them play in the same twin of the installation. What is between our policy and the bound is taken apart: what
reports of load that are never old would bring, what lengths of answers that are told would bring, what only knowing who
comes next brings, and what nobody is known to reach.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import inf

import msgspec

from tidegate.core.endpoint import EndpointModel
from tidegate.core.model import Policy, Record, Request, replace
from tidegate.core.router import Router
from tidegate.core.rules import excluded_ever, tokens_needed_least
from tidegate.core.state import State
from tidegate.sim.binder import Binder, Rule
from tidegate.sim.clairvoyant import search
from tidegate.sim.decider import AtOnce
from tidegate.sim.job import Job
from tidegate.sim.needs import Piece, Pool
from tidegate.sim.observed import ObservedError
from tidegate.sim.oracle import bound
from tidegate.sim.outcome import Outcome
from tidegate.sim.planned import Planned
from tidegate.sim.practice import (
    LeastTtft,
    LeastWork,
    OursOnly,
    Patience,
    QueueGate,
    RandomSplit,
    RemoteOnly,
    Threshold,
)
from tidegate.sim.preview import Interval, blocks_of, interval
from tidegate.sim.report import percentiles
from tidegate.sim.twin import Twin, played

# A bound of so many takes seconds, and a play of them one or two.
REQUESTS_MAX = 2_000
PLAYS_MAX = 12
# Reports of load that are as good as fresh.
FRESH_S = 0.5
# So long before the first of the stretch its world begins: for probes to tell what is up.
LEAD_S = 60.0
# A way on which nobody waits for the prompts of others.
WIDE_BYTES_PER_S = 1e12
_POLICY, _REMOTE = "as it was", "everything away"


class Row(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One way to decide: what a thousand requests are worth by it, how many promises it keeps, what it costs, and by
    how much it is better than what was done, in nine of ten days like this."""

    name: str
    value_per_1k: float
    kept: float
    usd_per_1k: float
    better: Interval


class Gap(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is between our policy and the bound, by what would bring it: dollars of a thousand requests. Parts are found
    one after the other, and may be negative."""

    staleness: float
    prediction: float
    myopia: float
    slack: float


class Audit(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of it, of `requests` from `start_s` to `end_s`. Values are dollars of a thousand: worth of promises that are
    kept, less what is paid, and less what a remote takes for what was not served.

    `rules` are the best of each kind, the best first, and `changes` what other settings would bring, the best first.
    `reached` is the best that was played, by somebody who knows everything or by anybody, and no policy exceeds the
    bound, except where prompts may be computed elsewhere and `handed` over: of that the bound does not know.
    `recommended` is the change that is better beyond chance; None where none is.
    """

    start_s: float
    end_s: float
    requests: int
    policy: Row
    rules: tuple[Row, ...]
    reached: Row
    bound_per_1k: float
    handed: bool
    gap: Gap
    changes: tuple[Row, ...]
    recommended: str | None

    @property
    def wide(self) -> float:
        """How far what was reached and the bound are apart, as a share of the bound."""
        return (self.bound_per_1k - self.reached.value_per_1k) / abs(self.bound_per_1k) if self.bound_per_1k else 0.0


def audit(twin: Twin, policy: Policy, progress: Callable[[float], None] | None = None) -> Audit:
    """Play all of it. Raises `ObservedError` where there is nothing to choose between."""
    own = {e.name for e in twin.endpoints if e.owned and twin.stands[e.name].engine is not None}
    if not own or len(own) == len(twin.endpoints):
        raise ObservedError("there is nothing to choose: it takes an engine of ours, and somewhere else to go")
    twin = stretch(twin)
    jobs = twin.jobs
    tried = list(_rules(jobs))
    changed = list(_changes(policy))
    router = Router(twin.endpoints, policy, msgspec.json.decode(msgspec.json.encode(twin.state), type=State))
    mine = [router.endpoint(name) for name in sorted(own)]
    remotes = [router.endpoint(endpoint.name) for endpoint in twin.endpoints if not endpoint.owned]
    vendors = [one for one in remotes if twin.stands[one.name].api is not None]
    done, total = 0, len(tried) + len(changed) + len(vendors) + PLAYS_MAX + 5

    def play(made: Policy, world: Twin = twin, jobs: Sequence[Job] = jobs, **how: object) -> list[Outcome]:
        nonlocal done
        outcomes = played(world, made, jobs=jobs, **how)  # type: ignore[arg-type]
        done += 1
        if progress is not None:
            progress(min(1.0, done / total))
        return outcomes

    # What each vendor makes of whom it may serve, where nothing is in its way.
    there = [
        play(
            policy,
            _unlimited(twin, one.name),
            [job for job in jobs if _may(job.request, one)],
            decider=partial(AtOnce, {}, usual=one.name),
        )
        for one in vendors
    ]
    served = [one for outcomes in there for one in outcomes if one.outcome == "ok"]
    pieces, at_once = (_pieces(twin, mine, remotes, served, waits=waits) for waits in (True, False))
    score = _Score(pieces)
    ours = play(policy)
    away = play(policy, decider=partial(Binder, RemoteOnly()))
    rules = [score.row(_REMOTE, away, ours)]
    kinds = {_REMOTE: _REMOTE}
    for kind, name, rule in tried:
        kinds[name] = kind
        rules.append(score.row(name, play(policy, decider=partial(Binder, rule)), ours))
    pools = _pools(twin, own)
    found = bound(list(pieces.values()), list(pools.values()))
    # A plan sends away at once what it sends away.
    best = search(
        list(at_once.values()),
        pools,
        lambda plan: play(policy, decider=partial(Planned, plan)),
        local=found.local,
        plays_max=PLAYS_MAX,
    )
    planned = score.row("a schedule", play(policy, decider=partial(Planned, best.plan)), ours)
    fresh = score.row("fresh reports", play(policy, probe_s=FRESH_S), ours)
    told = score.row("told lengths", play(policy, probe_s=FRESH_S, changed=_Told(jobs, [*mine, *remotes])), ours)
    row = replace(score.row(_POLICY, ours, ours), better=Interval(figure=0.0, low=0.0, high=0.0))
    changes = [score.row(name, play(made), ours) for name, made in changed]
    changes.sort(key=lambda one: -one.value_per_1k)
    # Whoever knows everything can do what anybody did.
    reached = max([planned, row, fresh, told, *rules, *changes], key=lambda one: one.value_per_1k)
    bound_per_1k = 1000.0 * found.usd / len(jobs)
    return Audit(
        start_s=jobs[0].request.arrived_s,
        end_s=jobs[-1].request.arrived_s,
        requests=len(jobs),
        policy=row,
        rules=_best_of_each(rules, kinds),
        reached=reached,
        bound_per_1k=bound_per_1k,
        handed=any(endpoint.handovers for endpoint in twin.endpoints),
        gap=Gap(
            staleness=fresh.value_per_1k - row.value_per_1k,
            prediction=told.value_per_1k - fresh.value_per_1k,
            myopia=reached.value_per_1k - told.value_per_1k,
            slack=bound_per_1k - reached.value_per_1k,
        ),
        changes=tuple(changes),
        recommended=next((one.name for one in changes if one.better.low > 0.0), None),
    )


def busiest(jobs: Sequence[Job]) -> list[Job]:
    """The stretch of at most `REQUESTS_MAX` in a row that came closest together: there it matters most."""
    if len(jobs) <= REQUESTS_MAX:
        return list(jobs)
    spans = [
        (jobs[start + REQUESTS_MAX - 1].request.arrived_s - jobs[start].request.arrived_s, start)
        for start in range(len(jobs) - REQUESTS_MAX + 1)
    ]
    start = min(spans)[1]
    return list(jobs[start : start + REQUESTS_MAX])


def stretch(twin: Twin) -> Twin:
    """The same world for its busiest requests alone: of weeks, engines would be probed more rarely than they are.

    Who decides knows what was known when the journal began. Clients who went away are left out, and all others have
    their answers streamed: in one piece nobody could tell which promises were kept, which is what is judged. Raises
    `ObservedError` where nobody else is left.
    """
    jobs = busiest([job for job in twin.jobs if job.request.id not in twin.left])
    if not jobs:
        raise ObservedError("there is nothing to judge: every client went away")
    jobs = [msgspec.structs.replace(job, request=replace(job.request, stream=True)) for job in jobs]
    start_s, end_s = max(twin.start_s, jobs[0].request.arrived_s - LEAD_S), jobs[-1].request.arrived_s
    later_s, over_s = start_s - twin.start_s, end_s - start_s + twin.timeout_s
    faults = []
    for fault in twin.faults:
        at_s, mended_s = max(0.0, fault.at_s - later_s), fault.at_s + fault.for_s - later_s
        if mended_s > 0.0 and at_s < over_s:
            faults.append(replace(fault, at_s=at_s, for_s=min(fault.for_s, mended_s)))
    return msgspec.structs.replace(twin, jobs=tuple(jobs), faults=tuple(faults), start_s=start_s, end_s=end_s)


class _Score:
    """What outcomes are worth, beside what was done."""

    def __init__(self, pieces: Mapping[str, Piece]) -> None:
        self._pieces = pieces

    def row(self, name: str, outcomes: Sequence[Outcome], ours: Sequence[Outcome]) -> Row:
        usd, known = {o.request.id: self._usd(o) for o in outcomes}, [o for o in ours if o.request.id in self._pieces]
        differences = [1000.0 * (usd[o.request.id] - self._usd(o)) for o in known if o.request.id in usd]
        times = [o.request.arrived_s for o in known if o.request.id in usd]
        count = max(1, len(outcomes))
        return Row(
            name=name,
            value_per_1k=1000.0 * sum(usd.values()) / count,
            kept=sum(one.kept for one in outcomes) / count,
            usd_per_1k=1000.0 * sum(one.usd for one in outcomes) / count,
            better=interval(differences, blocks_of(times), least=1000.0 * self._dear_usd(known)),
        )

    def _dear_usd(self, ours: Sequence[Outcome]) -> float:
        """What one request of twenty is worth, or lost, at least: as much as one more or less may come to."""
        found = percentiles(abs(self._usd(one)) for one in ours)
        return 0.0 if found is None else found.p95

    def _usd(self, one: Outcome) -> float:
        piece = self._pieces[one.request.id]
        unserved_usd = 0.0 if one.outcome == "ok" else piece.remote_usd
        return piece.worth_usd * one.kept - one.usd - unserved_usd


class _Told:
    """Says of each request how long its answer is, as its bound.

    But not where a rule would let it go where it may not as it was sent: what is found is held against one bound.
    """

    def __init__(self, jobs: Sequence[Job], models: Sequence[EndpointModel]) -> None:
        self._told: dict[str, Request] = {}
        for job in jobs:
            told = replace(job.request, output_tokens_max=job.target)
            if not any(_may(told, one) and not _may(job.request, one) for one in models):
                self._told[told.id] = told

    def __call__(self, request: Request) -> Request:
        return self._told.get(request.id, request)


def _rules(jobs: Sequence[Job]) -> Iterator[tuple[str, str, Rule]]:
    """Their kind, their name with the setting of the knob, and they."""
    lengths = sorted(job.request.prompt_tokens for job in jobs)
    promises = sorted(job.request.slo.ttft_s for job in jobs if job.request.slo.ttft_s is not None)
    yield "here", "everything here", OursOnly()
    for share in (0.25, 0.5, 0.75):
        yield "split", f"a random share of {share:.0%} here", RandomSplit(share)
    for share in (0.5, 0.8, 0.95):
        tokens = lengths[min(int(share * len(lengths)), len(lengths) - 1)]
        yield "threshold", f"prompts of up to {tokens} tokens here", Threshold(float(tokens))
    for queue in (0.6, 1.0):
        yield "gate", f"here while {queue:.0%} of the slots are taken", QueueGate(0.0, queue)
    if promises:
        for share in (0.3, 0.6):
            wait_s = share * promises[len(promises) // 2]
            yield "patience", f"here, and away after {wait_s:.3g} s", Patience(wait_s)
    for factor in (1.0, 2.0):
        yield "ttft", f"least predicted TTFT, ours counted 1/{factor:g}", LeastTtft(factor)
        yield "work", f"least work, ours counted 1/{factor:g}", LeastWork(factor)


def _changes(policy: Policy) -> Iterator[tuple[str, Policy]]:
    """One setting each, there and back."""
    told: list[tuple[str, float]] = [
        ("hold_s_max", policy.hold_s_max / 4.0),
        ("hold_s_max", policy.hold_s_max * 4.0),
        ("quantile", 0.8),
        ("quantile", 0.95),
        ("hedge_share", 0.0),
        ("hedge_share", 0.05),
        ("attempts_max", 1),
        ("attempts_max", 3),
    ]
    for name, value in told:
        if getattr(policy, name) != value:
            yield f"policy.{name} = {value:g}", replace(policy, **{name: value})


def _best_of_each(rules: Sequence[Row], kinds: Mapping[str, str]) -> tuple[Row, ...]:
    """The best rules: of each kind its best setting, chosen in hindsight."""
    best: dict[str, Row] = {}
    for one in rules:
        kind = kinds[one.name]
        if kind not in best or one.value_per_1k > best[kind].value_per_1k:
            best[kind] = one
    return tuple(sorted(best.values(), key=lambda one: -one.value_per_1k))


def _may(request: Request, model: EndpointModel) -> bool:
    """Whether its model is there, and no rule ever forbids it."""
    served = request.model in model.endpoint.models
    return served and excluded_ever(request, model, tokens_needed_least(request)) is None


def _unlimited(twin: Twin, name: str) -> Twin:
    """The same, where a vendor takes as many as come, and so does the way there: whom its limit turns away, and whose
    prompts wait for others, is for who decides to say."""
    stand = twin.stands[name]
    assert stand.api is not None
    link = replace(stand.link, upload_bytes_per_s=WIDE_BYTES_PER_S)
    free = msgspec.structs.replace(stand, link=link, api=replace(stand.api, requests_per_minute=None))
    return msgspec.structs.replace(twin, stands={**twin.stands, name: free})


def _pieces(
    twin: Twin,
    mine: Sequence[EndpointModel],
    remotes: Sequence[EndpointModel],
    there: Sequence[Outcome],
    *,
    waits: bool,
) -> dict[str, Piece]:
    """What is known of each request by somebody who knows everything; `there` is what came of it at each vendor that
    served it when it came. `mine` are our engines, in the order of their numbers. How many an engine elsewhere serves
    in time is for who decides to say: to the bound it serves each.

    Who `waits` may find a vendor back that is away: where it is for a part of the time in which a first token is not
    late, it is taken to serve in time. So is one of which some attempts fail: asked again, it may draw otherwise.
    """
    outcomes: dict[str, list[Outcome]] = {}
    for one in there:
        outcomes.setdefault(one.request.id, []).append(one)
    keeps = any(stand.engine is not None and stand.engine.keeps_prefixes for stand in twin.stands.values())
    seen: set[int] = set()
    engines = [one for one in remotes if twin.stands[one.name].api is None]
    vendors = [(one, _down(twin, one.name)) for one in remotes if waits and twin.stands[one.name].api is not None]
    found = {}
    for job in twin.jobs:
        request, served = job.request, outcomes.get(job.request.id, [])
        known = 0
        while known < len(job.blocks) and job.blocks[known] in seen:
            known += 1
        seen.update(job.blocks)
        known_tokens = min(known * job.block_tokens, job.prompt_tokens)
        cached_tokens = known_tokens if keeps else 0
        by_s = request.arrived_s + min(_limit_s(request), twin.timeout_s)
        away = [one for one, down in vendors if _fails(twin, one) or _is_in_part(down, request.arrived_s, by_s)]
        kept_usd = [one.usd for one in served if one.kept]
        kept_usd += _usd(engines, job, cached_tokens) + _usd(away, job, known_tokens)
        served_usd = [one.usd for one in served] or _usd(remotes, job)
        tokens = job.prompt_tokens + job.target
        found[request.id] = Piece(
            id=request.id,
            arrived_s=request.arrived_s,
            prompt_tokens=max(1, job.prompt_tokens - cached_tokens),
            context_tokens=job.prompt_tokens,
            prompts=max(1, request.prompts),
            output_tokens=job.target,
            first_by_s=_limit_s(request),
            token_by_s=inf if request.slo.tpot_s is None else request.slo.tpot_s,
            worth_usd=request.worth_usd + request.worth_usd_per_1k_tokens * tokens / 1000.0,
            # Nothing where none may serve it.
            remote_usd=min(kept_usd or served_usd, default=0.0),
            remote_kept=bool(kept_usd),
            pools=tuple(number for number, one in enumerate(mine) if _may(request, one)),
        )
    return found


def _fails(twin: Twin, vendor: EndpointModel) -> bool:
    api = twin.stands[vendor.name].api
    return api is not None and (api.errors > 0.0 or api.broken > 0.0)


def _limit_s(request: Request) -> float:
    """When its first token has to be there at the latest: of a promise of the whole, no later than that."""
    limits = [limit for limit in (request.slo.ttft_s, request.slo.e2e_s) if limit is not None]
    return min(limits, default=inf)


def _usd(remotes: Sequence[EndpointModel], job: Job, cached_tokens: int = 0) -> list[float]:
    """Its price at each of them that may serve it."""
    prices = [one.endpoint.price for one in remotes if _may(job.request, one)]
    return [price.usd(job.prompt_tokens, job.target, cached_tokens) for price in prices]


def _pools(twin: Twin, own: set[str]) -> dict[str, Pool]:
    pools = {}
    for name in sorted(own):
        profile = twin.stands[name].engine
        assert profile is not None
        pools[name] = Pool(profile=profile, slots=profile.slots, down=_down(twin, name))
    return pools


def _is_in_part(down: Sequence[tuple[float, float]], from_s: float, by_s: float) -> bool:
    """Whether any of these is in this time, and leaves some of it."""
    return any(at_s < by_s and to_s > from_s and (at_s > from_s or to_s < by_s) for at_s, to_s in down)


def _down(twin: Twin, name: str) -> tuple[tuple[float, float], ...]:
    """From when to when it is not what it is at other times."""
    begun = [(twin.start_s + fault.at_s, fault.for_s) for fault in twin.faults if fault.endpoint == name]
    return tuple((at_s, at_s + for_s) for at_s, for_s in begun)
