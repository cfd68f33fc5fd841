"""The answer to `GET /v1/models`, as far as probes look into it."""

from typing import Any, TypeVar

import msgspec

from tidegate.engines.base import ProbeAnswer, read


class Model(msgspec.Struct):
    """One model; `max_model_len` is what vLLM and SGLang tell of its window, `parent` which model an adapter adapts."""

    id: str = ""
    parent: Any = None  # whatever others have by that name, it costs no window
    max_model_len: int | None = None


class Models(msgspec.Struct):
    """All models."""

    data: list[Model] = []


class Meta(msgspec.Struct):
    """What llama.cpp tells of a file of weights: its bytes, parameters, vocabulary and quantisation.

    `n_ctx` is the window of one slot, told of what is loaded.
    """

    size: int | None = None
    n_params: int | None = None
    n_vocab: int | None = None
    vocab_type: int | None = None
    ftype: str | None = None
    n_ctx: int | None = None


class Origin(msgspec.Struct):
    """Where a model comes from. `root` is what vLLM and SGLang loaded, `meta` is llama.cpp's. Adapters have a `parent`,
    the model that they adapt."""

    id: str = ""
    parent: str | None = None
    root: str | None = None
    meta: Meta | None = None


class _Origins(msgspec.Struct):
    data: list[Origin] = []


def origin(answer: ProbeAnswer | None, model: str | None) -> Origin:
    """What is told of the endpoint's `model`: of the one with that name, or of the only one that is listed.

    Nothing where it is neither. Read apart from the windows: who has other things by these names loses nothing else.
    """
    return _of(read(answer, _Origins).data, model) or Origin()


class _Status(msgspec.Struct, frozen=True):
    value: str = ""


class _Stated(msgspec.Struct):
    id: str = ""
    status: _Status = _Status()


class _AllStated(msgspec.Struct):
    data: list[_Stated] = []


_T = TypeVar("_T", Origin, _Stated)


def status(answer: ProbeAnswer | None, model: str | None) -> str:
    """Whether the endpoint's `model` is `loaded`, `loading`, `unloaded` or `sleeping`, as a llama.cpp of several models
    tells; empty where that is not told.
    """
    found = _of(read(answer, _AllStated).data, model)
    return "" if found is None else found.status.value


def _of(listed: list[_T], model: str | None) -> _T | None:
    named = [entry for entry in listed if entry.id == model]
    if named:
        return named[0]
    return listed[0] if len(listed) == 1 else None
