"""TLS to an upstream, between its connection's plain transport and whoever reads and writes there.

Of our own, since the loop's lets nobody beside it read what has come (`lanes` does, of streams that flow), and tells of
what is still to be sent only what it has not encrypted yet. OpenSSL does all that is TLS, in memory (`ssl.MemoryBIO`);
what is here carries bytes to it and from it.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from tidegate.clock import Clock

if TYPE_CHECKING:
    from tidegate.http.link import Link

# The plain text of a TLS record has no more: so much at a time leaves nothing of one behind that was decrypted.
RECORD_BYTES: Final = 16 * 1024
# So much is encrypted at a time: OpenSSL keeps the memory that this took for as long as the connection is there.
_WRITE_BYTES: Final = 256 * 1024
# For so long a server need not show its certificate again.
RESUMED_S_MAX: Final = 3600.0


class Resumption:
    """What later connections to a server begin with: a session it has given, by which both know each other.

    That spares the certificate and its check, a third of what a handshake takes of our core, and with TLS 1.2 a round
    trip. One session for all of them: that they come from one client is no secret from who has our key. A server that
    takes none twice, or no longer, shows its certificate, and gives another.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._session: ssl.SSLSession | None = None
        self._given_s = 0.0

    @property
    def session(self) -> ssl.SSLSession | None:
        """That, as long as it may be used."""
        return self._session if self._clock.now_s() - self._given_s < RESUMED_S_MAX else None

    def keep(self, tls: ssl.SSLObject) -> None:
        """The session of a connection whose certificate was checked, once something was read there: since TLS 1.3
        sessions are given after the handshake."""
        self._session, self._given_s = tls.session, self._clock.now_s()

    def forget(self, session: ssl.SSLSession | None) -> None:
        """It was offered, and nothing came of that."""
        if self._session is session:
            self._session = None


class Secured(asyncio.Transport, asyncio.Protocol):
    """The transport of the link `above`, which is made once the handshake is done (`opened`), and the protocol of the
    connection below.

    What was not decrypted yet when it is paused is decrypted later. Where a connection ends that did not say so by TLS,
    that is no end of an answer: anybody may have cut it off.
    """

    def __init__(
        self,
        make: "Callable[[], Link]",
        context: ssl.SSLContext,
        server_name: str | None,
        resumption: Resumption,
        resumes: bool,
    ) -> None:
        """Unless it `resumes`, it goes without a session, but keeps its own for others."""
        super().__init__()
        # What has come and what is to be sent, encrypted.
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)
        self.offered = resumption.session if resumes else None
        if self.offered is not None:
            self.tls.session = self.offered
        # None where the session of this one is not to be kept, or is.
        self._resumption: Resumption | None = resumption
        self._make = make
        # None, too, when all is over: it knows this, and without the cycle both are gone at once.
        self.above: Link | None = None
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
        if self.opened.cancelled():
            return
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
        above, self.above = self.above, None
        error, self._fault = self._fault or exc, None
        if above is not None:
            above.connection_lost(error)
        elif not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError("closed during the TLS handshake"))
            self.opened.exception()  # it may be that nobody waits any more, which is no error

    # ------------------------------------------------------------------ the protocol above calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt all of it, and send that."""
        whole = memoryview(data)
        for at in range(0, len(whole), _WRITE_BYTES):
            if self._below.is_closing():
                return
            try:
                self.tls.write(whole[at : at + _WRITE_BYTES])
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
            with suppress(ssl.SSLError):  # the other side has not said the same yet, for which nobody waits
                self.tls.unwrap()
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
        asyncio.get_running_loop().call_soon(self._go_on)

    def get_write_buffer_size(self) -> int:
        """Bytes that were not sent yet, encrypted."""
        return self._below.get_write_buffer_size()

    @property
    def has_more(self) -> bool:
        """Whether something has come that was not handed over."""
        return self.incoming.pending > 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """That of the connection below."""
        return self._below.get_extra_info(name, default)

    # ------------------------------------------------------------------ inside

    def read(self) -> None:
        """Decrypt what has come, and hand it over."""
        above = self.above
        while above is not None and not (self._paused or self._is_over or self._below.is_closing()):
            try:
                data = self.tls.read(RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not data:
                self._is_over = True
                above.eof_received()
                # Who will hear no more may never read what is still to be sent.
                if self._below.get_write_buffer_size():
                    self.abort()
                else:
                    self.close()
                return
            if (resumption := self._resumption) is not None:
                self._resumption = None
                resumption.keep(self.tls)
            above.data_received(data)
            if not self.incoming.pending:
                # Most that comes is whole records, and to find out that there is no more costs an exception.
                break
        # A new key is answered.
        self._flush()

    def _go_on(self) -> None:
        """Read what has come while it was paused. As loops do it: whose reading fails has lost its connection."""
        try:
            self.read()
        except Exception:
            self.abort()
            raise

    def _shake_hands(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            # The other side is told what is wrong.
            self._flush()
            self._fault = error.with_traceback(None)  # it would know this
            self._below.close()
        else:
            self._flush()
            if self.tls.session_reused:
                self._resumption = None
            self.above = self._make()
            self.above.connection_made(self)
            self.opened.set_result(None)

    def _flush(self) -> None:
        if self.outgoing.pending:
            self._below.write(self.outgoing.read())

    def _fail(self, error: Exception) -> None:
        self._fault = error.with_traceback(None)
        self._below.abort()
