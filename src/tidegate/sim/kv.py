"""The KV cache of a simulated engine: memory in blocks, shared prefixes, and what is kept of finished work."""

from collections import OrderedDict
from collections.abc import Iterable

BLOCK_TOKENS = 16  # vLLM's default; where memory is paged at all, pages are of this order


class KvCache:
    """Counts blocks of `BLOCK_TOKENS`. What sequences use is never evicted; what only the cache keeps goes first.

    Prompts are known by the identities of their own blocks, which are larger: of those, a prefix that is in memory is
    shared. `capacity` is in blocks. Sequences that decode grow by a block every `BLOCK_TOKENS` steps, each at its own
    phase, which stays the same: the tokens that it holds less the steps that were taken, modulo the block.
    """

    def __init__(self, capacity: int, *, keeps: bool) -> None:
        """`keeps`: prompts of finished work stay in memory while there is room, for others that begin alike."""
        self.capacity = capacity
        self.used = 0
        self._keeps = keeps
        self._references: dict[int, int] = {}
        self._blocks_of: dict[int, int] = {}
        # In memory for nobody in particular, in the order in which it is evicted.
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._idle_blocks = 0
        self._phases = [0] * BLOCK_TOKENS
        self._growing = 0

    @property
    def free(self) -> int:
        """Blocks that can be had, by eviction or without."""
        return self.capacity - self.used

    @property
    def kept(self) -> int:
        """Blocks that the cache keeps, and nobody uses."""
        return self._idle_blocks

    # --- prefixes ---------------------------------------------------------------------------------------------------

    def matched(self, blocks: Iterable[int]) -> int:
        """How many leading blocks of a prompt are in memory."""
        known, found = self._references, 0
        for block in blocks:
            if block not in known:
                break
            found += 1
        return found

    def share(self, blocks: Iterable[int]) -> None:
        """A sequence begins with these, which are in memory."""
        for block in blocks:
            if self._references[block] == 0:
                del self._idle[block]
                self._idle_blocks -= self._blocks_of[block]
                self.used += self._blocks_of[block]
            self._references[block] += 1

    def publish(self, blocks: Iterable[int], size: int) -> list[int]:
        """A sequence has computed these, of `size` blocks each, for others to share; those that nobody had before.

        Their memory is counted already, as that of the sequence.
        """
        new = [block for block in blocks if block not in self._references] if self._keeps else []
        for block in new:
            self._references[block] = 1
            self._blocks_of[block] = size
        return new

    def leave(self, blocks: Iterable[int]) -> None:
        """A sequence is done with these; a prefix is evicted from its end, which is of less use than its beginning."""
        for block in reversed(list(blocks)):
            self._references[block] -= 1
            if self._references[block] == 0:
                self._idle[block] = None
                self._idle_blocks += self._blocks_of[block]
                self.used -= self._blocks_of[block]

    # --- memory -----------------------------------------------------------------------------------------------------

    def take(self, blocks: int) -> bool:
        """Use so many more; False, and nothing taken, where there are not so many."""
        if blocks > self.capacity - self.used:
            return False
        self.used += blocks
        self._evict()
        return True

    def give(self, blocks: int) -> None:
        """Use so many less."""
        self.used -= blocks

    def clear(self) -> None:
        """The engine has lost its memory."""
        self.used = self._idle_blocks = self._growing = 0
        self._references.clear()
        self._blocks_of.clear()
        self._idle.clear()
        self._phases = [0] * BLOCK_TOKENS

    def _evict(self) -> None:
        while self.used + self._idle_blocks > self.capacity:
            block, _ = self._idle.popitem(last=False)
            self._idle_blocks -= self._blocks_of.pop(block)
            del self._references[block]

    # --- sequences that decode --------------------------------------------------------------------------------------

    def grows(self, offset: int) -> int:
        """A sequence that holds `offset` tokens more than steps were taken decodes from here on: its phase."""
        phase = offset % BLOCK_TOKENS
        self._phases[phase] += 1
        self._growing += 1
        return phase

    def stops(self, phase: int) -> None:
        """It does no more."""
        self._phases[phase] -= 1
        self._growing -= 1

    def growth(self, step: int, steps: int) -> int:
        """Blocks that all of them together need for so many steps after `step`."""
        rounds, rest = divmod(steps, BLOCK_TOKENS)
        blocks = rounds * self._growing
        if rest:
            phases = self._phases
            for later in range(rest):
                # Whoever holds whole blocks alone needs another one for its next token.
                blocks += phases[-(step + later) % BLOCK_TOKENS]
        return blocks

    def steps_until_full(self, step: int, steps: int) -> int:
        """How many of so many steps there is memory for."""
        free = self.capacity - self.used
        if self.growth(step, steps) <= free:
            return steps
        rounds = min(free // self._growing, steps // BLOCK_TOKENS)
        blocks, done = rounds * self._growing, rounds * BLOCK_TOKENS
        while done < steps:
            blocks += self._phases[-(step + done) % BLOCK_TOKENS]
            if blocks > free:
                break
            done += 1
        return done


def blocks_for(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)
