"""Where a prompt is needed: blobs are taken in, and restored once, or forgotten."""

from asyncio import sleep, timeout

from tidegate.clock import Clock
from tidegate.courier.admission import Admission
from tidegate.courier.engine import Engine, same
from tidegate.courier.folder import Folder, Held
from tidegate.courier.receive import receive
from tidegate.courier.refusal import RefusalError
from tidegate.http.server import Exchange
from tidegate.wire.blob import DIGEST_BYTES, BlobError, Declared, declared
from tidegate.wire.courier import Received, Restore, Restored, Why
from tidegate.wire.ticket import Ticket

RESTORE_S_MAX = 60.0  # it waits until the slot is idle; whoever asked has left long before, and then it ends, too


class Target:
    """Takes blobs in for one engine."""

    def __init__(self, name: str, engine: Engine, folder: Folder, admission: Admission, clock: Clock) -> None:
        self._name = name
        self._engine = engine
        self._folder = folder
        self._admission = admission
        self._clock = clock

    async def receive(self, exchange: Exchange) -> Received:
        """Take in the blob that the exchange brings. Raises `RefusalError`, and TimeoutError where the ticket expires.

        Nothing of it is read before all that is said of it is right, and the engine has been looked at.
        """
        now_s = self._clock.now_s()
        ticket = self._admission.read(exchange.headers.get(b"tidegate-ticket", b"").decode("latin-1"), now_s)
        if ticket.target != self._name or ticket.source not in exchange.peer_names:
            raise RefusalError(Why.TICKET, "the ticket is for another courier, or of another")
        told = _declared(exchange, ticket)
        self._admission.fresh(ticket, now_s)
        with self._admission.transfer():
            async with timeout(ticket.expires_s - now_s):
                look = await self._engine.look()
                same(look, ticket.fingerprint)
                if told.tokens >= look.slot_tokens_max:
                    raise RefusalError(Why.TOO_LARGE, "the blob has more tokens than a slot of this engine holds")
                await self._until(ticket.issued_s)
                self._admission.fresh(ticket, now_s)  # once more: another may have used it meanwhile
                name = self._folder.reserve(told.size_bytes)
                try:
                    self._admission.use(ticket, self._clock.now_s())
                    await receive(exchange, self._folder.at(name), told)
                    return self._hold(name, told, now_s)
                finally:
                    self._folder.release(name)

    async def _until(self, at_s: float) -> None:
        """Returns when it is that time here, where the gateway's clock is ahead.

        So what is used was issued before, and is older than the start of a process that has forgotten its use.
        """
        while (ahead_s := at_s - self._clock.now_s()) > 0.0:  # noqa: ASYNC110 - a clock tells nobody
            await sleep(ahead_s)

    def _hold(self, name: str, told: Declared, began_s: float) -> Received:
        now_s = self._clock.now_s()
        held = Held(size_bytes=told.size_bytes, tokens=told.tokens, fingerprint=told.fingerprint, since_s=now_s)
        return Received(
            name=self._folder.hold(name, held),
            tokens=told.tokens,
            size_bytes=told.size_bytes,
            transfer_s=now_s - began_s,
        )

    async def restore(self, asked: Restore) -> Restored:
        """Have the engine read a blob that was received. It is gone afterwards, also where this raises."""
        held = self._folder.claim(asked.name)
        try:
            look = await self._engine.look()
            same(look, held.fingerprint)
            if asked.slot >= look.kv.slots:  # which the engine does not check
                raise RefusalError(Why.BAD_REQUEST, f"there is no slot {asked.slot}")
            began_s = self._clock.now_s()
            read = await self._engine.restore(asked.slot, asked.name, RESTORE_S_MAX)
            if read != (held.tokens, held.size_bytes):
                raise RefusalError(Why.ENGINE, "the engine has read another number of tokens or bytes")
        finally:
            self._folder.release(asked.name)
        return Restored(tokens=held.tokens, size_bytes=held.size_bytes, restore_s=self._clock.now_s() - began_s)

    def discard(self, name: str) -> None:
        """Nobody needs that one."""
        self._folder.claim(name)
        self._folder.release(name)


def _declared(exchange: Exchange, ticket: Ticket) -> Declared:
    try:
        told = declared(exchange.headers.get(b"tidegate-blob", b""))
    except BlobError as error:
        raise RefusalError(Why.BAD_REQUEST, str(error)) from error
    if told.fingerprint != ticket.fingerprint:
        raise RefusalError(Why.FINGERPRINT, "the blob is of another model or shape than the ticket")
    if told.size_bytes > ticket.bytes_max:
        raise RefusalError(Why.TOO_LARGE, "the blob is larger than the ticket grants")
    # HTTP keeps to that number on both sides, so that a blob can be neither longer nor shorter.
    if exchange.headers.get(b"content-length") != b"%d" % (told.size_bytes + DIGEST_BYTES):
        raise RefusalError(Why.BAD_REQUEST, "the body has another length than the blob and its digest")
    return told
