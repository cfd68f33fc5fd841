"""Two settings by turns on live traffic, until it is known which is better, or that the candidate does harm."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path

import msgspec

from tidegate.clock import Clock
from tidegate.config.build import request_class
from tidegate.config.config import Config
from tidegate.config.diff import tables
from tidegate.core.classify import base_of
from tidegate.core.model import Ending, Overrides, Record, Request, RequestClass, replace
from tidegate.core.promise import kept
from tidegate.core.switchback import Arm, Pair, Standing, Tally, Verdict, collapsed, order, standing
from tidegate.state.store import LedgerError
from tidegate.telemetry.log import Log

VERSION = 1
# How soon a candidate is stopped that keeps next to nothing.
LOOK_S = 1.0
# Blocks in which a request that is over may have come: those of this pair and of the one before.
_BLOCKS = 4


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


class _Block:
    """Requests that come in this time count for this arm."""

    __slots__ = ("arm", "begins_s", "ends_s", "tainted", "tally")

    def __init__(self, arm: Arm, begins_s: float, ends_s: float) -> None:
        self.arm, self.begins_s, self.ends_s = arm, begins_s, ends_s
        self.tally = Tally()
        # Operators had a hand in it.
        self.tainted = False


class Switchback:
    """Puts the arms of a trial in force by turns, and counts what becomes of requests. Without a candidate, nothing."""

    def __init__(self, config: Config, put: Callable[[Config], Awaitable[None]], *, clock: Clock, log: Log) -> None:
        """`put` puts settings in force until it is called again; OSError or LedgerError where that cannot be."""
        self._put, self._clock, self._log = put, clock, log
        self._changed = asyncio.Event()
        self.overrides: Callable[[], Overrides] = Overrides
        self._begin(config)

    @property
    def told(self) -> Told | None:
        """How it stands; None where nothing is tried."""
        if self._config.candidate is None:
            return None
        found = standing(self._kept.pairs, self._table.pairs_max)
        if self._kept.verdict is not Verdict.GOES_ON:
            found = replace(found, verdict=self._kept.verdict)
        return Told(candidate=self._table.policy, arm=self._arm, problem=self._problem, standing=found)

    def configure(self, config: Config) -> None:
        """Operators have put these settings in force: what goes on is the trial that they say."""
        self._begin(config)
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
        block = next((one for one in self._blocks if one.begins_s <= request.arrived_s < one.ends_s), None)
        if block is None or ending is Ending.CANCELLED:
            # Whose client left says nothing.
            return
        asked = self._measured(request, block.arm)
        held = ending is Ending.OK and kept(asked, ttft_s=ttft_s, e2e_s=e2e_s, output_tokens=output_tokens)
        if held is not None:
            block.tally.count(kept=held, usd=usd, worth_usd=self._worth_usd(request, output_tokens or 0))

    async def watch(self) -> None:
        """Go on for as long as it runs."""
        while True:
            self._changed.clear()
            if self._config.candidate is not None and self._kept.verdict is Verdict.GOES_ON and not self._problem:
                await self._pair(len(self._kept.pairs))
            else:
                await self._changed.wait()

    # --- one trial ------------------------------------------------------------------------------------------------

    def _begin(self, config: Config) -> None:
        self._config, self._table = config, config.switchback
        self._arm, self._problem = Arm.AS_IS, ""
        self._blocks: list[_Block] = []
        # The pair before this one, whose last requests may be under way.
        self._settling: tuple[_Block, _Block] | None = None
        self._file = config.file.parent / self._table.file
        candidate = config.candidate
        self._classes: dict[Arm, dict[str, RequestClass]] = {Arm.AS_IS: _classes(config), Arm.CANDIDATE: {}}
        if candidate is None:
            return
        self._classes[Arm.CANDIDATE] = _classes(candidate)
        settings = blake2b(msgspec.json.encode([tables(config), tables(candidate)]), digest_size=8).hexdigest()
        fresh = Kept(version=VERSION, settings=settings, seed=int.from_bytes(os.urandom(6), "big"))
        known = self._read()
        # Of other settings nothing holds here.
        self._kept = known if known is not None and (known.version, known.settings) == (VERSION, settings) else fresh

    def _settings(self, arm: Arm) -> Config:
        candidate = self._config.candidate
        assert candidate is not None
        return candidate if arm is Arm.CANDIDATE else self._config

    async def _pair(self, number: int) -> None:
        blocks: list[_Block] = []
        for arm in order(self._kept.seed, number + (self._settling is not None)):
            if not await self._in_force(arm):
                return
            now_s = self._clock.now_s()
            block = _Block(arm, now_s + self._table.washout_s, now_s + self._table.block_s)
            self._blocks = [*self._blocks[1 - _BLOCKS :], block]
            blocks.append(block)
            if not await self._passed(block):
                return
            if len(blocks) == 1 and self._settling is not None:
                await self._settle(self._settling)
                self._settling = None
                if self._kept.verdict is not Verdict.GOES_ON:
                    return
        self._settling = (blocks[0], blocks[1])
        if len(self._kept.pairs) + 1 >= self._table.pairs_max:
            # The last one: its requests have a block's time to end, with the settings as they are.
            if not await self._in_force(Arm.AS_IS) or await self._waited(self._table.block_s):
                return
            await self._settle(self._settling)

    async def _passed(self, block: _Block) -> bool:
        """Its time is over: False where the trial is."""
        while (left_s := block.ends_s - self._clock.now_s()) > 0.0:
            if await self._waited(min(LOOK_S, left_s)):
                return False
            block.tainted = block.tainted or self.overrides() != Overrides()
            # Where the candidate came first, there is nothing to hold it against before its block is over.
            as_is = self._as_is()
            if any(
                one.arm is Arm.CANDIDATE and not one.tainted and collapsed(one.tally, as_is) for one in self._blocks
            ):
                await self._end(Verdict.COLLAPSED)
                return False
        return True

    def _as_is(self) -> Tally:
        """All that is known of the settings as they are."""
        found = Tally()
        for pair in self._kept.pairs:
            found.add(pair.as_is)
        for block in self._blocks:
            if block.arm is Arm.AS_IS:
                found.add(block.tally)
        return found

    async def _waited(self, seconds: float) -> bool:
        """So long, or until something is changed: whether it was."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _settle(self, pair: tuple[_Block, _Block]) -> None:
        tallies = {block.arm: block.tally for block in pair}
        if any(block.tainted for block in pair):
            # It is counted as one without requests, so that the trial ends all the same.
            tallies = {arm: Tally() for arm in Arm}
        self._kept.pairs.append(Pair(tallies[Arm.AS_IS], tallies[Arm.CANDIDATE]))
        found = standing(self._kept.pairs, self._table.pairs_max)
        self._tell("switchback: one more pair", found)
        if found.verdict is Verdict.GOES_ON:
            await self._write()
        else:
            await self._end(found.verdict)

    async def _end(self, verdict: Verdict) -> None:
        """It is over: the settings as they are stay in force."""
        self._kept.verdict = verdict
        harm = verdict in (Verdict.HARM, Verdict.COLLAPSED)
        self._tell("switchback: over", standing(self._kept.pairs, self._table.pairs_max), warning=harm)
        await self._in_force(Arm.AS_IS)
        await self._write()

    async def _in_force(self, arm: Arm) -> bool:
        try:
            await self._put(self._settings(arm))
        except (OSError, LedgerError) as error:
            self._problem = f"settings could not be put in force: {error}"
            self._log.event("error", "switchback: stopped", reason=self._problem)
            return False
        self._arm = arm
        return True

    # --- requests -------------------------------------------------------------------------------------------------

    def _measured(self, request: Request, arm: Arm) -> Request:
        """The request as it is promised by the settings as they are: both arms are measured by that."""
        name = base_of(request.klass)
        own, other = self._classes[Arm.AS_IS].get(name), self._classes[arm].get(name)
        # What a client has asked for itself stays.
        return request if own is None or other is None or request.slo != other.slo else replace(request, slo=own.slo)

    def _worth_usd(self, request: Request, output_tokens: int) -> float:
        own = self._classes[Arm.AS_IS].get(base_of(request.klass))
        if own is None:
            return request.worth_usd
        return own.worth_usd + own.worth_usd_per_1k_tokens * (request.prompt_tokens + output_tokens) / 1000.0

    # --- the file -------------------------------------------------------------------------------------------------

    def _read(self) -> Kept | None:
        try:
            return read(self._file)
        except ValueError as error:
            self._log.event("error", "switchback: begun anew", reason=str(error))
            return None

    async def _write(self) -> None:
        content = msgspec.json.format(msgspec.json.encode(self._kept))
        try:
            await asyncio.to_thread(_replace, self._file, content)
        except OSError as error:
            self._log.event("error", "switchback: not written down", reason=f"{self._file}: {error.strerror}")

    def _tell(self, text: str, found: Standing, *, warning: bool = False) -> None:
        value = found.value_usd
        self._log.event(
            "warning" if warning else "info",
            text,
            verdict=str(self._kept.verdict if self._kept.verdict is not Verdict.GOES_ON else found.verdict),
            pairs=found.pairs,
            kept_as_is=found.as_is.share,
            kept_candidate=found.candidate.share,
            value_usd_more=None if value is None else value.mean,
        )


def read(file: Path) -> Kept | None:
    """What is written of a trial, None where there is no file. ValueError says what is wrong with it."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None


def _replace(file: Path, content: bytes) -> None:
    beside = file.with_name(f"{file.name}.new")
    beside.write_bytes(content)
    beside.replace(file)


def _classes(config: Config) -> dict[str, RequestClass]:
    return {name: request_class(name, table) for name, table in config.classes.items()}
