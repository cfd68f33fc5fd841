"""Every kind of engine, by the name that the configuration uses."""

from collections.abc import Callable

from tidegate.engines.anthropic import Anthropic
from tidegate.engines.base import Dialect
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.engines.ollama import Ollama
from tidegate.engines.openai import OpenAI
from tidegate.engines.sglang import SGLang
from tidegate.engines.vllm import VLLM

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
