"""How large things are: distributions as their inverse, from a share of the cases to the value they stay below."""

from bisect import bisect_right
from math import exp, log, sqrt
from random import Random
from statistics import NormalDist
from typing import Protocol

import msgspec

# Where tables of quantiles have their knots: close together in the tails, which decide what is late.
SHARES = (
    *(0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
    *(0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0),
)
_NORMAL = NormalDist()
# inv_cdf wants what lies strictly between nought and one, and random() may say nought.
_LEAST = 2.0**-54


class Distribution(Protocol):
    """A distribution of one number."""

    def at(self, share: float) -> float:
        """The value below which this share of all cases lies, `share` from 0 to 1; rising with it."""


class Quantiles(msgspec.Struct, frozen=True):
    """A table of values at `SHARES`, straight lines between them."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        assert len(self.values) == len(SHARES)
        assert all(low <= high for low, high in zip(self.values, self.values[1:], strict=False))

    def at(self, share: float) -> float:
        """Interpolated."""
        i = min(bisect_right(SHARES, share), len(SHARES) - 1)
        low, begun = self.values[i - 1], SHARES[i - 1]
        return low + (self.values[i] - low) * (share - begun) / (SHARES[i] - begun)

    @property
    def mean(self) -> float:
        """Of the table with its straight lines."""
        values = self.values
        steps = range(1, len(SHARES))
        return sum((values[i] + values[i - 1]) / 2.0 * (SHARES[i] - SHARES[i - 1]) for i in steps)


class LogNormal(msgspec.Struct, frozen=True, kw_only=True):
    """A median, and the standard deviation `sigma` of the logarithm."""

    median: float
    sigma: float
    most: float = float("inf")

    def __post_init__(self) -> None:
        assert self.median > 0.0
        assert self.sigma >= 0.0

    @classmethod
    def of(cls, *, mean: float, cv: float) -> "LogNormal":
        """With this mean and coefficient of variation."""
        variance = log(1.0 + cv * cv)
        return cls(median=mean * exp(-variance / 2.0), sigma=sqrt(variance))

    def at(self, share: float) -> float:
        """Cut at `most`."""
        return min(self.median * exp(self.sigma * normal(share)), self.most)


class Constant(msgspec.Struct, frozen=True):
    """Always the same."""

    value: float

    def at(self, share: float) -> float:  # noqa: ARG002 # the same for all
        """The value."""
        return self.value


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of prompt and output. `correlation` is that of their ranks, as normal scores (a Gaussian copula)."""

    prompt_tokens: Distribution
    output_tokens: Distribution
    correlation: float = 0.0

    def __post_init__(self) -> None:
        assert -1.0 <= self.correlation <= 1.0

    def draw(self, random: Random) -> tuple[int, int]:
        """Prompt and output tokens of one request, each at least one. Always takes two numbers of chance."""
        share, other = random.random(), random.random()
        if self.correlation:
            tied = self.correlation * normal(share) + sqrt(1.0 - self.correlation**2) * normal(other)
            other = _NORMAL.cdf(tied)
        return whole(self.prompt_tokens.at(share)), whole(self.output_tokens.at(other))


def normal(share: float) -> float:
    """The standard normal value below which this share lies."""
    return _NORMAL.inv_cdf(min(max(share, _LEAST), 1.0 - 2.0**-53))


def whole(tokens: float) -> int:
    """Tokens are whole, and there is at least one."""
    return int(tokens + 0.5) or 1
