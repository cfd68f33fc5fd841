"""Prices from the list that genai-prices maintains, as it was when the package was made: nothing is fetched."""

import difflib
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from tidegate.clock import DAY_S, day_number, utc
from tidegate.config.problem import nearest
from tidegate.core.model import Price, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

REMEDY = "write usd_per_1m_input_tokens and usd_per_1m_output_tokens from the vendor's own price list"
STEP_S = 1800.0  # off-peak prices begin on the half hour

_RATES = {
    "usd_per_input_token": "input_mtok",
    "usd_per_cached_token": "cache_read_mtok",
    "usd_per_cache_write_token": "cache_write_mtok",
    "usd_per_output_token": "output_mtok",
    "usd_per_reasoning_token": "output_reasoning_mtok",
}
"""The list's name of each rate."""

_AUDIO = {
    "usd_per_input_token": "input_audio_mtok",
    "usd_per_cached_token": "cache_audio_read_mtok",
    "usd_per_output_token": "output_audio_mtok",
}
"""The list's name of what each of them is where the token is of audio, which the core does not tell apart."""

_MADE = ("output_image_mtok", "output_video_mtok")
"""The list's names of what output is where it is made of images or of video, which the core does not tell apart, nor
whether a request asks for them."""


class NotListedError(Exception):
    """The list does not have it. `key` is the setting that leads nowhere, empty where that is `price` itself."""

    def __init__(self, key: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.key, self.message, self.remedy = key, message, remedy


class Listed:
    """What the list has on one model."""

    def __init__(self, model: "ModelInfo") -> None:
        self.model = model

    @property
    def prices(self) -> "list[ModelPrice]":
        """All that was ever charged, or is announced."""
        prices = self.model.prices
        return [one.prices for one in prices] if isinstance(prices, list) else [prices]

    def lacking(self) -> set[str]:
        """The rates that the list does not have throughout, by the core's names."""
        return {rate for rate, key in _RATES.items() if any(getattr(one, key) is None for one in self.prices)}

    def usd_per_1m_input_tokens_most(self) -> float:
        """The most that input of a short prompt ever cost, or is announced to; 0 where the list does not have it."""
        told = (one.input_mtok for one in self.prices)
        return max((float(_usd_per_1m(value, 0)) for value in told if value is not None), default=0.0)

    def other_for_audio(self) -> list[str]:
        """The rates that are others for tokens of audio, by the core's names."""
        return [rate for rate, key in _AUDIO.items() if self._has_other(key, rate)]

    def makes_others(self) -> bool:
        """Whether its output is charged otherwise where that is of images or of video."""
        return any(self._has_other(key, "usd_per_output_token") for key in _MADE)

    def _has_other(self, key: str, rate: str) -> bool:
        """Whether what is charged for that kind of token is ever another price than the rate."""
        return any(getattr(one, key, None) not in (None, getattr(one, _RATES[rate])) for one in self.prices)

    def price(self, at_s: float) -> Price:
        """What is charged on the UTC day of `at_s`; the highest of that day, where it changes within it.

        Rates that the list lacks are zero here, or None where there is another to take for them.
        """
        midnight_s = day_number(at_s) * DAY_S
        in_force = [self.model.get_prices(utc(midnight_s + step * STEP_S)) for step in range(int(DAY_S / STEP_S))]
        values = [getattr(one, key) for one in in_force for key in _RATES.values()]
        starts = {tier.start for value in values for tier in getattr(value, "tiers", ())}
        return Price(
            **_rates(in_force, 0),
            tiers=tuple(Tier(above_tokens=start, **_rates(in_force, start + 1)) for start in sorted(starts)),
        )


def find(provider: str, model: str, url: str) -> Listed:
    """What the list has on a model of that provider, or of the one that `url` belongs to.

    Raises NotListedError.
    """
    # Loading it takes a tenth of a second and brings pydantic along: only who asks for the list pays for that.
    from genai_prices.data_snapshot import get_snapshot

    providers = get_snapshot().providers
    found = _by_name(providers, provider) if provider else _by_url(url)
    if not model:
        raise NotListedError("", "the endpoint has no name of its own for the model", 'write model = "..." for it')
    info = found.find_model(model, all_providers=providers)
    if info is None:
        close = difflib.get_close_matches(model.lower(), [one.id for one in found.models], n=1)
        hint = f"did you mean `{close[0]}`? Or " if close else ""
        raise NotListedError("model", f"the price list of `{found.id}` does not have the model", f"{hint}{REMEDY}")
    if any(getattr(one, "requests_kcount", None) is not None for one in Listed(info).prices):
        raise NotListedError("model", "the list has it billed by the request, not by tokens alone", REMEDY)
    return Listed(info)


def provider_of(url: str) -> str:
    """The list's name of the provider that it belongs to; empty where that is none."""
    try:
        return _by_url(url).id
    except NotListedError:
        return ""


def _by_name(providers: "Sequence[Provider]", name: str) -> "Provider":
    for provider in providers:
        if provider.id == name:
            return provider
    raise NotListedError("provider", "there is no such provider in the list", nearest(name, [p.id for p in providers]))


def _by_url(url: str) -> "Provider":
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider(None, None, url)
    except LookupError:
        remedy = f'name the provider, as in price = {{ provider = "openai" }}, or {REMEDY}'
        raise NotListedError("", "the endpoint's URL belongs to no provider in the price list", remedy) from None


def _rates(in_force: "list[ModelPrice]", input_tokens: int) -> dict[str, float]:
    rates: dict[str, float] = {}
    for rate, key in _RATES.items():
        found = [_usd_per_1m(value, input_tokens) for one in in_force if (value := getattr(one, key)) is not None]
        if len(found) == len(in_force):
            rates[rate] = float(max(found)) / 1e6
    return rates


def _usd_per_1m(value: "Decimal | TieredPrices", input_tokens: int) -> Decimal:
    if isinstance(value, Decimal):
        return value
    reached = [tier.price for tier in value.tiers if input_tokens > tier.start]
    return reached[-1] if reached else value.base
