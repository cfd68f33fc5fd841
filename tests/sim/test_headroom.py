"""Batch work beside people on an engine of ours with few slots, and an API that asks money. `python -m
tests.sim.test_headroom` prints what docs/explanation/holding.md quotes.
"""

from statistics import fmean

import pytest

from tests.sim.test_scenario import FAR, HEAD, OWN
from tidegate.core.model import Line
from tidegate.core.replay import replay
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

WORLDS = {2: (0.3, 0.15, 3600.0), 4: (0.6, 0.4, 1800.0), 8: (1.5, 0.8, 1200.0), 16: (3.5, 1.6, 600.0)}
"""By slots: requests of people and of batch work per second, and for how long."""


def played(slots: int, people: float, batch: float, duration_s: float, seed: int) -> tuple[list[Outcome], list[Line]]:
    lengths = "prompt_tokens = {{ median = {}, sigma = 0.9, most = 4000 }}\n" + (
        "output_tokens = {{ median = {}, sigma = 0.7, most = {} }}\n"
    )
    traffic = f'[[traffic]]\nmodel = "m"\nrate_per_s = {people}\n{lengths.format(500, 120, 1000)}' if people else ""
    traffic += f'[[traffic]]\nmodel = "m"\nclasses = {{ batch = 1 }}\nrate_per_s = {batch}\nlaw = "gamma"\ncv = 3\n'
    traffic += lengths.format(800, 300, 2000)
    head = HEAD.replace("concurrency = 4", f"concurrency = {slots}")
    lines: list[Line] = []
    text = f"[world]\nduration_s = {duration_s}\nseed = {seed}\n{head}{OWN}{FAR}{traffic}"
    return play(parse(text, "s.toml"), journal=lines.append).outcomes, lines


def of(klass: str, outcomes: list[Outcome]) -> tuple[float, float, float]:
    """The share of its promises that were kept, its dollars, and the share of its requests that cost some."""
    some = [one for one in outcomes if one.request.klass.startswith(klass)]
    return fmean(one.kept for one in some), sum(one.usd for one in some), fmean(one.usd > 0.0 for one in some)


@pytest.mark.slow
def test_batch_work_leaves_room_for_people_and_is_in_time_all_the_same() -> None:
    outcomes, lines = played(4, 0.6, 0.3, 900.0, seed=1)
    people_kept, _, people_paid = of("interactive", outcomes)
    batch_kept, batch_usd, _ = of("batch", outcomes)
    assert people_kept > 0.98
    assert people_paid < 0.12
    assert batch_kept > 0.98
    assert batch_usd == 0.0
    assert replay(lines).difference is None


def test_without_people_batch_work_has_every_slot() -> None:
    outcomes, _ = played(2, 0.0, 0.5, 600.0, seed=1)
    begun = [(one.request.arrived_s + one.ttft_s, 1) for one in outcomes if one.ttft_s is not None]
    ended = [(one.ended_s, -1) for one in outcomes]
    running = most = 0
    for _, change in sorted(begun + ended):
        running += change
        most = max(most, running)
    assert most == 2


@pytest.mark.slow
def test_batch_work_is_held_for_as_long_as_its_promise_allows() -> None:
    outcomes, _ = played(2, 0.0, 0.6, 900.0, seed=2)
    held_s = [one.held_s for one in outcomes]
    assert max(held_s) > 150.0  # beyond policy.hold_s_max
    assert fmean(one.usd > 0.0 for one in outcomes) < 0.05


def table() -> None:
    """What people and batch work keep and pay."""
    for slots, world in WORLDS.items():
        rows = [
            [*of("interactive", found), *of("batch", found)]
            for seed in (1, 2, 3)
            for found in [played(slots, *world, seed)[0]]
        ]
        means = [fmean(column) for column in zip(*rows, strict=True)]
        print(
            f"{slots} slots: people kept {means[0]:.1%}, ${means[1]:.4f}, {means[2]:.1%} paid; "
            f"batch kept {means[3]:.1%}, ${means[4]:.4f}, {means[5]:.1%} paid",
            flush=True,
        )


if __name__ == "__main__":
    table()
