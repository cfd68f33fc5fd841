"""The simple rules, each by what it prefers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core.baseline import BASELINES, Options
from tidegate.core.model import Endpoint

OWN = make.endpoint("own", concurrency=4)
SPARE = make.endpoint("spare", concurrency=2)
DEAR = make.endpoint("dear", local=False, concurrency=10)
FAIR = make.endpoint("fair", local=False, concurrency=10)


@pytest.mark.parametrize(
    ("name", "rooms", "sent", "order"),
    [
        ("local-first", (1, 1, 9, 9), 0, ["own", "spare", "fair", "dear"]),
        ("local-first", (0, 0, 9, 9), 0, ["fair", "dear"]),
        ("cheapest", (1, 1, 9, 9), 0, ["spare", "fair", "dear", "own"]),
        ("round-robin", (1, 1, 9, 9), 0, ["dear", "fair", "own", "spare"]),
        ("round-robin", (1, 1, 9, 9), 5, ["fair", "own", "spare", "dear"]),
        ("round-robin", (0, 1, 9, 9), 5, ["spare", "dear", "fair"]),
        ("least-loaded", (1, 1, 9, 10), 0, ["fair", "dear", "spare", "own"]),
        ("always-local", (1, 2, 9, 9), 0, ["spare", "own"]),
        ("always-local", (0, 0, 9, 9), 0, []),
        ("always-remote", (4, 2, 9, 9), 0, ["fair", "dear"]),
    ],
)
def test_a_rule_prefers_what_its_name_says(name: str, rooms: tuple[int, ...], sent: int, order: list[str]) -> None:
    usd = {"own": 0.03, "spare": 0.0, "fair": 0.01, "dear": 0.02}
    if name == "local-first":
        usd["own"] = 0.0
    options = [(e, room, usd[e.name]) for e, room in zip((OWN, SPARE, DEAR, FAIR), rooms, strict=True)]
    assert BASELINES[name](options, sent) == order


@given(
    st.sampled_from(sorted(BASELINES)),
    st.permutations([OWN, SPARE, DEAR, FAIR]),
    st.lists(st.integers(-1, 10), min_size=4, max_size=4),
    st.integers(0, 99),
)
def test_no_rule_names_one_without_room_or_one_twice_or_follows_the_order_it_is_told_in(
    name: str, endpoints: list[Endpoint], rooms: list[int], sent: int
) -> None:
    room = dict(zip(("own", "spare", "dear", "fair"), rooms, strict=True))
    options: Options = [(e, room[e.name], len(e.name) / 100) for e in endpoints]
    names = BASELINES[name](options, sent)
    assert len(set(names)) == len(names)
    assert all(room[one] > 0 for one in names)
    assert names == BASELINES[name](sorted(options, key=lambda option: option[0].name), sent)
