"""Hardware and model as they are declared: what prior they make, and what is refused."""

from pathlib import Path

import pytest

from tests.config.test_build import MINE, SITES, built
from tests.config.test_malformed import problems_of
from tidegate.config.defaults import defaults
from tidegate.config.endpoint import EngineKind
from tidegate.core import density
from tidegate.core.facts import ACCELERATORS, HOST, MODELS, nominal
from tidegate.core.hardware import Accelerator, Machine, Setup
from tidegate.core.model import Endpoint, replace

USUAL = defaults(EngineKind.VLLM, local=True).prior
VLLM = MINE.replace("llamacpp", "vllm") + "context_tokens = 8192\nconcurrency = 16\n"
FOUR = "hardware = { accelerator = 'h100-sxm', count = 4 }\n"


def endpoint(folder: Path, text: str, engine: str = VLLM) -> Endpoint:
    return built(folder, SITES + engine + text).endpoints[0]


def test_hardware_and_a_known_model_make_the_prior(tmp_path: Path) -> None:
    found = endpoint(tmp_path, FOUR + "model_facts = 'llama-3.1-70b'\n")
    machine = Machine(
        accelerator=ACCELERATORS["h100-sxm"],
        setup=Setup(tensor_parallel=4),
        model=MODELS["llama-3.1-70b"],
    )
    assert found.machine == machine
    assert found.prior == density.prior(USUAL, machine, MODELS["llama-3.1-70b"], 16)
    assert found.prior.rtt_s == USUAL.rtt_s


def test_the_endpoints_own_name_of_its_model_is_enough_until_the_engine_tells(tmp_path: Path) -> None:
    found = endpoint(tmp_path, FOUR + "model = 'Qwen/Qwen3-32B-AWQ'\n")
    assert found.machine is not None
    assert found.machine.model is None
    assert found.machine.assumed == replace(MODELS["qwen3-32b"], weight_bytes=4.5 / 8)
    assert found.prior == density.prior(USUAL, found.machine, found.machine.assumed, 16)


def test_of_an_unknown_model_the_prior_is_the_engines_until_it_tells(tmp_path: Path) -> None:
    found = endpoint(tmp_path, FOUR)
    assert found.machine is not None
    assert found.machine.assumed is None
    assert found.prior == USUAL


def test_a_declared_fingerprint_names_the_model_too(tmp_path: Path) -> None:
    named = endpoint(tmp_path, FOUR + "fingerprint = { weights = 'hf:Qwen/Qwen3-8B' }\n")
    assert named.prior == endpoint(tmp_path, FOUR + "model_facts = 'qwen3-8b'\n").prior


def test_what_is_written_as_a_rate_overrules(tmp_path: Path) -> None:
    facts = FOUR + "model_facts = 'qwen3-8b'\n"
    plain = endpoint(tmp_path, facts).prior
    written = "decode_tokens_per_s = 50, overhead_ms = 30, sigma = 0.2, decode_context_tokens_per_s = 1e6"
    found = endpoint(tmp_path, facts + f"prior = {{ {written} }}\n")
    assert found.prior == replace(
        plain, decode_s_per_token=0.02, overhead_s=0.03, sigma=0.2, decode_s_per_context_token=1e-6
    )
    assert found.machine is not None
    assert found.machine.written == ("decode_s_per_context_token", "decode_s_per_token", "overhead_s", "sigma")


def test_a_processor_and_its_memory_can_be_written_with_any_model(tmp_path: Path) -> None:
    text = (
        "hardware = { memory_gb = 64, bandwidth_gb_per_s = 80, tflops = 1.5 }\n"
        "model_facts = { parameters = 3e9, kv_heads = 2, bytes_per_weight = 0.6 }\n"
    )
    found = endpoint(tmp_path, text, MINE)
    assert found.machine is not None
    assert found.machine.accelerator == Accelerator(memory_bytes=64e9, bytes_per_s=80e9, flops=1.5e12, link=HOST)
    assert found.machine.model == replace(nominal(3e9), kv_heads=2, weight_bytes=0.6)
    # llama.cpp looks at new requests after each of its batches, and computes prompts in these.
    assert found.machine.setup.batch_tokens == found.prior.batch_tokens == 2048


@pytest.mark.parametrize("experts", [1, 8])
def test_a_model_that_takes_all_of_its_experts_for_each_token_is_as_a_dense_one(tmp_path: Path, experts: int) -> None:
    taken = f"model_facts = {{ parameters = 47e9, active_parameters = 13e9, experts = {experts}, experts_per_token"
    all_of_them = endpoint(tmp_path, FOUR + f"{taken} = {experts} }}\n")
    assert all_of_them.machine is not None
    assert all_of_them.machine.model is not None
    assert all_of_them.machine.model.expert_parameters == 0
    assert all_of_them.machine.model.active_parameters == 47e9


def test_without_hardware_everything_is_as_it_was(tmp_path: Path) -> None:
    found = endpoint(tmp_path, "")
    assert (found.machine, found.prior) == (None, USUAL)


@pytest.mark.parametrize(
    ("text", "path", "message", "remedy"),
    [
        ("model_facts = 'qwen3-8b'\n", "model_facts", "no `hardware`", "write it"),
        ("hardware = { accelerator = 'h100' }\n", "hardware.accelerator", "no such accelerator", "h100-"),
        ("hardware = { tflops = 3 }\n", "hardware", "`memory_gb`, `bandwidth_gb_per_s`", "accelerator"),
        ("hardware = {}\n", "hardware", "without a name", "accelerator"),
        (FOUR + "model_facts = 'qwen3-9b'\n", "model_facts", "no such model", "qwen3-8b"),
        (FOUR + "model_facts = { model = 'qwen3-9b' }\n", "model_facts.model", "no such model", "parameters"),
        (FOUR + "model_facts = { layers = 3 }\n", "model_facts", "neither", "write one"),
        (
            FOUR + "model_facts = { parameters = 8e9, active_parameters = 9e9, experts = 8 }\n",
            "model_facts.active_parameters", "more than all", "one token",
        ),
        (
            FOUR + "model_facts = { model = 'qwen3-8b', experts_per_token = 8 }\n",
            "model_facts.experts_per_token", "more than there are", "experts",
        ),
        (
            FOUR + "model_facts = { parameters = 1e8, hidden = 4096, vocabulary = 100000 }\n",
            "model_facts", "more than all", "config.json",
        ),
        (
            "hardware = { accelerator = 'h100-sxm' }\nmodel_facts = 'llama-3.1-70b'\n",
            "hardware", "need 141.1 GB, and there are 85.5 GB", "raise `count`",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_place_and_remedy(
    tmp_path: Path, text: str, path: str, message: str, remedy: str
) -> None:
    (problem,) = problems_of(tmp_path, SITES + VLLM + text)
    assert problem.path == f"endpoint.mine.{path}"
    assert message in problem.message
    assert remedy in problem.remedy
