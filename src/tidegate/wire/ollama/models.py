"""What Ollama's clients look up: `GET /api/tags`, `POST /api/show`, `GET /api/version`."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tidegate.core.model import Capability, Record
from tidegate.wire.errors import BadRequest
from tidegate.wire.hub import encode
from tidegate.wire.ollama.dates import rfc3339
from tidegate.wire.shape import read_body, read_fields

# Clients compare it with the version that a feature came in, such as 0.13.4 for Responses; with this one Messages came.
VERSION = "0.14.0"
# Where the window stands in `model_info` depends on the architecture, which is ours to name.
_ARCHITECTURE = "tidegate"
_CAPABILITIES = {Capability.CHAT: "completion", Capability.TOOLS: "tools", Capability.VISION: "vision"}
_DETAILS: dict[str, Any] = {
    "parent_model": "",
    "format": "",
    "family": _ARCHITECTURE,
    "families": [_ARCHITECTURE],
    "parameter_size": "",
    "quantization_level": "",
}


# What a name without a tag means in Ollama: clients put it there themselves, and look for no other.
_LATEST = ":latest"


def tagged(name: str) -> str:
    """The name as Ollama has it, with a tag."""
    return name if ":" in name.rpartition("/")[2] else name + _LATEST


def untagged(name: str) -> str:
    """The name without the tag that Ollama's clients put to names that have none."""
    return name.removesuffix(_LATEST)


class Facts(Record, frozen=True, kw_only=True):
    """What is known of a model that clients may ask for: over all its endpoints, the largest window, any capability."""

    name: str
    created_s: float
    context_tokens: int | None
    capabilities: tuple[Capability, ...]


def tags(models: Iterable[Facts]) -> bytes:
    """The models, each with a tag. Sizes and digests are the engines' affair: empty, never made up."""
    return encode({"models": [_listed(facts) for facts in models]})


def _listed(facts: Facts) -> dict[str, Any]:
    name = tagged(facts.name)
    named = {"name": name, "model": name, "modified_at": rfc3339(facts.created_s)}
    return {**named, "size": 0, "digest": "", "details": _DETAILS}


def show(facts: Facts) -> bytes:
    """One model."""
    info: dict[str, Any] = {"general.architecture": _ARCHITECTURE}
    if facts.context_tokens is not None:
        info[f"{_ARCHITECTURE}.context_length"] = facts.context_tokens
    told = [word for capability, word in _CAPABILITIES.items() if capability in facts.capabilities]
    return encode(
        {
            "modelfile": "",
            "parameters": "",
            "template": "",
            "license": "",
            "modified_at": rfc3339(facts.created_s),
            "details": _DETAILS,
            "model_info": info,
            "capabilities": told,
        }
    )


class _Shown(msgspec.Struct):
    model: Annotated[str, Meta(max_length=256)] | None = None
    name: Annotated[str, Meta(max_length=256)] | None = None


_decoder = msgspec.json.Decoder(_Shown)


def shown(body: bytes) -> str:
    """The model that a body of `POST /api/show` asks about. Raises `BadRequest`."""
    _, body = read_fields(body)
    asked = read_body(body, _decoder, {})
    name = asked.model or asked.name
    if not name:
        raise BadRequest("`model`: is missing. It names a model; GET /api/tags lists them.", param="model")
    return name


def version() -> bytes:
    """The version of the dialect."""
    return encode({"version": VERSION})
