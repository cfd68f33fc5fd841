"""Which slot a request is computed in."""

from hypothesis import given
from hypothesis import strategies as st

from tidegate.gateway.slots import Slot, Slots


def test_who_comes_gets_the_slot_that_has_most_of_its_prompt() -> None:
    slots = Slots(3)
    first, second = taken(slots, (1, 2, 3)), taken(slots, (7, 8))
    assert first is not second
    first.leave()
    second.leave()
    assert slots.take((7, 8, 9)) is second
    assert slots.take((1, 2, 4)) is first


def test_what_was_used_longest_ago_makes_room_for_what_is_new() -> None:
    slots = Slots(2)
    for prefix in ((1,), (2,)):
        taken(slots, prefix).leave()
    again = taken(slots, (1,))
    again.leave()
    assert slots.take((9,)) is not again


def test_there_is_none_where_all_are_taken() -> None:
    slots = Slots(1)
    first = taken(slots, ())
    assert first.number == 0
    assert slots.take(()) is None
    first.leave()
    assert slots.take(()) is first


def test_a_slot_is_free_when_everybody_has_left_it() -> None:
    slots = Slots(1)
    slot = slots.take((), keep=True)
    assert slot is not None
    slot.take()
    slot.leave()
    assert slots.take(()) is None
    assert slot.kept
    slot.leave()
    assert slots.take(()) is slot


def test_who_finds_all_taken_waits_where_no_kv_cache_is_about_to_be_saved() -> None:
    slots = Slots(3)
    kept = slots.take((1,), keep=True)
    first, _ = taken(slots, (2,)), taken(slots, (3,))
    assert kept is not None
    assert slots.take((4,)) is None
    assert slots.awaited((4,)) is first, "whoever came first is done first"
    first.leave()
    assert slots.take((4,)) is None, "who waited has it now"
    kept.leave()
    assert slots.take((4,)) is kept, "which is sent, and may be used again"
    assert slots.awaited((4,)) is None, "none is kept any more: the engine may choose"


def test_who_has_waited_for_a_slot_finds_it_again_by_what_it_holds_since() -> None:
    slots = Slots(2)
    kept, other = slots.take((1, 2), keep=True), taken(slots, (4, 5))
    waited = slots.awaited((7, 8))
    assert kept is not None
    assert waited is other
    for slot in (kept, other, waited):
        slot.leave()
    assert slots.take((7, 8, 9)) is other


def test_those_who_find_all_taken_do_not_all_wait_for_one_slot() -> None:
    slots = Slots(3)
    assert slots.take((1,), keep=True) is not None
    others = [taken(slots, (2,)), taken(slots, (3,))]
    assert [slots.awaited((4,)) for _ in range(4)] == others * 2


def test_where_every_slot_is_kept_the_engine_chooses() -> None:
    slots = Slots(1)
    assert slots.take((), keep=True) is not None
    assert slots.awaited(()) is None


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3)), max_size=60))
def test_no_slot_is_given_to_two_but_to_who_waits_for_it(steps: list[tuple[bool, bool, int]]) -> None:
    slots, had = Slots(3), dict[int, list[Slot]]()
    for comes, keeps, number in steps:
        if comes:
            slot = slots.take((number, number + 1), keep=keeps)
            assert (slot is None) == (len(had) == 3)
            if slot is not None:
                assert slot.number not in had
            elif (slot := slots.awaited((number,))) is not None:
                assert not slot.kept
                assert slot.number in had
            if slot is not None:
                had.setdefault(slot.number, []).append(slot)
        elif number in had:
            had[number].pop().leave()
            if not had[number]:
                del had[number]


def taken(slots: Slots, prefix: tuple[int, ...]) -> Slot:
    slot = slots.take(prefix)
    assert slot is not None
    return slot
