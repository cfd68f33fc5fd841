"""How good predictions are, in simulated worlds: six traces, each in six regimes.

    TIDEGATE_DATA=FOLDER python -m bench.predict [--only azure-conv,agents] [--regimes light,busy] [--jobs 2]

Of each attempt, what the router predicted when it was sent is compared with what was measured at its end, after the
first 200 requests of its endpoint. Beside it stands a batch-fitted model of gradient-boosted trees, with the same
features. Worlds are in `bench/predict_worlds.py`, figures in `bench/predict_figures.py`.

The gateway estimates a prompt's tokens from its bytes, which is off by 10 % in the median. No prediction of what takes
a time for each token can be better; `--exact-tokens` tells what is left without that error.

A whole run writes bench/results/predict.json, with `_exact` or `_holdout` in its name where these are asked for.
`--rows FOLDER` writes what was seen, a file for each world. `--holdout` takes the seed that nothing was tuned on, and
is for the end.
"""

import os

# Trees are fitted in one thread for each world; libraries read this when they are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Iterable, Sequence
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from bench.predict_figures import (
    Bias,
    Bucket,
    Errors,
    Recovery,
    Whole,
    bias,
    buckets,
    errors,
    noise_floor,
    recovery,
    whole,
)
from bench.predict_reference import reference
from bench.predict_settings import CAMPUS, HOLDOUT, OWN, QUANTILE, SETTINGS, VENDOR, Regime
from bench.predict_tap import FEATURES, Row
from bench.predict_worlds import Played, play
from bench.promise import Promise
from bench.record import record
from tidegate import clock
from tidegate.sim import api
from tidegate.sim.ask import BYTES_SIGMA

ERROR_MAX = 0.08
RATIO_MAX = 1.15
INSIDE_MIN = 0.9
PINBALL_MAX = 1.1
OFF_MAX = 0.05
RECOVERED_MAX = 20
AFFECTED = {Regime.SLOW_ENGINE: OWN, Regime.SLOW_LINK: CAMPUS}


class Judged(msgspec.Struct, kw_only=True):
    """One endpoint of a world. `ttft_floor` and `tpot_floor` are the errors of who knows a vendor's medians."""

    endpoint: str
    attempts: int
    ttft: Errors | None
    tpot: Errors | None
    ttft_floor: float | None
    tpot_floor: float | None
    buckets: list[Bucket]
    pinball_ratio: float | None
    bias: Bias | None
    whole: Whole | None


class World(msgspec.Struct, kw_only=True):
    """One world. `recovery` is None where nothing changes."""

    trace: str
    regime: str
    seed: int
    requests: int
    refused: int
    duration_s: float
    busy_share: dict[str, float]
    prior_factors: dict[str, float]
    recovery: Recovery | None
    endpoints: list[Judged]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.trace} {self.regime}"


class Task(msgspec.Struct, frozen=True):
    """A world that is to be played."""

    data: Path
    trace: str
    regime: Regime
    seed: int
    rows: Path | None
    bytes_sigma: float


# --- one world ----------------------------------------------------------------------------------------------------


def judge(task: Task) -> World:
    """Play it, and see how good predictions were."""
    played = play(task.data, task.trace, task.regime, task.seed, task.bytes_sigma)
    if task.rows is not None:
        _write(task.rows, played)
    recovered = None
    if played.changed_s is not None:
        recovered = recovery(played.rows[AFFECTED[task.regime]], played.changed_s)
    return World(
        trace=task.trace,
        regime=task.regime,
        seed=task.seed,
        requests=played.requests,
        refused=played.refused,
        duration_s=played.duration_s,
        busy_share=played.busy_share,
        prior_factors=played.prior_factors,
        recovery=recovered,
        endpoints=[_judged(task.trace, name, rows) for name, rows in sorted(played.rows.items())],
    )


def _judged(trace: str, name: str, rows: Sequence[Row]) -> Judged:
    sold = api.PRESETS[SETTINGS[trace].vendor] if name == VENDOR else None
    found = buckets(rows, QUANTILE)
    best = sum(one.pinball_best for one in found)
    return Judged(
        endpoint=name,
        attempts=len(rows),
        ttft=errors(rows, reference(rows, _ttft_s), _ttft_s, lambda row: row.predicted.ttft_s),
        tpot=errors(rows, reference(rows, _tpot_s), _tpot_s, lambda row: row.predicted.tpot_s),
        ttft_floor=None if sold is None else noise_floor(sold.ttft_spread),
        tpot_floor=None if sold is None else noise_floor(sold.tpot_spread),
        buckets=found,
        pinball_ratio=sum(one.pinball for one in found) / best if best else None,
        bias=bias(rows),
        whole=whole(rows),
    )


def _ttft_s(row: Row) -> float | None:
    return row.ttft_s


def _tpot_s(row: Row) -> float | None:
    return row.tpot_s


def _write(folder: Path, played: Played) -> None:
    """Every attempt as a line of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    encode = msgspec.json.Encoder().encode
    with (folder / f"{played.trace}.{played.regime}.{played.seed}.jsonl").open("wb") as file:
        for name, rows in sorted(played.rows.items()):
            for row in rows:
                named = dict(zip(FEATURES, row.features, strict=True))
                line = {"endpoint": name, "changed_s": played.changed_s, **msgspec.to_builtins(row), "features": named}
                file.write(encode(line) + b"\n")


# --- all of them --------------------------------------------------------------------------------------------------


def lines(worlds: Sequence[World]) -> list[Promise]:
    """What there is to be kept, of our own engines; the vendor's is apart."""
    own = [(world, one) for world in worlds for one in world.endpoints if one.endpoint != VENDOR]
    sold = [(world, one) for world in worlds for one in world.endpoints if one.endpoint == VENDOR]
    made = [
        _error_line("TTFT", [(f"{w.name} {e.endpoint}", e.ttft) for w, e in own]),
        _error_line("TPOT", [(f"{w.name} {e.endpoint}", e.tpot) for w, e in own]),
        _coverage_line("coverage of the 95 % quantile, ours", own),
        _coverage_line("coverage of the 95 % quantile, vendor (apart)", sold),
        _pinball_line("pinball loss, ours", own),
        _pinball_line("pinball loss, vendor (apart)", sold),
        _whole_line(own),
        _recovery_line(worlds),
        *_vendor_lines(sold),
        _bias_line(own),
    ]
    return [one for one in made if one is not None]


def _error_line(what: str, of: Iterable[tuple[str, Errors | None]]) -> Promise:
    known = [(name, one) for name, one in of if one is not None]
    losing = [(name, one) for name, one in known if one.ours > ERROR_MAX or one.ratio > RATIO_MAX]
    losing.sort(key=lambda pair: -pair[1].ours)
    middle = median(one.ours for _, one in known)
    within = sum(one.ours <= ERROR_MAX for _, one in known)
    as_good = sum(one.ratio <= RATIO_MAX for _, one in known)
    return Promise(
        promise=f"{what}: median error <= 8 %, and no more than 1.15 times the reference's",
        kept=not losing,
        found=f"median of {len(known)}: {middle:.1%} (reference {median(o.reference for _, o in known):.1%}); "
        f"within 8 %: {within}, as good as the reference: {as_good}",
        losing=[f"{name}: {one.ours:.1%}, {one.ratio:.2f} x reference" for name, one in losing],
    )


def _coverage_line(what: str, of: Sequence[tuple[World, Judged]]) -> Promise | None:
    known = [(f"{w.name} {e.endpoint}", one) for w, e in of for one in e.buckets]
    if not known:
        return None
    share = sum(one.inside for _, one in known) / len(known)
    overall = sum(one.covered * one.rows for _, one in known) / sum(one.rows for _, one in known)
    losing = sorted(((name, one) for name, one in known if not one.inside), key=lambda pair: pair[1].covered)
    return Promise(
        promise=f"{what}: inside its interval in 90 % of buckets",
        kept=share >= INSIDE_MIN,
        found=f"{share:.1%} of {len(known)} buckets; covered {overall:.1%}",
        losing=[f"{n}, prompt {o.prompt}, load {o.load}: {o.covered:.1%} of {o.rows}" for n, o in losing],
    )


def _pinball_line(what: str, of: Sequence[tuple[World, Judged]]) -> Promise | None:
    known = [(f"{w.name} {e.endpoint}", e.pinball_ratio) for w, e in of if e.pinball_ratio]
    if not known:
        return None
    mean = exp(sum(log(ratio) for _, ratio in known) / len(known))
    losing = sorted(((name, ratio) for name, ratio in known if ratio > PINBALL_MAX), key=lambda pair: -pair[1])
    return Promise(
        promise=f"{what}: at most 1.1 times that of the best constant quantile in hindsight",
        kept=mean <= PINBALL_MAX,
        found=f"geometric mean {mean:.2f}; {len(known) - len(losing)} of {len(known)} within",
        losing=[f"{name}: {ratio:.2f}" for name, ratio in losing],
    )


def _whole_line(of: Sequence[tuple[World, Judged]]) -> Promise | None:
    known = [(f"{w.name} {e.endpoint}", e.whole) for w, e in of if e.whole is not None]
    if not known:
        return None
    known.sort(key=lambda pair: -pair[1].attainment_off)
    rows = sum(one.rows for _, one in known)
    losing = [(name, one) for name, one in known if one.attainment_off > OFF_MAX]
    return Promise(
        promise="drawn promises of TTFT, TPOT and E2E together: kept as often as predicted (no bound; 5 % is told)",
        kept=not losing,
        found=f"off by {sum(one.attainment_off * one.rows for _, one in known) / rows:.1%} on average; end to end "
        f"{sum(one.e2e_covered * one.rows for _, one in known) / rows:.1%} within the 95 % quantile",
        losing=[f"{name}: off by {one.attainment_off:.1%}, E2E covered {one.e2e_covered:.1%}" for name, one in losing],
    )


def _recovery_line(worlds: Sequence[World]) -> Promise | None:
    known = [(world.name, world.recovery) for world in worlds if world.recovery is not None]
    if not known:
        return None
    losing = [(name, one) for name, one in known if one.after is None or one.after > RECOVERED_MAX]
    losing.sort(key=lambda pair: (pair[1].after is not None, -(pair[1].after or 0)))
    return Promise(
        promise="after a change: median TTFT error back under 15 % within 20 requests",
        kept=not losing,
        found=f"{len(known) - len(losing)} of {len(known)}",
        losing=[f"{n}: {_after(one)}, and before the change {one.before:.0%} of the time" for n, one in losing],
    )


def _after(one: Recovery) -> str:
    return "never" if one.after is None else str(one.after)


def _vendor_lines(of: Sequence[tuple[World, Judged]]) -> list[Promise]:
    made = []
    for what in ("ttft", "tpot"):
        known = [
            (w.name, found, floor)
            for w, e in of
            if (found := getattr(e, what)) is not None and (floor := getattr(e, f"{what}_floor")) is not None
        ]
        if not known:
            continue
        losing = [one for one in known if one[1].ratio > RATIO_MAX]
        losing.sort(key=lambda one: -one[1].ratio)
        made.append(
            Promise(
                promise=f"vendor's {what.upper()} (apart): no more than 1.15 times the reference's error",
                kept=not losing,
                found=f"median {median(one.ours for _, one, _ in known):.1%} where the noise floor is "
                f"{median(floor for _, _, floor in known):.1%}",
                losing=[f"{n}: {o.ours:.1%}, floor {f:.1%}, {o.ratio:.2f} x reference" for n, o, f in losing],
            )
        )
    return made


def _bias_line(of: Sequence[tuple[World, Judged]]) -> Promise:
    known = [(f"{w.name} {e.endpoint}", e.bias) for w, e in of if e.bias is not None]
    known.sort(key=lambda pair: -abs(log(pair[1].occupancy)))
    lengths, ttft = median(one.occupancy_by_length for _, one in known), median(one.ttft for _, one in known)
    return Promise(
        promise="bias: predicted over actual occupancy, true output lengths (no bound; 5 % is told)",
        kept=all(0.95 <= one.occupancy <= 1.05 for _, one in known),
        found=f"median {median(one.occupancy for _, one in known):.3f}, with predicted lengths {lengths:.3f}, "
        f"of TTFT alone {ttft:.3f}",
        losing=[f"{name}: {one.occupancy:.2f}" for name, one in known if not 0.95 <= one.occupancy <= 1.05],
    )


# --- to be read ---------------------------------------------------------------------------------------------------


def show(worlds: Sequence[World], found: Sequence[Promise]) -> None:
    """Tables: every endpoint, and every promise with who breaks it."""
    console = Console(width=150)
    table = Table(
        "world", "endpoint", "rows", "TTFT", "x ref", "TPOT", "x ref", "inside", "pinball", "bias", "back after"
    )
    for world in worlds:
        for one in world.endpoints:
            affected = AFFECTED.get(Regime(world.regime)) == one.endpoint
            table.add_row(
                world.name,
                one.endpoint,
                str(one.attempts),
                *_cells(one.ttft, one.ttft_floor),
                *_cells(one.tpot, one.tpot_floor),
                f"{sum(b.inside for b in one.buckets)}/{len(one.buckets)}",
                "-" if one.pinball_ratio is None else f"{one.pinball_ratio:.2f}",
                "-" if one.bias is None else f"{one.bias.occupancy:.2f}",
                _after(world.recovery) if affected and world.recovery is not None else "",
            )
    console.print(table)
    for line in found:
        console.print(f"[bold]{'kept  ' if line.kept else 'BROKEN'}[/] {line.promise}: {line.found}")
        for losing in line.losing[:12]:
            console.print(f"         {losing}")
        if len(line.losing) > 12:
            console.print(f"         and {len(line.losing) - 12} more")


def _cells(one: Errors | None, floor: float | None) -> tuple[str, str]:
    if one is None:
        return "-", "-"
    return f"{one.ours:.1%}" + ("" if floor is None else f" ({floor:.1%})"), f"{one.ratio:.2f}"


def written(worlds: Sequence[World], found: Sequence[Promise]) -> dict[str, object]:
    """What is kept of it: of buckets their number, since those that lose are among the lines."""
    whole = msgspec.to_builtins({"lines": found, "worlds": worlds})
    for world in whole["worlds"]:
        for one in world["endpoints"]:
            parts = one["buckets"]
            one["buckets"] = {"inside": sum(part["inside"] for part in parts), "all": len(parts)}
    made = rounded(whole)
    assert isinstance(made, dict)
    return made


def rounded(value: object) -> object:
    """Four digits, so that a diff of results can be read."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    """Play, print, write down."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict")
    parser.add_argument("--only", default="", help="traces, with commas between them")
    parser.add_argument("--regimes", default="", help="regimes, with commas between them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--holdout", action="store_true", help=f"seed {HOLDOUT}, which nothing was tuned on")
    parser.add_argument("--exact-tokens", action="store_true", help="prompts' tokens are estimated without an error")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=None, help="a folder for what was seen")
    asked = parser.parse_args()
    traces = asked.only.split(",") if asked.only else list(SETTINGS)
    regimes = [Regime(name) for name in asked.regimes.split(",")] if asked.regimes else list(Regime)
    seed = HOLDOUT if asked.holdout else asked.seed
    data = Path(os.environ["TIDEGATE_DATA"])
    sigma = 0.0 if asked.exact_tokens else BYTES_SIGMA
    tasks = [Task(data, trace, regime, seed, asked.rows, sigma) for trace in traces for regime in regimes]
    begun_s = clock.Clock().now_s()
    with get_context("spawn").Pool(asked.jobs) as pool:
        worlds = pool.map(judge, tasks, chunksize=1)
    found = lines(worlds)
    if len(worlds) == len(SETTINGS) * len(Regime):
        name = "predict" + "_holdout" * asked.holdout + "_exact" * asked.exact_tokens
        record(name, {"seed": seed, "bytes_sigma": sigma, "quantile": QUANTILE, **written(worlds, found)})
    show(worlds, found)
    print(f"{len(worlds)} worlds in {clock.Clock().now_s() - begun_s:.0f} s")


if __name__ == "__main__":
    main()
