"""Another configuration for a running gateway: read, checked whole, compared, and only then put in force.

Whatever is wrong with it, the gateway goes on with the last one that was good.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Protocol

from tidegate.clock import Clock, day_number
from tidegate.config.config import Config
from tidegate.config.diff import Change, diff, without_restart
from tidegate.config.problem import ConfigError, Problem
from tidegate.core.model import Record
from tidegate.gateway import daemon
from tidegate.gateway.changes import Changes
from tidegate.state.store import LedgerError
from tidegate.telemetry.log import Log
from tidegate.telemetry.metrics import Metrics
from tidegate.wire.changes import Setting

# Prices change at midnight; a machine that slept through it looks at its clock again after this.
WATCH_S = 30.0
# A disk that sleeps takes some of that, and what hangs never answers.
READ_S = 30.0
# A log line names so many settings or problems; /api/config has all of them.
TOLD_MAX = 10

# Who has the process reload: whoever runs as its user.
SIGNAL = "SIGHUP"

APPLIED, UNCHANGED, REFUSED = "applied", "unchanged", "refused"


class Outcome(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What a reload came to. `applied` is False for one that was only tried, or refused because of `problems`.

    Of the `changes`, those `at_restart` wait for one.
    """

    at_s: float
    applied: bool
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()


class PutInForce(Protocol):
    """Who can do it."""

    def __call__(self, config: Config, *, by_hand: bool) -> Awaitable[Config]:
        """Go on with these settings, `by_hand` if operators have asked for it: what is in force then, which is another
        where a trial of these goes on. Raises OSError or LedgerError."""


class Reloader:
    """Reads the configuration again when it is told to, one reload at a time."""

    def __init__(
        self,
        config: Config,
        source: Callable[[], Config] | None,
        put_in_force: PutInForce,
        *,
        clock: Clock,
        log: Log,
        metrics: Metrics,
        changes: Changes,
    ) -> None:
        """`config` is in force. `source` raises ConfigError; `changes` is told who had it reloaded."""
        self.config = self._in_force = config
        self.since_s = clock.now_s()
        self.last: Outcome | None = None
        self._source = source
        self._put_in_force = put_in_force
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._changes = changes
        self._lock = asyncio.Lock()
        self._asked = self._open = False
        self._task: asyncio.Task[None] | None = None
        self._reading: Future[Config] | None = None
        self._day = day_number(self.since_s)

    @property
    def busy(self) -> bool:
        """Whether a reload is under way."""
        return self._lock.locked()

    def soon(self) -> None:
        """Reload, once `watch` runs; asked again meanwhile, once more after that."""
        self._asked = True
        if self._open and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def reload(self, who: str, *, dry_run: bool = False, what: str = "configuration reloaded") -> Outcome:
        """Read, check and compare; unless it is a `dry_run`, put in force what is new and tell the log.

        `who` wants it, for `what`.
        """
        async with self._lock:
            outcome = await self._reload(dry_run=dry_run)
            if not dry_run:
                self.last = outcome
                self._tell(outcome)
                settings = [
                    Setting(path=c.path, before=c.before, after=c.after, at_restart=c.at_restart)
                    for c in outcome.changes
                ]
                self._changes.add(who, what, settings, applied=outcome.applied)
                # Who is told of it may look for it next; a disk that hangs is not waited for.
                await self._changes.written()
            return outcome

    async def watch(self) -> None:
        """Reload when told to, and let the prices of a new day hold, for as long as it runs."""
        self._open = True
        if self._asked:
            self.soon()
        while True:
            await asyncio.sleep(WATCH_S)
            await self.look_at_the_day()

    async def look_at_the_day(self) -> None:
        """Put the prices of today in force, where a day has passed."""
        today = day_number(self._clock.now_s())
        if today == self._day:
            return
        async with self._lock:
            try:
                await self._put_in_force(self._in_force, by_hand=False)
            except (OSError, LedgerError) as error:
                self._log.event("error", "the prices of the day are not in force", reason=str(error))
            else:
                self._day = today

    async def put(self, wanted: Callable[[], Config | None]) -> bool:
        """Put in force what is wanted once nothing else is under way, until another is or a reload; it is taken for no
        other than that of the file. Whether anything was wanted.

        Raises OSError or LedgerError, and then what was in force still is.
        """
        async with self._lock:
            config = wanted()
            if config is None:
                return False
            self._in_force = await self._put_in_force(config, by_hand=False)
            return True

    async def close(self) -> None:
        """Reload no more."""
        self._open = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            await self.reload(SIGNAL)

    async def _reload(self, *, dry_run: bool) -> Outcome:
        changes: tuple[Change, ...] = ()
        try:
            wanted = await self._read()
            changes = diff(self.config, wanted)
            if not dry_run:
                possible = without_restart(self.config, wanted)
                self._in_force = await self._put_in_force(possible, by_hand=True)
                self.config = possible
                if not all(change.at_restart for change in changes):
                    self.since_s = self._clock.now_s()
        except ConfigError as error:
            return Outcome(at_s=self._clock.now_s(), applied=False, problems=tuple(error.problems))
        except (OSError, LedgerError) as error:
            remedy = "mend that, and reload again"
            problem = Problem(file=str(self.config.file), path="", message=str(error), remedy=remedy)
            return Outcome(at_s=self._clock.now_s(), applied=False, changes=changes, problems=(problem,))
        except Exception as error:  # by its type alone: a message may quote a secret
            self._metrics.crashed()
            message = f"it met a bug of ours ({type(error).__name__})"
            remedy = "undo the last edit, and report it"
            problem = Problem(file=str(self.config.file), path="", message=message, remedy=remedy)
            return Outcome(at_s=self._clock.now_s(), applied=False, problems=(problem,))
        return Outcome(at_s=self._clock.now_s(), applied=not dry_run, changes=changes)

    async def _read(self) -> Config:
        if self._source is None:
            raise self._unread(
                "this gateway runs without a file, so there is nothing to read again",
                "write what was found into one (`tidegate discover --write FILE`) and serve that",
            )
        hangs = f"it, or a file that it names, did not answer within {READ_S:g} s", "see to its disk, and reload again"
        if self._reading is not None and not self._reading.done():
            raise self._unread(*hangs)  # who hangs there stays: another would only hang beside it
        # In a thread: a slow disk does not stop the streams.
        self._reading = daemon.begin(self._source, "configuration")
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.wrap_future(self._reading)
        except TimeoutError:
            raise self._unread(*hangs) from None

    def _unread(self, message: str, remedy: str) -> ConfigError:
        return ConfigError([Problem(file=str(self.config.file), path="", message=message, remedy=remedy)])

    def _tell(self, outcome: Outcome) -> None:
        if outcome.problems:
            self._metrics.reloaded(REFUSED)
            told = [f"{p.file}: {p.path or 'file'}: {p.message}; {p.remedy}" for p in outcome.problems]
            self._log.event(
                "error",
                "configuration refused; the one before stays in force",
                problems=len(told),
                reason=" | ".join(told[:TOLD_MAX]),
            )
            return
        self._metrics.reloaded(APPLIED if outcome.changes else UNCHANGED)
        changed = [change.path for change in outcome.changes if not change.at_restart]
        waiting = [change.path for change in outcome.changes if change.at_restart]
        self._log.event(
            "warning" if waiting else "info",
            "configuration in force" if outcome.changes else "configuration unchanged",
            changed=", ".join(changed[:TOLD_MAX]),
            settings=len(changed),
            waiting_for_restart=", ".join(waiting),
        )
