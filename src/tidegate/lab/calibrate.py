"""Measures a live engine from outside: prompts of growing length, answers side by side, and what is cached.

The plan goes in rounds, each of which times everything once. One whole round is enough for constants; further ones, as
far as the budget goes, tell how sure they are.
"""

from asyncio import Event, TaskGroup
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex
from statistics import median

import msgspec

from tidegate.lab.asking import Answered, Asker, AskError
from tidegate.lab.purse import Purse, SpentError

ROUNDS_MAX = 8  # more repeats than that change no median
WORDS = (32, 128, 512, 2048, 8192, 32768)
"""The lengths of prompts, as far as window and budget go; a word is a token in most vocabularies."""
WINDOW_SHARE = 0.85  # the longest prompt, of what the window has room for
ROUND_SHARE = 0.1  # of all seconds and tokens, what the longest prompt may take: so that there are rounds
OUTPUT_TOKENS = 16  # of a prompt alone: enough to tell the time between them
TOGETHER_TOKENS = 32  # of answers side by side, which begin one after the other
TOGETHER_MAX = 32  # answers side by side; beyond that an engine is a fleet's, and others would notice
TOGETHER_UNTOLD_MAX = 8  # where nobody says how many run at once
BEFORE = 6  # tokens of an answer before something is sent beside it: what is usual has to be known
SLOWED = 1.5  # times what is usual: an iteration with a prompt in it
PAD_BYTES = 256 * 1024  # sent to time an upload: below every bound on bodies that is in use
RTTS = 5
FAILURES_MAX = 3  # after the first round: more is no bad luck
LOOK_S_MIN = 2.0  # llama.cpp overlooks clients that leave while it is asked more often
TASK_TOKENS = 64  # of the template and the task around a prompt, at most
TOKENS_PER_WORD_MAX = 2.0  # until an answer has told
MARGIN = 1.2  # of estimates: tokens per word differ a little from prompt to prompt

TOO_SHORT = (
    "its answers are too short to time what is between tokens",
    "choose a model that answers with more than one token",
)

_TEXT = (
    "time year people way day man thing woman life child world school state family student group country problem "
    "hand part place case week company system program question work number night point home water room mother area"
)
_LIST = _TEXT.split()


class CalibrateError(Exception):
    """It cannot be measured. The message says why, `remedy` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine tells of itself; None is unknown."""

    slots: int | None = None
    context_tokens: int | None = None


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that was computed beside an answer: `iterations` is how many of the answer's tokens it slowed down."""

    prompt_tokens: int
    iterations: int
    seconds: float
    context_tokens: float


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt on its own: how much of it was computed, and the time to its first token."""

    prompt_tokens: int
    cached_tokens: int
    ttft_s: float


class Seen(msgspec.Struct):
    """All that was timed. Prompts are by the name of what was sent; `decoding` is of iterations without prompts."""

    prompts: dict[str, list[Alone]] = {}
    decoding: dict[str, list[tuple[float, int, float]]] = {}  # seconds, sequences, tokens of all their contexts
    beside: list[Beside] = []
    kept: list[bool] = []  # whether most of a prompt was there when it came again
    padded_s: list[float] = []
    rtt_s: list[float] = []
    at_once: int = 1  # the most that were seen to run side by side
    queued: bool = False  # more were sent, and some waited until others were done
    rounds: int = 0
    remarks: list[str] = []


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is: what is being timed, in which round, and what of the budget is spent, from 0 to 1."""

    what: str
    round: int
    spent: float


class Plan:
    """Times one engine: `await Plan(...).run()`."""

    def __init__(self, asker: Asker, facts: Facts, purse: Purse, tell: Callable[[Progress], None]) -> None:
        self._asker, self._facts, self._purse, self._tell = asker, facts, purse, tell
        self.seen = Seen()
        self._words: list[int] = []  # lengths that were found to fit
        self._per_word = TOKENS_PER_WORD_MAX
        self._most: dict[int, int] = {}  # tokens that a prompt of so many words took
        self._took_s: dict[str, float] = {}
        self._failures = 0
        self._looked_s = 0.0
        self._others = False
        self._what = ""

    async def run(self) -> Seen:
        """Rounds until the budget is spent. Raises `CalibrateError` where there is not one whole round."""
        seen = self.seen
        try:
            while seen.rounds < ROUNDS_MAX and self._failures < FAILURES_MAX:
                await self._round()
                seen.rounds += 1
        except SpentError as spent:
            if not seen.rounds:
                raise CalibrateError(
                    f"the budget's {spent.what} are spent while timing {self._what}, before all was timed once",
                    "raise --seconds or --tokens (or --yes-spend, where it costs money)",
                ) from None
        if self._others:
            seen.remarks.append("others used the engine meanwhile: it is slower here than it is alone")
        if self._failures:
            seen.remarks.append(f"{self._failures} of {self._purse.requests} requests failed")
        return seen

    async def _round(self) -> None:
        await self._step("network", self._network)
        if not self._words:
            await self._find_lengths()
        else:
            for words in self._words:
                await self._step(f"prompt of {words}", partial(self._alone, words))
        middle = self._words[len(self._words) // 2]
        await self._step("prompt again", partial(self._again, middle))
        await self._step("upload", self._upload)
        for count in self._levels():
            await self._step(f"{count} at once", partial(self._together, count))
        if self._facts.slots is None or self._facts.slots > 1:
            await self._step("prompt beside an answer", partial(self._beside, self._words[-1]))

    async def _step(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        """One thing, unless there is no time for it. What fails is repeated in the next round; not so in the first."""
        purse, self._what = self._purse, what
        if purse.seconds_left < MARGIN * self._took_s.get(what, 0.0):
            raise SpentError("seconds")
        spent = max(purse.seconds / purse.budget.seconds, purse.tokens / purse.budget.tokens)
        self._tell(Progress(what=what, round=self.seen.rounds + 1, spent=min(1.0, spent)))
        await self._look()
        began_s = purse.seconds
        try:
            await act()
        except AskError as error:
            if error.late:  # all the seconds that are left are waited for
                raise SpentError("seconds") from None
            self._failures += 1
            if not self.seen.rounds or error.too_long:
                raise CalibrateError(f"while timing {what}: {error}", "try a request of your own first") from None
        self._took_s[what] = purse.seconds - began_s

    # --- what is timed ----------------------------------------------------------------------------------------------

    async def _network(self) -> None:
        await self._asker.warm(1)
        for _ in range(RTTS):
            if self._purse.seconds_left <= 0.0:
                raise SpentError("seconds")
            if (rtt_s := await self._asker.rtt_s()) is not None:
                self.seen.rtt_s.append(rtt_s)

    async def _find_lengths(self) -> None:
        """Time each length once, until the next would be beyond the window, or take too much of the budget."""
        # The first answer of an idle engine is late for reasons of its own.
        await self._step("first answer", partial(self._warm_up, WORDS[0]))
        while words := self._next_length():
            before_s = self._took_s.get(f"prompt of {self._words[-1]}", 0.0) if self._words else 0.0
            growth = words / self._words[-1] if self._words else 1.0
            if before_s * growth > ROUND_SHARE * self._purse.budget.seconds:
                break
            try:
                await self._step(f"prompt of {words}", partial(self._alone, words))
            except CalibrateError:
                if len(self._words) < 2:
                    raise
                break  # longer than its window, which it did not tell
            self._words.append(words)

    def _next_length(self) -> int:
        """The next one, or the longest that fits where that is longer by much; 0 where neither fits."""
        most = ROUND_SHARE * self._purse.budget.tokens
        if self._facts.context_tokens is not None:
            most = min(most, WINDOW_SHARE * self._facts.context_tokens - TASK_TOKENS - OUTPUT_TOKENS)
        longest = int(most / self._per_word)
        if not self._words:
            return max(8, min(WORDS[0], longest))
        last = self._words[-1]
        words = min(next((words for words in WORDS if words > last), 0), longest)
        return words if words >= 1.4 * last else 0

    def _levels(self) -> list[int]:
        slots = self._facts.slots
        most = min(TOGETHER_MAX, slots) if slots is not None else TOGETHER_UNTOLD_MAX
        levels = [2**power for power in range(1, most.bit_length()) if 2**power <= most]
        return levels if not levels or levels[-1] == most else [*levels, most]

    async def _warm_up(self, words: int) -> None:
        answer = await self._ask(fresh_prompt(words), words, OUTPUT_TOKENS)
        if answer.output_tokens < 2:
            raise CalibrateError(*TOO_SHORT)

    async def _alone(self, words: int) -> None:
        await self._asker.warm(1)
        answer = await self._ask(fresh_prompt(words), words, OUTPUT_TOKENS)
        if not self.seen.rounds:  # the longer, the less a template counts
            self._per_word = answer.prompt_tokens / words
        self._note(f"prompt of {words}", answer, answer.cached_tokens or 0)
        if answer.output_tokens > 1 and answer.tpot_s > 0.0:
            context = answer.prompt_tokens + answer.output_tokens / 2
            self.seen.decoding.setdefault(f"after {words}", []).append((answer.tpot_s, 1, context))

    async def _again(self, words: int) -> None:
        """The same prompt twice: the second time, what an engine keeps of the first is not computed."""
        prompt = fresh_prompt(words)
        first = await self._ask(prompt, words, 2)
        await self._asker.warm(1)
        again = await self._ask(prompt, words, 2)
        if again.cached_tokens is None:  # what it keeps shows in how long it takes, but not how much
            self.seen.kept.append(again.ttft_s < first.ttft_s / 2)
        else:
            self.seen.kept.append(2 * again.cached_tokens > again.prompt_tokens)
            self._note("prompt again", again, min(again.cached_tokens, again.prompt_tokens - 1))

    async def _upload(self) -> None:
        await self._asker.warm(1)
        answer = await self._ask(fresh_prompt(self._words[0]), self._words[0], 2, pad_bytes=PAD_BYTES)
        self.seen.padded_s.append(answer.ttft_s)

    async def _together(self, count: int) -> None:
        """So many answers side by side, timed while all of them are being made."""
        await self._asker.warm(count)
        words = self._words[0]
        async with _together() as group:
            tasks = [group.create_task(self._ask(fresh_prompt(words), words, TOGETHER_TOKENS)) for _ in range(count)]
        answers = [task.result() for task in tasks]
        from_s, until_s = max(one.token_s[0] for one in answers), min(one.token_s[-1] for one in answers)
        running = sum(one.token_s[0] < until_s for one in answers)
        self.seen.at_once = max(self.seen.at_once, running)
        self.seen.queued = self.seen.queued or running < count
        made = [_made(one, from_s, until_s) for one in answers]
        steps = sum(made) / count
        if running < count or steps < 4:
            return  # they did not overlap
        context = sum(one.prompt_tokens + one.output_tokens - step / 2 for one, step in zip(answers, made, strict=True))
        self.seen.decoding.setdefault(f"{count} at once", []).append(((until_s - from_s) / steps, count, context))

    async def _beside(self, words: int) -> None:
        """A long prompt beside an answer: the gaps between the answer's tokens are the prompt's iterations."""
        await self._asker.warm(2)
        begun = Event()

        def heard(pieces: int) -> None:
            if pieces > BEFORE:
                begun.set()

        short = self._words[0]
        output_tokens = max(2 * TOGETHER_TOKENS, 2 * BEFORE + words // 64)
        async with _together() as group:
            task = group.create_task(self._ask(fresh_prompt(short), short, output_tokens, heard))
            task.add_done_callback(lambda _: begun.set())
            await begun.wait()
            other = await self._ask(fresh_prompt(words), words, 2)
        found = beside(task.result(), other)
        if found is not None:
            self.seen.beside.append(found)

    # --- one request ------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        prompt: str,
        words: int,
        output_tokens: int,
        heard: Callable[[int], None] | None = None,
        pad_bytes: int = 0,
    ) -> Answered:
        """Within the budget; what it takes at most is held until it is known what it took."""
        # Of a short prompt, a template may be the most.
        estimated_tokens = int(MARGIN * self._per_word * words) + TASK_TOKENS
        held = (max(estimated_tokens, int(MARGIN * self._most.get(words, 0))), output_tokens)
        self._purse.hold(*held)
        took = held  # of what fails, nobody knows better
        try:
            answer = await self._asker.ask(
                prompt, output_tokens, self._purse.seconds_left, pad_bytes=pad_bytes, heard=heard
            )
            took = (answer.prompt_tokens, answer.output_tokens)
            if not pad_bytes:  # an engine that counts bytes takes more of them
                self._most[words] = max(self._most.get(words, 0), answer.prompt_tokens)
        finally:
            self._purse.settle(held, took)
        return answer

    def _note(self, name: str, answer: Answered, cached_tokens: int) -> None:
        alone = Alone(prompt_tokens=answer.prompt_tokens, cached_tokens=cached_tokens, ttft_s=answer.ttft_s)
        self.seen.prompts.setdefault(name, []).append(alone)

    async def _look(self) -> None:
        """Whether others use the engine, while nothing of ours is under way."""
        now_s = self._purse.seconds
        if self._looked_s and now_s - self._looked_s < LOOK_S_MIN:
            return
        self._looked_s = now_s
        signals = await self._asker.signals()
        self._others = self._others or bool(signals.running or signals.queued)


@asynccontextmanager
async def _together() -> AsyncIterator[TaskGroup]:
    """Tasks of which the first failure is the failure of all: the rest is cancelled, and it is raised as it is."""
    try:
        async with TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _made(answer: Answered, from_s: float, until_s: float) -> float:
    """Tokens that were made meanwhile; a piece of content may hold several."""
    pieces = sum(from_s < at_s <= until_s for at_s in answer.token_s)
    return pieces * answer.output_tokens / len(answer.token_s)


def beside(answer: Answered, other: Answered) -> Beside | None:
    """What an answer's gaps tell of a prompt beside it; None where the answer was over too soon, or told nothing."""
    first_s = other.token_s[0]
    gaps = list(zip(answer.token_s, answer.token_s[1:], strict=False))
    before = [end_s - start_s for start_s, end_s in gaps if end_s <= other.sent_s]
    if not before or answer.token_s[-1] < first_s:
        return None
    usual_s = median(before)
    slowed = [gap for gap in gaps if gap[1] > other.sent_s and gap[0] < first_s - usual_s / 2]
    # What was under way when the prompt came is no iteration with a prompt.
    while slowed and slowed[0][1] - slowed[0][0] < SLOWED * usual_s:
        slowed = slowed[1:]
    if not slowed:
        return None
    computed = other.prompt_tokens - (other.cached_tokens or 0)
    made = sum(at_s < slowed[0][0] for at_s in answer.token_s)
    return Beside(
        prompt_tokens=computed,
        iterations=len(slowed),
        seconds=slowed[-1][1] - slowed[0][0],
        context_tokens=answer.prompt_tokens + made + len(slowed) / 2,
    )


def fresh_prompt(words: int) -> str:
    """So many words that nobody has sent before: what follows a new beginning is in no cache."""
    return " ".join((token_hex(4), *(_LIST[number * 7 % len(_LIST)] for number in range(words))))
