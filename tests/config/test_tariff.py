"""What a price comes to, at a time."""

from pathlib import Path

import pytest
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given
from hypothesis import strategies as st

from tidegate.clock import Day, day_number, utc
from tidegate.config.build import build
from tidegate.config.config import Config
from tidegate.config.listed import Listed, find
from tidegate.config.load import load
from tidegate.config.problem import ConfigError
from tidegate.core.model import Endpoint, Price, Tier

DAY_S = 86_400.0
CLOUD = (
    '[site.cloud]\nlocal = false\n[endpoint.cloud]\nsite = "cloud"\nengine = "openai"\n'
    'url = "https://api.openai.com/v1"\nmodel = "gpt-4o-mini"\ncontext_tokens = 8192\n'
)
MINI = Price(usd_per_input_token=0.15 / 1e6, usd_per_cached_token=0.075 / 1e6, usd_per_output_token=0.6 / 1e6)


def seconds(year: int, month: int, day: int) -> float:
    return (Day(year, month, day).toordinal() - Day(1970, 1, 1).toordinal()) * DAY_S


NOW_S = seconds(2026, 11, 24)


def loaded(folder: Path, text: str) -> Config:
    file = folder / "tidegate.toml"
    file.write_text(CLOUD + text)
    return load(file, {})


def endpoint(folder: Path, text: str, now_s: float = NOW_S) -> Endpoint:
    (made,) = build(loaded(folder, text), now_s).endpoints
    return made


def price(folder: Path, text: str, now_s: float = NOW_S) -> Price:
    return endpoint(folder, "price = " + text + "\n", now_s).price


def test_a_price_is_turned_into_dollars_per_token(tmp_path: Path) -> None:
    text = (
        "{ usd_per_1m_input_tokens = 3, usd_per_1m_cached_tokens = 0.3, usd_per_1m_cache_write_tokens = 4, "
        "usd_per_1m_output_tokens = 15, usd_per_1m_reasoning_tokens = 20 }"
    )
    assert price(tmp_path, text) == Price(
        usd_per_input_token=3 / 1e6,
        usd_per_cached_token=0.3 / 1e6,
        usd_per_cache_write_token=4 / 1e6,
        usd_per_output_token=15 / 1e6,
        usd_per_reasoning_token=20 / 1e6,
    )


def test_a_long_prompt_has_the_prices_of_its_tier(tmp_path: Path) -> None:
    text = (
        "{ usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 2, "
        "tiers = [{ above_tokens = 1000, usd_per_1m_input_tokens = 2, usd_per_1m_output_tokens = 4 }] }"
    )
    found = price(tmp_path, text)
    assert found.usd(1000, 100) == pytest.approx(1.2e-3)
    assert found.usd(1001, 100) == pytest.approx(2.402e-3)


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_knows_the_model_of_the_provider_that_the_url_belongs_to(tmp_path: Path) -> None:
    assert price(tmp_path, '"list"') == MINI


def test_provider_and_model_can_be_named(tmp_path: Path) -> None:
    found = price(tmp_path, '{ provider = "anthropic", model = "claude-sonnet-4-5" }')
    assert found == Price(
        usd_per_input_token=3 / 1e6,
        usd_per_cached_token=0.3 / 1e6,
        usd_per_cache_write_token=3.75 / 1e6,
        usd_per_output_token=15 / 1e6,
        tiers=(
            Tier(
                above_tokens=200_000,
                usd_per_input_token=6 / 1e6,
                usd_per_cached_token=0.6 / 1e6,
                usd_per_cache_write_token=7.5 / 1e6,
                usd_per_output_token=22.5 / 1e6,
            ),
        ),
    )


def test_numbers_overrule_the_list_for_prompts_of_every_length(tmp_path: Path) -> None:
    found = price(tmp_path, '{ provider = "anthropic", model = "claude-sonnet-4-5", usd_per_1m_output_tokens = 1 }')
    assert found.usd_per_input_token == 3 / 1e6
    assert {found.usd_per_output_token, *(tier.usd_per_output_token for tier in found.tiers)} == {1 / 1e6}


def test_numbers_make_up_for_what_the_list_lacks(tmp_path: Path) -> None:
    text = '{ model = "whisper-1", usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 2 }'
    assert price(tmp_path, text) == Price(usd_per_input_token=1 / 1e6, usd_per_output_token=2 / 1e6)


def test_input_that_is_cheaper_than_what_the_list_has_for_the_cache_is_what_the_cache_costs(tmp_path: Path) -> None:
    named = 'provider = "anthropic", model = "claude-sonnet-4-5"'
    found = price(tmp_path, f"{{ {named}, usd_per_1m_input_tokens = 0.5 }}")
    # The list has 0.3 for what is cached of short prompts, and 0.6 for that of long ones.
    assert [rates.usd_per_cached_token for rates in (found, *found.tiers)] == [0.3 / 1e6, None]
    found = price(tmp_path, f"{{ {named}, usd_per_1m_input_tokens = 0.5, usd_per_1m_cached_tokens = 0.4 }}")
    assert [rates.usd_per_cached_token for rates in (found, *found.tiers)] == [0.4 / 1e6, 0.4 / 1e6]


def test_a_price_of_the_cache_above_the_lists_input_is_refused_with_both(tmp_path: Path) -> None:
    found = price(tmp_path, '{ provider = "openai", usd_per_1m_cached_tokens = 0.15 }')
    assert found.usd_per_cached_token == found.usd_per_input_token
    with pytest.raises(ConfigError) as refused:
        price(tmp_path, '{ provider = "openai", usd_per_1m_cached_tokens = 5 }')
    (problem,) = refused.value.problems
    assert problem.path == "endpoint.cloud.price.usd_per_1m_cached_tokens"
    assert "which are 0.15 in the list" in problem.message


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        ("capabilities = ['chat']\n", (2.5, 10)),
        ("capabilities = ['chat', 'audio']\n", (32, 64)),
    ],
)
def test_who_sends_no_audio_needs_no_price_for_it_and_who_does_writes_it(
    tmp_path: Path, more: str, rates: tuple[float, float]
) -> None:
    written = ", usd_per_1m_input_tokens = 32, usd_per_1m_output_tokens = 64" if "audio" in more else ""
    found = endpoint(tmp_path, more + f"price = {{ model = 'gpt-audio'{written} }}\n").price
    assert (found.usd_per_input_token, found.usd_per_output_token) == (rates[0] / 1e6, rates[1] / 1e6)


@pytest.mark.parametrize("model", ["gemini-2.5-flash-image", "gemini-omni-1.1-flash"])
def test_who_makes_images_or_video_has_its_output_priced_as_those_are(tmp_path: Path, model: str) -> None:
    named = f"provider = 'google', model = '{model}'"
    with pytest.raises(ConfigError) as found:
        price(tmp_path, f"{{ {named} }}")
    (problem,) = found.value.problems
    assert "usd_per_1m_output_tokens" in problem.remedy
    assert price(tmp_path, f"{{ {named}, usd_per_1m_output_tokens = 30 }}").usd_per_output_token == 30 / 1e6


def test_the_list_knows_what_was_charged_on_another_day(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'price = { model = "o3" }\n')
    before, after = (
        build(config, seconds(2025, 6, 10) + offset_s).endpoints[0].price.usd_per_input_token
        for offset_s in (-1.0, 0.0)
    )
    assert (before, after) == (10 / 1e6, 2 / 1e6)


@given(st.floats(0.0, DAY_S - 1.0))
def test_a_price_that_changes_within_the_day_is_taken_at_its_highest(offset_s: float) -> None:
    entry = find("deepseek", "deepseek-chat", "")
    found = entry.price(NOW_S + offset_s)
    assert found == entry.price(NOW_S)
    usage = Usage(input_tokens=1000, output_tokens=100)
    charged = entry.model.get_prices(utc(NOW_S + offset_s)).calc_price(usage)
    assert float(charged["total_price"]) <= found.usd(1000, 100) * (1 + 1e-12)


MODELS = [Listed(model) for provider in get_snapshot().providers for model in provider.models]
PRICED = [entry for entry in MODELS if not entry.lacking() & {"usd_per_input_token", "usd_per_output_token"}]


def test_most_models_of_the_list_have_a_price_by_the_token() -> None:
    assert len(PRICED) > 0.8 * len(MODELS)  # the others embed, speak or listen


@given(st.sampled_from(PRICED), st.integers(0, 1_000_000), st.integers(0, 100_000), st.data())
def test_a_listed_price_charges_what_the_list_charges(
    entry: Listed, input_tokens: int, output_tokens: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, input_tokens))
    written = data.draw(st.integers(0, input_tokens - cached))
    usage = Usage(
        input_tokens=input_tokens, cache_read_tokens=cached, cache_write_tokens=written, output_tokens=output_tokens
    )
    assume(not any(getattr(one, "requests_kcount", None) for one in entry.prices))
    charged = max(
        entry.model.get_prices(utc(NOW_S + step * 1800.0)).calc_price(usage)["total_price"] for step in range(48)
    )
    found = entry.price(NOW_S).usd(input_tokens, output_tokens, cached, written)
    assert found == pytest.approx(float(charged), rel=1e-9)


# --- dates ------------------------------------------------------------------------------------------------------------

DATED = (
    "[{ usd_per_1m_input_tokens = 1, usd_per_1m_output_tokens = 1 }, "
    "{ from = 2026-12-01, usd_per_1m_input_tokens = 2, usd_per_1m_output_tokens = 2 }, "
    '{ from = 2027-01-01, provider = "openai" }]'
)


@given(st.floats(seconds(2026, 11, 1), seconds(2027, 2, 1)))
def test_the_price_in_force_begins_at_midnight_utc_of_its_day(
    tmp_path_factory: pytest.TempPathFactory, now_s: float
) -> None:
    found = price(tmp_path_factory.getbasetemp(), DATED, now_s)
    on = utc(now_s).date()
    expected = 0.15 if on >= Day(2027, 1, 1) else 2 if on >= Day(2026, 12, 1) else 1
    assert found.usd_per_input_token == expected / 1e6


@given(st.floats(0.0, 4e9))
def test_a_price_holds_all_day(tmp_path_factory: pytest.TempPathFactory, now_s: float) -> None:
    config = loaded(tmp_path_factory.getbasetemp(), f"price = {DATED}\n")
    assert build(config, now_s).endpoints == build(config, day_number(now_s) * DAY_S).endpoints


# --- our own engines --------------------------------------------------------------------------------------------------


def test_power_and_rent_come_to_dollars_per_second(tmp_path: Path) -> None:
    text = "price = 'free'\nrunning_cost = { watts = 500, usd_per_kwh = 0.30, usd_per_hour = 1.65 }\nconcurrency = 4\n"
    made = endpoint(tmp_path, text)
    assert made.usd_per_s == pytest.approx(1.8 / 3600)
    assert made.running_usd(3600.0) == pytest.approx(1.8 / 4)
    assert made.price == Price()


def test_an_engine_whose_running_cost_is_not_written_costs_nothing_to_run(tmp_path: Path) -> None:
    assert endpoint(tmp_path, "price = 'free'\n").usd_per_s == 0.0
