"""A real llama.cpp is measured within its budget, and says of itself what it was started with."""

import asyncio
from math import inf
from pathlib import Path

import pytest

from tests.sim.make import drained, job
from tidegate.cli.calibrate import measure
from tidegate.clock import Clock
from tidegate.config.address import parse_url
from tidegate.lab import weights
from tidegate.lab.llama import Engine, Spec
from tidegate.lab.purse import Budget
from tidegate.sim.engine import Engine as Simulated
from tidegate.sim.profile import profile, toml

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

# Seconds are for what hangs: a machine that does other things besides takes several times as long.
BUDGET = Budget(seconds=60.0, tokens=10_000)


@pytest.mark.slow
def test_a_real_engine_becomes_a_profile_that_simulates(tmp_path: Path) -> None:
    async def main() -> None:
        spec = Spec(model=weights.fetch(), context_tokens=1024, slots=2)
        async with Engine(spec, tmp_path / "log") as engine:
            made = await measure(parse_url(engine.url), None, (), BUDGET, Clock(), lambda _: None)
        file = tmp_path / "profile.toml"
        file.write_text(toml(made), encoding="utf-8")
        assert profile(file) == made
        measured = made.measured
        assert measured is not None
        assert (measured.software, measured.model) == ("llama.cpp", "smollm2")
        assert measured.tokens <= BUDGET.tokens
        assert (made.engine.slots, made.engine.kv_tokens, made.engine.keeps_prefixes) == (2, 2048, True)
        simulated = Simulated(made.engine)
        simulated.submit(job("a"), 0.0)
        assert 0.0 < drained(simulated)[-1].at_s < inf

    asyncio.run(main())
