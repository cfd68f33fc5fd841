"""Verbs of the command line, each in a process of its own that does not outlive its question."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from tidegate.config.problem import Problem

# Of what went wrong, people are told the end.
PROBLEM_CHARS_MAX: Final = 500
PROBLEMS_MAX: Final = 10  # whoever has mended so many asks again
WRONG: Final = 2
"""The status of a verb that was asked wrongly."""
LOW: Final = 10


class Said(msgspec.Struct, frozen=True):
    """What a verb printed, None where it did not come to that, and then why."""

    result: msgspec.Raw | None
    problem: str = ""


class _Wrong(msgspec.Struct):
    """What it prints in place of a result where a file that it was given is wrong."""

    problems: tuple[Problem, ...]


async def asked(arguments: Sequence[str], *, timeout_s: float, nice: bool = False) -> Said:
    """What it prints as JSON, whatever its status says beyond that; where a file is wrong, a line for each problem."""
    verb = ("-P", "-m", "tidegate.cli.main", *arguments)
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
        if child.returncode == WRONG:
            with suppress(msgspec.MsgspecError):
                return Said(None, _told(msgspec.json.decode(out, type=_Wrong).problems))
        with suppress(msgspec.MsgspecError):  # there is none, or half of one
            return Said(msgspec.json.decode(out, type=msgspec.Raw))
        return Said(None, error.decode("utf-8", "replace").strip()[-PROBLEM_CHARS_MAX:] or "it said nothing")
    except TimeoutError:
        return Said(None, f"it took longer than {timeout_s:g} s")
    except OSError as problem:
        return Said(None, f"it cannot be started: {problem.strerror}")
    finally:
        if child is not None and child.returncode is None:
            child.kill()
            await child.communicate()  # to the end of its pipes, which are closed by that


def _told(problems: Sequence[Problem]) -> str:
    """Without the file: it is one of ours, with a name that nobody else knows."""
    lines = [f"{one.path or 'file'}: {one.message}; {one.remedy}" for one in problems[:PROBLEMS_MAX]]
    if len(problems) > PROBLEMS_MAX:
        lines.append(f"and {len(problems) - PROBLEMS_MAX} more")
    return "\n".join(lines)
