"""The facts that are shipped, and which of them a name or an engine means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.facts import MODELS, PARAMETERS_MIN, known, nominal, told
from tidegate.core.fingerprint import Fingerprint
from tidegate.core.hardware import kv_bytes
from tidegate.core.model import replace


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [("llama-3.1-8b", 131_072), ("llama-3.1-70b", 327_680), ("qwen3-32b", 262_144), ("qwen3-30b-a3b", 98_304)],
)
def test_the_cache_of_a_model_has_the_size_that_is_published(name: str, bytes_per_token: int) -> None:
    assert kv_bytes(MODELS[name], 1) == bytes_per_token


# The inner size of the dense layers, or of an expert.
INNER = {
    "llama-2-7b": 11_008,
    "llama-2-13b": 13_824,
    "llama-2-70b": 28_672,
    "llama-3.1-8b": 14_336,
    "llama-3.1-70b": 28_672,
    "llama-3.2-1b": 8_192,
    "llama-3.2-3b": 8_192,
    "mistral-7b": 14_336,
    "qwen2.5-7b": 18_944,
    "qwen2.5-14b": 13_824,
    "qwen2.5-32b": 27_648,
    "qwen2.5-72b": 29_568,
    "qwen3-4b": 9_728,
    "qwen3-8b": 12_288,
    "qwen3-14b": 17_408,
    "qwen3-32b": 25_600,
    "qwen3-30b-a3b": 768,
    "mixtral-8x7b": 14_336,
    "smollm2-135m": 1_536,
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_parameters_of_a_model_are_those_of_its_layers(name: str) -> None:
    model = MODELS[name]
    attention = 2 * model.hidden * model.head_size * (model.heads + model.kv_heads)
    inner = 3 * model.hidden * INNER[name]
    ends = (1 if model.tied else 2) * model.vocabulary * model.hidden
    total = model.layers * (attention + inner * max(1, model.experts)) + ends
    active = model.layers * (attention + inner * max(1, model.experts_per_token)) + ends
    assert model.parameters == pytest.approx(total, rel=0.005)
    assert model.active_parameters == pytest.approx(active, rel=0.005)
    if model.experts:
        assert model.expert_parameters == pytest.approx(model.layers * inner * model.experts, rel=0.005)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("/models/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
        ("smollm2-135m-instruct.f16.gguf", "smollm2-135m"),
    ],
)
def test_a_model_is_known_by_the_names_that_it_goes_by(name: str, model: str) -> None:
    found = known(name)
    assert found is not None
    assert replace(found, weight_bytes=2.0) == MODELS[model]


@pytest.mark.parametrize(
    "name", ["", "qwen3-8", "qwen3-80b", "gpt-4o", "llama-3.1-8bit", "distill-llama-8b", "xqwen3-8b"]
)
def test_a_name_that_is_only_like_that_of_a_model_is_not_taken_for_it(name: str) -> None:
    assert known(name) is None


def test_a_names_quantisation_is_heard() -> None:
    sizes = [known(f"hugging-quants/Meta-Llama-3.1-8B-Instruct{end}") for end in ("", "-AWQ-INT4", "-FP8", "-Q4_K_M")]
    assert [found and found.weight_bytes for found in sizes] == [2.0, 4.5 / 8, 1.0, 4.89 / 8]


def test_what_llama_cpp_counts_is_believed() -> None:
    found = told(Fingerprint(weights="gguf:SmolLM2-135M-Instruct.Q8_0.gguf:144811200:134515008"))
    assert found == replace(MODELS["smollm2-135m"], weight_bytes=144811200 / 134515008)


def test_a_file_that_has_another_size_than_its_name_says_is_believed_in_its_size() -> None:
    found = told(Fingerprint(weights="gguf:llama-3.1-8b-pruned.gguf:8000000000:4000000000"))
    assert found == replace(nominal(4e9), weight_bytes=2.0)


def test_what_ollama_rounds_is_enough_and_of_its_size_the_assumed_model_is_believed() -> None:
    tells = Fingerprint(weights="ollama:46e0c10c039e", quantisation="Q4_K_M", parameters=8_000_000_000)
    assert told(tells) == replace(nominal(8_000_000_000), weight_bytes=4.89 / 8)
    assert told(tells, MODELS["llama-3.1-8b"]) == replace(MODELS["llama-3.1-8b"], weight_bytes=4.89 / 8)
    assert told(tells, MODELS["llama-3.1-70b"]) == replace(nominal(8_000_000_000), weight_bytes=4.89 / 8)


def test_a_repository_that_nobody_knows_tells_nothing() -> None:
    assert told(Fingerprint(weights="hf:acme/secret-model"), MODELS["qwen3-8b"]) is None


def test_active_parameters_in_a_files_name_make_it_a_model_of_experts() -> None:
    found = told(Fingerprint(weights="gguf:Big-235B-A22B-Q4_K_M.gguf:142000000000:235000000000"))
    assert found is not None
    assert found.active_parameters == 22e9
    assert 0 < found.expert_parameters < found.parameters


@pytest.mark.parametrize(
    "name", ["mymodel-a0b3f9.gguf", "mymodel-a1b2c3d.gguf", "mymodel-a0b.gguf", "mymodel-a2bit.gguf"]
)
def test_what_only_looks_like_active_parameters_in_a_files_name_makes_no_model_of_experts(name: str) -> None:
    assert told(Fingerprint(weights=f"gguf:{name}:8000000000:4000000000")) == replace(nominal(4e9), weight_bytes=2.0)


# Of models that nobody knows, with or without active parameters in their names.
COUNTED = st.builds(
    "gguf:m-a{}b{}:{}:{}".format,
    st.sampled_from(["", "0", "0.000", "0.001", "0.5", "22", "9999", "12345"]),
    st.sampled_from(["", "3f9.gguf", "it.gguf", ".gguf", "-Q4_K_M.gguf"]),
    st.integers(0, 10**15),
    st.integers(0, 10**15),
)


@given(
    COUNTED | st.text(max_size=64).map("gguf:{}".format) | st.text(max_size=64),
    st.text(max_size=16),
    st.integers(0, 10**15),
)
def test_no_fingerprint_is_too_odd_to_be_read(weights: str, quantisation: str, parameters: int) -> None:
    found = told(Fingerprint(weights=weights, quantisation=quantisation, parameters=parameters))
    assert found is None or found.weight_bytes > 0


@given(st.floats(PARAMETERS_MIN, 1e13), st.floats(0.01, 1.0))
def test_a_model_of_which_only_the_size_is_known_has_parts_of_that_size(parameters: float, share: float) -> None:
    model = nominal(parameters, share * parameters)
    assert 0.0 < model.head < model.shared_parameters <= parameters
    assert model.expert_parameters + model.shared_parameters == pytest.approx(parameters - model.head)
