"""What relays came to under each load: figures of a round, medians of all, and a table whose losses come first."""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from statistics import median

import msgspec
from rich.table import Table

from bench.loads import Load
from bench.relays import TIDEGATE
from bench.rig import Said, Times

DIRECT, IDLE = "direct", "idle"
ADDED_US_LEAST = 100.0  # two runs without any relay are as far apart: an added time may be less than nothing
_BUCKET = re.compile(r'^tidegate_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)

Figures = dict[str, float]


class Summary(msgspec.Struct, frozen=True):
    """Of all rounds. Names of figures end in their units."""

    median: float
    min: float
    max: float


class Used(msgspec.Struct, frozen=True):
    """What a relay's processes took of the machine while a load ran: resident memory before it, and at its most."""

    cpu_us: float
    rss_before_mb: float
    rss_most_mb: float
    lag_s_p99: float | None = None


Rows = dict[str, dict[str, dict[str, Summary]]]
"""By load, relay and figure; before any load, too, as `IDLE`."""


def bare(load: Load, said: Said) -> Figures:
    """Of the load without a relay."""
    return {"errors": said.failed, **_times(load, said)}


def figures(load: Load, said: Said, direct: Said, used: Used) -> Figures:
    """Of one relay in one round, beside the same load without a relay.

    CPU is for each request or chunk that came, also of answers that failed then; `errors` are those.
    """
    done = said.chunks if load.ask.chunks else said.ok
    found: Figures = {"errors": said.failed, "rss_mb": used.rss_most_mb}
    if done:
        found["cpu_us"] = used.cpu_us / done
    if said.ok and direct.ok and not load.tls:  # nobody asks over TLS directly: what that adds would count as theirs
        without = _times(load, direct)
        found |= {f"added_{name}": us - without[name] for name, us in _times(load, said).items()}
    if not load.ask.rate_per_s and not load.gap_ms:
        found["per_s"] = done / said.seconds
    if load.mostly_idle and said.ok:
        # Who was refused had no stream.
        streams = min(said.ok, load.ask.connections)
        found["stream_kb"] = (used.rss_most_mb - used.rss_before_mb) * 1e3 / streams
    if used.lag_s_p99 is not None:
        found["lag_ms_p99"] = used.lag_s_p99 * 1e3
    return found


def summed(rounds: Iterable[Figures]) -> dict[str, Summary]:
    """Each figure's median with its range, of the rounds that have it."""
    values: dict[str, list[float]] = {}
    for one in rounds:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: Summary(_digits(median(of)), _digits(min(of)), _digits(max(of))) for name, of in values.items()}


def lag_s_p99(before: str, after: str) -> float | None:
    """How late 99 of 100 timers of the gateway's loop were at most, between two readings of its metrics.

    A bound of a histogram's bucket, in seconds; the last one where they were later still. None where no timer fired.
    """
    counts = _buckets(after)
    for bound, count in _buckets(before).items():
        counts[bound] -= count
    total = counts.pop(inf, 0.0)
    if not total:
        return None
    return next((bound for bound, count in sorted(counts.items()) if count >= 0.99 * total), max(counts))


def table(rows: Rows, units: Mapping[str, str]) -> Table:
    """A row for each load and figure, by how far the gateway is behind the best: what it loses most comes first.

    Units are those of CPU, by load. What is nothing everywhere, as errors should be, has no row.
    """
    shown = Table(title="Tidegate beside others: median (min-max), the worst of it first")
    for column in ("load", "figure", TIDEGATE, "of the best", "better", "worse"):
        shown.add_column(column, overflow="fold")
    lines = [line for load, by in rows.items() for line in _lines(load, by, units.get(load, ""))]
    for line in sorted(lines, key=lambda line: -line.ratio):
        ratio = f"{line.ratio:.2f}" if line.others else ""
        shown.add_row(line.load, line.figure, _text(line.own), ratio, _listed(line, True), _listed(line, False))
    return shown


class _Line(msgspec.Struct, frozen=True):
    load: str
    figure: str
    own: Summary
    others: Sequence[tuple[str, Summary]]

    @property
    def ratio(self) -> float:
        """To the best of the others; above 1 is a loss."""
        return max((self.factor(one.median) for _, one in self.others), default=0.0)

    def factor(self, other: float) -> float:
        """How many times as bad as the other."""
        least = ADDED_US_LEAST if self.figure.startswith("added_") else 1.0
        ours, theirs = max(self.own.median, least), max(other, least)
        return theirs / ours if self.figure == "per_s" else ours / theirs


def _lines(load: str, by: Mapping[str, Mapping[str, Summary]], unit: str) -> list[_Line]:
    found = []
    for figure, own in by.get(TIDEGATE, {}).items():
        others = [(relay, of[figure]) for relay, of in by.items() if relay not in (TIDEGATE, DIRECT) and figure in of]
        if any(of.max for of in [own, *(of for _, of in others)]):
            found.append(_Line(load, f"{figure}/{unit}" if figure == "cpu_us" else figure, own, others))
    return found


def _listed(line: _Line, better: bool) -> str:
    chosen = [one for one in line.others if (line.factor(one[1].median) > 1.0) is better]
    chosen.sort(key=lambda one: -line.factor(one[1].median))
    return ", ".join(f"{relay} {_text(of)}" for relay, of in chosen)


def _text(of: Summary) -> str:
    return f"{of.median:g} ({of.min:g}-{of.max:g})"


def _times(load: Load, said: Said) -> Figures:
    """What clients saw, in microseconds."""
    if load.ask.chunks:
        return {**_named("ttft", said.ttft_us), **_named("chunk", said.transit_us)}
    return _named("latency", said.latency_us)


def _named(name: str, of: Times) -> Figures:
    return {f"{name}_us_p50": of.p50, f"{name}_us_p99": of.p99}


def _digits(value: float) -> float:
    """Of a hundred and more the whole, else one digit: machines repeat no better."""
    return round(value) if abs(value) >= 100.0 else round(value, 1)


def _buckets(text: str) -> dict[float, float]:
    return {float(bound): float(count) for bound, count in _BUCKET.findall(text)}
