"""A ticket: the gateway's word that one KV blob may go from one courier to another, once and soon.

Written as `PAYLOAD.MAC`, both in base64url: JSON, and its HMAC-SHA256 under the secret that the gateway and its
couriers share.
"""

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

import msgspec

from tidegate.wire.errors import UNREADABLE

TICKET_CHARS_MAX = 2048  # two names of hosts, two digests and three numbers take 600
LIFE_S_MAX = 600.0  # beyond, nobody waits for a prompt any more; and so long is remembered which ones were used
CLOCKS_APART_S_MAX = 5.0  # machines with NTP are milliseconds apart
BYTES_MAX = 1 << 40  # a terabyte is beyond any engine's memory
_DOMAIN = b"tidegate ticket 1\n"  # what else may be signed with the same secret is no ticket

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
# As in certificates, but in lower case.
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")]
Bytes = Annotated[int, msgspec.Meta(ge=1, le=BYTES_MAX)]
_Time = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]


class TicketError(Exception):
    """The text is no ticket, or not one of ours, or not for now. It never says what a good one would be."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is granted: one blob of at most `bytes_max`, made and taken by engines of this fingerprint."""

    id: Hex16
    source: Name
    target: Name
    fingerprint: Hex32
    bytes_max: Bytes
    issued_s: _Time
    expires_s: _Time


def sign(ticket: Ticket, secret: str) -> str:
    """The ticket in writing."""
    payload = urlsafe_b64encode(msgspec.json.encode(ticket)).rstrip(b"=")
    return f"{payload.decode()}.{_mac(payload, secret)}"


def verify(text: str, secret: str, now_s: float) -> Ticket:
    """The ticket that was signed with `secret` and is good at `now_s`; raises `TicketError` for anything else."""
    if len(text) > TICKET_CHARS_MAX or not text.isascii():
        raise TicketError("this is no ticket")
    payload, _, mac = text.partition(".")
    # Nothing of it is read before it is known who wrote it.
    if not hmac.compare_digest(mac, _mac(payload.encode(), secret)):
        raise TicketError("the ticket is not signed with the secret of this courier")
    try:
        ticket = msgspec.json.decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=Ticket)
    except (binascii.Error, *UNREADABLE) as error:
        raise TicketError("the ticket is signed, and not what this courier takes for one") from error
    if now_s >= ticket.expires_s:
        raise TicketError(f"the ticket expired {now_s - ticket.expires_s:.0f} s ago")
    if ticket.issued_s > now_s + CLOCKS_APART_S_MAX:
        raise TicketError(f"the ticket was issued {ticket.issued_s - now_s:.0f} s ahead of this courier's clock")
    if ticket.expires_s - ticket.issued_s > LIFE_S_MAX:
        raise TicketError(f"the ticket is good for more than {LIFE_S_MAX:g} s")
    return ticket


def _mac(payload: bytes, secret: str) -> str:
    return urlsafe_b64encode(hmac.digest(secret.encode(), _DOMAIN + payload, "sha256")).rstrip(b"=").decode()
