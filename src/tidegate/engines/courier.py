"""A courier, as the gateway asks it: one method for each of its verbs, and one error for whatever goes wrong.

The gateway signs a ticket, has a slot shipped, and has it restored; where any of that fails it runs the request as if
there were no couriers.
"""

from typing import TypeVar

import msgspec

from tidegate.http.client import Cause, Pool, TransportError, fetch
from tidegate.wire.courier import MESSAGE_BYTES_MAX, Health, Refused, Restore, Restored, Ship, Shipped, Why
from tidegate.wire.errors import UNREADABLE

_JSON = [(b"content-type", b"application/json")]
_T = TypeVar("_T", Health, Shipped, Restored)


class CourierError(Exception):
    """It was not done. `why` is the courier's reason, `peer` where it did not answer as one. `ours`: it was not even
    asked, for want of a file descriptor. `sent_bytes`: so much of a KV cache had been sent by then."""

    def __init__(self, why: Why, message: str, *, ours: bool = False, sent_bytes: int = 0) -> None:
        super().__init__(f"{why}: {message}")
        self.why, self.message, self.ours, self.sent_bytes = why, message, ours, sent_bytes


class CourierClient:
    """One courier behind a pool, whose TLS context shows the gateway's certificate (`MutualTls.client`)."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def health(self, timeout_s: float) -> Health:
        """What it and its engine are now. Raises `CourierError`, like all of these."""
        return _read(await self._ask(b"GET", b"/health", b"", timeout_s), Health)

    async def ship(self, asked: Ship, timeout_s: float) -> Shipped:
        """Have the source send what is in a slot. Where this is cancelled, the courier ends it."""
        return _read(await self._ask(b"POST", b"/v1/ship", msgspec.json.encode(asked), timeout_s), Shipped)

    async def restore(self, asked: Restore, timeout_s: float) -> Restored:
        """Have the target restore what it has received; the same."""
        return _read(await self._ask(b"POST", b"/v1/restore", msgspec.json.encode(asked), timeout_s), Restored)

    async def discard(self, name: str, timeout_s: float) -> None:
        """Have the target forget what it has received. What nobody asks for it forgets by itself, later."""
        await self._ask(b"DELETE", b"/v1/blobs/" + name.encode(), b"", timeout_s)

    async def _ask(self, method: bytes, target: bytes, body: bytes, timeout_s: float) -> bytes:
        try:
            status, _, said = await fetch(
                self._pool, method, target, _JSON if body else (), body, timeout_s, MESSAGE_BYTES_MAX
            )
        except TransportError as error:
            ours = error.cause is Cause.NO_DESCRIPTOR
            message = f"the courier at {self._pool.origin.url} does not answer: {error.cause}"
            raise CourierError(Why.PEER, message, ours=ours) from error
        if status in (200, 204):
            return said
        try:
            refused = msgspec.json.decode(said, type=Refused)
        except UNREADABLE as error:
            raise CourierError(Why.PEER, f"what answers there is no courier: status {status}") from error
        raise CourierError(refused.why, refused.message, sent_bytes=refused.sent_bytes)


def _read(said: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(said, type=kind)
    except UNREADABLE as error:
        raise CourierError(Why.PEER, "what answers there is no courier") from error
