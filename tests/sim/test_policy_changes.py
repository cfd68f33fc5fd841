"""What is said of changes in mid-run: courses of two worlds in, figures out."""

import pytest
from bench.policy_changes import SPAN_S, Change, Course, found


def course(off_until_s: float, share: float, *, lasts_s: float = 200.0) -> Course:
    """One request a second, each worth two dollars; less by this share until then."""
    after_s = [float(second) for second in range(int(lasts_s))]
    changed = [2.0 * (1.0 - share) if at_s < off_until_s else 2.0 for at_s in after_s]
    return Course("azure-conv", Change.LINK_WORSE, after_s, changed, [2.0] * len(after_s))


def test_a_world_that_is_at_once_what_it_would_be_is_back_at_once() -> None:
    one = found([course(0.0, 0.5)])
    assert one.back_s == 0.0
    assert one.off == [0.0] * 9
    assert one.later == 0.0


def test_it_is_back_when_the_last_span_ends_in_which_it_was_worse() -> None:
    one = found([course(60.0, 0.5)])
    assert one.off[:4] == [-0.5, -0.5, -0.5, 0.0]
    assert one.back_s == 3 * SPAN_S
    assert one.later == 0.0


def test_what_is_off_by_less_than_a_twentieth_is_back_and_told_all_the_same() -> None:
    one = found([course(200.0, 0.04)])
    assert one.back_s == 0.0
    assert one.later == pytest.approx(-0.04)


def test_only_what_all_seeds_have_seen_counts() -> None:
    one = found([course(0.0, 0.0), course(200.0, 0.5, lasts_s=90.0)])
    assert len(one.off) == 4
    assert one.off[0] == pytest.approx(-0.25)
