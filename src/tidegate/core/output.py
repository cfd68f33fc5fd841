"""How long one output will be: what is believed of it, and how that goes on once a part of it has streamed."""

from math import log
from statistics import NormalDist
from typing import Final

from tidegate.core import bins
from tidegate.core.bins import Ahead, Shares, mean, quantiles

# Of lengths this quantile is planned for. It and its counterpart are so many deviations of a normal logarithm apart.
HIGH: Final = 0.95
_DEVIATIONS: Final = 2.0 * NormalDist().inv_cdf(HIGH)
# Known to a token, a length is still not known to less than a bin's eighth.
SIGMA_MIN: Final = 0.03
# Expected tokens of an output: how far the whole is off depends on how well its length is known, which is another thing
# for a word, a paragraph and a page.
OUTPUT_EDGES: Final[tuple[float, ...]] = (16.0, 64.0, 256.0, 1024.0)
OUTPUT_ROWS: Final = len(OUTPUT_EDGES) + 1


class Length:
    """Output tokens of one completion: the mean, the 95th percentile and the median, none beyond the client's bound.
    It does not change.

    `sigma` is the spread of the logarithm, by its 5th and 95th percentiles. `shares` are what is believed of each bin,
    without the bound; empty where no more is known than the figures.
    """

    __slots__ = ("_ahead", "expected_tokens", "high_tokens", "median_tokens", "shares", "sigma", "tokens_max")

    def __init__(
        self,
        expected_tokens: float,
        high_tokens: float,
        median_tokens: float,
        sigma: float,
        tokens_max: int | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.expected_tokens, self.high_tokens, self.median_tokens = expected_tokens, high_tokens, median_tokens
        self.sigma = sigma
        self.tokens_max = tokens_max
        self.shares: Shares = [] if shares is None else shares
        self._ahead: Ahead | None = None

    def given(self, streamed: float) -> "Length":
        """What is believed once so many tokens have streamed and more come: of the whole output, not of the rest."""
        return length_of(bins.beyond(self.shares, streamed), self.tokens_max)

    def rest(self, said: int) -> "Length":
        """What is believed of the rest, once so many tokens have streamed and the answer broke off."""
        whole = self.given(float(said)) if self.shares else self
        left = whole.tokens_max if whole.tokens_max is None else max(whole.tokens_max - said, 1)
        return Length(
            max(whole.expected_tokens - said, 1.0),
            max(whole.high_tokens - said, 1.0),
            max(whole.median_tokens - said, 1.0),
            whole.sigma,
            left,
        )

    def ahead(self) -> Ahead | None:
        """How long it is in all, by thirds, once more than each of `bins.AHEAD_TOKENS` has streamed."""
        if self._ahead is None and self.shares:
            # Requests that are alike ask for the same one, until an answer ends.
            self._ahead = bins.ahead(self.shares, self.tokens_max, self.expected_tokens)
        return self._ahead


def length_of(shares: Shares, tokens_max: int | None) -> Length:
    """The figures of what is believed, cut at the client's own bound."""
    low, median, high = quantiles(shares, (1.0 - HIGH, 0.5, HIGH))
    if tokens_max is not None:
        bound = max(float(tokens_max), 1.0)
        low, median, high = min(low, bound), min(median, bound), min(high, bound)
    sigma = max(log(high / low) / _DEVIATIONS, SIGMA_MIN)
    return Length(mean(shares, tokens_max), high, median, sigma, tokens_max, shares)
