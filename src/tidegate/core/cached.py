"""Prompts as endpoints are asked about them, and what of one is taken for cached."""

from collections.abc import Sequence
from struct import Struct
from typing import Final

from tidegate.core.prompts import BLOCK_BYTES, DIGESTS_MAX, GRID, GRID_OF, Prefix, Use

DIGEST_MASK: Final = 2**32 - 1
_DIGEST_BYTES: Final = 4
# By how many digests there are.
_PACKED: Final = [Struct(f"<{count}I") for count in range(len(GRID) + 1)]


def last_of(prefix: Prefix) -> int:
    """The digest of all of a beginning."""
    last: int = _PACKED[1].unpack_from(prefix.digests, -_DIGEST_BYTES)[0]
    return last


def at_grid(prefix: Prefix) -> tuple[int, ...]:
    """The digests of a beginning at the places of `GRID`."""
    return _PACKED[GRID_OF[min(prefix.blocks, DIGESTS_MAX)]].unpack_from(prefix.digests)


def spread(prefix: Prefix) -> tuple[int, ...]:
    """All digests of a beginning in their places, -1 where one is not known."""
    length = min(prefix.blocks, DIGESTS_MAX)
    found = [-1] * length
    for place, digest in zip(GRID, at_grid(prefix)):  # noqa: B905 # a short one has less of the grid
        found[place - 1] = digest
    found[-1] = last_of(prefix)
    return tuple(found)


def shortened(digests: Sequence[int], prompt_bytes: int) -> Prefix | None:
    """The beginning of a prompt in short; None where it has no whole block. `prompt_bytes` are those digested."""
    length = len(digests)
    if not length:
        return None
    chosen = [digests[place - 1] & DIGEST_MASK for place in GRID[: GRID_OF[length]]]
    if GRID[len(chosen) - 1] != length:
        chosen.append(digests[-1] & DIGEST_MASK)
    blocks = length if length < DIGESTS_MAX else max(length, prompt_bytes // BLOCK_BYTES)
    return Prefix(blocks, _PACKED[len(chosen)].pack(*chosen))


class Prompt:
    """A prompt as endpoints are asked about it, in `tokens` as estimated.

    Of `prompt_bytes` the first `preamble_bytes` come before the blocks of the digests, and every digest covers them.
    """

    __slots__ = ("before", "digests", "grid", "per_block", "tokens", "whole")

    def __init__(self, digests: Sequence[int], tokens: int, prompt_bytes: int, preamble_bytes: int = 0) -> None:
        self.digests = digests
        self.tokens = tokens
        length = len(digests)
        if not length:
            self.grid: list[int] = []
            self.whole = self.before = self.per_block = 0.0
            return
        blocks = (prompt_bytes - preamble_bytes) / BLOCK_BYTES
        self.grid = [digests[place - 1] for place in GRID[: GRID_OF[length]]]
        if length < DIGESTS_MAX:
            # What is more than that has no digests, and so is no text.
            blocks = min(blocks, length + 1.0)
        # Its blocks, the last one being a part of one; what comes before them, in blocks; and tokens of each.
        self.whole = max(blocks, float(length))
        self.before = preamble_bytes / BLOCK_BYTES
        self.per_block = tokens / (self.before + self.whole)


class Cached:
    """How many tokens of a prompt are expected to be cached, with the standard deviation.

    `steps` are numbers of its first tokens, rising, each with how likely they all are cached. `prompt` is the one that
    was asked about. Its beginning was last used by these `users`, from the latest to the oldest, each up to a block; it
    goes on with the one whose last digest is `continues`, where there is one.
    """

    __slots__ = ("continues", "prompt", "sd", "steps", "tokens", "users")

    def __init__(
        self,
        tokens: float,
        sd: float,
        steps: tuple[tuple[float, float], ...],
        prompt: Prompt,
        users: list[tuple[Use, float]],
        continues: int | None,
    ) -> None:
        self.tokens = tokens
        self.sd = sd
        self.steps = steps
        self.prompt = prompt
        self.users = users
        self.continues = continues

    def at_least(self, p: float) -> float:
        """So many tokens are cached with this probability."""
        found = 0.0
        for tokens, likely in self.steps:
            if likely < p:
                break
            found = tokens
        return found


NOTHING = Cached(0.0, 0.0, (), Prompt((), 0, 0), [], None)
"""What is cached of a prompt without blocks."""
