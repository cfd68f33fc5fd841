"""A `tidegate` command in a process of its own, as a user runs it, which ends with the process that started it.

`python -m tidegate.lab.command PARENT VERB ...` becomes `tidegate VERB ...`, and is told SIGTERM when PARENT ends.
"""

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

START_S_MAX = 30.0
LAST_CHARS = 500  # of what it said: the reason stands in the last lines
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class CommandError(Exception):
    """It did not start; the message has its last words."""


@asynccontextmanager
async def running(*words: str, said: Path) -> AsyncIterator[bytes]:
    """Until this is left; yields the line by which it says that it listens. What else it says goes into a file.

    It ends with the thread that started it, however that ends, so start it on the main thread's loop.
    """
    command = [sys.executable, "-m", "tidegate.lab.command", str(os.getpid()), *words]
    with said.open("wb") as file:
        # In a session of its own, a Ctrl-C in the terminal reaches us alone: we decide when it stops.
        child = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=file, start_new_session=True
        )
    assert child.stdout is not None
    try:
        try:
            async with asyncio.timeout(START_S_MAX):
                line = await child.stdout.readline()
        except TimeoutError as error:
            raise CommandError(f"tidegate {words[0]} does not listen after {START_S_MAX:.0f} s") from error
        if not line:
            raise CommandError(f"tidegate {words[0]} did not start: {_last_words(said)}")
        yield line
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


def _last_words(said: Path) -> str:
    return said.read_text(errors="replace").strip()[-LAST_CHARS:]


def end_with(parent: int, how: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends; `exec` does not undo it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, how, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent process ended before this one started")


def main() -> None:
    """Become the command. SIGTERM, so that it puts its files in order when its parent has been killed."""
    parent, *words = sys.argv[1:]
    end_with(int(parent), signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "tidegate.cli.main", *words])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
