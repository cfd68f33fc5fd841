"""Memory for contexts, in tokens of KV cache: how much of it an engine has, what is taken, and what a request needs.

How much there is, it tells itself, or the declared hardware has it; where neither is so its preemptions show it, and
without these nothing bounds it. What is taken is ours in flight, as far as they have grown, and what the newest report
has beyond or below what was ours at its time, which is worth less the older it is. That they all go on growing is what
the 95th percentile of the next one stands for: to reserve each one's whole output costs more than preemptions do
(tests/sim/test_memory_in_world.py).
"""

from bisect import insort
from collections.abc import Mapping
from math import inf, pow
from typing import Final

from tidegate.core.inflight import ends_s, sample_of, streamed_tokens
from tidegate.core.model import Probed, Request, Started
from tidegate.core.output import Length
from tidegate.core.record import Fixed
from tidegate.core.reserve import Reservation
from tidegate.core.state import GoneTokens, InUse, MemoryState, ToldCount

# A count beyond this is none: ten million contexts of a million tokens.
COUNT_MAX: Final = 10**13
# What a report has beyond our own books counts half after so many seconds: some answers of others have ended by then.
REPORT_S: Final = 30.0
# As much as an engine preempted at is not tried again at once: what it is believed to hold doubles in this time. Were
# that longer, it would stand half empty (tests/sim/test_memory_in_world.py).
DOUBLES_S: Final = 60.0
# Of what ended last, so much is remembered for a report that was measured before. Beyond, it is a little too high.
GONE_MAX: Final = 16


def kv_tokens_needed(request: Request | Started, length: Length) -> int:
    """What it will take: its prompt once, and of each completion the 95th percentile, within the client's bound.

    All of the prompt: what of it is cached there for nobody is memory that could have been evicted, and no more.
    """
    return request.prompt_tokens + int(length.high_tokens) * request.completions


def kv_tokens_needed_least(request: Request) -> int:
    """What cannot be done without. Neither our guess of an output's length is in it nor the client's bound: engines
    reserve no memory for what may never come, and most answers are far shorter. Of several prompts each is a sequence
    of its own, and those that find no memory wait in the engine: one has to fit."""
    tokens, prompts = request.prompt_tokens + request.completions, request.prompts
    return tokens if prompts <= 1 else -(-tokens // prompts)


def kv_tokens_to_begin(request: Request, length: Length, *, owned: bool) -> int:
    """What has to be free for it to begin. An engine of ours is emptied for what waits here (`hold`). Elsewhere nobody
    keeps room: of several prompts one has to fit, or smaller requests would pass all of them for ever."""
    tokens, prompts = kv_tokens_needed(request, length), request.prompts
    return tokens if owned or prompts <= 1 else -(-tokens // prompts)


class Spare(Fixed, frozen=True):
    """How much of `tokens_max` is free now, and by how much more at the `ends` of what is there, soonest first.

    At the last of them all is free.
    """

    tokens_max: int
    free_tokens: int
    ends: list[tuple[float, int]]


class Memory:
    """Reads and writes the `MemoryState` of one endpoint; `reservations` are those under way, and are only read.

    More than `tokens_sure` it cannot hold, whatever ends: infinite where that is not known for sure. `room_tokens` are
    free whatever happens: most requests need no closer look.
    """

    __slots__ = (
        "_declared",
        "_declared_sure",
        "_held",
        "_most",
        "_owned",
        "_reservations",
        "_spare",
        "room_tokens",
        "state",
        "tokens_sure",
    )

    def __init__(self, state: MemoryState, reservations: Mapping[str, Reservation], *, owned: bool) -> None:
        """`owned`: the engine is ours, so that what it has no memory for is held here."""
        self.state = state
        self.tokens_sure = self.room_tokens = inf
        self._owned = owned
        self._reservations = reservations
        self._declared: int | None = None
        self._declared_sure = False
        # What ours may grow to together.
        self._most = sum(most(one) for one in reservations.values())
        # At one moment, what ours take, and what is free with when the rest is.
        self._held: tuple[float, int] | None = None
        self._spare: tuple[float, Spare] | None = None
        self._digest()

    # --- to read ----------------------------------------------------------------------------------------------------

    @property
    def known(self) -> bool:
        """Whether anything bounds it."""
        return self.room_tokens != inf

    @property
    def slots(self) -> int | None:
        """How many requests it runs at once, as it told; None is unknown."""
        return None if self.state.slots is None else self.state.slots.count

    def fits(self, tokens: int, now_s: float) -> bool:
        """Whether so many more are free now; all there are is enough for what needs more than that.

        While nothing of ours is there, an engine of our own takes the next one whatever others have there: it may wait
        there for them as well as here, and may not be kept waiting for ever.
        """
        if tokens <= self.room_tokens or (self._owned and not self._reservations):
            return True
        total = self.tokens_max(now_s)
        if total is None:
            return True
        ours = self._held_at(now_s)
        return min(tokens, total) <= total - ours - self._beside(ours, now_s)

    def spare(self, now_s: float) -> Spare | None:
        """What is free, now and later; None where it is not known how much there is."""
        if not self.known:
            return None
        if self._spare is None or self._spare[0] != now_s:
            self._spare = now_s, self._look(now_s)
        return self._spare[1]

    def tokens_max(self, now_s: float) -> int | None:
        """How much it is believed to have in all."""
        told, full = self.state.tokens, self.state.full
        if told is not None:
            return told.count
        if full is None:
            return self._declared
        grown = int(min(full.count * 2.0 ** min((now_s - full.at_s) / DOUBLES_S, 64.0), COUNT_MAX))
        return grown if self._declared is None else min(self._declared, grown)

    def foreign_tokens(self, now_s: float) -> int:
        """By how much more is taken than our own books say, as far as the newest report still tells; negative is less.

        Of ours, what was on its way may have been there or not: between the two, our books stand.
        """
        use = self.state.use
        if use is None:
            return 0
        age_s = now_s - use.at_s
        return int(self._beyond(use) * pow(0.5, age_s / REPORT_S)) if age_s > 0.0 else self._beyond(use)

    def _beyond(self, use: InUse) -> int:
        told = self.state.tokens
        total = self._declared if told is None else told.count
        if total is None:
            return 0
        tokens = int(use.share * total)
        return tokens - use.ours if tokens > use.ours else min(0, tokens - use.least)

    def _beside(self, ours: int, now_s: float) -> int:
        """What is taken beside so many of ours. What ours share with each other is less than nothing, and never so much
        that they would take none."""
        return max(self.foreign_tokens(now_s), -ours)

    def _look(self, now_s: float) -> Spare:
        total = self.tokens_max(now_s)
        assert total is not None, "something bounds it"
        ours = self._held_at(now_s)
        sent = sample_of(self._reservations)
        ends = sorted([(sum(ends_s(one, now_s)) / 3.0, held(one, now_s)) for one in sent])
        if len(sent) < len(self._reservations):
            ends = _for_all(ends, ours, now_s)
        foreign = self._beside(ours, now_s)
        if foreign:
            # Of others it is not known when they end. Once the last of ours has, nobody waits for them.
            ends.append((ends[-1][0] if ends else now_s, foreign))
            ends.sort()
        return Spare(total, total - ours - foreign, ends)

    def _held_at(self, now_s: float) -> int:
        """What ours take by now."""
        if self._held is None or self._held[0] != now_s:
            self._held = now_s, sum([held(one, now_s) for one in self._reservations.values()])
        return self._held[1]

    def _digest(self) -> None:
        """What `fits` looks at first: what is free with all of ours grown to the most, and others' as reported."""
        told, full, use = self.state.tokens, self.state.full, self.state.use
        tokens = self._declared if told is None else told.count
        sure = tokens is not None and (told is not None or self._declared_sure)
        self.tokens_sure = float(tokens) if tokens is not None and sure else inf
        if told is None and full is not None:
            tokens = full.count if tokens is None else min(tokens, full.count)
        self.room_tokens = inf
        if tokens is not None:
            foreign = 0 if use is None else max(0, self._beyond(use))
            self.room_tokens = float(tokens - foreign - self._most)
        self.answers()

    # --- to learn ---------------------------------------------------------------------------------------------------

    def declare(self, tokens: int | None, *, sure: bool) -> None:
        """How much the declared hardware leaves, None where that is not known; `sure`: for a model that was declared,
        too, and not guessed from what the engine tells."""
        self._declared, self._declared_sure = tokens, sure
        self._digest()

    def started(self, reservation: Reservation) -> None:
        """One more of ours."""
        self._most += most(reservation)
        self._digest()

    def answers(self) -> None:
        """One of ours has begun to, or when is expected otherwise."""
        self._held = self._spare = None

    def ended(self, reservation: Reservation, now_s: float) -> None:
        """One of ours is gone."""
        self._most -= most(reservation)
        first_s = now_s if reservation.first_s is None else reservation.first_s
        gone = GoneTokens(
            now_s,
            reservation.started_s,
            first_s,
            reservation.prompt_tokens,
            held(reservation, now_s),
            reservation.completions,
        )
        known = self.state.gone
        if known and gone < known[-1]:
            insort(known, gone)
        else:
            known.append(gone)
        if len(known) > GONE_MAX:
            del known[0]
        self._digest()

    def report(self, fact: Probed, now_s: float) -> None:
        """Take in what a probe was told; what cannot be is no news. Of two that are told at once the fuller holds."""
        state = self.state
        state.tokens = _newer(state.tokens, fact.kv_tokens_max, 1, now_s)
        state.slots = _newer(state.slots, fact.slots, 1, now_s)
        measured_s = now_s if fact.measured_s is None else fact.measured_s
        # Where nothing runs and nothing waits, what is left is cache.
        share = 0.0 if fact.running == 0 and fact.queued == 0 else fact.kv_share
        least, ours, requests = self._ours(measured_s, now_s)
        if share is not None and 0.0 <= share <= 1.0:
            use = InUse(now_s, share, least, ours)
            if state.use is None or use > state.use:
                state.use = use
        before = state.preemptions
        after = state.preemptions = _newer(before, fact.preemptions, 0, now_s)
        alone = (fact.running or 0) + (fact.queued or 0) <= requests
        if alone and ours and before is not None and after is not None and after.count > before.count:
            # With about as much it ran out. Beside others it is not known with how much.
            state.full = _newer(state.full, ours, 1, now_s)
        self._digest()

    def _ours(self, measured_s: float, now_s: float) -> tuple[int, int, int]:
        """Of ours, what must have been there when it was measured, what may have been, and as how many requests.

        What happens now may be told before or after: it counts alike.
        """
        least = ours = requests = 0
        for sent in self._reservations.values():
            if sent.started_s < now_s:
                ours += held(sent, now_s)
                requests += sent.completions
                if sent.first_s is not None and sent.first_s < measured_s:
                    least += sent.prompt_tokens
        for gone in self.state.gone:
            if gone.ended_s >= measured_s and gone.started_s < now_s:
                ours += gone.held
                requests += gone.completions
                if gone.ended_s >= now_s and gone.first_s < measured_s:
                    least += gone.prompt_tokens
        return least, ours, requests


def _for_all(ends: list[tuple[float, int]], ours: int, now_s: float) -> list[tuple[float, int]]:
    """What of all ours is free when, by the ends of some, in order: what one of these stands for ends between the one
    before and itself."""
    each = ours / max(sum([tokens for _, tokens in ends]), 1)
    found: list[tuple[float, int]] = []
    before_s, left = now_s, ours
    for end_s, tokens in ends:
        freed = min(int(tokens * each), left)
        found.append(((before_s + end_s) / 2.0, freed))
        before_s, left = end_s, left - freed
    found.append((before_s, left))
    return found


def held(one: Reservation, now_s: float) -> int:
    """What it takes by now: its prompt, and of each completion what has streamed."""
    return one.prompt_tokens + streamed_tokens(one, now_s) * one.completions


def most(one: Reservation) -> int:
    """What it is taken to grow to at most."""
    return one.prompt_tokens + one.output_tokens_high * one.completions


def kept(state: MemoryState, now_s: float) -> MemoryState:
    """A copy for a process that knows of no attempt any more; no time in it is beyond `now_s`.

    What was in use, and how often it had preempted, a probe finds out again.
    """
    return MemoryState(
        tokens=_not_after(state.tokens, now_s), slots=_not_after(state.slots, now_s), full=_not_after(state.full, now_s)
    )


def fault(state: MemoryState) -> str:
    """What is wrong with what no router of this software learned; empty where nothing is."""
    told = [one.count for one in (state.tokens, state.slots, state.full) if one is not None]
    if not all(1 <= count <= COUNT_MAX for count in told):
        return "`memory` has a count that cannot be"
    if state.preemptions is not None and not 0 <= state.preemptions.count <= COUNT_MAX:
        return "`memory.preemptions` is no count"
    if state.use is not None and not (0.0 <= state.use.share <= 1.0 and 0 <= state.use.least <= state.use.ours):
        return "`memory.use` has a share that cannot be, or more of ours than there may have been"
    if len(state.gone) > GONE_MAX or state.gone != sorted(state.gone):
        return f"`memory.gone` has more than {GONE_MAX}, or has them out of order"
    return ""


def combined(one: MemoryState, other: MemoryState) -> MemoryState:
    """What two routers were told apart of one engine; neither is changed. What was told last holds."""
    return MemoryState(
        tokens=_later(one.tokens, other.tokens),
        slots=_later(one.slots, other.slots),
        preemptions=_later(one.preemptions, other.preemptions),
        full=_later(one.full, other.full),
        use=one.use if other.use is None else other.use if one.use is None else max(one.use, other.use),
        gone=sorted([*one.gone, *other.gone])[-GONE_MAX:],
    )


def _newer(before: ToldCount | None, told: int | None, least: int, now_s: float) -> ToldCount | None:
    """What is told now, where that can be; of two at one time the larger."""
    if told is None or not least <= told <= COUNT_MAX:
        return before
    return _later(before, ToldCount(now_s, told))


def _later(one: ToldCount | None, other: ToldCount | None) -> ToldCount | None:
    if one is None or other is None:
        return one or other
    return max(one, other)


def _not_after(told: ToldCount | None, now_s: float) -> ToldCount | None:
    return None if told is None else ToldCount(min(told.at_s, now_s), told.count)
