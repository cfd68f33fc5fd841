"""Which beginnings of prompts an endpoint has computed, and so how much of a new prompt it need not compute again.

Each prompt that an endpoint began to answer is remembered by a few digests of its beginning, until others have taken
their place. What a new prompt has in common with them was there once; `keeping` says how likely it still is.
"""

from typing import Final

from tidegate.core.cached import NOTHING, Cached, Prompt, at_grid, last_of
from tidegate.core.keeping import Keeping, age_cell, distance_cell, size_cell
from tidegate.core.prior import CachePrior
from tidegate.core.prompts import DIGESTS_MAX, GRID, Given, Prefix, Prompts, Span, Use

# Bytes of an endpoint's snapshot that its prompts may take, and what one takes without its digests.
STATE_BYTES_MAX: Final = 38_000
_USE_BYTES: Final = 48
# What they take is counted in thirds of a byte: base64 makes four of each byte of a digest, and sums of whole numbers
# are the same whether they were kept or are made anew from a snapshot.
_THIRDS: Final = 3
_THIRDS_PER_DIGEST_BYTE: Final = 4
# Engines evict by the order of use; uses within a tenth of a second count as one.
TICKS_PER_S: Final = 10.0


class Prefixes:
    """What one endpoint has of prompts. `put`, `learn`, `settle` and `forget` write, the rest reads."""

    __slots__ = ("_index", "_state", "_thirds", "keeping")

    def __init__(self, prior: CachePrior, state: Prompts) -> None:
        self._state = state
        self.keeping = Keeping(prior, state.kept)
        # By digest, the latest prompt that has it at a place of the grid.
        self._index: dict[int, Use] = {}
        self._thirds = 0
        self._build()

    # --- reading ------------------------------------------------------------------------------------------------

    def cached(self, prompt: Prompt, now_s: float) -> Cached:
        """What is expected to be cached of a prompt, were it sent now. At least its last token is computed."""
        odds, grid = self.keeping.odds, prompt.grid
        if not odds.surplus[0] and (not grid or grid[0] not in self._index):
            return NOTHING
        most = max(0.0, prompt.tokens - 1.0)
        steps: list[tuple[float, float]] = []
        users, continues = self._users(prompt)
        if users:
            put_tokens, by_distance, by_age = self._state.put_tokens, odds.by_distance, odds.by_age
            before, per_block = prompt.before, prompt.per_block
            by_size = odds.by_size[size_cell((before + users[-1][1]) * per_block)]
            for user, end in users:
                p = by_distance[distance_cell(put_tokens - user.put_tokens)] * by_age[age_cell(now_s - user.at_s)]
                tokens = (before + end) * per_block
                steps.append((tokens if tokens < most else most, p * by_size))
        tokens, sd = self.keeping.expected(steps, prompt.tokens, now_s)
        return Cached(tokens if tokens < most else most, sd, tuple(steps), prompt, users, continues)

    def all_cached(self, prompt: Prompt) -> Cached:
        """All of it is cached for sure; its last token is computed in any case, since the answer begins from it."""
        tokens = max(0.0, prompt.tokens - 1.0)
        users, continues = self._users(prompt)
        return Cached(tokens, 0.0, ((tokens, 1.0),), prompt, users, continues)

    @property
    def told(self) -> bool:
        """Whether it has told lately how many tokens were cached."""
        return self._state.kept.told

    def given(self, prefix: Prefix | None, tokens: int, cached: Cached, now_s: float) -> Given:
        """What to remember of a prompt of so many tokens until it ends. `prefix` is its own beginning."""
        prompt, users = cached.prompt, cached.users
        if not users:
            return Given(tokens, cached.tokens, prefix=prefix)
        odds, put_tokens = self.keeping.odds, self._state.put_tokens
        spans, done = [], 0.0
        for user, end in users:
            reached = (prompt.before + end) * prompt.per_block
            d, a = distance_cell(put_tokens - user.put_tokens), age_cell(now_s - user.at_s)
            spans.append(Span(reached - done, d, a, odds.by_distance[d], odds.by_age[a]))
            done = reached
        by_size = odds.by_size[size_cell(done)]
        return Given(tokens, cached.tokens, tuple(spans), by_size, prefix, cached.continues)

    def _users(self, prompt: Prompt) -> tuple[list[tuple[Use, float]], int | None]:
        """Who used last what a prompt begins with, each with the block up to which; nobody, where that is not known.

        From the latest to the oldest: whoever has a block has all before it. With them, the last digest of the one that
        this prompt goes on with, where there is one.
        """
        index = self._index
        users: list[tuple[Use, float]] = []
        user, reached = None, 0
        for place, digest in zip(GRID, prompt.grid):  # noqa: B905 # a shorter prompt has less of the grid
            other = index.get(digest)
            if other is None:
                break
            if user is not None and other is not user:
                users.append((user, self._end(user, reached, prompt)[0]))
            user, reached = other, place
        if user is None:
            return users, None
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
        last = last_of(prefix)
        use = Use(at_s, state.put_tokens, prefix)
        # Those of one time stand in an order of their own, whichever came first, and are settled on the way.
        behind: list[tuple[int, Use]] = []
        for key, other in reversed(state.uses.items()):
            if other.at_s != at_s:
                break
            other.put_tokens = state.put_tokens
            if key != last and _stands_behind(key, other, last, use):
                behind.append((key, other))
        replaced = state.uses.pop(last, None)
        state.uses[last] = use
        self._own(use)
        for key, other in reversed(behind):
            del state.uses[key]
            state.uses[key] = other
            self._own(other)
        # The same prompt again has the places of the one before.
        if replaced is None or replaced.prefix != prefix:
            self._thirds += _thirds_of(prefix)
            if replaced is not None:
                self._dropped(replaced)
        if given.continues is not None and given.continues != last:
            # Whoever goes on with the conversation finds it at its new end.
            self._drop(given.continues)
        while self._thirds > _THIRDS * STATE_BYTES_MAX and len(state.uses) > 1:
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
            self.keeping.learn(given.spans, given.by_size, given.tokens, known, now_s)

    def settle(self, now_s: float) -> None:
        """Let count what was observed before."""
        self.keeping.settle(now_s)

    def forget(self) -> None:
        """Its engine began anew, with nothing in its memory. How much it has room for need not be learned again."""
        self._state.uses.clear()
        self._build()

    def _settle(self, at_s: float) -> None:
        """What was put there since those of this time came was put there with them."""
        put_tokens = self._state.put_tokens
        for use in reversed(self._state.uses.values()):
            if use.at_s != at_s:
                break
            use.put_tokens = put_tokens

    def _own(self, use: Use) -> None:
        for digest in at_grid(use.prefix):
            self._index[digest] = use

    def _evict(self) -> None:
        """The oldest: of what it has, nobody older has anything."""
        key = next(iter(self._state.uses))
        use = self._state.uses.pop(key)
        self._thirds -= _thirds_of(use.prefix)
        for digest in at_grid(use.prefix):
            if self._index.get(digest) is use:
                del self._index[digest]

    def _drop(self, last: int) -> None:
        use = self._state.uses.pop(last, None)
        if use is not None:
            self._dropped(use)

    def _dropped(self, use: Use) -> None:
        """One is gone whose places all belong to another by now, unless digests have met by chance."""
        self._thirds -= _thirds_of(use.prefix)
        if any(self._index[digest] is use for digest in at_grid(use.prefix)):
            self._build()

    def _build(self) -> None:
        self._index.clear()
        self._thirds = 0
        for use in self._state.uses.values():
            self._thirds += _thirds_of(use.prefix)
            self._own(use)


def _tick(now_s: float) -> float:
    return int(now_s * TICKS_PER_S) / TICKS_PER_S


def _stands_behind(last: int, use: Use, other_last: int, other: Use) -> bool:
    """Whether of two of one time the first stands behind the other: if it is longer, or by their last digests."""
    blocks, other_blocks = use.prefix.blocks, other.prefix.blocks
    return last > other_last if blocks == other_blocks else blocks > other_blocks


def _thirds_of(prefix: Prefix) -> int:
    return _THIRDS * _USE_BYTES + _THIRDS_PER_DIGEST_BYTE * len(prefix.digests)
