"""The prompts that an engine of ours computes, and how long they hold up the next one."""

from collections.abc import Collection, Iterable
from math import sqrt

import msgspec

from tidegate.core.inflight import OVERDUE_SHARE, looked_at_s
from tidegate.core.reserve import Reservation


class Prefills(msgspec.Struct):
    """The prompts an engine was given and has not begun to answer, worked on one after the other, oldest first (but
    where it reads by slot).

    `head_s` is what the oldest takes, from `since_s` on, when the engine turned to it; `behind_s` what the rest takes.
    `count` is how many they are. Where an answer comes in one piece nobody sees it begin: its prompt counts for as long
    as it was planned to take, since else it would seem to be computed until all of the answer is there.
    """

    since_s: float = 0.0
    head_s: float = 0.0
    behind_s: float = 0.0
    count: int = 0


class PromptLine:
    """Of what is in flight, whose prompts an engine is at, oldest first: few, where many stream. Nobody's, where
    requests share no compute. `at` reads; `add`, `begins`, `pass_unseen`, `done`, `line_up` and
    `line_up_anew` write.
    """

    __slots__ = ("_by_slot", "_prefills", "_reservations", "_shares_compute", "_waiting")

    def __init__(
        self, prefills: Prefills, reservations: dict[str, Reservation], *, shares_compute: bool, by_slot: bool
    ) -> None:
        """`reservations` are all that is in flight, by the id of its request: somebody else's. `by_slot`: it is not the
        oldest that the engine is at, but the one in the lowest slot."""
        self._prefills, self._reservations = prefills, reservations
        self._shares_compute, self._by_slot = shares_compute, by_slot
        self._waiting: dict[str, Reservation] = {}
        self.line_up()

    def line_up(self) -> None:
        """Find out who they are by what is in flight."""
        self._waiting.clear()
        if self._shares_compute:
            waiting = {name: r for name, r in self._reservations.items() if r.first_s is None and not r.computed}
            self._waiting.update(waiting)

    def line_up_anew(self, now_s: float) -> None:
        """The same where one began or ended of which nothing else was told: what they take goes by who is left."""
        oldest = self._oldest()
        self.line_up()
        settle(self._prefills, self._waiting.values(), now_s, head_done=self._oldest() is not oldest)

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not self._shares_compute or not self._prefills.count

    def at(self, now_s: float) -> Prefills:
        """Those that it is at now."""
        line = self._prefills
        if not self._passes_unseen(now_s):
            return line
        line = Prefills(line.since_s, line.head_s, line.behind_s, line.count)
        pass_unseen(line, self._waiting.values(), now_s)
        return line

    def add(self, request_id: str, reservation: Reservation) -> None:
        """One more, behind the others."""
        if self._shares_compute:
            self._waiting[request_id] = reservation
            add(self._prefills, reservation)

    def begins(self, reservation: Reservation, at_s: float, expected_s: float) -> None:
        """The engine can begin with this one then, which was expected otherwise."""
        line = self._prefills
        if reservation is self._oldest():
            # With one that had come while another was computed, it began when that was done.
            line.since_s = at_s if line.since_s <= expected_s else max(line.since_s, at_s)

    def pass_unseen(self, now_s: float) -> None:
        """What should have been computed by now, and nobody sees, is."""
        if self._passes_unseen(now_s):
            count = pass_unseen(self._prefills, self._waiting.values(), now_s)
            for name in list(self._waiting)[:count]:
                self._waiting.pop(name).computed = True

    def done(self, request_id: str, now_s: float, *, computed: bool) -> None:
        """This one's is `computed`, or not wanted any more."""
        if self._shares_compute:
            oldest, line = self._oldest(), self._prefills
            left = self._waiting.pop(request_id, None)
            settle(line, self._waiting.values(), now_s, head_done=left is not None and left is oldest)
            if self._by_slot and computed and left is not None and left is not oldest:
                # Meanwhile the engine was at this one, and not at the oldest.
                line.since_s = max(line.since_s, min(now_s, line.since_s + left.prefill_s))

    def _passes_unseen(self, now_s: float) -> bool:
        """Whether the oldest should have been computed by now, and nobody sees whether it is."""
        line = self._prefills
        if not self._waiting or line.since_s + line.head_s > now_s:
            return False
        oldest = self._oldest()
        return oldest is not None and not oldest.stream

    def _oldest(self) -> Reservation | None:
        for reservation in self._waiting.values():
            return reservation
        return None


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
    head, behind_s, count = None, 0.0, 0
    for reservation in waiting:
        count += 1
        if head is None:
            head = reservation
        else:
            behind_s += reservation.prefill_s
    prefills.behind_s, prefills.count = behind_s, count
    if head is None:
        prefills.head_s = 0.0
    elif head_done:
        _turn_to(prefills, head, now_s)


def pass_unseen(prefills: Prefills, waiting: Collection[Reservation], now_s: float) -> int:
    """So many of the oldest are computed by now, by plan, whose answers come in one piece: they are done with."""
    count, done_s = 0, 0.0
    for head in waiting:
        if count:
            prefills.behind_s = max(0.0, prefills.behind_s - head.prefill_s)
            _turn_to(prefills, head, done_s)
        done_s = prefills.since_s + prefills.head_s
        if head.stream or done_s > now_s:
            return count
        count += 1
        prefills.count -= 1
    if count:
        prefills.head_s = prefills.behind_s = 0.0
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


def by_slot_s(prefills: Prefills, step_s: float, waits_s: float, ahead_s: float, now_s: float) -> tuple[float, float]:
    """How long they delay a new prompt, which `waits_s` for a slot before, and the standard deviation of that, at an
    engine that reads the prompts in its slots by their numbers, each in steps of `step_s` until it is done.

    Those in lower slots come before it, and of the others only the step under way. Which slots they have we are not
    told: each is as likely to come before as after it. Where it is not sent before what is left of them is `ahead_s`,
    the rest comes before it for sure.
    """
    left = max(0.0, left_s(prefills, now_s) - waits_s)
    if not left:
        return 0.0, 0.0
    beyond_s = max(0.0, left - ahead_s)
    sure_s = beyond_s + min(left - beyond_s, step_s)
    unsure_s, count = left - sure_s, max(1, prefills.count)
    return sure_s + unsure_s / 2.0, unsure_s * sqrt((count + 2) / (12 * count))
