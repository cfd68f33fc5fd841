"""Online regression: how much each part of a predicted time really takes, no part less than nothing.

A prediction is a sum of parts, each in the seconds that are believed of it at first: a prompt's tokens, what is queued
before it, contexts that are read. What is learned is one factor for each. All that is remembered are decayed sums of
products, so samples have no order, and what two have learned adds up.
"""

from collections.abc import Collection
from math import pow
from typing import Final

import msgspec

# Sums forget by time: half of them in an hour, which is long against a burst and short against a day's cycle.
HALF_LIFE_S: Final = 3600.0
# And by number: ten samples for each of a dozen parts, so that a change shows within as many requests.
WEIGHT_MAX: Final = 128.0
# A time that is more than so many times what was predicted is taken as so many: one stall is not what work takes.
RATIO_MAX: Final = 2.0
# Factors are found anew when a tenth of the sums is new: the corrections follow at once in between.
DUE_SHARE: Final = 0.1
# How far parts of one engine are off from each other, as a share of how far all of them are off.
SHAPE_SIGMA: Final = 0.5
# What is unknown of a part that nobody declared, against one that was.
UNKNOWN_SIGMA: Final = 0.5
# Of times that repeat to better than this, the sums are not trusted further.
NOISE_MIN: Final = 0.01
# Who takes a million times what is believed of it has no part of that size.
FACTOR_MAX: Final = 1e6
# A factor is known to that; elimination below it is rounding.
_PIVOT_MIN: Final = 1e-9
# Sums are written anew in another unit before what is added to them grows out of all proportion.
UNIT_MIN: Final = 1e-6


class Sums(msgspec.Struct):
    """Decayed sums over samples of parts `x` and times `y`, both as shares of what was predicted of that sample.

    `xx` is the lower triangle of the sum of x x', row by row, `xy` that of x y, each to be multiplied by `unit`: what
    is forgotten of them changes that alone. `fresh` is the weight that came since `factors` were found.
    """

    xx: list[float]
    xy: list[float]
    factors: list[float]
    weight: float = 0.0
    fresh: float = 0.0
    at_s: float = 0.0
    unit: float = 1.0


def empty(believed: list[float]) -> Sums:
    """Nothing was seen: each part takes what is believed of it."""
    size = len(believed)
    return Sums(xx=[0.0] * (size * (size + 1) // 2), xy=[0.0] * size, factors=list(believed))


def add(sums: Sums, x: list[float], y: float) -> None:
    """Take one sample in; `fade` was called for its time."""
    xx, xy, unit = sums.xx, sums.xy, sums.unit
    # Most parts are nothing, where nothing else is there. Compiled, `+=` to an item of a list makes objects.
    some: list[int] = []
    for i, value in enumerate(x):
        if value:
            some.append(i)
            value /= unit
            xy[i] = xy[i] + value * y
            row = i * (i + 1) // 2
            for j in some:
                xx[row + j] = xx[row + j] + value * x[j]
    sums.weight += 1.0
    sums.fresh += 1.0


def fade(sums: Sums, now_s: float) -> None:
    """Forget what time has passed over, and what is more than the most; within one moment nothing."""
    if now_s <= sums.at_s:
        return
    weight = sums.weight
    kept = pow(0.5, (now_s - sums.at_s) / HALF_LIFE_S)
    if weight * kept > WEIGHT_MAX:
        kept = WEIGHT_MAX / weight
    sums.at_s = now_s
    scale(sums, kept)


def scale(sums: Sums, kept: float) -> None:
    """Count all samples for so much of what they did."""
    unit = sums.unit * kept
    if unit < UNIT_MIN:
        sums.xx = [value * unit for value in sums.xx]
        sums.xy = [value * unit for value in sums.xy]
        unit = 1.0
    sums.unit = unit
    sums.weight *= kept
    sums.fresh *= kept


def shift(sums: Sums, ratio: float, measured: Collection[int]) -> None:
    """All times were `ratio` times what they were, and so were the parts in `measured`, whose factors stay."""
    of = [ratio if i in measured else 1.0 for i in range(len(sums.xy))]
    sums.xx = [sums.xx[i * (i + 1) // 2 + j] * of[i] * of[j] for i in range(len(of)) for j in range(i + 1)]
    sums.xy = [value * ratio * by for value, by in zip(sums.xy, of, strict=True)]
    sums.factors = [value * ratio / by for value, by in zip(sums.factors, of, strict=True)]


def due(sums: Sums) -> bool:
    """Whether enough is new for other factors."""
    return sums.fresh > DUE_SHARE * sums.weight


def solve(sums: Sums, believed: list[float], level: float, noise: float, measured: Collection[int]) -> None:
    """Find the factors: the best fit to the samples that stays near `level` times those that are `believed`.

    Parts in `measured` come in seconds as they are, whatever the level. `noise` is the variance of a sample. A part
    that would take less than nothing takes nothing.
    """
    xx, xy, noise = sums.xx, sums.xy, max(noise, NOISE_MIN) / sums.unit
    wanted: list[float] = []
    ridge: list[float] = []
    found: list[float] = []
    left: list[int] = []
    for i, value in enumerate(believed):
        one = 1.0 if i in measured else level
        value *= one
        sigma = SHAPE_SIGMA * value if value > 0.0 else UNKNOWN_SIGMA * one
        weight = noise / (sigma * sigma)
        wanted.append(value)
        ridge.append(weight)
        if xx[i * (i + 3) // 2]:
            left.append(i)
            found.append(0.0)
        else:
            # A part that no sample had takes what is believed of it.
            found.append(_alone(weight, value))
    while left:
        solved = _eliminate(xx, xy, ridge, wanted, left)
        kept = [i for at, i in enumerate(left) if solved[at] >= 0.0]
        if len(kept) == len(left):
            for at, i in enumerate(left):
                found[i] = solved[at]
            break
        left = kept
    sums.factors = [min(value, FACTOR_MAX) for value in found]
    sums.fresh = 0.0


def combined(one: Sums, other: Sums) -> Sums:
    """What both have seen, as of the later of the two; factors are to be found anew."""
    a, b = copied(one), copied(other)
    now_s = max(a.at_s, b.at_s)
    fade(a, now_s)
    fade(b, now_s)
    return Sums(
        xx=[a.unit * x + b.unit * y for x, y in zip(a.xx, b.xx, strict=True)],
        xy=[a.unit * x + b.unit * y for x, y in zip(a.xy, b.xy, strict=True)],
        factors=a.factors,
        weight=a.weight + b.weight,
        fresh=a.weight + b.weight,
        at_s=now_s,
    )


def copied(sums: Sums) -> Sums:
    """One that can be changed."""
    return msgspec.structs.replace(sums, xx=list(sums.xx), xy=list(sums.xy), factors=list(sums.factors))


def _alone(ridge: float, wanted: float) -> float:
    """The factor of a part that no sample had, as `_eliminate` has it to the last bit."""
    root: float = max(ridge, _PIVOT_MIN) ** 0.5
    return ridge * wanted / root / root


def _eliminate(
    xx: list[float], xy: list[float], ridge: list[float], wanted: list[float], left: list[int]
) -> list[float]:
    """The factors of the parts in `left`, the others being nothing: by Cholesky, of so few faster than by libraries."""
    rows: list[list[float]] = []
    forward: list[float] = []
    for at, i in enumerate(left):
        row: list[float] = []
        base = i * (i + 1) // 2
        for before in range(at):
            j = left[before]
            value = xx[base + j]
            other = rows[before]
            for k in range(before):
                value -= row[k] * other[k]
            row.append(value / other[before])
        pivot = xx[base + i] + ridge[i]
        right = xy[i] + ridge[i] * wanted[i]
        for k in range(at):
            pivot -= row[k] * row[k]
            right -= row[k] * forward[k]
        root: float = max(pivot, _PIVOT_MIN) ** 0.5
        row.append(root)
        rows.append(row)
        forward.append(right / root)
    size = len(left)
    found = [0.0] * size
    for at in range(size - 1, -1, -1):
        value = forward[at]
        for below in range(at + 1, size):
            value -= rows[below][at] * found[below]
        found[at] = value / rows[at][at]
    return found
