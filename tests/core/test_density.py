"""A prior that follows from hardware: when the engine's own word counts, and what that does to what was learned."""

import msgspec
import pytest

from tests import make
from tidegate.core import density
from tidegate.core.density import Bound
from tidegate.core.endpoint import EndpointModel
from tidegate.core.facts import ACCELERATORS, MODELS, known
from tidegate.core.hardware import Machine
from tidegate.core.model import (
    JOURNAL_VERSION,
    Endpoint,
    Fingerprint,
    Line,
    Prior,
    Probed,
    Segment,
    replace,
)
from tidegate.core.output import Length
from tidegate.core.replay import explain, explained, replay
from tidegate.core.router import Router
from tidegate.core.state import State

H100 = Machine(accelerator=ACCELERATORS["h100-sxm"])
LLAMA = Fingerprint(weights="hf:meta-llama/Llama-3.1-8B-Instruct")
QWEN = Fingerprint(weights="hf:Qwen/Qwen3-32B")


def believed(endpoint: Endpoint, name: str) -> Prior:
    assert endpoint.machine is not None
    return density.prior(endpoint.prior, endpoint.machine, MODELS[name], endpoint.concurrency)


def told(router: Router, fingerprint: Fingerprint, now_s: float = 0.0) -> None:
    router.observe(Probed(endpoint="laptop", up=True, fingerprint=fingerprint), now_s)


def test_what_an_engine_tells_of_its_model_makes_the_prior() -> None:
    endpoint = make.endpoint(machine=H100)
    router = make.router(endpoint)
    assert router.endpoint("laptop").prior == endpoint.prior
    told(router, LLAMA)
    assert router.endpoint("laptop").prior == believed(endpoint, "llama-3.1-8b")
    told(router, QWEN)
    assert router.endpoint("laptop").prior == believed(endpoint, "qwen3-32b")


def test_a_declared_model_holds_whatever_the_engine_tells() -> None:
    endpoint = make.endpoint(machine=replace(H100, model=MODELS["qwen3-32b"]))
    router = make.router(endpoint)
    told(router, LLAMA)
    assert router.endpoint("laptop").prior == endpoint.prior


def test_without_declared_hardware_nothing_that_is_told_changes_what_is_believed() -> None:
    router = make.router(make.endpoint())
    told(router, LLAMA)
    assert router.endpoint("laptop").prior == make.endpoint().prior


def test_what_was_written_down_stays_when_the_engine_tells() -> None:
    endpoint = make.endpoint(machine=replace(H100, written=("decode_s_per_token", "sigma")))
    router = make.router(endpoint)
    told(router, LLAMA)
    found = router.endpoint("laptop").prior
    assert (found.decode_s_per_token, found.sigma) == (endpoint.prior.decode_s_per_token, endpoint.prior.sigma)
    assert found.prefill_s_per_token == believed(endpoint, "llama-3.1-8b").prefill_s_per_token


def test_what_was_predicted_before_the_engine_told_teaches_nothing() -> None:
    router, request = make.router(make.endpoint(machine=H100)), make.request("r")
    router.observe(make.started(request, "laptop"), 0.0)
    told(router, LLAMA)
    before = msgspec.json.encode(router.endpoint("laptop").state.ttft)
    router.observe(make.ended("r", "laptop", ttft_s=0.5, output_tokens=50), 1.0)
    assert msgspec.json.encode(router.endpoint("laptop").state.ttft) == before


def test_a_router_of_a_snapshot_predicts_what_the_first_one_does() -> None:
    endpoints = (make.endpoint(machine=H100, concurrency=4),)
    router = make.router(*endpoints)
    told(router, LLAMA)
    for index in range(3):
        router.observe(make.started(make.request(f"r{index}", prompt_tokens=700), "laptop"), 0.1)
    router.observe(make.ended("r1", "laptop", ttft_s=0.5, output_tokens=50), 1.0)
    other = Router(endpoints, make.policy(), msgspec.json.decode(router.snapshot(), type=State))
    request = make.request("new")
    assert other.candidates(request, 2.0) == router.candidates(request, 2.0)
    assert other.endpoint("laptop").prior == router.endpoint("laptop").prior


def test_contexts_of_all_that_runs_stretch_the_time_per_token() -> None:
    prior = Prior(decode_s_per_token=0.01, decode_s_per_context_token=1e-6)
    model = EndpointModel(make.endpoint(prior=prior, concurrency=3), 0.9)
    length = Length(expected_tokens=200.0, high_tokens=400.0, median_tokens=200.0, sigma=0.5)
    request = make.request(prompt_tokens=1_000)
    assert model.base(request, length, 0.0).tpot_s == pytest.approx(0.01 + 1e-6 * (1_000 + 100))
    other = make.started(make.request("long", prompt_tokens=20_000), "laptop")
    model.started(other, model.base(other, length, 0.0), 0.0)
    assert model.base(request, length, 0.0).tpot_s == pytest.approx(0.01 + 1e-6 * (1_000 + 100 + 20_000))
    model.ended(make.ended("long", "laptop"), 1.0)
    assert model.base(request, length, 1.0).tpot_s == pytest.approx(0.01 + 1e-6 * (1_000 + 100))


def test_further_sequences_of_a_model_of_experts_add_less_and_less() -> None:
    prior = Prior(decode_s_per_token=0.01, batch_slowdown=0.8, batch_fading=0.5)
    model = EndpointModel(make.endpoint(prior=prior, concurrency=8), 0.9)
    length, seen = Length(expected_tokens=200.0, high_tokens=400.0, median_tokens=200.0, sigma=0.5), []
    for index in range(4):
        one = make.started(make.request(f"r{index}"), "laptop")
        base = model.base(one, length, 0.0)
        seen.append(base.tpot_s)
        model.started(one, base, 0.0)
    assert seen == pytest.approx([0.01, 0.018, 0.022, 0.024])


def test_an_endpoint_as_older_journals_have_it_is_read_and_means_the_same() -> None:
    written = msgspec.to_builtins(make.endpoint())
    del written["machine"], written["prior"]["batch_fading"], written["prior"]["decode_s_per_context_token"]
    assert msgspec.convert(written, Endpoint) == make.endpoint()


def test_a_journal_with_declared_hardware_replays_and_is_explained_with_its_density() -> None:
    endpoints = (
        make.endpoint(machine=H100),
        make.endpoint("cloud", local=False),
    )
    router, request = make.router(*endpoints), make.request("r", prompt_tokens=4_000, prompt_bytes=16_000)
    segment = Segment(
        version=JOURNAL_VERSION, software="test", policy=make.policy(), endpoints=endpoints, state=router.snapshot()
    )
    probed = Probed(endpoint="laptop", up=True, fingerprint=LLAMA)
    router.observe(probed, 1.0)
    decision = router.decide(request, 2.0)
    facts = [(0.0, segment), (1.0, probed), (2.0, request), (2.0, decision)]
    lines = [
        msgspec.json.decode(msgspec.json.encode(Line(at_s=at_s, fact=fact)), type=Line)  # type: ignore[arg-type]
        for at_s, fact in facts
    ]
    assert replay(lines).difference is None
    (found,) = explain(lines, "r")
    assert replace(found, flips=None) == explained(router, request, decision, 2.0)
    own, other = sorted(found.densities, key=lambda one: one.endpoint, reverse=True)
    assert own.prefill is not None
    assert own.decode is not None
    assert (own.prefill.bound, own.decode.bound) == (Bound.COMPUTE, Bound.MEMORY)
    assert (other.prefill, other.ridge_flop_per_byte) == (None, None)


def test_prompts_of_others_that_are_waited_for_are_not_computing() -> None:
    router = make.router(make.endpoint(concurrency=4), make.endpoint("cloud", local=False))
    request = make.request("r")
    alone = explained(router, request, router.decide(request, 0.0), 0.0).densities
    for index in range(3):
        router.observe(make.started(make.request(f"o{index}", prompt_tokens=20_000), "laptop"), 0.0)
    beside = explained(router, request, router.decide(request, 0.0), 0.0).densities
    assert beside == alone


def test_a_llama_of_8_billion_does_16_gflop_a_token_and_reads_15_gb() -> None:
    model = known("llama-3.1-8b")
    assert model is not None
    alone = density.decode(model, H100, 1, 0)
    # All parameters but the embedding, of which one row is read: 7.5 billion.
    assert alone.flops == pytest.approx(2 * 7.5e9, rel=0.01)
    assert alone.bytes == pytest.approx(2 * 7.5e9, rel=0.01)
    assert alone.intensity_flop_per_byte == pytest.approx(1.0, rel=0.01)
    assert density.prefill(model, H100, 2_000).intensity_flop_per_byte == pytest.approx(2_000, rel=0.1)
