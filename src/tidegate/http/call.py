"""One request to an upstream, as the layer above holds it."""

from typing import TYPE_CHECKING, Protocol

from tidegate.http.errors import TransportError
from tidegate.http.flow import Flow
from tidegate.http.upload import Upload

if TYPE_CHECKING:
    from tidegate.http.client import Pool
    from tidegate.http.link import Link


class Receiver(Protocol):
    """Who is told about a response.

    First `on_head`, then any number of `on_data`, then `on_end`; or `on_error` at any point. Exactly one of
    `on_end` and `on_error` comes, as the last, never from within `Pool.send`, and none after `Call.cancel`.
    """

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """The final response has begun. Names are in lower case; repeated fields are joined by ", "."""

    def on_data(self, data: bytes) -> None:
        """A piece of the body, as it came: one chunk, or part of one. Never empty."""

    def on_end(self) -> None:
        """The response is complete."""

    def on_error(self, error: TransportError) -> None:
        """There will be no more of it."""


class Call:
    """A request under way. Made by `Pool.send`."""

    __slots__ = (
        "_pool",
        "body",
        "deadline_s",
        "head",
        "idle_timeout_s",
        "link",
        "receiver",
        "retried",
        "sent",
        "upload",
    )

    def __init__(
        self,
        pool: "Pool",
        head: bytes,
        body: bytes,
        receiver: Receiver,
        deadline_s: float,
        idle_timeout_s: float,
    ) -> None:
        self._pool = pool
        self.head = head
        self.body = body
        # None once it has been told the end: it holds the call, and without the cycle memory is freed at once.
        self.receiver: Receiver | None = receiver
        self.deadline_s = deadline_s  # for the head of the response, whatever the call waits for
        self.idle_timeout_s = idle_timeout_s
        self.link: Link | None = None  # while a connection carries it
        self.sent = False  # whether one ever has that was not dead already
        self.retried = False
        self.upload: Upload | None = None  # times it, until the response begins

    def cancel(self) -> None:
        """Close the connection at once: that is how an inference engine learns that the client has left."""
        if self.receiver is not None:
            self.receiver = None
            self.uploaded()
            self._pool.cancel(self)

    def pause(self) -> None:
        """Stop reading the response, so that the upstream has to stop writing. Little may still arrive."""
        if self.link is not None:
            self.link.pause()

    def resume(self) -> None:
        """Read on."""
        if self.link is not None:
            self.link.resume()

    def let(self, flow: Flow | None) -> None:
        """Let `flow` have the chunks that it passes from now on; the receiver gets what is none of them."""
        if self.link is not None:
            self.link.flow = flow

    def uploaded(self) -> None:
        """For the link: no more of the request is to be timed."""
        upload, self.upload = self.upload, None
        if upload is not None:
            upload.end()

    def fail(self, error: TransportError) -> None:
        """For the pool and the link: there will be no more, unless it has ended already."""
        # It knows the receiver: without the cycle all are gone at once.
        self.uploaded()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.on_error(error)
