"""What listens at an address, by what it answers: which engine, and which models.

Nothing here asks: `FIRST` is what to ask anybody, `SIGNS` what to ask whoever lists models, `details` the rest. None
of it loads a model or makes a token; `/health` in particular makes SGLang generate, and is asked of other engines only.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from tidegate.config.discovered import FoundEngine, FoundModel, State
from tidegate.config.endpoint import EngineKind
from tidegate.engines.base import ProbeAnswer
from tidegate.engines.kinds import KINDS
from tidegate.wire.errors import UNREADABLE

_T = TypeVar("_T")
Answers = Mapping[str, ProbeAnswer | None]
"""By path below the address, `TARGET model` for what is asked of one model; None where no answer came."""

LIVEZ, MODELS, PROPS, INFO = "/livez", "/v1/models", "/props", "/get_server_info"
TAGS, OLLAMA, VERSION, LM_STUDIO = "/api/tags", "/api/version", "/version", "/api/v0/models"
SHOW = "/api/show"
FIRST = (LIVEZ, MODELS)
SIGNS = (PROPS, INFO, OLLAMA, VERSION, LM_STUDIO)
MODELS_MAX = 32  # each is an endpoint with probes of its own; whoever keeps more has a favourite few
NAME_CHARS_MAX = 256  # as in the configuration
SLOTS_MAX = 10_000  # as in the configuration
CONTEXT_TOKENS = range(128, 100_000_001)  # as in the configuration

SOFTWARE = {
    EngineKind.LLAMACPP: "llama.cpp",
    EngineKind.OLLAMA: "Ollama",
    EngineKind.SGLANG: "SGLang",
    EngineKind.VLLM: "vLLM",
    EngineKind.OPENAI: "an OpenAI-compatible server",
}

_EMBEDS = "it makes embeddings, which are not served without a file"


class _Listed(msgspec.Struct, frozen=True):
    """One entry of a list of models. The windows are by the names that vLLM, gateways and LM Studio use."""

    id: str = ""
    owned_by: str = ""
    max_model_len: int | None = None
    context_length: int | None = None
    context_window: int | None = None
    loaded_context_length: int | None = None
    max_context_length: int | None = None
    type: str = ""


class _List(msgspec.Struct, frozen=True):
    data: list[_Listed] | None


class _Props(msgspec.Struct, frozen=True):
    default_generation_settings: dict[str, Any]
    total_slots: int | None = None
    modalities: dict[str, Any] = {}


class _Info(msgspec.Struct, frozen=True):
    """Of SGLang: one of the numbers at least."""

    context_length: int | None = None
    max_total_num_tokens: int | None = None
    is_embedding: bool | None = None


class _Version(msgspec.Struct, frozen=True):
    version: str


class _Tag(msgspec.Struct, frozen=True):
    name: str = ""
    remote_host: str = ""


class _Tags(msgspec.Struct, frozen=True):
    models: list[_Tag] | None


class _Shown(msgspec.Struct, frozen=True):
    capabilities: list[str] = []


class _Refusal(msgspec.Struct, frozen=True):
    message: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Refusal


def is_tidegate(answers: Answers) -> bool:
    """Whether it is a gateway of ours, by either of its addresses: it would ask itself without end."""
    alive = answers.get(LIVEZ)
    if alive is not None and alive.body in (b'{"status":"ok"}', b'{"status":"no endpoint is up"}'):
        return True
    return any(model.owned_by == "tidegate" for model in _listed(answers) or ())


def is_loading(answers: Answers) -> bool:
    """Whether it is llama.cpp that does not list its model before it is loaded."""
    said = answers.get(MODELS)
    told = _read(said, _Refused, status=503)
    return told is not None and told.error.message == "Loading model"


def is_locked(answers: Answers) -> bool:
    """Whether it lists its models to who has a key."""
    said = answers.get(MODELS)
    return said is not None and said.status in (401, 403)


def lists_models(answers: Answers) -> bool:
    """Whether it speaks the protocol at all."""
    return _listed(answers) is not None


def kind_of(answers: Answers) -> tuple[EngineKind, str]:
    """Which engine it is, with its name for people, by its answers to `FIRST` and `SIGNS`."""
    listed = _listed(answers) or []
    owners = {model.owned_by for model in listed}
    info = _read(answers.get(INFO), _Info)
    if "llamacpp" in owners or _read(answers.get(PROPS), _Props) is not None:
        kind = EngineKind.LLAMACPP
    elif "sglang" in owners or (info is not None and (info.context_length or info.max_total_num_tokens)):
        kind = EngineKind.SGLANG
    # Others have a `/version` too, so that alone it tells nothing.
    elif "vllm" in owners or (
        _read(answers.get(VERSION), _Version) is not None and any(model.max_model_len for model in listed)
    ):
        kind = EngineKind.VLLM
    elif _read(answers.get(OLLAMA), _Version) is not None:
        kind = EngineKind.OLLAMA
    else:
        studio = any(model.type for model in _studio(answers))
        return EngineKind.OPENAI, "LM Studio" if studio else SOFTWARE[EngineKind.OPENAI]
    return kind, SOFTWARE[kind]


def details(kind: EngineKind, answers: Answers, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What else to ask an engine of this kind whose address has this path: paths, and models to be shown."""
    asked = [probe.target.decode().removeprefix(path) for probe in KINDS[kind.value](path, None).probes()]
    if kind is not EngineKind.OLLAMA:
        return tuple(asked), ()
    return (*asked, TAGS), tuple(_names(answers)[:MODELS_MAX])


def engine(url: str, kind: EngineKind, software: str, answers: Answers, path: str) -> FoundEngine:
    """The engine with its models, by all its answers."""
    names = _names(answers)
    up = False
    models = []
    for name in names[:MODELS_MAX]:
        dialect = KINDS[kind.value](path, name)
        told = dialect.signals([answers.get(p.target.decode().removeprefix(path)) for p in dialect.probes()])
        up = up or told.up
        models.append(_model(kind, name, told.context_tokens, answers))
    props = _read(answers.get(PROPS), _Props) if kind is EngineKind.LLAMACPP else None
    slots = None if props is None else props.total_slots
    return FoundEngine(
        url=url,
        kind=kind,
        software=software,
        state=State.READY if up or not names else State.STARTING,
        models=tuple(models),
        slots=slots if slots is not None and 0 < slots <= SLOTS_MAX else None,
        left_out=max(0, len(names) - MODELS_MAX),
    )


def _model(kind: EngineKind, name: str, told: int | None, answers: Answers) -> FoundModel:
    remark, vision = "", False
    window = told or _window(name, answers)
    if kind is EngineKind.LLAMACPP:
        props = _read(answers.get(PROPS), _Props)
        vision = props is not None and props.modalities.get("vision") is True
    elif kind is EngineKind.SGLANG:
        info = _read(answers.get(INFO), _Info)
        remark = _EMBEDS if info is not None and info.is_embedding else ""
    elif kind is EngineKind.OLLAMA:
        window = told  # any other is the one that the model was trained for
        able = shown.capabilities if (shown := _read(answers.get(f"{SHOW} {name}"), _Shown)) is not None else []
        vision = "vision" in able
        remark = _EMBEDS if "embedding" in able and "completion" not in able else ""
        tags = _read(answers.get(TAGS), _Tags)
        hosts = {tag.name: tag.remote_host for tag in (tags.models if tags is not None else None) or ()}
        if hosts.get(name) or name.endswith(("-cloud", ":cloud")):
            remark = "it runs at Ollama's own cloud, not here"
    else:
        types = {model.id: model.type for model in _studio(answers)}
        vision = types.get(name) == "vlm"
        remark = _EMBEDS if types.get(name) == "embeddings" else ""
    return FoundModel(
        name=name, context_tokens=window if window in CONTEXT_TOKENS else None, vision=vision, remark=remark
    )


def _window(name: str, answers: Answers) -> int | None:
    """The window that a list tells: of what is loaded, before what could be."""
    for model in (*_studio(answers), *(_listed(answers) or ())):
        told = (
            model.loaded_context_length,
            model.max_model_len,
            model.context_length,
            model.context_window,
            model.max_context_length,
        )
        if model.id == name and (window := next((w for w in told if w), None)):
            return window
    return None


def _names(answers: Answers) -> list[str]:
    """The models that can be named in a header, each once."""
    names = [model.id for model in _listed(answers) or ()]
    good = [name for name in names if name.isascii() and name.isprintable() and 0 < len(name) <= NAME_CHARS_MAX]
    return list(dict.fromkeys(name for name in good if name.strip() == name))


def _listed(answers: Answers) -> Sequence[_Listed] | None:
    told = _read(answers.get(MODELS), _List)
    return None if told is None else told.data or []


def _studio(answers: Answers) -> Sequence[_Listed]:
    told = _read(answers.get(LM_STUDIO), _List)
    return () if told is None else told.data or []


def _read(answer: ProbeAnswer | None, shape: type[_T], status: int = 200) -> _T | None:
    """The body as that, None where it is anything else."""
    if answer is None or answer.status != status:
        return None
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except UNREADABLE:
        return None
