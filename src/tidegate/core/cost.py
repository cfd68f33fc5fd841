"""What a request costs at one endpoint: its tokens, paid to others, and the time of an engine."""

from tidegate.core.model import Endpoint


class Cost:
    """The prices of one endpoint, as `EndpointModel` asks for them."""

    __slots__ = (
        "_cached_usd",
        "_input_usd",
        "_input_usd_least",
        "_output_usd",
        "_price",
        "_tiered",
        "is_paid",
        "usd_per_s",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        price = self._price = endpoint.price
        # Whether anything is paid to others for tokens.
        self.is_paid = price.asks_money
        self.usd_per_s = endpoint.running_usd(1.0)
        self._tiered = bool(price.tiers)
        self._input_usd, self._output_usd = price.usd_per_input_token, price.usd_per_output_token
        cached_usd = price.usd_per_cached_token
        # What a token costs more that is cached; mostly it is less.
        self._cached_usd = 0.0 if cached_usd is None else cached_usd - self._input_usd
        self._input_usd_least = self._input_usd + min(0.0, self._cached_usd)

    def usd(self, tokens: int, output_tokens: float, cached_tokens: float) -> float:
        """Dollars for so many tokens, so many of the prompt's cached."""
        if self._tiered:
            return self._price.usd(tokens, output_tokens, cached_tokens)
        return tokens * self._input_usd + output_tokens * self._output_usd + cached_tokens * self._cached_usd

    def usd_least(self, tokens: int, output_tokens: float) -> float:
        """The same at least, whatever is cached."""
        if self._tiered:
            return min(self._price.usd(tokens, output_tokens, cached) for cached in (0.0, tokens))
        return tokens * self._input_usd_least + output_tokens * self._output_usd
