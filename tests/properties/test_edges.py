from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.edges import place_of

EDGES = st.lists(st.floats(allow_nan=False), max_size=20).map(sorted)


@given(edges=EDGES, value=st.floats())
def test_a_number_has_the_place_that_bisection_gives_it(edges: list[float], value: float) -> None:
    assert place_of(tuple(edges), value) == bisect_left(edges, value)


@given(edges=EDGES.filter(bool), data=st.data())
def test_an_edge_has_its_own_place_or_that_of_the_first_that_equals_it(edges: list[float], data: st.DataObject) -> None:
    edge = data.draw(st.sampled_from(edges))
    assert place_of(tuple(edges), edge) == edges.index(edge)
