"""Lines gathered during one tick of the loop and written together."""

import asyncio
from collections.abc import Callable


class Tick:
    """Calls `flush` once, at the end of the loop's tick in which something was added first."""

    __slots__ = ("_flush", "_pending")

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._pending = False

    def soon(self) -> None:
        """Something was added."""
        if not self._pending:
            self._pending = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._pending = False
        self._flush()


def run(act: Callable[[], None]) -> None:
    """Call something that waited for a write. One that fails must not keep the others waiting."""
    try:
        act()
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"{act!r} failed after what it waited for was written", "exception": error}
        )
