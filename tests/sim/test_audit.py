"""An audit is within its bound, takes the gap apart without a rest, and recommends what is better."""

import pytest

from tests import make as core
from tests.sim.make import job
from tests.sim.week import Week
from tidegate.core.model import Policy
from tidegate.sim import audit as audited
from tidegate.sim.audit import Audit, audit, busiest
from tidegate.sim.observed import ObservedError
from tidegate.sim.twin import Twin


@pytest.fixture(scope="module")
def played() -> Audit:
    week = Week(count=30)
    return audit(week.twin(), week.observed().policy)


def test_nobody_exceeds_the_bound_and_the_best_is_what_was_reached(played: Audit) -> None:
    rows = [played.policy, *played.rules, *played.changes]
    assert all(one.value_per_1k <= played.reached.value_per_1k + 1e-9 for one in rows)
    assert played.reached.value_per_1k <= played.bound_per_1k + 1e-6
    assert 0.0 <= played.wide < 0.5
    assert list(played.rules) == sorted(played.rules, key=lambda one: -one.value_per_1k)


def test_the_parts_of_the_gap_add_up_to_it(played: Audit) -> None:
    gap = played.gap
    parts = gap.staleness + gap.prediction + gap.myopia + gap.slack
    assert parts == pytest.approx(played.bound_per_1k - played.policy.value_per_1k)


def test_the_policy_is_no_better_than_itself(played: Audit) -> None:
    better = played.policy.better
    assert (better.figure, better.low, better.high) == (0.0, 0.0, 0.0)


def test_what_is_recommended_is_better_beyond_chance(played: Audit) -> None:
    found = [one for one in played.changes if one.better.low > 0.0]
    assert played.recommended == (found[0].name if found else None)
    assert list(played.changes) == sorted(played.changes, key=lambda one: -one.value_per_1k)


def test_progress_goes_up_to_the_end() -> None:
    told: list[float] = []
    week = Week(count=8)
    audit(week.twin(), core.policy(), told.append)
    assert told == sorted(told)
    assert 0.9 < told[-1] <= 1.0


@pytest.mark.parametrize("keeps", ["own", "api"])
def test_where_there_is_one_endpoint_there_is_nothing_to_choose(keeps: str) -> None:
    made = Week(count=8).twin()
    (endpoint,) = (one for one in made.endpoints if one.name == keeps)
    alone = Twin(
        endpoints=(endpoint,),
        stands={keeps: made.stands[keeps]},
        jobs=made.jobs,
        faults=(),
        state=made.state,
        start_s=made.start_s,
        end_s=made.end_s,
        left=frozenset(),
    )
    with pytest.raises(ObservedError, match="nothing to choose"):
        audit(alone, Policy())


def test_the_busiest_stretch_is_where_requests_came_closest_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited, "REQUESTS_MAX", 3)
    times = (0.0, 10.0, 20.0, 21.0, 22.0, 40.0)
    jobs = [job(f"r{at_s:g}", arrived_s=at_s) for at_s in times]
    assert [one.request.arrived_s for one in busiest(jobs)] == [20.0, 21.0, 22.0]
    assert busiest(jobs[:2]) == jobs[:2]
