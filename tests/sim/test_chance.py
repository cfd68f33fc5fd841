"""Chance by key."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tidegate.sim.chance import Chance

keys = st.tuples(st.text(max_size=8), st.integers(0, 9))


@given(st.integers(), keys)
def test_the_same_key_gives_the_same_numbers(seed: int, key: tuple[str, int]) -> None:
    first, second = Chance(seed).at(*key), Chance(seed).at(*key)
    assert [first.random() for _ in range(5)] == [second.random() for _ in range(5)]


@given(st.integers(0, 1000), keys, keys)
def test_other_keys_and_other_seeds_give_other_numbers(seed: int, key: tuple[str, int], other: tuple[str, int]) -> None:
    assert Chance(seed).at(*key).random() != Chance(seed + 1).at(*key).random()
    if key != other:
        assert Chance(seed).at(*key).random() != Chance(seed).at(*other).random()


def test_the_numbers_are_those_of_every_process() -> None:
    code = "from tidegate.sim.chance import Chance; print(Chance(7).at('a', 1).random())"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert said == {b"%r\n" % Chance(7).at("a", 1).random()}
