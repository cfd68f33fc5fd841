"""How likely an endpoint still has the beginning of a prompt: by what came there since, by the time that passed, and by
how long the beginning is.

An engine evicts what was not used for longest once its memory is full; a vendor forgets what nobody asked for within
minutes, and does not keep what is short. Which of these an endpoint does follows from the cached tokens it reports. The
causes are taken to be independent: a beginning is there if none of them took it. What a miss tells of each of them is
how likely that one was to blame (expectation maximisation: Dempster, Laird and Rubin 1977), as believed when the prompt
was sent.
"""

from math import sqrt
from typing import Final

from tidegate.core.prior import CachePrior
from tidegate.core.prompts import AGES, DISTANCE_BITS, DISTANCES, SIZE_BITS, SIZES, Kept, Odds, Span

# What an engine has memory for changes seldom, but a vendor's fleet is busier by day than by night.
HALF_LIFE_S: Final = 7200.0
# How much is cached beyond what is known depends on who asks, and each prompt tells of it.
SURPLUS_HALF_LIFE_S: Final = 1200.0
# How many observations the prior weighs as much as.
PRIOR_STRENGTH: Final = 1.0
# What nothing was observed of yields to any observation beside it.
UNSEEN: Final = 1e-6
# Nothing is so certain that it could not be to blame.
CERTAIN: Final = 0.999
# A stretch of so many tokens is half an observation: what is long tells more than what is short, yet never more than 1.
HALF_TOKENS: Final = 1024.0
# How many tokens without a surplus are taken for seen before any were.
REST_TOKENS: Final = 4096.0


# What was observed counts from a second later on: what follows from it takes longer than to take it in, and of what
# comes at one time nothing is to depend on what came first.
JUDGE_S: Final = 1.0


class Keeping:
    """Predicts from `Kept`, and learns into it.

    `surprises` is whether prompts without a known beginning are expected to be cached in part.
    """

    __slots__ = ("_by_age", "_by_distance", "_by_size", "kept", "odds", "surprises")

    def __init__(self, prior: CachePrior, kept: Kept) -> None:
        self.kept = kept
        # What is believed at first, each of the three having the same share in it; a cell stands for all below its end.
        share = float(prior.share ** (1.0 / 3.0))
        self._by_distance = [_left(share, prior.tokens, 2.0 ** (DISTANCE_BITS + i)) for i in range(DISTANCES)]
        self._by_age = [_left(share, prior.lifetime_s, 2.0**i) for i in range(AGES)]
        self._by_size = [share if 2 ** (SIZE_BITS + i) > prior.tokens_min else 0.0 for i in range(SIZES)]
        # What is believed now.
        self.odds = Odds(self._by_distance, self._by_age, self._by_size) if kept.odds is None else kept.odds
        self.surprises = self.odds.surplus[0] > 0.0

    # --- reading ------------------------------------------------------------------------------------------------

    def expected(self, steps: list[tuple[float, float]], tokens: float, now_s: float) -> tuple[float, float]:
        """How many of a prompt's tokens are expected to be cached, and the standard deviation of that.

        `steps` are numbers of its first tokens, rising, each with how likely they all are cached.
        """
        mean = variance = alike = 0.0
        for end, p in steps:
            # Where a stretch is gone, so is all behind it.
            mean += p * (end - alike)
            variance += p * (end * end - alike * alike)
            alike = end
        if alike:
            variance -= mean * mean
            age_s = now_s - self.kept.at_s
            if age_s > 0.0:
                # What was learned long ago is trusted less, not shifted: at last, any share is as likely as another.
                variance += age_s / (age_s + HALF_LIFE_S) * alike * alike / 12.0
        surplus = self.odds.surplus[1 if alike else 0]
        if surplus:
            rest = tokens - mean
            mean += surplus * rest
            variance += surplus * (1.0 - surplus) * rest * rest
        return mean, sqrt(variance) if variance > 0.0 else 0.0

    # --- writing ------------------------------------------------------------------------------------------------

    def learn(self, spans: tuple[Span, ...], by_size: float, tokens: float, cached: float, now_s: float) -> None:
        """Take in that `cached` of so many tokens were. Its `spans` are in the prompt's order.

        `by_size` is how likely so much in common was to be kept, as believed when it was sent.
        """
        kept = self.kept
        if now_s - kept.at_s >= JUDGE_S:
            self._advance(now_s)
        kept.new = kept.told = True
        sized, by_size = by_size, min(by_size, CERTAIN)
        begin = hits = misses = expected = 0.0
        for span in spans:
            # Without the surplus, which is a share of all but this: with it, it would be learned from itself.
            expected += span.tokens * span.by_distance * span.by_age * sized
            hit = min(max((cached - begin) / max(span.tokens, UNSEEN), 0.0), 1.0)
            begin += span.tokens
            weight = span.tokens / (span.tokens + HALF_TOKENS)
            one, other = min(span.by_distance, CERTAIN), min(span.by_age, CERTAIN)
            # A hit speaks for each of them, a miss against one as far as it alone was likely to be the cause.
            miss = weight * (1.0 - hit) / (1.0 - one * other * by_size)
            hit *= weight
            kept.hits_by_distance[span.distance] += hit
            kept.misses_by_distance[span.distance] += miss * (1.0 - one) * other * by_size
            kept.hits_by_age[span.age] += hit
            kept.misses_by_age[span.age] += miss * (1.0 - other) * one * by_size
            hits += hit
            misses += miss * (1.0 - by_size) * one * other
        if spans:
            size = size_cell(begin)
            kept.hits_by_size[size] += hits
            kept.misses_by_size[size] += misses
        known = 1 if spans else 0
        kept.surplus[known] += max(0.0, cached - begin)
        kept.rest[known] += max(0.0, tokens - expected)

    def settle(self, now_s: float) -> None:
        """Let count what was observed before."""
        if self.kept.new and now_s - self.kept.at_s >= JUDGE_S:
            self._advance(now_s)

    def _advance(self, now_s: float) -> None:
        kept = self.kept
        _fade(kept, now_s)
        if kept.new:
            kept.new = False
            self.odds = kept.odds = self._judged()
            self.surprises = self.odds.surplus[0] > 0.0

    def _judged(self) -> Odds:
        kept = self.kept
        (unknown, known), (rest, more) = kept.surplus, kept.rest
        # Engines have told of more cached tokens than a prompt had.
        surplus = min(1.0, unknown / (rest + REST_TOKENS)), min(1.0, known / (more + REST_TOKENS))
        if surplus[0] > surplus[1]:
            # A longer beginning in common never means less that is cached.
            surplus = (min(1.0, (unknown + known) / (rest + more + REST_TOKENS)),) * 2
        by_size = _falling(kept.hits_by_size[::-1], kept.misses_by_size[::-1], self._by_size[::-1])
        return Odds(
            _falling(kept.hits_by_distance, kept.misses_by_distance, self._by_distance),
            _falling(kept.hits_by_age, kept.misses_by_age, self._by_age),
            by_size[::-1],
            surplus,
        )


def combined(one: Kept, other: Kept, now_s: float) -> Kept:
    """What two have learned of one endpoint, as of `now_s`."""
    found = Kept(at_s=now_s, new=True)
    for kept in (one, other):
        for into, sums, left in zip(sums_of(found), sums_of(kept), _left_of(now_s - kept.at_s), strict=True):
            for index, value in enumerate(sums):
                into[index] += left * value
    return found


def _left_of(age_s: float) -> tuple[float, ...]:
    """What is left of each sum after so long."""
    age_s = max(0.0, age_s)
    left, surplus = 0.5 ** (age_s / HALF_LIFE_S), 0.5 ** (age_s / SURPLUS_HALF_LIFE_S)
    return left, left, left, left, left, left, surplus, surplus


def _fade(kept: Kept, now_s: float) -> None:
    for sums, left in zip(sums_of(kept), _left_of(now_s - kept.at_s), strict=True):
        for index, value in enumerate(sums):
            if value:
                sums[index] = value * left
    kept.at_s = now_s


def copied(kept: Kept, now_s: float) -> Kept:
    """A copy, of no later than now."""
    found = Kept(at_s=min(kept.at_s, now_s), new=kept.new, told=kept.told, odds=kept.odds)
    for into, sums in zip(sums_of(found), sums_of(kept), strict=True):
        into[:] = sums
    return found


def fault(kept: Kept) -> str:
    """What is wrong with it, empty where nothing is."""
    if any(len(sums) != len(made) for sums, made in zip(sums_of(kept), sums_of(Kept()), strict=True)):
        return "has other cells than those of this software"
    if not all(value >= 0.0 for sums in sums_of(kept) for value in sums):
        return "has a negative sum"
    odds = kept.odds
    if odds is None:
        return ""
    if (len(odds.by_distance), len(odds.by_age), len(odds.by_size)) != (DISTANCES, AGES, SIZES):
        return "has other probabilities than those of this software"
    if not all(0.0 <= p <= 1.0 for p in (*odds.by_distance, *odds.by_age, *odds.by_size, *odds.surplus)):
        return "has a probability that is none"
    return ""


def distance_cell(tokens: int) -> int:
    """The cell of so many tokens put there since."""
    cell = (tokens >> DISTANCE_BITS).bit_length()
    return cell if cell < DISTANCES else DISTANCES - 1


def age_cell(age_s: float) -> int:
    """The cell of so many seconds since."""
    if age_s < 1.0:
        return 0
    cell = int(age_s).bit_length()
    return cell if cell < AGES else AGES - 1


def size_cell(tokens: float) -> int:
    """The cell of so many tokens in common."""
    cell = (int(tokens) >> SIZE_BITS).bit_length()
    return cell if cell < SIZES else SIZES - 1


def sums_of(kept: Kept) -> tuple[list[float], ...]:
    """All sums in it."""
    return (
        kept.hits_by_distance,
        kept.misses_by_distance,
        kept.hits_by_age,
        kept.misses_by_age,
        kept.hits_by_size,
        kept.misses_by_size,
        kept.surplus,
        kept.rest,
    )


def _left(share: float, half: float | None, at: float) -> float:
    return share if half is None else share / (1.0 + at / half)


def _falling(hits: list[float], misses: list[float], prior: list[float]) -> list[float]:
    """Probabilities that never rise: closest to what was seen, and as near to the prior as little was seen.

    Adjacent violators are pooled (Robertson, Wright and Dykstra, Order Restricted Statistical Inference, 1.2). Whatever
    was kept for longer speaks for a cell too, and what was lost sooner against it.
    """
    means: list[float] = []
    weights: list[float] = []
    counts: list[int] = []
    empty = 0
    further = 0.0
    for hit, miss in zip(hits, misses, strict=True):
        weight = hit + miss
        further += hit
        if weight < UNSEEN:
            # It says what the one before it says, or else the first that was seen.
            if counts:
                counts[-1] += 1
            else:
                empty += 1
            continue
        mean, count = hit / weight, 1 + empty
        empty = 0
        while means and means[-1] < mean:
            before = weights.pop()
            mean = (mean * weight + means.pop() * before) / (weight + before)
            weight += before
            count += counts.pop()
        means.append(mean)
        weights.append(weight)
        counts.append(count)
    if not counts:
        return prior
    found: list[float] = []
    sooner, least, index = 0.0, 1.0, 0
    for mean, count in zip(means, counts, strict=True):
        for _ in range(count):
            sooner += misses[index]
            # What is taken off again may leave less than nothing, by rounding.
            seen = max(0.0, further + sooner)
            least = min(least, (seen * mean + PRIOR_STRENGTH * prior[index]) / (seen + PRIOR_STRENGTH))
            further -= hits[index]
            found.append(least)
            index += 1
    return found
