"""How far what is believed of an engine before anything was measured is from what was measured.

    TIDEGATE_DATA=... make bench-prior_error

Reads 1,260 runs of Llama-2-70B and BLOOM-176B on DGX A100 and H100 (Mutinifni/splitwise-sim, MIT), and 300 requests
each of three runs of vLLM 0.19 on RTX PRO 6000 (casys-kaist/LLMServingSim, MIT). Priors are made of a model's and a
card's facts alone; nothing is observed, learned or corrected.

What of it is in-sample:

- The three runs of vLLM are: two shares of nominal speeds, of memory and of cores, were fitted to them, by
  bench/fit_engines.py, though for iterations, and not for the form of a prior.
- The rows of Splitwise are not: no constant was fitted to them. But the form is not blind to them: the roofline as it
  was had median errors of 36 % for prompts and 43 % for tokens, all too short, which was seen before `eager` was made.
  The rows do not say which engine made them. Their paper, of November 2023, used vLLM, which starts each kernel by
  itself no more since vllm-project/vllm#1926, of December 2023. What that takes is the median of what four others
  measured elsewhere, the first value that was tried; `without eager` and each of the four alone are recorded too.
- Cards whose power was capped are predicted as if it were not: nothing that is declared says how much that takes.

Batched prompts of Splitwise are taken as one after the other, and only the first pays what a prompt costs at least.
TTFT and TPOT of vLLM are what a router would have predicted as each request came, beside those that were then in
flight and held; when these began and ended is as measured. How long answers are is known from their class. The runs are
loaded beyond what the engines can take, so much of a TTFT is waiting. That an iteration of others is still to end, that
prompts come while a request is answered, and that contexts are read with each chunk of a prompt, was put into the
estimator after a look at these runs (medians were 45 % and 30 % before): it is arithmetic, without fitted constants.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from statistics import fmean, median

from bench import fit_engines
from bench.fit_network import rows
from bench.record import record
from tidegate.config.defaults import defaults
from tidegate.config.endpoint import EngineKind
from tidegate.core import density, hardware
from tidegate.core.counts import Lengths
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import Machine, Model, Setup, step_time
from tidegate.core.length import LengthModel
from tidegate.core.model import (
    Ended,
    Ending,
    Endpoint,
    FirstToken,
    Held,
    Observation,
    Policy,
    Prior,
    Request,
    Started,
    replace,
)
from tidegate.core.prior import crowd
from tidegate.core.router import Router
from tidegate.core.state import State

# bigscience/bloom: `config.json` and the count of its parameters. Too old to be shipped.
BLOOM = Model(
    parameters=176.25e9,
    active_parameters=176.25e9,
    layers=70,
    hidden=14_336,
    heads=112,
    kv_heads=112,
    head_size=128,
    vocabulary=250_880,
    tied=True,
)
SPLITWISE_MODELS = {"llama2-70b": MODELS["llama-2-70b"], "bloom-176b": BLOOM}
SPLITWISE_ACCELERATORS = {"a100-80gb": "a100-80gb", "h100-80gb": "h100-sxm", "h100-80gb-pcap": "h100-sxm"}
# Of the four measurements behind `EAGER_LAYER_S`.
EAGER_MEASURED_S = (4.7e-5, 1.0e-4, 3.4e-4, 5.9e-4)
USUAL = defaults(EngineKind.VLLM, local=True).prior
MOST = 0.35
_KLASS = "chat"

# Prompts and batches that a prior's form is held to.
PROMPTS = tuple(64 * 2**power for power in range(12))
BATCHES = (1, 2, 4, 8, 16, 32, 64)
FORMS = (
    ("llama-3.1-8b", "l4", 1),
    ("llama-3.1-8b", "rtx-4090", 1),
    ("llama-3.1-8b", "h100-sxm", 1),
    ("llama-3.1-70b", "a100-80gb", 8),
    ("llama-3.1-70b", "h100-sxm", 4),
    ("qwen3-8b", "mi300x", 1),
    ("qwen3-32b", "rtx-pro-6000-server", 2),
    ("qwen3-30b-a3b", "rtx-pro-6000-server", 1),
    ("mixtral-8x7b", "a100-80gb", 2),
)

Errors = dict[str, list[float]]
"""Predicted over measured, less one, by figure."""


def prefill_s(prior: Prior, prompts: int, tokens: int) -> float:
    """What so many prompts of so many tokens take, one after the other."""
    each_s = tokens * (prior.prefill_s_per_token + tokens / 2.0 * prior.prefill_s_per_token2)
    return prior.overhead_s + prompts * each_s


def token_s(prior: Prior, batch: int, context_tokens: float) -> float:
    """What one more token of each takes, with so many tokens of context together."""
    alone_s = prior.decode_s_per_token * (1.0 + prior.batch_slowdown * crowd(prior.batch_fading, batch - 1))
    return alone_s + context_tokens * prior.decode_s_per_context_token


def splitwise(*, eager: bool = True, layer_s: float = hardware.EAGER_LAYER_S) -> dict[str, Errors]:
    """Errors by model, accelerator and how many of these; `layer_s` is what starting kernels adds in a layer."""
    found: dict[str, Errors] = defaultdict(lambda: {"prompt": [], "token": []})
    for row in rows("perf/splitwise_perf_model.csv.gz"):
        count, batch = int(row["tensor_parallel"]), int(row["batch_size"])
        machine = Machine(
            accelerator=ACCELERATORS[SPLITWISE_ACCELERATORS[row["hardware"]]],
            setup=Setup(tensor_parallel=count, eager=eager),
        )
        model = SPLITWISE_MODELS[row["model"]]
        prior = density.prior(USUAL, machine, model, concurrency=64)
        if eager:
            prior = _slower(prior, model.layers * (layer_s - hardware.EAGER_LAYER_S))
        prompt, output = int(row["prompt_size"]), int(row["token_size"])
        errors = found[f"{row['model']} on {count} {row['hardware']}"]
        errors["prompt"].append(1000.0 * prefill_s(prior, batch, prompt) / float(row["prompt_time"]) - 1.0)
        context_tokens = batch * (prompt + output / 2.0)
        errors["token"].append(1000.0 * token_s(prior, batch, context_tokens) / float(row["token_time"]) - 1.0)
    return dict(found)


def _slower(prior: Prior, more_s: float) -> Prior:
    """The same where each iteration takes that much more."""
    decode_s = prior.decode_s_per_token + more_s
    return replace(
        prior,
        overhead_s=prior.overhead_s + more_s,
        prefill_s_per_token=prior.prefill_s_per_token + more_s / Setup().batch_tokens,
        decode_s_per_token=decode_s,
        batch_slowdown=prior.batch_slowdown * prior.decode_s_per_token / decode_s,
    )


def vllm() -> dict[str, Errors]:
    """Errors by run."""
    return {run.name: _served(run) for run in fit_engines.runs()}


def _served(run: fit_engines.Run) -> Errors:
    """What a router that learns nothing of the engine predicts of each request as it comes."""
    router = Router((_endpoint(run),), Policy(held_max=len(run.jobs)), State(lengths=_lengths(run)))
    model = router.endpoint(run.name)
    errors: Errors = {"ttft": [], "tpot": []}
    facts: list[tuple[float, int, Observation]] = []
    held: list[Request] = []
    requests = [replace(job.request, klass=_KLASS, model=run.name, prompt_tokens=job.prompt_tokens) for job in run.jobs]
    coming = sorted(range(len(requests)), key=lambda number: requests[number].arrived_s)
    by_id = {request.id: number for number, request in enumerate(requests)}

    def sent(request: Request, now_s: float) -> None:
        router.observe(_started(request), now_s)
        model.state.reservations[request.id].teaches = False
        number = by_id[request.id]
        first_s = max(now_s, request.arrived_s + run.ttft_s[number])
        ends_s = first_s + run.tpot_s[number] * (run.jobs[number].target - 1)
        heappush(facts, (first_s, 2 * number, FirstToken(request_id=request.id, endpoint=run.name, ttft_s=0.0)))
        ended = Ended(request_id=request.id, endpoint=run.name, ending=Ending.CANCELLED, e2e_s=0.0)
        heappush(facts, (ends_s, 2 * number + 1, ended))

    def passed(until_s: float) -> None:
        while facts and facts[0][0] <= until_s:
            at_s, _, fact = heappop(facts)
            router.observe(fact, at_s)
            if held and model.room > 0:
                sent(held.pop(0), at_s)

    for number in coming:
        request = requests[number]
        passed(request.arrived_s)
        (candidate,) = router.candidates(request, request.arrived_s)
        assert candidate.estimate is not None, "nothing excludes the only endpoint from being predicted"
        errors["ttft"].append(candidate.estimate.ttft_s / run.ttft_s[number] - 1.0)
        errors["tpot"].append(candidate.estimate.tpot_s / run.tpot_s[number] - 1.0)
        if model.room > 0 and not held:
            sent(request, request.arrived_s)
        else:
            router.observe(Held(request=request), request.arrived_s)
            held.append(request)
    return errors


def _lengths(run: fit_engines.Run) -> Lengths:
    """How long answers are is known: it is their class's, and no engine's."""
    lengths = LengthModel()
    for job in run.jobs:
        lengths.learn(_KLASS, job.target, 0.0)
    return lengths.state


def _started(request: Request) -> Started:
    return Started(
        request_id=request.id,
        endpoint=request.model,
        klass=request.klass,
        prompt_tokens=request.prompt_tokens,
        prompt_bytes=request.prompt_bytes,
    )


def _endpoint(run: fit_engines.Run) -> Endpoint:
    machine = Machine(accelerator=fit_engines.RUN_ACCELERATOR, setup=run.setup, model=run.model)
    concurrency = run.setup.slots * hardware.ranks_in_step(run.model, run.setup)
    return Endpoint(
        name=run.name,
        site="here",
        local=True,
        models=(run.name,),
        context_tokens=32_768,
        concurrency=concurrency,
        owned=True,
        prior=density.prior(USUAL, machine, run.model, concurrency),
        machine=machine,
    )


def forms() -> dict[str, dict[str, list[float]]]:
    """How far a prior's form is from the roofline that it is made of: median and most, with and without what it has for
    contexts and experts.
    """
    found = {}
    for name, accelerator, count in FORMS:
        model = MODELS[name]
        machine = Machine(accelerator=ACCELERATORS[accelerator], setup=Setup(tensor_parallel=count))
        prior = density.prior(USUAL, machine, model, concurrency=max(BATCHES))
        found[f"{name} on {count} {accelerator}"] = {
            "prefill": _spread(_prefills(prior, machine, model)),
            "decode": _spread(_decodes(prior, machine, model)),
            "decode without contexts": _spread(_decodes(_without_contexts(prior, machine, model), machine, model)),
            "decode without fading": _spread(_decodes(_without_fading(prior), machine, model)),
        }
    return found


def _prefills(prior: Prior, machine: Machine, model: Model) -> Iterator[float]:
    step = step_time(model, machine.accelerator, machine.setup, hardware.MEASURED)
    chunk = machine.setup.batch_tokens
    for tokens in PROMPTS:
        whole, rest = divmod(tokens, chunk)
        takes_s = whole * step.takes_s(chunk, 0.0, 0, 0) + (step.takes_s(rest, 0.0, 0, 0) if rest else 0.0)
        yield prefill_s(prior, 1, tokens) / (takes_s + step.per_pair_s * tokens**2 / 2.0) - 1.0


def _decodes(prior: Prior, machine: Machine, model: Model) -> Iterator[float]:
    step = step_time(model, machine.accelerator, machine.setup, hardware.MEASURED)
    for batch in BATCHES:
        for tokens in PROMPTS:
            yield token_s(prior, batch, batch * tokens) / step.takes_s(0, 0.0, batch, batch * tokens) - 1.0


def _without_contexts(prior: Prior, machine: Machine, model: Model) -> Prior:
    """The same where each sequence brings 1,024 tokens, whatever it brings."""
    step = step_time(model, machine.accelerator, machine.setup, hardware.MEASURED)
    most = max(BATCHES)
    alone_s, all_s = step.takes_s(0, 0.0, 1, 1024), step.takes_s(0, 0.0, most, 1024 * most)
    return replace(
        prior,
        decode_s_per_token=alone_s,
        batch_slowdown=(all_s / alone_s - 1.0) / crowd(prior.batch_fading, most - 1),
        decode_s_per_context_token=0.0,
    )


def _without_fading(prior: Prior) -> Prior:
    """The same where each further sequence adds as much as the one before."""
    most = max(BATCHES)
    slowdown = prior.batch_slowdown * crowd(prior.batch_fading, most - 1) / (most - 1)
    return replace(prior, batch_slowdown=slowdown, batch_fading=1.0)


def _spread(errors: Iterator[float]) -> list[float]:
    found = sorted(abs(error) for error in errors)
    return [round(median(found), 3), round(found[-1], 3)]


def summary(errors: dict[str, Errors]) -> dict[str, dict[str, float]]:
    """The median of absolute errors by figure: of each part of a table, and of all its rows."""
    figures = sorted({figure for part in errors.values() for figure in part})
    whole = {figure: [error for part in errors.values() for error in part[figure]] for figure in figures}
    return {
        name: {figure: round(median(abs(error) for error in part[figure]), 4) for figure in figures}
        for name, part in {"all": whole, **errors}.items()
    }


def bias(errors: dict[str, Errors]) -> dict[str, float]:
    """The median of errors with their sign, and the standard deviation of log(actual / predicted), by figure."""
    found = {}
    for figure in sorted({figure for part in errors.values() for figure in part}):
        values = [error for part in errors.values() for error in part[figure]]
        found[f"{figure}_median"] = round(median(values), 4)
        found[f"{figure}_sigma"] = round(math.sqrt(fmean(math.log1p(value) ** 2 for value in values)), 3)
    return found


def found() -> dict[str, object]:
    """All that is recorded."""
    measured, served = splitwise(), vllm()
    return {
        "bound": MOST,
        "splitwise": {**summary(measured), "bias": bias(measured)},
        "vllm": {**summary(served), "bias": bias(served)},
        "splitwise without eager": summary(splitwise(eager=False))["all"],
        "splitwise by one measurement of eager alone": {
            f"{layer_s:g}": summary(splitwise(layer_s=layer_s))["all"] for layer_s in EAGER_MEASURED_S
        },
        "prior against roofline, median and most": forms(),
    }


def main() -> None:
    """Predict, compare, record."""
    assert "TIDEGATE_DATA" in os.environ, "TIDEGATE_DATA names the folder of public traces"
    record("prior_error", found())


if __name__ == "__main__":
    main()
