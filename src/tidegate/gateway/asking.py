"""How an endpoint is asked to do a step of a plan: in which of its slots, and in its own dialect."""

from msgspec import Raw

from tidegate.core.base import has_come
from tidegate.core.model import Request
from tidegate.engines.base import Failure, Outgoing, uncarried
from tidegate.gateway.dispatch import Dispatch
from tidegate.gateway.failures import NOT_SHIPPED
from tidegate.gateway.slots import Slot
from tidegate.gateway.upstream import Upstream
from tidegate.wire.alone import alone, fetching, in_slot, kept
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import Call


class Asking:
    """What is sent there.

    call       what is asked, as it is put to this engine, and `outgoing` the same in its dialect
    slot       in which it is computed; None where the engine chooses
    waits      somebody else is still in that slot
    fetches    the engine is told whence it gets the KV cache
    """

    __slots__ = ("call", "fetches", "outgoing", "slot", "waits")

    def __init__(self, call: Call, outgoing: Outgoing, slot: Slot | None, *, waits: bool, fetches: bool) -> None:
        self.call = call
        self.outgoing = outgoing
        self.slot = slot
        self.waits = waits
        self.fetches = fetches

    def leave(self) -> None:
        """Nothing is sent: whoever comes next may have the slot."""
        if self.slot is not None:
            self.slot.leave()


def asking(
    dispatch: Dispatch, upstream: Upstream, call: Call, request: Request, target: str, told: Raw | None
) -> Asking | Failure:
    """`call` as it is put to this endpoint: for a `target` the prompt alone; `told` whence it is fetched, if it is.

    The slot is taken. A failure where that endpoint cannot be asked.
    """
    endpoint, fetches = upstream.endpoint.name, upstream.dialect.fetches
    if upstream.asks_money and dispatch.spending.capped:
        call = call.as_known()
    slots = None if fetches else dispatch.slots_of(endpoint)
    slot: Slot | None = None
    waits = False
    if slots is not None:
        slot = slots.take(request.prefix, keep=target != "" or has_come(request.shipped, endpoint))
        waits = slot is None and not target
        if waits:
            slot = slots.awaited(request.prefix)
    if target and slot is None and not fetches:
        return NOT_SHIPPED
    call = kept(call) if fetches and target else fetching(call, told)
    if slot is not None:
        call = alone(call, slot.number) if target else in_slot(call, slot.number)
    try:
        outgoing = upstream.dialect.outgoing(call, upstream.called(request.model), upstream.headers)
    except BadRequest as refusal:
        # This engine's dialect cannot say what is asked, and the next one's may.
        if slot is not None:
            slot.leave()
        return uncarried(refusal)
    return Asking(call, outgoing, slot, waits=waits, fetches=told is not None)
