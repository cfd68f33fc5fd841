"""Laws of compute density: what faster hardware, longer prompts and fuller batches may do to a prediction."""

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests import make
from tidegate.core import density
from tidegate.core.density import Bound
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import MEASURED, Accelerator, Machine, Model, Setup, step_time
from tidegate.core.length import LengthModel
from tidegate.core.model import Endpoint, Prior, replace
from tidegate.core.prior import crowd
from tidegate.core.replay import explained
from tidegate.core.router import Router

CONCURRENCY = 64

models = st.sampled_from(sorted(MODELS)).map(MODELS.__getitem__)
accelerators = st.sampled_from(sorted(ACCELERATORS)).map(ACCELERATORS.__getitem__)
setups = st.builds(Setup, tensor_parallel=st.sampled_from([1, 2, 4, 8]), eager=st.booleans())
machines = st.builds(Machine, accelerator=accelerators, setup=setups)
tokens = st.integers(1, 131_072)
batches = st.integers(1, CONCURRENCY)
factors = st.floats(1.0, 20.0)
USUAL = Prior(rtt_s=0.001)

FASTER: dict[str, Callable[[Accelerator, float], Accelerator]] = {
    "memory": lambda one, factor: replace(one, bytes_per_s=one.bytes_per_s * factor),
    "compute": lambda one, factor: replace(one, flops=one.flops * factor),
}


def prior(machine: Machine, model: Model) -> Prior:
    return density.prior(USUAL, machine, model, CONCURRENCY)


def prefill_s(prior: Prior, count: int) -> float:
    return prior.overhead_s + count * (prior.prefill_s_per_token + count / 2 * prior.prefill_s_per_token2)


def token_s(prior: Prior, batch: int, context: int) -> float:
    slower = 1.0 + prior.batch_slowdown * crowd(prior.batch_fading, batch - 1)
    return prior.decode_s_per_token * slower + context * prior.decode_s_per_context_token


def endpoint(name: str, machine: Machine, model: Model, *, local: bool = True) -> Endpoint:
    declared = replace(machine, model=model)
    return make.endpoint(name, local=local, concurrency=4, machine=declared, prior=prior(declared, model))


@pytest.mark.parametrize("part", sorted(FASTER))
@given(machines, models, tokens, batches, factors)
def test_a_faster_part_is_never_believed_to_be_slower(
    part: str, machine: Machine, model: Model, count: int, batch: int, factor: float
) -> None:
    faster = replace(machine, accelerator=FASTER[part](machine.accelerator, factor))
    before, after = prior(machine, model), prior(faster, model)
    assert prefill_s(after, count) <= prefill_s(before, count) * (1 + 1e-12)
    assert token_s(after, batch, batch * count) <= token_s(before, batch, batch * count) * (1 + 1e-12)


@given(machines, models, tokens, tokens)
def test_more_prompt_is_never_believed_to_be_faster(machine: Machine, model: Model, count: int, more: int) -> None:
    found = prior(machine, model)
    assert prefill_s(found, count) < prefill_s(found, count + more)


@given(machines, models, batches, batches, tokens)
def test_a_fuller_batch_never_takes_less_time_for_a_step(
    machine: Machine, model: Model, batch: int, more: int, count: int
) -> None:
    found = prior(machine, model)
    assert token_s(found, batch, batch * count) <= token_s(found, batch + more, (batch + more) * count)


@given(machines, models, st.sampled_from([1, CONCURRENCY]), tokens)
def test_alone_and_in_the_fullest_batch_a_token_takes_what_the_roofline_says(
    machine: Machine, model: Model, batch: int, count: int
) -> None:
    step = step_time(model, machine.accelerator, machine.setup, MEASURED)
    expected_s = step.takes_s(0, 0.0, batch, batch * count)
    assert token_s(prior(machine, model), batch, batch * count) == pytest.approx(expected_s)


@given(machines, models, st.integers(1, 2_048), st.integers(1, 2_048))
def test_intensity_grows_with_the_prompt_up_to_the_ridge(machine: Machine, model: Model, one: int, two: int) -> None:
    less, more = (density.prefill(model, machine, count) for count in sorted((one, two)))
    assume(less.bound is Bound.MEMORY)
    assert less.intensity_flop_per_byte <= more.intensity_flop_per_byte * (1 + 1e-12)


@given(machines, models, batches, batches, st.integers(1, 8_192))
def test_a_fuller_batch_reads_weights_for_more_tokens(
    machine: Machine, model: Model, batch: int, more: int, context: int
) -> None:
    alone, together = (density.decode(model, machine, count, count * context) for count in (batch, batch + more))
    assume(not model.experts)
    assert alone.intensity_flop_per_byte <= together.intensity_flop_per_byte * (1 + 1e-12)


@given(machines, models, tokens, factors)
def test_what_bounds_a_prompt_depends_on_the_ridge_alone(
    machine: Machine, model: Model, count: int, factor: float
) -> None:
    card = machine.accelerator
    both = replace(machine, accelerator=FASTER["memory"](FASTER["compute"](card, factor), factor))
    assert density.ridge(both) == pytest.approx(density.ridge(machine))
    found = density.prefill(model, machine, count)
    assert found.intensity_flop_per_byte == found.flops / found.bytes
    assert (found.bound is Bound.COMPUTE) == (found.intensity_flop_per_byte >= density.ridge(machine))


@given(machines, machines, models, st.integers(1, 30_000), st.integers(0, 3))
def test_what_is_saved_is_the_difference_in_computing_over_what_is_sent(
    mine: Machine, theirs: Machine, model: Model, count: int, load: int
) -> None:
    router = Router((endpoint("mine", mine, model), endpoint("theirs", theirs, model, local=False)), make.policy())
    for index in range(load):
        router.observe(make.started(make.request(f"other{index}"), "mine"), 0.0)
    request = make.request("r", prompt_tokens=count, prompt_bytes=4 * count)
    own, other = explained(router, request, router.decide(request, 0.0), 0.0).densities
    assert (own.over, own.speed_up, own.saved_s_per_byte) == ("mine", 1.0, None)
    assert other.over == "mine"
    assert other.saved_s_per_byte is not None
    assert other.saved_s_per_byte * 4 * count == pytest.approx(own.compute_s - other.compute_s, abs=1e-9)
    assert other.speed_up == pytest.approx(own.compute_s / other.compute_s)
    assert (own.batch, other.batch) == (load + 1, 1)


@given(machines, models, st.lists(st.integers(1, 4_000), max_size=4), st.integers(1, 30_000))
def test_a_prediction_beside_others_is_never_sooner_than_alone(
    machine: Machine, model: Model, others: list[int], count: int
) -> None:
    router = Router((endpoint("mine", machine, model),), make.policy())
    request, length = make.request("r", prompt_tokens=count), LengthModel().at("chat", 100)
    alone = router.endpoint("mine").base(request, length, 0.0)
    for index, size in enumerate(others[:3]):
        router.observe(make.started(make.request(f"o{index}", prompt_tokens=size), "mine"), 0.0)
    beside = router.endpoint("mine").base(request, length, 0.0)
    assert beside.first_s >= alone.first_s
    assert beside.tpot_s >= alone.tpot_s
