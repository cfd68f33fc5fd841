"""A `tidegate` command in a process of its own, as a user runs it."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

START_S_MAX = 30.0
LAST_CHARS = 500  # of what it said: the reason stands in the last lines


class CommandError(Exception):
    """It did not start; the message has its last words."""


@asynccontextmanager
async def running(*words: str, said: Path) -> AsyncIterator[bytes]:
    """Until this is left; yields the line by which it says that it listens. What else it says goes into a file."""
    with said.open("wb") as file:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tidegate.cli.main", *words, stdin=DEVNULL, stdout=PIPE, stderr=file,
            start_new_session=True,
        )  # fmt: skip
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
