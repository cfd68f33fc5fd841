"""Accelerators and models that are common, as their makers declare them.

Accelerators: data sheets of NVIDIA and AMD; peaks are dense, bf16 with sums in fp32, where sheets often give twice as
much, with sparsity; memory is what a card reports to its driver. Models: the `config.json` that each is published with,
and the counts of its parameters.
"""

from types import MappingProxyType

from tidegate.core.hardware import Accelerator, Link, Model

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

MODELS = MappingProxyType(
    {
        "llama-3.1-8b": Model(
            parameters=8.03e9,
            active_parameters=8.03e9,
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_size=128,
            vocabulary=128_256,
        ),
        "llama-3.1-70b": Model(
            parameters=70.55e9,
            active_parameters=70.55e9,
            layers=80,
            hidden=8192,
            heads=64,
            kv_heads=8,
            head_size=128,
            vocabulary=128_256,
        ),
        "qwen3-8b": Model(
            parameters=8.19e9,
            active_parameters=8.19e9,
            layers=36,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_size=128,
            vocabulary=151_936,
        ),
        "qwen3-32b": Model(
            parameters=32.76e9,
            active_parameters=32.76e9,
            layers=64,
            hidden=5120,
            heads=64,
            kv_heads=8,
            head_size=128,
            vocabulary=151_936,
        ),
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
