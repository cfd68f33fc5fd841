"""Which attempts teach how long things take: of hundreds of a kind that begin in a second, a few dozen tell as much as
all.
"""

from typing import Final
from zlib import crc32

import msgspec

from tidegate.core.calibration import WEIGHT_MAX

# Of a kind, corrections remember no more samples than that: of more in a second, most are forgotten within it.
TAUGHT_PER_S: Final = WEIGHT_MAX
_DRAWS: Final = 2.0**32


class Sampling(msgspec.Struct, gc=False):
    """How many attempts of a kind have `begun` in this `second`, and which `share` of them teaches."""

    second: int = 0
    begun: int = 0
    share: float = 1.0


def is_sampled(by_kind: dict[int, Sampling], kind: int, request_id: str, now_s: float) -> bool:
    """Whether an attempt that begins now teaches of times. Of a kind that comes at a steady rate about `TAUGHT_PER_S` a
    second do, by how many began in the second before; whoever comes after a quiet second does.

    A kind is what is corrected by itself: what is rare beside others teaches each time. Drawn by the request's id, so
    that it does not matter in which order those of one moment are told, nor what rhythm they come in.
    """
    sampling = by_kind.get(kind)
    if sampling is None:
        sampling = by_kind[kind] = Sampling()
    second = int(now_s)
    if second != sampling.second:
        begun = sampling.begun if second == sampling.second + 1 else 0
        sampling.share = TAUGHT_PER_S / begun if begun > TAUGHT_PER_S else 1.0
        sampling.second, sampling.begun = second, 0
    sampling.begun += 1
    return sampling.share >= 1.0 or crc32(request_id.encode()) < sampling.share * _DRAWS
