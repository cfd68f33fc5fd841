"""What an engine is taken for where the configuration does not say."""

from typing import Any

from tidegate.config.endpoint import EndpointTable, EngineKind
from tidegate.config.price import PriceWord
from tidegate.core.model import Capability, Prior, Record, replace
from tidegate.core.prior import CachePrior


class Defaults(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What holds for one kind of engine at one kind of site, with the reasons.

    `context_tokens` is what is assumed until the engine was asked, or None where it has to be written down. What its
    dialect always `streams` is put together for clients that do not stream.
    """

    context_tokens: int | None
    concurrency: int
    shares_compute: bool
    capabilities: tuple[Capability, ...]
    prior: Prior
    reasons: str
    streams: bool = False


LAN: dict[str, Any] = {"rtt_s": 0.0005, "upload_bytes_per_s": 125e6}  # a switch or loopback; gigabit
WAN: dict[str, Any] = {
    "rtt_s": 0.08,
    "upload_bytes_per_s": 2.5e6,
}  # a home or office line to a region on the same continent

_LLAMACPP = Defaults(
    context_tokens=2048,
    concurrency=1,
    shares_compute=True,
    capabilities=(
        Capability.CHAT,
        Capability.COMPLETION,
        Capability.TOOLS,
        Capability.JSON_SCHEMA,
        Capability.LOGPROBS,
    ),
    prior=Prior(
        overhead_s=0.02,
        prefill_s_per_token=1 / 200,
        prefill_s_per_token2=1 / 200 / 2000,
        decode_s_per_token=1 / 40,
        batch_slowdown=0.5,
        batch_tokens=2048,
        sigma=1.0,
        cache=CachePrior(share=0.9, tokens=16_384.0),
        **LAN,
    ),
    reasons="A small model on one CPU thread: SmolLM2-135M takes 2.6 s for 500 prompt tokens, 13.7 s for 2,000, 112 s "
    "for 8,000, and makes 28 to 76 tokens a second. An accelerator is ten to a hundred times faster, hence the wide "
    "sigma. One slot, since each further one takes its share of the context. The context is assumed until the engine "
    "was asked: half the smallest it is usually started with. It keeps the last prompt of "
    "each slot, and newer versions some more.",
    streams=True,
)

_LOCAL_OPENAI = Defaults(
    context_tokens=None,
    concurrency=16,
    shares_compute=True,
    capabilities=(Capability.CHAT, Capability.COMPLETION, Capability.JSON_SCHEMA, Capability.LOGPROBS),
    prior=Prior(
        overhead_s=0.02,
        prefill_s_per_token=1 / 13_000,
        prefill_s_per_token2=1 / 13_000 / 25_000,
        decode_s_per_token=1 / 45,
        batch_slowdown=0.03,
        sigma=0.7,
        # More likely than not, since it tells nobody what it has cached: counted on, and put right by times.
        cache=CachePrior(share=0.55, tokens=200_000.0),
        **LAN,
    ),
    reasons="vLLM with an 8B model on an L40S: 145 ms for 2,048 prompt tokens, 0.70 s for 8,192, 3.97 s for 32,768; "
    "22 ms a token alone, 14 % more with 16 running at 1k context and 116 % more at 8k. 16 at once still keep a "
    "reader's pace. Tools need a switch at its start, so they have to be said.",
)

_REMOTE_OPENAI = Defaults(
    context_tokens=None,
    concurrency=64,
    shares_compute=False,
    capabilities=(Capability.CHAT, Capability.TOOLS, Capability.JSON_SCHEMA),
    prior=Prior(
        overhead_s=0.5,
        prefill_s_per_token=1 / 33_000,
        decode_s_per_token=1 / 60,
        sigma=0.7,
        cache=CachePrior(share=0.55, lifetime_s=600.0, tokens_min=1024),
        **WAN,
    ),
    reasons="A vendor's API: the first token after 0.4 s in the median and 1.7 s at the ninth decile of "
    "2,845 requests to eight vendors; 3.0 s for 100k uncached prompt tokens and 56 to 68 tokens a second at a "
    "long-context one. 64 at once are the 500 requests a minute of usual entry tiers. Few vendors still serve "
    "completions or log-probabilities. Prompts that begin alike for 1,024 tokens or more are cached for five to ten "
    "minutes, where they meet the same machine.",
)

# What serves many at once on an accelerator, and tells its window.
_SERVER = replace(
    _LOCAL_OPENAI,
    context_tokens=2048,
    prior=replace(_LOCAL_OPENAI.prior, cache=CachePrior(share=0.9, tokens=200_000.0)),
    reasons="As `openai`, local, which was measured with vLLM. The context is assumed until the engine was asked. "
    "It keeps prompts while there is memory: some 200,000 tokens of an 8B model beside its weights.",
)

_OLLAMA = Defaults(
    context_tokens=4096,
    concurrency=1,
    shares_compute=True,
    capabilities=(Capability.CHAT, Capability.COMPLETION, Capability.TOOLS, Capability.JSON_SCHEMA),
    prior=replace(
        _LLAMACPP.prior,
        batch_tokens=None,
        cache=CachePrior(share=0.8, tokens=8_192.0, lifetime_s=300.0),
        unload_after_s=300.0,
    ),
    reasons="The same computation as `llamacpp`, one prompt after the other. One at once, its own default. The context "
    "is its default below 24 GiB of memory, assumed until the model is loaded and tells: beyond it Ollama cuts "
    "prompts without a word. It keeps the last prompt, until the model is unloaded after five minutes, and "
    "tells nothing of it.",
)

_ANTHROPIC = replace(
    _REMOTE_OPENAI,
    context_tokens=200_000,
    prior=replace(_REMOTE_OPENAI.prior, cache=CachePrior(share=0.0, lifetime_s=300.0, tokens_min=1024)),
    reasons="As `openai`, remote, but it caches only what a request asks it to. The context is that of every model of "
    "the vendor since 2024, until it was asked.",
)

_RESPONSES = replace(_REMOTE_OPENAI, reasons="As `openai`, remote: the same vendors, by another address of theirs.")

_FAKE = Defaults(
    context_tokens=8192,
    concurrency=4,
    shares_compute=True,
    capabilities=_LLAMACPP.capabilities,
    prior=Prior(sigma=0.7, **LAN),
    reasons="Stands in for any engine in tests; the core's own defaults.",
)


_BY_ENGINE = {
    EngineKind.LLAMACPP: _LLAMACPP,
    EngineKind.OLLAMA: _OLLAMA,
    EngineKind.VLLM: _SERVER,
    EngineKind.SGLANG: _SERVER,
    EngineKind.ANTHROPIC: _ANTHROPIC,
    EngineKind.RESPONSES: _RESPONSES,
    EngineKind.FAKE: _FAKE,
}


def defaults(engine: EngineKind, local: bool) -> Defaults:
    """What holds for such an engine at such a site."""
    if engine is EngineKind.OPENAI:
        return _LOCAL_OPENAI if local else _REMOTE_OPENAI
    base = _BY_ENGINE[engine]
    return base if local else _moved(base)


def _moved(base: Defaults) -> Defaults:
    """The same engine behind a wide-area network."""
    return replace(base, prior=replace(base.prior, **WAN))


def owned(table: EndpointTable, local: bool) -> bool:
    """Whether its capacity is ours: as is written, else where its site is."""
    return local if table.owned is None else table.owned


def chats(table: EndpointTable, local: bool) -> bool:
    """Whether its model chats."""
    return Capability.CHAT in (table.capabilities or defaults(table.engine, local).capabilities)


def warms_up(table: EndpointTable, local: bool) -> bool:
    """Whether its model is loaded for nobody in particular: as is written, else where that costs nobody anything."""
    if table.warm_up is not None:
        return table.warm_up
    return owned(table, local) and table.price in (None, PriceWord.FREE) and chats(table, local)
