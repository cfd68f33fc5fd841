"""What an endpoint costs, in the configuration file."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from tidegate.clock import Day
from tidegate.config.table import Table

UsdPerMillion = Annotated[float, Meta(ge=0, le=10_000)]  # the dearest public price is 600


class PriceWord(StrEnum):
    """A price in one word."""

    LIST = "list"
    FREE = "free"


class RatesTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars for a million tokens of each kind."""

    usd_per_1m_input_tokens: Annotated[
        UsdPerMillion | None, Meta(description="Dollars for a million prompt tokens.")
    ] = None
    usd_per_1m_cached_tokens: Annotated[
        UsdPerMillion | None,
        Meta(
            description="Dollars for a million prompt tokens that the endpoint reads from its cache. As the input, "
            "because not every vendor gives a discount."
        ),
    ] = None
    usd_per_1m_cache_write_tokens: Annotated[
        UsdPerMillion | None,
        Meta(
            description="Dollars for a million prompt tokens that the endpoint is told to keep in its cache. As the "
            "input, because few vendors charge for it."
        ),
    ] = None
    usd_per_1m_output_tokens: Annotated[
        UsdPerMillion | None, Meta(description="Dollars for a million tokens of output.")
    ] = None
    usd_per_1m_reasoning_tokens: Annotated[
        UsdPerMillion | None,
        Meta(
            description="Dollars for a million tokens of reasoning. As the output, because nearly every vendor "
            "counts them as such."
        ),
    ] = None


class TierTable(RatesTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prices of all tokens of a request with a long prompt; give input and output."""

    above_tokens: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,  # ten times the longest context there is
            description="Prompt tokens above which these prices hold instead of the others.",
        ),
    ]


class PriceTable(RatesTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens cost. Unknown is never zero: give input and output, or where the price list has them.

    `price = "list"` looks the endpoint's own model up in the price list of the provider that its URL belongs to, as
    the package genai-prices has it; nothing is fetched. `price = "free"` is for what costs nothing. With `provider` or
    `model` the price list is used too, and numbers beside them overrule it; where the input is overruled with less than
    the list has for what is read from the cache, that is as the input. A change that is known beforehand is a
    list of such tables, the first without `from`; a price that changes within the day is taken at its highest.

    Tokens of audio are not told apart. Where the list has prices of their own for them, an endpoint with the capability
    `audio` needs numbers, as they are for audio; without it, under a budget, a request for audio is refused with
    `unpriced_option`. Nor are those of images and video that a model makes: where the list has prices of their own for
    these, the output needs a number. What is written to a cache costs what five minutes there do: under a
    budget a request for longer (`"ttl": "1h"`) is refused with `unpriced_option`, and without one it is booked at that
    price, which is too low.
    """

    provider: Annotated[
        str,
        Meta(
            max_length=64,
            description="Whose price list: a provider's name in genai-prices, as in `openai`. Left out, the one that "
            "the endpoint's URL belongs to.",
        ),
    ] = ""
    model: Annotated[
        str,
        Meta(
            max_length=256,
            description="The model's name in the price list. Left out, the endpoint's own name for it.",
        ),
    ] = ""
    tiers: Annotated[
        tuple[TierTable, ...],
        Meta(
            max_length=8,  # the price lists have two at most
            description="Prices that hold for long prompts, in ascending order of their length.",
        ),
    ] = ()
    starts: Annotated[
        Day | None,
        Meta(description="First day on which this holds, from midnight UTC, where `price` is a list of tables."),
    ] = msgspec.field(default=None, name="from")


class RunningCostTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a running engine costs its owner: power, rent or both. A request pays for the time it is in use there."""

    watts: Annotated[
        Annotated[float, Meta(ge=0, le=1_000_000)] | None,  # a row of racks
        Meta(description="Power that the engine draws when it works."),
    ] = None
    usd_per_kwh: Annotated[
        Annotated[float, Meta(ge=0, le=10)] | None,  # ten times the dearest grid
        Meta(description="Dollars for a kilowatt-hour."),
    ] = None
    usd_per_hour: Annotated[
        Annotated[float, Meta(ge=0, le=10_000)] | None,  # a rack of the dearest accelerators rents for 1,000
        Meta(description="Dollars for an hour of rent, or of depreciation."),
    ] = None
