"""What is counted: plain integers on the request's path, which `exposition` reads when somebody asks."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

from tidegate.core.model import ANYWHERE, LOCAL, Ended, Ending, Request, Shipped
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
)
from tidegate.telemetry.families import TABLE

# Where an endpoint is, by whether it is local; of a request, where it was answered, if anywhere.
TIERS: Final[dict[bool | None, str]] = {True: "local", False: "remote", None: "none"}
# Looking a member up in its class costs more than the comparison that follows.
_OK: Final = Ending.OK
_SILENT: Final = (Ending.CANCELLED, Ending.TIMED_OUT)

AXES = ("ttft", "tpot", "e2e")
_TTFT, _TPOT, _E2E = 0, 1, 2


class OfEndpoint:
    """What is counted of one endpoint: found once an attempt, and then plain additions."""

    __slots__ = (
        "beyond",
        "cost_usd",
        "endings",
        "input_tokens",
        "kv_ship",
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
        # Of the KV caches that were computed here for others.
        self.kv_ship = Histogram(SECONDS)

    def judge(self, axis: int, *, within: bool) -> None:
        """One attempt was within what was predicted of it, or was not."""
        (self.within if within else self.beyond)[axis] += 1


class OfTier:
    """What is counted of the requests of one class that were answered in one tier, or nowhere; `ended` by outcome."""

    __slots__ = ("anywhere", "ended", "kept", "local", "missed", "ok", "sites")

    def __init__(self) -> None:
        self.ok = 0
        self.ended: dict[str, int] = {}
        self.kept = self.missed = 0
        # By where their data may go.
        self.anywhere = self.local = self.sites = 0


class OfClass:
    """What is counted of one class of requests; `answers` by endpoint."""

    __slots__ = ("answers", "e2e", "local", "nowhere", "remote", "tpot", "ttft")

    def __init__(self) -> None:
        self.local, self.remote, self.nowhere = OfTier(), OfTier(), OfTier()
        self.answers: dict[str, int] = {}
        self.ttft, self.tpot, self.e2e = Histogram(SECONDS), Histogram(TPOT_SECONDS), Histogram(SECONDS)

    @property
    def tiers(self) -> tuple[tuple[str, OfTier], ...]:
        """All of them, by name."""
        return (TIERS[True], self.local), (TIERS[False], self.remote), (TIERS[None], self.nowhere)


class OfKey:
    """What is counted of one key; `ended` by outcome."""

    __slots__ = ("ended", "tokens", "usd")

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}
        self.tokens = 0
        self.usd = 0.0


class Metrics:
    """Everything that is counted. The methods are called on the request's path; `exposition` reads the rest."""

    def __init__(self) -> None:
        # The request's own path finds these by one name each; what is rare, by all of its labels.
        self.endpoints: dict[str, OfEndpoint] = {}
        # Those that are left after a reload; None before the first one, when all are.
        self._left: frozenset[str] | None = None
        self.classes: dict[str, OfClass] = {}
        self.keys: dict[str, OfKey] = {}
        self.decisions: dict[str, int] = {}
        counters = (s.name for s in TABLE if s.type == "counter")
        self.counters: dict[str, Counters] = {name: Counters() for name in counters}
        self.spent_usd = 0.0  # by all endpoints, also by those that are gone
        self.compared_usd = self.all_local_usd = self.all_remote_usd = 0.0
        self.quantile = self._deviations = 0.0
        self.single = {
            "decision_seconds": Histogram(SHORT_SECONDS),
            "held_seconds": Histogram(SECONDS),
            "loop_lag_seconds": Histogram(SHORT_SECONDS),
        }
        self.simulator: dict[tuple[str, ...], tuple[float, bool]] = {}
        self.config_refused = False
        self._decision_s = self.single["decision_seconds"]
        self._loop_lag_s = self.single["loop_lag_seconds"]

    def hold_to(self, quantile: float) -> None:
        """Predicted bounds are to hold with this probability from now on."""
        self.quantile, self._deviations = quantile, NormalDist().inv_cdf(quantile)

    # --- on the path of requests ----------------------------------------------------------------------------------

    def decided(self, why: Why, spent_s: float, *, refused: bool, rest: bool = False) -> None:
        """A decision was made; about the `rest` of an answer that broke off, where it refuses no request."""
        if not refused:
            self.decisions[why] = self.decisions.get(why, 0) + 1
        elif not rest:
            self.refused(why)
        self._decision_s.add(spent_s)

    def refused(self, why: Why) -> None:
        """A request is refused, by a decision or since nothing of its plan may be paid for."""
        self.counters["refusals"].add((why,))

    def breached(self) -> None:
        """A request was sent where its data may not go."""
        self.counters["residency_breaches"].add(())

    def fell_back(self, cause: str) -> None:
        """The static rule took over by itself."""
        self.counters["fallbacks"].add((cause,))

    def broke_off(self, outcome: str) -> None:
        """A stream broke off after content, and this became of it."""
        self.counters["broken_off"].add((outcome,))

    def shipped(self, fact: Shipped, seconds: float) -> None:
        """The KV cache of a prompt was sent, or was not, so many seconds after it was computed."""
        of = self._of_endpoint(fact.endpoint)
        if of is None or not self._is_left(fact.target):
            return
        ends = (fact.endpoint, fact.target)
        outcome = "ok" if fact.ok else "given_up" if fact.given_up else "failed"
        self.counters["kv_shipped"].add((*ends, outcome))
        if fact.ok:
            self.counters["kv_shipped_bytes"].add(ends, fact.kv_bytes)
        if fact.ok and fact.kv_bytes:
            # Engines that fetch it by themselves do not say how much that was, nor when they had it.
            of.kv_ship.add(seconds)

    def ruled(self, rule: str) -> None:
        """An operators' rule held of a request."""
        self.counters["ruled"].add((rule,))

    def bad_request(self, status: int) -> None:
        """A request was refused before any decision."""
        self.counters["bad_requests"].add((str(status),))

    def key_refused(self, key: str, code: str) -> None:
        """A request of this key was refused before any decision."""
        self.counters["key_refusals"].add((key, code))

    def key_ended(self, key: str, outcome: str, tokens: int, usd: float) -> None:
        """A request of this key is over."""
        found = self.keys.get(key)
        if found is None:
            found = self.keys.setdefault(key if len(self.keys) < LABELS_MAX else OTHER, OfKey())
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
        of = self.classes.get(klass)
        if of is None:
            of = self.classes.setdefault(klass if len(self.classes) < LABELS_MAX else OTHER, OfClass())
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
        self.compared_usd += usd
        self.all_local_usd += all_local_usd
        self.all_remote_usd += all_remote_usd

    def attempt_ended(self, fact: Ended, usd: float, sent: Reservation | None, *, hedge: bool) -> None:
        """A call to an endpoint is over, of which this was predicted; times count from its sending."""
        self.spent_usd += usd
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
            self.counters["hedges"].add((endpoint, ending))
            self.counters["hedge_cost_usd"].add((endpoint,), usd)
        of.input_tokens += fact.prompt_tokens or 0
        of.output_tokens += fact.output_tokens or 0
        ttft_s = fact.ttft_s
        if ttft_s is not None:
            of.ttft.add(ttft_s)
        if sent is None:
            return
        if sent.was_cold:
            self.counters["cold_starts"].add((endpoint,))
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

    def _of_endpoint(self, name: str) -> OfEndpoint | None:
        """None of one that is gone."""
        found = self.endpoints.get(name)
        if found is None and self._is_left(name):
            found = self.endpoints.setdefault(name if len(self.endpoints) < LABELS_MAX else OTHER, OfEndpoint())
        return found

    def held_for(self, seconds: float) -> None:
        """A held request is held no more."""
        self.single["held_seconds"].add(seconds)

    def loop_lag(self, seconds: float) -> None:
        """How late a timer fired."""
        self._loop_lag_s.add(seconds)

    def reloaded(self, outcome: str) -> None:
        """The configuration was read again."""
        self.counters["reloads"].add((outcome,))
        self.config_refused = outcome == "refused"

    def forget(self, endpoints: frozenset[str]) -> None:
        """Only these endpoints are left: what was counted of others would stay for ever, and fill the bound. So would
        what still ends there: until they are back, it is counted where no endpoint is named."""
        self._left = endpoints
        named: list[dict[str, OfEndpoint] | dict[str, int]] = [
            self.endpoints,
            *(of.answers for of in self.classes.values()),
        ]
        for by_name in named:
            for name in [name for name in by_name if name not in endpoints]:
                del by_name[name]
        for spec in TABLE:
            if spec.type == "counter" and spec.labels[:1] == ("endpoint",):
                counts = self.counters[spec.name].by_labels
                # Of what is sent, both ends.
                ends = 2 if spec.labels[1:2] == ("target",) else 1
                for labels in [labels for labels in counts if not endpoints.issuperset(labels[:ends])]:
                    del counts[labels]

    def simulated(self, figures: Mapping[str, tuple[float, bool]]) -> None:
        """How far off the simulator is in each, and whether that is too far."""
        self.simulator = {(figure,): told for figure, told in figures.items()}

    def canary_read(self, endpoint: str, outcome: str) -> None:
        """A canary's reading came to this."""
        self.counters["canary_readings"].add((endpoint, outcome))

    def warmed(self, endpoint: str, outcome: str) -> None:
        """A load for nobody in particular came to this."""
        self.counters["warm_ups"].add((endpoint, outcome))

    def spent_besides(self, endpoint: str, usd: float) -> None:
        """What is no attempt's cost this much: a question of the gateway's own, a KV cache carried away from there."""
        self.spent_usd += usd
        of = self._of_endpoint(endpoint)
        if of is not None:
            of.cost_usd += usd

    def crashed(self) -> None:
        """Somebody met a bug of ours."""
        self.counters["handler_errors"].add(())
