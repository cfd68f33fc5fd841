"""What is known to leave is never taken for what stays; what nobody knows is left to who writes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_malformed import HOME, MINE
from tidegate.config.address import parse_url
from tidegate.config.away import in_ollamas_cloud, vendor_of
from tidegate.config.load import parse
from tidegate.config.vendors import VENDORS, Vendor


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda one: one.name)
@given(
    region=st.sampled_from(("", "eu.", "US.")),
    scheme=st.sampled_from(("http", "https")),
    port=st.sampled_from(("", ":443", ":8443")),
    dot=st.sampled_from(("", ".")),
)
def test_a_vendors_address_is_known_however_it_is_written(
    vendor: Vendor, region: str, scheme: str, port: str, dot: str
) -> None:
    host, slash, path = vendor.url.removeprefix("https://").partition("/")
    assert vendor_of(parse_url(f"{scheme}://{region}{host}{dot}{port}{slash}{path}")) == vendor.provider


@pytest.mark.parametrize(
    "url",
    [
        "https://mine.openai.azure.com/openai/v1",
        "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
        "https://ollama.com",
    ],
)
def test_so_is_that_of_a_vendor_whose_keys_nobody_looks_for(url: str) -> None:
    assert vendor_of(parse_url(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://api.openai.com.lan:8000",
        "http://[fd00::7]:8000",
        "https://gpu.example.com/v1",
        "https://llm.example.com/api.openai.com",
        "https://myapi.openai.com.example.com",
    ],
)
def test_an_address_that_may_be_ones_own_is_believed_to_be(url: str) -> None:
    assert vendor_of(parse_url(url)) == ""
    parse(HOME + MINE.replace("http://127.0.0.1:8080", url), "tidegate.toml", {})


@pytest.mark.parametrize(
    ("model", "away"),
    [
        ("gpt-oss:120b-cloud", True),
        ("glm-4.6:cloud", True),
        ("GPT-OSS:120B-Cloud", True),
        ("my-cloud", False),
        ("cloud", False),
        ("storm:cloudy", False),
        ("gpt-oss:20b", False),
    ],
)
def test_what_ollama_passes_on_is_told_by_its_tag(model: str, away: bool) -> None:
    assert in_ollamas_cloud(model) is away
