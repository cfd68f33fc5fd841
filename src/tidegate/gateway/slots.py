"""Which slot of a llama.cpp each request is computed in, where KV caches are sent from its slots or into them.

The engine chooses among its slots by itself, unless it is told. Where a slot is saved or restored, nobody else may be
put there meanwhile; so every request there is told its slot, and it is chosen as the engine would: the free one that
has most of the prompt, else the one that was used longest ago.
"""


class Slot:
    """One of them, and what it holds: the digests of the blocks of a prompt's beginning. `used` counts on.

    Who has taken it leaves it, whatever has become of the engine meanwhile. It is `kept` for a KV cache that is sent
    from it, or put into it.
    """

    __slots__ = ("_takers", "kept", "number", "prefix", "used")

    def __init__(self, number: int) -> None:
        self.number = number
        self.prefix: tuple[int, ...] = ()
        self.used = 0
        self.kept = False
        self._takers = 0

    @property
    def taken(self) -> bool:
        """Whether somebody has not left it yet."""
        return self._takers > 0

    def take(self) -> None:
        """Also for what is put into it, while whoever computes there may leave before that is over."""
        self._takers += 1

    def leave(self) -> None:
        """One of them computes there no more; what it has stays."""
        self._takers -= 1
        if not self._takers:
            self.kept = False


class Slots:
    """Those of one engine."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._slots = [Slot(number) for number in range(count)]
        self._used = 0

    def take(self, prefix: tuple[int, ...], *, keep: bool = False) -> Slot | None:
        """The one that is best for a prompt with this beginning, which has it from now on, and keeps it where its KV
        cache is sent or was; None where all are taken: fail-over fills an engine beyond them, and what is being sent
        has a slot that the engine takes for idle."""
        free = [slot for slot in self._slots if not slot.taken]
        if not free:
            return None
        best = min(free, key=lambda slot: (-_common(prefix, slot.prefix), slot.used))
        self._used += 1
        best.take()
        best.prefix, best.used, best.kept = prefix, self._used, keep
        return best

    def awaited(self, prefix: tuple[int, ...]) -> Slot | None:
        """Where all are taken and some are kept, the one of the others in which somebody more waits, with a prompt of
        this beginning: left to itself, the engine would put them where a KV cache is about to be saved or used. None
        where it may.

        Who waits there has it, too, from now on: nobody is put there before, though whoever has it now leaves it. What
        it holds when all have left is the prompt of who came last."""
        others = [slot for slot in self._slots if not slot.kept]
        if not others or len(others) == self.count:
            return None
        found = min(others, key=lambda slot: slot.used)
        self._used += 1
        found.take()
        found.prefix, found.used = prefix, self._used
        return found


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many blocks they have in common. Each digest is of all up to its block's end, so the last one tells."""
    found = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        found += 1
    return found
