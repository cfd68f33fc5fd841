"""How engines call a model, as a fingerprint has it: with the name of whose word it is."""

import re
from pathlib import PurePosixPath

from tidegate.core.fingerprint import text

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+")
# llama.cpp's words for what the names of files, and Ollama, call otherwise. The rule holds for the others.
_IRREGULAR = {
    "all F32": "F32",
    "Q2_K - Medium": "Q2_K",
    "IQ3_S mix - 3.66 bpw": "IQ3_M",
    "MXFP4 MoE": "MXFP4_MOE",
}
_COUNT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([KMBT])", re.IGNORECASE)
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_SIZES = {"Small": "_S", "Medium": "_M", "Large": "_L"}


def repository(place: str) -> str:
    """Where an engine loaded a model from: a repository at Hugging Face, or the folder without what it stands in.

    The same folder is found at different places on different machines. Empty where there is neither.
    """
    if _REPOSITORY.fullmatch(place):
        return text(f"hf:{place}")
    name = _last(place)
    return text(f"dir:{name}") if name else ""


def file(path: str, size_bytes: int | None, parameters: int | None) -> str:
    """A file of weights; empty unless all of it is known, as less would seem to be another one."""
    name = _last(path)
    return text(f"gguf:{name}:{size_bytes}:{parameters}") if name and size_bytes and parameters else ""


def quantisation(said: str) -> str:
    """The name of a quantisation as files bear it: `Q4_K - Medium` is Q4_K_M. Empty where llama.cpp does not know."""
    said = said.replace("(guessed)", "").strip()
    if said in _IRREGULAR:
        return _IRREGULAR[said]
    name, _, rest = said.partition(" - ")
    return "" if " " in name else text(name + _SIZES.get(rest, ""))


def count(said: str) -> int | None:
    """Parameters as people write them: `8.0B`, `134.52M`. None where it says something else."""
    found = _COUNT.fullmatch(said.strip())
    return round(float(found[1]) * _UNITS[found[2].upper()]) or None if found else None


def build(engine: str, version: str) -> str:
    """Which engine, in which version; empty where it does not tell."""
    return text(f"{engine} {version}") if version else ""


def _last(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
