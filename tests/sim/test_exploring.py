"""Exploring in a simulated world: two vendors, one of which was slow for ten minutes and is what it was again.
`python -m tests.sim.test_exploring` prints what docs/explanation/exploring.md quotes.
"""

from statistics import mean

import pytest

from tidegate.core.model import Line
from tidegate.core.replay import replay
from tidegate.core.why import Why
from tidegate.sim.outcome import Outcome
from tidegate.sim.scenario import parse
from tidegate.sim.stage import play

SLOW_S, SLOW_FOR_S, DURATION_S = 300.0, 600.0, 2400.0
SHARES = (0.0, 0.01, 0.02, 0.1)
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
worth_usd = 0.01
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


def after(outcomes: list[Outcome], start_s: float, begin_s: float, end_s: float) -> list[Outcome]:
    return [one for one in outcomes if begin_s <= one.request.arrived_s - start_s < end_s]


def row(share: float, **world: object) -> dict[str, float]:
    outcomes, _, start_s = played(share, **world)  # type: ignore[arg-type]
    after_it = after(outcomes, start_s, SLOW_S + SLOW_FOR_S, DURATION_S)
    return {
        "explored": mean(one.why is Why.EXPLORES for one in outcomes),
        "kept": mean(one.kept for one in outcomes),
        "value": sum(0.01 * one.kept - one.usd for one in outcomes) / len(outcomes),
        "usd": sum(one.usd for one in outcomes) / len(outcomes),
        "ttft": mean(one.ttft_s or 0.0 for one in outcomes),
        "there after": mean(one.endpoint == "north" for one in after_it),
        "ttft after": mean(one.ttft_s or 0.0 for one in after_it),
        "usd after": mean(one.usd for one in after_it),
    }


def table() -> None:
    """What became of each share."""
    for name, prices in WORLDS.items():
        for ttft_ms in (2000, 4000, 10_000):
            for seed in (1, 2, 3):
                for share in SHARES:
                    found = row(share, prices=prices, seed=seed, ttft_ms=ttft_ms)
                    told = ", ".join(f"{what} {figure:.6g}" for what, figure in found.items())
                    print(f"{name}, {ttft_ms} ms, seed {seed}, share {share:.0%}: {told}", flush=True)


if __name__ == "__main__":
    table()
