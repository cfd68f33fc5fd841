"""What listens at an address, by what it answers: which engine, and which models.

Nothing here asks: `FIRST` is what to ask anybody, `SIGNS` what to ask whoever lists models, `details` the rest. None
of it loads a model or makes a token; `/health` in particular makes SGLang generate, and is asked of other engines only.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from tidegate.config.address import api_path
from tidegate.config.away import in_ollamas_cloud
from tidegate.config.discovered import FoundEngine, FoundModel, State
from tidegate.config.endpoint import EngineKind
from tidegate.engines.base import CONTEXT_TOKENS_MAX, Dialect, ProbeAnswer, read_or_none
from tidegate.engines.kinds import KINDS
from tidegate.wire.errors import find_error

_T = TypeVar("_T")
Answers = Mapping[str, ProbeAnswer | None]
"""By path below the address, `TARGET model` for what is asked of one model; None where no answer came."""

LIVEZ, MODELS, PROPS, INFO = "/livez", "/v1/models", "/props", "/server_info"
TAGS, OLLAMA, VERSION, LM_STUDIO = "/api/tags", "/api/version", "/version", "/api/v0/models"
SHOW, METRICS = "/api/show", "/metrics"
FORMER = {INFO: "/get_server_info"}
"""What older builds answer to, asked where the newer one answers 404; its answer stands in the newer one's place."""
FIRST = (LIVEZ, MODELS)
SIGNS = (PROPS, INFO, OLLAMA, TAGS, VERSION, LM_STUDIO)
MODELS_MAX = 32  # each is an endpoint with probes of its own; whoever keeps more has a favourite few
NAME_CHARS_MAX = 256  # as in the configuration
SLOTS_MAX = 10_000  # as in the configuration
CONTEXT_TOKENS_MIN = 128  # as in the configuration

SOFTWARE = {
    EngineKind.LLAMACPP: "llama.cpp",
    EngineKind.OLLAMA: "Ollama",
    EngineKind.SGLANG: "SGLang",
    EngineKind.VLLM: "vLLM",
    EngineKind.OPENAI: "an OpenAI-compatible server",
}

_EMBEDS = "it makes embeddings, which are not served without a file"
_WRITES_NOTHING = "it does not write text"


_Number = int | float | str | None  # what is no whole number is not believed, and spoils nothing beside it


class _Listed(msgspec.Struct, frozen=True):
    """One entry of a list of models. The windows are by the names that vLLM, gateways and LM Studio use."""

    id: str = ""
    owned_by: str | None = None
    max_model_len: _Number = None
    context_length: _Number = None
    context_window: _Number = None
    loaded_context_length: _Number = None
    max_context_length: _Number = None
    state: Any = None
    type: str | None = None


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
    remote_host: str | None = None


class _Tags(msgspec.Struct, frozen=True):
    models: list[_Tag] | None


class _Shown(msgspec.Struct, frozen=True):
    capabilities: list[str] | None = None


class _Refusal(msgspec.Struct, frozen=True):
    message: str = ""


class _Refused(msgspec.Struct, frozen=True):
    error: _Refusal


def models_at(path: str) -> str:
    """Where an address with this path lists its models, as it would in a file: below a version of its own, if it has
    one. Its answer stands at `MODELS`."""
    return api_path(path) + MODELS.removeprefix("/v1")


def is_tidegate(answers: Answers) -> bool:
    """Whether it is a gateway of ours, by either of its addresses: it would ask itself without end."""
    alive = answers.get(LIVEZ)
    if alive is not None and alive.body in (b'{"status":"ok"}', b'{"status":"no endpoint is up"}'):
        return True
    return any(model.owned_by == "tidegate" for model in _listed(answers) or ())


def is_loading(answers: Answers) -> bool:
    """Whether it is llama.cpp that does not list its model before it is loaded."""
    told = read_or_none(answers.get(MODELS), _Refused, 503)
    return told is not None and told.error.message == "Loading model"


def is_locked(answers: Answers) -> bool:
    """Whether it lists its models to who has a key."""
    said = answers.get(MODELS)
    return said is not None and said.status in (401, 403)


def refuses_as_engines_do(answers: Answers) -> bool:
    """Whether who is locked says so in JSON, as an error: any web page may want a login."""
    return find_error(read_or_none(answers.get(MODELS), object)) is not None


def lists_models(answers: Answers) -> bool:
    """Whether it speaks the protocol at all."""
    return _listed(answers) is not None


def kind_of(answers: Answers) -> tuple[EngineKind, str]:
    """Which engine it is, with its name for people, by its answers to `FIRST` and `SIGNS`."""
    listed = _listed(answers) or []
    owners = {model.owned_by for model in listed}
    info = _read(answers, INFO, _Info)
    if "koboldcpp" in owners:  # it answers llama.cpp's `/props` and Ollama's lists, and speaks neither protocol
        return EngineKind.OPENAI, "KoboldCpp"
    if "llamacpp" in owners or _read(answers, PROPS, _Props) is not None:
        kind = EngineKind.LLAMACPP
    elif "sglang" in owners or (info is not None and (info.context_length or info.max_total_num_tokens)):
        kind = EngineKind.SGLANG
    # Others have a `/version` too, so that alone it tells nothing.
    elif "vllm" in owners or (
        _read(answers, VERSION, _Version) is not None and any(model.max_model_len for model in listed)
    ):
        kind = EngineKind.VLLM
    # llama-swap, which passes requests on, has an `/api/version` too. Who wants a key shows nobody its models.
    elif _read(answers, OLLAMA, _Version) is not None and (
        _read(answers, TAGS, _Tags) is not None or is_locked(answers)
    ):
        kind = EngineKind.OLLAMA
    else:
        studio = any(model.type for model in _studio(answers))
        return EngineKind.OPENAI, "LM Studio" if studio else SOFTWARE[EngineKind.OPENAI]
    return kind, SOFTWARE[kind]


def details(kind: EngineKind, answers: Answers, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What else to ask an engine of this kind whose address has this path: paths, and models to be shown.

    How busy it is does not matter yet, so its metrics are left alone.
    """
    asked = [target for target in _targets(KINDS[kind.value](path, None), path) if target != METRICS]
    if kind is not EngineKind.OLLAMA:
        return tuple(asked), ()
    return tuple(asked), tuple(_names(_listed(answers) or ())[:MODELS_MAX])


def engine(url: str, kind: EngineKind, software: str, answers: Answers, path: str) -> FoundEngine:
    """The engine with its models, by all its answers."""
    told = _Told(kind, answers)
    names = _names(told.listed)
    models = []
    up = False
    for name in names[:MODELS_MAX]:
        dialect = KINDS[kind.value](path, name)
        signals = dialect.signals([answers.get(target) for target in _targets(dialect, path)])
        up = up or signals.up
        models.append(told.model(name, signals.context_tokens))
    return FoundEngine(
        url=url,
        kind=kind,
        software=software,
        state=State.READY if up or not names else State.STARTING,
        models=tuple(models),
        slots=told.slots,
        left_out=max(0, len(names) - MODELS_MAX),
    )


class _Told:
    """What an engine's answers say of its models, read once."""

    def __init__(self, kind: EngineKind, answers: Answers) -> None:
        self._kind = kind
        self._answers = answers
        self.listed = _listed(answers) or ()
        self._entries = {model.id: model for model in (*self.listed, *_studio(answers))}  # LM Studio's own tells more
        self._props = _read(answers, PROPS, _Props)  # llama.cpp's, or else KoboldCpp's
        self._info = _read(answers, INFO, _Info) if kind is EngineKind.SGLANG else None
        tags = _read(answers, TAGS, _Tags) if kind is EngineKind.OLLAMA else None
        self._hosts = {tag.name: tag.remote_host for tag in (tags.models if tags is not None else None) or ()}

    @property
    def slots(self) -> int | None:
        """How many requests it runs at once."""
        slots = None if self._props is None else self._props.total_slots
        return slots if slots is not None and 0 < slots <= SLOTS_MAX else None

    @property
    def _window_of_all(self) -> int | None:
        """That of KoboldCpp's one model. llama.cpp's are in its probes, which know routers, too."""
        if self._props is None or self._kind is EngineKind.LLAMACPP:
            return None
        told = self._props.default_generation_settings.get("n_ctx")
        return told if isinstance(told, int) else None

    def model(self, name: str, window: int | None) -> FoundModel:
        """One of them; `window` is what a probe told."""
        entry = self._entries.get(name, _Listed())
        shown = _read(self._answers, f"{SHOW} {name}", _Shown) or _Shown()
        embeds = entry.type == "embeddings" or (self._info is not None and self._info.is_embedding is True)
        able = shown.capabilities or ()
        embeds = embeds or ("embedding" in able and "completion" not in able)
        vision = entry.type == "vlm" or "vision" in able
        vision = vision or (self._props is not None and self._props.modalities.get("vision") is True)
        tools = shown.capabilities is None or "tools" in able
        remark = _EMBEDS if embeds else _WRITES_NOTHING if able and "completion" not in able else ""
        if self._hosts.get(name) or (self._kind is EngineKind.OLLAMA and in_ollamas_cloud(name)):
            remark = "it runs in Ollama's cloud, not here"
        if self._kind is not EngineKind.OLLAMA:  # of a model that is not loaded, it tells for what it was trained
            window = window or _window(entry) or self._window_of_all
        if window is not None and not CONTEXT_TOKENS_MIN <= window <= CONTEXT_TOKENS_MAX:
            window = None
        return FoundModel(name=name, context_tokens=window, vision=vision, tools=tools, remark=remark)


def _targets(dialect: Dialect, path: str) -> list[str]:
    """What its probes ask for, below its address: of the server, not of one of its models."""
    targets = [probe.target.decode().partition("?")[0] for probe in dialect.probes()]
    return [MODELS if target == models_at(path) else target.removeprefix(path) for target in targets]


def _window(entry: _Listed) -> int | None:
    """The window that a list tells: of what is loaded, before what could be."""
    # LM Studio loads with another window, often a shorter one, than a model was trained for.
    trained = entry.max_context_length if entry.state in (None, "loaded") else None
    told = (entry.loaded_context_length, entry.max_model_len, entry.context_length, entry.context_window, trained)
    return next((window for window in told if isinstance(window, int) and window > 0), None)


def _names(listed: Iterable[_Listed]) -> list[str]:
    """The models that can be named in a header, each once."""
    names = [model.id for model in listed]
    good = [name for name in names if name.isascii() and name.isprintable() and 0 < len(name) <= NAME_CHARS_MAX]
    return list(dict.fromkeys(name for name in good if name.strip() == name))


def _listed(answers: Answers) -> Sequence[_Listed] | None:
    told = _read(answers, MODELS, _List)
    return None if told is None else told.data or []


def _studio(answers: Answers) -> Sequence[_Listed]:
    told = _read(answers, LM_STUDIO, _List)
    return () if told is None else told.data or []


def _read(answers: Answers, target: str, shape: type[_T]) -> _T | None:
    return read_or_none(answers.get(target), shape, 200)
