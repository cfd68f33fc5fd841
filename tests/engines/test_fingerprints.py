"""What each engine tells of its model. llama.cpp's answers are recordings; the others follow their sources."""

import json
from typing import Any

import pytest

from tests.engines.speakers import recorded
from tests.engines.test_others import MODELS, UP, answer
from tidegate.core.fingerprint import OF_THE_MODEL, differs
from tidegate.core.model import Fingerprint, replace
from tidegate.engines import names
from tidegate.engines.anthropic import Anthropic
from tidegate.engines.base import ProbeAnswer
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.engines.ollama import Ollama
from tidegate.engines.openai import OpenAI
from tidegate.engines.sglang import SGLang
from tidegate.engines.vllm import VLLM

METRICS = None


def llama(*, model: str | None = "smollm2", **changes: Any) -> Fingerprint | None:
    """What the recorded answers tell, with some members of `/props` changed; `props=None` for a lost answer."""
    props = json.loads(recorded("props")["body"]) | changes
    told = None if "props" in changes else answer(props)
    answers = [UP, told, METRICS, answer(recorded("models")["body"].encode())]
    return LlamaCpp("", model).signals(answers).fingerprint


def test_llama_cpp_tells_the_file_its_quantisation_vocabulary_template_and_build() -> None:
    told = llama()
    assert told is not None
    assert told.weights == "gguf:SmolLM2-135M-Instruct.Q4_1.gguf:96576768:134515008"
    assert told.quantisation == "Q4_1"
    assert told.tokenizer == "gguf:2:49152:<|im_start|>:<|im_end|>"
    assert told.chat_template.startswith("blake2b:")
    assert told.context_tokens == 1024
    assert told.engine == "llama.cpp b0-unknown"


def test_llama_cpp_is_the_same_by_whatever_name_it_is_asked_for_and_wherever_its_file_is() -> None:
    assert llama(model=None) == llama(model="any") == llama(model_path="/elsewhere/SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"model_path": "/m/other.gguf"}, ("weights",)),
        ({"model_ftype": "Q4_K - Medium"}, ("quantisation",)),
        ({"eos_token": "</s>"}, ("tokenizer",)),
        ({"chat_template": "{{ other }}"}, ("chat_template",)),
        ({"build_info": "b2-new"}, ()),
    ],
)
def test_what_changes_in_llama_cpp_is_found(change: dict[str, str], fields: tuple[str, ...]) -> None:
    before, after = llama(), llama(**change)
    assert before is not None
    assert after is not None
    assert differs(before, after, OF_THE_MODEL) == fields


def test_a_lost_answer_of_llama_cpp_makes_no_other_model() -> None:
    before, after = llama(), llama(props=None)
    assert before is not None
    assert after is not None
    assert after.weights == ""
    assert differs(before, after) == ()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Q4_K - Medium", "Q4_K_M"),
        ("Q3_K - Large", "Q3_K_L"),
        ("Q2_K - Medium", "Q2_K"),
        ("Q8_0", "Q8_0"),
        ("Q8_0 (guessed)", "Q8_0"),
        ("all F32", "F32"),
        ("IQ2_XXS - 2.0625 bpw", "IQ2_XXS"),
        ("IQ3_S mix - 3.66 bpw", "IQ3_M"),
        ("TQ1_0 - 1.69 bpw ternary", "TQ1_0"),
        ("Q4_K_M", "Q4_K_M"),
        ("unknown, may not work", ""),
        ("", ""),
    ],
)
def test_a_quantisation_is_called_as_files_are(said: str, name: str) -> None:
    assert names.quantisation(said) == name


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("Qwen/Qwen3-8B", "hf:Qwen/Qwen3-8B"),
        ("/models/Qwen3-8B", "dir:Qwen3-8B"),
        ("/models/Qwen3-8B/", "dir:Qwen3-8B"),
        ("./Qwen3-8B", "dir:Qwen3-8B"),
        ("C:\\models\\Qwen3-8B", "dir:Qwen3-8B"),
        ("/", ""),
        ("", ""),
    ],
)
def test_a_repository_is_told_from_a_folder(place: str, name: str) -> None:
    assert names.repository(place) == name


def test_vllm_tells_where_its_weights_are_from_and_its_version() -> None:
    models = {"data": [{"id": "m", "root": "Qwen/Qwen3-8B", "max_model_len": 32768}, {"id": "lora", "root": "/l/x"}]}
    signals = VLLM("", "m").signals([UP, answer(models), None, answer({"version": "0.11.2"})])
    expected = Fingerprint(weights="hf:Qwen/Qwen3-8B", context_tokens=32768, engine="vLLM 0.11.2")
    assert signals.fingerprint == expected
    adapter = VLLM("", "lora").signals([UP, answer(models), None, None]).fingerprint
    assert adapter == Fingerprint(weights="dir:x")


def test_of_several_models_without_a_name_none_is_taken_for_it() -> None:
    assert (
        VLLM("", None).signals([UP, answer(MODELS | {"data": [{"root": "a/b"}] * 2}), None, None]).fingerprint is None
    )


@pytest.mark.parametrize("root", [None, 7, ["a/b"]])
def test_a_root_that_is_none_costs_no_window(root: Any) -> None:
    models = {"data": [{"id": "m", "root": root, "parent": root, "meta": "?", "max_model_len": 4096}]}
    signals = VLLM("", "m").signals([UP, answer(models), None, None])
    assert (signals.context_tokens, signals.fingerprint) == (4096, None)


def test_sglang_tells_weights_tokenizer_and_a_quantisation_that_it_was_told() -> None:
    info = {
        "model_path": "Qwen/Qwen3-8B",
        "tokenizer_path": "/tok/Qwen3",
        "quantization": "fp8",
        "version": "0.5.6",
        "context_length": 8192,
        "api_key": "its own",
    }
    told = SGLang("", "m").signals([answer(MODELS), answer(info), None]).fingerprint
    assert told == Fingerprint(
        weights="hf:Qwen/Qwen3-8B",
        quantisation="fp8",
        tokenizer="dir:Qwen3",
        context_tokens=8192,
        engine="SGLang 0.5.6",
    )
    told = SGLang("", "m").signals([answer(MODELS), answer(info | {"quantization": None}), None]).fingerprint
    assert told is not None
    assert told.quantisation == ""


def test_an_adapter_at_sglang_is_another_model_than_what_it_adapts() -> None:
    base = {"id": "m", "root": "m", "parent": None, "max_model_len": 32768}
    listed = answer({"data": [base, {"id": "lora", "root": "/l/x", "parent": "m", "max_model_len": None}]})
    info = answer({"model_path": "Qwen/Qwen3-8B", "version": "0.5.6"})
    prints = [SGLang("", name).signals([listed, info, None]).fingerprint for name in ("m", "lora")]
    expected = Fingerprint(weights="hf:Qwen/Qwen3-8B", context_tokens=32768, engine="SGLang 0.5.6")
    assert prints == [expected, replace(expected, weights="dir:x")]


def test_a_llama_cpp_that_tells_of_no_model_in_particular_names_no_weights() -> None:
    bare = answer({"model_path": "none", "build_info": "b9000-abc"})
    listed = answer({"data": [{"id": "m", "meta": {"size": 1000, "n_params": 500}}]})
    assert LlamaCpp("", "m").signals([UP, bare, None, listed]).fingerprint == Fingerprint(engine="llama.cpp b9000-abc")


TAG = {
    "name": "gemma3:latest",
    "model": "gemma3:latest",
    "digest": "a2af6cc3eb7fa8be8504abaf9b04e88f17a119ec3f04a3addf55f92841195f5a",
    "details": {"format": "gguf", "parameter_size": "4.3B", "quantization_level": "Q4_K_M"},
}


@pytest.mark.parametrize(("model", "known"), [("gemma3", True), ("gemma3:latest", True), ("gemma3:4b", False)])
def test_ollama_tells_the_digest_and_quantisation_of_its_model_though_it_is_not_loaded(model: str, known: bool) -> None:
    tags = answer({"models": [{"name": "other:latest", "digest": "b" * 64}, TAG]})
    told = Ollama("", model).signals([answer({"version": "0.12.6"}), answer({"models": []}), tags]).fingerprint
    gemma = Fingerprint(weights=f"ollama:{TAG['digest']}", quantisation="Q4_K_M", parameters=4_300_000_000)
    assert told == (replace(gemma, engine="Ollama 0.12.6") if known else None)


@pytest.mark.parametrize(
    ("said", "parameters"),
    [("8.0B", 8_000_000_000), ("134.52M", 134_520_000), ("1T", 10**12), ("0B", None), ("8x7B", None), ("", None)],
)
def test_a_number_of_parameters_is_read_as_people_write_it(said: str, parameters: int | None) -> None:
    assert names.count(said) == parameters


def test_what_llama_cpp_and_ollama_say_of_the_same_quantisation_agrees_and_of_weights_does_not_compare() -> None:
    tags = answer({"models": [TAG]})
    ollama = Ollama("", "gemma3").signals([UP, None, tags]).fingerprint
    file = llama(model_ftype="Q4_K - Medium")
    assert ollama is not None
    assert file is not None
    assert differs(ollama, file, OF_THE_MODEL) == ()


def test_vendors_are_asked_for_no_fingerprint() -> None:
    listed: ProbeAnswer = answer({"data": [{"id": "m", "root": "a/b", "meta": {"size": 1}}]})
    assert OpenAI("", "m").signals([listed]).fingerprint is None
    assert Anthropic("", "m").signals([listed]).fingerprint is None
