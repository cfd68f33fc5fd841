"""From a price as it is written to the one in force: refused where anything of it is unknown."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

from tidegate.clock import day, day_number
from tidegate.config import listed
from tidegate.config.endpoint import EndpointTable
from tidegate.config.listed import NotListedError
from tidegate.config.price import PriceTable, PriceWord, RatesTable, RunningCostTable
from tidegate.config.problem import Problems
from tidegate.config.schema import SiteTable
from tidegate.core.model import Capability, Price, Tier, replace

PRICE_REMEDY = (
    "write price = { usd_per_1m_input_tokens = ..., usd_per_1m_output_tokens = ... } from the vendor's price list, "
    'price = "list" to have it looked up, or price = "free" if it costs nothing'
)
_CACHED_REMEDY = (
    "write the price of reading from the cache; what writing into it costs is usd_per_1m_cache_write_tokens"
)
HOUR_S = 3600.0
_R = TypeVar("_R", Price, Tier)

_WRITTEN = {
    "usd_per_input_token": "usd_per_1m_input_tokens",
    "usd_per_cached_token": "usd_per_1m_cached_tokens",
    "usd_per_cache_write_token": "usd_per_1m_cache_write_tokens",
    "usd_per_output_token": "usd_per_1m_output_tokens",
    "usd_per_reasoning_token": "usd_per_1m_reasoning_tokens",
}
"""The file's name of each rate."""

_NEEDED = frozenset({"usd_per_input_token", "usd_per_output_token"})
"""Rates for which there is no other to take."""


def price(endpoint: EndpointTable, at_s: float) -> Price:
    """What its tokens cost at that time; `check` has refused whatever this could not answer."""
    if endpoint.price is None or endpoint.price is PriceWord.FREE:
        return Price()
    table = _in_force(_tables(endpoint), at_s)
    own = _rates(table)
    tiers = tuple(Tier(above_tokens=one.above_tokens, **_rates(one)) for one in table.tiers)
    if not _looked_up(endpoint, table):
        return Price(**own, tiers=tiers)
    found = _find(endpoint, table).price(at_s)
    # A number of one's own holds for prompts of every length, unless its tiers are written too.
    tiers = tiers or tuple(_overruled(tier, own) for tier in found.tiers)
    return replace(_overruled(found, own), tiers=tiers)


def usd_per_s(table: RunningCostTable | None) -> float:
    """What a second of the engine costs."""
    if table is None:
        return 0.0
    power_usd_per_hour = (table.watts or 0.0) / 1000 * (table.usd_per_kwh or 0.0)
    return (power_usd_per_hour + (table.usd_per_hour or 0.0)) / HOUR_S


def check(path: str, endpoint: EndpointTable, site: SiteTable | None, problems: Problems) -> None:
    """Note what is unknown or contradicts itself in the money of an endpoint."""
    if endpoint.price is None:
        if site is not None and not site.local:
            problems.add(f"{path}.price", "a remote endpoint without a price: unknown is never zero", PRICE_REMEDY)
    elif isinstance(endpoint.price, tuple):
        _dates(f"{path}.price", endpoint.price, problems)
        for index, table in enumerate(endpoint.price):
            _price(f"{path}.price[{index}]", endpoint, table, problems)
    elif endpoint.price is not PriceWord.FREE:
        (table,) = _tables(endpoint)
        if table.starts is not None:
            problems.add(f"{path}.price.from", "what holds before that day is missing", "write a list of two tables")
        _price(f"{path}.price", endpoint, table, problems)
    running = endpoint.running_cost
    if running is not None and (running.watts is None) != (running.usd_per_kwh is None):
        problems.add(
            f"{path}.running_cost", "half of the power's cost is missing", "write both watts and usd_per_kwh, or none"
        )


def _tables(endpoint: EndpointTable) -> tuple[PriceTable, ...]:
    if isinstance(endpoint.price, PriceTable):
        return (endpoint.price,)
    return endpoint.price if isinstance(endpoint.price, tuple) else (PriceTable(),)


def _in_force(tables: tuple[PriceTable, ...], at_s: float) -> PriceTable:
    today = day(day_number(at_s))
    return next(table for table in reversed(tables) if table.starts is None or table.starts <= today)


def _looked_up(endpoint: EndpointTable, table: PriceTable) -> bool:
    return endpoint.price is PriceWord.LIST or bool(table.provider or table.model)


def _find(endpoint: EndpointTable, table: PriceTable) -> listed.Listed:
    return listed.find(table.provider, table.model or endpoint.model, endpoint.url)


def _rates(table: RatesTable) -> dict[str, float]:
    """The rates that are written, by the core's names."""
    found = {rate: getattr(table, written) for rate, written in _WRITTEN.items()}
    return {rate: usd_per_1m / 1e6 for rate, usd_per_1m in found.items() if usd_per_1m is not None}


def _overruled(found: _R, own: Mapping[str, float]) -> _R:
    """What the list has, with one's own numbers in it.

    Who pays less for input than the list has for what is cached does not pay that for what is cached: it is as the
    input then.
    """
    made = replace(found, **own)
    written = "usd_per_input_token" in own and "usd_per_cached_token" not in own
    dearer = (made.usd_per_cached_token or 0.0) > made.usd_per_input_token
    return replace(made, usd_per_cached_token=None) if written and dearer else made


def _dates(path: str, tables: tuple[PriceTable, ...], problems: Problems) -> None:
    if tables[0].starts is not None:
        problems.add(f"{path}[0].from", "what holds before that day is missing", "remove it: the first always held")
    for index, (before, table) in enumerate(pairwise(tables), start=1):
        if table.starts is None:
            problems.add(f"{path}[{index}].from", "it is missing", "write the first day on which this holds")
        elif before.starts is not None and table.starts <= before.starts:
            problems.add(f"{path}[{index}].from", "it is not after the one before", "put the tables in order of days")


def _price(path: str, endpoint: EndpointTable, table: PriceTable, problems: Problems) -> None:
    missing, remedy = _NEEDED, PRICE_REMEDY
    if _looked_up(endpoint, table):
        try:
            found = _find(endpoint, table)
        except NotListedError as error:
            where = f"{path}.{error.key}" if error.key and getattr(table, error.key) else path
            problems.add(where, error.message, error.remedy)
            return
        missing, remedy = missing & found.lacking(), listed.REMEDY
        _cached(path, table, found, problems)
        if Capability.AUDIO in (endpoint.capabilities or ()):
            _audio(path, table, found, problems)
        if found.makes_others() and table.usd_per_1m_output_tokens is None:
            problems.add(
                path,
                "the list has another price for images or video in its output, which are not told apart here",
                "write usd_per_1m_output_tokens as it is for those",
            )
    _amounts(path, table, missing, remedy, problems)
    for index, tier in enumerate(table.tiers):
        _amounts(f"{path}.tiers[{index}]", tier, _NEEDED, listed.REMEDY, problems)
        if index and tier.above_tokens <= table.tiers[index - 1].above_tokens:
            problems.add(f"{path}.tiers[{index}].above_tokens", "it is not above the one before", "put them in order")


def _cached(path: str, table: PriceTable, found: listed.Listed, problems: Problems) -> None:
    """A price of one's own for what is cached, beside the list's for the input, whatever that was and will be."""
    most = found.usd_per_1m_input_tokens_most()
    if table.usd_per_1m_input_tokens is None and 0.0 < most < (table.usd_per_1m_cached_tokens or 0.0):
        problems.add(
            f"{path}.usd_per_1m_cached_tokens",
            f"tokens from the cache cost more than others, which are {most:g} in the list",
            _CACHED_REMEDY,
        )


def _audio(path: str, table: PriceTable, found: listed.Listed, problems: Problems) -> None:
    """Tokens of audio are not told apart: unknown is never cheaper."""
    unwritten = [name for rate in found.other_for_audio() if getattr(table, name := _WRITTEN[rate]) is None]
    if unwritten:
        problems.add(
            path,
            "the list has prices of their own for tokens of audio, which are not told apart here",
            f"write {' and '.join(unwritten)} as they are for audio, or leave `audio` out of the capabilities",
        )


def _amounts(path: str, table: RatesTable, missing: frozenset[str], remedy: str, problems: Problems) -> None:
    """`missing` are the rates that nothing else gives."""
    if any(getattr(table, _WRITTEN[rate]) is None for rate in missing):
        problems.add(path, "half of the price is missing: unknown is never zero", remedy)
    elif table.usd_per_1m_input_tokens is not None and (
        (table.usd_per_1m_cached_tokens or 0.0) > table.usd_per_1m_input_tokens
    ):
        problems.add(
            f"{path}.usd_per_1m_cached_tokens",
            "tokens from the cache cost more than others",
            _CACHED_REMEDY,
        )
