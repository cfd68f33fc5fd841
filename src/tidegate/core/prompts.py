"""Records of prompts: their beginnings in short, what an endpoint was given, and what it told of its cache."""

from bisect import bisect_right
from collections.abc import Sequence
from struct import pack, unpack

import msgspec

BLOCK_BYTES = 1024
# A prompt has digests of its first 256 blocks.
DIGESTS_MAX = 256
_DIGEST_BYTES = 4
DIGEST_MASK = 2**32 - 1

# Tokens put there since: below 512, then by factors of two, to 32 million and more. Seconds since: below one, then by
# factors of two, to two hours and more. Tokens in common: below 256, then by factors of two, to 8,192 and more.
DISTANCE_BITS, DISTANCES = 9, 18
AGES = 14
SIZE_BITS, SIZES = 8, 7


def _grid() -> tuple[int, ...]:
    found = [1, 2]
    while found[-1] < DIGESTS_MAX:
        found += [found[-1] * part // 2 for part in (3, 4)]
    return tuple(found)


# After how many blocks a prompt is remembered: two places in each octave. All 256 of a long prompt would tell where
# another one leaves it, to the block; sixteen tell it to a third of what they share at worst, and remember prompts for
# five times as long in as many bytes. The end of each is known besides, which is where conversations go on.
GRID = _grid()
GRID_OF = tuple(bisect_right(GRID, length) for length in range(DIGESTS_MAX + 1))


class Prefix(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The beginning of a prompt, in short: how many whole blocks of 1 KiB it has, and digests at some of them.

    `digests` are of four bytes each: at every place of `GRID` within the first 256 blocks, and of the last block there.
    """

    blocks: int
    digests: bytes

    @property
    def last(self) -> int:
        """The digest of all of it."""
        return int(unpack("<I", self.digests[-_DIGEST_BYTES:])[0])

    def at_grid(self) -> tuple[int, ...]:
        """The digests at the places of `GRID`."""
        count = GRID_OF[min(self.blocks, DIGESTS_MAX)]
        return unpack(f"<{count}I", self.digests[: count * _DIGEST_BYTES])

    def spread(self) -> tuple[int, ...]:
        """All digests in their places, -1 where one is not known."""
        length = min(self.blocks, DIGESTS_MAX)
        found = [-1] * length
        for place, digest in zip(GRID, self.at_grid(), strict=False):
            found[place - 1] = digest
        found[-1] = self.last
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
    return Prefix(blocks, pack(f"<{len(chosen)}I", *chosen))


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
            self.grid: Sequence[int] = ()
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


class Cached(msgspec.Struct, frozen=True, gc=False):
    """How many tokens of a prompt are expected to be cached, with the standard deviation.

    `steps` are numbers of its first tokens, rising, each with how likely they all are cached. `prompt` is the one that
    was asked about.
    """

    tokens: float
    sd: float
    steps: tuple[tuple[float, float], ...]
    prompt: Prompt

    def at_least(self, p: float) -> float:
        """So many tokens are cached with this probability."""
        found = 0.0
        for tokens, likely in self.steps:
            if likely < p:
                break
            found = tokens
        return found


def all_cached(prompt: Prompt) -> Cached:
    """All of it is cached for sure; its last token is computed in any case, since the answer begins from it."""
    tokens = max(0.0, prompt.tokens - 1.0)
    return Cached(tokens, 0.0, ((tokens, 1.0),), prompt)


NOTHING = Cached(0.0, 0.0, (), Prompt((), 0, 0))
"""What is cached of a prompt without blocks."""


# --- state -----------------------------------------------------------------------------------------------------


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stretch of a prompt, in tokens, that was last used by one earlier prompt: in the cells of how long ago.

    With it, how likely it was to be kept for all of these, as believed when the prompt was sent.
    """

    tokens: float
    distance: int
    age: int
    by_distance: float
    by_age: float


class Odds(msgspec.Struct, gc=False):
    """Probabilities of being kept. They fall with distance and with age, and rise with size.

    `surplus` are the shares of what is not expected to be cached that are cached after all.
    """

    by_distance: list[float]
    by_age: list[float]
    by_size: list[float]
    surplus: tuple[float, float] = (0.0, 0.0)


class Kept(msgspec.Struct, kw_only=True):
    """Decayed sums of what was kept and what was not, as of `at_s`, cell by cell.

    `surplus` and `rest` are tokens: what was cached beyond the known beginning, of all that was not expected to be; of
    prompts without a known beginning, and of those with one. `odds` are what follows from all but what is `new`;
    `told` is whether anything was told at all.
    """

    at_s: float = 0.0
    hits_by_distance: list[float] = msgspec.field(default_factory=lambda: [0.0] * DISTANCES)
    misses_by_distance: list[float] = msgspec.field(default_factory=lambda: [0.0] * DISTANCES)
    hits_by_age: list[float] = msgspec.field(default_factory=lambda: [0.0] * AGES)
    misses_by_age: list[float] = msgspec.field(default_factory=lambda: [0.0] * AGES)
    hits_by_size: list[float] = msgspec.field(default_factory=lambda: [0.0] * SIZES)
    misses_by_size: list[float] = msgspec.field(default_factory=lambda: [0.0] * SIZES)
    surplus: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    rest: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    new: bool = False
    told: bool = False
    odds: Odds | None = None


class Use(msgspec.Struct, array_like=True):
    """One prompt that an endpoint has computed: when, how many tokens had been put there by then, and which."""

    at_s: float
    put_tokens: int
    prefix: Prefix


class Prompts(msgspec.Struct, kw_only=True):
    """All that is known of the prompts of one endpoint: those it was given, and how long it keeps what it computes.

    `uses` by the digest of their last block, the latest at the end. `put_tokens` counts what was put there.
    """

    uses: dict[int, Use] = {}
    put_tokens: int = 0
    kept: Kept = msgspec.field(default_factory=Kept)


class Given(msgspec.Struct, array_like=True):
    """A prompt that an endpoint was given, with what was expected of it then. Once it is `computed`, its `prefix` is
    with those of the others.

    `spans` are what its beginning has in common with earlier prompts, and `by_size` how likely so much is to be kept.
    Of these it goes on with the one whose last digest is `continues`, where there is one.
    """

    tokens: int
    cached: float
    spans: tuple[Span, ...] = ()
    by_size: float = 1.0
    prefix: Prefix | None = None
    continues: int | None = None
    computed: bool = False
