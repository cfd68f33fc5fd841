"""One relayed connection: two ends and a pipe each way between them."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import cast

from tidegate.lab.link import PIECE_BYTES_MAX, Mark, Pipe

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: RST instead of FIN


class End(asyncio.BufferedProtocol):
    """A socket of the relay. What it reads goes into one pipe, what it writes comes out of the other."""

    def __init__(self, connection: "Connection", out: Pipe, into: Pipe) -> None:
        self.transport: asyncio.Transport | None = None
        self.out = out
        self.into = into
        self._connection = connection
        self._buffer = memoryview(bytearray(PIECE_BYTES_MAX))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self.transport = self.out.source = cast("asyncio.Transport", transport)
        self._connection.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the interface's
        """Where to read into; always the same place, copied out at once."""
        return self._buffer[: self.out.piece_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been read."""
        self.out.take(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        """The peer writes no more; the other direction stays open."""
        self.out.take(Mark.END)
        return True

    def pause_writing(self) -> None:
        """The peer does not read."""
        self.into.pause_sink(True)

    def resume_writing(self) -> None:
        """The peer reads again."""
        self.into.pause_sink(False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's
        """The socket is closed, by us or by a reset."""
        self._connection.lost(self)

    def reset(self) -> None:
        """Close with a RST, and drop what has not been read."""
        if self.transport is not None and not self.transport.is_closing():
            peer = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self.transport.abort()


class Connection:
    """Joins a client's end to an upstream's.

    connect   reaches the upstream with the given end, when the network has taken its time
    closed    told once when both ends are gone
    """

    def __init__(
        self,
        up: Pipe,
        down: Pipe,
        connect: Callable[[End], Awaitable[None]],
        closed: Callable[["Connection"], None],
    ) -> None:
        self.up = up
        self.down = down
        self.client = End(self, out=up, into=down)
        self.server = End(self, out=down, into=up)
        self._connect = connect
        self._closed = closed
        self._connecting: asyncio.Task[None] | None = None
        self._open: set[End] = set()
        self._ended: set[End] = set()  # those that have been told that no more comes

    @property
    def receiver(self) -> socket.socket | None:
        """The socket on which the client is heard, while there is one."""
        transport = self.client.transport
        return None if transport is None or transport.is_closing() else transport.get_extra_info("socket")

    def opened(self, end: End) -> None:
        """For an end: its socket is open. The client's is first."""
        self._open.add(end)
        if end is self.client:
            self._connecting = asyncio.create_task(self._reach())
            return
        for sink in (self.server, self.client):
            assert sink.transport is not None
            sink.into.open(sink.transport, partial(self._mark, sink))

    def lost(self, end: End) -> None:
        """For an end: its socket is closed."""
        self._open.discard(end)
        end.into.drop()
        if not self._open:
            if self._connecting is not None:
                self._connecting.cancel()  # the client did not wait for the upstream
            self._closed(self)
        elif len(self._ended) < 2:
            end.out.take(Mark.RESET)

    def reset(self) -> None:
        """End it at once, on both sides."""
        for end in list(self._open):
            end.reset()

    async def _reach(self) -> None:
        try:
            await self._connect(self.server)
        except OSError:
            self.client.reset()  # too late to refuse: the kernel has accepted

    def _mark(self, sink: End, mark: Mark) -> None:
        assert sink.transport is not None
        if mark is Mark.RESET:
            sink.reset()
            return
        self._ended.add(sink)
        if not sink.transport.is_closing():
            # It may have been reset since the loop looked last.
            with suppress(OSError):
                sink.transport.write_eof()
        if len(self._ended) == 2:
            for end in self._open:
                assert end.transport is not None
                end.transport.close()
