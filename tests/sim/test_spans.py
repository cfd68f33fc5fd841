"""Time in spans: fine where something has to begin, and no more of them than there is work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.small import Small
from tidegate.core.model import replace
from tidegate.sim.needs import Piece
from tidegate.sim.oracle import bound
from tidegate.sim.spans import MERGED, merged, spans

MONTH_S = 30 * 86_400.0


@given(st.lists(st.tuples(st.floats(0.0, 1e5), st.floats(0.1, 9.0), st.floats(0.0, 60.0)), min_size=1, max_size=20))
def test_whatever_may_begin_does_so_in_spans_of_the_shortest_and_ends_within_merged_ones(
    drawn: list[tuple[float, float, float]],
) -> None:
    windows = [(from_s, from_s + for_s) for from_s, for_s, _ in drawn]
    ends = [to_s + more_s for (_, to_s), (*_, more_s) in zip(windows, drawn, strict=True)]
    edges = spans(windows, ends, 0.5)
    widths = np.diff(edges)
    assert (widths > 0.0).all()
    assert edges[0] <= min(from_s for from_s, _ in windows)
    assert edges[-1] >= max(ends)
    for (from_s, to_s), end_s in zip(windows, ends, strict=True):
        touched = (edges[1:] > from_s) & (edges[:-1] < to_s)
        assert (widths[touched] == 0.5).all()
        assert (widths[(edges[1:] > from_s) & (edges[:-1] < end_s)] <= 0.5 * MERGED).all()
    # What nothing is under way in is merged with nothing that something is.
    of = merged(edges)
    for idle in np.flatnonzero(widths > 0.5 * MERGED):
        assert (of == of[idle]).sum() == 1


def test_a_month_in_which_nobody_comes_is_one_span() -> None:
    edges = spans([(0.0, 2.0), (MONTH_S, MONTH_S + 2.0)], [10.0, MONTH_S + 10.0], 0.25)
    assert len(edges) < 60
    assert np.diff(edges).max() > MONTH_S - 60.0


@pytest.mark.parametrize("seed", range(6))
def test_the_same_again_a_month_later_is_worth_as_much_again(seed: int) -> None:
    small = Small(seed)
    pools = [replace(one, down=(), slowdown=()) for one in small.pools]

    def later(piece: Piece) -> Piece:
        return replace(piece, id=f"{piece.id}-later", arrived_s=piece.arrived_s + MONTH_S)

    once_usd = bound(small.pieces, pools, limit=small.limit).usd
    both_usd = bound([*small.pieces, *map(later, small.pieces)], pools, limit=small.limit).usd
    assert both_usd == pytest.approx(2.0 * once_usd, rel=0.02)
