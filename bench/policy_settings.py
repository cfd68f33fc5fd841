"""What policies are judged in: traces, regimes, seeds and splits. Written down before anything was tuned on them.

Of each trace, development reads the first 60 % of what there is, and the holdout the rest, with other seeds. The first
`WARM_UP` requests of a world teach and are not counted.
"""

from enum import StrEnum

import msgspec

from bench.predict_settings import METRO, SETTINGS
from tidegate.core.model import replace
from tidegate.sim import engines
from tidegate.sim.engine import EngineProfile
from tidegate.sim.network import LinkProfile

DEVELOPMENT_SEEDS = (1,)
HOLDOUT_SEEDS = (1001,)
REQUESTS, WARM_UP = 1_500, 200
OWN, SECOND, VENDOR = "own", "second", "vendor"
PRICE_USD = 1e-6
"""What the vendor takes for a token, of prompt or output."""
CACHED_PRICE_SHARE = 0.1
# What a kept promise is worth, in what the vendor takes for the same tokens.
WORTH, WORTH_CHEAP = 1.5, 4.0
PRICE_STEP = 2.0
TPOT_S = 0.1
BATCH_TTFT_S, RELAXED_TTFT_FACTOR = 120.0, 5.0
CLASSES = {"tight": 0.5, "relaxed": 0.3, "batch": 0.2}
OUTPUTS_LONGER = 2.5
LINK_BAD = LinkProfile(rtt_s=0.25, upload_bytes_per_s=60_000.0, download_bytes_per_s=250_000.0, jitter=0.3)
LINK_HOLDS_S = 30.0
OUTAGE_S = 60.0
OWN_LOAD_S, OWN_UNLOAD_S, VENDOR_IDLE_S, VENDOR_LOAD_S = 20.0, 60.0, 300.0, 8.0
DRIFT_TO, DRIFT_PARTS = 1.6, 8
LIMIT_SHARE = 0.4
"""Of the requests, the vendor takes so many a minute."""
OTHERS_LOAD, PROBE_S, STALE_PROBE_S = 0.3, 5.0, 10.0
MEMORY_SEQUENCES = 12
"""So many sequences of the mean size fit the memory where it is short."""


class Regime(StrEnum):
    """What a world is like; loads are what arrives over what our own engine finishes when it has more than enough."""

    LOAD_050 = "load-0.50"
    LOAD_080 = "load-0.80"
    LOAD_100 = "load-1.00"
    LOAD_125 = "load-1.25"
    LOAD_150 = "load-1.50"
    CHEAP_080 = "cheap-0.80"
    CHEAP_125 = "cheap-1.25"
    LINK_BAD = "link-bad"
    LINK_CHANGING = "link-changing"
    PRICE_STEP = "price-step"
    COLD = "cold"
    OUTAGE = "outage"
    CLASSES = "classes"
    SURPRISE = "surprise"
    LIMITS = "limits"
    STEP_070 = "step-0.70"
    STEP_140 = "step-1.40"
    STEP_DRIFT = "step-drift"
    STEP_SHAPE = "step-shape"
    PREFIX = "prefix"
    STALE = "stale"
    MEMORY = "memory"
    POOLS = "pools"


LOADS = {
    Regime.LOAD_050: 0.5,
    Regime.LOAD_080: 0.8,
    Regime.LOAD_125: 1.25,
    Regime.LOAD_150: 1.5,
    Regime.CHEAP_080: 0.8,
    Regime.CHEAP_125: 1.25,
    Regime.COLD: 0.03,
    Regime.STALE: 0.7,
}
"""The others have a load of one."""
LOADED = tuple(
    regime for regime in Regime if LOADS.get(regime, 1.0) >= 0.8 and regime not in (Regime.PREFIX, Regime.MEMORY)
)
"""Regimes of a load of 0.8 or more in which nothing but the decision is in the way."""
WRONG = (Regime.STEP_070, Regime.STEP_140, Regime.STEP_DRIFT, Regime.STEP_SHAPE)
"""Regimes in which our engine is not what it is believed to be."""
HARD = (Regime.PREFIX, Regime.STALE, Regime.LIMITS, Regime.MEMORY)
"""Regimes in which the decision knows less of who is where."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves a trace's requests, and within which time their first content has to be there."""

    own: EngineProfile
    vendor: str
    context_tokens: int
    ttft_s: float


TRACES = {
    "azure-code": Setting(
        own=replace(engines.PRESETS["gpu-8b"], slots=16),
        vendor="llmperf-2023-fireworks",
        context_tokens=16_384,
        ttft_s=1.5,
    ),
    "azure-conv": Setting(
        own=replace(engines.PRESETS["gpu-8b"], slots=32),
        vendor="llmperf-2023-together",
        context_tokens=32_768,
        ttft_s=2.0,
    ),
    "mooncake": Setting(
        own=SETTINGS["mooncake"].own, vendor="commercial-long-context", context_tokens=160_000, ttft_s=10.0
    ),
    "servegen": Setting(
        own=replace(engines.PRESETS["two-gpus-32b"], slots=32),
        vendor="llmperf-2023-together",
        context_tokens=65_536,
        ttft_s=3.0,
    ),
}
WAY = METRO
