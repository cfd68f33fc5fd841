"""vLLM (`vllm serve`).

Its queue is unbounded; how long it is stands in the metrics. It notices clients that leave, streamed or not.
"""

from collections.abc import Sequence

import msgspec

from tidegate.core.model import Fingerprint
from tidegate.engines import names
from tidegate.engines.base import Header, Outgoing, ProbeAnswer, ProbeRequest, Signals, counted, read, recognised, share
from tidegate.engines.listed import origin
from tidegate.engines.openai import OpenAI, is_refused, with_reasoning
from tidegate.wire.openai import Call
from tidegate.wire.prometheus import Labels, count, samples
from tidegate.wire.rest import FALSE, TRUE, Continuing

_RUNNING = "vllm:num_requests_running"
_WAITING = "vllm:num_requests_waiting"
# The name since version 1 of its engine, and the one before.
_CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
# Its memory stands in the labels of this: how many blocks there are, how large they are, and lately the tokens in all,
# which is another number where layers differ.
_MEMORY = "vllm:cache_config_info"
_PREEMPTIONS = "vllm:num_preemptions_total"
# One sample for each state, of which one is 1.
_SLEEP = "vllm:engine_sleep_state"
_AWAKE = b"awake"


class _Version(msgspec.Struct):
    version: str = ""


class VLLM:
    """The OpenAI dialect as vLLM speaks it."""

    name = "vllm"
    fetches = True
    # Templates of many models cut blanks off the end of each message, and transformers then go on without them.
    continuing = Continuing(fields={"continue_final_message": TRUE, "add_generation_prompt": FALSE}, trims=True)

    def __init__(self, base_path: str, model: str | None) -> None:
        """See `OpenAI`."""
        self._base = base_path.rstrip("/").removesuffix("/v1").encode()
        # Whatever a path ends in, these add `/v1` to it.
        self._openai = OpenAI(f"{self._base.decode()}/v1", model)
        self._model = model
        self.failure = self._openai.failure
        self.headers = self._openai.headers
        self.translator = self._openai.translator

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`. Since version 0.16 it reads what was thought before by its newer name alone."""
        return self._openai.outgoing(with_reasoning(call), model, headers)

    def probes(self) -> tuple[ProbeRequest, ...]:
        """See `Dialect`. `/health` asks the engine itself, not only its front, and needs no key."""
        return (
            ProbeRequest(target=self._base + b"/health", essential=True),
            ProbeRequest(target=self._base + b"/v1/models"),
            ProbeRequest(target=self._base + b"/metrics"),
            ProbeRequest(target=self._base + b"/version"),
        )

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """See `Dialect`. Engines that share the load have samples of their own: they add up.

        One that was put to sleep does not wake by itself, and a request would kill it: until somebody wakes it, it is
        down.
        """
        health, models, metrics, version = answers
        if health is None or health.status != 200 or is_refused(models):
            return Signals(up=False)
        text = metrics.body if metrics is not None and metrics.status == 200 else b""
        found = samples(text, (_RUNNING, _WAITING, _SLEEP, _MEMORY, _PREEMPTIONS, *_CACHE))
        if any(not value for labels, value in found.get(_SLEEP, ()) if labels.get(b"sleep_state") == _AWAKE):
            return Signals(up=False, resident=False)
        values = {name: [value for _, value in told] for name, told in found.items()}
        running, waiting = (counted(sum(values[name])) if name in values else None for name in (_RUNNING, _WAITING))
        window = self._openai.window(models)
        shares = next((values[name] for name in _CACHE if name in values), [])
        preemptions = sum(values[_PREEMPTIONS]) if _PREEMPTIONS in values else None
        return Signals(
            up=True,
            # It may answer to it all the same: it can be told to look up adapters, or to let names be.
            lacks=self._openai.unlisted(models),
            context_tokens=window,
            running=running,
            queued=waiting,
            fingerprint=recognised(
                Fingerprint(
                    weights=names.repository(origin(models, self._model).root or ""),
                    context_tokens=window,
                    engine=names.build("vLLM", read(version, _Version).version),
                )
            ),
            kv_tokens_max=_kv_tokens([labels for labels, _ in found.get(_MEMORY, ())]),
            # They are alike, so the mean is the share of all their memory.
            kv_share=share(sum(shares) / len(shares)) if shares else None,
            preemptions=counted(preemptions),
        )


def _kv_tokens(engines: Sequence[Labels]) -> int | None:
    """What the KV caches of all engines hold together; None where one of them does not tell."""
    total = 0
    for labels in engines:
        tokens = count(labels.get(b"kv_cache_size_tokens"))
        blocks, size = count(labels.get(b"num_gpu_blocks")), count(labels.get(b"block_size"))
        if tokens is None and blocks is not None and size is not None:
            tokens = blocks * size
        if not tokens:
            return None
        total += tokens
    return counted(total) if total else None
