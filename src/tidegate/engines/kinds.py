"""Every kind of engine, by the name that the configuration uses."""

import re
from collections.abc import Callable

from tidegate.engines.anthropic import Anthropic
from tidegate.engines.base import Dialect
from tidegate.engines.google import Google
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.engines.ollama import Ollama
from tidegate.engines.openai import OpenAI, OpenAIOwn, Vendor
from tidegate.engines.responses import Responses
from tidegate.engines.sglang import SGLang
from tidegate.engines.vllm import VLLM

_OPENAI = "api.openai.com"
_GOOGLE = ".googleapis.com"
_AZURE = re.compile(r"\.(?:openai|cognitiveservices|services\.ai)\.azure\.(?:com|us|cn)$")
# Mistral's models, by the names that Azure gives their deployments unless told another.
_MISTRALS = ("mistral", "ministral", "codestral")
# DeepSeek passes over the bound's newer name, and would answer without one; Mistral refuses it.
_OLDER_BOUND = frozenset({"api.deepseek.com", "api.mistral.ai"})
# Who refuses `reasoning_content` in a message, and who `prompt_cache_key`, as Google does.
_NO_THOUGHTS = frozenset({"api.groq.com", "api.cerebras.ai", "api.mistral.ai"})
_NO_CACHE_KEY = frozenset({"api.groq.com", "api.cerebras.ai", "integrate.api.nvidia.com"})
_VENDORS = _OLDER_BOUND | _NO_THOUGHTS | _NO_CACHE_KEY
# What makes a dialect: from the path of the endpoint's URL, and its own name of the model.
KINDS: dict[str, Callable[[str, str | None], Dialect]] = {
    "anthropic": Anthropic,
    "llamacpp": LlamaCpp,
    "ollama": Ollama,
    "openai": OpenAI,
    "openai-responses": Responses,
    "sglang": SGLang,
    "vllm": VLLM,
    "fake": OpenAI,  # engines/fake.py speaks the plain dialect
}


def dialect_of(kind: str, host: str, path: str, model: str | None) -> Dialect:
    """The dialect of an engine of this kind at an address; `path` and `model` as above."""
    if kind == "openai" and host.endswith(_GOOGLE):
        return Google(path, model)
    if kind == "openai" and host in _VENDORS:
        return Vendor(
            path,
            model,
            older_bound=host in _OLDER_BOUND,
            thoughts=host not in _NO_THOUGHTS,
            cache_key=host not in _NO_CACHE_KEY,
        )
    makes = OpenAIOwn if kind == "openai" and _takes_newer(host, path, model or "") else KINDS[kind]
    return makes(path, model)


def _takes_newer(host: str, path: str, model: str) -> bool:
    """Whether a bound goes there by its newer name: to OpenAI's address or that of a region, and to Azure below
    `/openai`, also of a project. Other makers' models are there too, of which Mistral's refuse that name."""
    if host == _OPENAI or host.endswith(f".{_OPENAI}"):
        return True
    at_azure = "openai" in path.split("/") and _AZURE.search(host) is not None
    return at_azure and not model.lower().startswith(_MISTRALS)
