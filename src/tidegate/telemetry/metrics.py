"""What is counted: plain integers on the request's path, Prometheus only when somebody asks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import NormalDist
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tidegate import __version__
from tidegate.core.endpoint import EndpointModel
from tidegate.core.handover import HandoverModel
from tidegate.core.model import ANYWHERE, LOCAL, Ended, Ending, Overrides, Record, Request, Shipped
from tidegate.core.promise import per_token_s
from tidegate.core.reserve import Reservation
from tidegate.core.timing import Timing
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
    Histograms,
)
from tidegate.telemetry.families import PREFIX, TABLE, Spec
from tidegate.telemetry.segments import JournalStatistics

# Where an endpoint is, by whether it is local; of a request, where it was answered, if anywhere.
TIERS: Final[dict[bool | None, str]] = {True: "local", False: "remote", None: "none"}
# Looking a member up in its class costs more than the comparison that follows.
_OK: Final = Ending.OK
_SILENT: Final = (Ending.CANCELLED, Ending.TIMED_OUT)


# Counted from nothing on, so that the first one is seen as more than before.
_FROM_NOTHING: Final[tuple[str, ...]] = (
    "handler_errors",
    "journal_lines",
    "journal_lost",
    "journal_problems",
    "ledger_overruns",
    "residency_breaches",
)

AXES = ("ttft", "tpot", "e2e")
_TTFT, _TPOT, _E2E = 0, 1, 2


class _OfEndpoint:
    """What is counted of one endpoint: found once an attempt, and then plain additions."""

    __slots__ = (
        "beyond",
        "cost_usd",
        "endings",
        "input_tokens",
        "ok",
        "output_tokens",
        "tpot",
        "tpot_ratio",
        "ttft",
        "ttft_ratio",
        "wasted_usd",
        "within",
    )

    def __init__(self) -> None:
        self.ok = 0
        # All other ones.
        self.endings: dict[str, int] = {}
        self.input_tokens = self.output_tokens = 0
        self.cost_usd = self.wasted_usd = 0.0
        # By `AXES`.
        self.within, self.beyond = [0] * len(AXES), [0] * len(AXES)
        self.ttft, self.tpot = Histogram(SECONDS), Histogram(TPOT_SECONDS)
        self.ttft_ratio, self.tpot_ratio = Histogram(RATIOS), Histogram(RATIOS)

    def judge(self, axis: int, *, within: bool) -> None:
        """One attempt was within what was predicted of it, or was not."""
        (self.within if within else self.beyond)[axis] += 1


class _OfTier:
    """What is counted of the requests of one class that were answered in one tier, or nowhere; `ended` by outcome."""

    __slots__ = ("anywhere", "ended", "kept", "local", "missed", "ok", "sites")

    def __init__(self) -> None:
        self.ok = 0
        self.ended: dict[str, int] = {}
        self.kept = self.missed = 0
        # By where their data may go.
        self.anywhere = self.local = self.sites = 0


class _OfClass:
    """What is counted of one class of requests; `answers` by endpoint."""

    __slots__ = ("answers", "e2e", "local", "nowhere", "remote", "tpot", "ttft")

    def __init__(self) -> None:
        self.local, self.remote, self.nowhere = _OfTier(), _OfTier(), _OfTier()
        self.answers: dict[str, int] = {}
        self.ttft, self.tpot, self.e2e = Histogram(SECONDS), Histogram(TPOT_SECONDS), Histogram(SECONDS)

    @property
    def tiers(self) -> tuple[tuple[str, _OfTier], ...]:
        """All of them, by name."""
        return (TIERS[True], self.local), (TIERS[False], self.remote), (TIERS[None], self.nowhere)


class _OfKey:
    """What is counted of one key; `ended` by outcome."""

    __slots__ = ("ended", "tokens", "usd")

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}
        self.tokens = 0
        self.usd = 0.0


class HttpCounts(Record, frozen=True, kw_only=True):
    """What the client address counts."""

    connections: int
    protocol_errors: dict[int, int]


class MoneyCounts(Record, frozen=True, kw_only=True):
    """What the ledger counts: dollars left and their prices by period and key, and bills above their bound."""

    left_usd: dict[tuple[str, ...], float]
    prices: dict[tuple[str, ...], float]
    overruns: int


class OwnCounts(Record, frozen=True, kw_only=True):
    """What parts of the gateway know by themselves: lines of the log that nobody took, bills above their bound that the
    ledger has from before the start, and whether it cannot be written."""

    log_dropped: int = 0
    overruns_before: int = 0
    spending_problem: bool = False


class Metrics:
    """Everything that is counted. The methods are called on the request's path, `exposition` by a scrape."""

    def __init__(self) -> None:
        # Who is asked at a scrape for what nobody tells.
        self.own: Callable[[], OwnCounts] = OwnCounts
        # The request's own path finds these by one name each; what is rare, by all of its labels.
        self._endpoints: dict[str, _OfEndpoint] = {}
        # Those that are left after a reload; None before the first one, when all are.
        self._left: frozenset[str] | None = None
        self._classes: dict[str, _OfClass] = {}
        self._keys: dict[str, _OfKey] = {}
        self._decisions: dict[str, int] = {}
        counters = (s.name for s in TABLE if s.type == "counter")
        self._counters: dict[str, Counters] = {name: Counters() for name in counters}
        self._kv_ship = Histograms(SECONDS)
        self._spent_usd = 0.0  # by all endpoints, also by those that are gone
        self._compared_usd = self._all_local_usd = self._all_remote_usd = 0.0
        self._quantile = self._deviations = 0.0
        self._single = {
            "decision_seconds": Histogram(SHORT_SECONDS),
            "held_seconds": Histogram(SECONDS),
            "loop_lag_seconds": Histogram(SHORT_SECONDS),
        }
        self._simulated: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._config_refused = False
        self._decision_s = self._single["decision_seconds"]
        self._loop_lag_s = self._single["loop_lag_seconds"]

    def hold_to(self, quantile: float) -> None:
        """Predicted bounds are to hold with this probability from now on."""
        self._quantile, self._deviations = quantile, NormalDist().inv_cdf(quantile)

    # --- on the path of requests ----------------------------------------------------------------------------------

    def decided(self, why: Why, spent_s: float, *, refused: bool, rest: bool = False) -> None:
        """A decision was made; about the `rest` of an answer that broke off, where it refuses no request."""
        if not refused:
            self._decisions[why] = self._decisions.get(why, 0) + 1
        elif not rest:
            self.refused(why)
        self._decision_s.add(spent_s)

    def refused(self, why: Why) -> None:
        """A request is refused, by a decision or since nothing of its plan may be paid for."""
        self._counters["refusals"].add((why,))

    def breached(self) -> None:
        """A request was sent where its data may not go."""
        self._counters["residency_breaches"].add(())

    def fell_back(self, cause: str) -> None:
        """The static rule took over by itself."""
        self._counters["fallbacks"].add((cause,))

    def broke_off(self, outcome: str) -> None:
        """A stream broke off after content, and this became of it."""
        self._counters["broken_off"].add((outcome,))

    def shipped(self, fact: Shipped, seconds: float) -> None:
        """The KV cache of a prompt was sent, or was not, so many seconds after it was computed."""
        if not (self._is_left(fact.endpoint) and self._is_left(fact.target)):
            return
        ends = (fact.endpoint, fact.target)
        outcome = "ok" if fact.ok else "given_up" if fact.given_up else "failed"
        self._counters["kv_shipped"].add((*ends, outcome))
        if fact.ok:
            self._counters["kv_shipped_bytes"].add(ends, fact.kv_bytes)
        if fact.ok and fact.kv_bytes:
            # Engines that fetch it by themselves do not say how much that was, nor when they had it.
            self._kv_ship.add(fact.endpoint, seconds)

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
        found = self._keys.get(key)
        if found is None:
            found = self._keys.setdefault(key if len(self._keys) < LABELS_MAX else OTHER, _OfKey())
        found.ended[outcome] = found.ended.get(outcome, 0) + 1
        found.tokens += tokens
        found.usd += usd

    def request_ended(
        self,
        request: Request,
        outcome: str,
        endpoint: str,
        local: bool | None,
        kept: bool | None,
        ttft_s: float | None,
        e2e_s: float,
        output_tokens: int | None,
    ) -> None:
        """A request is over: answered by this `endpoint`, which is `local`; "" and None where by nobody.

        Whether its promise was `kept` is as in `core.promise`.
        """
        klass, residency, slo = request.klass, request.residency, request.slo
        of = self._classes.get(klass)
        if of is None:
            of = self._classes.setdefault(klass if len(self._classes) < LABELS_MAX else OTHER, _OfClass())
        if local is None:
            tier = of.nowhere
        else:
            tier = of.local if local else of.remote
            if endpoint in of.answers or (len(of.answers) < LABELS_MAX and self._is_left(endpoint)):
                of.answers[endpoint] = of.answers.get(endpoint, 0) + 1
        if outcome == "ok":
            tier.ok += 1
        else:
            tier.ended[outcome] = tier.ended.get(outcome, 0) + 1
        if ANYWHERE in residency:
            tier.anywhere += 1
        elif residency == (LOCAL,):
            tier.local += 1
        else:
            tier.sites += 1
        if kept is not None and not (slo.ttft_s is None and slo.e2e_s is None and slo.tpot_s is None):
            if kept:
                tier.kept += 1
            else:
                tier.missed += 1
        of.e2e.add(e2e_s)
        if ttft_s is not None:
            of.ttft.add(ttft_s)
            if output_tokens is not None:
                tpot_s = per_token_s(ttft_s, e2e_s, output_tokens / request.completions)
                if tpot_s is not None:
                    of.tpot.add(tpot_s)

    def compared(self, usd: float, all_local_usd: float, all_remote_usd: float) -> None:
        """An answer did cost this much, and would have cost as much in one tier alone."""
        self._compared_usd += usd
        self._all_local_usd += all_local_usd
        self._all_remote_usd += all_remote_usd

    def attempt_ended(self, fact: Ended, usd: float, sent: Reservation | None, *, hedge: bool) -> None:
        """A call to an endpoint is over, of which this was predicted; times count from its sending."""
        self._spent_usd += usd
        endpoint, ending, of = fact.endpoint, fact.ending, self._of_endpoint(fact.endpoint)
        if of is None:
            return
        of.cost_usd += usd
        if ending is _OK:
            of.ok += 1
        else:
            of.endings[ending] = of.endings.get(ending, 0) + 1
            of.wasted_usd += usd
        if hedge:
            self._counters["hedges"].add((endpoint, ending))
            self._counters["hedge_cost_usd"].add((endpoint,), usd)
        of.input_tokens += fact.prompt_tokens or 0
        of.output_tokens += fact.output_tokens or 0
        ttft_s = fact.ttft_s
        if ttft_s is not None:
            of.ttft.add(ttft_s)
        if sent is None:
            return
        if sent.was_cold:
            self._counters["cold_starts"].add((endpoint,))
        if ttft_s is not None:
            of.ttft_ratio.add(ttft_s / sent.ttft_s)
            of.judge(_TTFT, within=ttft_s <= sent.ttft_s_high)
        elif sent.stream and fact.e2e_s > sent.ttft_s_high and ending in _SILENT:
            # Who was given up before the bound might have been within it. Of an answer in one piece nobody sees it.
            of.judge(_TTFT, within=False)
        if ending is not _OK or fact.cause:
            # What a client's own mistake is answered with takes no model.
            return
        of.judge(_E2E, within=fact.e2e_s <= sent.e2e_s_high)
        tpot_s = Timing.tpot_s(sent, fact)
        if tpot_s is not None:
            of.tpot.add(tpot_s)
            of.tpot_ratio.add(tpot_s / sent.tpot.median_s)
            of.judge(_TPOT, within=tpot_s <= sent.tpot.high_s(self._deviations))

    def _is_left(self, endpoint: str) -> bool:
        """Whether no reload has taken it out. What was under way there then may end for minutes."""
        return self._left is None or endpoint in self._left

    def _of_endpoint(self, name: str) -> _OfEndpoint | None:
        """None of one that is gone."""
        found = self._endpoints.get(name)
        if found is None and self._is_left(name):
            found = self._endpoints.setdefault(name if len(self._endpoints) < LABELS_MAX else OTHER, _OfEndpoint())
        return found

    def held_for(self, seconds: float) -> None:
        """A held request is held no more."""
        self._single["held_seconds"].add(seconds)

    def loop_lag(self, seconds: float) -> None:
        """How late a timer fired."""
        self._loop_lag_s.add(seconds)

    def reloaded(self, outcome: str) -> None:
        """The configuration was read again."""
        self._counters["reloads"].add((outcome,))
        self._config_refused = outcome == "refused"

    def forget(self, endpoints: frozenset[str]) -> None:
        """Only these endpoints are left: what was counted of others would stay for ever, and fill the bound. So would
        what still ends there: until they are back, it is counted where no endpoint is named."""
        self._left = endpoints
        named: list[dict[str, _OfEndpoint] | dict[str, int] | dict[str, Histogram]] = [
            self._endpoints,
            self._kv_ship.by_label,
            *(of.answers for of in self._classes.values()),
        ]
        for by_name in named:
            for name in [name for name in by_name if name not in endpoints]:
                del by_name[name]
        for spec in TABLE:
            if spec.type == "counter" and spec.labels[:1] == ("endpoint",):
                counts = self._counters[spec.name].by_labels
                # Of what is sent, both ends.
                ends = 2 if spec.labels[1:2] == ("target",) else 1
                for labels in [labels for labels in counts if not endpoints.issuperset(labels[:ends])]:
                    del counts[labels]

    def simulated(self, figures: Mapping[str, tuple[float, bool]]) -> None:
        """How far off the simulator is in each, and whether that is too far."""
        self._simulated = {(figure,): told for figure, told in figures.items()}

    def canary_read(self, endpoint: str, outcome: str) -> None:
        """A canary's reading came to this."""
        self._counters["canary_readings"].add((endpoint, outcome))

    def warmed(self, endpoint: str, outcome: str) -> None:
        """A load for nobody in particular came to this."""
        self._counters["warm_ups"].add((endpoint, outcome))

    def spent_besides(self, endpoint: str, usd: float) -> None:
        """What is no attempt's cost this much: a question of the gateway's own, a KV cache carried away from there."""
        self._spent_usd += usd
        of = self._of_endpoint(endpoint)
        if of is not None:
            of.cost_usd += usd

    def crashed(self) -> None:
        """Somebody met a bug of ours."""
        self._counters["handler_errors"].add(())

    # --- at a scrape ----------------------------------------------------------------------------------------------

    def exposition(
        self,
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
    ) -> bytes:
        """All of it in Prometheus' text format. `worth_factors` by class, of those with a target; `shares` by key;
        `distances_nats` of canaries' last readings by endpoint, where they were compared."""
        own, counts = self.own(), self._counts()
        gauges: dict[str, dict[tuple[str, ...], float]] = {
            "held": {(): float(held)},
            "requests_in_flight": {(): float(in_flight)},
            "promise_quantile": {(): self._quantile},
            "build_info": {(__version__,): 1.0},
            "class_worth_factor": {(klass,): factor for klass, factor in worth_factors.items()},
            "key_engine_share": {(key,): share for key, share in shares.items()},
            "static_rule": {(): float(overrides.static)},
            "config_refused": {(): float(self._config_refused)},
            "spending_problem": {(): float(own.spending_problem)},
            "http_connections": {(): float(http.connections)},
            "canary_distance_nats": {(name,): nats for name, nats in distances_nats.items()},
            "simulator_error": {labels: error for labels, (error, _) in self._simulated.items()},
            "simulator_drifted": {labels: float(drifted) for labels, (_, drifted) in self._simulated.items()},
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
        counts["log_dropped"] = {(): float(own.log_dropped)}
        counts["trace_spans"] = {(outcome,): float(number) for outcome, number in spans.items()}
        counts["http_protocol_errors"] = {(str(s),): float(n) for s, n in http.protocol_errors.items()}
        if journal is not None:
            counts["journal_lines"], counts["journal_lost"] = {(): journal.lines}, {(): journal.lost}
            counts["journal_problems"] = {(): journal.problems}
        if money is not None:
            gauges["budget_left_usd"], gauges["budget_price"] = dict(money.left_usd), dict(money.prices)
            # The ledger's own number goes by the days that it keeps: as a counter it would leap and fall at a start.
            counts["ledger_overruns"] = {(): float(money.overruns - own.overruns_before)}
        registry = CollectorRegistry()
        registry.register(_Scrape(self._families(counts, gauges, tiers)))
        return generate_latest(registry)

    def _counts(self) -> dict[str, dict[tuple[str, ...], float]]:
        """All counters that are kept here, by name and labels; what is nothing yet is left out, unless it is a part of
        something: a share of what is absent would be none, and not 0."""
        counts: dict[str, dict[tuple[str, ...], float]] = {n: dict(c.by_labels) for n, c in self._counters.items()}
        for name, one in self._endpoints.items():
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
        for klass, of in self._classes.items():
            counts["answers"].update({(name, klass): float(number) for name, number in of.answers.items()})
            for tier, those in of.tiers:
                ended = those.ended | {"ok": those.ok}
                counts["requests"].update(
                    {(klass, tier, how): float(number) for how, number in ended.items() if number}
                )
                if tier != TIERS[None]:
                    counts["requests"].setdefault((klass, tier, "ok"), 0.0)
                if those.kept or those.missed:
                    counts["promises"][klass, tier, "kept"] = float(those.kept)
                    counts["promises"][klass, tier, "missed"] = float(those.missed)
                for allowed, asked in ((ANYWHERE, those.anywhere), (LOCAL, those.local), ("sites", those.sites)):
                    if asked:
                        counts["residency"][allowed, tier] = counts["residency"].get((allowed, tier), 0.0) + asked
        counts["decisions"] = {(why,): float(number) for why, number in self._decisions.items()}
        for key, found in self._keys.items():
            counts["key_requests"].update({(key, outcome): float(number) for outcome, number in found.ended.items()})
            counts["key_tokens"][key,], counts["key_cost_usd"][key,] = float(found.tokens), found.usd
        for name in _FROM_NOTHING:
            counts[name].setdefault((), 0.0)
        counts["spent_usd"] = {(): self._spent_usd}
        counts["compared_usd"] = {(): self._compared_usd}
        counts["baseline_usd"] = {("all-local",): self._all_local_usd, ("all-remote",): self._all_remote_usd}
        return counts

    def _families(
        self,
        counts: dict[str, dict[tuple[str, ...], float]],
        gauges: dict[str, dict[tuple[str, ...], float]],
        tiers: dict[str, str],
    ) -> list[Metric]:
        families: list[Metric] = []
        for spec in TABLE:
            name, labels = PREFIX + spec.name, list(spec.labels)
            if spec.type == "histogram":
                family = HistogramMetricFamily(name, spec.help, labels=labels)
                for label, histogram in self._histograms_of(spec.name):
                    family.add_metric(_with_tier(spec, label, tiers), histogram.buckets(), histogram.sum)
                families.append(family)
                continue
            made = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
            plain = made(name, spec.help, labels=labels)
            for values, number in sorted((counts if spec.type == "counter" else gauges).get(spec.name, {}).items()):
                plain.add_metric(_with_tier(spec, list(values), tiers), number)
            families.append(plain)
        return families

    def _histograms_of(self, name: str) -> Iterator[tuple[list[str], Histogram]]:
        if name in self._single:
            yield [], self._single[name]
            return
        found = self._kv_ship.by_label
        if name in _BY_CLASS:
            found = {klass: _BY_CLASS[name](of) for klass, of in self._classes.items()}
        elif name in _BY_ENDPOINT:
            found = {endpoint: _BY_ENDPOINT[name](one) for endpoint, one in self._endpoints.items()}
        for label, histogram in sorted(found.items()):
            if any(histogram.counts):
                yield [label], histogram


_BY_CLASS: Final[dict[str, Callable[[_OfClass], Histogram]]] = {
    "ttft_seconds": lambda of: of.ttft,
    "tpot_seconds": lambda of: of.tpot,
    "e2e_seconds": lambda of: of.e2e,
}
_BY_ENDPOINT: Final[dict[str, Callable[[_OfEndpoint], Histogram]]] = {
    "attempt_ttft_seconds": lambda of: of.ttft,
    "attempt_tpot_seconds": lambda of: of.tpot,
    "ttft_actual_to_predicted": lambda of: of.ttft_ratio,
    "tpot_actual_to_predicted": lambda of: of.tpot_ratio,
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
