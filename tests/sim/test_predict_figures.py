"""The figures that predictions are judged by say what they are called."""

from random import Random

from bench.predict_figures import (
    best_pinball,
    bias,
    buckets,
    covered,
    errors,
    inside,
    noise_floor,
    pinball,
    recovery,
    whole,
)
from bench.predict_tap import FEATURES, Predicted, Row

from tidegate.core.model import Slo
from tidegate.sim.api import Spread

DRAWN = Slo(ttft_s=1.5, tpot_s=0.2, e2e_s=2.2)


def row(number: int, ttft_s: float | None, predicted_s: float = 1.0, high_s: float = 2.0) -> Row:
    return Row(
        request_id=f"r{number}",
        sent_s=float(number),
        features=(100.0,) + (0.0,) * (len(FEATURES) - 1),
        predicted=Predicted(
            predicted_s, high_s, 0.1, predicted_s, 0.1, 11.0, 3.0, Slo(ttft_s=1.5, tpot_s=0.2, e2e_s=2.2), 0.95
        ),
        ended_s=number + 1.0,
        ttft_s=ttft_s,
        e2e_s=(ttft_s or 0.0) + 1.0,
        output_tokens=11,
        tpot_s=0.1,
    )


def test_an_error_is_relative_to_what_was_measured() -> None:
    rows = [row(number, 2.0) for number in range(100)]
    found = errors(rows, [None] * 20 + [1.5] * 80, lambda one: one.ttft_s, lambda one: one.predicted.ttft_s)
    assert found is not None
    assert (found.rows, found.ours, found.reference, found.ratio) == (80, 0.5, 0.25, 2.0)


def test_the_interval_of_a_coverage_widens_with_fewer_rows() -> None:
    assert inside(95, 100, 0.95)
    assert inside(58, 60, 0.95)
    assert inside(90, 100, 0.95)
    assert not inside(900, 1000, 0.95)
    assert not inside(1000, 1000, 0.95)
    # 60 of 60 happen in one case of 22: no reason to doubt.
    assert inside(60, 60, 0.95)


def test_what_was_given_up_late_was_not_covered_and_what_was_given_up_early_tells_nothing() -> None:
    late, early = row(0, None), row(1, None)
    late.given_up_s, early.given_up_s = 2.5, 1.5
    assert covered(late) is False
    assert covered(early) is None
    assert covered(row(2, 1.9))


def test_no_constant_multiple_has_a_smaller_loss_than_the_best() -> None:
    draw = Random(1)
    rows = [row(n, draw.lognormvariate(0.0, 0.5), predicted_s=draw.uniform(0.5, 2.0)) for n in range(200)]
    best = best_pinball(rows, 0.95)
    for factor in (0.5, 0.9, 1.5, 2.0, 2.5, 3.0, 5.0):
        loss = sum(pinball(one.ttft_s or 0.0, factor * one.predicted.ttft_s, 0.95) for one in rows)
        assert loss >= best - 1e-9


def test_a_bucket_needs_enough_rows_after_the_warm_up() -> None:
    assert buckets([row(number, 1.0) for number in range(250)], 0.95) == []
    assert [one.rows for one in buckets([row(number, 1.0) for number in range(260)], 0.95)] == [60]


def test_a_recovery_counts_from_the_change_and_has_to_last() -> None:
    good, bad = 1.0, 3.0
    before = [row(number, good) for number in range(300)]
    change_s = 299.5

    def after(*values: float) -> int | None:
        return recovery([*before, *(row(300 + n, value) for n, value in enumerate(values))], change_s).after

    assert after(*[good] * 40) == 0
    # Of the last ten at least six have to be good.
    assert after(*[bad] * 20, *[good] * 40) == 26
    assert after(*[bad] * 20, *[good] * 8, *[bad] * 8, *[good] * 40) == 20 + 8 + 8 + 6
    assert after(*[bad] * 60) is None
    assert recovery(before + [row(300, good)], change_s).before == 1.0


def test_bias_is_of_sums() -> None:
    found = bias([row(number, 1.0) for number in range(300)])
    assert found is not None
    # 1 s to the first token and 10 more of 0.1 s, as predicted; 11 were expected.
    assert abs(found.occupancy - 1.0) < 1e-9
    assert abs(found.occupancy_by_length - 1.05) < 1e-9
    assert found.ttft == 1.0


def test_who_knows_the_median_of_a_spread_is_still_off_by_it() -> None:
    assert noise_floor(Spread()) == 0.0
    assert 0.06 < noise_floor(Spread(sigma=0.1)) < 0.075


def test_drawn_promises_are_kept_or_not_as_wholes() -> None:
    # The first 200 are a warm-up. Of the rest every fifth is late, at the end or already at the beginning.
    seconds = [2.5, 1.0, 1.1, 1.0, 1.1, 1.3, 1.0, 1.1, 1.0, 1.1]
    found = whole([row(number, seconds[number % 10]) for number in range(1200)])
    assert found is not None
    assert found.rows == 1000
    assert found.e2e_covered == 0.9
    assert round(found.attainment_off, 9) == 0.15
