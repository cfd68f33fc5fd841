"""What stands behind an endpoint in a scenario's file: engines, hardware, APIs and ways, as types."""

from typing import Annotated

from msgspec import Meta

from tidegate.config.table import Table, Text
from tidegate.core.step import OVERLAP
from tidegate.sim.schema import TIMES_MAX_S, Seconds, Share, Tokens


class LinearTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an iteration takes in the layers of weights, besides: reading and computing, as hardware makes it."""

    weights_s: Annotated[Annotated[float, Meta(ge=0, le=100)], Meta(description="To read what every token needs.")]
    per_token_s: Annotated[Annotated[float, Meta(ge=0, le=10)], Meta(description="To compute it, for each token.")]
    experts_s: Annotated[
        Annotated[float, Meta(ge=0, le=100)], Meta(description="To read all experts. There are none, if left out.")
    ] = 0.0
    expert_share: Annotated[Share, Meta(description="Share of the experts that a token needs.")] = 0.0
    per_expert_token_s: Annotated[
        Annotated[float, Meta(ge=0, le=10)], Meta(description="To compute these, for each token.")
    ] = 0.0
    overlap: Annotated[
        Annotated[float, Meta(ge=1, le=100)],
        Meta(description="Exponent with which reading and computing add up: 1 is one after the other. As measured."),
    ] = OVERLAP


class StepTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds that one iteration of an engine takes: their sum."""

    base_s: Annotated[Annotated[float, Meta(ge=0, le=100)], Meta(description="For the iteration: reading weights.")]
    per_token_s: Annotated[Annotated[float, Meta(ge=0, le=10)], Meta(description="For each token in it.")]
    per_sequence_s: Annotated[
        Annotated[float, Meta(ge=0, le=10)], Meta(description="For each sequence that decodes. Nothing, if left out.")
    ] = 0.0
    per_context_token_s: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(description="For each token of the contexts of these. Nothing, if left out."),
    ] = 0.0
    per_pair_s: Annotated[
        Annotated[float, Meta(ge=0, le=1)],
        Meta(description="For each pair of a prompt's token and one before it. Nothing, if left out."),
    ] = 0.0
    linear: Annotated[LinearTable | None, Meta(description="And in layers of weights. Nothing, if left out.")] = None
    ranks: Annotated[
        Annotated[int, Meta(ge=1, le=1024)],
        Meta(description="Ranks that go in step and share experts; all the above is that of one. 1, as most engines."),
    ] = 1


class EngineTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine with continuous batching. What is left out is as in the preset, or else as the table says."""

    preset: Annotated[str, Meta(max_length=64, description="An engine by name, to begin with.")] = ""
    step: Annotated[StepTable | None, Meta(description="What an iteration takes. Required without a preset.")] = None
    slots: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="Sequences that it runs at once. Required without a preset."),
    ] = None
    batch_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)] | None,
        Meta(description="Tokens in one iteration. 2048, as vLLM and llama.cpp have it."),
    ] = None
    kv_tokens: Annotated[
        Annotated[int, Meta(ge=128, le=10_000_000_000)] | None,
        Meta(description="Tokens that there is memory for. Required without a preset."),
    ] = None
    queue_max: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(description="Waiting requests beyond which it refuses. Never, as most engines do."),
    ] = None
    keeps_prefixes: Annotated[
        bool | None, Meta(description="Whether prompts that begin alike are not computed again. They are not.")
    ] = None
    load_s: Annotated[
        Annotated[float, Meta(ge=0, le=86_400)] | None,
        Meta(description="Time to load the model. None: it is loaded."),
    ] = None
    unload_after_s: Annotated[
        Annotated[float, Meta(ge=0, le=TIMES_MAX_S)] | None,
        Meta(description="Idle time after which it gives its memory back. Never."),
    ] = None


class HardwareTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine from declared facts: a model on accelerators. On hardware unlike any measured it may be a fifth off."""

    model: Annotated[str, Meta(max_length=64, description="The model, by name.")]
    accelerator: Annotated[str, Meta(max_length=64, description="The accelerator, by name.")]
    tensor_parallel: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="Accelerators that share each layer. 1.")
    ] = 1
    data_parallel: Annotated[
        Annotated[int, Meta(ge=1, le=256)],
        Meta(description="Ranks of these that share a model's experts, which a dense model has none of. 1."),
    ] = 1
    slots: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)], Meta(description="Sequences at once, of each rank. 256, as in vLLM.")
    ] = 256
    batch_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)],
        Meta(description="Tokens in one iteration, of each rank. 2048, as in vLLM."),
    ] = 2048
    memory_share: Annotated[
        Annotated[float, Meta(ge=0.01, le=1)], Meta(description="Share of the memory that is the engine's. As in vLLM.")
    ] = 0.9
    weight_bytes: Annotated[
        Annotated[float, Meta(ge=0.1, le=4)] | None,
        Meta(description="Bytes of a weight: 2 is bf16, 1 is fp8, 0.55 four bits with their scales. The model's own."),
    ] = None


class SpreadTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What times are multiplied by: exp(`sigma` z), and exp(`tail_sigma` |z|) for the share `tail` of requests."""

    sigma: Annotated[Annotated[float, Meta(ge=0, le=3)], Meta(description="Spread of the logarithm.")] = 0.0
    tail: Annotated[Share, Meta(description="Share of requests that are late.")] = 0.0
    tail_sigma: Annotated[Annotated[float, Meta(ge=0, le=3)], Meta(description="How late these are.")] = 0.0


class CacheTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an API remembers prompts that begin alike."""

    ttl_s: Annotated[Annotated[float, Meta(ge=0.001, le=TIMES_MAX_S)], Meta(description="For how long.")] = 300.0
    block_tokens: Annotated[Annotated[int, Meta(ge=1, le=1_000_000)], Meta(description="In blocks of so many.")] = 128
    tokens_min: Annotated[Tokens, Meta(description="Less than that in common counts as nothing.")] = 1024
    met: Annotated[Share, Meta(description="Share of requests that reach a part of the fleet that remembers.")] = 1.0


class ApiTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fleet behind an API. What is left out is as in the preset, or else there is none of it.

    It tells of no tokens that are written to its cache, nor of reasoning: prices of their own are not charged for them.
    """

    preset: Annotated[str, Meta(max_length=64, description="An API by name, to begin with.")] = ""
    ttft_s: Annotated[
        Seconds | None, Meta(description="Time to first token of an empty prompt. Required without a preset.")
    ] = None
    ttft_s_per_cached_token: Annotated[Seconds | None, Meta(description="What a cached token adds.")] = None
    ttft_s_per_uncached_token: Annotated[Seconds | None, Meta(description="What any other token adds.")] = None
    ttft_spread: Annotated[SpreadTable | None, Meta(description="How that scatters.")] = None
    tpot_s: Annotated[
        Seconds | None, Meta(description="Time per token after the first. Required without a preset.")
    ] = None
    tpot_spread: Annotated[SpreadTable | None, Meta(description="How that scatters, request by request.")] = None
    load: Annotated[
        Annotated[tuple[Annotated[float, Meta(ge=0.001, le=1000)], ...], Meta(min_length=24, max_length=24)] | None,
        Meta(description="Factors of the time to first token for the 24 hours of the day, UTC."),
    ] = None
    requests_per_minute: Annotated[
        Annotated[float, Meta(ge=1, le=1e9)] | None, Meta(description="Limit on requests, as a bucket of a minute's.")
    ] = None
    tokens_per_minute: Annotated[
        Annotated[float, Meta(ge=1, le=1e12)] | None, Meta(description="Limit on tokens of prompts and outputs.")
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None, Meta(description="Limit on requests at once.")
    ] = None
    retry_after_s: Annotated[
        Annotated[float, Meta(ge=0.001, le=86_400)] | None, Meta(description="What it then says of coming back.")
    ] = None
    cache: Annotated[CacheTable | None, Meta(description="Its prompt cache.")] = None
    idle_s: Annotated[Seconds | None, Meta(description="Time after which an unused model is gone.")] = None
    cold_start_s: Annotated[Seconds | None, Meta(description="And what it takes to come back.")] = None
    errors: Annotated[Share | None, Meta(description="Share of requests that fail.")] = None
    error_status: Annotated[
        Annotated[int, Meta(ge=500, le=599)] | None, Meta(description="With which status they do.")
    ] = None
    error_times_s: Annotated[
        Annotated[tuple[Seconds, ...], Meta(max_length=1024)] | None,
        Meta(description="Times after which they do, each as likely. `refusal_s`, if left out."),
    ] = None
    broken: Annotated[Share | None, Meta(description="Share of streams that break off, anywhere in the answer.")] = None
    refusal_s: Annotated[Seconds | None, Meta(description="Time until a request that is not served hears of it.")] = (
        None
    )


class LinkTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way to an endpoint. What is left out is as in the preset, or else there is none of it."""

    preset: Annotated[str, Meta(max_length=64, description="A way by name, to begin with; its regimes stay.")] = ""
    rtt_s: Annotated[
        Annotated[float, Meta(ge=0, le=60)] | None, Meta(description="Least round trip. Required without a preset.")
    ] = None
    upload_bytes_per_s: Annotated[
        Annotated[float, Meta(ge=1, le=1e12)] | None, Meta(description="Rate there. Required without a preset.")
    ] = None
    download_bytes_per_s: Annotated[
        Annotated[float, Meta(ge=1, le=1e12)] | None, Meta(description="Rate back. Required without a preset.")
    ] = None
    jitter: Annotated[
        Annotated[float, Meta(ge=0, le=3)] | None, Meta(description="Spread of the logarithm of trips; never below.")
    ] = None
    loss: Annotated[
        Annotated[float, Meta(ge=0, le=0.99)] | None, Meta(description="Share of packets that are lost.")
    ] = None


class CarrierTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The way that KV caches take to another endpoint, and how large they are."""

    to: Annotated[str, Meta(min_length=1, max_length=64, description="The endpoint that decodes.")]
    link: Annotated[
        Text | LinkTable | None,
        Meta(description="The way there: a preset's name, or a table. Left out, it is as the configuration has it."),
    ] = None
    kv_kib_per_token: Annotated[
        Annotated[float, Meta(ge=0.001, le=1e6)] | None,
        Meta(description="Size of the KV cache for each token. As the configuration has it."),
    ] = None


class PlaceTable(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What really stands behind an endpoint: an engine, hardware or an API, one of them. The router is not told.

    What it believes at first is the endpoint's `prior`, which may be wrong.
    """

    engine: Annotated[
        Text | EngineTable | None,
        Meta(
            description="An engine: a preset's name, a profile as `tidegate calibrate` writes it (a file whose name "
            "ends in `.toml`, relative to this one), or a table."
        ),
    ] = None
    hardware: Annotated[
        HardwareTable | None, Meta(description="An engine as its model and its hardware make it: a table.")
    ] = None
    api: Annotated[Text | ApiTable | None, Meta(description="An API: a preset's name, or a table.")] = None
    link: Annotated[
        Text | LinkTable | None,
        Meta(
            description="The way there: a preset's name, or a table. Left out, it is the one that a profile's file has "
            "measured, or it stands here, or its way is in its times, as it is in those of the presets of APIs."
        ),
    ] = None
    handover: Annotated[
        tuple[CarrierTable, ...],
        Meta(
            max_length=16,
            description="What is true of the handovers that its configuration declares. Left out, what that says.",
        ),
    ] = ()
