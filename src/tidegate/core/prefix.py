"""Which beginnings of prompts an endpoint has computed, and so how much of a new prompt it need not compute again.

Each prompt that an endpoint began to answer is remembered by a few digests of its beginning, until others have taken
their place. What a new prompt has in common with them was there once; `keeping` says how likely it still is.
"""

from bisect import bisect_right
from collections.abc import Sequence
from struct import pack, unpack

import msgspec

from tidegate.core.keeping import Keeping, Kept, Span, age_cell, distance_cell, size_cell
from tidegate.core.prior import CachePrior

BLOCK_BYTES = 1024
# A prompt has digests of its first 256 blocks.
DIGESTS_MAX = 256
_DIGEST_BYTES = 4
DIGEST_MASK = 2**32 - 1


def _grid() -> tuple[int, ...]:
    found = [1, 2]
    while found[-1] < DIGESTS_MAX:
        found += [found[-1] * part // 2 for part in (3, 4)]
    return tuple(found)


# After how many blocks a prompt is remembered: each of the first eight, then four in each octave. All 256 of a long
# prompt would tell where another one leaves it to the block; a tenth of them tells it to an eighth of what they share,
# and remembers prompts for three times as long in as many bytes.
GRID = _grid()
_GRID_OF = tuple(bisect_right(GRID, length) for length in range(DIGESTS_MAX + 1))
# Bytes of an endpoint's snapshot that its prompts may take, and what one takes without its digests, and each of these.
STATE_BYTES_MAX = 38_000
_USE_BYTES = 48
_BYTES_PER_BYTE = 4.0 / 3.0  # base64
# Engines evict by the order of use; uses within a tenth of a second count as one.
TICKS_PER_S = 10.0


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
        count = _GRID_OF[min(self.blocks, DIGESTS_MAX)]
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
    chosen = [digests[place - 1] & DIGEST_MASK for place in GRID[: _GRID_OF[length]]]
    if GRID[len(chosen) - 1] != length:
        chosen.append(digests[-1] & DIGEST_MASK)
    blocks = length if length < DIGESTS_MAX else max(length, prompt_bytes // BLOCK_BYTES)
    return Prefix(blocks, pack(f"<{len(chosen)}I", *chosen))


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


class Prompt:
    """A prompt as endpoints are asked about it, in `tokens` as estimated.

    Of `prompt_bytes` the first `preamble_bytes` come before the blocks of the digests, and every digest covers them.
    """

    __slots__ = ("before", "digests", "grid", "per_block", "tokens", "whole")

    def __init__(self, digests: Sequence[int], tokens: int, prompt_bytes: int, preamble_bytes: int = 0) -> None:
        self.digests = digests
        self.tokens = tokens
        length, blocks = len(digests), (prompt_bytes - preamble_bytes) / BLOCK_BYTES
        self.grid = [digests[place - 1] for place in GRID[: _GRID_OF[length]]]
        if length < DIGESTS_MAX:
            # What is more than that has no digests, and so is no text.
            blocks = min(blocks, length + 1.0)
        # Its blocks, the last one being a part of one; what comes before them, in blocks; and tokens of each.
        self.whole = max(blocks, float(length))
        self.before = preamble_bytes / BLOCK_BYTES
        self.per_block = tokens / (self.before + self.whole) if self.whole else 0.0


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


NOTHING = Cached(0.0, 0.0, (), Prompt((), 0, 0))
"""What is cached of a prompt without blocks."""


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


class Prefixes:
    """What one endpoint has of prompts. `cached`, `told` and `given` read; `put`, `learn`, `settle`, `forget` write."""

    __slots__ = ("_bytes", "_index", "_state", "keeping")

    def __init__(self, prior: CachePrior, state: Prompts) -> None:
        self._state = state
        self.keeping = Keeping(prior, state.kept)
        # By digest, the latest prompt that has it at a place of the grid.
        self._index: dict[int, Use] = {}
        self._bytes = 0.0
        self._build()

    # --- reading ------------------------------------------------------------------------------------------------

    def cached(self, prompt: Prompt, now_s: float) -> Cached:
        """What is expected to be cached of a prompt, were it sent now. At least its last token is computed."""
        odds = self.keeping.odds
        most = max(0.0, prompt.tokens - 1.0)
        steps: list[tuple[float, float]] = []
        if prompt.grid and prompt.grid[0] in self._index:
            put_tokens, by_distance, by_age = self._state.put_tokens, odds.by_distance, odds.by_age
            users, _ = self._users(prompt)
            before, per_block = prompt.before, prompt.per_block
            by_size = odds.by_size[size_cell((before + users[-1][1]) * per_block)]
            for user, end in users:
                p = by_distance[distance_cell(put_tokens - user.put_tokens)] * by_age[age_cell(now_s - user.at_s)]
                tokens = (before + end) * per_block
                steps.append((tokens if tokens < most else most, p * by_size))
        elif not odds.surplus[0]:
            return Cached(0.0, 0.0, (), prompt)
        tokens, sd = self.keeping.expected(steps, prompt.tokens, now_s)
        return Cached(tokens if tokens < most else most, sd, tuple(steps), prompt)

    @property
    def told(self) -> bool:
        """Whether it has told lately how many tokens were cached."""
        return self._state.kept.told

    def given(self, prefix: Prefix | None, cached: Cached, now_s: float) -> Given:
        """What to remember of a prompt until it ends. `prefix` is its own beginning."""
        prompt = cached.prompt
        if not prompt.grid or prompt.grid[0] not in self._index:
            return Given(prompt.tokens, cached.tokens, prefix=prefix)
        users, continues = self._users(prompt)
        odds, put_tokens = self.keeping.odds, self._state.put_tokens
        spans, done = [], 0.0
        for user, end in users:
            tokens = (prompt.before + end) * prompt.per_block
            d, a = distance_cell(put_tokens - user.put_tokens), age_cell(now_s - user.at_s)
            spans.append(Span(tokens - done, d, a, odds.by_distance[d], odds.by_age[a]))
            done = tokens
        by_size = odds.by_size[size_cell(done)]
        return Given(prompt.tokens, cached.tokens, tuple(spans), by_size, prefix, continues)

    def _users(self, prompt: Prompt) -> tuple[list[tuple[Use, float]], int | None]:
        """Who used last what a prompt, whose first block is known, begins with, each with the block up to which.

        From the latest to the oldest: whoever has a block has all before it. With them, the last digest of the one that
        this prompt goes on with, where there is one.
        """
        index = self._index
        user = index[prompt.grid[0]]
        users: list[tuple[Use, float]] = []
        reached = 0
        for place, digest in zip(GRID, prompt.grid):  # noqa: B905 # a shorter prompt has less of the grid
            other = index.get(digest)
            if other is not user:
                if other is None:
                    break
                users.append((user, self._end(user, reached, prompt)[0]))
                user = other
            reached = place
        end, continues = self._end(user, reached, prompt)
        users.append((user, end))
        return users, continues

    def _end(self, user: Use, reached: int, prompt: Prompt) -> tuple[float, int | None]:
        """Up to which block it has this prompt, of which it has so many for sure; and its last digest if it has all.

        Between two places of the grid only the ends of prompts are known, and that is where conversations go on.
        """
        digests, last = prompt.digests, user.prefix.blocks
        if last > DIGESTS_MAX:
            if reached == DIGESTS_MAX:
                return min(float(last), prompt.whole), digests[-1]
        elif reached <= last <= len(digests) and self._state.uses.get(digests[last - 1]) is user:
            return float(last), digests[last - 1]
        return float(reached), None

    # --- writing ------------------------------------------------------------------------------------------------

    def put(self, given: Given, now_s: float) -> None:
        """Its prompt is computed: from now on others may find it here."""
        prefix, given.prefix, given.computed = given.prefix, None, True
        state = self._state
        state.put_tokens += given.tokens - int(given.cached)
        at_s = _tick(now_s)
        if prefix is None:
            self._settle(at_s)
            return
        last = prefix.last
        use = Use(at_s, state.put_tokens, prefix)
        behind = [(last, use)]
        # Those of one time stand in an order of their own, whichever came first.
        for key in self._settle(at_s):
            if key == last:
                continue
            other = state.uses[key]
            if _rank(key, other) > _rank(last, use):
                del state.uses[key]
                behind.insert(1, (key, other))
        replaced = state.uses.pop(last, None)
        for key, one in behind:
            state.uses[key] = one
            self._own(one)
        self._bytes += _size(prefix)
        if replaced is not None:
            self._dropped(replaced)
        if given.continues is not None and given.continues != last:
            # Whoever goes on with the conversation finds it at its new end.
            self._drop(given.continues)
        while self._bytes > STATE_BYTES_MAX and len(state.uses) > 1:
            self._evict()

    def learn(
        self, given: Given, output_tokens: int, prompt_tokens: int | None, cached_tokens: int | None, now_s: float
    ) -> None:
        """It has ended, and its output was put there too.

        `cached_tokens` of `prompt_tokens` were cached, by the engine's own count; None is unknown, and teaches nothing.
        """
        self._state.put_tokens += output_tokens
        self._settle(_tick(now_s))
        if cached_tokens is not None and prompt_tokens:
            known = given.tokens * min(cached_tokens / prompt_tokens, 1.0)
            self.keeping.learn(given.spans, given.by_size, given.cached, given.tokens, known, now_s)

    def settle(self, now_s: float) -> None:
        """Let count what was observed before."""
        self.keeping.settle(now_s)

    def forget(self) -> None:
        """Its engine began anew, with nothing in its memory. How much it has room for need not be learned again."""
        self._state.uses.clear()
        self._build()

    def _settle(self, at_s: float) -> list[int]:
        """Those that came at this time, the last one first: what was put there since then was put there with them."""
        found = []
        for key, use in reversed(self._state.uses.items()):
            if use.at_s != at_s:
                break
            use.put_tokens = self._state.put_tokens
            found.append(key)
        return found

    def _own(self, use: Use) -> None:
        for digest in use.prefix.at_grid():
            self._index[digest] = use

    def _evict(self) -> None:
        """The oldest: of what it has, nobody older has anything."""
        key = next(iter(self._state.uses))
        use = self._state.uses.pop(key)
        self._bytes -= _size(use.prefix)
        for digest in use.prefix.at_grid():
            if self._index.get(digest) is use:
                del self._index[digest]

    def _drop(self, last: int) -> None:
        use = self._state.uses.pop(last, None)
        if use is not None:
            self._dropped(use)

    def _dropped(self, use: Use) -> None:
        """One is gone whose places all belong to another by now, unless digests have met by chance."""
        self._bytes -= _size(use.prefix)
        if any(self._index[digest] is use for digest in use.prefix.at_grid()):
            self._build()

    def _build(self) -> None:
        self._index.clear()
        self._bytes = 0.0
        for use in self._state.uses.values():
            self._bytes += _size(use.prefix)
            self._own(use)


def _tick(now_s: float) -> float:
    return int(now_s * TICKS_PER_S) / TICKS_PER_S


def _rank(last: int, use: Use) -> tuple[int, int]:
    return use.prefix.blocks, last


def _size(prefix: Prefix) -> float:
    return _USE_BYTES + len(prefix.digests) * _BYTES_PER_BYTE
