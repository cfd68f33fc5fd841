"""The couriers beside endpoints, as the gateway has them send KV caches: by a ticket for each."""

import asyncio
from collections.abc import Coroutine, Mapping
from os import urandom
from typing import Any

import msgspec

from tidegate.clock import Clock
from tidegate.config import build
from tidegate.engines.courier import CourierClient, CourierError
from tidegate.gateway.retiring import retire
from tidegate.http.client import Origin, Pool
from tidegate.telemetry.log import Log
from tidegate.wire import ticket
from tidegate.wire.courier import Restore, Ship, Shipped, Why
from tidegate.wire.ticket import LIFE_S_MAX, Ticket

# A courier is asked a few things at once, and answers within the time of a connection and a slot.
CONNECTIONS_MAX = 32
CONNECT_TIMEOUT_S = 5.0
RESTORE_TIMEOUT_S = 10.0
HEALTH_TIMEOUT_S = 5.0
# What an engine is, is asked again so often: another one is refused by its courier all the same.
KNOWN_S = 60.0
# A KV cache may be so much larger than is believed of it, and is still sent: what it is really is learned from that.
# No courier keeps room for all of that, but for what comes of it.
LARGER_MAX = 2.0
LARGER_BYTES = 16 * 1024 * 1024


class _Beside(msgspec.Struct):
    """A courier, and what its engine is, as told at `known_s`."""

    place: build.CourierPlace
    pool: Pool
    client: CourierClient
    fingerprint: str = ""
    known_s: float = 0.0


class Couriers:
    """Those beside the endpoints in force. Of a handover one KV cache is sent at a time, in the order of asking."""

    def __init__(self, settings: build.Couriers | None, clock: Clock, log: Log) -> None:
        """OSError or ValueError where a certificate cannot be read."""
        self._settings, self._clock, self._log = settings, clock, log
        self._tls = None if settings is None else settings.tls.client()
        self._beside: dict[str, _Beside] = {}
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}
        # Why the last one came to nothing, by its ends, until one arrives.
        self._failing: dict[tuple[str, str], Why] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, upstreams: Mapping[str, build.Upstream]) -> None:
        """These are in force now; what has changed is asked anew. What is under way goes on over its old connections,
        and what waits for its turn is sent by those in force then."""
        before, self._beside = self._beside, {}
        for name, settings in upstreams.items():
            place = settings.courier
            if place is None or self._tls is None:
                continue
            known = before.pop(name, None)
            if known is None or known.place != place:
                if known is not None:
                    self.soon(retire(known.pool))
                known = self._reached(place)
            self._beside[name] = known
        for gone in before.values():
            self.soon(retire(gone.pool))
        # Who waits for its turn keeps it, as long as both ends are there.
        self._turns = {ends: turn for ends, turn in self._turns.items() if all(end in self._beside for end in ends)}
        self._failing = {ends: why for ends, why in self._failing.items() if ends in self._turns}

    async def ship(self, source: str, target: str, *, slot: int, tokens: int, size_bytes: float) -> Shipped:
        """Send what is in a slot, of about so many bytes. CourierError where that does not come to anything, which is
        told where it did, or came to nothing for another reason, the time before."""
        try:
            shipped = await self._ship(source, target, slot, tokens, size_bytes)
        except CourierError as error:
            if not error.ours and self._failing.get((source, target)) is not error.why:
                self._failing[source, target] = error.why
                self._log.event(
                    "warning", "handover failed", endpoint=source, target=target, cause=error.why, reason=error.message
                )
            raise
        if self._failing.pop((source, target), None) is not None:
            self._log.event("info", "handover done again", endpoint=source, target=target)
        return shipped

    async def _ship(self, source: str, target: str, slot: int, tokens: int, size_bytes: float) -> Shipped:
        settings = self._settings
        if settings is None:
            raise CourierError(Why.PEER, "there is no courier any more")
        async with self._turns.setdefault((source, target), asyncio.Lock()):
            now_s = self._clock.now_s()
            fingerprint = await self._fingerprint(self._at(target), now_s)
            # Not before: a reload may have moved them meanwhile.
            here, there = self._at(source), self._at(target)
            granted = Ticket(
                id=urandom(16).hex(),
                source=here.place.name,
                target=there.place.name,
                fingerprint=fingerprint,
                bytes_max=int(LARGER_MAX * size_bytes) + LARGER_BYTES,
                issued_s=now_s,
                expires_s=now_s + LIFE_S_MAX,
            )
            asked = Ship(
                slot=slot,
                tokens=tokens,
                to=str(there.place.address),
                ticket=ticket.sign(granted, settings.secret.reveal()),
            )
            try:
                # Longer than the ticket is good for: the source tells why it was not sent, and how much was.
                return await here.client.ship(asked, LIFE_S_MAX + RESTORE_TIMEOUT_S)
            except CourierError as error:
                if error.why is Why.FINGERPRINT:
                    there.known_s = 0.0
                raise

    async def restore(self, target: str, name: str, slot: int) -> None:
        """Put what has come under this name into a slot. CourierError as above."""
        await self._at(target).client.restore(Restore(name=name, slot=slot), RESTORE_TIMEOUT_S)

    def discard(self, target: str, name: str) -> None:
        """Nobody needs what has come under this name. Where that is not heard, it goes by itself."""
        if (there := self._beside.get(target)) is not None:
            self.soon(self._discard(there.client, name))

    def soon(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task of its own, which is kept until it is over."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Let go of all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for beside in self._beside.values():
            await beside.pool.close()

    def _at(self, endpoint: str) -> _Beside:
        """The one beside it now."""
        found = self._beside.get(endpoint)
        if found is None:
            raise CourierError(Why.PEER, "there is no courier any more")
        return found

    async def _fingerprint(self, there: _Beside, now_s: float) -> str:
        if now_s - there.known_s > KNOWN_S:
            told = await there.client.health(HEALTH_TIMEOUT_S)
            if told.fingerprint is None:
                raise CourierError(Why.ENGINE, f"{there.place.name}: {told.reason or 'its engine does not answer'}")
            there.fingerprint, there.known_s = told.fingerprint, now_s
        return there.fingerprint

    def _reached(self, place: build.CourierPlace) -> _Beside:
        origin = Origin(place.address.host, place.address.port, self._tls, place.name)
        pool = Pool(origin, clock=self._clock, connections_max=CONNECTIONS_MAX, connect_timeout_s=CONNECT_TIMEOUT_S)
        return _Beside(place, pool, CourierClient(pool))

    @staticmethod
    async def _discard(client: CourierClient, name: str) -> None:
        try:
            await client.discard(name, RESTORE_TIMEOUT_S)
        except CourierError:
            # It expires there.
            return
