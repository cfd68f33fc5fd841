"""What worlds are made of in which predictions are judged: regimes, engines, vendors, and how much of everything."""

from enum import StrEnum

import msgspec

from tidegate.core.model import replace
from tidegate.core.step import StepTime
from tidegate.sim import engines, network
from tidegate.sim.engine import EngineProfile
from tidegate.sim.network import LinkProfile

HOLDOUT = 1001
DEVELOPMENT_SHARE = 0.6
REQUESTS = 3000
# A regime changes when the endpoint that it is about has had so many.
CHANGE_AFTER = 400
OWN, CAMPUS, VENDOR = "own", "campus", "vendor"
SHARES = {OWN: 0.46, CAMPUS: 0.27, VENDOR: 0.27}
# Of what is meant for our own engine, this share may go nowhere else.
HERE_SHARE = 0.4
QUANTILE = 0.95
PRIOR_FACTOR_MIN, PRIOR_FACTOR_MAX = 0.6, 1.6
SLOWER = 3.0
LINK_WORSE = 10.0
# Rare requests: of each endpoint's some are further apart than it keeps its model for.
COLD_GAP_S, UNLOAD_AFTER_S, LOAD_S, API_COLD_S = 120.0, 300.0, 20.0, 8.0
# People's and agents' pauses have no end in a trace; here an agent is away for a minute at most.
THINK_S_MAX = 60.0


class Regime(StrEnum):
    """What happens in a world."""

    LIGHT = "light"
    BUSY = "busy"
    OVERLOADED = "overloaded"
    SLOW_ENGINE = "slow-engine"
    SLOW_LINK = "slow-link"
    COLD = "cold"


LOADS = {
    Regime.LIGHT: 0.3,
    Regime.BUSY: 0.8,
    Regime.OVERLOADED: 1.2,
    Regime.SLOW_ENGINE: 0.6,
    Regime.SLOW_LINK: 0.6,
}

# A model of 8 billion weights of 4 bits in llama.cpp on a card of 24 GB, roughly.
_WORKSTATION = EngineProfile(
    step=StepTime(base_s=0.014, per_token_s=2.2e-4, per_sequence_s=4e-4, per_context_token_s=2.5e-7, per_pair_s=2e-9),
    slots=8,
    batch_tokens=512,
    kv_tokens=131_072,
)
# One of 70 billion on four fast accelerators, as in bench/simulate.py.
_FOUR_GPUS = EngineProfile(
    step=StepTime(base_s=0.012, per_token_s=1.5e-5, per_sequence_s=2e-5, per_context_token_s=1e-8, per_pair_s=3e-10),
    slots=48,
    batch_tokens=8192,
    kv_tokens=2_000_000,
)
WAN = LinkProfile(
    rtt_s=0.03,
    upload_bytes_per_s=2.5e6,
    download_bytes_per_s=12.5e6,
    jitter=0.2,
    rate_regimes=network.PRESETS["continent"].rate_regimes,
    rtt_regimes=network.PRESETS["continent"].rtt_regimes,
)
METRO = network.PRESETS["metro"]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What serves a trace's requests. The campus has an engine of the same kind with other proportions."""

    own: EngineProfile
    vendor: str
    context_tokens: int
    ttft_s: float

    @property
    def campus(self) -> EngineProfile:
        """Slower to begin an iteration, faster for each token of a prompt, dearer contexts."""
        step = self.own.step
        other = replace(
            step,
            base_s=1.4 * step.base_s,
            per_token_s=0.8 * step.per_token_s,
            per_context_token_s=1.5 * step.per_context_token_s,
        )
        return replace(self.own, step=other)


SETTINGS = {
    "azure-code": Setting(own=_WORKSTATION, vendor="llmperf-2023-fireworks", context_tokens=16_384, ttft_s=10.0),
    "azure-conv": Setting(
        own=replace(engines.PRESETS["gpu-8b"], slots=32),
        vendor="llmperf-2023-together",
        context_tokens=32_768,
        ttft_s=5.0,
    ),
    "mooncake": Setting(own=_FOUR_GPUS, vendor="commercial-long-context", context_tokens=160_000, ttft_s=20.0),
    "agents": Setting(own=_FOUR_GPUS, vendor="commercial-long-context", context_tokens=200_000, ttft_s=20.0),
    "servegen": Setting(
        own=replace(engines.PRESETS["two-gpus-32b"], slots=48),
        vendor="llmperf-2023-groq",
        context_tokens=65_536,
        ttft_s=10.0,
    ),
    "burstgpt": Setting(
        own=engines.PRESETS["laptop-8b"], vendor="llmperf-2023-perplexity", context_tokens=8_192, ttft_s=20.0
    ),
}
