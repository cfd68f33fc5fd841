"""What tokens cost: prices by kind of token, and by the length of the prompt."""

from typing import Final

import msgspec

# What a chat template puts around a message at most: names of roles, tools and markers.
TEMPLATE_TOKENS_MAX: Final = 64


class Rates(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Dollars per token of each kind.

    Input tokens that the endpoint reads from its cache, or is told to keep there, may have a price of their own, and so
    may those of its reasoning, which are output. None is the price of the other tokens of that direction.
    """

    usd_per_input_token: float = 0.0
    usd_per_cached_token: float | None = None
    usd_per_cache_write_token: float | None = None
    usd_per_output_token: float = 0.0
    usd_per_reasoning_token: float | None = None

    @property
    def usd_per_input_token_most(self) -> float:
        """The dearest that an input token can be."""
        return max(self.usd_per_input_token, self.usd_per_cached_token or 0.0, self.usd_per_cache_write_token or 0.0)

    @property
    def usd_per_output_token_most(self) -> float:
        """The dearest that an output token can be."""
        return max(self.usd_per_output_token, self.usd_per_reasoning_token or 0.0)


class Tier(Rates, frozen=True, kw_only=True, omit_defaults=False):
    """The rates of all tokens of a request whose prompt exceeds `above_tokens`."""

    above_tokens: int


class Price(Rates, frozen=True, kw_only=True, omit_defaults=False):
    """What an endpoint charges. Zero is a price that somebody set, never one that is unknown.

    `tiers` are in ascending order of the prompt length above which they replace the rates here.
    """

    tiers: tuple[Tier, ...] = ()

    def usd(
        self,
        input_tokens: float,
        output_tokens: float,
        cached_tokens: float = 0.0,
        cache_write_tokens: float = 0.0,
        reasoning_tokens: float = 0.0,
    ) -> float:
        """What these tokens cost; the last three are part of the input and of the output."""
        rates: Rates = self
        for tier in self.tiers:
            if input_tokens > tier.above_tokens:
                rates = tier
        input_usd, output_usd = rates.usd_per_input_token, rates.usd_per_output_token
        usd = (input_tokens - cached_tokens - cache_write_tokens) * input_usd
        usd += (output_tokens - reasoning_tokens) * output_usd
        if cached_tokens:
            usd += cached_tokens * (input_usd if (own := rates.usd_per_cached_token) is None else own)
        if cache_write_tokens:
            usd += cache_write_tokens * (input_usd if (own := rates.usd_per_cache_write_token) is None else own)
        if reasoning_tokens:
            usd += reasoning_tokens * (output_usd if (own := rates.usd_per_reasoning_token) is None else own)
        return usd

    @property
    def asks_money(self) -> bool:
        """Whether any token costs anything."""
        return self.upper_usd(1.0, 1.0) > 0.0 or any(
            tier.usd_per_input_token_most + tier.usd_per_output_token_most > 0.0 for tier in self.tiers
        )

    def upper_usd(self, input_tokens: float, output_tokens: float) -> float:
        """The most that so many tokens or fewer can cost, of whatever kinds they turn out to be."""
        if not self.tiers:
            return input_tokens * self.usd_per_input_token_most + output_tokens * self.usd_per_output_token_most
        # A shorter prompt may be in a dearer tier, so each that is within reach counts.
        reached = [self, *(tier for tier in self.tiers if input_tokens > tier.above_tokens)]
        input_usd = max(rates.usd_per_input_token_most for rates in reached)
        return input_tokens * input_usd + output_tokens * max(rates.usd_per_output_token_most for rates in reached)
