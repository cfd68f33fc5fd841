"""What a scenario came to, in figures. Pure: the same outcomes are the same figures."""

from collections.abc import Iterable, Sequence
from math import ceil, exp, log

from tidegate.core.model import Record
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import Scenario
from tidegate.sim.schema import BoundsTable
from tidegate.sim.stage import Played

HOUR_S = 3600.0
ALL = "all"
"""The name of the group that everybody is in."""

# The figure that each bound is on; its own name ends in whether it is the least or the most that will do.
_BOUNDS: dict[str, str] = {
    "attainment_min": "attainment",
    "refused_share_max": "refused_share",
    "failed_share_max": "failed_share",
    "away_share_max": "away_share",
    "kept_per_s_min": "kept_per_s",
    "usd_per_hour_max": "usd_per_hour",
    "usd_per_1k_kept_max": "usd_per_1k_kept",
    "ttft_s_p50_max": "ttft_s.p50",
    "ttft_s_p99_max": "ttft_s.p99",
    "tpot_s_p99_max": "tpot_s.p99",
    "e2e_s_p99_max": "e2e_s.p99",
}


class Percentiles(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Of `count` values, the least that so many per cent of them do not exceed."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float


class Prediction(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Times to first content as predicted when they were sent, against what they were, over `count` answers.

    Errors are factors: 1.5 is half as long again, or two thirds. `bias` is the median of actual over predicted.
    """

    count: int
    bias: float
    error_p50: float
    error_p90: float


class Group(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The requests of one class, or all of them.

    `kept` are those whose whole promise was kept; `attainment` is their share, and goodput what there is of them each
    second. Of `away_share` the data was sent to a site that is not local, by whatever attempt. The dollars of all have
    those in them that loads for nobody in particular cost. Times are of those that were served, but `held_s`, which is
    of those that were held.
    """

    name: str
    requests: int
    served: int
    kept: int
    refused: int
    failed: int
    timed_out: int
    attainment: float
    refused_share: float
    failed_share: float
    away_share: float
    held_share: float
    kept_per_s: float
    kept_tokens_per_s: float
    usd: float
    usd_per_hour: float
    usd_per_1k_kept: float | None
    worth_usd: float
    attempts: int
    prompt_tokens: int
    output_tokens: int
    prefix_hit_share: float
    ttft_s: Percentiles | None
    tpot_s: Percentiles | None
    e2e_s: Percentiles | None
    held_s: Percentiles | None
    prediction: Prediction | None


class AtEndpoint(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One endpoint. `served_share` is of all that was served; `slots_used` the mean of `concurrency` that was in use.

    `busy_share` is the time for which an engine computed, None of an API. Tokens are those that attempts reported.
    """

    name: str
    attempts: int
    hedges: int
    served: int
    served_share: float
    endings: dict[str, int]
    in_flight_mean: float
    in_flight_most: int
    slots_used: float
    busy_share: float | None
    prompt_tokens: int
    output_tokens: int
    prefix_hit_share: float
    usd: float
    ttft_s: Percentiles | None
    prediction: Prediction | None


class Bin(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One stretch of time. `kept` are of those that arrived in it, `usd` of those that ended in it.

    `in_flight` and `held` are means.
    """

    at_s: float
    arrivals: int
    kept: int
    ended: int
    held: float
    in_flight: dict[str, float]
    usd: float


class Mark(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A bound, what it is on, and whether it holds. A figure that there is none of holds nothing."""

    path: str
    bound: float
    figure: float | None
    holds: bool


class Report(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of it. Rates are over `elapsed_s`: the scenario's duration, or until the last request was over."""

    scenario: str
    policy: str
    seed: int
    start_s: float
    duration_s: float
    elapsed_s: float
    bin_s: float
    groups: tuple[Group, ...]
    endpoints: tuple[AtEndpoint, ...]
    reasons: dict[str, int]
    timeline: tuple[Bin, ...]
    bounds: tuple[Mark, ...]

    @property
    def holds(self) -> bool:
        """Whether every bound holds."""
        return all(mark.holds for mark in self.bounds)


def report(scenario: Scenario, policy: str, played: Played) -> Report:
    """The figures of what was played under a policy of that name."""
    elapsed_s = played.ends_s - scenario.start_s
    outcomes = played.outcomes
    named: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        named.setdefault(klass(outcome), []).append(outcome)
    away = frozenset(endpoint.name for endpoint in scenario.endpoints if not endpoint.local)
    groups = (
        group(ALL, outcomes, elapsed_s, away, besides_usd=played.warm_ups_usd),
        *(group(name, named[name], elapsed_s, away) for name in sorted(named)),
    )
    return Report(
        scenario=scenario.name,
        policy=policy,
        seed=scenario.world.seed,
        start_s=scenario.start_s,
        duration_s=scenario.world.duration_s,
        elapsed_s=elapsed_s,
        bin_s=played.tally.bin_s,
        groups=groups,
        endpoints=_endpoints(played, elapsed_s),
        reasons=_reasons(outcomes),
        timeline=_timeline(played, scenario.start_s),
        bounds=_marks(scenario.bounds, groups, elapsed_s),
    )


def klass(outcome: Outcome) -> str:
    """The class that the client named; what it was refined to by size is the core's."""
    return outcome.request.klass.partition("/")[0]


def group(
    name: str,
    outcomes: Sequence[Outcome],
    elapsed_s: float,
    away: frozenset[str] = frozenset(),
    *,
    besides_usd: float = 0.0,
) -> Group:
    """The figures of some requests, over so many seconds; `away` are the endpoints that are not local. So many dollars
    `besides_usd` were spent for none of them in particular."""
    requests = len(outcomes)
    served = [o for o in outcomes if o.outcome == "ok"]
    kept = [o for o in outcomes if o.kept]
    refused = sum(o.outcome == "refused" for o in outcomes)
    timed_out = sum(o.outcome == "timed_out" for o in outcomes)
    failed = requests - len(served) - refused - timed_out
    held_s = [o.held_s for o in outcomes if o.held_s > 0.0]
    usd = sum(o.usd for o in outcomes) + besides_usd
    prompt_tokens = sum(o.prompt_tokens for o in served)
    return Group(
        name=name,
        requests=requests,
        served=len(served),
        kept=len(kept),
        refused=refused,
        failed=failed,
        timed_out=timed_out,
        attainment=_share(len(kept), requests),
        refused_share=_share(refused, requests),
        failed_share=_share(failed + timed_out, requests),
        away_share=sum(not away.isdisjoint(o.sent) for o in outcomes) / max(1, requests),
        held_share=_share(len(held_s), requests),
        kept_per_s=len(kept) / elapsed_s,
        kept_tokens_per_s=sum(o.output_tokens for o in kept) / elapsed_s,
        usd=usd,
        usd_per_hour=usd / elapsed_s * HOUR_S,
        usd_per_1k_kept=usd / len(kept) * 1000.0 if kept else None,
        worth_usd=sum(worth_usd(o) for o in kept),
        attempts=sum(o.attempts for o in outcomes),
        prompt_tokens=prompt_tokens,
        output_tokens=sum(o.output_tokens for o in served),
        prefix_hit_share=_share(sum(o.cached_tokens for o in served), prompt_tokens),
        ttft_s=percentiles(o.ttft_s for o in served),
        tpot_s=percentiles(o.tpot_s for o in served),
        e2e_s=percentiles(o.e2e_s for o in served),
        held_s=percentiles(held_s),
        prediction=_prediction(served),
    )


def worth_usd(outcome: Outcome) -> float:
    """What keeping this promise was worth, by the tokens that it really had; nothing where operators named a target
    instead, and nobody has said what it is worth."""
    request, tokens = outcome.request, outcome.prompt_tokens + outcome.output_tokens
    if request.attainment is not None:
        return 0.0
    return request.worth_usd + request.worth_usd_per_1k_tokens * tokens / 1000.0


def percentiles(values: Iterable[float | None]) -> Percentiles | None:
    """Of those that there are; None of none."""
    found = sorted(value for value in values if value is not None)
    if not found:
        return None

    def at(share: float) -> float:
        # A hair less, as 0.95 * 20 is not 19 in floating point.
        return found[max(0, ceil(share * len(found) - 1e-9) - 1)]

    return Percentiles(
        count=len(found),
        mean=sum(found) / len(found),
        p50=at(0.5),
        p90=at(0.9),
        p95=at(0.95),
        p99=at(0.99),
        most=found[-1],
    )


def _prediction(served: Iterable[Outcome]) -> Prediction | None:
    logs = [log(o.measured_s / o.predicted_s) for o in served if o.measured_s and o.predicted_s]
    signed, sizes = percentiles(logs), percentiles(map(abs, logs))
    if signed is None or sizes is None:
        return None
    return Prediction(count=signed.count, bias=exp(signed.p50), error_p50=exp(sizes.p50), error_p90=exp(sizes.p90))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _endpoints(played: Played, elapsed_s: float) -> tuple[AtEndpoint, ...]:
    served: dict[str, list[Outcome]] = {}
    for outcome in played.outcomes:
        if outcome.outcome == "ok":
            served.setdefault(outcome.endpoint, []).append(outcome)
    total = sum(map(len, served.values()))
    found = []
    for endpoint in played.endpoints:
        name, tally, here = endpoint.name, played.tally.endpoints[endpoint.name], served.get(endpoint.name, [])
        mean = tally.in_flight.total_s(played.ends_s) / elapsed_s
        busy_s = played.busy_s.get(name)
        found.append(
            AtEndpoint(
                name=name,
                attempts=tally.attempts,
                hedges=tally.hedges,
                served=len(here),
                served_share=_share(len(here), total),
                endings={ending.value: count for ending, count in tally.endings.items() if count},
                in_flight_mean=mean,
                in_flight_most=tally.in_flight.most,
                slots_used=mean / endpoint.concurrency,
                busy_share=None if busy_s is None else busy_s / elapsed_s,
                prompt_tokens=tally.prompt_tokens,
                output_tokens=tally.output_tokens,
                prefix_hit_share=_share(tally.cached_tokens, tally.prompt_tokens),
                usd=played.usd[name],
                ttft_s=percentiles(o.ttft_s for o in here),
                prediction=_prediction(here),
            )
        )
    return tuple(found)


def _reasons(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many last decisions had which reason, the most frequent first."""
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.why.value] = counts.get(outcome.why.value, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _timeline(played: Played, start_s: float) -> tuple[Bin, ...]:
    tally, bin_s = played.tally, played.tally.bin_s
    size = max(1, ceil((played.ends_s - start_s) / bin_s - 1e-9))
    kept, ended, usd = [0] * size, [0] * size, [0.0] * size

    def index(at_s: float) -> int:
        return min(int((at_s - start_s) // bin_s), size - 1)

    for outcome in played.outcomes:
        kept[index(outcome.request.arrived_s)] += outcome.kept
        ended[index(outcome.ended_s)] += 1
        usd[index(outcome.ended_s)] += outcome.usd
    held = tally.held.means(played.ends_s)
    flying = {name: one.in_flight.means(played.ends_s) for name, one in tally.endpoints.items()}
    arrivals = tally.arrivals + [0] * (size - len(tally.arrivals))
    return tuple(
        Bin(
            at_s=i * bin_s,
            arrivals=arrivals[i],
            kept=kept[i],
            ended=ended[i],
            held=held[i],
            in_flight={name: means[i] for name, means in flying.items()},
            usd=usd[i],
        )
        for i in range(size)
    )


def _marks(bounds: dict[str, BoundsTable], groups: Iterable[Group], elapsed_s: float) -> tuple[Mark, ...]:
    by_name = {one.name: one for one in groups}
    marks = []
    for name, table in bounds.items():
        of = by_name.get(name or ALL) or group(name, (), elapsed_s)
        for key, figure_name in _BOUNDS.items():
            bound = getattr(table, key)
            if bound is None:
                continue
            # Of nobody nothing is known, and no bound holds.
            figure = _figure(of, figure_name) if of.requests else None
            holds = figure is not None and (figure >= bound if key.endswith("_min") else figure <= bound)
            path = f"bounds.class.{name}.{key}" if name else f"bounds.{key}"
            marks.append(Mark(path=path, bound=bound, figure=figure, holds=holds))
    return tuple(marks)


def _figure(of: Group, name: str) -> float | None:
    first, _, percentile = name.partition(".")
    found: Percentiles | float | None = getattr(of, first)
    return float(getattr(found, percentile)) if isinstance(found, Percentiles) else found
