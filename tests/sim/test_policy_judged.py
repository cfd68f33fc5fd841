"""What is said of worlds that were judged is what their figures are."""

import pytest
from bench.policy_bounds import Bracket
from bench.policy_figures import Interval
from bench.policy_judged import Judged, Point, promises
from bench.policy_settings import Regime
from bench.promise import Promise


def point(name: str, value: float) -> Point:
    return Point(name=name, knob=1.0, attainment=0.9, usd=0.1, value=value, ours=0.5, unserved=0)


def judged(
    regime: Regime, ours: float, rules: dict[str, float], *, closed: float | None = None, trace: str = "code"
) -> Judged:
    best = max(rules, key=lambda name: rules[name])
    gain = ours - rules[best]
    return Judged(
        trace=trace,
        regime=regime,
        seed=1,
        unit_usd=0.001,
        ours=point("tidegate", ours),
        points=[point(name, value) for name, value in rules.items()],
        best=f"{best} 1",
        hull=f"{best} 1",
        saved=Interval(0.1, 0.0, 0.2),
        saved_today=Interval(0.5, 0.4, 0.6),
        gain=Interval(gain, gain - 0.1, gain + 0.1),
        kept=Interval(0.0, -0.1, 0.1),
        behind_rule=[-gain],
        behind_schedule=None,
        bounds=None if closed is None else Bracket(bound=1.2, schedule=1.1),
        closed_bound=closed,
        closed_schedule=closed,
    )


def said(worlds: list[Judged], words: str) -> Promise:
    (found,) = [one for one in promises(worlds) if words in one.promise]
    return found


def test_a_rule_is_carried_from_where_it_was_best_to_every_other_regime_of_its_trace() -> None:
    worlds = [
        judged(Regime.LOAD_050, 1.0, {"a": 0.9, "b": 0.5}),
        judged(Regime.LOAD_150, 1.0, {"a": 0.5, "b": 1.25}),
        judged(Regime.LOAD_100, 1.0, {"a": 0.1, "b": 1.3}, trace="chat"),
    ]
    found = said(worlds, "rules tuned in another regime")
    # `b`, best at 1.50, is beaten at 0.50; and `a`, best at 0.50, at 1.50. No other trace has a second regime.
    assert found.found == "2 of 2 pairs, the worst +100.0%"
    assert found.kept
    worlds[0].points[0].value, worlds[0].points[1].value = 1.3, 1.25
    found = said(worlds, "rules tuned in another regime")
    assert not found.kept
    assert found.losing == ["code load-0.50 1 by b 1 of load-1.50: -20.0%"]


def test_regimes_that_are_hard_to_know_have_a_promise_of_their_own() -> None:
    usual, limits = judged(Regime.LOAD_100, 0.5, {"a": 0.9}), judged(Regime.LIMITS, 1.0, {"a": 0.9})
    assert not any("prefix caches" in one.promise for one in promises([usual]))
    assert said([usual, limits], "prefix caches").kept
    found = said([usual, limits, judged(Regime.STALE, 0.8, {"a": 0.9})], "prefix caches")
    assert (found.kept, found.found) == (False, "1 of 2")
    assert found.losing == ["code stale 1: -0.100 (-0.200 to +0.000)"]


@pytest.mark.parametrize(("closed", "kept"), [(0.36, True), (0.34, False), (0.9, True)])
def test_a_wrong_step_time_is_held_against_the_same_world_with_a_right_one(closed: float, kept: bool) -> None:
    worlds = [
        judged(Regime.LOAD_100, 1.0, {"a": 0.9}, closed=0.4),
        judged(Regime.STEP_140, 1.0, {"a": 0.9}, closed=closed),
        judged(Regime.STEP_140, 1.0, {"a": 0.9}, closed=0.0, trace="chat"),
    ]
    found = said(worlds, "drifting step time")
    assert (found.kept, found.found) == (kept, f"{int(kept)} of 1")
