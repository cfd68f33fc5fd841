"""Which slot a request is computed in."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.slots import Slots


def test_who_comes_gets_the_slot_that_has_most_of_its_prompt() -> None:
    slots = Slots(3)
    first, second = slots.take((1, 2, 3)), slots.take((7, 8))
    assert {first, second} <= {0, 1, 2}
    assert first is not None
    assert second is not None
    slots.leave(first)
    slots.leave(second)
    assert slots.take((7, 8, 9)) == second
    assert slots.take((1, 2, 4)) == first


def test_what_was_used_longest_ago_makes_room_for_what_is_new() -> None:
    slots = Slots(2)
    for prefix in ((1,), (2,)):
        number = slots.take(prefix)
        assert number is not None
        slots.leave(number)
    again = slots.take((1,))
    assert again is not None
    slots.leave(again)
    assert slots.take((9,)) != again


def test_there_is_none_where_all_are_taken() -> None:
    slots = Slots(1)
    assert slots.take(()) == 0
    assert slots.take(()) is None
    slots.leave(0)
    assert slots.take(()) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
def test_no_slot_is_given_to_two(steps: list[tuple[bool, int]]) -> None:
    slots, taken = Slots(3), set[int]()
    for comes, number in steps:
        if comes:
            slot = slots.take((number, number + 1))
            assert (slot is None) == (len(taken) == 3)
            if slot is not None:
                assert slot not in taken
                taken.add(slot)
        elif number in taken:
            taken.remove(number)
            slots.leave(number)
