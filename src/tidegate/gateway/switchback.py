"""Two settings by turns on live traffic, until it is known which is better, or that the candidate does harm."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from tidegate.clock import Clock
from tidegate.config.config import Config
from tidegate.core.model import Ending, Overrides, Record, Request
from tidegate.core.promise import kept
from tidegate.core.switchback import Arm, Pair, Standing, Tally, Verdict, order
from tidegate.gateway.trial import Block, FileError, Lock, Trial, read, write
from tidegate.state.store import LedgerError
from tidegate.telemetry.log import Log

# How soon a candidate is stopped that keeps next to nothing.
LOOK_S = 1.0
# Settings that could not be put in force are tried again.
RETRY_S = 5.0
_HARM = (Verdict.HARM, Verdict.COLLAPSED)

Wanted = Callable[[], Config | None]
"""What is to be in force, asked when it can be; None where nothing of that kind any more."""


class Told(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What operators look at. `arm` is what is in force, and `problem` why the trial does not go on, if so."""

    candidate: str
    arm: Arm
    problem: str
    standing: Standing


class Switchback:
    """Puts the arms of a trial in force by turns, and counts what becomes of requests. Without a candidate, nothing."""

    def __init__(self, config: Config, put: Callable[[Wanted], Awaitable[bool]], *, clock: Clock, log: Log) -> None:
        """`put` asks what is wanted when nothing else is under way, and puts that in force until it is called again:
        whether anything was wanted. It raises OSError or LedgerError where that cannot be."""
        self._put, self._clock, self._log = put, clock, log
        self._changed = asyncio.Event()
        self._lock = Lock()
        self.overrides: Callable[[], Overrides] = Overrides
        self.unseen: Callable[[], Iterable[Request]] = tuple
        self._trial = self._begun(config)

    @property
    def told(self) -> Told | None:
        """How it stands; None where nothing is tried."""
        trial = self._trial
        if trial is None:
            return None
        return Told(candidate=trial.table.policy, arm=trial.arm, problem=trial.problem, standing=trial.standing)

    def file_settings(self, config: Config) -> Config:
        """Of what is in force, the settings of the file: what is learned under a candidate is kept as theirs."""
        trial = self._trial
        return trial.config if trial is not None and config is trial.candidate else config

    def turn_of(self, config: Config) -> Config:
        """What is in force under these settings of the file: a trial that is of them goes on with the arm whose turn it
        is."""
        trial = self._trial
        if trial is None or trial.arm is Arm.AS_IS or not (trial.goes_on and trial.is_of(config)):
            return config
        assert config.candidate is not None, "its settings are those of a trial"
        return config.candidate

    def configure(self, config: Config, in_force: Config) -> None:
        """Operators have put these settings of the file in force, by what `turn_of` made of them: what goes on is the
        trial that they say."""
        before = self._trial
        if (
            before is not None
            and config.candidate is not None
            and before.is_of(config)
            and (not before.problem or in_force is config.candidate)
        ):
            # No pair begins again: reloads may come more often than blocks end. Secrets may be others. One that is over
            # or was stopped since this reload began still takes its candidate back.
            before.config, before.candidate = config, config.candidate
            return
        self._trial = None
        trial = self._begun(config)
        if trial is not None and before is not None:
            if trial.settings == before.settings:
                # It was stopped: the pair that was under way begins again.
                trial.kept, trial.settling, trial.cut = before.kept, before.settling, before.cut
                trial.blocks = list(trial.settling or ())
            elif before.goes_on:
                self._log.event("warning", "switchback: begins anew", pairs=len(before.kept.pairs))
        self._trial = trial
        self._changed.set()

    def over(
        self,
        request: Request,
        ending: Ending,
        *,
        ttft_s: float | None,
        e2e_s: float,
        output_tokens: int | None,
        usd: float,
    ) -> None:
        """A request is over. Times count from its arrival."""
        trial = self._trial
        if trial is None:
            return
        for block in trial.blocks:
            if block.begins_s <= request.arrived_s < block.ends_s:
                break
        else:
            return
        held: bool | None = False
        if ending in (Ending.OK, Ending.CANCELLED):
            # Who left before it was missed says nothing.
            whole = ending is Ending.OK
            asked = trial.measured(request, block.arm)
            held = kept(asked, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens, whole=whole)
            if held is None and whole:
                # It missed nothing that anybody could see: were it passed over, answers in one piece would be free.
                held = True
        if held is not None:
            block.tally.count(kept=held, usd=usd, worth_usd=trial.worth_usd(request, output_tokens or 0))

    async def watch(self) -> None:
        """Go on for as long as it runs."""
        while True:
            self._changed.clear()
            trial = self._trial
            if trial is None or not trial.goes_on:
                await self._changed.wait()
                continue
            if trial.kept.problem:
                # It was stopped, and begins again: the file is to say so.
                trial.kept.problem = ""
                await self._write(trial)
                continue
            try:
                await self._pair(trial)
            except Exception as error:  # a bug of ours, or settings that cannot be: the file's are those that hold
                told = str(error) if isinstance(error, OSError | LedgerError) else type(error).__name__
                await self._stop(trial, f"settings could not be put in force: {told}")

    async def close(self) -> None:
        """Try no more: what was learned is to be found by who comes next, under the settings of the file."""
        trial, self._trial = self._trial, None
        if trial is not None and trial.arm is Arm.CANDIDATE:
            try:
                await self._put(lambda: trial.config)
            except (OSError, LedgerError) as error:
                self._log.event("error", "switchback: the candidate stays until the end", reason=str(error))
        self._lock.release()

    # --- one trial ------------------------------------------------------------------------------------------------

    def _begun(self, config: Config) -> Trial | None:
        if config.candidate is None:
            self._lock.release()
            return None
        trial = Trial(config, config.candidate)
        try:
            self._lock.take(trial.file)
            known = read(trial.file)
        except FileError as error:
            trial.problem = str(error)
            self._log.event("error", "switchback: not begun", reason=trial.problem)
            return trial
        # Of other settings nothing holds here.
        if known is not None and known.settings == trial.settings:
            trial.kept = known
        return trial

    async def _pair(self, trial: Trial) -> None:
        number = len(trial.kept.pairs) + (trial.settling is not None)
        pair: list[Block] = []
        for arm in order(trial.kept.seed, number):
            if not await self._in_force(trial, arm):
                return
            now_s = self._clock.now_s()
            block = Block(arm, now_s + trial.table.washout_s, now_s + trial.table.block_s)
            trial.blocks.append(block)
            pair.append(block)
            if not await self._passed(trial, block):
                return
            if trial.settling is not None and len(pair) == 1:
                await self._settle(trial)
                if trial is not self._trial or not trial.goes_on:
                    return
        trial.settling = (pair[0], pair[1])
        if len(trial.kept.pairs) + 1 >= trial.table.pairs_max:
            # The last one: its requests have a block's time to end, with the settings as they are.
            if not await self._in_force(trial, Arm.AS_IS) or await self._waited(trial.table.block_s):
                return
            await self._settle(trial)

    async def _passed(self, trial: Trial, block: Block) -> bool:
        """Its time is over: False where the trial is."""
        while (left_s := block.ends_s - self._clock.now_s()) > 0.0:
            if await self._waited(min(LOOK_S, left_s)):
                return False
            block.tainted = block.tainted or self.overrides() != Overrides()
            if trial.falls_apart(block, self.unseen(), self._clock.now_s()):
                if trial.cut:
                    # Once may be an outage; twice in a row it is the candidate.
                    await self._end(trial, Verdict.COLLAPSED)
                    return False
                return await self._relieved(trial, block)
        trial.cut = trial.cut and block.arm is not Arm.CANDIDATE
        return True

    async def _relieved(self, trial: Trial, block: Block) -> bool:
        """The candidate's block is cut short. For the rest of it the settings as they are show whether that was the
        candidate, or would have come over both."""
        now_s, until_s = self._clock.now_s(), block.ends_s
        block.ends_s, trial.cut = now_s, True
        self._log.event("warning", "switchback: a block was cut", kept=block.tally.share)
        if not await self._in_force(trial, Arm.AS_IS):
            return False
        rest = Block(Arm.AS_IS, now_s + trial.table.washout_s, until_s)
        trial.blocks.append(rest)
        return await self._passed(trial, rest)

    async def _waited(self, seconds: float) -> bool:
        """So long, or until something is changed: whether it was."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _settle(self, trial: Trial) -> None:
        """What is still under way of that pair is left out from now on."""
        pair, trial.settling = trial.settling, None
        assert pair is not None
        # It stays beside the others while their blocks may be held against it.
        for block in pair:
            block.ends_s = min(block.ends_s, block.begins_s)
        tainted = any(block.tainted for block in pair)
        # One that is tainted is counted as one without requests, so that the trial ends all the same.
        tallies = {block.arm: Tally() if tainted else block.tally for block in pair}
        trial.kept.pairs.append(Pair(tallies[Arm.AS_IS], tallies[Arm.CANDIDATE]))
        trial.blocks = [block for block in trial.blocks if block not in pair or block.arm is Arm.AS_IS][-3:]
        found = trial.standing
        self._tell(trial, "switchback: one more pair", found)
        if found.verdict is Verdict.GOES_ON:
            await self._write(trial)
        else:
            await self._end(trial, found.verdict)

    async def _end(self, trial: Trial, verdict: Verdict) -> None:
        """It is over: the settings as they are stay in force."""
        trial.kept.verdict = verdict
        self._tell(trial, "switchback: over", trial.standing, warning=verdict in _HARM)
        # First what outlives a reload and this process.
        await self._write(trial)
        await self._restore(trial)

    async def _stop(self, trial: Trial, problem: str) -> None:
        trial.problem = trial.kept.problem = problem
        self._log.event("error", "switchback: stopped", reason=problem)
        # Side by side: neither waits for a disk that hangs, or for settings that cannot be put in force. Where it
        # cannot be written down, too, the log has said it.
        await asyncio.gather(self._save(trial), self._restore(trial), return_exceptions=True)

    async def _restore(self, trial: Trial) -> None:
        """The settings as they are, however often that has to be tried; operators may be quicker."""
        while trial is self._trial:
            try:
                await self._in_force(trial, Arm.AS_IS)
                return
            except Exception as error:  # whatever it is: a candidate that does harm must not stay
                self._log.event("error", "switchback: the candidate is still in force", reason=type(error).__name__)
                await asyncio.sleep(RETRY_S)

    async def _in_force(self, trial: Trial, arm: Arm) -> bool:
        """Put it in force: False where the trial is none any more."""
        wanted = await self._put(lambda: trial.settings_for(arm) if trial is self._trial else None)
        if wanted and trial is self._trial:
            if arm is not trial.arm:
                self._log.event("info", "switchback: in force", arm=str(arm))
            trial.arm = arm
            return True
        return False

    # --- the file -------------------------------------------------------------------------------------------------

    async def _write(self, trial: Trial) -> None:
        try:
            await self._save(trial)
        except OSError as error:
            # A verdict that a restart forgets would let the harm begin again.
            await self._stop(trial, f"{trial.file} cannot be written: {error.strerror}")

    async def _save(self, trial: Trial) -> None:
        # Before anything else may be counted.
        content = msgspec.json.format(msgspec.json.encode(trial.kept))
        await asyncio.to_thread(write, trial.file, content)

    def _tell(self, trial: Trial, text: str, found: Standing, *, warning: bool = False) -> None:
        value = found.value_usd
        self._log.event(
            "warning" if warning else "info",
            text,
            verdict=str(found.verdict),
            pairs=found.pairs,
            short=found.short,
            kept_as_is=found.as_is.share,
            kept_candidate=found.candidate.share,
            value_usd_more=None if value is None else value.mean,
            candidate=trial.table.policy,
        )
