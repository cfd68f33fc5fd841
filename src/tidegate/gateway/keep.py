"""Keeps what was learned: takes it back at the start, writes it down at an interval and at the end."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from tidegate import __version__
from tidegate.clock import Clock
from tidegate.config.build import Built
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.tending import tended
from tidegate.state.checkpoint import (
    Checkpoint,
    CheckpointError,
    Checkpoints,
    Restored,
    fingerprint,
    restore,
    settings,
)
from tidegate.telemetry.log import Log


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What operators look at. `file` is None where nothing is kept; `problem` is why nothing can be written just now.

    `restored_at_s` is when what this run began with was written; the rest is told at `state.checkpoint.Restored`.
    """

    file: str | None
    saved_at_s: float | None
    problem: str
    restored_at_s: float | None
    age_s: float
    ahead_s: float
    dropped: tuple[str, ...]
    skipped: str
    refused: str


class Keeper:
    """Never in the way: where the file cannot be used, one event says so, and the gateway goes on without it."""

    def __init__(self, built: Built, clock: Clock, log: Log) -> None:
        """Reads the file, before anything is decided. `restored` is what to begin with."""
        self._clock, self._log = clock, log
        self._every_s = built.gateway.state_s
        self._settings, self._fingerprints = settings(built.policy), self.fingerprints(built)
        self.restored = Restored()
        self._file: Checkpoints | None = None
        if built.gateway.state is not None:
            try:
                self._file = Checkpoints(built.gateway.state)
                serves = frozenset(model for e in built.endpoints for model in e.models)
                now_s = clock.now_s()
                self.restored = restore(self._file, built.policy, self._fingerprints, serves, now_s)
            except CheckpointError as error:
                self.restored = Restored(refused=str(error))
                if self._file is not None:
                    self._file.close()
                    self._file = None
            self._tell()
        # One thread, so that what is written stays in order and one write at a time is under way.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidegate-state")
        self._saved_at_s: float | None = None
        self._problem = ""
        self._dispatch: Dispatch
        self._task: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._again = False

    def configure(self, built: Built) -> None:
        """What is learned from now on depends on these settings. With others it is written down at once: a restart
        would take nothing back of what is in the file."""
        before = self._settings, self._fingerprints
        self._settings, self._fingerprints = settings(built.policy), self.fingerprints(built)
        if before != (self._settings, self._fingerprints):
            self.save_soon()

    @staticmethod
    def fingerprints(built: Built) -> dict[str, str]:
        """What the numbers learned of each endpoint depend on, by name."""
        return {e.name: fingerprint(e, built.upstreams[e.name]) for e in built.endpoints}

    def begin(self, dispatch: Dispatch) -> None:
        """Give back the ratios, and write down what is learned from now on. The router has its state already."""
        self._dispatch = dispatch
        dispatch.ratios.update(self.restored.ratios)
        if self._file is not None:
            self._task = tended(partial(self._run, self._file))

    def save_soon(self) -> None:
        """Write it down now, for what operators set by hand should not wait; asked again meanwhile, once more after."""
        if self._file is None or self._task is None:
            return
        self._again = True
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(self._save_all(self._file))

    async def close(self) -> None:
        """Write it down once more, and let go of the file."""
        if self._file is None:
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(*(t for t in (self._task, self._saving) if t is not None), return_exceptions=True)
            await self._save(self._file)
        await asyncio.get_running_loop().run_in_executor(self._worker, self._file.close)
        self._worker.shutdown()
        self._file = None

    def status(self) -> Kept:
        """What became of it."""
        restored = self.restored
        return Kept(
            file=None if self._file is None else str(self._file.path),
            saved_at_s=self._saved_at_s,
            problem=self._problem,
            restored_at_s=restored.at_s,
            age_s=restored.age_s,
            ahead_s=restored.ahead_s,
            dropped=restored.dropped,
            skipped=restored.skipped,
            refused=restored.refused,
        )

    async def _run(self, file: Checkpoints) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._save(file)

    async def _save_all(self, file: Checkpoints) -> None:
        while self._again:
            self._again = False
            await self._save(file)

    async def _save(self, file: Checkpoints) -> None:
        """One snapshot, encoded here and written in the thread. Trouble is told once, until it is over."""
        now_s = self._clock.now_s()
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, file.write, self._body(now_s))
        except CheckpointError as error:
            self._trouble(str(error))
        except Exception as error:  # the type alone: a message may quote what a client sent
            self._trouble(f"{file.path}: it cannot be encoded: {type(error).__name__}")
        else:
            self._saved_at_s, self._problem = now_s, ""

    def _body(self, now_s: float) -> bytes:
        # 0.1 ms and 80 KB for 16 endpoints with all their cells: no stream notices.
        made = Checkpoint(
            at_s=now_s,
            software=f"tidegate {__version__}",
            policy=self._settings,
            endpoints=self._fingerprints,
            ratios={model: (r.bytes_sum, r.tokens_sum) for model, r in self._dispatch.ratios.items()},
            state=self._dispatch.router.snapshot(held=False),
        )
        return msgspec.json.encode(made)

    def _trouble(self, problem: str) -> None:
        if not self._problem:
            self._log.event("error", "learned state not saved", reason=problem)
        self._problem = problem

    def _tell(self) -> None:
        """One event, where there was anything to take back."""
        r = self.restored
        if r.refused:
            self._log.event("warning", "learned state refused", reason=r.refused, saving=self._file is not None)
        elif r.state is not None:
            kept = len(r.state.endpoints)
            told = {"dropped": ", ".join(r.dropped), "skipped": r.skipped}
            more: dict[str, str | float] = {name: text for name, text in told.items() if text}
            if r.ahead_s:
                more["clock_went_back_s"] = r.ahead_s
            level = "warning" if more else "info"
            self._log.event(level, "learned state restored", age_s=r.age_s, endpoints=kept, **more)
