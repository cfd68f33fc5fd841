"""Runs that were at work at the same time are told from those that came one after the other."""

import pytest

from tests import make
from tidegate.core.model import JOURNAL_VERSION, Line, Probed, Segment, replace
from tidegate.core.overlap import Overlap

ROUTER = make.router(make.endpoint("cloud"))
FIRST = Segment(
    version=JOURNAL_VERSION,
    software="t",
    policy=ROUTER.policy,
    endpoints=ROUTER.endpoints,
    state=ROUTER.snapshot(),
)


def run(begins_s: float, *arrivals: float) -> list[Line]:
    """One run's header, and its requests."""
    asked = [Line(at_s=at_s, fact=make.request(f"{begins_s}-{at_s}", arrived_s=at_s)) for at_s in arrivals]
    return [Line(at_s=begins_s, fact=FIRST), *asked]


def overlapping(*runs: list[Line]) -> int:
    overlap = Overlap()
    for line in [line for one in runs for line in one]:
        overlap.feed(line)
    return overlap.runs


def test_runs_one_after_the_other_do_not_overlap() -> None:
    assert overlapping() == 0
    assert overlapping(run(0.0, 1.0, 50.0), run(60.0, 61.0), run(70.0)) == 0


def test_runs_that_took_requests_at_the_same_time_overlap_and_are_counted() -> None:
    assert overlapping(run(0.0, 1.0, 50.0), run(10.0, 11.0, 12.0)) == 2
    assert overlapping(run(0.0, 1.0, 50.0), run(10.0, 11.0, 12.0), run(20.0, 21.0), run(60.0, 61.0)) == 3


def test_a_process_that_served_nobody_overlaps_with_none() -> None:
    probe = Line(at_s=11.0, fact=Probed(endpoint="cloud", up=True))
    assert overlapping(run(0.0, 1.0, 50.0), [*run(10.0), probe]) == 0


def test_one_that_goes_down_beside_the_next_does_not_overlap_with_it() -> None:
    assert overlapping(run(0.0, 1.0, 50.0), run(49.0, 49.5, 60.0)) == 0


@pytest.mark.parametrize("follows", [False, True])
def test_a_segment_of_the_same_run_is_no_other_run(follows: bool) -> None:
    # A request whose body was long in coming was there before others that were decided before it.
    late = Line(at_s=50.0, fact=make.request("late", arrived_s=2.0))
    lines = [*run(0.0, 1.0, 40.0), Line(at_s=45.0, fact=replace(FIRST, follows=follows)), late]
    assert overlapping(lines) == 0
