"""How many of an endpoint's attempts fail between others that serve: too few to open its breaker, too many to overlook.

A failure at once costs little where somebody else is asked next; one that takes the time of the promise, or breaks an
answer off that has begun, costs all that it was worth. So what is known is how many fail, how long that takes, and how
many break off. An outage is none of that: what failed since the last success counts no more once the breaker opens, or
an endpoint that is back would be avoided for what it did while it was away.
"""

from math import inf, pow
from typing import Final

import msgspec

from tidegate.core.failing import NEVER, Failing, Failures

# Two minutes without an attempt, and half of it is forgotten: so it is tried again.
HALF_LIFE_S: Final = 120.0
# One failure is chance: it counts as one among so many more that served.
PRIOR: Final = 20.0
# What is rarer decides nothing.
SHARE_MIN: Final = 0.01


def at(failures: Failures, now_s: float) -> Failing:
    """What an attempt has to expect that is sent now."""
    left = _left(now_s - failures.at_s)
    of = left * failures.ended + PRIOR
    failed, broken = left * failures.failed / of, left * failures.broke / of
    if failed + broken < SHARE_MIN:
        return NEVER
    return Failing(failed, failures.failed_s / failures.failed if failures.failed else 0.0, broken)


def served(failures: Failures, now_s: float) -> None:
    """An attempt served: the row is over."""
    _pass_until(failures, now_s)
    failures.ended += 1.0
    failures.row_failed = failures.row_failed_s = failures.row_broke = 0.0


def fail(failures: Failures, after_s: float, now_s: float, *, begun: bool) -> None:
    """An attempt failed so long after it was sent, before any content or when it had `begun`."""
    _pass_until(failures, now_s)
    failures.ended += 1.0
    if begun:
        failures.broke += 1.0
        failures.row_broke += 1.0
    else:
        failures.failed += 1.0
        failures.failed_s += after_s
        failures.row_failed += 1.0
        failures.row_failed_s += after_s


def goes_away(failures: Failures) -> None:
    """The breaker has opened: the row was an outage."""
    failures.ended = max(0.0, failures.ended - failures.row_failed - failures.row_broke)
    failures.failed = max(0.0, failures.failed - failures.row_failed)
    failures.failed_s = max(0.0, failures.failed_s - failures.row_failed_s)
    failures.broke = max(0.0, failures.broke - failures.row_broke)
    failures.row_failed = failures.row_failed_s = failures.row_broke = 0.0


def _pass_until(failures: Failures, now_s: float) -> None:
    if now_s <= failures.at_s:
        return
    left = _left(now_s - failures.at_s)
    failures.at_s = now_s
    failures.ended *= left
    if failures.failed or failures.broke:
        failures.failed *= left
        failures.failed_s *= left
        failures.broke *= left
        failures.row_failed *= left
        failures.row_failed_s *= left
        failures.row_broke *= left


def _left(after_s: float) -> float:
    return pow(0.5, after_s / HALF_LIFE_S) if after_s > 0.0 else 1.0


def revived(failures: Failures, now_s: float) -> Failures:
    """A copy after a restart."""
    return msgspec.structs.replace(failures, at_s=min(failures.at_s, now_s))


def combined(one: Failures, other: Failures) -> Failures:
    """What both have seen. A row is one process's own."""
    at_s = max(one.at_s, other.at_s)
    left, also = _left(at_s - one.at_s), _left(at_s - other.at_s)
    return Failures(
        at_s=at_s,
        ended=left * one.ended + also * other.ended,
        failed=left * one.failed + also * other.failed,
        failed_s=left * one.failed_s + also * other.failed_s,
        broke=left * one.broke + also * other.broke,
    )


def fault(failures: Failures) -> str:
    """What is wrong with it, empty where nothing is."""
    numbers = [getattr(failures, name) for name in failures.__struct_fields__ if name != "at_s"]
    return "" if all(0.0 <= number < inf for number in numbers) else "`failures` has numbers that none can be"
