"""What a model and an accelerator are, and what an iteration takes where one runs on the other.

A roofline: weights and keys are read at the speed of memory, tokens are computed at the speed of the cores, what
accelerators tell each other goes over their link; each at the share of its nominal speed that measured engines reach.
On hardware like that of the measured engines, times are right within a few per cent; on other hardware they may be a
fifth off, and what is measured on the engine itself is better.
"""

import msgspec

from tidegate.core.step import OVERLAP, Linear, StepTime

ACTIVATION_BYTES = 2  # between layers, and between accelerators, values are bf16 whatever the weights are
# Beside weights and keys: activations of the largest iteration, captured graphs, the runtime. On an RTX 4090 vLLM 0.19
# leaves room for 41,408 tokens of Llama-3.1-8B, and this is what is missing then.
WORKSPACE_BYTES = 1.5e9


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """Between accelerators of one host: what each sends in a second while all exchange, and what an exchange takes
    at least.
    """

    bytes_per_s: float
    exchange_s: float


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """What its maker declares: its memory, the bandwidth of that, its peak of dense operations in bf16; and the link to
    others of the same host.
    """

    memory_bytes: float
    bytes_per_s: float
    flops: float
    link: Link


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is made of. `parameters` and `active_parameters` (per token) count the embedding and the head.

    `tied`: the head is the embedding. `experts` of a layer, of which each token takes `experts_per_token`; 0 is a dense
    model. `weight_bytes` is the size of a weight, and `kv_bytes` that of one value in the KV cache.
    """

    parameters: float
    active_parameters: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool = False
    experts: int = 0
    experts_per_token: int = 0
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0

    @property
    def head(self) -> float:
        """Parameters from the last layer to a token."""
        return float(self.vocabulary * self.hidden)

    @property
    def expert_parameters(self) -> float:
        """All experts of all layers."""
        if not self.experts:
            return 0.0
        return (self.parameters - self.active_parameters) / (1.0 - self.experts_per_token / self.experts)

    @property
    def shared_parameters(self) -> float:
        """What every iteration reads, the head included; of the embedding it reads next to nothing."""
        return self.parameters - self.expert_parameters - (0.0 if self.tied else self.head)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How a model runs: each of `data_parallel` ranks on `tensor_parallel` accelerators, and what each rank may take.

    `eager`: the engine starts each kernel by itself, and does not replay captured graphs.

    Ranks of a dense model are engines of their own: a profile is that of one. Those of a model of experts share these,
    and go in step: a profile is that of all. `memory_share` of each accelerator's memory is the engine's.
    """

    tensor_parallel: int = 1
    data_parallel: int = 1
    slots: int = 256
    batch_tokens: int = 2048
    memory_share: float = 0.9
    queue_max: int | None = None
    keeps_prefixes: bool = True
    load_s: float = 0.0
    eager: bool = False


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What is declared of the hardware under an endpoint, and what is known of the model that runs there.

    `model` is what was declared, and holds; without it holds what the engine tells, and until then what is `assumed` by
    the model's name. Of the endpoint's prior, the fields in `written` were written down, and are not computed.
    """

    accelerator: Accelerator
    setup: Setup = Setup()
    model: Model | None = None
    assumed: Model | None = None
    written: tuple[str, ...] = ()


class Efficiency(msgspec.Struct, frozen=True, kw_only=True):
    """What is shared by all engines: shares of nominal speeds that are reached.

    `bandwidth_share` is that of the memory's, `compute_share` that of the peak, of which the small multiplications of
    experts reach `expert_share`; attention among a prompt's tokens reaches `attention_share` of the peak. `layer_s`
    passes in each layer. What software takes beside that is done while accelerators compute.
    """

    bandwidth_share: float
    compute_share: float
    attention_share: float
    expert_share: float
    layer_s: float
    overlap: float = OVERLAP


# Fitted to runs of vLLM 0.19 and to tables of kernels, see bench/fit_engines.py.
MEASURED = Efficiency(
    bandwidth_share=0.826,
    compute_share=0.726,
    attention_share=0.609,
    expert_share=0.436,
    layer_s=4.26e-5,
)

# What starting kernels one by one adds in each layer: the median of what four others measured of engines without and
# with graphs, for models of 28 to 32 layers. 47 us (vllm-project/vllm#1440, Llama-2-7B), 0.10 ms (Llama-3.1-8B on an
# H100, cloudai.pt/tag/cuda-graphs), 0.34 ms (vllm-project/vllm-omni#7960, Qwen2.5-7B on an A800), 0.59 ms (fireworks.ai
# in vllm-project/vllm#914, LLaMA-7B).
EAGER_LAYER_S = 2.2e-4


def ranks_in_step(model: Model, setup: Setup) -> int:
    """Ranks that share experts take every iteration together, and are as one engine."""
    return setup.data_parallel if model.experts else 1


def kv_tokens(model: Model, accelerator: Accelerator, setup: Setup) -> int:
    """Tokens for which there is memory beside the weights. Raises ValueError where there is none."""
    tensor, ranks = setup.tensor_parallel, ranks_in_step(model, setup)
    replicated = model.parameters - model.expert_parameters
    weights_bytes = model.weight_bytes * (replicated + model.expert_parameters / ranks) / tensor
    free_bytes = setup.memory_share * accelerator.memory_bytes - weights_bytes - WORKSPACE_BYTES
    tokens = int(free_bytes / kv_bytes(model, tensor)) * ranks
    if tokens <= 0:
        raise ValueError(
            f"the weights need {weights_bytes / 1e9:.1f} GB of each accelerator, of whose "
            f"{accelerator.memory_bytes / 1e9:.1f} GB the engine has {setup.memory_share:.0%}, "
            f"{WORKSPACE_BYTES / 1e9:.1f} GB of them to work in: raise tensor_parallel, or take smaller weights"
        )
    return tokens


def kv_bytes(model: Model, tensor_parallel: int) -> float:
    """Bytes of KV cache that one token takes on each accelerator: beyond one head for each, heads are copied."""
    heads = max(1.0, model.kv_heads / tensor_parallel)
    return 2.0 * model.layers * heads * model.head_size * model.kv_bytes


def step_time(model: Model, accelerator: Accelerator, setup: Setup, efficiency: Efficiency) -> StepTime:
    """What an iteration takes."""
    tensor, ranks = setup.tensor_parallel, ranks_in_step(model, setup)
    bytes_per_s = accelerator.bytes_per_s * efficiency.bandwidth_share
    flops = accelerator.flops * efficiency.compute_share
    exchanges, sent_bytes = _exchanged(model, tensor, ranks)
    layer_s = efficiency.layer_s + (EAGER_LAYER_S if setup.eager else 0.0)
    # Each accelerator has the scores of some words, of which one token is taken.
    scores_bytes = ACTIVATION_BYTES * model.vocabulary * (tensor - 1) / tensor
    active = model.expert_parameters * model.experts_per_token / model.experts if model.experts else 0.0
    pair_flops = 4.0 * model.layers * model.heads * model.head_size / tensor
    return StepTime(
        base_s=model.layers * layer_s + exchanges * accelerator.link.exchange_s,
        per_token_s=sent_bytes / accelerator.link.bytes_per_s,
        per_sequence_s=2.0 * model.head / tensor / flops + scores_bytes / accelerator.link.bytes_per_s,
        per_context_token_s=kv_bytes(model, tensor) / bytes_per_s,
        per_pair_s=pair_flops / (accelerator.flops * efficiency.attention_share),
        linear=Linear(
            weights_s=model.weight_bytes * model.shared_parameters / tensor / bytes_per_s,
            per_token_s=2.0 * (model.shared_parameters - model.head) / tensor / flops,
            experts_s=model.weight_bytes * model.expert_parameters / tensor / ranks / bytes_per_s,
            expert_share=model.experts_per_token / model.experts if model.experts else 0.0,
            per_expert_token_s=2.0 * active / tensor / ranks / (flops * efficiency.expert_share),
            overlap=efficiency.overlap,
        ),
        ranks=ranks,
    )


def _exchanged(model: Model, tensor: int, ranks: int) -> tuple[int, float]:
    """How many times accelerators wait for each other in an iteration, and bytes that each sends for each token."""
    row_bytes = float(ACTIVATION_BYTES * model.hidden)
    exchanges, sent_bytes = 0, 0.0
    if tensor > 1:
        # The sum over all after attention and after the other half of a layer, in a ring.
        exchanges += 2 * model.layers
        sent_bytes += 2 * model.layers * 2.0 * row_bytes * (tensor - 1) / tensor
    if ranks > 1:
        # Each token of a rank goes to all before the experts, and what they say comes back.
        exchanges += 2 * model.layers
        sent_bytes += 2 * model.layers * row_bytes
    return exchanges, sent_bytes
