"""Every way in which a blob is not what it should be."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from blake3 import blake3

from tests.courier.harness import SECRET, Put, flipped
from tidegate.wire.courier import Why
from tidegate.wire.ticket import Ticket, sign


@dataclass(frozen=True)
class Spoilt:
    """One way. Without `why` its sender leaves, and is not answered. `twice`: the second time is refused."""

    name: str
    spoil: Callable[[Put], None]
    why: Why | None
    twice: bool = False

    async def refused(self, put: Put, port: int, tls: ssl.SSLContext) -> bool:
        """Send it, and whether it was refused for the right reason."""
        self.spoil(put)
        if self.twice:
            first, _ = await put.send(port, tls)
            if first != 201:
                return False
        status, refusal = await put.send(port, tls)
        if self.why is None:
            return status != 201
        return refusal is not None and refusal.why is self.why


def _middle(put: Put) -> None:
    put.blob = flipped(put.blob, len(put.blob) // 2)


def _head(put: Put) -> None:
    put.blob = flipped(put.blob, 24)


def _footer(put: Put) -> None:
    put.footer = flipped(put.footer, 31)


def _other_tokens(put: Put) -> None:
    """Whole, by its digest; not what was declared."""
    put.blob = flipped(put.blob, 24)
    put.footer = blake3(put.blob).digest()


def _other_magic(put: Put) -> None:
    put.blob = flipped(put.blob, 0)
    put.footer = blake3(put.blob).digest()


def _fewer_tokens(put: Put) -> None:
    put.declare(tokens=put.declared.tokens - 1)


def _cut(put: Put) -> None:
    put.blob, put.footer, put.leaves = put.blob[: len(put.blob) // 2], b"", True


def _cut_to_nothing(put: Put) -> None:
    put.blob, put.footer, put.leaves = b"", b"", True


def _shorter(put: Put) -> None:
    """A body that is complete for HTTP, and shorter than the blob that was declared."""
    put.blob = put.blob[:-1]
    put.content_length -= 1


def _longer(put: Put) -> None:
    put.blob += b"x"
    put.content_length += 1


def _too_large(put: Put) -> None:
    put.declare(size_bytes=(1 << 25) + 1)
    put.content_length = (1 << 25) + 33


def _fingerprint(put: Put) -> None:
    put.declare(fingerprint="0" * 64)


def _ticket_of_other_weights(put: Put) -> None:
    put.ticket = sign(_replaced(_ticket(put), fingerprint="0" * 64), SECRET).encode()
    put.declare(fingerprint="0" * 64)


def _forged(put: Put) -> None:
    put.ticket = sign(_ticket(put), "a" + SECRET).encode()


def _altered(put: Put) -> None:
    payload, _, mac = put.ticket.partition(b".")
    put.ticket = flipped(payload, len(payload) // 2) + b"." + mac


def _no_ticket(put: Put) -> None:
    put.ticket = b""


def _expired(put: Put) -> None:
    ticket = _ticket(put)
    put.ticket = sign(_replaced(ticket, expires_s=ticket.issued_s - 1.0), SECRET).encode()


def _endless(put: Put) -> None:
    ticket = _ticket(put)
    put.ticket = sign(_replaced(ticket, expires_s=ticket.issued_s + 86_400.0), SECRET).encode()


def _for_another(put: Put) -> None:
    put.ticket = sign(_replaced(_ticket(put), target="a"), SECRET).encode()


def _as_it_is(put: Put) -> None:
    pass


def _ticket(put: Put) -> Ticket:
    return put.granted


def _replaced(ticket: Ticket, **fields: Any) -> Ticket:
    return msgspec.structs.replace(ticket, **fields)


SPOILT = (
    Spoilt("corrupted in the middle", _middle, Why.CORRUPT),
    Spoilt("corrupted in its head", _head, Why.CORRUPT),
    Spoilt("corrupted in its digest", _footer, Why.CORRUPT),
    Spoilt("of other tokens", _other_tokens, Why.CORRUPT),
    Spoilt("of another kind", _other_magic, Why.CORRUPT),
    Spoilt("of fewer tokens than it holds", _fewer_tokens, Why.CORRUPT),
    Spoilt("truncated", _cut, None),
    Spoilt("truncated to nothing", _cut_to_nothing, None),
    Spoilt("shorter than declared", _shorter, Why.BAD_REQUEST),
    Spoilt("longer than declared", _longer, Why.BAD_REQUEST),
    Spoilt("oversized", _too_large, Why.TOO_LARGE),
    Spoilt("of another fingerprint", _fingerprint, Why.FINGERPRINT),
    Spoilt("of other weights by its ticket", _ticket_of_other_weights, Why.FINGERPRINT),
    Spoilt("with a forged ticket", _forged, Why.TICKET),
    Spoilt("with an altered ticket", _altered, Why.TICKET),
    Spoilt("without a ticket", _no_ticket, Why.TICKET),
    Spoilt("with an expired ticket", _expired, Why.TICKET),
    Spoilt("with a ticket for ever", _endless, Why.TICKET),
    Spoilt("with a ticket for another courier", _for_another, Why.TICKET),
    Spoilt("replayed", _as_it_is, Why.REPLAYED, twice=True),
)
