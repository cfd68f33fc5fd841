"""How far the simulator is from a day that it has not seen, and the alarm where that is too far beyond chance."""

from collections.abc import Callable

import msgspec
import pytest

from tests.sim.week import Week
from tidegate.core.model import Line
from tidegate.sim.backtest import RATIO, REQUESTS_MIN, Backtest, Off, backtest, cut_s, parts, world
from tidegate.sim.observed import Asked, Down, Observed, ObservedError, known
from tidegate.sim.place import Local, Remote
from tidegate.sim.preview import JUDGED_MIN, blocks_of
from tidegate.sim.twin import played
from tidegate.sim.world import World

Befalls = Callable[[World, Local, Remote], None]


def off(week: Week) -> Backtest:
    observed = week.observed()
    at_s = cut_s(observed)
    before, after = parts(observed, at_s)
    twin = world(before, after, known(until(week.lines, at_s)))
    return backtest(before, after, played(twin, observed.policy))


def until(lines: list[Line], at_s: float) -> list[Line]:
    return [line for line in lines if line.at_s < at_s]


def figure(found: Backtest, name: str) -> Off:
    (one,) = [one for one in found.off if one.figure == name]
    return one


@pytest.mark.lengthy
def test_a_second_half_like_the_first_is_within_bounds() -> None:
    found = off(Week(count=900))
    assert found.drifted == ()
    assert [one.figure for one in found.off] == ["kept", "away", "dollars", "ttft", "e2e"]
    assert found.fitted == 450
    assert found.tested == 450
    assert all(one.low <= one.error <= one.high for one in found.off)
    assert abs(figure(found, "dollars").error) < RATIO


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("befalls", "figures"),
    [
        # An engine of ours that takes four times as long: more is sent away. And an API at a fifth of its pace.
        (lambda world, own, _: world.loop.at(half(world), own.slow, 4.0), {"away", "dollars"}),
        (lambda world, _, api: world.loop.at(half(world), setattr, api.api, "slowdown", 5.0), {"e2e"}),
    ],
    ids=["engine", "api"],
)
def test_what_is_no_longer_what_it_was_is_an_alarm(befalls: Befalls, figures: set[str]) -> None:
    found = off(Week(count=900, befalls=befalls))
    assert figures <= set(found.drifted)
    # What is simulated is what was: too short, too cheap.
    assert all(figure(found, name).high < 0.0 for name in figures)


def half(world: World) -> float:
    """About when half of the week's requests have come."""
    return world.loop.now_s + 45.0


def test_the_parts_have_all_of_it_and_share_nothing() -> None:
    observed = Week(count=500).observed()
    at_s = cut_s(observed)
    before, after = parts(observed, at_s)
    assert [*before.asked, *after.asked] == observed.asked
    assert len(before.asked) == pytest.approx(len(after.asked), abs=1)
    assert max(one.request.arrived_s for one in before.asked) < at_s <= after.asked[0].request.arrived_s
    assert all(attempt.sent_s < at_s for some in before.attempts.values() for attempt in some)


def test_what_is_away_when_the_first_part_ends_is_away_in_the_second() -> None:
    observed = Week(count=500).observed()
    at_s = cut_s(observed)
    observed.down = [
        Down(endpoint="own", at_s=at_s - 10.0, for_s=30.0),
        Down(endpoint="own", at_s=at_s - 50.0, for_s=5.0),
        Down(endpoint="api", at_s=at_s + 5.0, for_s=5.0),
    ]
    before, after = parts(observed, at_s)
    assert [(one.at_s - at_s, one.for_s) for one in before.down] == [(-10.0, 10.0), (-50.0, 5.0)]
    assert [(one.at_s - at_s, one.for_s) for one in after.down] == [(0.0, 20.0), (5.0, 5.0)]


def test_what_did_not_end_is_counted_once_for_both_parts() -> None:
    observed = msgspec.structs.replace(Week(count=500).observed(), unended=2)
    before, after = parts(observed, cut_s(observed))
    assert backtest(before, after, [one.outcome for one in after.asked]).unended == 2


def test_few_requests_are_too_few() -> None:
    observed = Week(count=100).observed()
    with pytest.raises(ObservedError, match=f"100 requests are too few.*it takes {2 * REQUESTS_MIN}"):
        cut_s(observed)


def test_an_error_within_chance_is_no_alarm() -> None:
    one = Off(figure="ttft", live=1.0, simulated=1.4, error=0.4, low=0.2, high=0.6, within=0.25)
    assert not one.beyond
    assert msgspec.structs.replace(one, low=0.26).beyond
    assert msgspec.structs.replace(one, error=-0.4, low=-0.6, high=-0.26).beyond
    assert not msgspec.structs.replace(one, error=-0.4, low=-0.6, high=-0.24).beyond


def seen_twice_as_late(observed: Observed, ids: set[str]) -> Backtest:
    """First content was seen of these alone, and in the twin it comes after twice the time."""
    asked = [one if one.request.id in ids else first_at(one, None) for one in observed.asked]
    before, after = parts(_asked(observed, asked), cut_s(observed))
    late = [first_at(one, 2.0 * (one.outcome.ttft_s or 0.0) or None).outcome for one in after.asked]
    return backtest(before, after, late)


def first_at(one: Asked, ttft_s: float | None) -> Asked:
    return msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, ttft_s=ttft_s))


@pytest.mark.lengthy
@pytest.mark.parametrize("count", [1, 3, JUDGED_MIN - 1])
def test_a_time_of_which_few_are_known_is_not_told(count: int) -> None:
    observed = Week(count=500).observed()
    found = seen_twice_as_late(observed, {one.request.id for one in observed.asked[-count:]})
    assert "ttft" not in {one.figure for one in found.off}
    assert "ttft" not in found.drifted


def test_a_time_that_is_known_in_one_stretch_alone_is_no_alarm() -> None:
    observed = Week(count=500).observed()
    _, after = parts(observed, cut_s(observed))
    blocks = blocks_of([one.request.arrived_s for one in after.asked])
    full = max(blocks, key=blocks.count)
    stretch = {one.request.id for one, block in zip(after.asked, blocks, strict=True) if block == full}
    found = seen_twice_as_late(observed, stretch)
    assert figure(found, "ttft").error == pytest.approx(1.0)
    assert "ttft" not in found.drifted
    # In all of them, it is one.
    assert "ttft" in seen_twice_as_late(observed, {one.request.id for one in observed.asked}).drifted


def test_where_nothing_was_paid_there_is_no_share_of_it() -> None:
    week = Week(count=500)
    observed = week.observed()
    free = [
        msgspec.structs.replace(one, outcome=msgspec.structs.replace(one.outcome, usd=0.0)) for one in observed.asked
    ]
    before, after = parts(_asked(observed, free), cut_s(observed))
    found = backtest(before, after, [one.outcome for one in after.asked])
    assert [one.figure for one in found.off] == ["kept", "away", "ttft", "e2e"]
    assert all(one.error == pytest.approx(0.0) for one in found.off)


def _asked(observed: Observed, asked: list[Asked]) -> Observed:
    return msgspec.structs.replace(observed, asked=asked)
