"""Worlds are taken apart for real: what is taken out of a decision changes it, and is there again afterwards."""

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from bench.policy_figures import price_factors, tried
from bench.policy_settings import Regime
from bench.policy_worlds import Case, Makes, Scene, play, scene

from tidegate.core import router
from tidegate.core.router import Router

if router.__file__.endswith(".so"):
    pytest.skip("parts of a compiled package cannot be replaced", allow_module_level=True)

from bench.policy_terms import ABLATIONS, Task, chain

CASE = Case("servegen", Regime.LOAD_125, 1)  # its requests are made up: no public data is needed

NOT_HERE = ("what is cached", "the slot that is left to who cannot wait")
"""Nothing is cached in this world, and nobody in it can wait for long."""


def figures(world: Scene, makes: Makes) -> tuple[list[bool], list[float]]:
    found = tried(world, "", 0.0, play(world, makes), price_factors(world))
    return found.kept, found.usd


@pytest.mark.slow
def test_what_is_taken_out_changes_what_is_decided_and_is_there_again_afterwards() -> None:
    world = scene(Path(), CASE)
    usual = figures(world, Router)
    for name, without in ABLATIONS.items():
        with ExitStack() as stack:
            found = figures(world, without(stack))
        assert (found == usual) == (name in NOT_HERE), name
    assert figures(world, Router) == usual


@pytest.mark.slow
def test_each_step_of_the_chain_knows_more_than_the_one_before() -> None:
    steps = list(chain(Task(Path(), CASE)))
    assert steps[0][2] is Router
    told = [figures(world, makes) for _, world, makes in steps]
    # Nobody else uses this engine, so that reports tell nothing new, but what they cost.
    assert all(after != before for before, after in pairwise(told[:-1]))
