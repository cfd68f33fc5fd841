"""Every kind of engine, by the name that the configuration uses."""

from collections.abc import Callable

from tidegate.engines.anthropic import Anthropic
from tidegate.engines.base import Dialect
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.engines.ollama import Ollama
from tidegate.engines.openai import OpenAI, OpenAIOwn
from tidegate.engines.sglang import SGLang
from tidegate.engines.vllm import VLLM

_OPENAI = "api.openai.com"
# What makes a dialect: from the path of the endpoint's URL, and its own name of the model.
KINDS: dict[str, Callable[[str, str | None], Dialect]] = {
    "anthropic": Anthropic,
    "llamacpp": LlamaCpp,
    "ollama": Ollama,
    "openai": OpenAI,
    "sglang": SGLang,
    "vllm": VLLM,
    "fake": OpenAI,  # engines/fake.py speaks the plain dialect
}


def dialect_of(kind: str, host: str, path: str, model: str | None) -> Dialect:
    """The dialect of an engine of this kind at an address; `path` and `model` as above."""
    makes = OpenAIOwn if kind == "openai" and host == _OPENAI else KINDS[kind]
    return makes(path, model)
