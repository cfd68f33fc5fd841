"""Traffic made up from laws: requests that arrive whatever becomes of others, and clients who wait for their answer."""

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

    `resumed_share` of them take up one of the `recent` last prompts: of `tries` picked at random the longest that they
    are long enough for, since a conversation grows. Of the others `common_share` begin with one of `commons` common
    prefixes, system prompts, each as often; their lengths are spread over `common_tokens`.
    """

    common_share: float = 0.0
    commons: int = 1
    common_tokens: Distribution = Constant(0.0)
    resumed_share: float = 0.0
    recent: int = 1
    tries: int = 1

    def __post_init__(self) -> None:
        assert 0.0 <= self.common_share <= 1.0
        assert 0.0 <= self.resumed_share <= 1.0
        assert 1 <= self.recent <= RECENT_MAX
        assert self.commons >= 1
        assert self.tries >= 1


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
        recent: deque[tuple[int, ...]] = deque(maxlen=self.reuse.recent)
        for number, arrived_s in enumerate(self.process.times(at(name, "arrivals"))):
            if number == self.requests_max:
                return
            prompt_tokens, output_tokens = self.lengths.draw(sizes)
            room = prompt_tokens // block_tokens
            head = self._head(origins, recent, commons, room)
            blocks = head + block_ids(self.space, number, 0, range(len(head), room))
            recent.append(blocks)
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

    def _head(
        self, random: Random, recent: deque[tuple[int, ...]], commons: list[tuple[int, ...]], room: int
    ) -> tuple[int, ...]:
        """The blocks that a prompt with room for so many begins with. Takes as much chance whatever comes of it."""
        reuse = self.reuse
        resumes, shares, which = random.random(), random.random(), random.random()
        picks = [random.random() for _ in range(reuse.tries)]
        if resumes < reuse.resumed_share and recent:
            found = [recent[int(pick * len(recent))] for pick in picks]
            fitting = [blocks for blocks in found if len(blocks) <= room]
            return max(fitting, key=len) if fitting else min(found, key=len)[:room]
        if shares < reuse.common_share:
            return commons[int(which * len(commons))][:room]
        return ()


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """How the prompts of a session stop growing: at `share` of its turns its beginning changes.

    The next prompt has `size` times the tokens of the last, and begins with `kept` of its own as before: compacted, or
    as long as ever with something changed near its beginning, which costs the whole cache behind it.
    """

    share: float = 0.0
    size: Distribution = Constant(1.0)
    kept: Distribution = Constant(1.0)

    def __post_init__(self) -> None:
        assert 0.0 <= self.share <= 1.0


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is like: its first prompt, how many turns, and what happens between two of them.

    The next prompt is the last one, its output, and `new_tokens` more, `think_s` after the answer. A session whose
    context would grow beyond `context_tokens_max` is over. `correlation` is that of first prompt and turns, by rank.
    Sessions of one user lie `pause_s` apart. All sessions begin with the same `common_tokens`.
    """

    first_tokens: Distribution
    output_tokens: Distribution
    new_tokens: Distribution
    turns: Distribution
    think_s: Distribution
    pause_s: Distribution = Constant(60.0)
    correlation: float = 0.0
    breaks: Break = Break()
    common_tokens: int = 0
    context_tokens_max: int = 1_000_000


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """A closed loop of `users`, each in one session after another, who begin within the first `ramp_s`.

    What a user does is a function of seed, name, session and turn; only when follows from the answers. A turn that
    is not served is asked again. `name` and `space` as in `Open`.
    """

    users: int
    talk: Talk
    ask: Ask
    chance: Chance
    name: str = "sessions"
    space: int = 0
    block_tokens: int = 512
    begins_s: float = 0.0
    ramp_s: float = 60.0

    def __post_init__(self) -> None:
        assert self.users >= 1

    def arrivals(self) -> Iterator[Job]:
        """The first turn of each user's first session."""
        random = self.chance.at(self.name, "arrivals")
        for number, share in enumerate(sorted(random.random() for _ in range(self.users))):
            yield self._first(number, self.begins_s + share * self.ramp_s)

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job:
        """The session's next turn, or the first of the same user's next session, which has another name."""
        number, turn = int(job.session.rpartition("-")[2]), job.turn + 1
        manner, _, turns = self._session(number)
        random = self.chance.at(self.name, "turn", number, turn)
        think_s, new, output = random.random(), random.random(), random.random()
        breaks, size, kept = random.random(), random.random(), random.random()
        talk = self.talk
        arrived_s = ended_s + talk.think_s.at(think_s)
        prompt_tokens, blocks, output_tokens = job.prompt_tokens, job.blocks, job.output_tokens
        if served:
            output_tokens = whole(talk.output_tokens.at(output))
            if breaks < talk.breaks.share:
                prompt_tokens = whole(job.prompt_tokens * talk.breaks.size.at(size))
                blocks = blocks[: int(prompt_tokens * talk.breaks.kept.at(kept)) // self.block_tokens]
            else:
                prompt_tokens += _generated(job) + int(talk.new_tokens.at(new) + 0.5)
        if turn >= turns or prompt_tokens > talk.context_tokens_max:
            return self._first(number + self.users, ended_s + talk.pause_s.at(think_s))
        room = prompt_tokens // self.block_tokens
        blocks += block_ids(self.space, number, turn, range(len(blocks), room))
        return self._job(manner, number, turn, arrived_s, prompt_tokens, output_tokens, blocks)

    def _first(self, number: int, arrived_s: float) -> Job:
        """The first turn of a session."""
        manner, prompt_tokens, _ = self._session(number)
        output_tokens = whole(self.talk.output_tokens.at(self.chance.at(self.name, "turn", number, 0).random()))
        room = prompt_tokens // self.block_tokens
        head = block_ids(self.space, 0, COMMON, range(min(self.talk.common_tokens // self.block_tokens, room)))
        blocks = head + block_ids(self.space, number, 0, range(len(head), room))
        return self._job(manner, number, 0, arrived_s, prompt_tokens, output_tokens, blocks)

    def _session(self, number: int) -> tuple[Manner, int, int]:
        """Manner, tokens of the first prompt, and turns; drawn anew each time, so that no session need be kept."""
        random, talk = self.chance.at(self.name, "session", number), self.talk
        drawn = Lengths(prompt_tokens=talk.first_tokens, output_tokens=talk.turns, correlation=talk.correlation)
        first_tokens, turns = drawn.draw(random)
        return self.ask.manner(random), min(first_tokens, talk.context_tokens_max), min(turns, COMMON)

    def _job(
        self,
        manner: Manner,
        number: int,
        turn: int,
        arrived_s: float,
        prompt_tokens: int,
        output_tokens: int,
        blocks: tuple[int, ...],
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
        )


def _generated(job: Job) -> int:
    """Tokens of the answer, which the client's bound may have cut."""
    bound = job.request.output_tokens_max
    return job.output_tokens if bound is None else min(job.output_tokens, bound)
