"""Random worlds with faults, each looked at after every event. `make soak` plays many more."""

from pathlib import Path

import msgspec
import pytest

from tests.soak.weather import Weather, broken
from tidegate.core.model import Record

# In `make test` a few; in `make test-full` the rest of five hundred.
SHORT, FULL, CHUNK = 5, 500, 45


class Seed(Record, frozen=True, kw_only=True):
    """One that has found something, which is mended."""

    seed: int
    found: str


SEEDS = msgspec.json.decode((Path(__file__).parents[1] / "seeds" / "soak.json").read_bytes(), type=list[Seed])


@pytest.mark.lengthy
@pytest.mark.parametrize("seed", SEEDS, ids=lambda one: one.found)
def test_a_seed_that_found_something_stays_mended(seed: Seed) -> None:
    assert broken(seed.seed) == ""


@pytest.mark.lengthy
def test_whatever_happens_the_parts_of_a_world_agree() -> None:
    assert [found for seed in range(SHORT) if (found := broken(seed))] == []


def test_the_same_seed_is_the_same_world() -> None:
    one, again = Weather(3), Weather(3)
    one.play()
    again.play()
    assert one.lines == again.lines


@pytest.mark.slow
@pytest.mark.parametrize("first", range(SHORT, FULL, CHUNK))
def test_whatever_happens_in_more_worlds_their_parts_agree(first: int) -> None:
    assert [found for seed in range(first, first + CHUNK) if (found := broken(seed))] == []
