"""Chance by key: what one part of the world draws changes nothing of what another one draws."""

from hashlib import blake2b
from random import Random


class Chance:
    """Streams of random numbers, one for each key, all from one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = b"%d" % seed

    def at(self, *key: str | int) -> Random:
        """The stream of this key, from its beginning: the same key gives the same numbers."""
        # Not hash(): that of text differs from process to process.
        text = b"%b %b" % (self._seed, repr(key).encode())
        return Random(int.from_bytes(blake2b(text, digest_size=8).digest()))
