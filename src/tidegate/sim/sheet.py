"""A report's figures as sheets of text: a choice of those in its JSON, the same in the terminal and on the page."""

import msgspec

from tidegate.core.why import WHY_TEXT, Why
from tidegate.sim.report import AtEndpoint, Group, Mark, Percentiles, Report

REASONS_SHOWN = 6
MISSING = "-"


class Sheet(msgspec.Struct, frozen=True):
    """A table: its columns, the first of which names the row, and what stands in the rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def promises(report: Report) -> Sheet:
    """What was asked, what became of it, and what it cost."""
    columns = ("class", "asked", "kept", "refused", "failed", "kept/s", "tokens/s", "$", "$/h", "$/1k")
    return Sheet(columns, tuple(_promises(one) for one in report.groups))


def times(report: Report) -> Sheet:
    """How long it took, in seconds."""
    columns = ("seconds", "ttft p50", "p90", "p95", "p99", "tpot p50", "p99", "e2e p50", "p99", "held p50", "p99")
    return Sheet(columns, tuple(_times(one) for one in report.groups))


def endpoints(report: Report) -> Sheet:
    """Where it went. `off` is by which factor predictions of the time to first content were, half and nine tenths."""
    columns = ("endpoint", "sent", "served", "share", "flying", "slots", "busy", "prefix", "$", "off p50", "p90")
    return Sheet(columns, tuple(_endpoint(one) for one in report.endpoints))


def reasons(report: Report) -> Sheet:
    """Why it went there: of each request the last decision."""
    frequent = list(report.reasons.items())[:REASONS_SHOWN]
    return Sheet(("decided", "why"), tuple((str(count), WHY_TEXT[Why(name)]) for name, count in frequent))


def mark(one: Mark) -> str:
    """A bound in words."""
    return f"{one.path} = {one.bound:g}, found {number(one.figure)}"


def number(value: float | None) -> str:
    """Three digits that matter; whole numbers whole."""
    if value is None:
        return MISSING
    if float(value).is_integer():
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000.0 else f"{value:.3g}"


def share(value: float | None) -> str:
    """As per cent, with one digit after the point."""
    return MISSING if value is None else f"{value:.1%}"


def _promises(one: Group) -> tuple[str, ...]:
    return (
        one.name,
        number(one.requests),
        share(one.attainment),
        share(one.refused_share),
        share(one.failed_share),
        number(one.kept_per_s),
        number(one.kept_tokens_per_s),
        number(one.usd),
        number(one.usd_per_hour),
        number(one.usd_per_1k_kept),
    )


def _times(one: Group) -> tuple[str, ...]:
    return (
        one.name,
        *_of(one.ttft_s, "p50", "p90", "p95", "p99"),
        *_of(one.tpot_s, "p50", "p99"),
        *_of(one.e2e_s, "p50", "p99"),
        *_of(one.held_s, "p50", "p99"),
    )


def _of(percentiles: Percentiles | None, *names: str) -> list[str]:
    return [number(None if percentiles is None else getattr(percentiles, name)) for name in names]


def _endpoint(one: AtEndpoint) -> tuple[str, ...]:
    prediction = one.prediction
    return (
        one.name,
        number(one.attempts),
        number(one.served),
        share(one.served_share),
        number(one.in_flight_mean),
        share(one.slots_used),
        share(one.busy_share),
        share(one.prefix_hit_share),
        number(one.usd),
        number(None if prediction is None else prediction.error_p50),
        number(None if prediction is None else prediction.error_p90),
    )
