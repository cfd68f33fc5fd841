"""Verbs of the command line that print JSON, and problems where a file that they were given is wrong."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from tidegate.config.problem import Problem
from tidegate.telemetry.verb import run

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
    printed = await run(arguments, timeout_s=timeout_s, niceness=LOW if nice else 0)
    if printed.status == WRONG:
        with suppress(msgspec.MsgspecError):
            return Said(None, _told(msgspec.json.decode(printed.out, type=_Wrong).problems))
    with suppress(msgspec.MsgspecError):  # there is none, or half of one
        return Said(msgspec.json.decode(printed.out, type=msgspec.Raw))
    return Said(None, printed.problem)


def _told(problems: Sequence[Problem]) -> str:
    """Without the file: it is one of ours, with a name that nobody else knows."""
    lines = [f"{one.path or 'file'}: {one.message}; {one.remedy}" for one in problems[:PROBLEMS_MAX]]
    if len(problems) > PROBLEMS_MAX:
        lines.append(f"and {len(problems) - PROBLEMS_MAX} more")
    return "\n".join(lines)
