"""What the networks of the simulator are fitted to, beside the constants that are shipped.

    TIDEGATE_DATA=... python -m bench.fit_network

Reads profiles of the Skyplane project (Apache-2.0; RTT of 2022-04, throughput of 2022-01 between regions of AWS, Azure
and GCP) and FCC Measuring Broadband America 2016 in the compilation of confiwent/Real-world-bandwidth-traces (MIT).
"""

import csv
import gzip
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from tidegate.sim.network import PRESETS, Regimes

SHARES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
FIRST_RUN = "2022.01.24"
CONNECTIONS = 64
# Round trips, in ms, between regions of one metropolis, of one continent, and of two.
DISTANCES = {"metro": (0.0, 5.0), "continent": (5.0, 80.0), "ocean": (80.0, 1000.0)}

Pair = tuple[str, str, str, str]


def rows(name: str) -> Iterator[dict[str, str]]:
    """The rows of a file of the data folder."""
    with gzip.open(Path(os.environ["TIDEGATE_DATA"]) / name, "rt") as file:
        yield from csv.DictReader(file)


def quantiles(values: Iterable[float], shares: Sequence[float] = SHARES) -> list[float]:
    """The least values that so many are below."""
    ordered = sorted(values)
    return [ordered[int(share * (len(ordered) - 1))] for share in shares]


def pair(row: dict[str, str]) -> Pair:
    """Which way a row measured."""
    return row["src_region"], row["src_tier"], row["dst_region"], row["dst_tier"]


def throughputs() -> dict[Pair, dict[str, float]]:
    """Bytes per second received, by pair and run."""
    found: dict[Pair, dict[str, float]] = defaultdict(dict)
    for row in rows("network/skyplane_throughput_2022-01.csv.gz"):
        if row["success"] == "True" and float(row["throughput_received"] or 0.0) > 0.0:
            found[pair(row)].setdefault(row["run_tag"], float(row["throughput_received"]) / 8.0)
    return found


def rate_ratios() -> list[float]:
    """Throughput of one pair, over what it was five days before."""
    ratios = []
    for runs in throughputs().values():
        first = [rate for tag, rate in runs.items() if tag.startswith(FIRST_RUN)]
        later = [rate for tag, rate in runs.items() if not tag.startswith(FIRST_RUN)]
        if first and later:
            ratios.append(later[0] / first[0])
    return ratios


def rtts() -> list[tuple[Pair, float, float | None]]:
    """Pair, mean round trip in ms, and its deviation where it was measured."""
    return [
        (pair(row), float(row["avg_rtt"]), float(row["mdev_rtt"]) if row["mdev_rtt"] else None)
        for row in rows("network/skyplane_rtt_2022-04.csv.gz")
    ]


def rtt_ratios() -> list[float]:
    """Round trips from both ends of one pair, the longer over the shorter: they were measured at different times."""
    means: dict[Pair, list[float]] = defaultdict(list)
    for which, mean_ms, _ in rtts():
        means[which].append(mean_ms)
    ratios = []
    for (src, src_tier, dst, dst_tier), there in means.items():
        back = means.get((dst, dst_tier, src, src_tier))
        if src < dst and back:
            low, high = sorted((sum(there) / len(there), sum(back) / len(back)))
            ratios.append(high / low)
    return ratios


def rtt_factors(ratios: Sequence[float]) -> list[tuple[float, float]]:
    """Factors over the least round trip whose ratios in two draws are these: few long ones, and hardly ever both."""
    return [(share, quantiles(ratios, [2.0 * share - 1.0])[0]) for share in (0.50, 0.75, 0.90, 0.95, 0.975, 0.99)]


def broadband_shape() -> list[float]:
    """Rates of home connections within 5 s, over the median of their own trace."""
    traces: dict[str, list[float]] = defaultdict(list)
    for row in rows("network/fcc_mba2016_bandwidth.csv.gz"):
        traces[row["trace"]].append(float(row["mbps"]))
    return [rate / median(trace) for trace in traces.values() for rate in trace if rate > 0.0]


def without_zone(region: str) -> str:
    """GCP names zones in one file, and regions in the other."""
    return region.rsplit("-", 1)[0] if region.startswith("gcp:") and region.count("-") == 2 else region


def distance(name: str) -> tuple[float, float, float]:
    """Medians of round trip in seconds, of jitter, and of bytes per second at one of the distances."""
    low, high = DISTANCES[name]
    near = [row for row in rtts() if low <= row[1] < high]
    ways = {(which[0], which[2]) for which, _, _ in near}
    # A probe takes exp(jitter |z|) times the least, with a deviation of 0.6 jitter.
    jitter = median(mdev_ms / mean_ms / 0.6 for _, mean_ms, mdev_ms in near if mdev_ms is not None)
    rates = [
        rate
        for which, runs in throughputs().items()
        for rate in runs.values()
        if (without_zone(which[0]), without_zone(which[2])) in ways
    ]
    return median(mean_ms for _, mean_ms, _ in near) / 1000.0, jitter, median(rates)


def distances() -> None:
    """Round trips, jitter and rates by distance, beside what is shipped."""
    for name in DISTANCES:
        rtt_s, jitter, rate = distance(name)
        shipped = PRESETS[name]
        print(f"{name}: fitted rtt_s {rtt_s:.4f}, jitter {jitter:.4f}, rate {rate:.3g} B/s,", end=" ")
        print(f"one of 64 connections {rate / CONNECTIONS:.3g} B/s", end="; ")
        print(
            f"shipped rtt_s {shipped.rtt_s}, jitter {shipped.jitter}, rate {shipped.upload_bytes_per_s:.3g} B/s,",
            end=" ",
        )
        print(f"one connection {shipped.flow_bytes_per_s:.3g} B/s at loss {shipped.loss}")


def regimes(name: str, factors: Iterable[tuple[float, float]], shipped: Regimes) -> None:
    """A fit beside what is shipped."""
    print(f"{name}: fitted", [(share, round(factor, 3)) for share, factor in factors], "shipped", shipped.quantiles)


def main() -> None:
    """Print all of it."""
    distances()
    regimes("rate", zip(SHARES, quantiles(rate_ratios()), strict=True), PRESETS["ocean"].rate_regimes)
    regimes("round trip", rtt_factors(rtt_ratios()), PRESETS["ocean"].rtt_regimes)
    shape = zip(SHARES, quantiles(broadband_shape()), strict=True)
    regimes("broadband", shape, PRESETS["home-broadband"].rate_regimes)


if __name__ == "__main__":
    main()
