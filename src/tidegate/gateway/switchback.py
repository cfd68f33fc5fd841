"""Two settings by turns on live traffic, until it is known which is better, or that the candidate does harm."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

import msgspec

from tidegate.clock import Clock
from tidegate.config.build import request_class
from tidegate.config.config import Config
from tidegate.config.diff import tables
from tidegate.core.classify import base_of
from tidegate.core.model import Ending, Overrides, Record, Request, Slo, replace
from tidegate.core.promise import kept
from tidegate.core.switchback import (
    COLLAPSE_REQUESTS,
    Arm,
    Pair,
    Standing,
    Tally,
    Verdict,
    collapsed,
    order,
    standing,
)
from tidegate.state.store import LedgerError
from tidegate.telemetry.log import Log

VERSION = 1
# How soon a candidate is stopped that keeps next to nothing.
LOOK_S = 1.0
# Settings that could not be put in force are tried again.
RETRY_S = 5.0
_HARM = (Verdict.HARM, Verdict.COLLAPSED)

Wanted = Callable[[], Config | None]
"""What is to be in force, asked when it can be; None where nothing of that kind any more."""


class Kept(msgspec.Struct, kw_only=True):
    """What a file has of a trial: of these settings (by their digest), with pairs in the order that `seed` draws."""

    version: int
    settings: str
    seed: int
    pairs: list[Pair] = []
    verdict: Verdict = Verdict.GOES_ON


class Told(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What operators look at. `arm` is what is in force, and `problem` why the trial does not go on, if so."""

    candidate: str
    arm: Arm
    problem: str
    standing: Standing


class FileError(Exception):
    """The file of a trial cannot be used; the message says why, and what to do."""


class _Block:
    """Requests that come in this time count for this arm."""

    __slots__ = ("arm", "begins_s", "ends_s", "tainted", "tally")

    def __init__(self, arm: Arm, begins_s: float, ends_s: float) -> None:
        self.arm, self.begins_s, self.ends_s = arm, begins_s, ends_s
        self.tally = Tally()
        # Operators had a hand in it.
        self.tainted = False


class _Trial:
    """One trial of one candidate: what is known of it, and what is counted just now."""

    def __init__(self, config: Config, candidate: Config) -> None:
        self.config, self.candidate, self.table = config, candidate, config.switchback
        self.settings = settings_of(config)
        self.file = config.file.parent / self.table.file
        self.kept = Kept(version=VERSION, settings=self.settings, seed=int.from_bytes(os.urandom(6), "big"))
        self.arm, self.problem = Arm.AS_IS, ""
        self.blocks: list[_Block] = []
        # The pair before this one, whose last requests may be under way.
        self.settling: tuple[_Block, _Block] | None = None
        # Whether the last block of the candidate's was cut short.
        self.cut = False
        # Of a class with a target, what is usual, and not the most that may be paid.
        self.worth = {n: (table.worth_usd, table.worth_usd_per_1k_tokens) for n, table in config.classes.items()}
        self.slos: dict[Arm, Mapping[str, Slo]] = {
            arm: {name: request_class(name, table).slo for name, table in one.classes.items()}
            for arm, one in ((Arm.AS_IS, config), (Arm.CANDIDATE, candidate))
        }

    @property
    def goes_on(self) -> bool:
        return self.kept.verdict is Verdict.GOES_ON and not self.problem

    @property
    def standing(self) -> Standing:
        found = standing(self.kept.pairs, self.table.pairs_max)
        return found if self.kept.verdict is Verdict.GOES_ON else replace(found, verdict=self.kept.verdict)

    def settings_for(self, arm: Arm) -> Config:
        return self.candidate if arm is Arm.CANDIDATE else self.config

    def measured(self, request: Request, arm: Arm) -> Request:
        """The request as it is promised by the settings as they are: both arms are measured by that."""
        name = base_of(request.klass)
        own, other, asked = self.slos[Arm.AS_IS].get(name), self.slos[arm].get(name), request.slo
        if own is None or other is None:
            return request
        # What a client has asked for itself stays.
        slo = Slo(
            ttft_s=own.ttft_s if asked.ttft_s == other.ttft_s else asked.ttft_s,
            tpot_s=own.tpot_s if asked.tpot_s == other.tpot_s else asked.tpot_s,
            e2e_s=own.e2e_s if asked.e2e_s == other.e2e_s else asked.e2e_s,
        )
        return replace(request, slo=slo)

    def worth_usd(self, request: Request, output_tokens: int) -> float:
        """What its promise is worth by the settings as they are."""
        own = self.worth.get(base_of(request.klass))
        if own is None:
            return request.worth_usd
        return own[0] + own[1] * (request.prompt_tokens + output_tokens) / 1000.0

    def falls_apart(self, block: _Block, unseen: Iterable[Request], now_s: float) -> bool:
        """Whether the candidate keeps next to nothing, beside the block of the other that was last. Of requests under
        way that are `unseen`, those count that are missed already."""
        if block.arm is not Arm.CANDIDATE or block.tainted:
            return False
        tally = replace(block.tally)
        for request in unseen:
            if block.begins_s <= request.arrived_s < block.ends_s:
                asked, e2e_s = self.measured(request, block.arm), now_s - request.arrived_s
                tally.requests += kept(asked, ttft_s=None, e2e_s=e2e_s, output_tokens=None, whole=False) is False
        as_is = [one.tally for one in self.blocks if one.arm is Arm.AS_IS and not one.tainted]
        enough = [one for one in as_is if one.requests >= COLLAPSE_REQUESTS]
        return bool(enough) and collapsed(tally, enough[-1])


class Switchback:
    """Puts the arms of a trial in force by turns, and counts what becomes of requests. Without a candidate, nothing."""

    def __init__(self, config: Config, put: Callable[[Wanted], Awaitable[bool]], *, clock: Clock, log: Log) -> None:
        """`put` asks what is wanted when nothing else is under way, and puts that in force until it is called again:
        whether anything was wanted. It raises OSError or LedgerError where that cannot be."""
        self._put, self._clock, self._log = put, clock, log
        self._changed = asyncio.Event()
        self._lock: tuple[Path, int] | None = None
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

    def configure(self, config: Config) -> None:
        """Operators have put these settings in force: what goes on is the trial that they say."""
        before, self._trial = self._trial, None
        trial = self._begun(config)
        if trial is not None and before is not None and trial.settings == before.settings:
            # Only the pair under way begins again.
            trial.kept, trial.settling, trial.cut = before.kept, before.settling, before.cut
            trial.blocks = list(trial.settling or ())
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
        self._unlock()

    # --- one trial ------------------------------------------------------------------------------------------------

    def _begun(self, config: Config) -> _Trial | None:
        if config.candidate is None:
            self._unlock()
            return None
        trial = _Trial(config, config.candidate)
        try:
            self._lock_for(trial.file)
            known = read(trial.file)
        except FileError as error:
            trial.problem = str(error)
            self._log.event("error", "switchback: not begun", reason=trial.problem)
            return trial
        # Of other settings nothing holds here.
        if known is not None and known.settings == trial.settings:
            trial.kept = known
        return trial

    async def _pair(self, trial: _Trial) -> None:
        number = len(trial.kept.pairs) + (trial.settling is not None)
        pair: list[_Block] = []
        for arm in order(trial.kept.seed, number):
            if not await self._in_force(trial, arm):
                return
            now_s = self._clock.now_s()
            block = _Block(arm, now_s + trial.table.washout_s, now_s + trial.table.block_s)
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

    async def _passed(self, trial: _Trial, block: _Block) -> bool:
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

    async def _relieved(self, trial: _Trial, block: _Block) -> bool:
        """The candidate's block is cut short. For the rest of it the settings as they are show whether that was the
        candidate, or would have come over both."""
        now_s, until_s = self._clock.now_s(), block.ends_s
        block.ends_s, trial.cut = now_s, True
        self._log.event("warning", "switchback: a block was cut", kept=block.tally.share)
        if not await self._in_force(trial, Arm.AS_IS):
            return False
        rest = _Block(Arm.AS_IS, now_s + trial.table.washout_s, until_s)
        trial.blocks.append(rest)
        return await self._passed(trial, rest)

    async def _waited(self, seconds: float) -> bool:
        """So long, or until something is changed: whether it was."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _settle(self, trial: _Trial) -> None:
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

    async def _end(self, trial: _Trial, verdict: Verdict) -> None:
        """It is over: the settings as they are stay in force."""
        trial.kept.verdict = verdict
        self._tell(trial, "switchback: over", trial.standing, warning=verdict in _HARM)
        # First what outlives a reload and this process.
        await self._write(trial)
        await self._restore(trial)

    async def _stop(self, trial: _Trial, problem: str) -> None:
        trial.problem = problem
        self._log.event("error", "switchback: stopped", reason=problem)
        await self._restore(trial)

    async def _restore(self, trial: _Trial) -> None:
        """The settings as they are, however often that has to be tried; operators may be quicker."""
        while trial is self._trial:
            try:
                await self._in_force(trial, Arm.AS_IS)
                return
            except Exception as error:  # whatever it is: a candidate that does harm must not stay
                self._log.event("error", "switchback: the candidate is still in force", reason=type(error).__name__)
                await asyncio.sleep(RETRY_S)

    async def _in_force(self, trial: _Trial, arm: Arm) -> bool:
        """Put it in force: False where the trial is none any more."""
        wanted = await self._put(lambda: trial.settings_for(arm) if trial is self._trial else None)
        if wanted and trial is self._trial:
            if arm is not trial.arm:
                self._log.event("info", "switchback: in force", arm=str(arm))
            trial.arm = arm
            return True
        return False

    # --- the file -------------------------------------------------------------------------------------------------

    def _lock_for(self, file: Path) -> None:
        """Two gateways with one file would write over each other's pairs. Raises `FileError`."""
        if self._lock is not None and self._lock[0] == file:
            return
        self._unlock()
        beside = file.with_name(f"{file.name}.lock")
        try:
            fd = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FileError(f"{beside} cannot be made: {error.strerror}; name a file that can be written") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise FileError(f"another gateway tries with {file}; give each a file of its own") from None
        self._lock = (file, fd)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock[1])
            self._lock = None

    async def _write(self, trial: _Trial) -> None:
        content = msgspec.json.format(msgspec.json.encode(trial.kept))
        try:
            await asyncio.to_thread(_replace, trial.file, content)
        except OSError as error:
            # A verdict that a restart forgets would let the harm begin again.
            await self._stop(trial, f"{trial.file} cannot be written: {error.strerror}")

    def _tell(self, trial: _Trial, text: str, found: Standing, *, warning: bool = False) -> None:
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


def settings_of(config: Config) -> str:
    """A digest of what is tried, and with what: pairs of other settings say nothing."""
    candidate = config.candidate
    told = [tables(config), None if candidate is None else tables(candidate)]
    return blake2b(msgspec.json.encode(told), digest_size=8).hexdigest()


def read(file: Path) -> Kept | None:
    """What is written of a trial, None where there is no file. Raises `FileError` where that is none of ours."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise FileError(f"{file} is no trial's ({error}); move it away, or name another file") from None
    if found.version != VERSION:
        raise FileError(f"{file} is of version {found.version}, this is {VERSION}; move it away, or name another file")
    return found


def _replace(file: Path, content: bytes) -> None:
    beside = file.with_name(f"{file.name}.new")
    beside.write_bytes(content)
    beside.replace(file)
