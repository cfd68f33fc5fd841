"""What pages ask of the index for windows of time: sums, flows, series, and how good predictions were.

Each answer is a record whose fields `docs/reference/dashboard.md` explains. Reads only.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from tidegate.core.model import Record
from tidegate.core.rows import Came
from tidegate.dashboard.index import HOUR_S, LOCAL, MINUTE_S, OUTCOMES, REMOTE, SUMS, TIERS, Place, places_of

DAY_S: Final = 86_400.0
MINUTES_MAX: Final = 44_640
# Of longer steps those are taken that are whole hours: a month has 744 of them, and 44,640 minutes.
MINUTES_STEP_MAX: Final = 15
CLASSES_MAX: Final = 64
FLOWS_MAX: Final = 512
POINTS_MAX: Final = 1440
# Quantiles of so many of an endpoint's newest are known to two hundredths, and looking them up takes 20 ms.
ATTEMPTS_MAX: Final = 2000
PAIRS_MAX: Final = 200
_QUANTILES: Final = tuple(round(0.05 * step, 2) for step in range(1, 20))


class Window(Record, frozen=True, kw_only=True):
    """From when to when."""

    begins_s: float
    ends_s: float

    @classmethod
    def back(cls, now_s: float, minutes: int) -> "Window":
        """So many minutes up to now."""
        return cls(begins_s=now_s - minutes * MINUTE_S, ends_s=now_s)

    @classmethod
    def today(cls, now_s: float) -> "Window":
        """Since midnight UTC."""
        return cls(begins_s=now_s // DAY_S * DAY_S, ends_s=now_s)

    @property
    def spans(self) -> tuple[float, ...]:
        """As `_SPANS` asks: minutes up to the first whole hour, hours, and minutes since the last one.

        The minute that is under way when it begins is left out.
        """
        begins_s = -(-self.begins_s // MINUTE_S) * MINUTE_S
        last_s = self.ends_s // HOUR_S * HOUR_S
        first_s = min(-(-begins_s // HOUR_S) * HOUR_S, max(last_s, begins_s))
        return begins_s, first_s, first_s, last_s, max(first_s, last_s), self.ends_s // MINUTE_S * MINUTE_S + MINUTE_S


class Totals(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What requests came to that were over in a window."""

    begins_s: float
    ends_s: float
    requests: int
    ok: int
    refused: int
    failed: int
    failed_mid_stream: int
    client_left: int
    client_error: int
    unknown: int
    local_requests: int
    remote_requests: int
    local_tokens: int
    remote_tokens: int
    prompt_tokens: int
    output_tokens: int
    spent_usd: float
    running_usd: float
    remote_usd: float
    saved_usd: float
    local_saved_usd: float
    kept: int
    judged: int
    attainment: float | None
    offload: float | None
    covered: int
    predicted: int
    coverage: float | None
    held_requests: int
    hedged_requests: int
    handover_requests: int


class ClassTotals(Totals, frozen=True, kw_only=True, omit_defaults=False):
    """The same of one class."""

    klass: str = msgspec.field(name="class")


class Flow(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What went from one class to one endpoint."""

    klass: str = msgspec.field(name="class")
    endpoint: str
    site: str
    tier: str
    requests: int
    tokens: int
    prompt_tokens: int
    output_tokens: int
    spent_usd: float
    running_usd: float
    saved_usd: float
    kept: int
    judged: int
    attainment: float | None


class Unserved(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What nobody has answered, by what came of it."""

    klass: str = msgspec.field(name="class")
    outcome: Came
    requests: int


class Flows(Record, frozen=True, kw_only=True, omit_defaults=False):
    """All of them, those with the most tokens first."""

    begins_s: float
    ends_s: float
    flows: tuple[Flow, ...]
    unserved: tuple[Unserved, ...]


class Point(Record, frozen=True, kw_only=True, omit_defaults=False):
    """One step of a series."""

    at_s: float
    requests: int
    local_requests: int
    remote_requests: int
    spent_usd: float
    running_usd: float
    remote_usd: float
    saved_usd: float
    local_saved_usd: float
    offload: float | None
    kept: int
    judged: int
    attainment: float | None
    budget_price: dict[str, float]
    worth_factor: dict[str, float]
    hedge_price: float | None


class Series(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The steps of a window, also those in which nothing happened."""

    begins_s: float
    ends_s: float
    step_s: float
    points: tuple[Point, ...]


class Quantiles(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Of so many values."""

    count: int
    p10: float
    p50: float
    p90: float
    p99: float


class Pair(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The same quantile of what was predicted and of what came."""

    quantile: float
    predicted_s: float
    actual_s: float


class Predicted(Record, frozen=True, kw_only=True, omit_defaults=False):
    """First tokens as they were predicted, beside what came. Times count from the sending of the attempt: what had
    passed until then is no prediction."""

    attempts: int
    error: float
    bias: float
    coverage: float
    quantiles: tuple[Pair, ...]
    pairs: tuple[tuple[float, float], ...]


class Measured(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What requests came to at one endpoint."""

    totals: Totals
    ttft_s: Quantiles | None
    tpot_s: Quantiles | None
    e2e_s: Quantiles | None
    prediction: Predicted | None


_Sums = tuple[str | None, Sequence[float]]
"""Where requests were served, and what they came to in the order of `SUMS`."""
_SUMMED = ", ".join(f"sum({name})" for name in SUMS)
_OF_MINUTES = f"SELECT * FROM sum WHERE step_s = {int(MINUTE_S)} AND at_s >= ? AND at_s < ?"  # noqa: S608
_OF_HOURS = f"SELECT * FROM sum WHERE step_s = {int(HOUR_S)} AND at_s >= ? AND at_s < ?"  # noqa: S608
_SPANS = f"({_OF_MINUTES} UNION ALL {_OF_HOURS} UNION ALL {_OF_MINUTES})"


class Figures:
    """Answers from one connection; one thread has it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def places(self) -> dict[str, Place]:
        """Where each endpoint stands, by its name."""
        return places_of(self._db)

    def totals(self, window: Window) -> Totals:
        """All requests of a window."""
        return _totals(window, self._by_tier(window))

    def classes(self, window: Window) -> tuple[ClassTotals, ...]:
        """The same by class, those with the most requests first."""
        by_class = dict[str, list[_Sums]]()
        summed = self._db.execute(
            f"SELECT w.text, tier, {_SUMMED} FROM {_SPANS} LEFT JOIN word w ON w.id = klass "  # noqa: S608
            "GROUP BY klass, tier",
            window.spans,
        )
        for klass, tier, *sums in summed:
            by_class.setdefault(klass or "", []).append((TIERS[tier], sums))
        found = [
            ClassTotals(klass=klass, **msgspec.structs.asdict(_totals(window, parts)))
            for klass, parts in by_class.items()
        ]
        found.sort(key=lambda one: (-one.requests, one.klass))
        return tuple(found[:CLASSES_MAX])

    def flows(self, window: Window) -> Flows:
        """From classes to endpoints, where these stand now."""
        places = self.places()
        flows, unserved = [], []
        for klass, endpoint, sums in self._by_both(window):
            of = dict(zip(SUMS, sums, strict=True))
            if not endpoint:
                unserved += [
                    Unserved(klass=klass, outcome=outcome, requests=int(of[outcome]))
                    for outcome in OUTCOMES
                    if of[outcome]
                ]
                continue
            place = places.get(endpoint) or Place(name=endpoint, site="", tier="")
            flows.append(
                Flow(
                    klass=klass,
                    endpoint=endpoint,
                    site=place.site,
                    tier=place.tier,
                    requests=int(of["requests"]),
                    tokens=int(of["prompt_tokens"] + of["output_tokens"]),
                    prompt_tokens=int(of["prompt_tokens"]),
                    output_tokens=int(of["output_tokens"]),
                    spent_usd=of["spent_usd"],
                    running_usd=of["running_usd"],
                    saved_usd=of["saved_usd"],
                    kept=int(of["kept"]),
                    judged=int(of["judged"]),
                    attainment=_share(of["kept"], of["judged"]),
                )
            )
        flows.sort(key=lambda one: (-one.tokens, one.klass, one.endpoint))
        unserved.sort(key=lambda one: (-one.requests, one.klass, one.outcome))
        return Flows(
            begins_s=window.begins_s,
            ends_s=window.ends_s,
            flows=tuple(flows[:FLOWS_MAX]),
            unserved=tuple(unserved[:FLOWS_MAX]),
        )

    def series(self, window: Window, step_s: float) -> Series:
        """A window in steps, which are widened where they would be too many. A step that is under way when it begins
        has what is within it."""
        begins_s, *_, ends_s = window.spans
        step_s = max(step_s, -(-(ends_s - begins_s) / POINTS_MAX // MINUTE_S) * MINUTE_S)
        if -(-(ends_s - begins_s // step_s * step_s) // step_s) > POINTS_MAX:  # with the one that is under way
            step_s += MINUTE_S
        if step_s > MINUTES_STEP_MAX * MINUTE_S:
            step_s = -(-step_s // HOUR_S) * HOUR_S
        first_s = begins_s // step_s * step_s
        sums = dict[float, list[_Sums]]()
        # Of minutes and hours where steps are whole hours; shorter ones part them.
        of, spans = (_SPANS, window.spans) if step_s >= HOUR_S else (f"({_OF_MINUTES})", (begins_s, ends_s))
        found = self._db.execute(
            f"SELECT CAST((at_s - ?) / ? AS INTEGER), tier, {_SUMMED} FROM {of} GROUP BY 1, 2",  # noqa: S608
            (first_s, step_s, *spans),
        )
        for number, tier, *parts in found:
            sums.setdefault(number, []).append((TIERS[tier], parts))
        prices = self._prices(first_s, step_s, window.ends_s)
        points, number, at_s = list[Point](), 0, first_s
        while at_s <= window.ends_s:
            points.append(_point(at_s, _totals(window, sums.get(number, [])), prices.get(number, {})))
            number += 1
            at_s = first_s + number * step_s
        return Series(begins_s=first_s, ends_s=window.ends_s, step_s=step_s, points=tuple(points))

    def measured(self, endpoint: str, window: Window) -> Measured:
        """What came of requests that one endpoint has answered, or began to."""
        begins_s, *_, ends_s = window.spans
        totals = _totals(window, self._by_tier(window, endpoint))
        found = self._db.execute(
            "SELECT ttft_s, tpot_s, e2e_s, sent_s, predicted_s, predicted_s_high FROM request INDEXED BY by_endpoint "
            "WHERE endpoint = (SELECT id FROM word WHERE kind = 'endpoint' AND text = ?) "
            "AND ended_s >= ? AND ended_s < ? AND tier ORDER BY ended_s DESC LIMIT ?",
            (endpoint, begins_s, ends_s, ATTEMPTS_MAX),
        ).fetchall()
        return Measured(
            totals=totals,
            ttft_s=_quantiles([one[0] for one in found if one[0] is not None]),
            tpot_s=_quantiles([one[1] for one in found if one[1] is not None]),
            e2e_s=_quantiles([one[2] for one in found]),
            prediction=_predicted(
                [(p - sent, a - sent, high - sent) for a, _, _, sent, p, high in found if None not in (a, p, high)]
            ),
        )

    def _by_tier(self, window: Window, endpoint: str | None = None) -> list[_Sums]:
        """Sums of a window, of all or of one endpoint."""
        one = "" if endpoint is None else "WHERE w.text = ? "
        found = self._db.execute(
            f"SELECT tier, {_SUMMED} FROM {_SPANS} LEFT JOIN word w ON w.id = endpoint {one}GROUP BY tier",  # noqa: S608
            (*window.spans, *(() if endpoint is None else (endpoint,))),
        )
        return [(TIERS[tier], parts) for tier, *parts in found]

    def _by_both(self, window: Window) -> list[tuple[str, str, list[float]]]:
        found = self._db.execute(
            f"SELECT k.text, e.text, {_SUMMED} FROM {_SPANS} LEFT JOIN word k ON k.id = klass "  # noqa: S608
            "LEFT JOIN word e ON e.id = endpoint GROUP BY klass, endpoint",
            window.spans,
        )
        return [(klass or "", endpoint or "", parts) for klass, endpoint, *parts in found]

    def _prices(self, first_s: float, step_s: float, end_s: float) -> dict[int, dict[str, dict[str, float]]]:
        """By step, what, and name: the last of each step."""
        found: dict[int, dict[str, dict[str, float]]] = {}
        rows = self._db.execute(
            "SELECT CAST((at_s - ?) / ? AS INTEGER), what, name, value, max(at_s) FROM price "
            "WHERE at_s >= ? AND at_s <= ? GROUP BY 1, 2, 3",
            (first_s, step_s, first_s, end_s),
        )
        for number, what, name, value, _ in rows:
            found.setdefault(number, {}).setdefault(what, {})[name] = value
        return found


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _totals(window: Window, found: Sequence[_Sums]) -> Totals:
    of = dict.fromkeys(SUMS, 0.0)
    requests, tokens = dict.fromkeys(TIERS, 0.0), dict.fromkeys(TIERS, 0.0)
    local_saved_usd = 0.0
    for tier, sums in found:
        part = dict(zip(SUMS, sums, strict=True))
        for name, value in part.items():
            of[name] += value
        requests[tier] += part["requests"]
        tokens[tier] += part["prompt_tokens"] + part["output_tokens"]
        local_saved_usd += part["saved_usd"] if tier == LOCAL else 0.0
    local, remote = requests[LOCAL], requests[REMOTE]
    return Totals(
        begins_s=window.begins_s,
        ends_s=window.ends_s,
        requests=int(of["requests"]),
        ok=int(of["ok"]),
        refused=int(of["refused"]),
        failed=int(of["failed"]),
        failed_mid_stream=int(of["failed_mid_stream"]),
        client_left=int(of["client_left"]),
        client_error=int(of["client_error"]),
        unknown=int(of["unknown"]),
        local_requests=int(local),
        remote_requests=int(remote),
        local_tokens=int(tokens[LOCAL]),
        remote_tokens=int(tokens[REMOTE]),
        prompt_tokens=int(of["prompt_tokens"]),
        output_tokens=int(of["output_tokens"]),
        spent_usd=of["spent_usd"],
        running_usd=of["running_usd"],
        remote_usd=of["remote_usd"],
        saved_usd=of["saved_usd"],
        local_saved_usd=local_saved_usd,
        kept=int(of["kept"]),
        judged=int(of["judged"]),
        attainment=_share(of["kept"], of["judged"]),
        offload=_share(remote, local + remote),
        covered=int(of["covered"]),
        predicted=int(of["predicted"]),
        coverage=_share(of["covered"], of["predicted"]),
        held_requests=int(of["held"]),
        hedged_requests=int(of["hedged"]),
        handover_requests=int(of["handover"]),
    )


def _point(at_s: float, of: Totals, prices: dict[str, dict[str, float]]) -> Point:
    return Point(
        at_s=at_s,
        requests=of.requests,
        local_requests=of.local_requests,
        remote_requests=of.remote_requests,
        spent_usd=of.spent_usd,
        running_usd=of.running_usd,
        remote_usd=of.remote_usd,
        saved_usd=of.saved_usd,
        local_saved_usd=of.local_saved_usd,
        offload=of.offload,
        kept=of.kept,
        judged=of.judged,
        attainment=of.attainment,
        budget_price=prices.get("budget", {}),
        worth_factor=prices.get("worth", {}),
        hedge_price=prices.get("hedge", {}).get(""),
    )


def _at(ordered: Sequence[float], quantile: float) -> float:
    """That quantile of values in their order: one of them."""
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


def _quantiles(values: list[float]) -> Quantiles | None:
    if not values:
        return None
    values.sort()
    p10, p50, p90, p99 = (_at(values, quantile) for quantile in (0.1, 0.5, 0.9, 0.99))
    return Quantiles(count=len(values), p10=p10, p50=p50, p90=p90, p99=p99)


def _predicted(found: list[tuple[float, float, float]]) -> Predicted | None:
    """Of what was predicted, what came, and the predicted quantile; the newest first."""
    known = [(predicted, actual, high) for predicted, actual, high in found if predicted > 0.0]
    if not known:
        return None
    ratios = sorted(actual / predicted for predicted, actual, _ in known)
    errors = sorted(abs(ratio - 1.0) for ratio in ratios)
    predicted_s, actual_s = sorted(one[0] for one in known), sorted(one[1] for one in known)
    return Predicted(
        attempts=len(known),
        error=_at(errors, 0.5),
        bias=_at(ratios, 0.5),
        coverage=sum(actual <= high for _, actual, high in known) / len(known),
        quantiles=tuple(
            Pair(quantile=quantile, predicted_s=_at(predicted_s, quantile), actual_s=_at(actual_s, quantile))
            for quantile in _QUANTILES
        ),
        pairs=tuple((predicted, actual) for predicted, actual, _ in known[:PAIRS_MAX]),
    )
