"""One engine with continuous batching, iteration by iteration: what vLLM, SGLang and llama.cpp have in common.

In each iteration all sequences that decode get one token, and what is left of the iteration's tokens goes to prompts
(chunked prefill), the oldest first, or that in the lowest slot (llama.cpp). Iterations between two changes of the batch
differ only in length, which grows with the context; they are taken in one leap, whose times are those of the single
ones.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from heapq import heapify, heappop, heappush
from math import ceil, floor, inf, sqrt

import msgspec

from tidegate.core.model import Record
from tidegate.core.rules import longest_tokens
from tidegate.core.step import StepTime
from tidegate.sim.job import Job
from tidegate.sim.kv import BLOCK_TOKENS, KvCache, blocks_for

# Of an iteration: what happens at its very end is in time for the next one.
_NOISE = 1e-6


class EngineProfile(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What an engine is.

    It runs `slots` sequences at once, and `batch_tokens` in one iteration; all have memory for `kv_tokens` together.
    Beyond `queue_max` waiting requests it refuses, None is never. With `keeps_prefixes` prompts that begin like earlier
    ones are not computed again. Loading the model takes `load_s`; an engine that is idle for `unload_after_s` gives its
    memory back, None is never.
    """

    step: StepTime
    slots: int
    batch_tokens: int = 2048
    kv_tokens: int
    queue_max: int | None = None
    keeps_prefixes: bool = True
    load_s: float = 0.0
    unload_after_s: float | None = None

    @property
    def slots_at_once(self) -> int:
        """Sequences that it really runs: each that decodes takes a token of the iteration."""
        return min(self.slots, self.batch_tokens)


class Kind(Enum):
    """What is told of a request."""

    FIRST = "first"
    DONE = "done"


class Sequence:
    """One request in the engine. Times are None until they are known.

    Of its `target` tokens `generated` existed when it began to decode last; `Engine.generated` says how many there are.
    `need` tokens have to be computed before the next one can be generated, and `computed` of them are. Several prompts
    are computed one after the other: one at a time is in memory, and none is left there for others.
    """

    __slots__ = (
        "blocks",
        "cached_tokens",
        "computed",
        "decodes",
        "first_s",
        "generated",
        "gone",
        "job",
        "need",
        "offset",
        "phase",
        "private",
        "shared",
        "slot",
        "started_s",
        "target",
        "waits",
    )

    def __init__(self, job: Job, target: int) -> None:
        self.job = job
        self.blocks = job.blocks[: job.prompt_tokens // job.block_tokens] if job.request.prompts <= 1 else ()
        self.target = target
        self.need = job.prompt_tokens
        self.computed = self.generated = self.cached_tokens = 0
        self.waits = True
        self.decodes = False
        self.gone = False  # and with it its client
        self.slot = -1  # while it does not wait
        # Its memory: blocks that it has to itself, and the prompt's own blocks that others may use too.
        self.private = 0
        self.shared: list[int] = []
        # While it decodes, it holds `offset` tokens and one more for each step that the engine has taken.
        self.offset = self.phase = 0
        self.started_s: float | None = None
        self.first_s: float | None = None


class Told(msgspec.Struct, gc=False):
    """Something that has happened to a sequence."""

    kind: Kind
    sequence: Sequence
    at_s: float


class Engine:
    """Tell it what happens when it does, and `advance` it when `next_s` has come; nothing happens by itself."""

    def __init__(self, profile: EngineProfile, now_s: float = 0.0, *, reads_by_slot: bool = False) -> None:
        """`reads_by_slot`: prompts are computed by the numbers of their slots, whoever came first, as in llama.cpp."""
        self.profile = profile
        self._slots = profile.slots_at_once
        self._reads_by_slot = reads_by_slot
        self.kv = KvCache(profile.kv_tokens // BLOCK_TOKENS, keeps=profile.keeps_prefixes)
        self.iterations = self.preemptions = 0
        self.busy_s = 0.0
        self._slowdown = 1.0
        self._sequences: dict[str, Sequence] = {}
        self._waiting: deque[Sequence] = deque()
        self._blocked = False  # the first that waits does not fit, and nothing has been released since
        self._prefilling: list[Sequence] = []
        self._free_slots = deque(range(self._slots))  # that which has been free for longest first
        # Those that decode, by the step after which they are done, then in the order of their start.
        self._ends: list[tuple[int, int, Sequence]] = []
        self._decoding = self._context = 0
        self._step = self._order = 0
        # The leap under way: so many steps, the first of which takes `_first_s` and each further one `_more_s` more.
        self._steps = 0
        self._least = 1  # of which so many cannot be taken back
        self._from_s, self._until_s = now_s, inf
        self._first_s = self._more_s = 0.0
        self._completed: list[Sequence] = []  # prompts that are computed at its end
        self._leaving = False  # some of the batch are gone
        self._loaded = profile.load_s == 0.0
        self._loading = False
        self._idle_since_s = now_s
        self._back_s = now_s  # nothing begins before

    # --- to read ------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return self._decoding + len(self._prefilling) + len(self._completed)

    @property
    def queued(self) -> int:
        """Sequences that wait for a slot or for memory."""
        return len(self._waiting)

    @property
    def next_s(self) -> float:
        """When there is something to do; infinite while the engine is idle."""
        return self._until_s

    def resident(self, now_s: float) -> bool | None:
        """Whether its model is loaded, as it would tell now; None while it is being loaded, of which engines tell
        either."""
        if self._loading:
            return None
        unload_s = self.profile.unload_after_s
        gone = unload_s is not None and self._until_s == inf and now_s - self._idle_since_s >= unload_s
        return self._loaded and not gone

    def cached_tokens(self, job: Job) -> int:
        """How many tokens of its prompt are in memory now."""
        return self.kv.matched(job.blocks[: (job.prompt_tokens - 1) // job.block_tokens]) * job.block_tokens

    def generated(self, sequence: Sequence, now_s: float) -> int:
        """How many of its tokens exist, of one that has not been cancelled; the engine has been advanced until now."""
        if not sequence.decodes:
            return sequence.generated
        # Of a leap that was frozen all but the last step are over.
        steps = min(self._steps, max(self._least - 1, floor(self._passed(now_s) + _NOISE))) if self._steps else 0
        return sequence.generated + sequence.offset + self._step + steps - sequence.need

    # --- what happens to it -------------------------------------------------------------------------------------------

    def submit(self, job: Job, now_s: float) -> Sequence | None:
        """A request arrives; None where the queue is full, or where it can never fit."""
        profile = self.profile
        assert not job.blocks or job.block_tokens % BLOCK_TOKENS == 0, "a prompt's blocks are whole blocks of memory"
        target = job.target
        # For whom there is a slot, it begins with the next iteration, unless there is no memory.
        free = 0 if self._blocked else max(0, self._slots - self.running)
        full = profile.queue_max is not None and len(self._waiting) >= profile.queue_max + free
        longest = longest_tokens(job.request, job.prompt_tokens)
        if full or blocks_for(longest + target) > self.kv.capacity:
            return None
        sequence = Sequence(job, target)
        self._sequences[job.request.id] = sequence
        self._waiting.append(sequence)
        if self._until_s == inf:
            self._wake(now_s)
        elif not self._blocked and self.running < self._slots:
            self._cut(now_s)
        return sequence

    def cancel(self, request_id: str, now_s: float) -> None:
        """Its client is gone. An iteration that is under way is finished with it."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None:
            return
        if sequence.waits:
            self._waiting.remove(sequence)
            self._blocked = False
        else:
            sequence.gone = self._leaving = True
        self._cut(now_s)

    def fail(self, now_s: float, back_s: float) -> list[Sequence]:
        """The process dies, and takes requests again from `back_s` on. What it had is lost."""
        lost = list(self._sequences.values())
        self._sequences, self._waiting, self._leaving = {}, deque(), False
        self._prefilling, self._completed, self._ends = [], [], []
        self._free_slots = deque(range(self._slots))
        self._decoding = self._context = self._steps = 0
        self._blocked = self._loading = False
        self.kv.clear()
        self._loaded = True
        self._back_s, self._idle_since_s, self._until_s = back_s, now_s, inf
        return lost

    def freeze(self, now_s: float, until_s: float) -> None:
        """Nothing moves for a while; what is under way is late by as much of that as it did not stand still anyway."""
        late_s = max(0.0, until_s - max(now_s, self._back_s))
        self._back_s = max(self._back_s, until_s)
        self._cut(now_s)
        self._least = self._steps
        self._from_s += late_s
        self._until_s += late_s

    def slow(self, factor: float, now_s: float) -> None:
        """Every iteration from the next one on takes `factor` times what the profile says."""
        self._cut(now_s)
        self._slowdown = factor

    def advance(self, now_s: float) -> list[Told]:
        """Take in what has happened until now, in its order."""
        told: list[Told] = []
        while self._until_s <= now_s:
            at_s = self._until_s
            if self._loading:
                self._loading, self._loaded = False, True
            self._land(at_s, told)
            self._begin(at_s)
        return told

    # --- one iteration, or many that are alike ------------------------------------------------------------------------

    def _wake(self, now_s: float) -> None:
        """From idleness; first the model is loaded, if it is not there."""
        if not self.resident(now_s):
            self._loaded = False
            self.kv.clear()
        self._loading = not self._loaded
        # An empty leap, at whose end the first iteration begins.
        self._from_s = self._until_s = max(now_s, self._back_s) + (self.profile.load_s if self._loading else 0.0)

    def _begin(self, now_s: float) -> None:
        """Put together the next iteration."""
        tokens, pairs = self._prompts(now_s) if self._prefilling or (self._waiting and not self._blocked) else (0, 0.0)
        kv, step = self.kv, self.profile.step
        while self._decoding and not kv.take(kv.growth(self._step, 1)):
            self._preempt()
        decoding = self._decoding
        if decoding == 0 and tokens == 0:
            self._idle_since_s, self._until_s = now_s, inf
            return
        self._first_s = self._slowdown * step.takes_s(tokens, pairs, decoding, self._context)
        self._more_s = self._slowdown * step.per_context_token_s * decoding / step.ranks
        self._steps = self._least = 1
        # Who was preempted just now is looked at again after one step.
        asks = self._waiting and not self._blocked and self.running < self._slots
        if tokens == 0 and not asks and (most := self._ends[0][0] - self._step) > 1:
            self._steps += kv.steps_until_full(self._step + 1, most - 1)
        self._from_s, self._until_s = now_s, now_s + self._takes_s(self._steps)

    def _prompts(self, now_s: float) -> tuple[int, float]:
        """Give what is left of the iteration to prompts: how many tokens, and pairs of a token and one before it."""
        budget = left = max(0, self.profile.batch_tokens - self._decoding)
        pairs = 0.0
        slots = self._slots - self._decoding
        if self._reads_by_slot:
            # It gives its slots away before it computes anything.
            self._prefilling = sorted(self._batched(self._prefilling, slots, now_s), key=lambda one: one.slot)
            slots = 0
        queue, self._prefilling = self._prefilling, []
        for sequence in self._batched(queue, slots, now_s):
            took = min(left, sequence.need - sequence.computed)
            pairs += took * (sequence.computed + took / 2)
            sequence.computed += took
            left -= took
            (self._completed if sequence.computed == sequence.need else self._prefilling).append(sequence)
            if left == 0:
                break
        self._prefilling += queue[len(self._completed) + len(self._prefilling) :]
        return budget - left, pairs

    def _batched(self, queue: list[Sequence], slots: int, now_s: float) -> Iterator[Sequence]:
        """Prompts that are under way, then those that can begin, while there are slots."""
        yield from queue
        slots -= len(queue)
        while slots > 0 and self._waiting and self._admit(self._waiting[0], now_s):
            slots -= 1
            yield self._waiting.popleft()

    def _takes_s(self, steps: int) -> float:
        return steps * self._first_s + self._more_s * (steps * (steps - 1) / 2)

    def _cut(self, now_s: float) -> None:
        """Let a leap end with the step that is under way: something may join or leave the batch after it."""
        if self._steps < 2:
            return
        done = min(self._steps, max(self._least, ceil(self._passed(now_s) - _NOISE)))
        self._steps = done
        self._until_s = self._from_s + self._takes_s(done)

    def _passed(self, now_s: float) -> float:
        """Steps of the leap under way that are over, were there no end to it, and the part of one that is not."""
        passed_s = max(0.0, now_s - self._from_s)
        half, whole = self._more_s / 2, self._first_s - self._more_s / 2
        return passed_s / whole if half == 0.0 else (sqrt(whole * whole + 4 * half * passed_s) - whole) / (2 * half)

    def _land(self, at_s: float, told: list[Told]) -> None:
        """The leap is over: tokens exist, sequences end, prompts that are computed begin to decode."""
        if self._steps:
            self.busy_s += at_s - self._from_s
            # Only now: what it evicts is there until then.
            fits = self.kv.take(self.kv.growth(self._step + 1, self._steps - 1))
            assert fits, "a leap is no longer than there is memory for"
        self.iterations += self._steps
        self._step += self._steps
        self._context += self._steps * self._decoding
        self._steps = 0
        while self._ends and self._ends[0][0] <= self._step:
            _, _, sequence = heappop(self._ends)
            self._stop(sequence)
            self._done(sequence, at_s, told)
        for sequence in self._completed:
            self._answer(sequence, at_s, told)
        self._completed.clear()
        if self._leaving:
            self._drop()

    def _answer(self, sequence: Sequence, at_s: float, told: list[Told]) -> None:
        """Its prompt is computed, and with it the next token."""
        per = sequence.job.block_tokens // BLOCK_TOKENS
        new = self.kv.publish(sequence.blocks[len(sequence.shared) :], per)
        sequence.shared += new
        sequence.private -= per * len(new)
        sequence.generated += 1
        if sequence.first_s is None:
            sequence.first_s = at_s
            if not sequence.gone:
                told.append(Told(Kind.FIRST, sequence, at_s))
        if sequence.generated >= sequence.target:
            self._release(sequence)
            self._done(sequence, at_s, told)
            return
        self._order += 1
        heappush(self._ends, (self._step + sequence.target - sequence.generated, self._order, sequence))
        sequence.decodes = True
        sequence.offset = sequence.need - self._step
        sequence.phase = self.kv.grows(sequence.offset)
        self._decoding += 1
        self._context += sequence.need

    def _done(self, sequence: Sequence, at_s: float, told: list[Told]) -> None:
        """All of it is generated."""
        sequence.generated = sequence.target
        if not sequence.gone:
            del self._sequences[sequence.job.request.id]
            told.append(Told(Kind.DONE, sequence, at_s))

    # --- memory -------------------------------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence, now_s: float) -> bool:
        """Memory for all of its prompt, or for one of several; False where there is not enough, and then nobody behind
        it is asked."""
        kv, job = self.kv, sequence.job
        # The last token is computed in any case: the answer begins from it.
        found = kv.matched(sequence.blocks[: (sequence.need - 1) // job.block_tokens])
        shared = sequence.blocks[:found]
        kv.share(shared)
        longest = longest_tokens(job.request, sequence.need)
        private = blocks_for(longest) - found * (job.block_tokens // BLOCK_TOKENS)
        if not kv.take(private):
            kv.leave(shared)
            self._blocked = True
            return False
        sequence.shared, sequence.private = list(shared), private
        sequence.computed = found * job.block_tokens
        if sequence.started_s is None:
            # What has come from elsewhere is there once, and gone when it is preempted.
            sequence.computed = max(sequence.computed, job.computed_tokens)
        sequence.waits = False
        sequence.slot = self._free_slots.popleft()
        if sequence.started_s is None:
            sequence.started_s, sequence.cached_tokens = now_s, sequence.computed
        return True

    def _stop(self, sequence: Sequence) -> None:
        """It decodes no more."""
        held = sequence.offset + self._step
        sequence.decodes = False
        self.kv.stops(sequence.phase)
        self._decoding -= 1
        self._context -= held
        sequence.private += blocks_for(held) - blocks_for(sequence.need)
        sequence.generated += held - sequence.need
        self._release(sequence)

    def _preempt(self) -> None:
        """There is no memory for another token of each: who began last begins again, with what it has generated."""
        latest = max(self._ends, key=lambda end: end[1])
        self._ends.remove(latest)
        heapify(self._ends)
        sequence = latest[2]
        self._stop(sequence)
        self.preemptions += 1
        sequence.need = sequence.job.prompt_tokens + sequence.generated
        sequence.computed = 0
        if not sequence.gone:
            sequence.waits = True
            self._waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._free_slots.append(sequence.slot)
        self.kv.leave(sequence.shared)
        self.kv.give(sequence.private)
        sequence.shared, sequence.private = [], 0
        self._blocked = False

    def _drop(self) -> None:
        """Those whose clients are gone leave the batch."""
        self._leaving = False
        for end in [end for end in self._ends if end[2].gone]:
            self._ends.remove(end)
            self._stop(end[2])
        heapify(self._ends)
        for sequence in [s for s in self._prefilling if s.gone]:
            self._prefilling.remove(sequence)
            self._release(sequence)
