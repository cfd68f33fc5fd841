"""Weather that once broke something is weathered for good."""

from pathlib import Path

import msgspec
import pytest

from tests.properties.storm import Storm
from tidegate.core.model import Record
from tidegate.core.replay import replay


class Seed(Record, frozen=True, kw_only=True):
    seed: int
    steps: int
    found: str


SEEDS = msgspec.json.decode((Path(__file__).parents[1] / "seeds" / "storm.json").read_bytes(), type=list[Seed])


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.found)
def test_a_seed_that_found_something_stays_found(seed: Seed) -> None:
    storm = Storm(seed.seed, ruled=False, paced=False).run(seed.steps)
    assert replay(storm.lines).difference is None
    assert storm.router.held == len(storm.held)
