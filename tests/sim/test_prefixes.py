"""What a fleet remembers of prompts."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.sim.prefixes import Prefixes


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, 16)), min_size=1, max_size=60))
def test_no_more_blocks_are_kept_than_there_may_be_and_the_last_prompt_is_among_them(
    prompts: list[tuple[float, int]],
) -> None:
    kept, at_s = Prefixes(ttl_s=150.0, blocks_max=32), 0.0
    for index, (gap_s, size) in enumerate(prompts):
        at_s += 0.001 + gap_s
        blocks = range(100 * index, 100 * index + size)
        kept.keep(blocks, at_s)
        assert len(kept) <= 32
        assert kept.seen(blocks, at_s) == size


def test_the_longest_unused_are_forgotten_first() -> None:
    kept = Prefixes(ttl_s=1000.0, blocks_max=8)
    for at_s in range(9):
        kept.keep([at_s], float(at_s))
    assert [kept.seen([block], 9.0) for block in range(9)] == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_of_a_prompt_larger_than_all_that_is_kept_the_beginning_is() -> None:
    kept = Prefixes(ttl_s=1000.0, blocks_max=8)
    kept.keep(range(100), 0.0)
    assert kept.seen(range(100), 0.0) == len(kept) == 4
