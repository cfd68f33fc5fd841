"""A blob that comes in: written as it comes, and worth nothing until all of it has been looked at."""

import asyncio
import hmac
import os
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path

from blake3 import blake3

from tidegate.courier.refusal import RefusalError
from tidegate.courier.thread import finished
from tidegate.http.server import Exchange
from tidegate.wire.blob import BlobError, Declared, head_bytes, tokens_of
from tidegate.wire.courier import Why

AHEAD_BYTES_MAX = 4 << 20  # in memory besides: some milliseconds of hashing, so that neither side waits for the other


async def receive(exchange: Exchange, path: Path, declared: Declared) -> None:
    """Write what the exchange brings to `path`; raises `RefusalError` where it is not what was declared.

    Its length is: whoever calls has compared what HTTP will deliver.
    """
    try:
        with FileIO(path, "x", opener=_private) as file:
            taking = _Taking(file, declared)
            async for pieces in _batches(exchange):
                await finished(taking.take, pieces)
            await finished(taking.check, path)
    except OSError as error:
        # It is full, or was removed.
        raise RefusalError(Why.FULL, f"the folder cannot be written: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


class _Taking:
    """The part that takes time, in a thread: hashing and writing, and a look at the whole in the end."""

    def __init__(self, file: FileIO, declared: Declared) -> None:
        self._file = file
        self._declared = declared
        self._missing = declared.size_bytes
        self._digest = blake3()
        self._footer = b""

    def take(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            part = memoryview(piece)[: self._missing]
            self._missing -= len(part)
            self._footer += piece[len(part) :]
            self._digest.update(part)
            while part:
                part = part[self._file.write(part) :]

    def check(self, path: Path) -> None:
        if not hmac.compare_digest(self._digest.digest(), self._footer):
            raise RefusalError(Why.CORRUPT, "the blob is not the one that was sent")
        declared = self._declared
        with path.open("rb") as file:
            head = file.read(head_bytes(declared.tokens))
        try:
            found = tokens_of(head)
        except BlobError as error:
            raise RefusalError(Why.CORRUPT, str(error)) from error
        if found != (declared.tokens, declared.tokens_digest):
            raise RefusalError(Why.CORRUPT, "the blob holds other tokens than were declared")


async def _batches(exchange: Exchange) -> AsyncIterator[list[bytes]]:
    """The body of a request, each time all that has come meanwhile; the client waits where that becomes too much."""
    body = _Body(exchange)
    exchange.receive(body.on_data, body.on_end)
    while (pieces := await body.some()) is not None:
        yield pieces


class _Body:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._ended = False
        self._came = asyncio.Event()

    def on_data(self, data: bytes) -> None:
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes >= AHEAD_BYTES_MAX:
            self._exchange.pause()
        self._came.set()

    def on_end(self) -> None:
        self._ended = True
        self._came.set()

    async def some(self) -> list[bytes] | None:
        await self._came.wait()
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        if not self._ended:
            self._came.clear()
            self._exchange.resume()
        return pieces or None
