"""The digest of the file that an engine says it serves."""

import asyncio
import hashlib
from pathlib import Path
from threading import Event

from tidegate.courier.refusal import RefusalError
from tidegate.wire.courier import Why

# Hashed in a millisecond: so soon a thread ends whose digest nobody waits for any more.
_PIECE_BYTES = 1024 * 1024
_Seen = tuple[str, int, int]


class Weights:
    """Computes SHA-256, which is what is published of models, and again where the file is another."""

    def __init__(self, declared: str) -> None:
        """`declared` is believed in place of any file, where it is not empty."""
        self._declared = declared
        self._known: dict[_Seen, str] = {}
        self._hashing: asyncio.Task[None] | None = None

    async def of(self, path: str) -> str:
        """The digest, at once where the file is as it was. Raises `RefusalError`.

        Who leaves before it is known finds it later: a large file takes longer than anybody waits.
        """
        if self._declared:
            return self._declared
        try:
            while (seen := _seen(path)) not in self._known:
                if self._hashing is None:
                    self._hashing = asyncio.create_task(self._hash(seen))
                # One file at a time: where that is another one, it comes first.
                await asyncio.shield(self._hashing)
        except OSError as error:
            raise RefusalError(
                Why.ENGINE, f"the model's file cannot be read here ({error.strerror}); declare weights_sha256"
            ) from error
        return self._known[seen]

    async def _hash(self, seen: _Seen) -> None:
        left = Event()
        try:
            self._known = {seen: await asyncio.to_thread(_digest, seen[0], left)}
        finally:
            # A process that is to end waits for its threads, and a large file takes minutes.
            left.set()
            self._hashing = None


def _seen(path: str) -> _Seen:
    found = Path(path).stat()
    return path, found.st_size, found.st_mtime_ns


def _digest(path: str, left: Event) -> str:
    """Of the whole file, unless everybody has `left`, who then does not care."""
    found = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        while not left.is_set() and (piece := file.read(_PIECE_BYTES)):
            found.update(piece)
    return found.hexdigest()
