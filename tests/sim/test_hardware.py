"""Engines from declared hardware: laws that hold whatever the constants, and the facts that are shipped."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import MEASURED, Accelerator, Link, Model, Setup, kv_bytes, kv_tokens, step_time
from tidegate.core.model import replace
from tidegate.core.step import Linear, StepTime
from tidegate.sim.hardware import profile

models = st.sampled_from(sorted(MODELS)).map(MODELS.__getitem__)
accelerators = st.sampled_from(sorted(ACCELERATORS)).map(ACCELERATORS.__getitem__)
setups = st.builds(Setup, tensor_parallel=st.sampled_from([1, 2, 4]), data_parallel=st.sampled_from([1, 2, 4]))
tokens = st.integers(0, 4_096)
sequences = st.integers(0, 256)
contexts = st.integers(0, 1_000_000)
factors = st.floats(1.0, 10.0)

LLAMA, LARGE, EXPERTS = MODELS["llama-3.1-8b"], MODELS["llama-3.1-70b"], MODELS["qwen3-30b-a3b"]
CARD = ACCELERATORS["rtx-pro-6000-server"]


def takes_s(step: StepTime, prompt_tokens: int, decoding: int, context: int) -> float:
    return step.takes_s(prompt_tokens, prompt_tokens**2 / 2, decoding, context)


def linear(step: StepTime) -> Linear:
    assert step.linear is not None, "declared hardware has layers of weights"
    return step.linear


FASTER: dict[str, Callable[[Accelerator, float], Accelerator]] = {
    "memory": lambda one, factor: replace(one, bytes_per_s=one.bytes_per_s * factor),
    "compute": lambda one, factor: replace(one, flops=one.flops * factor),
    "link": lambda one, factor: replace(
        one, link=Link(bytes_per_s=one.link.bytes_per_s * factor, exchange_s=one.link.exchange_s / factor)
    ),
}


@pytest.mark.parametrize("part", sorted(FASTER))
@given(
    model=models,
    accelerator=accelerators,
    setup=setups,
    prompt=tokens,
    decoding=sequences,
    context=contexts,
    factor=factors,
)
def test_a_faster_part_never_makes_an_iteration_slower(
    part: str,
    model: Model,
    accelerator: Accelerator,
    setup: Setup,
    prompt: int,
    decoding: int,
    context: int,
    factor: float,
) -> None:
    step = step_time(model, accelerator, setup, MEASURED)
    faster = step_time(model, FASTER[part](accelerator, factor), setup, MEASURED)
    assert takes_s(faster, prompt, decoding, context) <= takes_s(step, prompt, decoding, context) * (1 + 1e-12)


@given(models, accelerators, setups, tokens, sequences, contexts, st.tuples(tokens, sequences, contexts))
def test_more_work_is_never_done_sooner(
    model: Model,
    accelerator: Accelerator,
    setup: Setup,
    prompt: int,
    decoding: int,
    context: int,
    more: tuple[int, int, int],
) -> None:
    step = step_time(model, accelerator, setup, MEASURED)
    larger = takes_s(step, prompt + more[0], decoding + more[1], context + more[2])
    assert takes_s(step, prompt, decoding, context) <= larger * (1 + 1e-12)


@given(st.floats(1e-6, 1.0), st.floats(1e-8, 1e-3), st.integers(1, 4_096), st.floats(1.0, 8.0))
def test_reading_and_computing_take_less_than_both_and_no_less_than_the_longer(
    weights_s: float, per_token_s: float, count: int, overlap: float
) -> None:
    layers = Linear(weights_s=weights_s, per_token_s=per_token_s, overlap=overlap)
    compute_s = per_token_s * count
    taken_s = layers.takes_s(count, count)
    assert max(weights_s, compute_s) * (1 - 1e-9) <= taken_s <= (weights_s + compute_s) * (1 + 1e-9)


@given(models, accelerators)
def test_two_accelerators_read_half_the_weights_each(model: Model, accelerator: Accelerator) -> None:
    one, two = (linear(step_time(model, accelerator, Setup(tensor_parallel=count), MEASURED)) for count in (1, 2))
    assert two.weights_s == pytest.approx(one.weights_s / 2)
    assert two.experts_s == pytest.approx(one.experts_s / 2)
    assert two.per_token_s == pytest.approx(one.per_token_s / 2)


def test_keys_are_split_until_each_accelerator_has_one_head() -> None:
    assert [kv_bytes(LLAMA, count) for count in (1, 2, 8, 16)] == [131_072, 65_536, 16_384, 16_384]


def test_one_sequence_reads_few_experts_and_many_read_all() -> None:
    layers = replace(linear(step_time(EXPERTS, CARD, Setup(), MEASURED)), per_token_s=0.0, per_expert_token_s=0.0)
    assert layers.takes_s(1, 1) == pytest.approx(layers.weights_s + layers.experts_s * 8 / 128)
    assert layers.takes_s(128, 128) == pytest.approx(layers.weights_s + layers.experts_s, rel=0.001)


def test_ranks_of_a_dense_model_are_engines_of_their_own() -> None:
    assert profile(LLAMA, CARD, Setup(data_parallel=4)) == profile(LLAMA, CARD, Setup())


def test_ranks_of_a_model_of_experts_are_one_engine_with_room_for_all() -> None:
    one, two = (profile(EXPERTS, CARD, Setup(data_parallel=count, slots=128)) for count in (1, 2))
    assert (two.slots, two.batch_tokens, two.step.ranks) == (256, 4_096, 2)
    # Each rank has half of the experts besides all of the rest, and so more room for keys.
    assert two.kv_tokens > 2 * one.kv_tokens
    # Sequences are spread over the ranks.
    assert two.step.takes_s(0, 0.0, 2, 2_000) < one.step.takes_s(0, 0.0, 2, 2_000) + two.step.base_s


def test_a_model_that_does_not_fit_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"need 141\.1 GB .* raise tensor_parallel"):
        profile(LARGE, CARD, Setup())
    assert profile(LARGE, CARD, Setup(tensor_parallel=2)).kv_tokens > 0


def test_the_room_for_keys_is_what_vllm_found_on_the_card_that_the_workspace_is_from() -> None:
    """vLLM 0.19 found room for 41,408 tokens of Llama-3.1-8B on an RTX 4090."""
    assert kv_tokens(LLAMA, ACCELERATORS["rtx-4090"], Setup()) == pytest.approx(41_408, rel=0.05)
