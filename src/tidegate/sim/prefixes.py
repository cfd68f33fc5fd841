"""Which beginnings of prompts a fleet remembers, each for a time after its last use."""

import math
from bisect import bisect_left
from collections.abc import Sequence

# 268M tokens in blocks of 512, which is more than five minutes of a busy account; about 50 MB.
BLOCKS_MAX = 524_288


class Prefixes:
    """Blocks by their identities. An identity stands for all that precedes the block, too.

    A block is used whenever one behind it is, so that those of a prompt that are remembered come first, and a search by
    halves finds where they end.
    """

    def __init__(self, ttl_s: float, blocks_max: int = BLOCKS_MAX) -> None:
        self._ttl_s = ttl_s
        self._blocks_max = blocks_max
        self._used_at_s: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._used_at_s)

    def seen(self, blocks: Sequence[int], now_s: float) -> int:
        """How many leading blocks are remembered."""
        used_at_s = self._used_at_s
        since_s = now_s - self._ttl_s
        return bisect_left(blocks, True, key=lambda block: used_at_s.get(block, -math.inf) < since_s)

    def keep(self, blocks: Sequence[int], now_s: float) -> None:
        """Remember these, or so many of them as there is room for."""
        if len(self._used_at_s) + len(blocks) > self._blocks_max:
            self._forget(now_s)
            blocks = blocks[: self._blocks_max // 2]
        self._used_at_s.update(dict.fromkeys(blocks, now_s))

    def _forget(self, now_s: float) -> None:
        """What is out of time, and where that is not enough the older half: seldom, since it looks at everything."""
        since_s = now_s - self._ttl_s
        kept = {block: at_s for block, at_s in self._used_at_s.items() if at_s >= since_s}
        if len(kept) > self._blocks_max // 2:
            middle_s = sorted(kept.values())[len(kept) // 2]
            kept = {block: at_s for block, at_s in kept.items() if at_s > middle_s}
        self._used_at_s = kept
