"""llama.cpp's own server (`llama-server`, xllamacpp).

Its queue is unbounded and it never answers 429: admission is the gateway's. A request that is not streamed runs to its
end although its client has left while another stream is active, so it is always streamed, and aggregated for a client
that does not stream; but for tools with log-probabilities, which it gives whole alone.

With `--sleep-idle-seconds` it unloads its model, and loads it for the next request. Until August 2026 a look at its
`/metrics` was one: while it tells that it sleeps, nothing is asked that could wake it.
"""

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from tidegate.core.fingerprint import digest, text
from tidegate.core.model import Capability, Fingerprint
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
)
from tidegate.engines.listed import Meta, origin, status
from tidegate.engines.openai import OpenAI, by_older_name, is_refused, without
from tidegate.engines.tools import of_one_tool
from tidegate.wire.errors import read_error
from tidegate.wire.openai import EMBEDDING, Call
from tidegate.wire.prometheus import gauges
from tidegate.wire.rest import Continuing

_RUNNING = "llamacpp:requests_processing"
_QUEUED = "llamacpp:requests_deferred"
_LOADING = "Loading model"
_NO_KEY = "authentication_error"
# A server of several models says of each whether it is there.
_RESIDENT = {"loaded": True, "loading": False, "unloaded": False, "sleeping": False}
# What it refuses together in a stream.
_BOTH = frozenset({Capability.TOOLS, Capability.LOGPROBS})
_OWN_BOUND = "n_predict"
_NO_FILE = "none"  # what it calls the file of weights where it is not asked about one of its models


class _Generation(msgspec.Struct, frozen=True):
    n_ctx: int | None = None


class _Modalities(msgspec.Struct, frozen=True):
    vision: bool = False
    audio: bool = False


class _Props(msgspec.Struct):
    default_generation_settings: _Generation = _Generation()
    modalities: _Modalities | None = None


class _Sleep(msgspec.Struct):
    is_sleeping: bool | None = None


class _Slots(msgspec.Struct):
    total_slots: int | None = None


class _Told(msgspec.Struct):
    """Of `/props`: what is loaded, and by which build. `model_ftype` came later than the rest."""

    model_path: str = ""
    model_ftype: str = ""
    chat_template: str = ""
    build_info: str = ""
    bos_token: str = ""
    eos_token: str = ""


class LlamaCpp:
    """The OpenAI dialect as llama.cpp speaks it."""

    name = "llamacpp"
    fetches = False
    # With `--no-prefill-assistant` it begins another message: docs/explanation/resuming.md.
    continuing = Continuing()

    def __init__(self, base_path: str, model: str | None) -> None:
        self._base = base_path.rstrip("/").removesuffix("/v1").encode()
        # Whatever a path ends in, these add `/v1` to it.
        self._openai = OpenAI(f"{self._base.decode()}/v1", model)
        self._model = model
        # A server of several models tells of the one that is named, and must not load it for that; others do not look.
        self._which = b"" if model is None else f"?model={quote(model, safe='')}&autoload=false".encode()
        self.failure = self._openai.failure
        self.headers = self._openai.headers
        self.translator = self._openai.translator

    def outgoing(self, call: Call, model: str, headers: Sequence[Header]) -> Outgoing:
        """See `Dialect`. Embeddings come whole. Many builds pass over `max_completion_tokens`.

        A tool that is chosen by its name it takes for a choice that is left to the model. Its own name for the bound of
        the output it takes before the others, by which the answer's length was foreseen.
        """
        call = by_older_name(of_one_tool(call))
        if call.output_tokens_max is not None and _OWN_BOUND in call.fields:
            call = without(call, _OWN_BOUND)
        whole = call.kind is EMBEDDING or (not call.stream and _BOTH.issubset(call.needs))
        return self._openai.made(call, model, headers, streamed=not whole)

    def probes(self) -> tuple[ProbeRequest, ...]:
        """See `Dialect`.

        At most every two seconds: scraping `/metrics` faster stops the server from noticing clients that leave.
        """
        return (
            ProbeRequest(target=self._base + b"/health", essential=True),
            ProbeRequest(target=self._base + b"/props" + self._which),
            ProbeRequest(target=self._base + b"/metrics" + self._which, wakes=True),
            ProbeRequest(target=self._base + b"/v1/models", wakes=True),
        )

    def signals(self, answers: Sequence[ProbeAnswer | None]) -> Signals:
        """See `Dialect`. `/health` answers 503 while the model loads; `n_ctx` is the window of one slot.

        What of their memory is in use, it does not tell, nor whether slots share one window (`--kv-unified`): each is
        taken to have its own, which then is more than there is.
        """
        health, props, metrics, models = answers
        if health is None or health.status != 200:
            loading = health is not None and read_error(health.status, health.body).message == _LOADING
            return Signals(up=False, resident=False if loading else None, loading=loading)
        if _refuses_our_key(props):
            return Signals(up=False)
        # Each apart: what is of another type costs nothing beside it.
        told, sleep, parallel = read(props, _Props, 200), read(props, _Sleep, 200), read(props, _Slots, 200)
        meta = origin(models, self._model).meta or Meta()
        window = narrowest((told.default_generation_settings.n_ctx,)) or narrowest((meta.n_ctx,))
        found = gauges(metrics.body, (_RUNNING, _QUEUED)) if metrics is not None and metrics.status == 200 else {}
        slots = counted(parallel.total_slots) or None
        stated = status(models, self._model)
        awake = None if sleep.is_sleeping is None else not sleep.is_sleeping
        return Signals(
            up=True,
            context_tokens=window,
            media=None if told.modalities is None else _media(told.modalities),
            running=counted(found.get(_RUNNING)),
            queued=counted(found.get(_QUEUED)),
            fingerprint=recognised(self._fingerprint(props, meta, window)),
            resident=_RESIDENT.get(stated, awake),
            loading=stated == "loading",
            kv_tokens_max=counted(slots * window) if slots is not None and window is not None else None,
            slots=slots,
        )

    def _fingerprint(self, props: ProbeAnswer | None, meta: Meta, window: int | None) -> Fingerprint:
        told = read(props, _Told, 200)
        # The vocabulary's size and kind, and the tokens at its ends: all that is told of a tokenizer.
        vocabulary = f"{meta.vocab_type}:{meta.n_vocab}:{told.bos_token}:{told.eos_token}"
        return Fingerprint(
            weights=names.file("" if told.model_path == _NO_FILE else told.model_path, meta.size, meta.n_params),
            quantisation=names.quantisation(told.model_ftype or meta.ftype or ""),
            tokenizer=text(f"gguf:{vocabulary}") if meta.n_vocab and told.eos_token else "",
            chat_template=digest(told.chat_template),
            context_tokens=window,
            engine=names.build("llama.cpp", told.build_info),
        )


def _refuses_our_key(props: ProbeAnswer | None) -> bool:
    """Whether it is the engine that says so: it answers `/health` and `/v1/models` without a key, so that this alone
    tells, and a proxy before it may want something else for this path."""
    return is_refused(props) and props is not None and read_error(401, props.body).type == _NO_KEY


def _media(told: _Modalities) -> tuple[Capability, ...]:
    taken = ((Capability.AUDIO, told.audio), (Capability.VISION, told.vision))
    return tuple(capability for capability, takes in taken if takes)
