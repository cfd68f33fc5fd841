"""Records of prompts: their beginnings in short, what an endpoint was given, and what it told of its cache.

What is done with them stands in `cached`, which is compiled.
"""

from bisect import bisect_right

import msgspec

BLOCK_BYTES = 1024
# A prompt has digests of its first 256 blocks.
DIGESTS_MAX = 256

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
