"""Traffic made up from laws: requests that arrive whatever becomes of others, and clients who wait for their answer."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from random import Random

import msgspec

from tidegate.sim.arrivals import ArrivalProcess
from tidegate.sim.ask import COMMON, Ask, Manner, block_ids
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.lengths import Constant, Distribution, Lengths, whole

# Prompts that may be taken up again: with ten thousand tokens each these are some megabytes of identities.
RECENT_MAX = 4096


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """What prompts of an open loop begin with, other than their own.

    Of those with `resumed_tokens_min` or more, `resumed_share` take up one of the `recent` last prompts: a conversation
    goes on. `resumed_part` says how much of the prompt is old. Of the others `common_share` begin with one of
    `commons` common prefixes, system prompts, each as often, whose lengths are spread over `common_tokens`.
    """

    common_share: float = 0.0
    commons: int = 1
    common_tokens: Distribution = Constant(0.0)
    resumed_share: float = 0.0
    resumed_tokens_min: int = 0
    resumed_part: Distribution = Constant(1.0)
    recent: int = 1

    def __post_init__(self) -> None:
        assert 0.0 <= self.common_share <= 1.0
        assert 0.0 <= self.resumed_share <= 1.0
        assert 1 <= self.recent <= RECENT_MAX
        assert self.commons >= 1


class Recent:
    """The last prompts, by length."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._order: deque[tuple[int, int]] = deque()
        self._sorted: list[tuple[int, int]] = []
        self._blocks: dict[int, tuple[int, ...]] = {}

    def add(self, number: int, blocks: tuple[int, ...]) -> None:
        """A prompt; the oldest goes, where they are too many."""
        if len(self._order) == self._most:
            old = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, old)], self._blocks[old[1]]
        key = (len(blocks), number)
        self._order.append(key)
        insort(self._sorted, key)
        self._blocks[number] = blocks

    def nearest(self, size: int) -> tuple[int, ...]:
        """The first `size` blocks of the shortest that has them, or all of the longest; nothing of nothing."""
        if not self._sorted:
            return ()
        place = min(bisect_left(self._sorted, (size, -1)), len(self._sorted) - 1)
        return self._blocks[self._sorted[place][1]][:size]


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """An open loop: requests arrive by `process`, `requests_max` of them at most, and nobody waits for an answer.

    `name` begins the ids of its requests and is the key of its chance; `space` (0 to 127) keeps the blocks of a
    world's several traffics apart.
    """

    process: ArrivalProcess
    lengths: Lengths
    ask: Ask
    chance: Chance
    name: str = "open"
    space: int = 0
    reuse: Reuse = Reuse()
    block_tokens: int = 512
    begins_s: float = 0.0
    requests_max: int | None = None

    def arrivals(self) -> Iterator[Job]:
        """All of them, without end unless there is a bound."""
        at, name, ask, block_tokens = self.chance.at, self.name, self.ask, self.block_tokens
        sizes, manners, origins = at(name, "lengths"), at(name, "manners"), at(name, "reuse")
        commons = self._commons()
        recent = Recent(self.reuse.recent)
        for number, arrived_s in enumerate(self.process.times(at(name, "arrivals"))):
            if number == self.requests_max:
                return
            prompt_tokens, output_tokens = self.lengths.draw(sizes)
            head = self._head(origins, recent, commons, prompt_tokens)
            blocks = head + block_ids(self.space, number, 0, range(len(head), prompt_tokens // block_tokens))
            recent.add(number, blocks)
            yield ask.job(
                ask.manner(manners),
                id=f"{name}-{number}",
                arrived_s=self.begins_s + arrived_s,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                blocks=blocks,
                block_tokens=block_tokens,
            )

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:  # noqa: ARG002 # nobody waits
        """Nothing."""
        return None

    def _commons(self) -> list[tuple[int, ...]]:
        spread, n = self.reuse.common_tokens, self.reuse.commons
        sizes = [int(spread.at((k + 0.5) / n)) // self.block_tokens for k in range(n)]
        return [block_ids(self.space, k, COMMON, range(size)) for k, size in enumerate(sizes)]

    def _head(self, random: Random, recent: Recent, commons: list[tuple[int, ...]], tokens: int) -> tuple[int, ...]:
        """The blocks that a prompt of so many tokens begins with. Takes as much chance whatever comes of it."""
        reuse, room = self.reuse, tokens // self.block_tokens
        resumes, part, shares, which = random.random(), random.random(), random.random(), random.random()
        if resumes < reuse.resumed_share and tokens >= reuse.resumed_tokens_min:
            return recent.nearest(int(room * min(reuse.resumed_part.at(part), 1.0) + 0.5))
        if shares < reuse.common_share:
            return commons[int(which * len(commons))][:room]
        return ()


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a session now and then: at `share` of its turns its beginning changes.

    In `resized_share` of these cases the next prompt has `tokens`, in the others as many as the last one: something
    changed near its beginning, which costs all of the cache behind it. It begins with `kept` of its own as before.
    """

    share: float = 0.0
    resized_share: float = 0.0
    tokens: Distribution = Constant(1.0)
    kept: Distribution = Constant(1.0)

    def __post_init__(self) -> None:
        assert 0.0 <= self.share <= 1.0
        assert 0.0 <= self.resized_share <= 1.0


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is like: its first prompt, how many turns, and what happens between two of them.

    The next prompt is the last one, its output, and `new_tokens` more, `think_s` after the answer; in the first
    `early_turns` it is `early_tokens` more, since agents read before they write. A prompt that grows beyond
    `window_tokens` is compacted, to the tokens of `compacted` and like after a break. `correlation` is that of first
    prompt and turns, by rank. Sessions of one user lie `pause_s` apart. All sessions of a traffic have their first
    `common_tokens` in common.
    """

    first_tokens: Distribution
    output_tokens: Distribution
    new_tokens: Distribution
    turns: Distribution
    think_s: Distribution
    early_turns: int = 0
    early_tokens: Distribution = Constant(0.0)
    pause_s: Distribution = Constant(60.0)
    correlation: float = 0.0
    breaks: Break = Break()
    window_tokens: int = 1_000_000
    compacted: Distribution = Constant(50_000.0)
    common_tokens: int = 0

    def __post_init__(self) -> None:
        assert -1.0 <= self.correlation <= 1.0
        assert self.common_tokens >= 0


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop of `users`, each in one session after another, who begin within the first `ramp_s`.

    A session is one of `talks`, by their weights. What a user does is a function of seed, name, session and turn; only
    when it is done follows from the answers. A turn that is not served is asked again. `name` and `space` are as in
    `Open`.
    """

    users: int
    talks: tuple[tuple[Talk, float], ...]
    ask: Ask
    chance: Chance
    name: str = "sessions"
    space: int = 0
    block_tokens: int = 512
    begins_s: float = 0.0
    ramp_s: float = 60.0

    def __post_init__(self) -> None:
        assert self.users >= 1
        assert sum(weight for _, weight in self.talks) > 0.0

    def arrivals(self) -> Iterator[Job]:
        """The first turn of each user's first session."""
        random = self.chance.at(self.name, "arrivals")
        for number, share in enumerate(sorted(random.random() for _ in range(self.users))):
            yield self._first(number, self.begins_s + share * self.ramp_s)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job:
        """The session's next turn, or the first of the same user's next session, which has another name."""
        number, turn = int(job.session.rpartition("-")[2]), job.turn + 1
        talk, manner, _, turns = self._session(number)
        random = self.chance.at(self.name, "turn", number, turn)
        think, grow, answer = random.random(), random.random(), random.random()
        breaks, size, kept = random.random(), random.random(), random.random()
        arrived_s = ended_s + talk.think_s.at(think)
        prompt_tokens, blocks, output_tokens = job.prompt_tokens, job.blocks, job.output_tokens
        if served:
            output_tokens = whole(talk.output_tokens.at(answer))
            broken = breaks < talk.breaks.share
            if broken:
                if breaks < talk.breaks.share * talk.breaks.resized_share:
                    prompt_tokens = whole(talk.breaks.tokens.at(size))
            else:
                new_tokens = talk.early_tokens if turn <= talk.early_turns else talk.new_tokens
                prompt_tokens += job.target + int(new_tokens.at(grow) + 0.5)
            if prompt_tokens > talk.window_tokens:
                prompt_tokens, broken = whole(talk.compacted.at(size)), True
            if broken:
                blocks = blocks[: int(prompt_tokens * talk.breaks.kept.at(kept)) // self.block_tokens]
        if turn >= turns:
            return self._first(number + self.users, ended_s + talk.pause_s.at(think))
        room = prompt_tokens // self.block_tokens
        blocks += block_ids(self.space, number, turn, range(len(blocks), room))
        return self._job(manner, number, turn, arrived_s, prompt_tokens, output_tokens, blocks, job)

    def _first(self, number: int, arrived_s: float) -> Job:
        """The first turn of a session."""
        talk, manner, prompt_tokens, _ = self._session(number)
        output_tokens = whole(talk.output_tokens.at(self.chance.at(self.name, "turn", number, 0).random()))
        room = prompt_tokens // self.block_tokens
        head = block_ids(self.space, 0, COMMON, range(min(talk.common_tokens // self.block_tokens, room)))
        blocks = head + block_ids(self.space, number, 0, range(len(head), room))
        return self._job(manner, number, 0, arrived_s, prompt_tokens, output_tokens, blocks)

    def _session(self, number: int) -> tuple[Talk, Manner, int, int]:
        """Kind, manner, tokens of the first prompt, and turns; drawn anew each time, so that none need be kept."""
        random = self.chance.at(self.name, "session", number)
        left = random.random() * sum(weight for _, weight in self.talks)
        talk = self.talks[-1][0]
        for kind, weight in self.talks:
            if left < weight:
                talk = kind
                break
            left -= weight
        drawn = Lengths(prompt_tokens=talk.first_tokens, output_tokens=talk.turns, correlation=talk.correlation)
        first_tokens, turns = drawn.draw(random)
        return talk, self.ask.manner(random), min(first_tokens, talk.window_tokens), min(turns, COMMON)

    def _job(
        self,
        manner: Manner,
        number: int,
        turn: int,
        arrived_s: float,
        prompt_tokens: int,
        output_tokens: int,
        blocks: tuple[int, ...],
        after: Job | None = None,
    ) -> Job:
        session = f"{self.name}-{number}"
        return self.ask.job(
            manner,
            id=f"{session}.{turn}",
            arrived_s=arrived_s,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            blocks=blocks,
            block_tokens=self.block_tokens,
            session=session,
            turn=turn,
            after=after,
        )
