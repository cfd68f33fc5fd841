"""When slots are free: of many that may end soon, the first one does.

Each attempt ends in one of three stretches of time, each as likely, and anywhere in it alike. So many are expected to
have ended by a time as their chances add up to; the next slot is free when that is one half, and the one after it when
it is one and a half: halves, since of ends that are known to the moment the first one is there when one is passed.
"""

# A stretch is at least that long, so that what ends there has a rate.
_STRETCH_S_MIN = 1e-6


Ends = tuple[float, float, float]
"""The middles of the three stretches, in order."""


def free_s(attempts: list[tuple[float, Ends]], now_s: float) -> list[float]:
    """When as many slots are expected to be free as there are attempts, soonest first.

    Of each attempt it is told when it may end at the soonest, not before `now_s`, and its ends.
    """
    changes: list[tuple[float, float]] = []
    for least_s, (early_s, middle_s, late_s) in attempts:
        apart_s = late_s - early_s
        for at_s, reach_s in ((early_s, apart_s), (middle_s, apart_s / 4.0), (late_s, (late_s - middle_s) / 2.0)):
            # As far to either side of its middle as the others leave it, and not before it can be.
            half_s = max(min(reach_s, at_s - least_s), _STRETCH_S_MIN)
            per_s = 1.0 / (6.0 * half_s)
            changes += [(at_s - half_s, per_s), (at_s + half_s, -per_s)]
    changes.sort()
    found: list[float] = []
    at_s, ended, rate = now_s, 0.0, 0.0
    for change_s, change in changes:
        by_then = ended + rate * (change_s - at_s)
        while len(found) + 0.5 <= by_then:
            found.append(at_s + (len(found) + 0.5 - ended) / rate)
        at_s, ended, rate = change_s, by_then, rate + change
    # Where rounding has left less than a half of the last one.
    return found[: len(attempts)] + [at_s] * (len(attempts) - len(found))
