"""The configuration that is made of what was found."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.build import Built, build
from tidegate.config.cap import Cap, Period
from tidegate.config.discovered import (
    ASSUMED_TOKENS,
    FoundEngine,
    FoundModel,
    State,
    remote_name,
    served_names,
    toml,
)
from tidegate.config.endpoint import EngineKind
from tidegate.config.load import load, parse
from tidegate.config.vendors import VENDORS, Offered, Remote, remotes
from tidegate.core.model import Capability, Endpoint

NOW_S = 1_795_500_000.0  # in November 2026
SECRET = "sk-very-secret-0123"
KEYS = {vendor.variable: f"{SECRET}-{vendor.name}" for vendor in VENDORS}
LOCAL = [EngineKind.LLAMACPP, EngineKind.OLLAMA, EngineKind.VLLM, EngineKind.SGLANG, EngineKind.OPENAI]


def engine(*models: FoundModel, kind: EngineKind = EngineKind.VLLM, port: int = 8000, **fields: object) -> FoundEngine:
    made = {"url": f"http://127.0.0.1:{port}/v1", "software": "an engine", "state": State.READY} | fields
    return FoundEngine(kind=kind, models=models, **made)  # type: ignore[arg-type]


def model(name: str = "m", **fields: object) -> FoundModel:
    return FoundModel(name=name, **fields)  # type: ignore[arg-type]


def built(*engines: FoundEngine, keys: dict[str, str] | None = None, usd_per_day: float | None = None) -> Built:
    known = keys or {}
    return build(parse(toml(engines, remotes(known, NOW_S), usd_per_day), "tidegate.toml", known), NOW_S)


def endpoints(made: Built) -> dict[str, Endpoint]:
    return {one.name: one for one in made.endpoints}


# --- engines ----------------------------------------------------------------------------------------------------------


def test_an_engine_becomes_a_local_endpoint_with_what_it_told() -> None:
    made = built(engine(model(context_tokens=1024), kind=EngineKind.LLAMACPP, port=8080, slots=3))
    (one,) = made.endpoints
    assert (one.name, one.site, one.local, one.models, one.concurrency) == ("llamacpp-8080", "here", True, ("m",), 3)
    assert made.upstreams[one.name].asks_context, "what the engine tells may change, so it is asked on"


def test_an_engine_that_never_tells_its_window_gets_the_one_that_was_found_or_else_a_small_one() -> None:
    made = built(engine(model("a"), model("b", context_tokens=8192), kind=EngineKind.OPENAI, port=1234))
    assert [one.context_tokens for one in made.endpoints] == [ASSUMED_TOKENS, 8192]


def test_each_model_of_an_engine_is_an_endpoint_and_together_they_are_asked_no_more_than_one() -> None:
    made = built(engine(model("a"), model("b"), model("c")))
    assert [one.name for one in made.endpoints] == ["vllm-8000-a", "vllm-8000-b", "vllm-8000-c"]
    assert {one.probe_s for one in made.upstreams.values()} == {15.0}


def test_engines_that_serve_the_same_name_are_one_model_for_clients() -> None:
    made = built(engine(model()), engine(model(), kind=EngineKind.LLAMACPP, port=8080))
    assert [one.models for one in made.endpoints] == [("m",), ("m",)]


def test_in_ollama_a_name_without_a_tag_is_the_latest() -> None:
    (one,) = built(engine(model("llama3.2:latest"), kind=EngineKind.OLLAMA, port=11434)).endpoints
    assert set(one.models) == {"llama3.2:latest", "llama3.2"}


def test_an_engine_that_sees_can_do_that_besides_the_usual() -> None:
    (blind,) = built(engine(model())).endpoints
    (seeing,) = built(engine(model(vision=True))).endpoints
    assert set(seeing.capabilities) == {*blind.capabilities, Capability.VISION}


def test_a_model_without_tools_can_do_the_rest_of_the_usual() -> None:
    (usual,) = built(engine(model(), kind=EngineKind.OLLAMA)).endpoints
    (without,) = built(engine(model(tools=False), kind=EngineKind.OLLAMA)).endpoints
    assert set(usual.capabilities) - set(without.capabilities) == {Capability.TOOLS}
    (seeing,) = built(engine(model(tools=False, vision=True), kind=EngineKind.OLLAMA)).endpoints
    assert set(seeing.capabilities) == {*without.capabilities, Capability.VISION}


def test_what_is_not_served_is_no_endpoint() -> None:
    locked = engine(state=State.LOCKED, port=8080)
    made = built(engine(model("a"), model("e", remark="it makes embeddings")), locked)
    assert [one.models for one in made.endpoints] == [("a",)]


def test_an_engine_elsewhere_in_the_network_stands_at_a_site_of_its_own() -> None:
    (one,) = built(engine(model(), url="http://gpu-box.lan:8000/v1")).endpoints
    assert (one.site, one.local, one.name) == ("network", True, "vllm-gpu-box.lan-8000")


VENDOR_NAMES = [name for vendor in VENDORS for model, *_ in vendor.models for name in (model, f"{vendor.name}/{model}")]
NAMES = st.sampled_from(VENDOR_NAMES) | (
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=256).map(str.strip).filter(bool)
)
MODELS = st.builds(
    FoundModel,
    name=NAMES,
    context_tokens=st.none() | st.integers(128, 100_000_000),
    vision=st.booleans(),
    tools=st.booleans(),
    remark=st.sampled_from(["", "", "not served"]),
)
ENGINES = st.builds(
    FoundEngine,
    url=st.sampled_from(
        ["http://127.0.0.1:8080/v1", "http://[::1]:9/v1", "https://gpu.lan/deep/path/v1", "http://10.0.0.1:1/v1"]
    ),
    kind=st.sampled_from(LOCAL),
    software=st.just("an engine"),
    state=st.sampled_from(State),
    models=st.lists(MODELS, max_size=4, unique_by=lambda one: one.name).map(tuple),
    slots=st.none() | st.integers(1, 10_000),
)
FOUND = st.lists(ENGINES, max_size=4, unique_by=lambda one: one.url)


@pytest.mark.lengthy
@given(FOUND, st.none() | st.floats(0.01, 1e6))
def test_whatever_is_found_makes_a_good_configuration_with_each_model_once(
    engines: list[FoundEngine], usd_per_day: float | None
) -> None:
    served = [(one.url, model.name) for one in engines for model in one.served]
    if not served:
        return
    made = built(*engines, keys=KEYS, usd_per_day=usd_per_day)
    local = [one for one in made.endpoints if one.local]
    assert len(local) == len(served)
    assert {name for one in local for name in one.models} == served_names(engines)
    away = {name for one in made.endpoints if not one.local for name in one.models}
    assert not away & served_names(engines), "what is asked of an engine here stays here"


@pytest.mark.lengthy
@given(FOUND.filter(bool), st.none() | st.floats(0.01, 1e6))
def test_the_text_written_down_and_read_again_is_the_same_configuration(
    tmp_path_factory: pytest.TempPathFactory, engines: list[FoundEngine], usd_per_day: float | None
) -> None:
    text = toml([engine(model("always")), *engines], remotes(KEYS, NOW_S), usd_per_day)
    file = tmp_path_factory.getbasetemp() / "tidegate.toml"
    file.write_text(text)
    written, unwritten = load(file, KEYS), parse(text, str(file), KEYS)
    assert build(written, NOW_S) == build(unwritten, NOW_S)


# --- vendors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda one: one.name)
def test_each_model_that_a_vendor_begins_with_has_a_known_price_and_a_window_that_it_has(vendor: object) -> None:
    known = remotes(KEYS, NOW_S)
    (remote,) = (one for one in known if one.vendor is vendor)
    assert remote.usable == remote.models
    assert all(one.price is not None and one.price.usd_per_output_token > 0 for one in remote.models)


def test_without_a_budget_no_vendor_is_an_endpoint() -> None:
    made = built(engine(model()), keys=KEYS)
    assert [one.local for one in made.endpoints] == [True]
    assert {one.key for one in made.upstreams.values()} == {None}
    assert made.caps == ()


def test_what_is_commented_out_is_what_a_budget_enables() -> None:
    known = remotes(KEYS, NOW_S)
    off, on = (toml([engine(model())], known, usd) for usd in (None, 5.0))
    own, _, vendors = off.partition("# Without a file")
    uncommented = [line.removeprefix("# ") for line in vendors.splitlines()[1:]]
    assert tomllib.loads("\n".join([own, *uncommented])) == tomllib.loads(on)


def test_with_a_budget_each_vendor_is_an_endpoint_with_its_price_and_the_budget_a_cap() -> None:
    made = built(engine(model()), keys=KEYS, usd_per_day=5.0)
    away = [one for one in made.endpoints if not one.local]
    assert {one.site for one in away} == {vendor.name for vendor in VENDORS}
    assert all(one.price.usd_per_output_token > 0 for one in away)
    assert made.caps == (Cap(usd=5.0, period=Period.DAY),)


def test_a_model_whose_price_is_unknown_stays_out() -> None:
    (known,) = remotes({"OPENAI_API_KEY": SECRET}, NOW_S)
    unknown = Offered(name="gpt-99", context_tokens=8192, price=None, remark="the price list does not have the model")
    remote = Remote(vendor=known.vendor, models=(known.models[0], unknown))
    assert "gpt-99" not in toml([engine(model())], [remote], 5.0)


def test_a_vendors_model_with_the_name_of_one_here_is_served_under_another() -> None:
    (groq,) = remotes({"GROQ_API_KEY": SECRET}, NOW_S)
    here = engine(model(groq.models[0].name))
    made = built(here, keys={"GROQ_API_KEY": SECRET}, usd_per_day=1.0)
    serving = [one for one in made.endpoints if groq.models[0].name in one.models]
    assert [one.local for one in serving] == [True]
    assert remote_name(groq.models[0], groq, served_names([here])) == f"groq/{groq.models[0].name}"


def test_that_other_name_is_no_name_of_one_here_either() -> None:
    (groq,) = remotes({"GROQ_API_KEY": SECRET}, NOW_S)
    name = groq.models[0].name
    here = engine(model(name), model(f"groq/{name}"), model(f"groq/groq/{name}"))
    made = built(here, keys={"GROQ_API_KEY": SECRET}, usd_per_day=1.0)
    away = {name for one in made.endpoints if not one.local for name in one.models}
    assert not away & served_names([here])
    assert f"groq/groq/groq/{name}" in away


@pytest.mark.parametrize("value", ["", "   "])
def test_an_empty_variable_is_no_key(value: str) -> None:
    assert remotes({"OPENAI_API_KEY": value}, NOW_S) == ()


def test_a_key_that_cannot_be_one_is_said_and_not_used() -> None:
    (remote,) = remotes({"OPENAI_API_KEY": "sk-two\nlines"}, NOW_S)
    assert "OPENAI_API_KEY" in remote.remark
    assert "two" not in remote.remark
    assert remote.usable == ()


@pytest.mark.parametrize("usd_per_day", [None, 5.0])
def test_no_key_is_written_or_shown(usd_per_day: float | None, tmp_path: Path) -> None:
    known = remotes(KEYS, NOW_S)
    assert SECRET not in toml([engine(model())], known, usd_per_day)
    assert SECRET not in repr(known)


def test_the_example_is_what_would_be_written() -> None:
    here = [
        engine(
            model("qwen3:8b", context_tokens=16384), kind=EngineKind.LLAMACPP, port=8080, software="llama.cpp", slots=2
        ),
        engine(
            model("qwen3:8b"),
            model("llama3.2:latest", context_tokens=4096),
            kind=EngineKind.OLLAMA,
            port=11434,
            software="Ollama",
        ),
    ]
    known = remotes({"OPENAI_API_KEY": SECRET}, NOW_S)
    assert Path("examples/found.toml").read_text() == toml(here, known, None)
