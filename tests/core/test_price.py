"""What tokens cost, and the most they can cost."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests import make
from tidegate.core.model import Endpoint, Price, Tier, replace

amounts = st.floats(0.0, 1e-3)
maybe = st.none() | amounts
counts = st.integers(0, 2_000_000)
RATES = {
    "usd_per_input_token": amounts,
    "usd_per_cached_token": maybe,
    "usd_per_cache_write_token": maybe,
    "usd_per_output_token": amounts,
    "usd_per_reasoning_token": maybe,
}


@st.composite
def prices(draw: st.DrawFn) -> Price:
    starts = sorted(draw(st.sets(counts, max_size=3)))
    tiers = tuple(draw(st.builds(Tier, above_tokens=st.just(start), **RATES)) for start in starts)
    return draw(st.builds(Price, tiers=st.just(tiers), **RATES))


@st.composite
def splits(draw: st.DrawFn, most: int) -> tuple[int, int, int]:
    """At most this many tokens: all of them, and two parts of them."""
    all_of_them = draw(st.integers(0, most))
    one = draw(st.integers(0, all_of_them))
    return all_of_them, one, draw(st.integers(0, all_of_them - one))


@given(st.data(), prices(), counts, counts)
def test_no_split_of_so_many_tokens_or_fewer_costs_more_than_the_upper_bound(
    data: st.DataObject, price: Price, input_most: int, output_most: int
) -> None:
    input_tokens, cached, written = data.draw(splits(input_most))
    output_tokens, reasoning, _ = data.draw(splits(output_most))
    usd = price.usd(input_tokens, output_tokens, cached, written, reasoning)
    # The last digit of a float sum is all that may be above.
    assert 0.0 <= usd <= price.upper_usd(input_most, output_most) * (1 + 1e-12)


@given(prices(), counts, counts)
def test_the_upper_bound_is_reached_by_some_kinds_of_tokens_where_there_are_no_tiers(
    price: Price, input_tokens: int, output_tokens: int
) -> None:
    flat = replace(price, tiers=())
    dearest = max(
        flat.usd(input_tokens, output_tokens, cached, written, reasoning)
        for cached, written in ((0, 0), (input_tokens, 0), (0, input_tokens))
        for reasoning in (0, output_tokens)
    )
    assert abs(flat.upper_usd(input_tokens, output_tokens) - dearest) <= 1e-12 * dearest


def test_a_kind_without_a_price_of_its_own_costs_what_the_others_do() -> None:
    price = Price(usd_per_input_token=2.0, usd_per_output_token=5.0)
    assert price.usd(10, 4, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1) == 40.0


def test_each_kind_is_charged_at_its_price() -> None:
    price = Price(
        usd_per_input_token=2.0,
        usd_per_cached_token=0.5,
        usd_per_cache_write_token=4.0,
        usd_per_output_token=5.0,
        usd_per_reasoning_token=7.0,
    )
    assert price.usd(10, 4, cached_tokens=3, cache_write_tokens=2, reasoning_tokens=1) == 10.0 + 1.5 + 8.0 + 15.0 + 7.0


def test_a_free_kind_is_free_rather_than_unknown() -> None:
    assert Price(usd_per_input_token=2.0, usd_per_cached_token=0.0).usd(10, 0, cached_tokens=10) == 0.0


def test_a_tier_begins_above_its_tokens_and_holds_for_all_of_the_request() -> None:
    price = Price(
        usd_per_input_token=1.0,
        usd_per_output_token=2.0,
        tiers=(
            Tier(above_tokens=100, usd_per_input_token=3.0, usd_per_output_token=4.0),
            Tier(above_tokens=200, usd_per_input_token=5.0, usd_per_output_token=6.0),
        ),
    )
    assert [price.usd(n, 10) for n in (100, 101, 200, 201)] == [120.0, 343.0, 640.0, 1065.0]


def test_the_upper_bound_minds_a_dearer_tier_that_a_shorter_prompt_falls_into() -> None:
    price = Price(usd_per_input_token=5.0, tiers=(Tier(above_tokens=100, usd_per_input_token=1.0),))
    assert price.upper_usd(101, 0) >= price.usd(100, 0)


def test_an_endpoint_written_down_before_there_were_tiers_is_read() -> None:
    old = (
        b'{"name":"e","site":"s","local":false,"models":["m"],"context_tokens":8,"concurrency":1,"price":'
        b'{"usd_per_input_token":1e-6,"usd_per_cached_token":5e-7,"usd_per_output_token":4e-6}}'
    )
    endpoint = msgspec.json.decode(old, type=Endpoint)
    assert endpoint.price == Price(
        usd_per_input_token=1e-6, usd_per_cached_token=5e-7, usd_per_output_token=4e-6, tiers=()
    )
    assert endpoint.usd_per_s == 0.0


@given(prices())
def test_a_price_is_written_out_whole_and_read_again(price: Price) -> None:
    written = msgspec.json.encode(price)
    assert msgspec.json.decode(written, type=Price) == price
    assert set(msgspec.json.decode(written)) == {*RATES, "tiers"}


def test_a_second_of_an_engine_is_shared_by_what_it_runs_at_once() -> None:
    assert make.endpoint(concurrency=4, usd_per_s=0.002).running_usd(10.0) == 0.005
    assert make.endpoint(concurrency=4).running_usd(10.0) == 0.0
