"""The gateway that has started this process: what it is told on its input, and asked for on its output."""

import asyncio
import os
import sys
from typing import Final

import msgspec

from tidegate.wire.board import LINE_BYTES_MAX, Begun, Fulfilled, Ready, Wish

STDOUT: Final = 1
# A reload probes what is new, and waits for it.
WISH_S: Final = 120.0


class Parent:
    """Its end of the pipes. `gone` is set when the gateway is no more."""

    def __init__(self, reader: asyncio.StreamReader, begun: Begun) -> None:
        self.begun = begun
        self.gone = asyncio.Event()
        self._reader = reader
        self._wishes: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._hearing = asyncio.get_running_loop().create_task(self._hear())

    @classmethod
    async def meet(cls) -> "Parent":
        """Be told how to begin. ValueError or msgspec.MsgspecError where that is no beginning."""
        reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        return cls(reader, msgspec.json.decode(await reader.readline(), type=Begun))

    def ready(self, port: int) -> None:
        """Listening there."""
        _say(Ready(port=port))

    async def wish(self, who: str, what: str) -> bytes:
        """Have the configuration read again; the outcome as JSON. TimeoutError where none comes."""
        self._number += 1
        number = self._number
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._wishes[number] = future
        try:
            _say(Wish(number=number, who=who, what=what))
            async with asyncio.timeout(WISH_S):
                return await future
        finally:
            del self._wishes[number]

    async def close(self) -> None:
        """Hear no more."""
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)

    async def _hear(self) -> None:
        try:
            while line := await self._reader.readline():
                fulfilled = msgspec.json.decode(line, type=Fulfilled)
                future = self._wishes.get(fulfilled.number)
                if future is not None and not future.done():
                    future.set_result(bytes(fulfilled.outcome))
        finally:
            self.gone.set()


def _say(line: Ready | Wish) -> None:
    """A line fits a pipe, and the gateway reads it at once."""
    os.write(STDOUT, msgspec.json.encode(line) + b"\n")
