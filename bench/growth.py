"""How the gateway's cost grows with streams, with bodies and with endpoints: `make bench-growth`.

    PYTHONPATH=build/compiled python -m bench.growth [--rounds 3] [--quick]

Rig, cores and figures are those of `bench.relay`. Along each axis all else stays as it is: as many requests begin each
second and as many chunks come, whatever the number of streams that they are spread over, but for the time in which the
first begin and the last end. Of the largest numbers that leaves three quarters of the chunks a second.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.loads import LOADS, Load, small
from bench.record import chosen, record
from bench.relay import raise_file_limit
from bench.relay_figures import DIRECT, IDLE, Figures, Summary, summed
from bench.relay_sitting import Sitting, pinned
from bench.relays import Relay, ours
from bench.rig import Ask, Rig

STREAMS = (10, 100, 1000, 5000)
BEGIN_PER_S = 100  # of streams, which have so many chunks each
CHUNKS = 50
REQUESTS_LEAST = 1000
REQUESTS_EACH = 3  # of a connection, at least
BODIES_KB = (1, 16, 256, 1024, 2048)
ENDPOINTS = (2, 4, 16, 64)
FIGURES = (
    "cpu_us",
    "added_ttft_us_p50",
    "added_chunk_us_p50",
    "added_latency_us_p50",
    "lag_ms_p99",
    "rss_mb",
    "errors",
)


def main() -> None:
    """Measure along each axis, write it down, and show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="whether all works: the figures mean nothing")
    options = parser.parse_args()
    raise_file_limit()
    found: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rig = Rig(folder, pinned(-1))
        for number in range(options.rounds):
            for place, figures in _round(rig, folder, quick=options.quick):
                found.setdefault(place, []).append(figures)
                said = ", ".join(f"{figure} {value:.1f}" for figure, value in figures.items())
                print(f"round {number + 1} {place}: {said}", flush=True)
    rows = {place: summed(rounds) for place, rounds in found.items()}
    if not options.quick:
        told = {"rounds": options.rounds, "rows": msgspec.to_builtins(rows)}
        record("growth", told, choice=chosen(parser, options))
    Console(width=140).print(_table(rows))


def streams(count: int) -> Load:
    """So many at a time. Each lasts the longer, the more they are, so that as many begin each second."""
    lasts_s = count / BEGIN_PER_S
    requests = max(REQUESTS_LEAST, REQUESTS_EACH * count)
    ask = Ask(connections=count, requests=requests, chunks=CHUNKS, ramp_s=lasts_s, timeout_s=300.0)
    gap_ms = round(lasts_s * 1e3 / CHUNKS)
    return Load(name=f"{count} streams", about=f"{count} streams, a chunk each {gap_ms} ms", ask=ask, gap_ms=gap_ms)


def bodies(size_kb: int) -> Load:
    """Not streamed, 8 at a time, with prompts of so many KB."""
    ask = Ask(connections=8, requests=10_000, seconds=5.0)
    return Load(name=f"{size_kb} KB", about=f"prompts of {size_kb} KB", ask=ask, prompt_bytes=size_kb * 1024)


def _round(rig: Rig, folder: Path, *, quick: bool) -> Iterator[tuple[str, Figures]]:
    grows = [*map(streams, STREAMS), *map(bodies, BODIES_KB)]
    yield from _measured(rig, folder, 4, grows, quick=quick)
    for count in ENDPOINTS:
        one = msgspec.structs.replace(LOADS["W1"], name=f"{count} endpoints")
        yield from _measured(rig, folder, count, [one], quick=quick)


def _measured(
    rig: Rig, folder: Path, endpoints: int, loads: Iterable[Load], *, quick: bool
) -> Iterator[tuple[str, Figures]]:
    """A gateway that has so many endpoints to choose from, under one load after the other."""
    chosen: Mapping[str, Load] = {load.name: small(load) if quick else load for load in loads}
    gateway: Relay = ours()[0]
    absent: dict[str, str] = {}
    with rig.engine(endpoints) as engines:
        sitting = Sitting(rig, engines, None, chosen, folder)
        sitting.prepare()
        for place, relay, figures in sitting.round([msgspec.structs.replace(gateway, loads=frozenset(chosen))], absent):
            if relay != DIRECT and place != IDLE:
                yield place, figures
    if absent:
        raise SystemExit(f"the gateway {absent[gateway.name]}")


def _table(rows: Mapping[str, Mapping[str, Summary]]) -> Table:
    shown = Table(title="What the gateway takes as it grows: median (min-max)")
    names = [name for name in FIGURES if any(name in of for of in rows.values())]
    for column in ("", *names):
        shown.add_column(column)
    for place, of in rows.items():
        shown.add_row(place, *(_text(of.get(name)) for name in names))
    return shown


def _text(of: Summary | None) -> str:
    return "" if of is None else f"{of.median:g} ({of.min:g}-{of.max:g})"


if __name__ == "__main__":
    main()
