"""What stands behind an endpoint in a simulated world, and the way there."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from math import inf
from typing import Protocol

from tidegate.core.model import Ending, Probed, replace
from tidegate.sim.api import OK, Api
from tidegate.sim.engine import Engine, Kind, Sequence
from tidegate.sim.job import Job
from tidegate.sim.kv import BLOCK_TOKENS
from tidegate.sim.loop import Loop
from tidegate.wire.errors import REFUSALS


class Attempt:
    """One request on its way to one endpoint and back."""

    __slots__ = (
        "cached_tokens",
        "came_tokens",
        "endpoint",
        "first_s",
        "hedge",
        "job",
        "output_tokens",
        "over",
        "predicted_s",
        "predicted_s_high",
        "seen_s",
        "sent_s",
        "streamed",
        "target",
        "timed",
        "told_s",
    )

    def __init__(
        self,
        job: Job,
        endpoint: str,
        sent_s: float,
        *,
        hedge: bool,
        timed: bool = False,
        target: str = "",
        streamed: bool = True,
    ) -> None:
        """`timed`: how long its bytes take to get there is told. With a `target` the prompt alone is computed. What is
        not `streamed` comes in one piece."""
        self.job = job
        self.endpoint = endpoint
        self.sent_s = sent_s
        self.hedge = hedge
        self.timed = timed
        self.target = target
        self.streamed = streamed
        self.first_s: float | None = None
        # When its first content was seen: of an answer that comes in one piece, never.
        self.seen_s: float | None = None
        self.predicted_s: float | None = None
        self.predicted_s_high: float | None = None
        # Of the output that was made, where it broke off, so much has come back.
        self.cached_tokens = self.output_tokens = self.came_tokens = 0
        # When the last news of it so far is here.
        self.told_s = -inf
        self.over = False


class Failure:
    """Why an attempt came to nothing, in the words of the facts that are told of it."""

    __slots__ = ("cause", "ending", "retry_after_s")

    def __init__(self, ending: Ending, cause: str, retry_after_s: float | None = None) -> None:
        self.ending = ending
        self.cause = cause
        self.retry_after_s = retry_after_s


REFUSED = Failure(Ending.FAILED, "refused")
RESET = Failure(Ending.FAILED, "reset")
FULL = Failure(Ending.REFUSED, "overloaded", 1.0)
BROKEN = Failure(Ending.FAILED, "truncated_stream")

# Who stands still answers no probe. One that is lost is bad luck, and after the second it is down: for each of them a
# gateway waits five seconds in vain, and a second in between (`gateway.probe`).
SILENT_S = 11.0


class Listener(Protocol):
    """Who is told what becomes of attempts, when the news has come back."""

    def uploaded(self, attempt: Attempt, seconds: float) -> None:
        """Its request has arrived, whose bytes took so long."""

    def first(self, attempt: Attempt) -> None:
        """Its first content is here."""

    def done(self, attempt: Attempt) -> None:
        """Its answer is complete."""

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """There will be no answer, or no more of it."""


class Way(Protocol):
    """The network between the gateway and a place."""

    down: bool

    def sent(self, payload_bytes: int, now_s: float) -> float:
        """When the last byte of a request arrives that is sent now."""

    def upload_s(self, payload_bytes: int, now_s: float) -> float:
        """How long the bytes of a request would take that is sent now, without the way itself."""

    def answered(self, now_s: float) -> float:
        """When a first byte arrives that is sent back now."""

    def rtt_s(self, now_s: float) -> float:
        """The round trip that a probe would see now."""


class Place(Protocol):
    """What the world knows of an endpoint."""

    def send(self, attempt: Attempt) -> None:
        """It leaves the gateway."""

    def cancel(self, attempt: Attempt) -> None:
        """Nobody waits for it any more."""

    def generated(self, attempt: Attempt) -> int:
        """How many tokens of its answer have come back."""

    def probe(self) -> Probed:
        """What a probe sees now."""

    def upload_s(self, payload_bytes: int) -> float | None:
        """How long so many bytes take now; None where there is no way, or nobody is reached."""


class _Away(ABC):
    """Something at the end of a way, or right here; the news of it goes back that way."""

    def __init__(self, name: str, loop: Loop, listener: Listener, way: Way | None) -> None:
        self.way = way
        self._name = name
        self._loop = loop
        self._listener = listener
        # While the way is down: the news that has to wait, and how many tokens had come back of each answer before.
        self._delayed: list[tuple[Callable[..., None], Attempt, tuple[object, ...]]] = []
        self._came: dict[Attempt, int] = {}

    def cut(self) -> None:
        """The way is down from now on; a connection that is open stays so, and nothing comes by it."""
        assert self.way is not None, "what is right here is always reached"
        if not self.way.down:
            self._came = {attempt: self._generated(attempt) for attempt in self._under_way()}
            self.way.down = True

    def mend(self) -> None:
        """It is up again, and all that would have come back meanwhile does so now, in its order."""
        assert self.way is not None, "what is right here is always reached"
        self.way.down = False
        delayed, self._delayed = self._delayed, []
        for tell, attempt, news in delayed:
            self._back(tell, attempt, *news)

    def generated(self, attempt: Attempt) -> int:
        """See `Place`."""
        return self._came.get(attempt, 0) if self._is_cut_off else self._generated(attempt)

    @property
    def _is_cut_off(self) -> bool:
        return self.way is not None and self.way.down

    @abstractmethod
    def _under_way(self) -> list[Attempt]:
        """Those that have arrived, and are not over."""

    @abstractmethod
    def _generated(self, attempt: Attempt) -> int:
        """How many tokens of its answer there are."""

    def _go(self, attempt: Attempt, arrive: Callable[[Attempt], None]) -> None:
        """The request goes there; where the way is down, nobody is reached."""
        loop, way = self._loop, self.way
        if way is None:
            arrive(attempt)
        elif way.down:
            loop.at(loop.now_s, self._listener.failed, attempt, REFUSED)
        else:
            prompt_bytes = attempt.job.request.prompt_bytes
            upload_s = way.upload_s(prompt_bytes, loop.now_s) if attempt.timed else 0.0
            arrives_s = way.sent(prompt_bytes, loop.now_s)
            if attempt.timed:
                loop.at(arrives_s, self._timed, attempt, upload_s)
            loop.at(arrives_s, arrive, attempt)

    def upload_s(self, payload_bytes: int) -> float | None:
        """See `Place`."""
        return None if self.way is None or self.way.down else self.way.upload_s(payload_bytes, self._loop.now_s)

    def _timed(self, attempt: Attempt, upload_s: float) -> None:
        """The last byte is here, which its sender hears of."""
        self._back(self._listener.uploaded, attempt, upload_s)

    def _back(self, tell: Callable[..., None], attempt: Attempt, *news: object) -> None:
        loop, way = self._loop, self.way
        if self._is_cut_off:
            self._delayed.append((tell, attempt, news))
            return
        # An answer is one stream of bytes: what is quicker on its way waits for what was sent before it.
        attempt.told_s = max(attempt.told_s, loop.now_s if way is None else way.answered(loop.now_s))
        loop.at(attempt.told_s, tell, attempt, *news)

    def _seen(
        self, *, up: bool, running: int | None = None, queued: int | None = None, resident: bool | None = None
    ) -> Probed:
        way = self.way
        if not up or self._is_cut_off:
            return Probed(endpoint=self._name, up=False)
        rtt_s = 0.0 if way is None else way.rtt_s(self._loop.now_s)
        return Probed(endpoint=self._name, up=True, rtt_s=rtt_s, running=running, queued=queued, resident=resident)


class Local(_Away):
    """An engine, at the end of a way or right here."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        loop: Loop,
        listener: Listener,
        way: Way | None = None,
        *,
        tells_residency: bool = False,
        tells_memory: bool = False,
    ) -> None:
        """`tells_residency`: it is of a kind that tells probes whether its model is loaded, `tells_memory` how much of
        its memory is in use."""
        super().__init__(name, loop, listener, way)
        self.engine = engine
        self._tells_residency = tells_residency
        self._tells_memory = tells_memory
        self.down = False
        self._back_s = self._frozen_s = self._frozen_until_s = -inf
        self._attempts: dict[Sequence, Attempt] = {}
        self._planned_s = inf

    def send(self, attempt: Attempt) -> None:
        """See `Place`."""
        self._go(attempt, self._arrive)

    def cancel(self, attempt: Attempt) -> None:
        """See `Place`."""
        self._advance()
        for sequence, known in self._attempts.items():
            if known is attempt:
                attempt.output_tokens = self.engine.generated(sequence, self._loop.now_s)
                del self._attempts[sequence]
                self.engine.cancel(attempt.job.request.id, self._loop.now_s)
                self._plan()
                return

    def _under_way(self) -> list[Attempt]:
        return list(self._attempts.values())

    def _generated(self, attempt: Attempt) -> int:
        self._advance()
        under_way = next((sequence for sequence, known in self._attempts.items() if known is attempt), None)
        return attempt.output_tokens if under_way is None else self.engine.generated(under_way, self._loop.now_s)

    def probe(self) -> Probed:
        """See `Place`. It answers none while it stands still."""
        engine, now_s = self.engine, self._loop.now_s
        if now_s < self._frozen_until_s and not self.down and not self._is_cut_off:
            return Probed(endpoint=self._name, up=now_s < self._frozen_s + SILENT_S)
        resident = engine.resident(now_s) if self._tells_residency else None
        seen = self._seen(up=not self.down, running=engine.running, queued=engine.queued, resident=resident)
        if not self._tells_memory or not seen.up:
            return seen
        kv = engine.kv
        return replace(
            seen,
            kv_tokens_max=kv.capacity * BLOCK_TOKENS,
            kv_share=kv.used / kv.capacity,
            slots=engine.profile.slots,
            preemptions=engine.preemptions,
        )

    def share(self, jobs: Iterator[Job]) -> None:
        """Others use the engine as well, past the gateway: each of these jobs, at its time of arrival."""
        job = next(jobs, None)
        if job is not None:
            self._loop.at(job.request.arrived_s, self._other, job, jobs)

    def crash(self, back_s: float) -> None:
        """The engine dies, and is back then, or when it would have been anyway where that is later."""
        self._back_s = back_s = max(self._back_s, back_s)
        self._advance()
        lost, self._attempts = self._attempts, {}
        for sequence, attempt in lost.items():
            attempt.output_tokens = self.engine.generated(sequence, self._loop.now_s)
        self.engine.fail(self._loop.now_s, back_s)
        self.down, self._frozen_until_s = True, -inf
        for attempt in lost.values():
            self._back(self._listener.failed, attempt, RESET)
        self._loop.at(back_s, self._up)

    def freeze(self, until_s: float) -> None:
        """Nothing moves in the engine until then."""
        self._advance()
        now_s = self._loop.now_s
        if now_s >= self._frozen_until_s:
            self._frozen_s = now_s
        self._frozen_until_s = max(self._frozen_until_s, until_s)
        self.engine.freeze(now_s, until_s)
        self._plan()

    def slow(self, factor: float) -> None:
        """From now on the engine takes `factor` times as long as its profile says."""
        self._advance()
        self.engine.slow(factor, self._loop.now_s)
        self._plan()

    def _up(self) -> None:
        self.down = self._loop.now_s < self._back_s

    def _other(self, job: Job, jobs: Iterator[Job]) -> None:
        self.share(jobs)
        self._advance()
        if not self.down:
            self.engine.submit(job, self._loop.now_s)
            self._plan()

    def _arrive(self, attempt: Attempt) -> None:
        if attempt.over:
            return
        self._advance()
        now_s = self._loop.now_s
        if self.down:
            self._back(self._listener.failed, attempt, REFUSED)
            return
        sequence = self.engine.submit(attempt.job, now_s)
        if sequence is None:
            self._back(self._listener.failed, attempt, FULL)
            return
        self._attempts[sequence] = attempt
        self._plan()

    def _plan(self) -> None:
        next_s = self.engine.next_s
        if next_s < self._planned_s:
            self._planned_s = next_s
            self._loop.at(next_s, self._wake, next_s)

    def _wake(self, planned_s: float) -> None:
        if planned_s == self._planned_s:
            self._planned_s = inf
            self._advance()
            self._plan()

    def _advance(self) -> None:
        for told in self.engine.advance(self._loop.now_s):
            attempt = self._attempts.get(told.sequence)
            if attempt is None:
                # Somebody else's.
                continue
            if told.kind is Kind.FIRST:
                attempt.cached_tokens = told.sequence.cached_tokens
                self._back(self._listener.first, attempt)
            else:
                attempt.output_tokens = told.sequence.generated
                del self._attempts[told.sequence]
                self._back(self._listener.done, attempt)


class Remote(_Away):
    """A fleet behind an API."""

    def __init__(self, name: str, api: Api, loop: Loop, listener: Listener, way: Way | None = None) -> None:
        super().__init__(name, loop, listener, way)
        self.api = api
        self._attempts: dict[Attempt, float] = {}

    def send(self, attempt: Attempt) -> None:
        """See `Place`."""
        self._go(attempt, self._arrive)

    def cancel(self, attempt: Attempt) -> None:
        """See `Place`. It has generated what there was time for, and that is billed."""
        tpot_s = self._attempts.pop(attempt, None)
        if tpot_s is None:
            return
        attempt.output_tokens = self._made(attempt, tpot_s)
        self.api.ended(attempt.job, self._loop.now_s)

    def _under_way(self) -> list[Attempt]:
        return list(self._attempts)

    def _generated(self, attempt: Attempt) -> int:
        tpot_s = self._attempts.get(attempt)
        return attempt.output_tokens if tpot_s is None else self._made(attempt, tpot_s)

    def _made(self, attempt: Attempt, tpot_s: float) -> int:
        if attempt.first_s is None:
            return 0
        target = attempt.job.target
        return min(target, 1 + int((self._loop.now_s - attempt.first_s) / tpot_s)) if tpot_s > 0.0 else target

    def probe(self) -> Probed:
        """See `Place`. What runs there, it does not tell, nor whether its model is loaded."""
        return self._seen(up=not self.api.down)

    def _arrive(self, attempt: Attempt) -> None:
        if attempt.over:
            return
        loop = self._loop
        answer = self.api.answer(attempt.job, loop.now_s)
        if answer.status != OK:
            failure = Failure(
                Ending.REFUSED if answer.status in REFUSALS else Ending.FAILED,
                f"status_{answer.status}",
                answer.retry_after_s,
            )
            loop.at(loop.now_s + answer.ttft_s, self._back, self._listener.failed, attempt, failure)
            return
        self._attempts[attempt] = answer.tpot_s
        attempt.cached_tokens = answer.cached_tokens
        first_s = loop.now_s + answer.ttft_s
        loop.at(first_s, self._back, self._listener.first, attempt)
        rest_s = answer.tpot_s * (attempt.job.target - 1)
        if answer.breaks_at is not None and attempt.streamed:
            loop.at(first_s + answer.breaks_at * rest_s, self._break, attempt)
        else:
            loop.at(first_s + rest_s, self._finish, attempt)

    def _break(self, attempt: Attempt) -> None:
        if attempt in self._attempts:
            # What there was time for has been made.
            self.cancel(attempt)
            self._back(self._listener.failed, attempt, BROKEN)

    def _finish(self, attempt: Attempt) -> None:
        if self._attempts.pop(attempt, None) is not None:
            attempt.output_tokens = attempt.job.target
            self.api.ended(attempt.job, self._loop.now_s)
            self._back(self._listener.done, attempt)
