"""Which attempts teach how long things take, and answers how long they are: of hundreds of a kind in a second, a few
dozen tell as much as all.
"""

from typing import Final
from zlib import crc32

from tidegate.core.calibration import WEIGHT_MAX
from tidegate.core.counts import Sampling

# Of a kind, corrections remember no more samples than that: of more in a second, most are forgotten within it.
TAUGHT_PER_S: Final = WEIGHT_MAX
_DRAWS: Final = 2.0**32


def stands_for(by_kind: dict[int, Sampling], kind: int, request_id: str, now_s: float) -> float:
    """For how many of its kind this one teaches; 0 where others do for it. Of a kind that comes at a steady rate about
    `TAUGHT_PER_S` a second do, by how many there were in the second before; whoever comes after a quiet second does,
    for itself.

    A kind is what is corrected by itself: what is rare beside others teaches each time. Drawn by the request's id, so
    that it does not matter in which order those of one moment are told, nor what rhythm they come in.
    """
    sampling = by_kind.get(kind)
    if sampling is None:
        sampling = by_kind[kind] = Sampling()
    second = int(now_s)
    if second != sampling.second:
        before = sampling.count if second == sampling.second + 1 else 0
        sampling.share = TAUGHT_PER_S / before if before > TAUGHT_PER_S else 1.0
        sampling.second, sampling.count = second, 0
    sampling.count += 1
    share = sampling.share
    if share >= 1.0:
        return 1.0
    return 1.0 / share if crc32(request_id.encode()) < share * _DRAWS else 0.0
