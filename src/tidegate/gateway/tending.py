"""What goes on in the background for as long as a gateway runs: a fault of ours ends none of it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

# So long it rests after a fault, and after each that follows soon twice as long, up to the latter.
REST_S: Final = 1.0
REST_S_MAX: Final = 60.0


def tended(job: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Have it go on until it returns or is cancelled. Of a fault the loop's exception handler is told, and after a rest
    the job begins anew."""
    return asyncio.get_running_loop().create_task(_tend(job))


async def _tend(job: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop, rest_s = asyncio.get_running_loop(), REST_S
    while True:
        begun_s = loop.time()
        try:
            return await job()
        except Exception as error:
            _tell(loop, error)
        if loop.time() - begun_s > REST_S_MAX:
            rest_s = REST_S
        await asyncio.sleep(rest_s)
        rest_s = min(2.0 * rest_s, REST_S_MAX)


def _tell(loop: asyncio.AbstractEventLoop, error: Exception) -> None:
    """In a function of its own: whoever goes on is not to keep the error, and all that it has in its frames."""
    loop.call_exception_handler({"message": "a fault of the gateway in the background", "exception": error})
