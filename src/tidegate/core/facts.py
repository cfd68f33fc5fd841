"""Accelerators and models that are common, as their makers declare them, and which of them an engine tells of.

Accelerators: data sheets of NVIDIA and AMD; peaks are dense, bf16 with sums in fp32, where sheets often give twice as
much, with sparsity; memory is what a card reports to its driver. Models: the `config.json` that each is published with,
and the counts of its parameters. Bits of a weight: llama.cpp's own table of a model of 8 billion.
"""

import re
from types import MappingProxyType

from tidegate.core.fingerprint import Fingerprint
from tidegate.core.hardware import Accelerator, Link, Model
from tidegate.core.model import replace

MIB = 2**20
GB = 1e9
TERA = 1e12

# Of a link's nominal bandwidth, in one direction, exchanges reach this share; see bench/fit_engines.py.
LINK_SHARE = 0.576
EXCHANGE_S = 7.9e-6


def _link(gb_per_s: float) -> Link:
    return Link(bytes_per_s=LINK_SHARE * gb_per_s * GB, exchange_s=EXCHANGE_S)


PCIE_5 = _link(64)
NVLINK_3 = _link(300)
NVLINK_4 = _link(450)
NVLINK_5 = _link(900)
INFINITY_FABRIC_4 = _link(448)
# Through the memory of the host, where cards do not reach each other: as LLMServingSim declares of its machines.
HOST = Link(bytes_per_s=16 * GB, exchange_s=20e-6)


def _accelerator(memory_mib: int, gb_per_s: float, tflops: float, link: Link) -> Accelerator:
    return Accelerator(
        memory_bytes=float(memory_mib * MIB),
        bytes_per_s=gb_per_s * GB,
        flops=tflops * TERA,
        link=link,
    )


ACCELERATORS = MappingProxyType(
    {
        "a100-40gb": _accelerator(40_536, 1_555, 312, NVLINK_3),
        "a100-80gb": _accelerator(81_920, 2_039, 312, NVLINK_3),
        "h100-sxm": _accelerator(81_559, 3_350, 989, NVLINK_4),
        "h100-pcie": _accelerator(81_559, 2_000, 756, PCIE_5),
        "h200-sxm": _accelerator(143_771, 4_800, 989, NVLINK_4),
        "b200-sxm": _accelerator(183_359, 8_000, 2_250, NVLINK_5),
        "l4": _accelerator(23_034, 300, 121, HOST),
        "l40s": _accelerator(46_068, 864, 362, HOST),
        "rtx-3090": _accelerator(24_576, 936, 71, HOST),
        "rtx-4090": _accelerator(24_564, 1_008, 165, HOST),
        "rtx-5090": _accelerator(32_607, 1_792, 209, HOST),
        "rtx-pro-6000-server": _accelerator(97_887, 1_597, 500, HOST),
        "mi300x": _accelerator(196_592, 5_300, 1_307, INFINITY_FABRIC_4),
    }
)


def _dense(
    parameters: float, layers: int, hidden: int, heads: tuple[int, int, int], vocabulary: int, *, tied: bool = False
) -> Model:
    """A model without experts; `heads` are those of attention, those of keys, and their size."""
    return Model(
        parameters=parameters,
        active_parameters=parameters,
        layers=layers,
        hidden=hidden,
        heads=heads[0],
        kv_heads=heads[1],
        head_size=heads[2],
        vocabulary=vocabulary,
        tied=tied,
    )


MODELS = MappingProxyType(
    {
        "llama-2-7b": _dense(6.74e9, 32, 4096, (32, 32, 128), 32_000),
        "llama-2-13b": _dense(13.02e9, 40, 5120, (40, 40, 128), 32_000),
        "llama-2-70b": _dense(68.98e9, 80, 8192, (64, 8, 128), 32_000),
        "llama-3.1-8b": _dense(8.03e9, 32, 4096, (32, 8, 128), 128_256),
        "llama-3.1-70b": _dense(70.55e9, 80, 8192, (64, 8, 128), 128_256),
        "llama-3.2-1b": _dense(1.236e9, 16, 2048, (32, 8, 64), 128_256, tied=True),
        "llama-3.2-3b": _dense(3.213e9, 28, 3072, (24, 8, 128), 128_256, tied=True),
        "mistral-7b": _dense(7.24e9, 32, 4096, (32, 8, 128), 32_000),
        "qwen2.5-7b": _dense(7.62e9, 28, 3584, (28, 4, 128), 152_064),
        "qwen2.5-14b": _dense(14.77e9, 48, 5120, (40, 8, 128), 152_064),
        "qwen2.5-32b": _dense(32.76e9, 64, 5120, (40, 8, 128), 152_064),
        "qwen2.5-72b": _dense(72.71e9, 80, 8192, (64, 8, 128), 152_064),
        "qwen3-4b": _dense(4.02e9, 36, 2560, (32, 8, 128), 151_936, tied=True),
        "qwen3-8b": _dense(8.19e9, 36, 4096, (32, 8, 128), 151_936),
        "qwen3-14b": _dense(14.77e9, 40, 5120, (40, 8, 128), 151_936),
        "qwen3-32b": _dense(32.76e9, 64, 5120, (64, 8, 128), 151_936),
        "smollm2-135m": _dense(134.5e6, 30, 576, (9, 3, 64), 49_152, tied=True),
        "qwen3-30b-a3b": Model(
            parameters=30.53e9,
            active_parameters=3.35e9,
            layers=48,
            hidden=2048,
            heads=32,
            kv_heads=4,
            head_size=128,
            vocabulary=151_936,
            experts=128,
            experts_per_token=8,
        ),
        "mixtral-8x7b": Model(
            parameters=46.70e9,
            active_parameters=12.88e9,
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_size=128,
            vocabulary=32_000,
            experts=8,
            experts_per_token=2,
        ),
    }
)

# Other names of the same shape: later weights in it, and the names that Ollama has.
_SAME = MappingProxyType(
    {
        "llama-3-8b": "llama-3.1-8b",
        "llama-3-70b": "llama-3.1-70b",
        "llama-3.3-70b": "llama-3.1-70b",
        "llama3.1-8b": "llama-3.1-8b",
        "llama3.1-70b": "llama-3.1-70b",
        "llama3.2-1b": "llama-3.2-1b",
        "llama3.2-3b": "llama-3.2-3b",
        "llama3.3-70b": "llama-3.1-70b",
    }
)

# Bits of a weight, with its scales, by the beginning of a quantisation's name; of two that fit, the longer.
_BITS = MappingProxyType(
    {
        "f32": 32.0,
        "f16": 16.0,
        "bf16": 16.0,
        "q8_0": 8.5,
        "fp8": 8.0,
        "int8": 8.0,
        "w8a8": 8.0,
        "q6_k": 6.56,
        "q5_k_m": 5.70,
        "q5": 5.57,
        "q4_k_m": 4.89,
        "q4": 4.67,
        "awq": 4.5,
        "gptq": 4.5,
        "iq4": 4.46,
        "mxfp4": 4.25,
        "nvfp4": 4.5,
        "q3_k_m": 4.00,
        "q3": 3.9,
        "iq3": 3.5,
        "q2": 3.16,
        "iq2": 2.7,
    }
)
# What a number of parameters alone tells of a model: it is taken for a dense one, as deep as is usual for its width.
_HIDDEN_PER_LAYER = 128
_HEAD_SIZE = 128
_KV_HEADS = 8
_VOCABULARY = 32_000
# Below, it is a model of something else than text.
PARAMETERS_MIN = 1e6
WEIGHT_BYTES_MIN, WEIGHT_BYTES_MAX = 0.1, 8.0
_COUNTED = re.compile(r"gguf:(.*):(\d{1,15}):(\d{1,15})")
_ACTIVE = re.compile(r"-a(\d{1,4}(?:\.\d{1,3})?)b(?![0-9a-z])")


def known(name: str) -> Model | None:
    """The model that a name is of, as of a repository, a file or a tag; None where there is none or its shape unknown.

    The longest name of a known shape that stands in it whole counts.
    """
    said = re.sub(r"[^a-z0-9.]+", "-", name.lower().rpartition("/")[2])
    found = [word for word in (*MODELS, *_SAME) if re.search(rf"(^|-){re.escape(word)}(-|\.|$)", said)]
    if not found:
        return None
    word = max(found, key=len)
    model = MODELS[_SAME.get(word, word)]
    bits = _bits(said.partition(word)[2].replace("-", "_"))
    return model if bits is None else replace(model, weight_bytes=bits / 8.0)


def told(fingerprint: Fingerprint, assumed: Model | None = None) -> Model | None:
    """The model that an engine tells of; None where it tells too little.

    What it counts is believed. Of an engine that names no model it is the one that is `assumed`, if that has the size.
    """
    place, _, name = fingerprint.weights.partition(":")
    size_bytes, parameters = 0, fingerprint.parameters or 0
    if counted := _COUNTED.fullmatch(fingerprint.weights):
        name, size_bytes, parameters = counted[1], int(counted[2]), int(counted[3])
    model = known(name) if place in ("gguf", "hf", "dir") else assumed
    if parameters >= PARAMETERS_MIN and (model is None or not 0.8 < parameters / model.parameters < 1.25):
        model = nominal(parameters, min(_active(name) or parameters, parameters))
    if model is None:
        return None
    weight_bytes = size_bytes / parameters if parameters else 0.0
    if not WEIGHT_BYTES_MIN <= weight_bytes <= WEIGHT_BYTES_MAX:
        bits = _bits(fingerprint.quantisation.lower())
        weight_bytes = model.weight_bytes if bits is None else bits / 8.0
    return replace(model, weight_bytes=weight_bytes)


def nominal(parameters: float, active_parameters: float | None = None) -> Model:
    """A model of so many parameters, both at least `PARAMETERS_MIN`, of which nothing else is known."""
    active = parameters if active_parameters is None else active_parameters
    # The rest, attention and head among it, is then about half of what a token needs.
    experts = round(2.0 * parameters / active) if active < 0.9 * parameters else 0
    layers = max(1, round((parameters / (12 * _HIDDEN_PER_LAYER**2)) ** (1 / 3)))
    hidden = layers * _HIDDEN_PER_LAYER
    return Model(
        parameters=parameters,
        active_parameters=active if experts else parameters,
        layers=layers,
        hidden=hidden,
        heads=layers,
        kv_heads=min(layers, _KV_HEADS),
        head_size=_HEAD_SIZE,
        vocabulary=max(1, min(_VOCABULARY, int(active / 8 / hidden))),
        experts=experts,
        experts_per_token=1 if experts else 0,
    )


def _active(name: str) -> float | None:
    """The active parameters that a name tells, as in `30B-A3B`; None where it tells none that a model can have."""
    found = _ACTIVE.search(name.lower())
    parameters = 0.0 if found is None else float(found[1]) * 1e9
    return parameters if parameters >= PARAMETERS_MIN else None


def _bits(quantisation: str) -> float | None:
    words = [word for word in _BITS if re.search(rf"(^|_){word}", quantisation)]
    return _BITS[max(words, key=len)] if words else None
