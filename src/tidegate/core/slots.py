"""When slots are free: of many that may end soon, the first one does.

Each attempt ends in one of three stretches of time, each as likely, and anywhere in it alike. So many are expected to
have ended by a time as their chances add up to; the next slot is free when that is one half, and the one after it when
it is one and a half: halves, since of ends that are known to the moment the first one is there when one is passed.
"""

from math import inf

# A stretch is at least that long, so that what ends there has a rate.
_STRETCH_S_MIN = 1e-6


Ends = tuple[float, float, float]
"""The middles of the three stretches, in order."""


def free_s(attempts: list[tuple[float, Ends]], now_s: float, count: int, each: float = 1.0) -> list[float]:
    """When the first `count` slots are expected to be free, soonest first.

    Of each attempt it is told when it may end at the soonest, not before `now_s`, and its ends; it stands for `each`
    that have a slot. Together these are as many as `count` at least.
    """
    changes: list[tuple[float, float]] = []
    until_s = _all_by_s(attempts, count, each)
    for least_s, (early_s, middle_s, late_s) in attempts:
        apart_s = late_s - early_s
        for at_s, reach_s in ((early_s, apart_s), (middle_s, apart_s / 4.0), (late_s, (late_s - middle_s) / 2.0)):
            half_s = _half_s(least_s, at_s, reach_s)
            if at_s - half_s <= until_s:
                per_s = each / (6.0 * half_s)
                changes.append((at_s - half_s, per_s))
                if at_s + half_s <= until_s:
                    changes.append((at_s + half_s, -per_s))
    changes.sort()
    found: list[float] = []
    at_s, ended, rate, wanted = now_s, 0.0, 0.0, 0.5
    for change_s, change in changes:
        by_then = ended + rate * (change_s - at_s)
        while wanted <= by_then:
            found.append(at_s + (wanted - ended) / rate)
            if len(found) == count:
                return found
            wanted += 1.0
        at_s, ended, rate = change_s, by_then, rate + change
    # Where rounding has left less than a half of the last one.
    return found + [at_s] * (count - len(found))


def _all_by_s(attempts: list[tuple[float, Ends]], count: int, each: float) -> float:
    """By when so many have ended for sure: the first stretches of three times as many are over."""
    over = int(3.0 * count / each) + 1
    if over > len(attempts):
        return inf
    over_s = [early_s + _half_s(least_s, early_s, late_s - early_s) for least_s, (early_s, _, late_s) in attempts]
    return sorted(over_s)[over - 1]


def _half_s(least_s: float, at_s: float, reach_s: float) -> float:
    """How far a stretch goes to either side of its middle: as far as the others leave it, and not before it can be."""
    return max(min(reach_s, at_s - least_s), _STRETCH_S_MIN)
