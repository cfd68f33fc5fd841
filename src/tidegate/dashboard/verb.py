"""Verbs of the command line, each in a process of its own that does not outlive its question."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import Final

import msgspec

# Of what went wrong, people are told the end.
PROBLEM_CHARS_MAX: Final = 500
LOW: Final = 10


class Said(msgspec.Struct, frozen=True):
    """What a verb printed, None where it did not come to that, and then why."""

    result: msgspec.Raw | None
    problem: str = ""


async def asked(arguments: Sequence[str], *, timeout_s: float, nice: bool = False) -> Said:
    """What it prints as JSON, whatever its status says beyond that."""
    verb = ("-m", "tidegate.cli.main", *arguments)
    child: Process | None = None
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *verb,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            preexec_fn=(lambda: os.nice(LOW)) if nice else None,
        )
        async with asyncio.timeout(timeout_s):
            out, error = await child.communicate()
        if out.strip():
            return Said(msgspec.Raw(out.strip()))
        return Said(None, error.decode("utf-8", "replace").strip()[-PROBLEM_CHARS_MAX:] or "it said nothing")
    except TimeoutError:
        return Said(None, f"it took longer than {timeout_s:g} s")
    except OSError as problem:
        return Said(None, f"it cannot be started: {problem.strerror}")
    finally:
        if child is not None and child.returncode is None:
            child.kill()
            await child.communicate()  # to the end of its pipes, which are closed by that
