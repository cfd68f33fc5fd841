"""The prompts that an engine of ours computes, and how long they hold up the next one."""

from collections.abc import Collection, Iterable

import msgspec

from tidegate.core.inflight import OVERDUE_SHARE, looked_at_s
from tidegate.core.reserve import Reservation


class Prefills(msgspec.Struct):
    """The prompts an engine was given and has not begun to answer, worked on one after the other, oldest first.

    `head_s` is what the oldest takes, from `since_s` on, when the engine turned to it; `behind_s` what the rest takes.
    `count` is how many they are. Where an answer comes in one piece nobody sees it begin: its prompt counts for as long
    as it was planned to take, since else it would seem to be computed until all of the answer is there.
    """

    since_s: float = 0.0
    head_s: float = 0.0
    behind_s: float = 0.0
    count: int = 0


def add(prefills: Prefills, reservation: Reservation) -> None:
    """One more prompt, behind the others."""
    prefills.count += 1
    if prefills.head_s:
        prefills.behind_s += reservation.prefill_s
    else:
        prefills.head_s = reservation.prefill_s
        prefills.since_s = looked_at_s(reservation)


def settle(prefills: Prefills, waiting: Iterable[Reservation], now_s: float, *, head_done: bool) -> None:
    """Some prompt is done with: these are left. `head_done`: it was the oldest, so the next one's turn has come."""
    head = None
    prefills.behind_s, prefills.count = 0.0, 0
    for reservation in waiting:
        prefills.count += 1
        if head is None:
            head = reservation
        else:
            prefills.behind_s += reservation.prefill_s
    if head is None:
        prefills.head_s = 0.0
    elif head_done:
        _turn_to(prefills, head, now_s)


def pass_unseen(prefills: Prefills, waiting: Collection[Reservation], now_s: float) -> int:
    """So many of the oldest are computed by now, by plan, whose answers come in one piece: they are done with."""
    line = iter(waiting)
    head, count = next(line, None), 0
    while head is not None and not head.stream and prefills.since_s + prefills.head_s <= now_s:
        done_s = prefills.since_s + prefills.head_s
        head = next(line, None)
        count += 1
        prefills.count -= 1
        if head is None:
            prefills.head_s = prefills.behind_s = 0.0
        else:
            prefills.behind_s = max(0.0, prefills.behind_s - head.prefill_s)
            _turn_to(prefills, head, done_s)
    return count


def _turn_to(prefills: Prefills, head: Reservation, now_s: float) -> None:
    prefills.head_s = head.prefill_s
    prefills.since_s = max(now_s, looked_at_s(head))


def planned_s(prefills: Prefills, now_s: float, *, shared: bool) -> float:
    """How long the engine is still busy with them, had all gone as predicted since it turned to the oldest.

    Where it is `shared` with others and that one is overdue, theirs are computed, and nobody knows how many: for as
    long again as it has been waited for.
    """
    if not prefills.head_s:
        return 0.0
    spent_s = max(0.0, now_s - prefills.since_s)
    if shared and spent_s > prefills.head_s:
        return spent_s + prefills.behind_s
    return max(0.0, prefills.head_s + prefills.behind_s - spent_s)


def left_s(prefills: Prefills, now_s: float) -> float:
    """How long the engine is still busy with them: one after the other, they delay a new prompt by so much."""
    head_s, spent_s = prefills.head_s, now_s - prefills.since_s
    if not head_s:
        return 0.0
    if spent_s > 0.0:
        head_s -= spent_s
        if head_s < OVERDUE_SHARE * spent_s:
            head_s = OVERDUE_SHARE * spent_s
    return head_s + prefills.behind_s


def beside_s(prefills: Prefills, prefill_s: float, step_s: float, now_s: float) -> float:
    """How long they delay a new prompt that takes `prefill_s` where all advance side by side, in steps of `step_s`.

    It waits for the step under way, and then each of them gets as much as the new one until that is done, and no
    more than it needs.
    """
    return min(left_s(prefills, now_s), step_s + prefills.count * prefill_s)
