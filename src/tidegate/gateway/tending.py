"""What goes on in the background for as long as a gateway runs: a fault of ours ends none of it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

# So long it rests after a fault, and after each that follows twice as long, up to the latter.
REST_S: Final = 1.0
REST_S_MAX: Final = 60.0


def tended(job: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Have it go on until it returns or is cancelled. Of a fault the loop's exception handler is told, and after a rest
    the job begins anew."""
    return asyncio.get_running_loop().create_task(_tend(job))


async def _tend(job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    rest_s = REST_S
    while True:
        try:
            return await job()
        except Exception as error:
            context = {"message": "a fault of the gateway in the background", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        await asyncio.sleep(rest_s)
        rest_s = min(2.0 * rest_s, REST_S_MAX)
