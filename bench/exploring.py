"""What exploring gains and costs where policies are judged: the same worlds with other shares of who explores.

    TIDEGATE_DATA=FOLDER python -m bench.exploring [--only azure-conv,mooncake] [--regimes outage,pools]

Prints, for each world and share, how many explored, and value and kept promises against nobody exploring.
"""

import argparse
import os
from functools import partial
from pathlib import Path

from bench.policy_figures import price_factors, tried
from bench.policy_settings import TRACES, Regime
from bench.policy_worlds import Case, chosen, play, scene
from tidegate.core.model import Endpoint, Policy, replace
from tidegate.core.router import Router
from tidegate.core.why import Why

SHARES = (0.01, 0.02)
# Of development: those that are held out begin at 1000.
SEEDS = (1, 2, 3)
REGIMES = "outage,stale,link-changing,step-drift,load-1.00,pools"


def explorer(share: float, endpoints: tuple[Endpoint, ...], policy: Policy) -> Router:
    """The router, with so many who explore."""
    return Router(endpoints, replace(policy, explore_share=share))


def told(data: Path, case: Case) -> list[str]:
    """One line for each share."""
    world = scene(data, case)
    factors = price_factors(world)
    without = tried(world, "", 0.0, play(world, Router), factors)
    lines = []
    for share in SHARES:
        outcomes = play(world, partial(explorer, share))
        found = tried(world, "", share, outcomes, factors)
        explored = sum(one.why is Why.EXPLORES for one in outcomes)
        value = found.value_each / without.value_each - 1.0
        kept = found.attainment - without.attainment
        lines.append(f"{case.name} {share:.0%}: {explored} explored, value {value:+.3%}, kept {kept:+.3%}")
    return lines


def main() -> None:
    """Play them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="azure-conv,mooncake")
    parser.add_argument("--regimes", default=REGIMES)
    asked = parser.parse_args()
    data = Path(os.environ["TIDEGATE_DATA"])
    for trace in chosen(asked.only, TRACES):
        for regime in chosen(asked.regimes, Regime):
            for seed in SEEDS:
                print("\n".join(told(data, Case(trace, regime, seed))), flush=True)


if __name__ == "__main__":
    main()
