"""Verbs of the command line, each in a process of its own that does not outlive its question."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

# Of what went wrong, people are told the end.
PROBLEM_CHARS_MAX: Final = 500


class Printed(msgspec.Struct, frozen=True):
    """What a verb printed, its exit status, and the end of what it told people besides; where it did not come to a
    status, why."""

    out: bytes
    status: int | None
    problem: str


async def run(arguments: Sequence[str], *, timeout_s: float, lines: bytes = b"", niceness: int = 0) -> Printed:
    """Ask a verb, with these lines as its input."""
    verb = ("-P", "-m", "tidegate.cli.main", *arguments)
    child: Process | None = None
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *verb,
            stdin=PIPE if lines else DEVNULL,  # uvloop raises where even nothing is written to who is gone
            stdout=PIPE,
            stderr=PIPE,
            preexec_fn=partial(os.nice, niceness) if niceness else None,
        )
        async with asyncio.timeout(timeout_s):
            out, told = await child.communicate(lines or None)
        problem = told.decode("utf-8", "replace").strip()[-PROBLEM_CHARS_MAX:]
        return Printed(out, child.returncode, problem or "it said nothing")
    except TimeoutError:
        return Printed(b"", None, f"it took longer than {timeout_s:g} s")
    except OSError as error:
        return Printed(b"", None, f"it cannot be started: {error.strerror}")
    finally:
        if child is not None and child.returncode is None:
            child.kill()
            await child.communicate()  # to the end of its pipes, which are closed by that
