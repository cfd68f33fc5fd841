"""The digest of the file that an engine says it serves."""

import asyncio
import hashlib
from pathlib import Path

from tidegate.courier.refusal import RefusalError
from tidegate.wire.courier import Why


class Weights:
    """Computes SHA-256, which is what is published of models, and again where the file is another."""

    def __init__(self, declared: str) -> None:
        """`declared` is believed in place of any file, where it is not empty."""
        self._declared = declared
        self._known: dict[tuple[str, int, int], str] = {}
        self._one_at_a_time = asyncio.Lock()

    async def of(self, path: str) -> str:
        """The digest, at once where the file is as it was. Raises `RefusalError`."""
        if self._declared:
            return self._declared
        async with self._one_at_a_time:
            try:
                seen = _seen(path)
                if seen not in self._known:
                    self._known = {seen: await asyncio.to_thread(_digest, path)}
            except OSError as error:
                raise RefusalError(
                    Why.ENGINE, f"the model's file cannot be read here ({error.strerror}); declare weights_sha256"
                ) from error
        return self._known[seen]


def _seen(path: str) -> tuple[str, int, int]:
    found = Path(path).stat()
    return path, found.st_size, found.st_mtime_ns


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
