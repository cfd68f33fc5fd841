"""How likely it is that a model was unloaded, by the time since it was last used.

Outcomes are counted by that time. More of it never makes an unload less likely, so the counts are read by isotonic
regression, and shrink to what is believed of such an engine where there are few.
"""

from math import log, pow, sqrt
from typing import Final

from tidegate.core.record import Untracked

# Seconds since the last use: from the pause between two turns of a conversation to what is asked for once a day.
IDLE_EDGES_S: Final[tuple[float, ...]] = (10.0, 30.0, 100.0, 300.0, 900.0, 3600.0, 14_400.0)
BINS: Final = len(IDLE_EDGES_S) + 1
# What was never used is as if it had not been for thirty years: a number, as JSON has no infinity.
IDLE_S_MAX: Final = 1e9
# How long an engine keeps its model is a setting that holds for months, and what is asked for once a day has to leave a
# trace: a week. What changed shows within the hour all the same.
LONG_HALF_LIFE_S: Final = 7 * 86_400.0
RECENT_HALF_LIFE_S: Final = 1800.0
# How many attempts weigh as much as what was believed before: one cold start is a coincidence, two are a habit. Those
# of the last half hour against those of the last week.
LONG_STRENGTH: Final = 1.0
RECENT_STRENGTH: Final = 2.0
# Most engines keep their model for ever. Of those that unload after a while, operators turn many into such.
NEVER_SHARE: Final = 0.01
NEVER_SHARE_AT_ONCE: Final = 0.0005
UNLOADED_SHARE: Final = 0.7
# Attempts after a while without use that take three times as long as others have something to wait for, if chance does
# not explain it. It takes two of each to tell.
SLOWER_LOG: Final = log(3.0)
SLOWER_DEVIATIONS: Final = 4.0
SLOWER_LEAST: Final = 1.9
LEVEL_VARIANCE_MIN: Final = 0.05


class Outcomes(Untracked):
    """Decayed numbers of attempts, and of those among them that met a cold start; of the last half hour and week."""

    recent: float = 0.0
    recent_cold: float = 0.0
    long: float = 0.0
    long_cold: float = 0.0
    at_s: float = 0.0


class Level(Untracked):
    """Decayed sums, at `at_s`, of how long attempts took: log(time to first content / what was believed of it before
    anything was measured). What is learned meanwhile does not move it."""

    weight: float = 0.0
    total: float = 0.0
    square: float = 0.0
    at_s: float = 0.0


# Each attempt is counted in both: functions take half as long as methods of a record do where this is compiled.
def learn_outcome(outcomes: Outcomes, count: float, cold: float, now_s: float) -> None:
    """Take in `count` attempts, `cold` of which met a cold start."""
    recent, recent_cold, long, long_cold = outcomes_left(outcomes, now_s)
    outcomes.recent, outcomes.recent_cold = recent + count, recent_cold + cold
    outcomes.long, outcomes.long_cold = long + count, long_cold + cold
    outcomes.at_s = max(outcomes.at_s, now_s)


def outcomes_left(outcomes: Outcomes, now_s: float) -> tuple[float, float, float, float]:
    """What is left of them."""
    age_s = now_s - outcomes.at_s
    if age_s <= 0.0 or not outcomes.long:
        return outcomes.recent, outcomes.recent_cold, outcomes.long, outcomes.long_cold
    recent, long = pow(0.5, age_s / RECENT_HALF_LIFE_S), pow(0.5, age_s / LONG_HALF_LIFE_S)
    return recent * outcomes.recent, recent * outcomes.recent_cold, long * outcomes.long, long * outcomes.long_cold


def cold_share(outcomes: Outcomes, prior_share: float, strength: float) -> float:
    """Which share of them meets a cold start."""
    long = (outcomes.long_cold + strength * prior_share) / (outcomes.long + strength)
    return (outcomes.recent_cold + RECENT_STRENGTH * long) / (outcomes.recent + RECENT_STRENGTH)


def by_idle(idle: list[Outcomes], prior: list[float], at_s: float) -> list[float]:
    """The chance of a cold start by the time since the last use, from outcomes by that time as of `at_s`, when anything
    was attempted last; see `isotonic`."""
    left = [outcomes_left(outcomes, at_s) for outcomes in idle]
    long = isotonic([one[2] for one in left], [one[3] for one in left], prior, LONG_STRENGTH)
    return isotonic([one[0] for one in left], [one[1] for one in left], long, RECENT_STRENGTH)


def learn_level(level: Level, log_ratio: float, now_s: float) -> None:
    """Take in one attempt."""
    weight, total, square = level_left(level, now_s)
    level.weight, level.total, level.square = weight + 1.0, total + log_ratio, square + log_ratio * log_ratio
    level.at_s = max(level.at_s, now_s)


def level_left(level: Level, now_s: float) -> tuple[float, float, float]:
    """What is left of the sums."""
    age_s = now_s - level.at_s
    left = pow(0.5, age_s / LONG_HALF_LIFE_S) if age_s > 0.0 else 1.0
    return left * level.weight, left * level.total, left * level.square


def slower_from(levels: list[Level]) -> int | None:
    """The first bin of those in which attempts take much longer than after less time without use; None where no such
    bin is sure.

    Whose first attempts were all cold starts seems slow and uneven, and no single attempt tells more. That the time
    without use tells them apart does: by Welch's test of two means, at the best place to part them.
    """
    at_s = max(one.at_s for one in levels)
    sums = [level_left(one, at_s) for one in levels]
    whole = [sum(column) for column in zip(*sums, strict=True)]
    weight = total = square = 0.0
    found, best = None, SLOWER_DEVIATIONS
    for index, (bin_weight, bin_total, bin_square) in enumerate(sums[:-1], start=1):
        weight, total, square = weight + bin_weight, total + bin_total, square + bin_square
        rest = whole[0] - weight
        if min(weight, rest) < SLOWER_LEAST:
            continue
        before, after = total / weight, (whole[1] - total) / rest
        if after - before < SLOWER_LOG:
            continue
        variance = max(square / weight - before * before, LEVEL_VARIANCE_MIN) / weight
        variance += max((whole[2] - square) / rest - after * after, LEVEL_VARIANCE_MIN) / rest
        deviations = (after - before) / sqrt(variance)
        if deviations > best:
            found, best = index, deviations
    return found


def joined(one: Level, other: Level) -> Level:
    """What two processes have seen, as of the last."""
    at_s = max(one.at_s, other.at_s)
    weight, total, square = (a + b for a, b in zip(level_left(one, at_s), level_left(other, at_s), strict=True))
    return Level(weight, total, square, at_s)


def both(one: Outcomes, other: Outcomes) -> Outcomes:
    """The outcomes that two processes have seen, as of the last."""
    at_s = max(one.at_s, other.at_s)
    recent, recent_cold, long, long_cold = (
        a + b for a, b in zip(outcomes_left(one, at_s), outcomes_left(other, at_s), strict=True)
    )
    return Outcomes(recent, recent_cold, long, long_cold, at_s)


def prior_shares(unload_after_s: float | None) -> list[float]:
    """What is believed at first, by the time since the last use."""
    shares = [NEVER_SHARE_AT_ONCE] + [NEVER_SHARE] * (BINS - 1)
    if unload_after_s is None:
        return shares
    for index in range(BINS):
        low_s = IDLE_EDGES_S[index - 1] if index else 0.0
        if index == BINS - 1 or unload_after_s < IDLE_EDGES_S[index]:
            # Somewhere within: as likely before as after.
            shares[index] = UNLOADED_SHARE if unload_after_s <= low_s else UNLOADED_SHARE / 2.0
    return shares


def isotonic(counts: list[float], colds: list[float], prior: list[float], strength: float) -> list[float]:
    """The share of `colds` in `counts` for each bin, not falling from one to the next; `prior` does not fall either,
    and weighs as `strength` attempts.

    Of the blocks of bins around a bin, it is the largest over their beginnings of the smallest over their ends: the
    max-min formula of isotonic regression (Robertson, Wright and Dykstra 1988), which is the likeliest of all
    distributions of the time until an unload, where each attempt only shows whether it has passed (current status
    data, Ayer et al. 1955).
    """
    known = [index for index, count in enumerate(counts) if count]
    shares: list[float] = []
    for index, believed in enumerate(prior):
        count, cold = counts[index] + strength, colds[index] + strength * believed
        after = [other for other in known if other > index]
        best = _least(count, cold, after, counts, colds)
        for other in reversed(known):
            if other < index:
                count, cold = count + counts[other], cold + colds[other]
                share = _least(count, cold, after, counts, colds)
                if share > best:
                    best = share
        # What is the same may round otherwise.
        shares.append(max(best, shares[-1]) if shares else best)
    return shares


def _least(count: float, cold: float, after: list[int], counts: list[float], colds: list[float]) -> float:
    """The least share of blocks that begin with these and end after any of the bins in `after`."""
    least = cold / count
    for other in after:
        count, cold = count + counts[other], cold + colds[other]
        share = cold / count
        if share < least:
            least = share
    return least
