"""Exploring in a simulated world: two vendors, one of which was slow for ten minutes and is what it was again.
`python -m tests.sim.test_exploring` prints what docs/explanation/exploring.md quotes.
"""

from statistics import mean
from typing import Any

import pytest

from tidegate.core.model import Line
from tidegate.core.replay import replay
from tidegate.core.why import Why
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

SLOW_S, SLOW_FOR_S, DURATION_S, LONG_S = 300.0, 600.0, 2400.0, 14_400.0
SHARES, SEEDS = (0.01, 0.02, 0.1), (1, 2, 3)
WORTH_USD = 0.01
EQUAL = {"north": 1.0, "south": 1.0}
CHEAPER = {"north": 0.9, "south": 1.0}
"""What the vendors ask for a million tokens. The first of them is the one that becomes slow."""
WORLDS = {"equal": EQUAL, "cheaper": CHEAPER}
TEXT = """
[world]
duration_s = {duration_s}
probe_s = 5
seed = {seed}
[policy]
explore_share = {share}
[class.interactive]
slo = {{ ttft_ms = {ttft_ms} }}
worth_usd = {worth_usd}
[[traffic]]
model = "m"
rate_per_s = {rate_per_s}
prompt_tokens = {{ median = 600, sigma = 0.8, most = 3000 }}
output_tokens = 100
[[fault]]
kind = "slow"
endpoint = "north"
factor = {factor}
at_s = {slow_s}
for_s = {slow_for_s}
"""
VENDOR = """
[world.endpoint.{name}]
api = {{ ttft_s = 0.4, tpot_s = 0.015, ttft_spread = {{ sigma = 0.3 }}, tpot_spread = {{ sigma = 0.2 }} }}
[site.{name}]
local = false
[endpoint.{name}]
site = "{name}"
engine = "openai"
serves = ["m"]
context_tokens = 32768
concurrency = 64
price = {{ usd_per_1m_input_tokens = {usd}, usd_per_1m_output_tokens = {usd} }}
"""


def played(
    share: float,
    *,
    prices: dict[str, float] = EQUAL,
    seed: int = 1,
    ttft_ms: int = 4000,
    factor: float = 4.0,
    rate_per_s: float = 1.0,
    duration_s: float = DURATION_S,
) -> tuple[list[Outcome], list[Line], float]:
    """What came of it, the journal, and when it began."""
    text = TEXT.format(
        share=share,
        worth_usd=WORTH_USD,
        seed=seed,
        ttft_ms=ttft_ms,
        factor=factor,
        rate_per_s=rate_per_s,
        duration_s=duration_s,
        slow_s=SLOW_S,
        slow_for_s=SLOW_FOR_S,
    )
    text += "".join(VENDOR.format(name=name, usd=usd) for name, usd in prices.items())
    lines: list[Line] = []
    scenario = parse(text, "exploring.toml")
    return play(scenario, journal=lines.append).outcomes, lines, scenario.start_s


def figures(share: float, *, duration_s: float = DURATION_S, **world: Any) -> dict[str, float]:
    """Means of all requests, and of those that came when the slow one was what it had been again."""
    outcomes, _, start_s = played(share, duration_s=duration_s, **world)
    later = [one for one in outcomes if one.request.arrived_s - start_s >= SLOW_S + SLOW_FOR_S]
    return {
        "explored": mean(one.why is Why.EXPLORES for one in outcomes),
        "kept": mean(one.kept for one in outcomes),
        "value": mean(WORTH_USD * one.kept - one.usd for one in outcomes),
        "ttft": mean(one.ttft_s or 0.0 for one in outcomes),
        "there": mean(one.endpoint == "north" for one in later),
        "usd": mean(one.usd for one in later),
    }


@pytest.fixture(scope="module")
def found() -> dict[float, dict[str, float]]:
    return {share: figures(share, prices=CHEAPER) for share in (0.0, 0.1)}


@pytest.mark.slow
def test_who_was_slow_and_is_not_asked_stays_slow_as_far_as_anybody_knows(found: dict[float, dict[str, float]]) -> None:
    assert found[0.0]["explored"] == 0.0
    assert found[0.0]["there"] == 0.0


@pytest.mark.slow
def test_exploring_finds_that_it_is_well_again_and_cheaper(found: dict[float, dict[str, float]]) -> None:
    assert found[0.1]["there"] > 0.5
    assert found[0.1]["usd"] < 0.97 * found[0.0]["usd"]


@pytest.mark.slow
def test_promises_are_kept_while_some_explore(found: dict[float, dict[str, float]]) -> None:
    assert found[0.1]["explored"] == pytest.approx(0.1, abs=0.02)
    assert found[0.1]["kept"] > found[0.0]["kept"] - 0.005


def test_a_journal_of_a_world_that_explores_replays() -> None:
    outcomes, lines, _ = played(0.1, duration_s=600.0)
    assert any(one.why is Why.EXPLORES for one in outcomes)
    assert replay(lines).difference is None


def table() -> None:
    """What became of each share."""
    for name, prices in WORLDS.items():
        for ttft_ms, duration_s in ((2000, DURATION_S), (4000, DURATION_S), (10_000, DURATION_S), (4000, LONG_S)):
            world: dict[str, Any] = {"prices": prices, "ttft_ms": ttft_ms, "duration_s": duration_s}
            without = [figures(0.0, seed=seed, **world) for seed in SEEDS]
            print(
                f"{name}, {ttft_ms} ms, {duration_s / 60:.0f} min; there {_each(without, 'there', 100)} %", flush=True
            )
            for share in SHARES:
                some = [figures(share, seed=seed, **world) for seed in SEEDS]
                gained = [100 * (a["value"] / b["value"] - 1) for a, b in zip(some, without, strict=True)]
                slower_ms = [1000 * (a["ttft"] - b["ttft"]) for a, b in zip(some, without, strict=True)]
                missed = [100 * (b["kept"] - a["kept"]) for a, b in zip(some, without, strict=True)]
                print(
                    f"  {share:.0%}: value {_told(gained, '+.2f')} %, there {_each(some, 'there', 100)} %, "
                    f"missed {_told(missed, '+.2f')} %, first token {_told(slower_ms, '+.0f')} ms",
                    flush=True,
                )


def _each(some: list[dict[str, float]], what: str, times: float) -> str:
    return _told([times * one[what] for one in some], ".0f")


def _told(numbers: list[float], form: str) -> str:
    return ", ".join(format(number, form) for number in numbers)


if __name__ == "__main__":
    table()
