"""Whether previews keep what they say: a policy is changed in the second of two simulated weeks, a hundred times.

    python -m bench.preview [--holdout] [--trials 100] [--speed]

Of the first week there is the journal alone, under the policy in force. A preview says what the other one would save,
and between which bounds nine of ten weeks lie. The second week is another one of the same world: other arrivals, other
lengths, other times; it is played under both policies, and what is saved in truth is counted. Weeks are as short as
their scenarios, since hours of the same do not tell more. Scenarios, policies and seeds stand here, and were written
down before the width of intervals was chosen.

`--speed` times the command on a journal of 100,000 requests.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import msgspec
from rich.console import Console
from rich.progress import track

from bench.record import record
from tidegate.core.model import Line
from tidegate.sim.changed import changed
from tidegate.sim.observed import known, observe
from tidegate.sim.outcome import Outcome
from tidegate.sim.preview import Interval, preview
from tidegate.sim.scenario import load
from tidegate.sim.stage import play
from tidegate.sim.twin import played, twin

SCENARIOS = ("laptop-and-cloud", "rate-limited-vendor", "crash-at-peak", "long-context")
POLICIES = {
    "in a hurry": "[class.interactive]\nslo = { ttft_ms = 700, tpot_ms = 60 }\n",
    "thrifty": "[class.interactive]\nslo = { ttft_ms = 4000, tpot_ms = 200 }\nworth_usd = 0.001\n",
    "impatient": "[policy]\nhold_s_max = 1\nattempts_max = 1\nhedge_share = 0.0\n",
}
TRIALS = 100
FIRST, FIRST_HOLDOUT = 1, 1_001
OTHER_WEEK = 500_000
SPEED_REQUESTS, SPEED_S = 100_000, 900.0


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One of them: dollars saved of a thousand requests, and promises kept more, as said and as they were."""

    scenario: str
    policy: str
    seed: int
    requests: int
    off_usd: float
    saved: Interval
    saved_truly: float
    kept: Interval
    kept_truly: float

    @property
    def holds(self) -> bool:
        """Whether what was saved lies where it was said to."""
        return self.saved.low <= self.saved_truly <= self.saved.high


def trial(number_seed: tuple[int, int]) -> Trial:
    """Two weeks of one world."""
    number, seed = number_seed
    name = SCENARIOS[number % len(SCENARIOS)]
    called = list(POLICIES)[number // len(SCENARIOS) % len(POLICIES)]
    file = Path("scenarios") / f"{name}.toml"
    lines: list[Line] = []
    play(load(file, seed=seed), journal=lines.append)
    observed = observe(lines)
    world = twin(observed, known(lines))
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as written:
        written.write(POLICIES[called])
        written.flush()
        other_file = Path(written.name)
        other = changed(other_file, observed.policy, observed.endpoints, [one.request for one in observed.asked])
        found = preview(observed, played(world, observed.policy), played(world, other.policy, changed=other))
        was = play(load(file, seed=seed + OTHER_WEEK)).outcomes
        would = play(load(file, policy=other_file, seed=seed + OTHER_WEEK)).outcomes
    assert found.kept_more is not None, "a world sees each answer come"
    return Trial(
        scenario=name,
        policy=called,
        seed=seed,
        requests=len(observed.asked),
        off_usd=found.backtest.usd,
        saved=found.saved_usd_per_1k,
        saved_truly=_usd_per_1k(was) - _usd_per_1k(would),
        kept=found.kept_more,
        kept_truly=_kept(would) - _kept(was),
    )


def _usd_per_1k(outcomes: list[Outcome]) -> float:
    return 1000.0 * sum(one.usd for one in outcomes) / len(outcomes)


def _kept(outcomes: list[Outcome]) -> float:
    return sum(one.kept for one in outcomes) / len(outcomes)


def speed() -> dict[str, float]:
    """Seconds that the command takes for a journal of 100,000 requests."""
    scenario = load(Path("scenarios/rack-and-burst.toml"), seed=1)
    # As many times as long.
    requests = len(play(scenario).outcomes)
    world = msgspec.structs.replace(scenario.world, duration_s=SPEED_S * SPEED_REQUESTS / requests)
    encode = msgspec.json.Encoder().encode
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "journal-20231114T221320000Z-1-000000.jsonl").open("wb") as file:

            def write(line: Line) -> None:
                file.write(encode(line) + b"\n")

            asked = len(play(msgspec.structs.replace(scenario, world=world), journal=write).outcomes)
        policy = folder / "policy.toml"
        policy.write_text(POLICIES["thrifty"])
        began_s = perf_counter()
        command = [sys.executable, "-m", "tidegate.cli.main", "preview", str(policy), "--journal", name, "--json"]
        subprocess.run(command, check=True, capture_output=True)
        return {"requests": asked, "seconds": perf_counter() - began_s}


def main() -> None:
    """Play all trials, show who was wrong, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holdout", action="store_true", help="the seeds that nothing was tuned on")
    parser.add_argument("--trials", type=int, default=TRIALS, help="how many; fewer are not written down")
    parser.add_argument("--speed", action="store_true", help="time the command instead")
    options = parser.parse_args()
    if options.speed:
        record("preview_speed", dict(speed()))
        return
    first, console = FIRST_HOLDOUT if options.holdout else FIRST, Console()
    tasks = [(number, first + number) for number in range(options.trials)]
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        done = pool.imap(trial, tasks)
        found = list(track(done, "trials", total=len(tasks), console=console, disable=not console.is_terminal))
    for one in found:
        if not one.holds:
            said = f"{one.saved.figure:+.4f} ({one.saved.low:+.4f} to {one.saved.high:+.4f})"
            console.print(f"{one.scenario} {one.seed}, {one.policy}: said {said}, was {one.saved_truly:+.4f}")
    holds, kept = (
        sum(one.holds for one in found),
        sum(one.kept.low <= one.kept_truly <= one.kept.high for one in found),
    )
    console.print(f"{holds} of {len(found)} within their interval; of promises kept {kept}")
    if options.trials == TRIALS:
        rows = [msgspec.to_builtins(one) for one in found]
        figures = {"trials": len(found), "within": holds, "kept_within": kept, "rows": rows}
        record("preview_holdout" if options.holdout else "preview", figures)


if __name__ == "__main__":
    main()
