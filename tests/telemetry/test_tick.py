"""The end of a tick: steps in their order, each once, and none of them keeps another from its turn."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidegate.telemetry.tick import ANSWERED, ASKED, HELD, JOURNAL, LEDGER, LOG, Tick

STEPS = (ANSWERED, HELD, ASKED, LEDGER, JOURNAL, LOG)

Left = Iterable[tuple[int, Callable[[], None]]]


def done(tick: Tick, left: Left, said: list[str], ticks: int = 1) -> list[list[str]]:
    """What was `said` after each of so many ticks of a loop, in the first of which this was left."""

    async def run() -> list[list[str]]:
        for step, act in left:
            tick.soon(step, act)
        found = [said.copy()]
        for _ in range(ticks):
            await asyncio.sleep(0)
            found.append(said.copy())
        return found

    return asyncio.run(run())


@given(left=st.lists(st.sampled_from(STEPS), min_size=1))
def test_whatever_is_left_in_whatever_order_each_step_is_done_once_and_in_its_turn(left: list[int]) -> None:
    said: list[str] = []
    found = done(Tick(), [(step, partial(said.append, str(step))) for step in left], said)
    assert found == [[], [str(step) for step in sorted(set(left))]]


def test_what_a_step_leaves_for_a_later_one_is_done_in_the_same_tick() -> None:
    tick, said = Tick(), list[str]()
    then = partial(tick.soon, LEDGER, partial(said.append, "ledger"))
    assert done(tick, [(ASKED, then)], said) == [[], ["ledger"]]


def test_what_it_leaves_for_an_earlier_one_or_for_itself_is_done_in_the_next() -> None:
    tick, said = Tick(), list[str]()

    def act() -> None:
        said.append("journal")
        tick.soon(JOURNAL, partial(said.append, "again"))
        tick.soon(ASKED, partial(said.append, "asked"))

    assert done(tick, [(JOURNAL, act)], said, 2) == [[], ["journal"], ["journal", "asked", "again"]]
    # And the one after that begins anew.
    assert done(tick, [(LOG, partial(said.append, "log"))], said)[1] == ["journal", "asked", "again", "log"]


def test_a_step_that_fails_is_told_of_and_the_others_are_done() -> None:
    tick, said, told = Tick(), list[str](), list[dict[str, Any]]()

    def act() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        raise RuntimeError("of ours")

    assert done(tick, [(ANSWERED, act), (LOG, partial(said.append, "log"))], said) == [[], ["log"]]
    assert [str(context["exception"]) for context in told] == ["of ours"]
