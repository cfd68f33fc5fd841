"""What another policy would have come to on yesterday's traffic: both played in the same twin of the installation.

The headline is how far the twin is from what really came, under the policy that was in force: a preview is worth no
more than that. The difference of two policies is told per thousand requests, with an interval for traffic like this on
another day.
"""

from collections.abc import Container, Sequence
from math import inf, sqrt

from tidegate.core.classify import base_of
from tidegate.core.model import Record, replace
from tidegate.sim.observed import LEFT, Observed
from tidegate.sim.outcome import Outcome, side_by_side
from tidegate.sim.report import percentiles

# Of nine in ten: quantiles of Student's t, by degrees of freedom; in between, and beyond, that of fewer holds too.
_T90 = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02, 6: 1.94, 8: 1.86, 10: 1.81, 15: 1.75, 20: 1.72, 30: 1.70}
# Stretches of time that are looked at as one: what happens in one of them goes on in the next, now and then.
BLOCKS_MAX, BLOCK_REQUESTS = 40, 25
BLOCKS_MIN = 4
# Of how many requests it must be known whether their promises were kept; of fewer, chance says more.
JUDGED_MIN = 10
# Classes and keys that are told of by name: those with the most requests.
AFFECTED_MAX = 12


class Interval(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A figure, and what it is in nine of ten weeks like this one."""

    figure: float
    low: float
    high: float


class Figures(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What requests came to: shares of them all, dollars of a thousand, times in seconds of those that were served.

    Promises `kept` are of the `judged`, those of which that is known, in a preview those of which it is known under
    both policies; None where it is of none. Beside what came, times are of those whose first content was seen then, so
    that they are times of the same requests.
    """

    requests: int
    judged: int
    kept: float | None
    served: float
    away: float
    usd_per_1k: float
    ttft_s_p50: float | None
    ttft_s_p95: float | None


class Backtest(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How far the twin is from what came: dollars and the median time to first token as shares of the real ones,
    promises kept and requests sent away in shares of all; None where nobody knows what came, or of fewer requests than
    `JUDGED_MIN` whether their promises were kept."""

    usd: float
    ttft: float | None
    kept: float | None
    away: float


class Affected(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The requests of one class, or one key: the share that goes elsewhere, and the changes for them; promises `kept`
    of those of which that is known under both policies, None where it is of none."""

    kind: str
    name: str
    requests: int
    moved: float
    kept: float | None
    usd_per_1k: float


class Preview(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of it. In no figure are requests whose clients `left`, those that asked for `several` answers,
    `client_errors`, which failed by their own fault, `unended` ones, which a process or the journal ended before, and
    those `before_it`, under another configuration; operators have taken a hand `overridden` times. So many were
    `budgeted`, by what was left when they came. Endpoints that stand `beside` others of the same engine are played as
    if each had one of its own. `kept_more` is None where of fewer requests than `JUDGED_MIN` both policies tell whether
    their promises were kept. So many runs of the journal were at work at the same time, `overlapping`."""

    start_s: float
    end_s: float
    left: int
    several: int
    client_errors: int
    unended: int
    before_it: int
    overridden: int
    budgeted: int
    beside: tuple[str, ...]
    overlapping: int
    backtest: Backtest
    real: Figures
    before: Figures
    after: Figures
    saved_usd_per_1k: Interval
    kept_more: Interval | None
    away_more: Interval
    affected: tuple[Affected, ...]


def preview(observed: Observed, before: Sequence[Outcome], after: Sequence[Outcome]) -> Preview:
    """From what came, and what the same requests came to in the twin: as it was decided, and as it would be."""
    away = {endpoint.name for endpoint in observed.endpoints if not endpoint.local}
    left = {one.request.id for one in observed.asked if one.outcome.outcome == LEFT}
    real = [one.outcome for one in observed.asked if one.request.id not in left]
    ours = [one for one in before if one.request.id not in left]
    theirs = [one for one in after if one.request.id not in left]
    real, ours, theirs = side_by_side(real, ours, theirs)
    seen = {one.request.id for one in real if one.outcome == "ok" and one.ttft_s is not None}
    # Where nobody saw any, there is nothing to be compared with.
    figures = [figures_of(outcomes, away, seen or None) for outcomes in (real, ours, theirs)]
    # Of whom nobody can say whether what he was promised was kept, the twin's word counts for nothing.
    known = {one.request.id for one in real if one.judged is not None}
    backtest = _backtest(figures[0], figures[1], _known([one for one in ours if one.request.id in known]))
    pairs = pairs_of(ours, theirs)
    both = judged_by_both(pairs)
    blocks = blocks_of([one.request.arrived_s for one, _ in pairs])
    saved = [1000.0 * (a.usd - b.usd) for a, b in pairs]
    off_usd = figures[1].usd_per_1k - figures[0].usd_per_1k
    usd = interval(saved, blocks, off_usd, least=dear_usd([a for a, _ in pairs]))
    gains, judged_blocks = [float(gained(a, b)) for a, b in both], blocks_of([a.request.arrived_s for a, _ in both])
    gone = [float(b.endpoint in away) - float(a.endpoint in away) for a, b in pairs]
    return Preview(
        start_s=observed.start_s,
        end_s=observed.end_s,
        left=len(left),
        several=observed.several,
        client_errors=observed.client_errors,
        unended=observed.unended,
        before_it=observed.before,
        overridden=observed.overridden,
        budgeted=sum(one.request.budget_usd is not None or bool(one.request.budgets) for one in observed.asked),
        beside=tuple(endpoint.name for endpoint in observed.endpoints if endpoint.beside),
        overlapping=observed.overlapping,
        backtest=backtest,
        real=figures[0],
        before=replace(figures[1], judged=len(both), kept=_kept(_known([one for one, _ in both]))),
        after=replace(figures[2], judged=len(both), kept=_kept(_known([one for _, one in both]))),
        saved_usd_per_1k=usd,
        kept_more=(
            None
            if len(both) < JUDGED_MIN
            else interval(gains, judged_blocks, backtest.kept or 0.0, least=1.0, most=1.0)
        ),
        away_more=interval(gone, blocks, backtest.away, least=1.0, most=1.0),
        affected=_affected(pairs),
    )


def figures_of(
    outcomes: Sequence[Outcome], away: set[str], timed: Container[str] | None = None, *, besides_usd: float = 0.0
) -> Figures:
    """Of some requests; `away` are the endpoints that are not ours. Times are of those whose ids are `timed`, of all
    where that is None. So many dollars `besides_usd` were spent for none of them in particular."""
    count = max(1, len(outcomes))
    served = [one for one in outcomes if one.outcome == "ok"]
    times = percentiles(one.ttft_s for one in served if timed is None or one.request.id in timed)
    known = _known(outcomes)
    return Figures(
        requests=len(outcomes),
        judged=len(known),
        kept=_kept(known),
        served=len(served) / count,
        away=sum(one.endpoint in away for one in served) / count,
        usd_per_1k=1000.0 * (sum(one.usd for one in outcomes) + besides_usd) / count,
        ttft_s_p50=None if times is None else times.p50,
        ttft_s_p95=None if times is None else times.p95,
    )


def _known(outcomes: Sequence[Outcome]) -> list[bool]:
    """Whether promises were kept, of those of which that is known."""
    return [one.judged for one in outcomes if one.judged is not None]


def _kept(known: Sequence[bool]) -> float | None:
    return sum(known) / len(known) if known else None


def _backtest(real: Figures, played: Figures, judged: Sequence[bool]) -> Backtest:
    """`judged` are promises that were kept when they were played, of those of which it is known what came."""
    usd = played.usd_per_1k / real.usd_per_1k - 1.0 if real.usd_per_1k > 0.0 else float(played.usd_per_1k > 0.0)
    ttft = played.ttft_s_p50 / real.ttft_s_p50 - 1.0 if real.ttft_s_p50 and played.ttft_s_p50 else None
    played_kept = None if min(real.judged, len(judged)) < JUDGED_MIN else _kept(judged)
    kept = None if real.kept is None or played_kept is None else played_kept - real.kept
    return Backtest(usd=usd, ttft=ttft, kept=kept, away=played.away - real.away)


def dear_usd(outcomes: Sequence[Outcome]) -> float:
    """What a thousand requests cost that are as dear as one of twenty."""
    found = percentiles(one.usd for one in outcomes)
    return 0.0 if found is None else 1000.0 * found.p95


def pairs_of(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The same request under both, in the order of arrivals; one that has no end under both is left out."""
    other = {one.request.id: one for one in theirs}
    return [(one, other[one.request.id]) for one in ours if one.request.id in other]


def judged_by_both(pairs: Sequence[tuple[Outcome, Outcome]]) -> list[tuple[Outcome, Outcome]]:
    """Those of which it is known under both whether their promises were kept: one policy may promise what nobody sees
    of an answer in one piece, and the other not."""
    return [(a, b) for a, b in pairs if a.judged is not None and b.judged is not None]


def gained(before: Outcome, after: Outcome) -> int:
    """1 where only the second of these keeps the promise of a request, -1 where only the first does; 0 where both do or
    neither, or where of one of them nobody can say."""
    if before.judged is None or after.judged is None:
        return 0
    return after.judged - before.judged


def blocks_of(times: Sequence[float]) -> list[int]:
    """Of each arrival, in which stretch of time it is: stretches are equally long."""
    count = max(BLOCKS_MIN, min(BLOCKS_MAX, len(times) // BLOCK_REQUESTS))
    begin_s, span_s = min(times, default=0.0), max(times, default=0.0) - min(times, default=0.0)
    if span_s <= 0.0:
        return [0] * len(times)
    return [min(count - 1, int(count * (at_s - begin_s) / span_s)) for at_s in times]


def interval(
    differences: Sequence[float],
    blocks: Sequence[int],
    wrong: float = 0.0,
    *,
    least: float = 0.0,
    most: float = inf,
    another_day: bool = True,
) -> Interval:
    """The mean, and where it lies on another day: as stretches of this one scatter, and as far as the twin is `wrong`.

    Another day scatters as this one does, so that both count; without it, where it would lie had this day been longer.
    One difference of `least` more may always be, and none of more than `most` either way: of shares, that is 1. How one
    stretch alone scatters nobody knows: by all that it comes to, so that nothing is beyond chance.
    """
    count = len(differences)
    if not count:
        return Interval(figure=0.0, low=0.0, high=0.0)
    mean = sum(differences) / count
    sums: dict[int, float] = {}
    for block, difference in zip(blocks, differences, strict=True):
        sums[block] = sums.get(block, 0.0) + difference - mean
    # Of a ratio of sums, since stretches have more requests or fewer.
    size = len(sums)
    variance = sum(total * total for total in sums.values()) / count**2
    variance = (variance * size / (size - 1) if size > 1 else mean * mean) + (least / count) ** 2
    # What is wrong of both policies alike cancels out; what is wrong of one alone is taken for as much as of a share.
    model = wrong * min(1.0, _touched(differences))
    half = _t90(size - 1) * sqrt((2.0 if another_day else 1.0) * variance + model * model)
    return Interval(figure=mean, low=max(mean - half, -most), high=min(mean + half, most))


def _touched(differences: Sequence[float]) -> float:
    """The share of requests that come to something else."""
    return sum(difference != 0.0 for difference in differences) / len(differences)


def _t90(freedom: int) -> float:
    return next((t for least, t in reversed(_T90.items()) if least <= freedom), _T90[1])


def _affected(pairs: Sequence[tuple[Outcome, Outcome]]) -> tuple[Affected, ...]:
    groups: dict[tuple[str, str], list[tuple[Outcome, Outcome]]] = {}
    for pair in pairs:
        request = pair[0].request
        groups.setdefault(("class", base_of(request.klass)), []).append(pair)
        if request.key:
            groups.setdefault(("key", request.key), []).append(pair)
    ranked = sorted(groups.items(), key=lambda one: (-len(one[1]), one[0]))[:AFFECTED_MAX]
    return tuple(_one(kind, name, found) for (kind, name), found in ranked)


def _one(kind: str, name: str, pairs: Sequence[tuple[Outcome, Outcome]]) -> Affected:
    count, both = len(pairs), judged_by_both(pairs)
    return Affected(
        kind=kind,
        name=name,
        requests=count,
        moved=sum(a.endpoint != b.endpoint for a, b in pairs) / count,
        kept=sum(gained(a, b) for a, b in both) / len(both) if both else None,
        usd_per_1k=1000.0 * sum(b.usd - a.usd for a, b in pairs) / count,
    )
