"""What was found in each world, and what that says of what was promised."""

from collections.abc import Sequence
from statistics import median

import msgspec

from bench.policy_bounds import Bracket
from bench.policy_figures import Interval, Tried
from bench.policy_settings import HARD, LOADED, WRONG, Regime
from bench.promise import Promise

SAVED, SAVED_TODAY, CLOSED, WIDE = 0.09, 0.40, 0.30, 0.01
MOVED, MOVED_WORST = 0.95, 0.02
"""Of rules that were best in another regime, so many are beaten, and none is better by more than this share."""
WRONG_WITHIN = 0.05
"""Where the engine is not what it was believed to be, the share of the gap closed is less by so much at most."""


class Point(msgspec.Struct, kw_only=True):
    """One policy with one value of its knob: dollars and worth a request, in what sending everything away takes."""

    name: str
    knob: float
    attainment: float
    usd: float
    value: float
    ours: float
    unserved: int


class Judged(msgspec.Struct, kw_only=True):
    """One world. Dollars and values are a request's, in what sending everything away takes.

    `hull` names what the lower hull is made of at our attainment, and `saved` is how much less we take than it, a kept
    promise; `saved_today` the same against what people configure today. `gain` is our value less that of `best`, the
    rule that is worth most, and `kept` our attainment less the most that any rule reaches which takes no more dollars
    than we do. `behind_rule` and `behind_schedule` are by how much more all requests up to a moment were worth by that
    rule, and by the schedule of who knows everything.
    """

    trace: str
    regime: str
    seed: int
    unit_usd: float
    ours: Point
    points: list[Point]
    best: str
    hull: str
    saved: Interval
    saved_today: Interval
    gain: Interval
    kept: Interval
    behind_rule: list[float]
    behind_schedule: list[float] | None
    bounds: Bracket | None
    closed_bound: float | None
    closed_schedule: float | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.trace} {self.regime} {self.seed}"


class Chained(msgspec.Struct, kw_only=True):
    """A step of the chain: what the router is told beside all that the steps before it told, and what it reached."""

    knows: str
    reached: Point


class Ablated(msgspec.Struct, kw_only=True):
    """What the decision reached without one of its parts."""

    without: str
    reached: Point


class Terms(msgspec.Struct, kw_only=True):
    """One world taken apart."""

    trace: str
    regime: str
    seed: int
    chain: list[Chained]
    ablations: list[Ablated]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.trace} {self.regime} {self.seed}"


class TakenApart(msgspec.Struct, kw_only=True):
    """All worlds that were taken apart, and at which commit."""

    commit: str
    worlds: list[Terms]


def lost(worlds: Sequence[Terms]) -> dict[str, list[tuple[str, float]]]:
    """By what is taken out: in each world, by how much less a request is worth without it."""
    found: dict[str, list[tuple[str, float]]] = {}
    for world in worlds:
        for one in world.ablations:
            found.setdefault(one.without, []).append((world.name, world.chain[0].reached.value - one.reached.value))
    return found


def point(one: Tried, unit_usd: float) -> Point:
    """What a policy came to, in what sending everything away takes."""
    return Point(
        name=one.name,
        knob=one.knob,
        attainment=round(one.attainment, 4),
        usd=round(one.usd_each / unit_usd, 4),
        value=round(one.value_each / unit_usd, 4),
        ours=round(one.ours, 4),
        unserved=one.unserved,
    )


def promises(worlds: Sequence[Judged]) -> list[Promise]:
    """What there is to be kept."""
    loaded = [one for one in worlds if one.regime in LOADED]
    bounded = [(one.name, one.closed_bound) for one in loaded if one.closed_bound is not None]
    worse = sorted([one for one in worlds if one.saved.high < 0.0 or one.kept.high < 0.0], key=lambda o: o.saved.figure)
    made = [
        _median("saved against the hull of all rules, loaded", [(o.name, o.saved.figure) for o in loaded], SAVED),
        Promise(
            promise="in no world worse in dollars or in attainment, beyond the interval",
            kept=not worse,
            found=f"{len(worlds) - len(worse)} of {len(worlds)}",
            losing=[f"{o.name}: {o.saved.figure:+.0%}, kept {o.kept.figure:+.1%}" for o in worse],
        ),
        _median(
            "saved against what is used today, loaded", [(o.name, o.saved_today.figure) for o in loaded], SAVED_TODAY
        ),
    ]
    made.append(_moved(worlds))
    if hard := [one for one in worlds if one.regime in HARD]:
        made.append(_hard(hard))
    if bounded:
        if any(one.regime in WRONG for one in worlds):
            made.append(_wrong(worlds))
        planned = [(one.name, one.closed_schedule) for one in loaded if one.closed_schedule is not None]
        wide = median([one.bounds.wide for one in loaded if one.bounds is not None])
        made += [
            _median("of the gap to the bound closed, loaded", bounded, CLOSED),
            _median("of the gap to the schedule of who knows everything closed, loaded", planned, CLOSED),
            Promise(
                promise=f"bracket between that schedule and the bound, of value: {WIDE:.0%}",
                kept=wide <= WIDE,
                found=f"{wide:.1%} in the median",
                losing=[],
            ),
        ]
    return made


def _moved(worlds: Sequence[Judged]) -> Promise:
    """Untuned, against each rule that was worth most in another regime of the same trace."""
    apart: list[tuple[float, str]] = []
    for other in worlds:
        best = max(other.points, key=lambda point: point.value)
        for one in worlds:
            if (one.trace, one.seed) != (other.trace, other.seed) or one.regime == other.regime:
                continue
            rule = next(p for p in one.points if (p.name, p.knob) == (best.name, best.knob))
            share = (one.ours.value - rule.value) / max(abs(rule.value), 1e-9)
            apart.append((share, f"{one.name} by {best.name} {best.knob:g} of {other.regime}"))
    won = sum(share >= 0.0 for share, _ in apart)
    worst = min((share for share, _ in apart), default=0.0)
    return Promise(
        promise=f"better than rules tuned in another regime: {MOVED:.0%} of pairs, at most {MOVED_WORST:.0%} worse",
        kept=won >= MOVED * len(apart) and worst >= -MOVED_WORST,
        found=f"{won} of {len(apart)} pairs, the worst {worst:+.1%}",
        losing=[f"{name}: {share:+.1%}" for share, name in sorted(apart) if share < -MOVED_WORST],
    )


def _hard(hard: Sequence[Judged]) -> Promise:
    """Where caches, old reports, limits and memory make it hard to know anything."""
    losing = sorted([one for one in hard if one.gain.figure <= 0.0], key=lambda one: one.gain.figure)
    return Promise(
        promise="with prefix caches, old reports, limits and preemption worth more than the best rule",
        kept=not losing,
        found=f"{len(hard) - len(losing)} of {len(hard)}",
        losing=[f"{o.name}: {o.gain.figure:+.3f} ({o.gain.low:+.3f} to {o.gain.high:+.3f})" for o in losing],
    )


def _wrong(worlds: Sequence[Judged]) -> Promise:
    """Where the engine is not what it was believed to be, or does not stay so."""
    right = {(o.trace, o.seed): o.closed_bound for o in worlds if o.regime == Regime.LOAD_100}
    apart = []
    for one in worlds:
        usual = right.get((one.trace, one.seed))
        if one.regime in WRONG and one.closed_bound is not None and usual is not None:
            apart.append((one.closed_bound - usual, one.name))
    losing = sorted((share, name) for share, name in apart if share < -WRONG_WITHIN)
    return Promise(
        promise=f"with a wrong or drifting step time no more than {WRONG_WITHIN:.0%} of the gap less is closed",
        kept=not losing,
        found=f"{len(apart) - len(losing)} of {len(apart)}",
        losing=[f"{name}: {share:+.0%}" for share, name in losing],
    )


def _median(promise: str, found: Sequence[tuple[str, float]], least: float) -> Promise:
    middle = median(figure for _, figure in found) if found else 0.0
    losing = sorted((figure, name) for name, figure in found if figure < least)
    return Promise(
        promise=f"{promise}: {least:.0%}",
        kept=middle >= least,
        found=f"{middle:+.1%} in the median of {len(found)}",
        losing=[f"{name}: {figure:+.0%}" for figure, name in losing],
    )
