"""A simulated scenario's figures as tables for the terminal: a choice of those in its JSON."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tidegate import clock
from tidegate.core.why import WHY_TEXT, Why
from tidegate.sim.report import AtEndpoint, Group, Percentiles, Report

REASONS_SHOWN = 6
_MISSING = "-"
_PROMISES = ("asked", "kept", "refused", "failed", "kept/s", "tokens/s", "$", "$/h", "$/1k")
_TIMES = ("ttft p50", "p90", "p95", "p99", "tpot p50", "p99", "e2e p50", "p99", "held p50", "p99")
_ENDPOINT = ("sent", "served", "share", "flying", "slots", "busy", "prefix", "$", "off by", "p90")


def print_report(console: Console, report: Report) -> None:
    """All tables, and whether the bounds hold."""
    console.print(
        f"[bold]{report.scenario}[/], policy {report.policy}, seed {report.seed}, from {clock.iso(report.start_s)}: "
        f"{report.groups[0].requests} requests in {report.elapsed_s:.0f} s",
        soft_wrap=True,
    )
    for table in tables(report):
        console.print()
        console.print(table)
    for mark in report.bounds:
        said = "[green]holds[/]" if mark.holds else "[bold red]broken[/]"
        console.print(f"{said}  {mark.path} = {mark.bound:g}, found {number(mark.figure)}", soft_wrap=True)


def tables(report: Report) -> Sequence[Table]:
    """What is promised and paid, how long it takes, the endpoints, and the reasons."""
    return (
        _table("", _PROMISES, [(one.name, _promises(one)) for one in report.groups]),
        _table("seconds", _TIMES, [(one.name, _times(one)) for one in report.groups]),
        _table("endpoint", _ENDPOINT, [(one.name, _endpoint(one)) for one in report.endpoints]),
        _reasons(report),
    )


def number(value: float | None) -> str:
    """Three digits that matter; whole numbers whole."""
    if value is None:
        return _MISSING
    if float(value).is_integer():
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000.0 else f"{value:.3g}"


def share(value: float | None) -> str:
    """As per cent, with one digit after the point."""
    return _MISSING if value is None else f"{value:.1%}"


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
    table = Table(title, *columns, box=None, header_style="bold", padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _promises(one: Group) -> list[str]:
    return [
        number(one.requests),
        share(one.attainment),
        share(one.refused_share),
        share(one.failed_share),
        number(one.kept_per_s),
        number(one.kept_tokens_per_s),
        number(one.usd),
        number(one.usd_per_hour),
        number(one.usd_per_1k_kept),
    ]


def _times(one: Group) -> list[str]:
    return [
        *_of(one.ttft_s, "p50", "p90", "p95", "p99"),
        *_of(one.tpot_s, "p50", "p99"),
        *_of(one.e2e_s, "p50", "p99"),
        *_of(one.held_s, "p50", "p99"),
    ]


def _of(percentiles: Percentiles | None, *names: str) -> list[str]:
    return [number(None if percentiles is None else getattr(percentiles, name)) for name in names]


def _endpoint(one: AtEndpoint) -> list[str]:
    prediction = one.prediction
    return [
        number(one.attempts),
        number(one.served),
        share(one.served_share),
        number(one.in_flight_mean),
        share(one.slots_used),
        share(one.busy_share),
        share(one.prefix_hit_share),
        number(one.usd),
        *((_MISSING, _MISSING) if prediction is None else (number(prediction.error_p50), number(prediction.error_p90))),
    ]


def _reasons(report: Report) -> Table:
    table = Table("decided", "why", box=None, header_style="bold", padding=(0, 1, 0, 0))
    table.columns[0].justify = "right"
    for name, count in list(report.reasons.items())[:REASONS_SHOWN]:
        table.add_row(str(count), WHY_TEXT[Why(name)])
    return table
