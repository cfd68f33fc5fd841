"""Which slot of a llama.cpp each request is computed in, where KV caches are sent from its slots or into them.

The engine chooses among its slots by itself, unless it is told. Where a slot is saved or restored, nobody else may be
put there meanwhile; so every request there is told its slot, and it is chosen as the engine would: the free one that
has most of the prompt, else the one that was used longest ago.
"""

import msgspec


class _Slot(msgspec.Struct):
    """What it holds: the digests of the blocks of a prompt's beginning. `used` counts on."""

    prefix: tuple[int, ...] = ()
    used: int = 0
    taken: bool = False


class Slots:
    """Those of one engine."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._slots = [_Slot() for _ in range(count)]
        self._used = 0

    def take(self, prefix: tuple[int, ...]) -> int | None:
        """The number of the one that is best for a prompt with this beginning, which has it from now on; None where
        all are taken: fail-over fills an engine beyond them."""
        free = [number for number, slot in enumerate(self._slots) if not slot.taken]
        if not free:
            return None
        best = min(free, key=lambda number: (-_common(prefix, self._slots[number].prefix), self._slots[number].used))
        self._used += 1
        slot = self._slots[best]
        slot.prefix, slot.used, slot.taken = prefix, self._used, True
        return best

    def leave(self, number: int) -> None:
        """Nobody computes there any more; what it has stays."""
        self._slots[number].taken = False


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many blocks they have in common. Each digest is of all up to its block's end, so the last one tells."""
    found = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        found += 1
    return found
