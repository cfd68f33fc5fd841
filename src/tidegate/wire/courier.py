"""What gateways and couriers say to each other, as JSON over HTTP with mutual TLS.

    GET    /health         -> Health
    POST   /v1/ship        Ship -> Shipped       asked of the source, by the gateway
    PUT    /v1/blobs       the blob -> Received  asked of the target, by the source, with a ticket of the gateway's
    POST   /v1/restore     Restore -> Restored   asked of the target, by the gateway
    DELETE /v1/blobs/NAME                        the same; for a blob that nobody needs any more

Whoever is refused is told `Refused`, whose `why` is one of a few.
"""

from enum import StrEnum
from hashlib import blake2b
from typing import Annotated

import msgspec

from tidegate.wire.ticket import BYTES_MAX, TICKET_CHARS_MAX, Bytes, Hex16

MESSAGE_BYTES_MAX = 16 * 1024  # a ticket and some numbers

Slot = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]


class Why(StrEnum):
    """Why a courier does not do what it is asked, by what the asker can do about it."""

    BAD_REQUEST = "bad_request"  # nothing; a programmer's error
    FORBIDDEN = "forbidden"  # the certificate is not of who may ask that
    TICKET = "ticket"  # not ours, not for this courier, expired
    REPLAYED = "replayed"  # this ticket has had its blob
    FINGERPRINT = "fingerprint"  # another model, shape or build than the ticket is for
    TOO_LARGE = "too_large"  # more bytes than the ticket grants, or more tokens than a slot holds
    FULL = "full"  # no room, or too many transfers at once: later, or a plain run
    CORRUPT = "corrupt"  # what came is not what was declared; nothing of it was kept
    CHANGED = "changed"  # the slot holds another prompt by now
    GONE = "gone"  # there is no such blob, any more or ever
    ENGINE = "engine"  # the engine does not answer, or refuses
    PEER = "peer"  # the other courier cannot be reached, or refuses
    TIMEOUT = "timeout"  # the ticket expired on the way


class KvFingerprint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What must agree for a slot that one engine saved to be restored by another.

    `unified`: slots share one cache. `arguments`: whatever else its operator says that it computes by. The number of
    tokens of a slot need not agree: what does not fit is refused.
    """

    weights: str
    kv_type_k: str
    kv_type_v: str
    flash_attention: bool
    slots: int
    unified: bool
    arguments: str = ""
    build: str

    @property
    def digest(self) -> str:
        """How tickets and blobs tell it."""
        return blake2b(msgspec.json.encode(self, order="deterministic"), digest_size=32).hexdigest()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a courier tells of itself. Without a fingerprint there is a `reason` why nothing can be handed over."""

    name: str
    fingerprint: str | None
    kv: KvFingerprint | None
    slot_tokens_max: int
    space_bytes: int
    free_bytes: int
    reason: str = ""


class Ship(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Send what is in `slot`, which is `tokens` long, to the courier at `to` (`host:port`)."""

    slot: Slot
    tokens: Annotated[int, msgspec.Meta(ge=1)]
    to: Annotated[str, msgspec.Meta(max_length=300)]
    ticket: Annotated[str, msgspec.Meta(max_length=TICKET_CHARS_MAX)]


class Shipped(msgspec.Struct, frozen=True, kw_only=True):
    """It is there, verified, and the target calls it `name`."""

    name: Hex16
    tokens: int
    size_bytes: Bytes
    save_s: float
    transfer_s: float


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """It is here and verified, and so many seconds after it was announced."""

    name: Hex16
    tokens: int
    size_bytes: Bytes
    transfer_s: float


class Restore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Put that blob into `slot`. Whatever comes of it, the blob is gone afterwards."""

    name: Hex16
    slot: Slot


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The slot holds so many tokens now. Whether that is of use, the next answer's cached tokens tell."""

    tokens: int
    size_bytes: Bytes
    restore_s: float


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why not. The message is for people, and has nothing of a prompt or a secret in it. `sent_bytes`: so much of a
    blob had left the source by then, which somebody may have to pay for."""

    why: Why
    message: str
    sent_bytes: Annotated[int, msgspec.Meta(ge=0, le=BYTES_MAX)] = 0
