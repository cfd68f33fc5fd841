"""Where a prompt was prefilled: the slot is saved, and sent to where it is needed."""

import mmap
import os
import ssl
from asyncio import timeout
from pathlib import Path

from tidegate.clock import Clock
from tidegate.config.address import Address, parse_address
from tidegate.courier.admission import Admission
from tidegate.courier.engine import Engine, same
from tidegate.courier.folder import Folder
from tidegate.courier.refusal import EXPIRED, RefusalError
from tidegate.courier.send import Sent, send
from tidegate.wire.blob import BlobError, Declared, head_bytes, tokens_of
from tidegate.wire.courier import Ship, Shipped, Why
from tidegate.wire.ticket import LIFE_S_MAX, Ticket


class Source:
    """Ships slots of one engine."""

    def __init__(
        self, name: str, engine: Engine, folder: Folder, admission: Admission, clock: Clock, tls: ssl.SSLContext
    ) -> None:
        self._name = name
        self._engine = engine
        self._folder = folder
        self._admission = admission
        self._clock = clock
        self._tls = tls

    async def ship(self, asked: Ship) -> Shipped:
        """Save, send, and remove what was saved. Raises `RefusalError`, also where the ticket expires meanwhile."""
        now_s = self._clock.now_s()
        ticket = self._admission.read(asked.ticket, now_s)
        if ticket.source != self._name:
            raise RefusalError(Why.TICKET, "the ticket is for blobs of another courier")
        to = _address(asked.to)
        with self._admission.transfer():
            # What is in the slot may be half as large as the ticket grants, and then fits where that would not.
            name, sent = self._folder.reserve_for(ticket.bytes_max), Sent()
            try:
                async with timeout(ticket.expires_s - now_s):
                    return await self._ship(asked, ticket, to, name, sent)
            except TimeoutError as error:
                raise RefusalError(Why.TIMEOUT, EXPIRED, sent.size_bytes) from error
            except RefusalError as refusal:
                refusal.sent_bytes = sent.size_bytes
                raise
            finally:
                self._folder.release(name)

    async def _ship(self, asked: Ship, ticket: Ticket, to: Address, name: str, sent: Sent) -> Shipped:
        began_s = self._clock.now_s()
        look = await self._engine.look()
        same(look, ticket.fingerprint)
        if asked.slot >= look.kv.slots:  # which the engine does not check
            raise RefusalError(Why.BAD_REQUEST, f"there is no slot {asked.slot}")
        try:
            saved = await self._engine.save(asked.slot, name, LIFE_S_MAX)
        except BaseException:
            self._folder.give_up(name)
            raise
        saved_s = self._clock.now_s()
        if saved.n_saved != asked.tokens:
            raise RefusalError(Why.CHANGED, f"the slot holds {saved.n_saved} tokens, not {asked.tokens}")
        # Whoever still knows it afterwards, as errors know what went wrong with it, has none of its memory.
        with _taken_out(self._folder.at(name)) as blob:
            size_bytes = len(blob)
            if size_bytes != saved.n_written:
                raise RefusalError(Why.CORRUPT, "the engine has not written the whole slot")
            if size_bytes > ticket.bytes_max:
                raise RefusalError(Why.TOO_LARGE, f"the blob has {size_bytes} bytes, and the ticket is for fewer")
            self._folder.comes_to(name, size_bytes)
            tokens, digest = _tokens_of(blob, asked.tokens)
            declared = Declared(
                size_bytes=size_bytes, tokens=tokens, tokens_digest=digest, fingerprint=ticket.fingerprint
            )
            received = await send(blob, declared, asked.ticket, to, ticket.target, self._tls, sent)
        return Shipped(
            name=received,
            tokens=tokens,
            size_bytes=size_bytes,
            save_s=saved_s - began_s,
            transfer_s=self._clock.now_s() - saved_s,
        )


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise RefusalError(Why.BAD_REQUEST, f"`to`: {error}") from error


def _taken_out(path: Path) -> memoryview:
    """What the engine has written, and no file any more: it is gone when nobody looks at it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        path.unlink()
    except OSError as error:
        raise RefusalError(Why.ENGINE, "the engine saves into another folder than this courier's") from error
    try:
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    except ValueError as error:
        raise RefusalError(Why.CORRUPT, "the engine has written nothing") from error
    finally:
        os.close(fd)


def _tokens_of(blob: memoryview, tokens: int) -> tuple[int, str]:
    try:
        found, digest = tokens_of(bytes(blob[: head_bytes(tokens)]))
    except BlobError as error:
        raise RefusalError(Why.ENGINE, str(error)) from error
    if found != tokens:
        raise RefusalError(Why.CHANGED, "the slot holds other tokens than the engine said")
    return found, digest
