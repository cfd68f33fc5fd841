"""What other processes become."""

import asyncio
import os
import select
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

ENDS_S_MAX = 30.0  # for what does not: a busy machine takes many seconds


def processes_of(parent: int) -> list[int]:
    """Those that its main thread has started and that are there."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@asynccontextmanager
async def running(*command: str, **options: Any) -> AsyncIterator[Process]:
    """A process that is gone when this is left, whatever has failed meanwhile."""
    process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextmanager
def watched(pids: Sequence[int]) -> Iterator[Callable[[], bool]]:
    """Yields whether all of them end; what has not ended when this is left is killed."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    try:
        yield lambda: all(_ends(one) for one in descriptors)
    finally:
        for one in descriptors:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(one, signal.SIGKILL)
            os.close(one)


def _ends(descriptor: int) -> bool:
    """A pid descriptor becomes readable when its process ends."""
    return bool(select.select([descriptor], [], [], ENDS_S_MAX)[0])
