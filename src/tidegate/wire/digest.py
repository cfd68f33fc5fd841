"""Salted digests, of a prompt's beginning and of a conversation's name: enough to recognise, not to read them."""

from hashlib import blake2b
from typing import Final

from xxhash import xxh3_64_intdigest

BLOCK_BYTES: Final = 1024
# 256 KiB, about 64k tokens: prompts that agree so far and differ later are as good as the same to a prefix cache.
BLOCKS_MAX: Final = 256
# Of ten thousand blocks that an endpoint is known to have, one prompt in 400,000 meets one by chance.
DIGEST_MASK: Final = 2**32 - 1
SALT_BYTES = 16
# Of ten thousand conversations no two meet by chance, and without the salt none by intent.
_SESSION_BYTES = 8


def prefix_digests(prompt: bytes | memoryview, salt: bytes, preamble: bytes | memoryview = b"") -> tuple[int, ...]:
    """One digest of 32 bits per whole block of 1 KiB, each of everything up to its end, at most the first 256.

    What two prompts share in digests from the first on, they share in bytes. A last, partial block has none: the next
    turn of a conversation would change it. `preamble` is what engines put before the prompt, the tools.
    The salt keeps digests of one installation from being looked up in another's; it is no secret against its holder.
    """
    assert len(salt) == SALT_BYTES
    digest = xxh3_64_intdigest(salt)
    if preamble:
        digest = xxh3_64_intdigest(preamble, digest)
    found = []
    for end in range(BLOCK_BYTES, min(len(prompt), BLOCK_BYTES * BLOCKS_MAX) + 1, BLOCK_BYTES):
        digest = xxh3_64_intdigest(prompt[end - BLOCK_BYTES : end], digest)
        found.append(digest & DIGEST_MASK)
    return tuple(found)


def session_digest(name: str, salt: bytes, key: str, model: str) -> str:
    """A conversation as one client's `key` names it, with one model: another client's is another one.

    The salt is the process's own, so a restart forgets which conversation is which.
    """
    assert len(salt) == SALT_BYTES
    # A name has no spaces, and neither has a key's id.
    return blake2b(f"{key} {name} {model}".encode(), key=salt, digest_size=_SESSION_BYTES).hexdigest()
