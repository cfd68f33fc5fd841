"""Weights altered in place in a copy of a GGUF file: other quantisations of the same model, on the bits of Q4_1.

A Q4_1 block holds 32 weights as `d * q + m`: d and m are halves, then 16 bytes with two q of four bits each. What a
coarser format can say, Q4_1 can say too, so that neither the file's layout nor the engine's kernels change.
"""

import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

Q4_1 = 3
BLOCK_BYTES = 20
BLOCK_WEIGHTS = 32
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

Block = tuple[float, float, bytes]


class Gguf:
    """A whole file in memory: where its settings and its Q4_1 tensors stand."""

    def __init__(self, file: Path) -> None:
        self.data = bytearray(file.read_bytes())
        self._at = 8  # behind the magic and the version
        tensors, settings = self._read("Q"), self._read("Q")
        self.settings: dict[str, int] = {}
        align = 32
        for _ in range(settings):
            name, kind = self._text(), self._read("I")
            self.settings[name] = self._at
            value = self._value(kind)
            if name == "general.alignment":
                align = int(value or align)
        self.blocks: dict[str, tuple[int, int]] = {}
        found = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // align) * align
        for name, kind, offset, weights in found:
            if kind == Q4_1:
                self.blocks[name] = (start + offset, weights // BLOCK_WEIGHTS)

    def rewrite(self, change: Callable[[float, float, bytes], Block], name_has: str = "") -> None:
        """Put every block of the tensors whose name has this through `change`."""
        for name, (start, count) in self.blocks.items():
            if name_has in name:
                for at in range(start, start + count * BLOCK_BYTES, BLOCK_BYTES):
                    struct.pack_into("<ee16s", self.data, at, *change(*struct.unpack_from("<ee16s", self.data, at)))

    def scale(self, name: str, factor: float) -> None:
        """Multiply a setting that is a float."""
        at = self.settings[name]
        struct.pack_into("<f", self.data, at, factor * struct.unpack_from("<f", self.data, at)[0])

    def _read(self, form: str) -> int:
        (value,) = struct.unpack_from("<" + form, self.data, self._at)
        self._at += struct.calcsize("<" + form)
        return int(value)

    def _text(self) -> str:
        size = self._read("Q")
        self._at += size
        return self.data[self._at - size : self._at].decode()

    def _value(self, kind: int) -> int | None:
        if kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._read("I"), self._read("Q")
            for _ in range(count):
                self._value(inner)
        else:
            return self._read(_SCALARS[kind])
        return None

    def _tensor(self) -> tuple[str, int, int, int]:
        name, weights = self._text(), 1
        for _ in range(self._read("I")):
            weights *= self._read("Q")
        return name, self._read("I"), self._read("Q"), weights


def q4_0(d: float, m: float, qs: bytes) -> Block:
    """The block as Q4_0 has it: one scale, whose sixteen steps reach furthest on the side of the largest weight."""
    if d == 0.0:
        return d, m, qs
    zero = max(0, min(240, round(-m / d * 16)))  # where zero lies among the steps, in sixteenths
    scale, table = _q4_0(zero)
    return d * scale, -8.0 * d * scale, qs.translate(table)


@cache
def _q4_0(zero: int) -> tuple[float, bytes]:
    at = zero / 16
    scale = at / 8 if at > 7.5 else -(15 - at) / 8
    return scale, _table([max(0, min(15, round((q - at) / scale) + 8)) for q in range(16)])


def coarser(d: float, m: float, qs: bytes) -> Block:
    """Eight steps in place of sixteen: three bits."""
    return d * 15 / 7, m, qs.translate(_THREE_BITS)


def flipped(share: float) -> Callable[[float, float, bytes], Block]:
    """The lowest bit of two weights flips in this share of the blocks: what another rounding would do."""
    draw = Random(1)

    def change(d: float, m: float, qs: bytes) -> Block:
        return (d, m, bytes([qs[0] ^ 0x11]) + qs[1:]) if draw.random() < share else (d, m, qs)

    return change


def rounded(seed: int, file: Gguf) -> None:
    """The scale of one block moves by its last bit: the least that can change."""
    draw = Random(seed)
    start, count = file.blocks[draw.choice(sorted(name for name in file.blocks if name.startswith("blk.")))]
    at = start + BLOCK_BYTES * draw.randrange(count)
    (bits,) = struct.unpack_from("<H", file.data, at)
    struct.pack_into("<H", file.data, at, bits + 1)


def _table(steps: list[int]) -> bytes:
    return bytes(steps[byte & 15] | steps[byte >> 4] << 4 for byte in range(256))


_THREE_BITS = _table([round(q * 7 / 15) for q in range(16)])
