"""Work in a thread that uses what its caller owns."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any


async def finished(function: Callable[..., object], *arguments: Any) -> None:
    """Call it in a thread; returns, also where nobody waits any more, when the thread is done with its arguments.

    A file must not be closed under a thread that writes it: its number may be another file's by then.
    """
    work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        await asyncio.shield(work)
    finally:
        while not work.done():
            with suppress(asyncio.CancelledError):  # whoever cancels again has to wait, too
                await asyncio.wait([work])
