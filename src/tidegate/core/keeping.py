"""How likely an endpoint still has the beginning of a prompt: by what came there since, and by the time that passed.

An engine evicts what was not used for longest once its memory is full, a vendor what nobody asked for within minutes.
Which of these an endpoint does, and when, follows from the cached tokens that it reports.
"""

from math import sqrt

import msgspec

from tidegate.core.prior import CachePrior

# Tokens put there since: below 512, then by factors of two, to two million and more. Seconds since: below one, then by
# factors of two, to two hours and more.
DISTANCE_BITS = 9
DISTANCES = 14
AGES = 14
# What an engine has memory for changes seldom, but a vendor's fleet is busier by day than by night.
HALF_LIFE_S = 1800.0
# How many observations the prior weighs as much as, in each cell.
PRIOR_STRENGTH = 1.0
# A stretch of so many tokens is half an observation: what is long tells more than what is short, yet never more than 1.
HALF_TOKENS = 1024.0
# How many tokens without a surplus are taken for seen before any were.
REST_TOKENS = 4096.0
# Squared errors that both tables are taken to have made: they have to differ by more than chance to be preferred.
NOISE_MIN = 1.0


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stretch of a prompt, in tokens, that was last used by one earlier prompt: in the cells of how long ago."""

    tokens: float
    distance: int
    age: int


class Kept(msgspec.Struct, kw_only=True):
    """Decayed sums of what was still there and what was not, as of `at_s`, by distance and by age.

    `surplus` and `rest` are tokens: what was cached beyond the known beginning, of all that was not expected to be; of
    prompts without a known beginning, and of those with one.
    """

    at_s: float = 0.0
    hits_by_distance: list[float] = msgspec.field(default_factory=lambda: [0.0] * DISTANCES)
    misses_by_distance: list[float] = msgspec.field(default_factory=lambda: [0.0] * DISTANCES)
    hits_by_age: list[float] = msgspec.field(default_factory=lambda: [0.0] * AGES)
    misses_by_age: list[float] = msgspec.field(default_factory=lambda: [0.0] * AGES)
    surplus: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    rest: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])


class Odds(msgspec.Struct, gc=False):
    """What follows from these sums: probabilities by distance and by age, none rising, and how much the first counts.

    `surplus` are the shares of what is not expected to be cached that are cached after all.
    """

    by_distance: list[float]
    by_age: list[float]
    weight: float
    surplus: tuple[float, float]


class Keeping:
    """Predicts from `Kept`, and learns into it."""

    __slots__ = ("_odds", "_prior_by_age", "_prior_by_distance", "kept")

    def __init__(self, prior: CachePrior, kept: Kept) -> None:
        self.kept = kept
        self._odds: Odds | None = None
        # A cell stands for what is below its upper end.
        share = prior.share
        self._prior_by_distance = [_left(share, prior.tokens, 2.0 ** (DISTANCE_BITS + i)) for i in range(DISTANCES)]
        self._prior_by_age = [_left(share, prior.lifetime_s, 2.0**i) for i in range(AGES)]

    @property
    def surprises(self) -> bool:
        """Whether prompts without a known beginning were seen to be cached in part."""
        return self.kept.surplus[0] > 0.0

    def expected(self, spans: tuple[Span, ...], tokens: float, now_s: float) -> tuple[float, float]:
        """How many of a prompt's tokens are expected to be cached, and the standard deviation of that.

        `spans` are what is known of its beginning, the first one first. Where a stretch is gone, so is all behind it.
        """
        odds = self._odds or self._judge()
        weight = odds.weight
        mean = square = end = 0.0
        for span in spans:
            p = weight * odds.by_distance[span.distance] + (1.0 - weight) * odds.by_age[span.age]
            begin, end = end, end + span.tokens
            mean += p * span.tokens
            square += p * (end * end - begin * begin)
        variance = square - mean * mean
        age_s = now_s - self.kept.at_s
        if end and age_s > 0.0:
            # What was learned long ago is trusted less, not shifted: at last, any share is as likely as any other.
            variance += age_s / (age_s + HALF_LIFE_S) * end * end / 12.0
        surplus = odds.surplus[1 if spans else 0]
        if surplus:
            rest = tokens - mean
            mean += surplus * rest
            variance += surplus * (1.0 - surplus) * rest * rest
        return mean, sqrt(variance) if variance > 0.0 else 0.0

    def learn(self, spans: tuple[Span, ...], expected: float, tokens: float, cached: float, now_s: float) -> None:
        """Take in that `cached` of so many tokens were, where `expected` were."""
        kept = self.kept
        self._decay(now_s)
        end = 0.0
        for span in spans:
            begin, end = end, end + span.tokens
            hit = min(max((cached - begin) / span.tokens, 0.0), 1.0)
            weight = span.tokens / (span.tokens + HALF_TOKENS)
            kept.hits_by_distance[span.distance] += weight * hit
            kept.misses_by_distance[span.distance] += weight * (1.0 - hit)
            kept.hits_by_age[span.age] += weight * hit
            kept.misses_by_age[span.age] += weight * (1.0 - hit)
        known = 1 if spans else 0
        kept.surplus[known] += max(0.0, cached - end)
        kept.rest[known] += max(0.0, tokens - expected)
        self._odds = None

    def _decay(self, now_s: float) -> None:
        kept = self.kept
        age_s = now_s - kept.at_s
        if age_s <= 0.0:
            return
        kept.at_s = now_s
        left = 0.5 ** (age_s / HALF_LIFE_S)
        for sums in _sums(kept):
            for index, value in enumerate(sums):
                sums[index] = value * left

    def _judge(self) -> Odds:
        kept = self.kept
        by_distance, noise_by_distance = _falling(
            kept.hits_by_distance, kept.misses_by_distance, self._prior_by_distance
        )
        by_age, noise_by_age = _falling(kept.hits_by_age, kept.misses_by_age, self._prior_by_age)
        # The table that explains more of what was seen counts for more.
        one, other = (noise_by_age + NOISE_MIN) ** 2, (noise_by_distance + NOISE_MIN) ** 2
        (unknown, known), (rest, more) = kept.surplus, kept.rest
        surplus = unknown / (rest + REST_TOKENS), known / (more + REST_TOKENS)
        if surplus[0] > surplus[1]:
            # A longer beginning in common never means less that is cached.
            surplus = ((unknown + known) / (rest + more + REST_TOKENS),) * 2
        found = self._odds = Odds(by_distance, by_age, one / (one + other), surplus)
        return found


def combined(one: Kept, other: Kept, now_s: float) -> Kept:
    """What two have learned of one endpoint, as of `now_s`."""
    found = Kept(at_s=now_s)
    for kept in (one, other):
        left = 0.5 ** (max(0.0, now_s - kept.at_s) / HALF_LIFE_S)
        for into, sums in zip(_sums(found), _sums(kept), strict=True):
            for index, value in enumerate(sums):
                into[index] += left * value
    return found


def distance_cell(tokens: int) -> int:
    """The cell of so many tokens put there since."""
    return min((tokens >> DISTANCE_BITS).bit_length(), DISTANCES - 1) if tokens > 0 else 0


def age_cell(age_s: float) -> int:
    """The cell of so many seconds since."""
    return min(int(age_s).bit_length(), AGES - 1) if age_s > 0.0 else 0


def _sums(kept: Kept) -> tuple[list[float], ...]:
    return (
        kept.hits_by_distance,
        kept.misses_by_distance,
        kept.hits_by_age,
        kept.misses_by_age,
        kept.surplus,
        kept.rest,
    )


def _left(share: float, half: float | None, at: float) -> float:
    return share if half is None else share / (1.0 + at / half)


def _falling(hits: list[float], misses: list[float], prior: list[float]) -> tuple[list[float], float]:
    """Probabilities that never rise, closest to what was seen and to the prior; and the squared errors that are left.

    Adjacent violators are pooled (Robertson, Wright and Dykstra, Order Restricted Statistical Inference, 1.2).
    """
    means: list[float] = []
    weights: list[float] = []
    counts: list[int] = []
    for hit, miss, p in zip(hits, misses, prior, strict=True):
        weight = hit + miss + PRIOR_STRENGTH
        mean, count = (hit + PRIOR_STRENGTH * p) / weight, 1
        while means and means[-1] < mean:
            before = weights.pop()
            mean = (mean * weight + means.pop() * before) / (weight + before)
            weight += before
            count += counts.pop()
        means.append(mean)
        weights.append(weight)
        counts.append(count)
    found: list[float] = []
    for mean, count in zip(means, counts, strict=True):
        found += [mean] * count
    noise = 0.0
    for hit, miss, p in zip(hits, misses, found, strict=True):
        noise += hit * (1.0 - p) * (1.0 - p) + miss * p * p
    return found, noise
