"""What an endpoint is believed to do before anything was measured."""

import msgspec


class CachePrior(msgspec.Struct, frozen=True, kw_only=True):
    """How long an endpoint is believed to keep what it computed of a prompt, for others that begin alike.

    It still has a beginning with probability `share`; with half of that once `tokens` more were put there, or after
    `lifetime_s`; None is no such end. Less than `tokens_min` in common counts as nothing.
    """

    share: float = 0.5
    tokens: float | None = None
    lifetime_s: float | None = None
    tokens_min: int = 0


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint is believed to do before anything was measured.

    Prefill of `m` uncached tokens takes `overhead_s + m * prefill_s_per_token + m**2 / 2 * prefill_s_per_token2`:
    attention grows with the square. One more running sequence adds `batch_slowdown` of the time per output token, and
    each further one `batch_fading` of what the one before it added: in a model of experts, many sequences share what is
    read. Each token in the contexts of all of them adds `decode_s_per_context_token`. An engine that reads the
    prompts in its slots by their numbers (llama.cpp) looks at new ones after each `batch_tokens`; None is as they came.
    `sigma` is the standard deviation of log(actual / predicted) that this prior deserves. `cache` is what it keeps.

    A model that is not loaded takes `load_s` to be, None is as the size of its weights has it. Where nobody uses it for
    `unload_after_s` it is unloaded, None is never.
    """

    overhead_s: float = 0.05
    prefill_s_per_token: float = 0.0005
    prefill_s_per_token2: float = 0.0
    decode_s_per_token: float = 0.02
    batch_slowdown: float = 0.0
    batch_fading: float = 1.0
    decode_s_per_context_token: float = 0.0
    batch_tokens: int | None = None
    rtt_s: float = 0.0
    upload_bytes_per_s: float = 12.5e6
    sigma: float = 0.7
    cache: CachePrior = CachePrior()
    load_s: float | None = None
    unload_after_s: float | None = None


def crowd(fading: float, load: float) -> float:
    """The sum of the first `load` powers of `fading`, which is at most 1."""
    return load if fading >= 1.0 else (1.0 - fading**load) / (1.0 - fading)
