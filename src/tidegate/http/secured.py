"""TLS to an upstream, between its connection's plain transport and whoever reads and writes there.

Of our own, since the loop's lets nobody beside it read what has come (`lanes` does, of streams that flow), and tells of
what is still to be sent only what it has not encrypted yet. OpenSSL does all that is TLS, in memory (`ssl.MemoryBIO`);
what is here carries bytes to it and from it.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Final, cast

# The plain text of a TLS record has no more: so much at a time leaves nothing of one behind that was decrypted.
RECORD_BYTES: Final = 16 * 1024


class Secured(asyncio.Transport, asyncio.Protocol):
    """The transport of the protocol `above`, which hears of it once the handshake is done (`opened`), and the protocol
    of the connection below.

    What was not decrypted yet when it is paused is decrypted later. Where a connection ends that did not say so by TLS,
    that is no end of an answer: anybody may have cut it off.
    """

    def __init__(self, above: asyncio.Protocol, context: ssl.SSLContext, server_name: str | None) -> None:
        super().__init__()
        self.incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self._outgoing, server_hostname=server_name)
        self._above = above
        self._below: asyncio.Transport
        self._paused = self._is_over = False
        self._fault: Exception | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ------------------------------------------------------------------ the transport below calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._below = cast("asyncio.Transport", transport)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, or decrypt."""
        self.incoming.write(data)
        if not self.opened.done():
            self._shake_hands()
            # What came with the end of the handshake waits for no more to come.
            if not (self.opened.done() and self.incoming.pending):
                return
        self.read()

    def eof_received(self) -> None:
        """It closes with that: what follows is `connection_lost`."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        error = self._fault or exc
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError("closed during the TLS handshake"))
            self.opened.exception()  # it may be that nobody waits any more, which is no error
        elif not self.opened.cancelled() and self.opened.exception() is None:
            self._above.connection_lost(error)

    # ------------------------------------------------------------------ the protocol above calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt all of it, and send that."""
        if not data or self._below.is_closing():
            return
        try:
            self.tls.write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """One after the other."""
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        """Say that nothing more comes; what was written is sent."""
        if not self._below.is_closing():
            try:
                self.tls.unwrap()
            except ssl.SSLError:  # it has not said the same yet, for which nobody waits
                self._flush()
            self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether it is, or was closed."""
        return self._below.is_closing()

    def is_reading(self) -> bool:
        """Whether what comes is handed over."""
        return not self._paused and self._below.is_reading()

    def pause_reading(self) -> None:
        """Hand nothing over; the connection is not read meanwhile."""
        self._paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what has come already first."""
        self._paused = False
        self._below.resume_reading()
        asyncio.get_running_loop().call_soon(self.read)

    def get_write_buffer_size(self) -> int:
        """Bytes that were not sent yet, encrypted."""
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """That of the connection below."""
        return self._below.get_extra_info(name, default)

    # ------------------------------------------------------------------ inside

    def read(self) -> None:
        """Decrypt what has come, and hand it over."""
        while not (self._paused or self._is_over or self._below.is_closing()):
            try:
                data = self.tls.read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not data:
                self._is_over = True
                self._above.eof_received()
                self.close()
                return
            self._above.data_received(data)
            if not self.incoming.pending:
                # Most that comes is whole records, and to find out that there is no more costs an exception.
                break
        # A new key is answered.
        if self._outgoing.pending:
            self._flush()

    def _shake_hands(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            # The other side is told what is wrong.
            self._flush()
            self._fault = error
            self._below.close()
        else:
            self._flush()
            self.opened.set_result(None)
            self._above.connection_made(self)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    def _fail(self, error: Exception) -> None:
        self._fault = error
        self._below.abort()
