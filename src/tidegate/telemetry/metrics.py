"""What is counted: plain integers on the request's path, Prometheus only when somebody asks.

`TABLE` names every metric; the reference page is made from it.
"""

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from math import inf

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate.core.estimator import EndpointModel
from tidegate.core.model import Ended, Overrides, Record, Shipped
from tidegate.core.why import Why
from tidegate.telemetry.segments import JournalStatistics

# Classes are configured and sizes are three, but a bound that is not enforced is none: beyond it, `other`.
LABELS_MAX = 1000
OTHER = "other"


class Spec(Record, frozen=True, kw_only=True):
    """One metric: its name without prefix, its type, its labels, and what it means."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()


TABLE: tuple[Spec, ...] = (
    Spec(name="requests", type="counter", labels=("class", "outcome"), help="Requests that ended, by how."),
    Spec(name="bad_requests", type="counter", labels=("status",), help="Requests refused before any decision."),
    Spec(name="key_requests", type="counter", labels=("key", "outcome"), help="Requests that ended, by key."),
    Spec(name="key_refusals", type="counter", labels=("key", "code"), help="Refused before any decision, by key."),
    Spec(name="key_tokens", type="counter", labels=("key",), help="Tokens counted against the limits of keys."),
    Spec(name="key_cost_usd", type="counter", labels=("key",), help="Dollars spent, by key."),
    Spec(
        name="decisions",
        type="counter",
        labels=("why",),
        help="Decisions that send or hold, by reason; of all, the share of `explores` is what explores.",
    ),
    Spec(name="refusals", type="counter", labels=("why",), help="Decisions that refuse, by reason."),
    Spec(
        name="fallbacks",
        type="counter",
        labels=("cause",),
        help="Times that the static rule took over by itself: a decision `overran`, or the model failed at a decision "
        "(`decide`, `due`, `forbids`) or at a fact, by its tag. All but the first are bugs of ours.",
    ),
    Spec(name="ruled", type="counter", labels=("rule",), help="Requests that a rule of the operators' held of."),
    Spec(name="attempts", type="counter", labels=("endpoint", "ending"), help="Calls to endpoints, by ending."),
    Spec(name="hedges", type="counter", labels=("endpoint", "ending"), help="Of these, calls started as hedges."),
    Spec(name="tokens", type="counter", labels=("endpoint", "direction"), help="Tokens reported by endpoints."),
    Spec(name="cost_usd", type="counter", labels=("endpoint",), help="Dollars spent."),
    Spec(name="hedge_cost_usd", type="counter", labels=("endpoint",), help="Of these, on hedges."),
    Spec(
        name="hedge_left_usd",
        type="gauge",
        help="Dollars that may be lost on hedges now; below zero none is started beside an attempt that is paid.",
    ),
    Spec(
        name="budget_left_usd",
        type="gauge",
        labels=("period", "key"),
        help="Dollars that may still be spent in this period; by one key, or by all where it is empty.",
    ),
    Spec(
        name="budget_price",
        type="gauge",
        labels=("period", "key"),
        help="What a dollar of this budget has to gain beyond itself, so that it lasts; 0 where it lasts anyway. "
        "Absent where it is not paced.",
    ),
    Spec(name="ledger_overruns", type="counter", help="Bills above what was held back for them, in the days kept."),
    Spec(name="ttft_seconds", type="histogram", labels=("class",), help="Arrival to first content."),
    Spec(name="e2e_seconds", type="histogram", labels=("class",), help="Arrival to end, whatever the outcome."),
    Spec(name="attempt_ttft_seconds", type="histogram", labels=("endpoint",), help="Sending to first content."),
    Spec(name="attempt_tpot_seconds", type="histogram", labels=("endpoint",), help="Time per output token."),
    Spec(
        name="ttft_actual_to_predicted",
        type="histogram",
        labels=("endpoint",),
        help="Measured TTFT over its prediction at sending; 1 is exact.",
    ),
    Spec(name="decision_seconds", type="histogram", help="CPU time of one decision."),
    Spec(name="held_seconds", type="histogram", help="Time that held requests waited for a slot."),
    Spec(name="held", type="gauge", help="Requests held now."),
    Spec(
        name="class_worth_factor",
        type="gauge",
        labels=("class",),
        help="What a kept promise is worth in a class with a target, as a share of the most that it may be; at 1 it is "
        "missed for want of more.",
    ),
    Spec(
        name="key_engine_share",
        type="gauge",
        labels=("key",),
        help="Of what our engines did in the last minutes, the share that was for this key; empty is without one.",
    ),
    Spec(name="in_flight", type="gauge", labels=("endpoint",), help="Attempts under way."),
    Spec(
        name="others_running",
        type="gauge",
        labels=("endpoint",),
        help="Requests past this gateway that run there, as last reported. Absent where nothing ever was, as below.",
    ),
    Spec(name="others_queued", type="gauge", labels=("endpoint",), help="Of the same report, those that wait there."),
    Spec(
        name="report_trust",
        type="gauge",
        labels=("endpoint",),
        help="What its reports of load are worth, from 0 to 1: how far they agree with what is known to be there.",
    ),
    Spec(
        name="kv_shipped",
        type="counter",
        labels=("endpoint", "target", "outcome"),
        help="KV caches of prompts that this endpoint has computed for the target: `ok`, `failed`, or `given_up`.",
    ),
    Spec(name="kv_shipped_bytes", type="counter", labels=("endpoint", "target"), help="Bytes of those that came."),
    Spec(
        name="kv_ship_seconds",
        type="histogram",
        labels=("endpoint",),
        help="From a prompt computed here to its KV cache verified where it is decoded.",
    ),
    Spec(
        name="kv_tokens_max",
        type="gauge",
        labels=("endpoint",),
        help="Tokens of context that it has memory for, as told, declared or found. Absent where unknown, as below.",
    ),
    Spec(
        name="kv_tokens_free",
        type="gauge",
        labels=("endpoint",),
        help="Of these, those that are free now, by the last report and by what is in flight.",
    ),
    Spec(name="up", type="gauge", labels=("endpoint",), help="1 where the last probe reached the endpoint."),
    Spec(name="breaker_open", type="gauge", labels=("endpoint",), help="1 where failures opened the breaker."),
    Spec(
        name="another_model",
        type="gauge",
        labels=("endpoint",),
        help="1 where the fingerprint contradicts what it should be, so that the endpoint counts as `same_family`.",
    ),
    Spec(
        name="canary_readings",
        type="counter",
        labels=("endpoint", "outcome"),
        help="Readings of canaries: `near` to the reference or `far`, or why there was none.",
    ),
    Spec(
        name="broken_off",
        type="counter",
        labels=("outcome",),
        help="Streams that broke off after content, where their rest may be asked for: `resumed`, `refused` (its rest "
        "cannot be asked for), `failed` (it could, and nobody gave it).",
    ),
    Spec(
        name="warm_ups",
        type="counter",
        labels=("endpoint", "outcome"),
        help="Loads of a model for nobody in particular: `served`, or why it did not answer.",
    ),
    Spec(
        name="canary_distance_nats",
        type="gauge",
        labels=("endpoint",),
        help="Mean difference of log-probabilities between the last reading and the reference.",
    ),
    Spec(
        name="simulator_error",
        type="gauge",
        labels=("figure",),
        help="How far the simulator is from this installation, by `tidegate backtest`: shares of dollars and times, "
        "or of all requests. Absent before the first look.",
    ),
    Spec(
        name="simulator_drifted",
        type="gauge",
        labels=("figure",),
        help="1 where that is further than it may be, beyond chance.",
    ),
    Spec(name="drifted", type="gauge", labels=("endpoint",), help="1 where the model is no longer what it was."),
    Spec(name="rtt_seconds", type="gauge", labels=("endpoint",), help="Round trip as the estimator has it."),
    Spec(
        name="upload_bytes_per_second",
        type="gauge",
        labels=("endpoint",),
        help="Rate at which requests are sent there, as the estimator has it.",
    ),
    Spec(name="drained", type="gauge", labels=("endpoint",), help="1 where operators are draining the endpoint."),
    Spec(name="pinned", type="gauge", labels=("endpoint",), help="1 where operators have pinned its models."),
    Spec(name="static_rule", type="gauge", help="1 where operators have put the static rule in force."),
    Spec(name="reloads", type="counter", labels=("outcome",), help="Reloads of the configuration, by outcome."),
    Spec(name="loop_lag_seconds", type="histogram", help="How late the event loop's timer fired."),
    Spec(name="handler_errors", type="counter", help="Requests that met a bug of ours."),
    Spec(name="journal_lines", type="counter", help="Lines given to the journal."),
    Spec(name="journal_lost", type="counter", help="Lines lost because the disk did not take them."),
    Spec(name="http_connections", type="gauge", help="Client connections now open."),
    Spec(name="http_protocol_errors", type="counter", labels=("status",), help="Malformed HTTP, by answer."),
)
PREFIX = "tidegate_"

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SHORT_SECONDS = (10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.25)
RATIOS = (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)


class Histogram:
    """Counts per bucket, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value; one that is none, by a division by next to nothing, would spoil the sum for ever."""
        if not 0.0 <= value < inf:
            return
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        total, found = 0, []
        for bound, count in zip([*map(repr, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Histograms:
    """Histograms by one label."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.by_label: dict[str, Histogram] = {}

    def add(self, label: str, value: float) -> None:
        """Count one value under a label."""
        found = self.by_label.get(label)
        if found is None:
            label = label if len(self.by_label) < LABELS_MAX else OTHER
            found = self.by_label.setdefault(label, Histogram(self._bounds))
        found.add(value)


class Counters:
    """Numbers by a tuple of labels."""

    def __init__(self) -> None:
        self.by_labels: dict[tuple[str, ...], float] = {}

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Count."""
        by_labels = self.by_labels
        found = by_labels.get(labels)
        if found is None:
            if len(by_labels) >= LABELS_MAX:
                labels = (OTHER,) * len(labels)
            found = by_labels.get(labels, 0.0)
        by_labels[labels] = found + amount


class HttpCounts(Record, frozen=True, kw_only=True):
    """What the client address counts."""

    connections: int
    protocol_errors: dict[int, int]


class MoneyCounts(Record, frozen=True, kw_only=True):
    """What the ledger counts: dollars left and their prices by period and key, and bills above their bound."""

    left_usd: dict[tuple[str, ...], float]
    prices: dict[tuple[str, ...], float]
    overruns: int


class Metrics:
    """Everything that is counted. The methods are called on the request's path, `exposition` by a scrape."""

    def __init__(self) -> None:
        counters = (s.name for s in TABLE if s.type == "counter")
        self._counters: dict[str, Counters] = {name: Counters() for name in counters}
        self._requests, self._decisions = self._counters["requests"], self._counters["decisions"]
        self._attempts, self._tokens = self._counters["attempts"], self._counters["tokens"]
        self._cost = self._counters["cost_usd"]
        self._histograms = {
            "ttft_seconds": Histograms(SECONDS),
            "e2e_seconds": Histograms(SECONDS),
            "attempt_ttft_seconds": Histograms(SECONDS),
            "attempt_tpot_seconds": Histograms(SHORT_SECONDS),
            "ttft_actual_to_predicted": Histograms(RATIOS),
            "kv_ship_seconds": Histograms(SECONDS),
        }
        self._ttft, self._e2e = self._histograms["ttft_seconds"], self._histograms["e2e_seconds"]
        self._single = {
            "decision_seconds": Histogram(SHORT_SECONDS),
            "held_seconds": Histogram(SECONDS),
            "loop_lag_seconds": Histogram(SHORT_SECONDS),
        }
        self._distance_nats: dict[tuple[str, ...], float] = {}
        self._simulated: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._decision_s = self._single["decision_seconds"]
        self._loop_lag_s = self._single["loop_lag_seconds"]

    # --- on the path of requests ----------------------------------------------------------------------------------

    def decided(self, why: Why, spent_s: float, *, refused: bool) -> None:
        """A decision was made."""
        (self._counters["refusals"] if refused else self._decisions).add((why,))
        self._decision_s.add(spent_s)

    def fell_back(self, cause: str) -> None:
        """The static rule took over by itself."""
        self._counters["fallbacks"].add((cause,))

    def broke_off(self, outcome: str) -> None:
        """A stream broke off after content, and this became of it."""
        self._counters["broken_off"].add((outcome,))

    def shipped(self, fact: Shipped, seconds: float) -> None:
        """The KV cache of a prompt was sent, or was not, so many seconds after it was computed."""
        ends = (fact.endpoint, fact.target)
        outcome = "ok" if fact.ok else "given_up" if fact.given_up else "failed"
        self._counters["kv_shipped"].add((*ends, outcome))
        if fact.ok:
            self._counters["kv_shipped_bytes"].add(ends, fact.kv_bytes)
        if fact.ok and fact.kv_bytes:
            # Engines that fetch it by themselves do not say how much that was, nor when they had it.
            self._histograms["kv_ship_seconds"].add(fact.endpoint, seconds)

    def ruled(self, rule: str) -> None:
        """An operators' rule held of a request."""
        self._counters["ruled"].add((rule,))

    def bad_request(self, status: int) -> None:
        """A request was refused before any decision."""
        self._counters["bad_requests"].add((str(status),))

    def key_refused(self, key: str, code: str) -> None:
        """A request of this key was refused before any decision."""
        self._counters["key_refusals"].add((key, code))

    def key_ended(self, key: str, outcome: str, tokens: int, usd: float) -> None:
        """A request of this key is over."""
        self._counters["key_requests"].add((key, outcome))
        self._counters["key_tokens"].add((key,), tokens)
        self._counters["key_cost_usd"].add((key,), usd)

    def request_ended(self, klass: str, outcome: str, ttft_s: float | None, e2e_s: float) -> None:
        """A request is over."""
        self._requests.add((klass, outcome))
        self._e2e.add(klass, e2e_s)
        if ttft_s is not None:
            self._ttft.add(klass, ttft_s)

    def attempt_ended(self, fact: Ended, usd: float, predicted_ttft_s: float | None, *, hedge: bool) -> None:
        """A call to an endpoint is over; TTFT and its prediction count from its sending."""
        endpoint = fact.endpoint
        self._attempts.add((endpoint, fact.ending))
        if hedge:
            self._counters["hedges"].add((endpoint, fact.ending))
            self._counters["hedge_cost_usd"].add((endpoint,), usd)
        if usd:
            self._cost.add((endpoint,), usd)
        if fact.prompt_tokens:
            self._tokens.add((endpoint, "input"), fact.prompt_tokens)
        if fact.output_tokens:
            self._tokens.add((endpoint, "output"), fact.output_tokens)
        ttft_s = fact.ttft_s
        if ttft_s is not None:
            self._histograms["attempt_ttft_seconds"].add(endpoint, ttft_s)
            if predicted_ttft_s:
                self._histograms["ttft_actual_to_predicted"].add(endpoint, ttft_s / predicted_ttft_s)
            if fact.output_tokens is not None and fact.output_tokens > 1:
                tpot_s = (fact.e2e_s - ttft_s) / (fact.output_tokens - 1)
                self._histograms["attempt_tpot_seconds"].add(endpoint, tpot_s)

    def held_for(self, seconds: float) -> None:
        """A held request is held no more."""
        self._single["held_seconds"].add(seconds)

    def loop_lag(self, seconds: float) -> None:
        """How late a timer fired."""
        self._loop_lag_s.add(seconds)

    def reloaded(self, outcome: str) -> None:
        """The configuration was read again."""
        self._counters["reloads"].add((outcome,))

    def forget(self, endpoints: Container[str]) -> None:
        """Only these endpoints are left: what was counted of others would stay for ever, and fill the bound."""
        for spec in TABLE:
            if spec.labels[:1] != ("endpoint",):
                continue
            if spec.type == "histogram":
                known = self._histograms[spec.name].by_label
                for label in [label for label in known if label not in endpoints]:
                    del known[label]
            elif spec.type == "counter":
                counts = self._counters[spec.name].by_labels
                for labels in [labels for labels in counts if labels[0] not in endpoints]:
                    del counts[labels]
        for labels in [labels for labels in self._distance_nats if labels[0] not in endpoints]:
            del self._distance_nats[labels]

    def simulated(self, figures: Mapping[str, tuple[float, bool]]) -> None:
        """How far off the simulator is in each, and whether that is too far."""
        self._simulated = {(figure,): told for figure, told in figures.items()}

    def canary_read(self, endpoint: str, outcome: str, distance_nats: float | None) -> None:
        """A canary's reading came to this; the distance is None where there was nothing to compare."""
        self._counters["canary_readings"].add((endpoint, outcome))
        if distance_nats is not None:
            self._distance_nats[endpoint,] = distance_nats

    def warmed(self, endpoint: str, outcome: str) -> None:
        """A load for nobody in particular came to this."""
        self._counters["warm_ups"].add((endpoint, outcome))

    def errand_spent(self, endpoint: str, usd: float) -> None:
        """A question of the gateway's own cost this much."""
        if usd:
            self._cost.add((endpoint,), usd)

    def crashed(self) -> None:
        """A request met a bug of ours."""
        self._counters["handler_errors"].add(())

    # --- at a scrape ----------------------------------------------------------------------------------------------

    def exposition(
        self,
        *,
        now_s: float,
        endpoints: Iterable[EndpointModel],
        held: int,
        worth_factors: Mapping[str, float],
        shares: Mapping[str, float],
        hedge_left_usd: float,
        overrides: Overrides,
        http: HttpCounts,
        journal: JournalStatistics | None,
        money: MoneyCounts | None,
    ) -> bytes:
        """All of it in Prometheus' text format. `worth_factors` by class, of those with a target; `shares` by key."""
        gauges: dict[str, dict[tuple[str, ...], float]] = {
            "held": {(): float(held)},
            "class_worth_factor": {(klass,): factor for klass, factor in worth_factors.items()},
            "key_engine_share": {(key,): share for key, share in shares.items()},
            "static_rule": {(): float(overrides.static)},
            "http_connections": {(): float(http.connections)},
            "canary_distance_nats": dict(self._distance_nats),
            "simulator_error": {labels: error for labels, (error, _) in self._simulated.items()},
            "simulator_drifted": {labels: float(drifted) for labels, (_, drifted) in self._simulated.items()},
        }
        for model in endpoints:
            state = model.state
            for name, value in (
                ("in_flight", len(state.reservations)),
                ("up", state.up),
                ("breaker_open", state.breaker.openings > 0),
                ("another_model", bool(model.doubts)),
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
            if model.others.told:
                told = *model.others.newest, model.others.trust
                for name, number in zip(("others_running", "others_queued", "report_trust"), told, strict=True):
                    gauges.setdefault(name, {})[(model.name,)] = number
        gauges["hedge_left_usd"] = {(): hedge_left_usd}
        counts = {name: dict(c.by_labels) for name, c in self._counters.items()}
        counts["http_protocol_errors"] = {(str(s),): float(n) for s, n in http.protocol_errors.items()}
        if journal is not None:
            counts["journal_lines"], counts["journal_lost"] = {(): journal.lines}, {(): journal.lost}
        if money is not None:
            gauges["budget_left_usd"], gauges["budget_price"] = dict(money.left_usd), dict(money.prices)
            counts["ledger_overruns"] = {(): float(money.overruns)}
        registry = CollectorRegistry()
        registry.register(_Scrape(self._families(counts, gauges)))
        return generate_latest(registry)

    def _families(
        self,
        counts: dict[str, dict[tuple[str, ...], float]],
        gauges: dict[str, dict[tuple[str, ...], float]],
    ) -> list[Metric]:
        families: list[Metric] = []
        for spec in TABLE:
            name, labels = PREFIX + spec.name, list(spec.labels)
            if spec.type == "histogram":
                family = HistogramMetricFamily(name, spec.help, labels=labels)
                for label, histogram in self._histograms_of(spec.name):
                    family.add_metric(label, histogram.buckets(), histogram.sum)
                families.append(family)
                continue
            made = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
            plain = made(name, spec.help, labels=labels)
            for values, number in sorted((counts if spec.type == "counter" else gauges).get(spec.name, {}).items()):
                plain.add_metric(list(values), number)
            families.append(plain)
        return families

    def _histograms_of(self, name: str) -> Iterator[tuple[list[str], Histogram]]:
        if name in self._single:
            yield [], self._single[name]
        else:
            for label, histogram in sorted(self._histograms[name].by_label.items()):
                yield [label], histogram


class _Scrape(Collector):
    """Families that are made already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def reference() -> str:
    """The reference page of all metrics, in Markdown."""
    lines = ["# Metrics", "", "At `/metrics` on the admin address.", "", "| name | type | labels | meaning |"]
    lines.append("| --- | --- | --- | --- |")
    for spec in TABLE:
        suffix = "_total" if spec.type == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in spec.labels) or "-"
        lines.append(f"| `{PREFIX}{spec.name}{suffix}` | {spec.type} | {labels} | {spec.help} |")
    return "\n".join(lines) + "\n"
