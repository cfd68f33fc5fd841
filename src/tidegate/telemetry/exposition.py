"""What is counted, in Prometheus' text format: made when somebody asks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate import __version__
from tidegate.core.endpoint import EndpointModel
from tidegate.core.handover import HandoverModel
from tidegate.core.model import ANYWHERE, LOCAL, Ending, Overrides, Record
from tidegate.telemetry.counts import OTHER, Histogram
from tidegate.telemetry.families import PREFIX, TABLE, Spec
from tidegate.telemetry.metrics import AXES, TIERS, Metrics, OfClass, OfEndpoint
from tidegate.telemetry.segments import JournalStatistics

# Counted from nothing on, so that the first one is seen as more than before.
_FROM_NOTHING: Final[tuple[str, ...]] = (
    "handler_errors",
    "journal_lines",
    "journal_lost",
    "journal_problems",
    "ledger_overruns",
    "residency_breaches",
)


class HttpCounts(Record, frozen=True, kw_only=True):
    """What the client address counts."""

    connections: int
    connections_refused: int
    protocol_errors: dict[int, int]


class MoneyCounts(Record, frozen=True, kw_only=True):
    """What the ledger counts: dollars left and their prices by period and key, and bills above their bound since the
    start: its own number goes by the days that it keeps, and as a counter would leap and fall at a start."""

    left_usd: dict[tuple[str, ...], float]
    prices: dict[tuple[str, ...], float]
    overruns: int


def exposition(
    metrics: Metrics,
    *,
    now_s: float,
    endpoints: Iterable[EndpointModel],
    handovers: Iterable[HandoverModel],
    held: int,
    in_flight: int,
    worth_factors: Mapping[str, float],
    shares: Mapping[str, float],
    hedge_left_usd: float,
    hedge_price: float,
    distances_nats: Mapping[str, float],
    overrides: Overrides,
    spans: Mapping[str, int],
    http: HttpCounts,
    journal: JournalStatistics | None,
    money: MoneyCounts | None,
    spending_problem: bool,
    log_dropped: int,
) -> bytes:
    """All of it in Prometheus' text format. `worth_factors` by class, of those with a target; `shares` by key;
    `distances_nats` of canaries' last readings by endpoint, where they were compared."""
    counts = _counts(metrics)
    gauges: dict[str, dict[tuple[str, ...], float]] = {
        "held": {(): float(held)},
        "requests_in_flight": {(): float(in_flight)},
        "promise_quantile": {(): metrics.quantile},
        "build_info": {(__version__,): 1.0},
        "class_worth_factor": {(klass,): factor for klass, factor in worth_factors.items()},
        "key_engine_share": {(key,): share for key, share in shares.items()},
        "static_rule": {(): float(overrides.static)},
        "config_refused": {(): float(metrics.config_refused)},
        "spending_problem": {(): float(spending_problem)},
        "http_connections": {(): float(http.connections)},
        "canary_distance_nats": {(name,): nats for name, nats in distances_nats.items()},
        "simulator_error": {labels: error for labels, (error, _) in metrics.simulator.items()},
        "simulator_drifted": {labels: float(drifted) for labels, (_, drifted) in metrics.simulator.items()},
    }
    tiers = {OTHER: OTHER}
    for model in endpoints:
        state = model.state
        tiers[model.name] = TIERS[model.endpoint.local]
        failing = model.health.failing(now_s)
        for direction in ("input", "output"):
            # Also of who has had none: shares of what is offloaded begin at 0.
            counts["tokens"].setdefault((model.name, direction), 0.0)
        for name, value in (
            ("in_flight", len(state.reservations)),
            ("places", model.places),
            ("concurrency", model.endpoint.concurrency),
            ("failing_share", failing.failed + failing.broken),
            ("cold_share", model.cold.at(now_s, len(state.reservations)).share),
            ("load_seconds", model.cold.load_s_mean(now_s)),
            ("up", state.up),
            ("breaker_open", state.breaker.openings > 0),
            ("another_model", bool(model.identity.doubts)),
            ("drifted", state.drifted),
            ("rtt_seconds", model.network.rtt_s),
            ("upload_bytes_per_second", model.network.upload_bytes_per_s),
            ("drained", model.drained),
            ("pinned", model.name in overrides.pinned),
        ):
            gauges.setdefault(name, {})[(model.name,)] = float(value)
        if (spare := model.memory.spare(now_s)) is not None:
            gauges.setdefault("kv_tokens_max", {})[(model.name,)] = float(spare.tokens_max)
            gauges.setdefault("kv_tokens_free", {})[(model.name,)] = float(max(0, spare.free_tokens))
        for of, one in (("requests", state.allowances.requests), ("tokens", state.allowances.tokens)):
            if one is not None:
                gauges.setdefault("allowance_left", {})[(model.name, of)] = one.at(now_s)
        if model.others.told:
            told = *model.others.newest, model.others.trust
            for name, number in zip(("others_running", "others_queued", "report_trust"), told, strict=True):
                gauges.setdefault(name, {})[(model.name,)] = number
    for handover in handovers:
        ends = (handover.source.name, handover.target.name)
        for name, value in (
            ("handover_bytes_per_second", handover.network.upload_bytes_per_s),
            ("handover_under_way", len(handover.state.under_way)),
            ("handover_breaker_open", handover.state.breaker.openings > 0),
        ):
            gauges.setdefault(name, {})[ends] = float(value)
    gauges["hedge_left_usd"], gauges["hedge_price"] = {(): hedge_left_usd}, {(): hedge_price}
    counts["log_dropped"] = {(): float(log_dropped)}
    counts["trace_spans"] = {(outcome,): float(number) for outcome, number in spans.items()}
    counts["http_connections_refused"] = {(): float(http.connections_refused)}
    counts["http_protocol_errors"] = {(str(s),): float(n) for s, n in http.protocol_errors.items()}
    if journal is not None:
        counts["journal_lines"], counts["journal_lost"] = {(): journal.lines}, {(): journal.lost}
        counts["journal_problems"] = {(): journal.problems}
    if money is not None:
        gauges["budget_left_usd"], gauges["budget_price"] = dict(money.left_usd), dict(money.prices)
        counts["ledger_overruns"] = {(): float(money.overruns)}
    registry = CollectorRegistry()
    registry.register(_Scrape(_families(metrics, counts, gauges, tiers)))
    return generate_latest(registry)


def _counts(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """All counters that are kept here, by name and labels; what is nothing yet is left out, unless it is a part of
    something: a share of what is absent would be none, and not 0."""
    counts: dict[str, dict[tuple[str, ...], float]] = {n: dict(c.by_labels) for n, c in metrics.counters.items()}
    for name, one in metrics.endpoints.items():
        endings = one.endings | {Ending.OK.value: one.ok}
        counts["attempts"].update({(name, ending): float(number) for ending, number in endings.items() if number})
        for metric, labels, number in (
            ("tokens", ("input",), one.input_tokens),
            ("tokens", ("output",), one.output_tokens),
            ("cost_usd", (), one.cost_usd),
            ("wasted_usd", (), one.wasted_usd),
        ):
            if number:
                counts[metric][name, *labels] = float(number)
        for axis, within, beyond in zip(AXES, one.within, one.beyond, strict=True):
            if within or beyond:
                counts["covered"][name, axis, "within"] = float(within)
                counts["covered"][name, axis, "beyond"] = float(beyond)
    for klass, of in metrics.classes.items():
        counts["answers"].update({(name, klass): float(number) for name, number in of.answers.items()})
        for tier, those in of.tiers:
            ended = those.ended | {"ok": those.ok}
            counts["requests"].update({(klass, tier, how): float(number) for how, number in ended.items() if number})
            if tier != TIERS[None]:
                counts["requests"].setdefault((klass, tier, "ok"), 0.0)
            if those.kept or those.missed:
                counts["promises"][klass, tier, "kept"] = float(those.kept)
                counts["promises"][klass, tier, "missed"] = float(those.missed)
            for allowed, asked in ((ANYWHERE, those.anywhere), (LOCAL, those.local), ("sites", those.sites)):
                if asked:
                    counts["residency"][allowed, tier] = counts["residency"].get((allowed, tier), 0.0) + asked
    counts["decisions"] = {(why,): float(number) for why, number in metrics.decisions.items()}
    for key, found in metrics.keys.items():
        counts["key_requests"].update({(key, outcome): float(number) for outcome, number in found.ended.items()})
        counts["key_tokens"][key,], counts["key_cost_usd"][key,] = float(found.tokens), found.usd
    for name in _FROM_NOTHING:
        counts[name].setdefault((), 0.0)
    counts["spent_usd"] = {(): metrics.spent_usd}
    counts["compared_usd"] = {(): metrics.compared_usd}
    counts["baseline_usd"] = {("all-local",): metrics.all_local_usd, ("all-remote",): metrics.all_remote_usd}
    return counts


def _families(
    metrics: Metrics,
    counts: dict[str, dict[tuple[str, ...], float]],
    gauges: dict[str, dict[tuple[str, ...], float]],
    tiers: dict[str, str],
) -> list[Metric]:
    families: list[Metric] = []
    for spec in TABLE:
        name, labels = PREFIX + spec.name, list(spec.labels)
        if spec.type == "histogram":
            family = HistogramMetricFamily(name, spec.help, labels=labels)
            for label, histogram in _histograms_of(metrics, spec.name):
                family.add_metric(_with_tier(spec, label, tiers), histogram.buckets(), histogram.sum)
            families.append(family)
            continue
        made = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
        plain = made(name, spec.help, labels=labels)
        for values, number in sorted((counts if spec.type == "counter" else gauges).get(spec.name, {}).items()):
            plain.add_metric(_with_tier(spec, list(values), tiers), number)
        families.append(plain)
    return families


def _histograms_of(metrics: Metrics, name: str) -> Iterator[tuple[list[str], Histogram]]:
    if name in metrics.single:
        yield [], metrics.single[name]
        return
    if name in _BY_CLASS:
        found = {klass: _BY_CLASS[name](of) for klass, of in metrics.classes.items()}
    else:
        found = {endpoint: _BY_ENDPOINT[name](one) for endpoint, one in metrics.endpoints.items()}
    for label, histogram in sorted(found.items()):
        if any(histogram.counts):
            yield [label], histogram


_BY_CLASS: Final[dict[str, Callable[[OfClass], Histogram]]] = {
    "ttft_seconds": lambda of: of.ttft,
    "tpot_seconds": lambda of: of.tpot,
    "e2e_seconds": lambda of: of.e2e,
}
_BY_ENDPOINT: Final[dict[str, Callable[[OfEndpoint], Histogram]]] = {
    "attempt_ttft_seconds": lambda of: of.ttft,
    "attempt_tpot_seconds": lambda of: of.tpot,
    "ttft_actual_to_predicted": lambda of: of.ttft_ratio,
    "tpot_actual_to_predicted": lambda of: of.tpot_ratio,
    "kv_ship_seconds": lambda of: of.kv_ship,
}


def _with_tier(spec: Spec, labels: list[str], tiers: Mapping[str, str]) -> list[str]:
    """Where an endpoint is follows from its name: it is not counted by, and put in at a scrape."""
    if spec.labels[:2] != ("endpoint", "tier"):
        return labels
    return [labels[0], tiers.get(labels[0], TIERS[None]), *labels[1:]]


class _Scrape(Collector):
    """Families that are made already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
