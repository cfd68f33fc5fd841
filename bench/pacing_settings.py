"""Worlds in which budgets are paced. Written down before anything was tuned on them.

A laptop of ours does most of what comes by night and not half of what comes by day, by the mean hours of BurstGPT's 61
days; a vendor takes the rest for money, as far as the day's budget goes. Of the first of the `DAYS` nothing is known
before. What is held is looked at each `RECHECK_S`, since a day has 86,400 seconds and few requests.
"""

from enum import StrEnum

from tidegate.core.model import Price, RequestClass, Slo
from tidegate.sim import engines
from tidegate.sim.lengths import Lengths, LogNormal

SEEDS = (1,)
DAYS = 2
PER_DAY = 4_000
ARRIVALS_CV = 2.0
VARIED = 0.2
"""Where days differ, by so much in the logarithm of what comes."""
LENGTHS = Lengths(
    prompt_tokens=LogNormal(median=3000.0, sigma=0.8, most=16_000.0),
    output_tokens=LogNormal(median=120.0, sigma=0.7, most=1000.0),
)
OUTPUT_TOKENS_MAX = 1000
CONTEXT_TOKENS = 32_768
OWN = engines.PRESETS["laptop-8b"]
VENDOR = "llmperf-2023-together"
PRICE = Price(usd_per_input_token=1e-6, usd_per_output_token=4e-6)
SHARES = (0.3, 0.6, 0.9)
"""Of what is spent in a day where there is no budget."""
START_S = 1_767_571_200.0
"""Monday 2026-01-05, midnight UTC."""
RECHECK_S, PROBE_S, HOLD_S_MAX = 20.0, 600.0, 300.0
STEPS = 4
"""So often a day's best price is guessed, by what was spent at the guesses before; see `hindsight`."""
LEVEL_MAX = 3.0
"""Of the logarithm of `1 + price`: there, nothing is believed to be bought."""


class Regime(StrEnum):
    """What days are like, and what promises are worth.

    Classes differ in what they are worth for their price, and by size. In `alike` all are worth the same for each
    dollar, so that no price orders them: whatever is bought, a dollar gains half a dollar.
    """

    EVEN = "even"
    VARIED = "varied"
    ALIKE = "alike"


CLASSES = (
    (RequestClass(name="interactive", slo=Slo(ttft_s=30.0), worth_usd=0.025), 0.4),
    (RequestClass(name="relaxed", slo=Slo(ttft_s=120.0), worth_usd=0.010), 0.4),
    (RequestClass(name="batch", slo=Slo(e2e_s=900.0), worth_usd=0.006), 0.2),
)
ALIKE = ((RequestClass(name="interactive", slo=Slo(ttft_s=30.0), worth_usd_per_1k_tokens=0.0018), 1.0),)
