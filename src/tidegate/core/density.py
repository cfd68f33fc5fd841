"""Compute density: what hardware makes of a request, by the roofline; and what one endpoint saves over another.

The prior is what is believed at first. Intensity, bound and savings explain a decision, and none of them enters one.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import ceil

from tidegate.core import facts
from tidegate.core.fingerprint import Fingerprint
from tidegate.core.hardware import MEASURED, Machine, Model, kv_bytes, ranks_in_step, step_time
from tidegate.core.model import Candidate, Endpoint, Prior, Record, Request, replace
from tidegate.core.prior import crowd

# Of the time to read all weights, what even the longest prompt pays beside its computing: where both take as long, the
# overlap of reading and computing leaves 0.62 of it, and beyond that less. Against the roofline itself, prompts of 64
# to 128k tokens come out within 5 % in the median, see bench/prior_error.py.
READ_SHARE = 0.75
# What is left of the prior's error on hardware that nothing was measured on, see bench/prior_error.py.
SIGMA = 0.4


class Bound(StrEnum):
    """What takes the time: computing, or reading memory."""

    COMPUTE = "compute"
    MEMORY = "memory"


class Phase(Record, frozen=True, kw_only=True):
    """The work of a prompt, or of one token for each sequence of a batch: operations, bytes of memory, and which of the
    two the hardware is longer at.
    """

    flops: float
    bytes: float
    intensity_flop_per_byte: float
    bound: Bound


class Density(Record, frozen=True, kw_only=True):
    """One candidate's computing for a request.

    `compute_s` is what prefill and decode are expected to take beside what runs there, without waiting and network.
    It is `speed_up` times as fast as `over`, the slowest of our own endpoints (of all, where none is ours), and
    saves `saved_s_per_byte` for each byte of the prompt that is sent to it; None where nothing is sent, at a local
    site. Prefill, decode and the ridge, the intensity at which computing takes as long as reading, are known where
    the hardware was declared; `batch` sequences decode together, this one among them.
    """

    endpoint: str
    compute_s: float
    over: str
    speed_up: float
    saved_s_per_byte: float | None = None
    ridge_flop_per_byte: float | None = None
    batch: int | None = None
    prefill: Phase | None = None
    decode: Phase | None = None


# --- the prior --------------------------------------------------------------------------------------------------


def model_at(machine: Machine, fingerprint: Fingerprint) -> Model | None:
    """The model that runs there, as far as is known."""
    return machine.model or facts.told(fingerprint, machine.assumed) or machine.assumed


def prior(usual: Prior, machine: Machine, model: Model, concurrency: int) -> Prior:
    """What this model on this machine is believed to do, for up to `concurrency` requests at once.

    What the roofline says nothing of, and what was written down, is as in `usual`.
    """
    step = step_time(model, machine.accelerator, machine.setup, MEASURED)
    assert step.linear is not None, "declared hardware has layers of weights"
    chunk, most = machine.setup.batch_tokens, max(2, concurrency)
    read_s = step.linear.weights_s + step.linear.experts_s
    alone_s = step.takes_s(0, 0.0, 1, 0)
    fading = 1.0 - model.experts_per_token / model.experts if model.experts else 1.0
    found = {
        "overhead_s": step.base_s + READ_SHARE * read_s,
        "prefill_s_per_token": step.takes_s(chunk, 0.0, 0, 0) / chunk,
        "prefill_s_per_token2": step.per_pair_s,
        "decode_s_per_token": alone_s,
        "batch_slowdown": (step.takes_s(0, 0.0, most, 0) / alone_s - 1.0) / crowd(fading, most - 1),
        "batch_fading": fading,
        "decode_s_per_context_token": step.per_context_token_s / step.ranks,
        "sigma": SIGMA,
    }
    return replace(usual, **{name: value for name, value in found.items() if name not in machine.written})


# --- what explains a decision -----------------------------------------------------------------------------------


def ridge(machine: Machine) -> float:
    """Operations per byte at which computing takes as long as reading, at the speeds that are reached."""
    accelerator = machine.accelerator
    return accelerator.flops * MEASURED.compute_share / (accelerator.bytes_per_s * MEASURED.bandwidth_share)


def prefill(model: Model, machine: Machine, tokens: int) -> Phase:
    """The work of a prompt of so many tokens, none of them cached; weights are read for each chunk of it."""
    chunk = machine.setup.batch_tokens
    flops = tokens * _token_flops(model) + 2.0 * model.head + _pair_flops(model) * tokens**2 / 2.0
    reads = ceil(tokens / chunk) * _weights_bytes(model, machine, min(tokens, chunk))
    return _phase(machine, flops, reads + kv_bytes(model, 1) * tokens)


def decode(model: Model, machine: Machine, batch: int, context_tokens: float) -> Phase:
    """The work of one more token for each of `batch` sequences, of so many tokens of context together."""
    flops = batch * (_token_flops(model) + 2.0 * model.head) + _pair_flops(model) * context_tokens
    reads = _weights_bytes(model, machine, batch)
    return _phase(machine, flops, reads + kv_bytes(model, 1) * (context_tokens + batch))


def densities(request: Request, candidates: Sequence[Candidate], running: Sequence["Running"]) -> tuple[Density, ...]:
    """What each candidate that has an estimate makes of the request, in their order; `running` is one for each."""
    by_name = {one.endpoint.name: one for one in running}
    taken_s = {
        one.endpoint: by_name[one.endpoint].prefill_s + one.estimate.output_tokens * one.estimate.tpot_s
        for one in candidates
        if one.estimate is not None
    }
    if not taken_s:
        return ()
    own = [name for name in taken_s if by_name[name].endpoint.owned]
    over = max(own or taken_s, key=lambda name: (taken_s[name], name))
    return tuple(_density(request, by_name[name], took_s, over, taken_s[over]) for name, took_s in taken_s.items())


class Running(Record, frozen=True, kw_only=True):
    """An endpoint as it was when something was decided: what was known of its model, and what ran there.

    `prefill_s` is what the request's prompt was expected to take beside that, without waiting for other prompts.
    """

    endpoint: Endpoint
    fingerprint: Fingerprint
    prefill_s: float
    load: int
    context_tokens: int


def _density(request: Request, at: Running, taken_s: float, over: str, over_s: float) -> Density:
    sends = not at.endpoint.local and request.prompt_bytes > 0
    found = Density(
        endpoint=at.endpoint.name,
        compute_s=taken_s,
        over=over,
        speed_up=over_s / taken_s,
        saved_s_per_byte=(over_s - taken_s) / request.prompt_bytes if sends else None,
    )
    machine = at.endpoint.machine
    model = None if machine is None else model_at(machine, at.fingerprint)
    if machine is None or model is None:
        return found
    batch = 1 + (min(at.load, at.endpoint.concurrency - 1) if at.endpoint.owned else at.load)
    others = at.context_tokens * (batch - 1) / at.load if at.load else 0.0
    return replace(
        found,
        ridge_flop_per_byte=ridge(machine),
        batch=batch,
        prefill=prefill(model, machine, max(1, request.prompt_tokens)),
        decode=decode(model, machine, batch, request.prompt_tokens + others),
    )


def _phase(machine: Machine, flops: float, moved_bytes: float) -> Phase:
    intensity = flops / moved_bytes
    return Phase(
        flops=flops,
        bytes=moved_bytes,
        intensity_flop_per_byte=intensity,
        bound=Bound.COMPUTE if intensity >= ridge(machine) else Bound.MEMORY,
    )


def _token_flops(model: Model) -> float:
    """Of each token, in the layers of weights."""
    active = model.expert_parameters * model.experts_per_token / model.experts if model.experts else 0.0
    return 2.0 * (model.shared_parameters - model.head + active)


def _pair_flops(model: Model) -> float:
    """Of each pair of a token and one before it, in attention."""
    return 4.0 * model.layers * model.heads * model.head_size


def _weights_bytes(model: Model, machine: Machine, tokens: int) -> float:
    """What an iteration of so many tokens reads on all accelerators together: ranks read what is shared each."""
    met = 1.0 - (1.0 - model.experts_per_token / model.experts) ** tokens if model.experts else 0.0
    shared = ranks_in_step(model, machine.setup) * model.shared_parameters
    return model.weight_bytes * (shared + met * model.expert_parameters)
