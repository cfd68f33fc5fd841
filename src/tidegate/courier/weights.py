"""The digest of the files that an engine serves, which names the first of them."""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from tidegate.courier.refusal import RefusalError
from tidegate.wire.courier import Why

# Hashed in a millisecond: so soon a thread ends whose digest nobody waits for any more.
_PIECE_BYTES = 1024 * 1024
# A gigabyte is read by then. Whoever asks waits for a few seconds, and then does not learn why.
WAIT_S_MAX = 1.0
# llama.cpp serves a split model by the first of its files alone, and finds the others by its name.
_SPLIT = re.compile(r"(.*-)00001(-of-([0-9]{5})\.gguf)", re.DOTALL)
_Seen = tuple[tuple[str, int, int], ...]


class Weights:
    """Computes SHA-256, which is what is published of models, and again where a file is another.

    A model in several files has that of all of them, one after the other.
    """

    def __init__(self, declared: str) -> None:
        """`declared` is believed in place of any file, where it is not empty."""
        self._declared = declared
        self._known: dict[_Seen, str] = {}
        self._hashing: asyncio.Task[None] | None = None

    async def of(self, path: str) -> str:
        """The digest, at once where the files are as they were. Raises `RefusalError`, also while they are being read.

        Who is refused or leaves before it is known finds it later: a large file takes longer than anybody waits. That
        it could not be read is told to who asks next, and then it is tried again.
        """
        if self._declared:
            return self._declared
        try:
            while (seen := _seen(path)) not in self._known:
                if self._hashing is None:
                    self._hashing = asyncio.create_task(self._hash(seen))
                # One model at a time: where that is another one, it comes first.
                await self._hashed(self._hashing)
        except OSError as error:
            name = Path(error.filename or path).name
            raise RefusalError(
                Why.ENGINE, f"the model's file {name} cannot be read here ({error.strerror}); declare weights_sha256"
            ) from error
        return self._known[seen]

    async def _hashed(self, hashing: "asyncio.Task[None]") -> None:
        await asyncio.wait([hashing], timeout=WAIT_S_MAX)
        if not hashing.done():
            raise RefusalError(Why.ENGINE, "the model's file is being read for its digest")
        if self._hashing is hashing:
            self._hashing = None
        await hashing

    async def _hash(self, seen: _Seen) -> None:
        left = Event()
        try:
            self._known = {seen: await asyncio.to_thread(_digest, [path for path, _, _ in seen], left)}
        finally:
            # A process that is to end waits for its threads, and a large file takes minutes.
            left.set()


def _seen(path: str) -> _Seen:
    found = [(part, Path(part).stat()) for part in _parts(path)]
    return tuple((part, status.st_size, status.st_mtime_ns) for part, status in found)


def _parts(path: str) -> list[str]:
    """All files of the model, in order."""
    split = _SPLIT.fullmatch(path)
    if split is None:
        return [path]
    before, after, count = split.groups()
    return [f"{before}{n:05d}{after}" for n in range(1, int(count) + 1)] or [path]


def _digest(paths: Sequence[str], left: Event) -> str:
    """Of all that the files hold, unless everybody has `left`, who then does not care."""
    found = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb", buffering=0) as file:
            while not left.is_set() and (piece := file.read(_PIECE_BYTES)):
                found.update(piece)
    return found.hexdigest()
