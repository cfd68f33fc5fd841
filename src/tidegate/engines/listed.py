"""The answer to `GET /v1/models`, as far as probes look into it."""

import msgspec


class Model(msgspec.Struct):
    """One model; `max_model_len` is what vLLM tells of its window."""

    id: str = ""
    max_model_len: int | None = None


class Models(msgspec.Struct):
    """All models."""

    data: list[Model] = []
