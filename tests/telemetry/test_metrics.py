"""What is counted is exposed, under the names on the reference page, within bounds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests import make
from tidegate.core.model import Ended, Ending, Handover, Headroom, Overrides, Probed, Shipped, Slo, replace
from tidegate.core.reserve import Reservation, unpredicted
from tidegate.core.why import Why
from tidegate.telemetry.counts import (
    LABELS_MAX,
    OTHER,
    RATIOS,
    SECONDS,
    SHORT_SECONDS,
    TPOT_SECONDS,
    Counters,
    Histogram,
)
from tidegate.telemetry.exposition import HttpCounts, MoneyCounts, exposition
from tidegate.telemetry.families import PREFIX, TABLE, reference
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.segments import JournalStatistics

PAGE = Path("docs/reference/metrics.md")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(metrics: Metrics) -> Samples:
    """Every sample of a scrape, by name and labels, without what is empty."""
    handover = Handover(target="laptop", kv_bytes_per_token=1000.0, bytes_per_s=1e6)
    router = make.router(make.endpoint("laptop"), make.endpoint("cloud", local=False, handovers=(handover,)))
    router.observe(Headroom(endpoint="cloud", requests_left=1, requests_max=100, tokens_left=10, tokens_max=1000), 0.0)
    router.observe(Probed(endpoint="laptop", up=True, rtt_s=0.01, running=3, queued=2, kv_tokens_max=4096), 1.0)
    text = exposition(
        metrics,
        now_s=0.0,
        endpoints=[router.endpoint("laptop"), router.endpoint("cloud")],
        handovers=router.handovers,
        held=3,
        in_flight=5,
        worth_factors={"interactive": 0.25},
        hedge_left_usd=0.5,
        hedge_price=2.0,
        distances_nats={"laptop": 0.01},
        shares={"alice-1": 0.75, "": 0.25},
        spans={"made": 3, "sent": 2, "lost": 1},
        overrides=Overrides(pinned=("cloud",), static=True),
        http=HttpCounts(connections=7, connections_refused=3, protocol_errors={431: 2}),
        money=MoneyCounts(left_usd={("day", ""): 2.5}, prices={("day", ""): 0.5}, overruns=1),
        journal=JournalStatistics(lines=10, lost=1, problems=4),
        spending_problem=True,
        log_dropped=5,
    )
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def sent() -> Reservation:
    """An attempt of which 0.2 s to first content were predicted and 0.4 at most, and 0.1 s a token."""
    made = unpredicted(make.started(make.request("r"), "laptop"), 0.0)
    made.ttft_s, made.ttft_s_high, made.e2e_s_high, made.was_cold = 0.2, 0.4, 2.0, True
    made.tpot.median_s, made.tpot.sigma = 0.1, 1.0
    return made


def used() -> Metrics:
    """Metrics in which everything was counted once."""
    metrics = Metrics()
    metrics.decided(Why.CHEAPEST_ON_TIME, 3e-5, refused=False)
    metrics.fell_back("overran")
    metrics.decided(Why.HOLD_FULL, 3e-5, refused=True)
    metrics.decided(Why.HOLD_FULL, 3e-5, refused=True, rest=True)
    metrics.breached()
    metrics.bad_request(404)
    metrics.ruled("long-prompts")
    metrics.broke_off("resumed")
    metrics.shipped(Shipped(request_id="r", endpoint="laptop", target="cloud", kv_bytes=1000), 0.5)
    metrics.hold_to(0.9)
    metrics.request_ended(make.request(klass="interactive"), "ok", "cloud", False, True, 0.3, 1.3, 11)
    metrics.request_ended(make.request(klass="batch", slo=Slo()), "refused", "", None, False, None, 1.2, None)
    metrics.compared(0.25, 0.0, 0.5)
    metrics.key_refused("alice-1", "rate_limit_exceeded")
    metrics.key_ended("alice-1", "ok", 111, 0.25)
    metrics.attempt_ended(
        Ended(
            request_id="r",
            endpoint="laptop",
            ending=Ending.OK,
            e2e_s=2.1,
            ttft_s=0.1,
            prompt_tokens=100,
            output_tokens=11,
        ),
        usd=0.25,
        sent=sent(),
        hedge=True,
    )
    metrics.attempt_ended(
        Ended(request_id="r", endpoint="laptop", ending=Ending.TIMED_OUT, e2e_s=9.0), 0.125, sent(), hedge=False
    )
    metrics.held_for(0.5)
    metrics.loop_lag(0.001)
    metrics.canary_read("laptop", "near")
    metrics.spent_besides("cloud", 0.001)
    metrics.warmed("laptop", "served")
    metrics.crashed()
    metrics.reloaded("applied")
    metrics.simulated({"ttft": (-0.4, True)})
    return metrics


def test_what_was_counted_of_an_endpoint_that_is_gone_is_forgotten_and_the_rest_is_not() -> None:
    metrics = used()
    before = scraped(metrics)
    metrics.forget(frozenset({"laptop", "cloud"}))
    assert scraped(metrics) == before
    metrics.forget(frozenset({"cloud"}))
    after = scraped(metrics)
    gone = before.keys() - after.keys()
    assert gone
    assert all(("endpoint", "laptop") in labels for _, labels in gone)
    assert after[PREFIX + "requests_total", (("class", "interactive"), ("outcome", "ok"), ("tier", "remote"))] == 1


def test_kv_caches_sent_to_a_target_that_is_gone_are_forgotten_and_counted_no_more_until_it_is_back() -> None:
    metrics, fact = Metrics(), Shipped(request_id="r", endpoint="rack", target="laptop", kv_bytes=1000)
    metrics.shipped(fact, 0.5)
    metrics.shipped(replace(fact, target="desktop"), 0.5)
    metrics.forget(frozenset({"rack", "desktop"}))
    metrics.shipped(fact, 0.5)
    assert targets(metrics) == {"desktop"}
    metrics.forget(frozenset({"rack", "desktop", "laptop"}))
    metrics.shipped(fact, 0.5)
    assert targets(metrics) == {"desktop", "laptop"}


def targets(metrics: Metrics) -> set[str]:
    """Those that KV caches from the rack are counted for, by number and by bytes."""
    counted = [(name, dict(labels)) for name, labels in scraped(metrics)]
    by_number, by_bytes = (
        {of["target"] for name, of in counted if name == PREFIX + counter and of["endpoint"] == "rack"}
        for counter in ("kv_shipped_total", "kv_shipped_bytes_total")
    )
    assert by_number == by_bytes
    return by_number


def test_what_ends_at_an_endpoint_that_is_gone_is_counted_where_no_endpoint_is_named_until_it_is_back() -> None:
    metrics, spent = used(), (PREFIX + "spent_usd_total", ())
    answered = (PREFIX + "requests_total", (("class", "interactive"), ("outcome", "ok"), ("tier", "local")))
    metrics.forget(frozenset({"cloud"}))
    before = scraped(metrics)
    at_laptop(metrics)
    after = scraped(metrics)
    assert after[spent] == pytest.approx(before[spent] + 0.255)
    assert after[answered] == 1
    assert not any(("endpoint", "laptop") in labels for _, labels in after.keys() - before.keys())
    metrics.forget(frozenset({"cloud", "laptop"}))
    at_laptop(metrics)
    again = scraped(metrics)
    for name in ("answers", "attempts", "cold_starts", "cost_usd", "hedge_cost_usd", "hedges", "kv_shipped", "tokens"):
        assert {PREFIX + name + "_total"} & {of for of, labels in again if ("endpoint", "laptop") in labels}, name


def at_laptop(metrics: Metrics) -> None:
    """A request that had its answer there, with all that comes with one."""
    made = sent()
    ended = Ended(
        request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=2.1, ttft_s=0.1, prompt_tokens=100, output_tokens=11
    )
    metrics.attempt_ended(ended, usd=0.25, sent=made, hedge=True)
    metrics.spent_besides("laptop", 0.005)
    metrics.shipped(Shipped(request_id="r", endpoint="laptop", target="cloud", kv_bytes=1000), 0.5)
    metrics.request_ended(make.request(klass="interactive"), "ok", "laptop", True, True, 0.3, 1.3, 11)


def test_the_page_is_what_the_table_says() -> None:
    command = 'python -c "from tidegate.telemetry.families import reference; print(reference(), end=str())"'
    assert PAGE.read_text() == reference(), f"run: {command} > {PAGE}"


def test_every_metric_of_the_table_is_exposed_and_no_other() -> None:
    suffixes = ("_bucket", "_sum", "_count", "_total", "_created")
    names = set()
    for name, _ in scraped(used()):
        base = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        names.add(base.removeprefix(PREFIX))
    assert names == {spec.name for spec in TABLE}


def test_what_was_counted_is_exposed() -> None:
    found = scraped(used())
    for name, labels, value in [
        ("requests_total", {"class": "interactive", "tier": "remote", "outcome": "ok"}, 1),
        ("requests_total", {"class": "batch", "tier": "none", "outcome": "refused"}, 1),
        ("answers_total", {"endpoint": "cloud", "tier": "remote", "class": "interactive"}, 1),
        ("residency_total", {"allowed": "anywhere", "tier": "remote"}, 1),
        ("residency_breaches_total", {}, 1),
        ("promises_total", {"class": "interactive", "tier": "remote", "outcome": "kept"}, 1),
        ("tpot_seconds_sum", {"class": "interactive"}, 0.1),
        ("compared_usd_total", {}, 0.25),
        ("baseline_usd_total", {"baseline": "all-local"}, 0.0),
        ("baseline_usd_total", {"baseline": "all-remote"}, 0.5),
        ("covered_total", {"endpoint": "laptop", "tier": "local", "axis": "ttft", "outcome": "within"}, 1),
        ("covered_total", {"endpoint": "laptop", "tier": "local", "axis": "ttft", "outcome": "beyond"}, 1),
        ("covered_total", {"endpoint": "laptop", "tier": "local", "axis": "e2e", "outcome": "beyond"}, 1),
        ("covered_total", {"endpoint": "laptop", "tier": "local", "axis": "tpot", "outcome": "within"}, 1),
        ("promise_quantile", {}, 0.9),
        ("wasted_usd_total", {"endpoint": "laptop", "tier": "local"}, 0.125),
        ("cold_starts_total", {"endpoint": "laptop", "tier": "local"}, 2),
        ("places", {"endpoint": "laptop"}, 2),
        ("concurrency", {"endpoint": "cloud"}, 64),
        ("allowance_left", {"endpoint": "cloud", "of": "requests"}, 1),
        ("handover_bytes_per_second", {"endpoint": "cloud", "target": "laptop"}, 1e6),
        ("hedge_price", {}, 2.0),
        ("requests_in_flight", {}, 5),
        ("decisions_total", {"why": "cheapest_on_time"}, 1),
        ("refusals_total", {"why": "hold_full"}, 1),
        ("attempts_total", {"endpoint": "laptop", "tier": "local", "ending": "ok"}, 1),
        ("hedges_total", {"endpoint": "laptop", "tier": "local", "ending": "ok"}, 1),
        ("tokens_total", {"endpoint": "laptop", "tier": "local", "direction": "input"}, 100),
        ("tokens_total", {"endpoint": "laptop", "tier": "local", "direction": "output"}, 11),
        ("key_requests_total", {"key": "alice-1", "outcome": "ok"}, 1),
        ("key_refusals_total", {"key": "alice-1", "code": "rate_limit_exceeded"}, 1),
        ("key_tokens_total", {"key": "alice-1"}, 111),
        ("key_cost_usd_total", {"key": "alice-1"}, 0.25),
        ("cost_usd_total", {"endpoint": "laptop", "tier": "local"}, 0.375),
        ("ttft_actual_to_predicted_sum", {"endpoint": "laptop", "tier": "local"}, 0.5),
        ("tpot_actual_to_predicted_sum", {"endpoint": "laptop", "tier": "local"}, 2.0),
        ("attempt_tpot_seconds_sum", {"endpoint": "laptop", "tier": "local"}, 0.2),
        ("attempt_ttft_seconds_bucket", {"endpoint": "laptop", "tier": "local", "le": "0.1"}, 1),
        ("attempt_ttft_seconds_bucket", {"endpoint": "laptop", "tier": "local", "le": "0.05"}, 0),
        ("held", {}, 3),
        ("simulator_error", {"figure": "ttft"}, -0.4),
        ("simulator_drifted", {"figure": "ttft"}, 1),
        ("key_engine_share", {"key": "alice-1"}, 0.75),
        ("up", {"endpoint": "laptop"}, 1),
        ("http_connections", {}, 7),
        ("http_connections_refused_total", {}, 3),
        ("http_protocol_errors_total", {"status": "431"}, 2),
        ("canary_readings_total", {"endpoint": "laptop", "outcome": "near"}, 1),
        ("warm_ups_total", {"endpoint": "laptop", "outcome": "served"}, 1),
        ("broken_off_total", {"outcome": "resumed"}, 1),
        ("kv_shipped_total", {"endpoint": "laptop", "target": "cloud", "outcome": "ok"}, 1),
        ("kv_shipped_bytes_total", {"endpoint": "laptop", "target": "cloud"}, 1000),
        ("kv_ship_seconds_sum", {"endpoint": "laptop"}, 0.5),
        ("canary_distance_nats", {"endpoint": "laptop"}, 0.01),
        ("cost_usd_total", {"endpoint": "cloud", "tier": "remote"}, 0.001),
        ("ledger_overruns_total", {}, 1),
        ("held_seconds_sum", {}, 0.5),
        ("decision_seconds_sum", {}, 9e-5),
        ("decision_seconds_count", {}, 3),
        ("rtt_seconds", {"endpoint": "laptop"}, 0.01),
        ("others_running", {"endpoint": "laptop"}, 3),
        ("others_queued", {"endpoint": "laptop"}, 2),
        ("journal_lines_total", {}, 10),
        ("journal_lost_total", {}, 1),
        ("journal_problems_total", {}, 4),
        ("log_dropped_total", {}, 5),
        ("spending_problem", {}, 1),
        ("config_refused", {}, 0),
    ]:
        assert found[PREFIX + name, tuple(sorted(labels.items()))] == pytest.approx(value), name


def test_where_there_is_a_part_of_a_share_there_is_the_other_so_that_none_of_all_is_a_share_too() -> None:
    metrics = Metrics()
    metrics.request_ended(make.request(klass="interactive"), "ok", "laptop", True, False, 3.0, 4.0, 11)
    slow = Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=9.0, ttft_s=3.0, output_tokens=11)
    metrics.attempt_ended(slow, usd=0.0, sent=sent(), hedge=False)
    found = scraped(metrics)
    for name, labels in [
        ("promises_total", {"class": "interactive", "tier": "local", "outcome": "kept"}),
        ("covered_total", {"endpoint": "laptop", "tier": "local", "axis": "ttft", "outcome": "within"}),
        ("covered_total", {"endpoint": "laptop", "tier": "local", "axis": "e2e", "outcome": "within"}),
        ("requests_total", {"class": "interactive", "tier": "remote", "outcome": "ok"}),
        ("tokens_total", {"endpoint": "cloud", "tier": "remote", "direction": "output"}),
    ]:
        assert found[PREFIX + name, tuple(sorted(labels.items()))] == 0.0, name
    # Where nothing was promised there is no share.
    assert not any(name == PREFIX + "promises_total" and ("tier", "none") in labels for name, labels in found)


def test_a_configuration_is_refused_until_one_is_not() -> None:
    metrics, seen = Metrics(), []
    for outcome in ("applied", "refused", "refused", "unchanged"):
        metrics.reloaded(outcome)
        seen.append(scraped(metrics)[PREFIX + "config_refused", ()])
    assert seen == [0, 1, 1, 0]


def test_an_answer_in_one_piece_is_judged_by_all_of_its_time_and_a_mistake_of_the_client_by_none() -> None:
    metrics, whole = Metrics(), unpredicted(make.started(make.request("r"), "laptop"), 0.0)
    whole.stream, whole.ttft_s_high, whole.e2e_s_high = False, 0.4, 2.0
    done = Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=1.5, output_tokens=11)
    metrics.attempt_ended(done, usd=0.0, sent=whole, hedge=False)
    metrics.attempt_ended(replace(done, e2e_s=2.5), usd=0.0, sent=whole, hedge=False)
    metrics.attempt_ended(replace(done, cause="client_error"), usd=0.0, sent=whole, hedge=False)
    # Its first content may have been there in time.
    metrics.attempt_ended(replace(done, ending=Ending.CANCELLED), usd=0.0, sent=whole, hedge=False)
    covered = {dict(labels)["outcome"]: n for (name, labels), n in scraped(metrics).items() if "covered" in name}
    assert covered == {"within": 1, "beyond": 1}


def test_what_a_request_may_take_and_what_stops_the_loop_for_a_while_is_within_bounds() -> None:
    assert max(SECONDS) >= 3600.0
    assert 600.0 in SECONDS
    assert max(SHORT_SECONDS) >= 5.0


def test_an_attempt_without_content_has_no_time_to_it() -> None:
    metrics = Metrics()
    ended = Ended(request_id="r", endpoint="laptop", ending=Ending.TIMED_OUT, e2e_s=9.0)
    metrics.attempt_ended(ended, usd=0.0, sent=None, hedge=False)
    assert not any("ttft" in name or "tpot" in name for name, _ in scraped(metrics))


@pytest.mark.parametrize("tpot_s", [0.008, 0.025, 0.04, 0.12, 0.4, 1.5])
def test_a_time_per_token_is_told_within_a_factor_of_two(tpot_s: float) -> None:
    histogram = Histogram(TPOT_SECONDS)
    histogram.add(tpot_s)
    above = next(float(bound) for bound, count in histogram.buckets() if count)
    below = max(bound for bound in TPOT_SECONDS if bound < tpot_s)
    assert above <= 2.0 * below


def test_the_time_per_token_of_attempts_is_that_of_whole_answers_and_of_one_completion_each() -> None:
    metrics = Metrics()
    broken = Ended(request_id="r", endpoint="laptop", ending=Ending.TIMED_OUT, e2e_s=30.1, ttft_s=0.1, output_tokens=11)
    metrics.attempt_ended(broken, usd=0.0, sent=sent(), hedge=False)
    short = Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=0.9, ttft_s=0.1, output_tokens=2)
    metrics.attempt_ended(short, usd=0.0, sent=sent(), hedge=False)
    assert not any("attempt_tpot" in name for name, _ in scraped(metrics))
    three = unpredicted(make.started(make.request("r", completions=3), "laptop"), 0.0)
    whole = Ended(request_id="r", endpoint="laptop", ending=Ending.OK, e2e_s=1.1, ttft_s=0.1, output_tokens=33)
    metrics.attempt_ended(whole, usd=0.0, sent=three, hedge=False)
    labels = (("endpoint", "laptop"), ("tier", "local"))
    assert scraped(metrics)[PREFIX + "attempt_tpot_seconds_sum", labels] == pytest.approx(0.1)


def test_who_left_before_the_predicted_bound_is_neither_within_nor_beyond() -> None:
    metrics = Metrics()
    ended = Ended(request_id="r", endpoint="laptop", ending=Ending.CANCELLED, e2e_s=0.3)
    metrics.attempt_ended(ended, usd=0.0, sent=sent(), hedge=False)
    assert not any("covered" in name for name, _ in scraped(metrics))


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=50))
def test_a_histogram_counts_each_value_once_and_in_every_bucket_above_it(values: list[float]) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.add(value)
    for bound, count in histogram.buckets():
        assert count == sum(value <= float(bound) for value in values)
    assert histogram.sum == pytest.approx(sum(values))


def test_what_is_no_number_does_not_spoil_a_histogram() -> None:
    histogram = Histogram(SECONDS)
    for value in (float("nan"), float("inf"), -1.0):
        histogram.add(value)
    assert histogram.sum == 0.0
    assert histogram.buckets()[-1] == ("+Inf", 0.0)


def test_bounds_rise() -> None:
    for bounds in (SECONDS, SHORT_SECONDS, TPOT_SECONDS, RATIOS):
        assert list(bounds) == sorted(set(bounds))


def test_labels_are_bounded() -> None:
    counters, metrics = Counters(), Metrics()
    for number in range(LABELS_MAX + 50):
        counters.add((f"c{number}", "ok"))
        metrics.spent_besides(f"c{number}", 1.0)
    assert len(counters.by_labels) == LABELS_MAX + 1
    assert counters.by_labels[OTHER, OTHER] == 50
    assert len(metrics.endpoints) == LABELS_MAX + 1
    assert metrics.endpoints[OTHER].cost_usd == 50.0


def test_names_are_as_prometheus_wants_them() -> None:
    for spec in TABLE:
        assert not spec.name.endswith(("_total", "_ms", "_us")), spec.name
        assert spec.help.endswith("."), spec.name
