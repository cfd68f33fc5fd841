"""SGLang (`sglang.launch_server`)."""

from collections.abc import Sequence

import msgspec

from tidegate.core.fingerprint import text
from tidegate.core.model import Fingerprint
from tidegate.engines import names
from tidegate.engines.base import (
    Header,
    Outgoing,
    ProbeAnswer,
    ProbeRequest,
    Signals,
    counted,
    narrowest,
    read,
    recognised,
    share,
)
from tidegate.engines.listed import Origin, origin
from tidegate.engines.openai import OpenAI
from tidegate.wire.openai import Call
from tidegate.wire.prometheus import Labels, samples
from tidegate.wire.rest import TRUE, Continuing

_RUNNING = "sglang:num_running_reqs"
_QUEUED = "sglang:num_queue_reqs"
_CACHE = "sglang:token_usage"
# Not `sglang:num_retracted_reqs`, which is of the newest batch alone.
_PREEMPTIONS = "sglang:num_retracted_requests_total"

# No server runs more data-parallel replicas.
REPLICAS_MAX = 4096


class _Info(msgspec.Struct):
    """Of what `/server_info` tells: the rest holds the server's own keys, and is not looked at."""

    context_length: int | None = None
    max_total_num_tokens: int | None = None


class _Replicas(msgspec.Struct):
    """Of the same: how many replicas there are, and how many requests run at once, where that was told at its start."""

    dp_size: int = 1
    max_running_requests: int | None = None


class _Loaded(msgspec.Struct):
    """Of the same: what it runs. `quantization` is as it was told at its start: null too where the weights say it."""

    model_path: str = ""
    tokenizer_path: str | None = None
    quantization: str | None = None
    version: str = ""


class SGLang:
    """The OpenAI dialect as SGLang speaks it."""

    name = "sglang"
    fetches = False
    continuing = Continuing(fields={"continue_final_message": TRUE})

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
        """See `Dialect`."""
        return self._openai.outgoing(call, model, headers)

    def probes(self) -> tuple[ProbeRequest, ...]:
        """See `Dialect`. Not `/health`: where nothing runs, it makes a token to find out."""
        return (
            ProbeRequest(target=self._base + b"/v1/models", essential=True, lists=True),
            # The former warns in the engine's log each time, where it is not the only one.
            ProbeRequest(target=self._base + b"/server_info", former=self._base + b"/get_server_info"),
            ProbeRequest(target=self._base + b"/metrics"),
        )

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """See `Dialect`. No request can be longer than the whole pool of tokens, whatever the model's window."""
        models, info, metrics = answers
        if not self._openai.signals((models,)).up:
            return Signals(up=False)
        told, replicas = read(info, _Info), read(info, _Replicas)
        windows = (self._openai.window(models), told.context_length, told.max_total_num_tokens)
        exposed = metrics.body if metrics is not None and metrics.status == 200 else b""
        metered = (_RUNNING, _QUEUED, _CACHE, _PREEMPTIONS)
        found = samples(exposed, metered)
        running, queued, shares, preemptions = (_by_replica(found.get(name, [])) for name in metered)
        window = narrowest(windows)
        return Signals(
            up=True,
            context_tokens=window,
            running=counted(sum(running)) if running else None,
            queued=counted(sum(queued)) if queued else None,
            fingerprint=recognised(_fingerprint(info, origin(models, self._model), window)),
            # Replicas are alike: each has a pool of so many tokens, and the mean is the share of all of them.
            kv_tokens_max=_all(told.max_total_num_tokens, replicas.dp_size),
            kv_share=share(sum(shares) / len(shares)) if shares else None,
            # Of several replicas it depends on how they share their work whether it is that of each or of all.
            slots=_all(replicas.max_running_requests, 1) if replicas.dp_size == 1 else None,
            preemptions=counted(sum(preemptions)) if preemptions else None,
        )


def _fingerprint(answer: ProbeAnswer | None, entry: Origin, window: int | None) -> Fingerprint:
    told = read(answer, _Loaded)
    return Fingerprint(
        # What the server tells is of its own model, which an adapter is not.
        weights=names.repository((entry.root or "") if entry.parent else told.model_path),
        quantisation=text(told.quantization or ""),
        tokenizer=names.repository(told.tokenizer_path or ""),
        context_tokens=window,
        engine=names.build("SGLang", told.version),
    )


def _all(told: int | None, replicas: int) -> int | None:
    return counted(told * replicas) if told is not None and told > 0 and 0 < replicas <= REPLICAS_MAX else None


def _by_replica(told: Sequence[tuple[Labels, float]]) -> list[float]:
    """One value for each data-parallel replica: ranks of one repeat the same, and priorities are parts of the whole."""
    found: dict[bytes, float] = {}
    for labels, value in told:
        if not labels.get(b"priority"):
            replica = labels.get(b"dp_rank", b"")
            found[replica] = max(value, found.get(replica, value))
    return [found[replica] for replica in sorted(found)]
