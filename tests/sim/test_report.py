"""Figures, against what a hand computes."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make as core
from tidegate.core.model import Ended, Ending, Line, Slo, replace
from tidegate.core.why import Why
from tidegate.sim.outcome import Outcome
from tidegate.sim.report import Percentiles, Report, group, percentiles, report
from tidegate.sim.scenario import load
from tidegate.sim.stage import play
from tidegate.sim.tally import Level, Tally, bin_s

# One iteration takes a tenth of a second whatever is in it: the first token is there after one, five after five.
TINY = """
[world]
duration_s = 200
[world.endpoint.own]
engine = { slots = 1, kv_tokens = 4096, step = { base_s = 0.1, per_token_s = 0 } }
[site.home]
local = true
[endpoint.own]
site = "home"
engine = "vllm"
serves = ["m"]
context_tokens = 8192
concurrency = 1
running_cost = { usd_per_hour = 3600 }
[class.interactive]
slo = { ttft_ms = 300 }
worth_usd = 1
worth_usd_per_1k_tokens = 1
[[traffic]]
name = "t"
model = "m"
trace = "trace.csv"
format = "azure"
"""
TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2026-01-01 00:00:00.0000000,100,5
2026-01-01 00:00:00.0000000,100,5
2026-01-01 00:01:40.0000000,100,5
"""


def tiny(folder: Path, text: str = TINY) -> Report:
    (folder / "trace.csv").write_text(TRACE)
    (folder / "tiny.toml").write_text(text)
    scenario = load(folder / "tiny.toml")
    return report(scenario, "own", play(scenario))


def test_a_world_that_fits_on_a_hand(tmp_path: Path) -> None:
    found = tiny(tmp_path)
    whole, of_class = found.groups
    assert (found.scenario, found.policy, found.seed, found.elapsed_s) == ("tiny", "own", 0, 200.0)
    assert replace(whole, name="interactive") == of_class
    # The second waits half a second for the first, and has its first token at 0.6 s: too late for its 0.3 s.
    assert (whole.requests, whole.served, whole.kept, whole.refused, whole.failed) == (3, 3, 2, 0, 0)
    assert whole.attainment == pytest.approx(2 / 3)
    assert whole.kept_per_s == pytest.approx(2 / 200)
    assert whole.kept_tokens_per_s == pytest.approx(10 / 200)
    assert whole.held_share == pytest.approx(1 / 3)
    assert whole.ttft_s is not None
    assert (whole.ttft_s.count, whole.ttft_s.p50, whole.ttft_s.most) == pytest.approx((3, 0.1, 0.6))
    assert whole.tpot_s is not None
    assert whole.tpot_s.p99 == pytest.approx(0.1)
    assert whole.e2e_s is not None
    assert whole.e2e_s.mean == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert whole.held_s is not None
    assert (whole.held_s.count, whole.held_s.p50) == pytest.approx((1, 0.5))
    # A dollar for each second in its one place.
    assert whole.usd == pytest.approx(1.5)
    assert whole.usd_per_hour == pytest.approx(1.5 / 200 * 3600)
    assert whole.usd_per_1k_kept == pytest.approx(750.0)
    assert whole.worth_usd == pytest.approx(2 * (1 + 0.105))


def test_an_endpoint_and_a_timeline_that_fit_on_a_hand(tmp_path: Path) -> None:
    found = tiny(tmp_path)
    (own,) = found.endpoints
    assert (own.attempts, own.served, own.served_share, own.endings) == (3, 3, 1.0, {"ok": 3})
    assert own.in_flight_mean == own.slots_used == pytest.approx(1.5 / 200)
    assert own.in_flight_most == 1
    assert own.busy_share == pytest.approx(1.5 / 200)
    assert (own.prompt_tokens, own.output_tokens, own.usd) == pytest.approx((300, 15, 1.5))
    assert [b.at_s for b in found.timeline] == [0.0, 60.0, 120.0, 180.0]
    assert [b.arrivals for b in found.timeline] == [2, 1, 0, 0]
    assert [b.kept for b in found.timeline] == [1, 1, 0, 0]
    assert [b.usd for b in found.timeline] == pytest.approx([1.0, 0.5, 0.0, 0.0])
    assert [b.in_flight["own"] for b in found.timeline] == pytest.approx([1 / 60, 0.5 / 60, 0.0, 0.0])
    assert [b.held for b in found.timeline] == pytest.approx([0.5 / 60, 0.0, 0.0, 0.0])


def test_what_loads_cost_is_in_the_dollars_of_all_and_bounds_are_on_these(tmp_path: Path) -> None:
    tiny(tmp_path, TINY + "[bounds]\nusd_per_hour_max = 30\n")
    scenario = load(tmp_path / "tiny.toml")
    played = play(scenario)
    own_usd = played.usd["own"] + 0.5
    found = report(scenario, "own", msgspec.structs.replace(played, usd={"own": own_usd}, warm_ups_usd=0.5))
    whole, of_class = found.groups
    assert (whole.usd, of_class.usd) == pytest.approx((2.0, 1.5))
    assert whole.usd == pytest.approx(sum(one.usd for one in found.endpoints))
    # 27 of those for the requests alone.
    (mark,) = found.bounds
    assert mark.figure == pytest.approx(36.0)
    assert not mark.holds


def test_a_bound_holds_or_is_broken_and_what_there_is_none_of_holds_nothing(tmp_path: Path) -> None:
    bounds = """
[bounds]
attainment_min = 0.6
usd_per_hour_max = 1
ttft_s_p50_max = 0.2
[bounds.class.interactive]
attainment_min = 0.7
"""
    found = tiny(tmp_path, TINY + bounds)
    assert {mark.path: mark.holds for mark in found.bounds} == {
        "bounds.attainment_min": True,
        "bounds.usd_per_hour_max": False,
        "bounds.ttft_s_p50_max": True,
        "bounds.class.interactive.attainment_min": False,
    }
    assert not found.holds
    # A prompt of a hundred tokens takes longer than a request may; an idle engine refuses none, whatever its queue.
    slow = TINY.replace("per_token_s = 0 }", "per_token_s = 10 }")
    silent = tiny(tmp_path, slow + "[bounds]\nttft_s_p99_max = 9\n")
    assert silent.groups[0].served == 0
    assert [(mark.figure, mark.holds) for mark in silent.bounds] == [(None, False)]


def outcome(kind: str = "ok", **changes: object) -> Outcome:
    made = Outcome(
        request=core.request(slo=Slo(ttft_s=1.0, tpot_s=0.1, e2e_s=10.0)),
        outcome=kind,
        endpoint="own",
        why=Why.ONLY_ENDPOINT,
        attempts=1,
        held_s=0.0,
        ttft_s=1.0,
        e2e_s=2.0,
        predicted_s=None,
        measured_s=None,
        prompt_tokens=100,
        cached_tokens=0,
        output_tokens=11,
        usd=0.0,
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"ttft_s": 1.001}, False),
        ({"e2e_s": 2.001}, False),  # more than 0.1 s for each of ten tokens
        ({"e2e_s": 2.001, "output_tokens": 1}, True),
        ({"e2e_s": 10.001, "output_tokens": 1000}, False),
        ({"outcome": "failed_mid_stream"}, False),
        ({"outcome": "refused", "ttft_s": None}, False),
        ({"outcome": "refused", "ttft_s": None, "refused_for_ever": True}, False),
    ],
)
def test_a_promise_is_kept_where_each_of_its_axes_is(changes: dict[str, object], kept: bool) -> None:
    assert replace(outcome(), **changes).kept is kept


def test_every_request_counts_once_by_what_it_came_to() -> None:
    outcomes = [outcome(kind) for kind in ("ok", "refused", "failed", "failed_mid_stream", "timed_out")]
    found = group("all", outcomes, 10.0)
    assert (found.requests, found.served, found.refused, found.failed, found.timed_out) == (5, 1, 1, 2, 1)
    assert (found.refused_share, found.failed_share, found.attainment) == (0.2, 0.6, 0.2)


def test_nothing_is_a_share_of_nothing() -> None:
    found = group("all", [], 10.0)
    assert (found.attainment, found.refused_share, found.usd_per_1k_kept, found.ttft_s) == (0.0, 0.0, None, None)


def test_predictions_are_off_by_a_factor_either_way() -> None:
    pairs = [(1.0, 2.0), (1.0, 0.5), (1.0, 1.0), (None, 1.0), (1.0, None)]
    found = group("all", [outcome(predicted_s=p, measured_s=m) for p, m in pairs], 1.0).prediction
    assert found is not None
    assert (found.count, found.bias) == pytest.approx((3, 1.0))
    assert (found.error_p50, found.error_p90) == pytest.approx((2.0, 2.0))


def test_percentiles_are_values_that_there_were() -> None:
    assert percentiles([]) is None
    assert percentiles([None, 3.0]) == Percentiles(count=1, mean=3.0, p50=3.0, p90=3.0, p95=3.0, p99=3.0, most=3.0)
    found = percentiles(float(n) for n in range(1, 101))
    assert found == Percentiles(count=100, mean=50.5, p50=50.0, p90=90.0, p95=95.0, p99=99.0, most=100.0)
    twenty = percentiles(float(n) for n in range(1, 21))
    assert twenty is not None
    assert twenty.p95 == 19.0


@given(st.lists(st.floats(0.0, 1e6), min_size=1))
def test_as_many_do_not_exceed_a_percentile_as_it_says(values: list[float]) -> None:
    found = percentiles(values)
    assert found is not None
    for share, value in ((0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99)):
        assert sum(one <= value for one in values) >= share * len(values) - 1e-6
        assert sum(one < value for one in values) < share * len(values) + 1e-6


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.integers(-2, 3)), max_size=30))
def test_a_level_is_in_the_mean_of_its_bins_what_it_was_in_the_mean_of_all(changes: list[tuple[float, int]]) -> None:
    level, at_s, area, now = Level(100.0, 60.0), 100.0, 0.0, 0
    for wait_s, by in changes:
        area += now * wait_s
        at_s, now = at_s + wait_s, now + by
        level.change(by, at_s)
    ends_s = at_s + 7.0
    area += now * 7.0
    assert level.total_s(ends_s) == pytest.approx(area)
    means = level.means(ends_s)
    lengths = [60.0] * (len(means) - 1) + [ends_s - 100.0 - 60.0 * (len(means) - 1)]
    assert sum(m * s for m, s in zip(means, lengths, strict=True)) == pytest.approx(area)


def test_what_was_sent_and_ended_is_counted_where_it_was() -> None:
    tally, request = Tally(("own", "far"), 0.0, 60.0), core.request("r")
    for at_s, fact in (
        (1.0, request),
        (1.0, core.started(request, "own")),
        (3.0, replace(core.started(request, "far"), hedge=True)),
        (4.0, Ended(request_id="r", endpoint="own", ending=Ending.CANCELLED, e2e_s=3.0)),
        (5.0, Ended(request_id="r", endpoint="far", ending=Ending.OK, e2e_s=2.0, prompt_tokens=9, output_tokens=4)),
    ):
        tally.line(Line(at_s=at_s, fact=fact))
    own, far = tally.endpoints["own"], tally.endpoints["far"]
    assert (own.attempts, own.hedges, own.endings[Ending.CANCELLED], own.in_flight.total_s(60.0)) == (1, 0, 1, 3.0)
    assert (far.attempts, far.hedges, far.output_tokens, far.in_flight.total_s(60.0)) == (1, 1, 4, 2.0)


@pytest.mark.parametrize("again", [{"said_tokens": 5}, {"budget_usd": 0.5}, {"shipped": "own>far"}])
def test_a_request_that_is_asked_for_anew_has_arrived_once(again: dict[str, object]) -> None:
    tally, request = Tally(("own",), 0.0, 60.0), core.request("r")
    for at_s, fact in ((1.0, request), (2.0, replace(request, **again)), (61.0, core.request("s"))):
        tally.line(Line(at_s=at_s, fact=fact))
    assert tally.arrivals == [1, 1]


def test_a_long_run_has_bins_that_are_few_enough_to_see() -> None:
    assert bin_s(3600.0) == 60.0
    month_s = 31 * 86_400.0
    assert bin_s(month_s) % 60.0 == 0.0
    assert month_s / bin_s(month_s) <= 1440
