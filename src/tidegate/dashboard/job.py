"""What takes minutes: a verb in a process of its own at a low priority, one at a time, whose last result is kept."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import msgspec
from msgspec.structs import replace

from tidegate.core.model import Record
from tidegate.dashboard.verb import Said, asked
from tidegate.wire.errors import BadRequest

# A day's traffic is played twice or more, on a core that others need.
TIMEOUT_S: Final = 3600.0
NONE, RUNNING, DONE, FAILED = "none", "running", "done", "failed"


class Job(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How far it has come at `at_s`; `result` is what the verb prints, `problem` why it printed nothing. `revision`
    is that of the text that it is of, empty where there is none."""

    state: str = NONE
    at_s: float = 0.0
    revision: str = ""
    began_s: float | None = None
    ended_s: float | None = None
    problem: str = ""
    result: msgspec.Raw | None = None


class Worker:
    """Runs one verb, again and again."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._last = Job()
        self._now_s = now_s
        self._task: asyncio.Task[None] | None = None

    @property
    def last(self) -> Job:
        """The run that was begun last."""
        return replace(self._last, at_s=self._now_s())

    def begin(self, verb: Sequence[str], text: str | None = None, revision: str = "") -> Job:
        """Run it, with the name of a file that has this `text` as its last argument, if any, which is of that
        `revision`. Raises BadRequest."""
        if self._task is not None:
            raise BadRequest("One is under way; its result is told when it is done.", status=409)
        self._last = Job(state=RUNNING, revision=revision, began_s=self._now_s())
        self._task = asyncio.get_running_loop().create_task(self._run(verb, text))
        self._task.add_done_callback(self._over)
        return self.last

    async def close(self) -> None:
        """Give it up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, verb: Sequence[str], text: str | None) -> None:
        try:
            said = await self._said(verb, text)
        except (OSError, SubprocessError) as error:  # as where the disk is full
            said = Said(None, f"it could not be run: {error}")
        except Exception as error:  # a run that never ends would keep all others from beginning
            said = Said(None, f"it met a bug of ours ({type(error).__name__})")
        self._last = replace(
            self._last,
            state=FAILED if said.result is None else DONE,
            ended_s=self._now_s(),
            problem=said.problem,
            result=said.result,
        )

    async def _said(self, verb: Sequence[str], text: str | None) -> Said:
        if text is None:
            return await asked(verb, timeout_s=TIMEOUT_S, nice=True)
        with tempfile.TemporaryDirectory(prefix="tidegate-dashboard-") as folder:
            file = Path(folder) / "policy.toml"
            file.write_bytes(text.encode())
            return await asked((*verb, str(file)), timeout_s=TIMEOUT_S, nice=True)

    def _over(self, _: "asyncio.Task[None]") -> None:
        self._task = None
