"""A KV blob on its way: what is declared of it, and what must be at its beginning.

llama.cpp writes a slot as: magic, version, how many words follow, these words, and the state itself. The words are the
slot's tokens between a frame of the server's: -1, 1, their number, and how many images stand among them.
"""

import struct
from hashlib import sha256
from typing import Annotated

import msgspec

from tidegate.wire.errors import UNREADABLE
from tidegate.wire.ticket import Bytes, Hex32

# Of BLAKE3 of the whole, which follows the blob: whoever sends it need not read it twice. It takes a quarter of what
# SHA-256 does where the processor has instructions for that.
DIGEST_BYTES = 32
TOKENS_MAX = 1 << 24  # no engine has a longer context
DECLARED_BYTES_MAX = 1024

_MAGIC, _VERSION = 0x67677371, 4
_NO_TOKEN, _FRAME = 0xFFFFFFFF, 1
_PREFIX = struct.Struct("<6I")
_WORD_BYTES = 4


class BlobError(Exception):
    """What is declared cannot be, or what came is not what was declared."""


class Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sender says of a blob before it sends it: its size, and a digest of the tokens that it holds."""

    size_bytes: Bytes
    tokens: Annotated[int, msgspec.Meta(ge=1, le=TOKENS_MAX)]
    tokens_digest: Hex32
    fingerprint: Hex32


def declared(text: bytes) -> Declared:
    """What such a header field says; raises `BlobError`."""
    if len(text) > DECLARED_BYTES_MAX:
        raise BlobError("what is declared of the blob is too long")
    try:
        return msgspec.json.decode(text, type=Declared)
    except UNREADABLE as error:
        raise BlobError("what is declared of the blob cannot be read") from error


def head_bytes(tokens: int) -> int:
    """How much of a blob `tokens_of` needs where it holds so many tokens."""
    return _PREFIX.size + (tokens + 1) * _WORD_BYTES


def tokens_of(head: bytes) -> tuple[int, str]:
    """How many tokens a blob that begins so holds, and their digest; raises `BlobError`.

    Text alone is taken: where there are images among the tokens, the count at their end is not zero.
    """
    if len(head) < _PREFIX.size:
        raise BlobError("the blob is too short")
    magic, version, words, no_token, frame, tokens = _PREFIX.unpack_from(head)
    if magic != _MAGIC:
        raise BlobError("the blob is no saved slot of llama.cpp")
    if version != _VERSION or (no_token, frame) != (_NO_TOKEN, _FRAME):
        raise BlobError(f"the blob is of another version of llama.cpp's: it writes {version}, known is {_VERSION}")
    if not 1 <= tokens <= TOKENS_MAX or words != tokens + 4 or len(head) < head_bytes(tokens):
        raise BlobError("the tokens of the blob are not as many as it says")
    listed = head[_PREFIX.size : _PREFIX.size + tokens * _WORD_BYTES]
    if head[_PREFIX.size + len(listed) :][:_WORD_BYTES] != bytes(_WORD_BYTES):
        raise BlobError("the blob holds more than text")
    return tokens, sha256(listed).hexdigest()
