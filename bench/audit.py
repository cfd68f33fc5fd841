"""How wide the bracket of an audit is, on journals of the standard traces at the load that our own engines can take.

    TIDEGATE_DATA=FOLDER python -m bench.audit

The worlds are those of `bench.policy`; what is audited is the journal that the router wrote in them, by a twin that is
inferred from it.
"""

import os
from multiprocessing import get_context
from pathlib import Path

import msgspec
from rich.console import Console

from bench.policy_settings import DEVELOPMENT_SEEDS, TRACES, Regime
from bench.policy_worlds import Case, play, scene
from bench.record import record
from tidegate.core.model import Line
from tidegate.core.router import Router
from tidegate.sim.audit import Audit, audit
from tidegate.sim.observed import known, observe
from tidegate.sim.twin import twin

REGIMES = (Regime.LOAD_100, Regime.CLASSES)


class Bracketed(msgspec.Struct, frozen=True, kw_only=True):
    """One journal, and what its audit found."""

    trace: str
    regime: str
    found: Audit
    wide: float


def bracketed(case: Case) -> Bracketed:
    """Play the world, and audit its journal."""
    world, lines = scene(Path(os.environ["TIDEGATE_DATA"]), case), list[Line]()

    play(world, Router, journal=lines.append)
    observed = observe(lines)
    found = audit(twin(observed, known(lines)), observed.policy)
    return Bracketed(trace=case.trace, regime=str(case.regime), found=found, wide=found.wide)


def main() -> None:
    """All traces, the widest bracket first."""
    cases = [Case(trace, regime, DEVELOPMENT_SEEDS[0]) for trace in TRACES for regime in REGIMES]
    with get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        worlds = sorted(pool.imap_unordered(bracketed, cases), key=lambda one: -one.wide)
    console = Console()
    for one in worlds:
        found = one.found
        console.print(
            f"{one.trace} {one.regime}: bracket {one.wide:.1%} wide; "
            f"policy {found.policy.value_per_1k:.4g}, best rule {found.rules[0].value_per_1k:.4g}, "
            f"reached {found.reached.value_per_1k:.4g}, bound {found.bound_per_1k:.4g}"
        )
    record("audit", {"worlds": [msgspec.to_builtins(one) for one in worlds]})


if __name__ == "__main__":
    main()
