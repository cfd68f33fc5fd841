"""Traces as traffic: recorded requests at their times, and recorded sessions at the pace of their answers."""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from tidegate.sim.ask import Ask, block_ids
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job, Traffic
from tidegate.sim.traces import KVCT_BLOCK_TOKENS, MOONCAKE_BLOCK_TOKENS, Seen, Turn, azure, kvct, mooncake

TraceFormat = Literal["azure", "mooncake", "kvct"]

# Blocks of kv-cache-tester are taken eight at a time, by the last one's identity, which tells all before it too: an
# eighth of the work for at most 511 tokens of a prompt's reuse, of 104,000 that it has.
_TAKEN = MOONCAKE_BLOCK_TOKENS // KVCT_BLOCK_TOKENS


def recorded(
    path: Path,
    format: TraceFormat,
    ask: Ask,
    chance: Chance,
    *,
    name: str = "trace",
    space: int = 0,
    begins_s: float = 0.0,
    speed: float = 1.0,
    rows_max: int | None = None,
    users: int = 8,
) -> Traffic:
    """The traffic of a trace file: `azure` and `mooncake` are open loops, `kvct` is a closed one.

    `speed` divides times and think times; of the file the first `rows_max` requests count. In a closed loop so many
    `users` go through the file's sessions, each taking the next one when theirs is over. `name` and `space` as in
    `Open`. Reading raises `BadTrace`.
    """
    if format == "kvct":
        return RecordedSessions(
            path,
            ask,
            chance,
            name=name,
            space=space,
            begins_s=begins_s,
            speed=speed,
            rows_max=rows_max,
            users=users,
        )
    return RecordedOpen(
        path=path,
        format=format,
        ask=ask,
        chance=chance,
        name=name,
        space=space,
        begins_s=begins_s,
        speed=speed,
        rows_max=rows_max,
    )


class RecordedOpen(msgspec.Struct, frozen=True, kw_only=True):
    """Requests at the times at which they were recorded. Where a trace has no blocks, no prompt is like another."""

    path: Path
    format: Literal["azure", "mooncake"]
    ask: Ask
    chance: Chance
    name: str = "trace"
    space: int = 0
    begins_s: float = 0.0
    speed: float = 1.0
    rows_max: int | None = None

    def __post_init__(self) -> None:
        assert self.speed > 0.0

    def arrivals(self) -> Iterator[Job]:
        """In the order of the file."""
        manners = self.chance.at(self.name, "manners")
        for number, seen in enumerate(islice(self._rows(), self.rows_max)):
            blocks = seen.blocks
            if blocks is None:
                blocks = block_ids(self.space, number, 0, range(seen.prompt_tokens // MOONCAKE_BLOCK_TOKENS))
            yield self.ask.job(
                self.ask.manner(manners),
                id=f"{self.name}-{number}",
                arrived_s=self.begins_s + seen.at_s / self.speed,
                prompt_tokens=seen.prompt_tokens or 1,
                output_tokens=seen.output_tokens or 1,
                blocks=blocks,
                block_tokens=MOONCAKE_BLOCK_TOKENS,
            )

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:  # noqa: ARG002 # nobody waits
        """Nothing."""
        return None

    def _rows(self) -> Iterator[Seen]:
        if self.format == "azure":
            return azure(self.path)
        return mooncake(self.path, self.chance.at(self.name, "ticks"), self.space)


class RecordedSessions:
    """Sessions as they were recorded, at the pace of the answers: `users` at once, who begin within `ramp_s`.

    What was recorded is asked, served or not: a trace does not tell what its client does without an answer. The next
    session begins `pause_s` after the last answer of the one before. It holds one session for each user.
    """

    def __init__(
        self,
        path: Path,
        ask: Ask,
        chance: Chance,
        *,
        name: str = "trace",
        space: int = 0,
        begins_s: float = 0.0,
        speed: float = 1.0,
        rows_max: int | None = None,
        users: int = 8,
        ramp_s: float = 60.0,
        pause_s: float = 60.0,
    ) -> None:
        assert speed > 0.0
        assert users >= 1
        self._path, self._ask, self._chance, self._name, self._space = path, ask, chance, name, space
        self._begins_s, self._speed, self._rows_max = begins_s, speed, rows_max
        self._users, self._ramp_s, self._pause_s = users, ramp_s, pause_s
        self._sessions: Iterator[tuple[int, list[Turn]]] = iter(())
        self._left: dict[str, deque[Turn]] = {}

    def arrivals(self) -> Iterator[Job]:
        """The first turn of each user's first session. Whoever asks again begins the file again."""
        self._sessions, self._left = enumerate(_first_rows(kvct(self._path, self._space), self._rows_max)), {}
        random = self._chance.at(self._name, "arrivals")
        for share in sorted(random.random() for _ in range(self._users)):
            job = self._next_session(self._begins_s + share * self._ramp_s)
            if job is None:
                return
            yield job

    def follows(self, job: Job, ended_s: float, *, served: bool) -> Job | None:  # noqa: ARG002 # as recorded
        """The session's next turn, or the first of another session; None where the file is at its end."""
        left = self._left[job.session]
        if left:
            turn = left.popleft()
            return self._job(job.session, job.turn + 1, ended_s + turn.think_s / self._speed, turn, job)
        del self._left[job.session]
        return self._next_session(ended_s + self._pause_s / self._speed)

    def _next_session(self, arrived_s: float) -> Job | None:
        number, turns = next(self._sessions, (0, []))
        if not turns:
            return None
        session = f"{self._name}-{number}"
        left = self._left[session] = deque(turns)
        return self._job(session, 0, arrived_s, left.popleft())

    def _job(self, session: str, number: int, arrived_s: float, turn: Turn, after: Job | None = None) -> Job:
        return self._ask.job(
            self._ask.manner(self._chance.at(self._name, "session", session)),
            id=f"{session}.{number}",
            arrived_s=arrived_s,
            prompt_tokens=turn.prompt_tokens or 1,
            output_tokens=turn.output_tokens or 1,
            blocks=_every(turn.runs, _TAKEN),
            block_tokens=MOONCAKE_BLOCK_TOKENS,
            session=session,
            turn=number,
            after=after,
        )


def _first_rows(sessions: Iterator[list[Turn]], rows_max: int | None) -> Iterator[list[Turn]]:
    """Sessions until so many requests are in them, the last one cut."""
    left = rows_max
    for turns in sessions:
        if left is None:
            yield turns
            continue
        if left <= 0:
            return
        yield turns[:left]
        left -= len(turns)


def _every(runs: tuple[tuple[int, int], ...], n: int) -> tuple[int, ...]:
    """Every n-th block, beginning with the n-th."""
    found: list[int] = []
    skip = n - 1
    for first, count in runs:
        found += range(first + skip, first + count, n)
        skip = (skip - count) % n
    return tuple(found)
