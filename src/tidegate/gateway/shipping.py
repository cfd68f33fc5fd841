"""A request's prompt on its way: from the engine that has computed it to the one that is to decode."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from tidegate.core.model import Shipped, replace
from tidegate.engines.base import Failure
from tidegate.engines.courier import CourierError
from tidegate.gateway.couriers import Couriers
from tidegate.gateway.failures import GONE
from tidegate.gateway.slots import Slot
from tidegate.wire.courier import Why


class Listener(Protocol):
    """Who is told what became of it."""

    def shipped(self, fact: Shipped, seconds: float) -> None:
        """A KV cache has come, or will not, so many seconds after it was computed."""


class _UnderWay(msgspec.Struct):
    """From a slot that is not given to anybody else meanwhile."""

    target: str
    slot: Slot
    task: "asyncio.Task[None]"


class Shipping:
    """That of one request. At most one KV cache has come and waits to be used."""

    def __init__(self, couriers: Couriers, request_id: str, listener: Listener, now_s: Callable[[], float]) -> None:
        self._couriers, self._request_id, self._listener = couriers, request_id, listener
        self._now_s = now_s
        self._under_way: dict[str, _UnderWay] = {}
        # By the endpoint at which it is, under which name.
        self._here: dict[str, str] = {}

    def is_under_way(self, source: str) -> bool:
        """Whether something that was computed there is being sent."""
        return source in self._under_way

    def ship(self, source: str, target: str, slot: Slot, *, tokens: int, size_bytes: float) -> None:
        """Send what has been computed in a slot, whose prompt is `tokens` long; it is left once that is over."""
        work = self._ship(source, target, slot.number, tokens, size_bytes)
        self._under_way[source] = _UnderWay(target, slot, self._couriers.soon(work))

    def cancel(self, source: str, *, given_up: bool, cause: str) -> Shipped:
        """Nobody waits for it any more; the fact of that."""
        one = self._over(source)
        one.task.cancel()
        return Shipped(
            request_id=self._request_id,
            endpoint=source,
            target=one.target,
            ok=False,
            given_up=given_up,
            cause=cause,
        )

    def restore(self, target: str, slot: Slot, then: Callable[[Failure | None], None]) -> bool:
        """Put what has come there into a slot, and go on in any case: what is missing is computed. With a failure where
        nothing is there any more: then another endpoint may do better. False where nothing has come."""
        name = self._here.pop(target, None)
        if name is None:
            return False
        # Once it is asked for, it cannot be taken back: an engine reads it when it comes to that. So nobody else has
        # the slot before, though the request may be over.
        slot.take()
        self._couriers.soon(self._restore(target, name, slot, then))
        return True

    def close(self) -> None:
        """The request is over: what was not used is of no use."""
        for target, name in self._here.items():
            self._couriers.discard(target, name)
        self._here.clear()

    async def _ship(self, source: str, target: str, slot: int, tokens: int, size_bytes: float) -> None:
        began_s = self._now_s()
        fact = Shipped(request_id=self._request_id, endpoint=source, target=target)
        try:
            told = await self._couriers.ship(source, target, slot=slot, tokens=tokens, size_bytes=size_bytes)
        except CourierError as error:
            fact = replace(fact, kv_bytes=error.sent_bytes, ok=False, given_up=error.ours, cause=error.why.value)
        else:
            self._here[target] = told.name
            fact = replace(
                fact,
                kv_bytes=told.size_bytes,
                left_bytes=told.size_bytes,
                seconds=told.save_s + told.transfer_s,
            )
        self._over(source)
        self._listener.shipped(fact, self._now_s() - began_s)

    async def _restore(self, target: str, name: str, slot: Slot, then: Callable[[Failure | None], None]) -> None:
        failure: Failure | None = None
        try:
            await self._couriers.restore(target, name, slot.number)
        except CourierError as error:
            # That anything else was of no use, the answer's cached tokens tell: an engine may yet read it.
            failure = GONE if error.why is Why.GONE else None
        finally:
            slot.leave()
        then(failure)

    def _over(self, source: str) -> _UnderWay:
        one = self._under_way.pop(source)
        one.slot.leave()
        return one
