"""What the APIs of the simulator are fitted to, beside the constants that are shipped.

    TIDEGATE_DATA=... python -m bench.fit_api

Reads sessions of coding agents before a commercial API (kv-cache-tester, Apache-2.0) and the latencies of eight
providers of Llama 2 in December 2023 (LLMPerf leaderboard of the Ray project, Apache-2.0). Both are what clients saw,
so the way to the API is in them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean, median

import msgspec

from bench.fit_network import quantiles, rows
from tidegate.sim.api import PRESETS, ApiProfile, Spread

LONG_CONTEXT = "commercial-long-context"
# A prompt is remembered for five minutes: what was thought about for longer tells of neither case.
THINK_S_MAX = 300.0
# Shorter outputs tell little of the time per token.
OUTPUT_TOKENS_MIN = 100
SHARES = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.98, 0.99)
LLMPERF_MODEL = "llama2-70b"
LLMPERF_TOKENS = 550

_normal = NormalDist()


class Seen(msgspec.Struct):
    """One streamed request; of its prompt, `cached_tokens` came before in the same session, within six requests."""

    prompt_tokens: int
    cached_tokens: int
    ttft_s: float
    tpot_s: float | None


class Provider(msgspec.Struct):
    """What one provider showed."""

    ttft_s: list[float]
    tpot_s: list[float]
    failed: dict[str, int]


def agents() -> list[Seen]:
    """Streamed requests of the coding agents, each once: sessions that were forked repeat their beginnings."""
    found, known = [], set()
    for row in rows("requests/kvct_agentic_requests.csv.gz"):
        identity = tuple(row[name] for name in ("model", "type", "in_tokens", "out_tokens", "api_time", "ttft"))
        if identity in known or row["type"] != "s" or not row["ttft"] or float(row["think_time"] or 0.0) > THINK_S_MAX:
            continue
        known.add(identity)
        prompt, output, ttft_s = int(row["in_tokens"]), int(row["out_tokens"]), float(row["ttft"])
        decode_s = float(row["api_time"]) - ttft_s
        found.append(
            Seen(
                prompt_tokens=prompt,
                cached_tokens=min(prompt, max(int(row["prefix_prev_tokens"]), int(row["prefix_best6_tokens"]))),
                ttft_s=ttft_s,
                tpot_s=decode_s / (output - 1) if output >= OUTPUT_TOKENS_MIN and decode_s > 0.0 else None,
            )
        )
    return found


def providers() -> dict[str, Provider]:
    """What each provider of the largest model showed."""
    found: dict[str, Provider] = defaultdict(lambda: Provider([], [], defaultdict(int)))
    for row in rows("perf/llmperf_api_2023_requests.csv.gz"):
        if row["model"] == LLMPERF_MODEL:
            provider = found[row["provider"]]
            if row["error_code"]:
                provider.failed[row["error_code"]] += 1
            else:
                provider.ttft_s.append(float(row["ttft_s"]))
                provider.tpot_s.append(float(row["inter_token_s"]))
    return dict(found)


def least(loss: Callable[[Sequence[float]], float], at: Sequence[float]) -> list[float]:
    """Where a function of positive numbers is least, found by steps along one of them at a time."""
    best, step = list(at), 0.5
    lowest = loss(best)
    while step > 0.002:
        moved = False
        for index in range(len(best)):
            for factor in (1.0 + step, 1.0 / (1.0 + step)):
                tried = [*best]
                tried[index] *= factor
                if (lost := loss(tried)) < lowest:
                    best, lowest, moved = tried, lost, True
        if not moved:
            step /= 2.0
    return best


def log_quantile(spread: Spread, share: float) -> float:
    """The logarithm of the factor that this share of a spread stays below."""
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2.0
        below = (1.0 - spread.tail) * _normal.cdf(middle / spread.sigma)
        if middle > 0.0:
            below += spread.tail * (2.0 * _normal.cdf(middle / spread.tail_sigma) - 1.0)
        low, high = (middle, high) if below < share else (low, middle)
    return low


def spread_of(factors: Sequence[float]) -> tuple[Spread, float]:
    """The spread whose quantiles are nearest, and its median, above one for its tail: times are to be divided by it."""
    seen = [math.log(factor) for factor in quantiles(factors, SHARES)]

    def loss(at: Sequence[float]) -> float:
        # Of a tail of less than one in a hundred, nothing was seen.
        if not (0.01 <= at[1] <= 0.5 and at[0] <= at[2] <= 2.0):
            return math.inf
        spread = Spread(sigma=at[0], tail=at[1], tail_sigma=at[2])
        middle = log_quantile(spread, 0.5)
        return sum((log_quantile(spread, share) - middle - log) ** 2 for share, log in zip(SHARES, seen, strict=True))

    sigma, tail, tail_sigma = (round(number, 3) for number in least(loss, (0.25, 0.1, 0.8)))
    spread = Spread(sigma=sigma, tail=tail, tail_sigma=tail_sigma)
    return spread, math.exp(log_quantile(spread, 0.5))


def medians_of(seen: Sequence[Seen]) -> list[float]:
    """Seconds, seconds per cached and per uncached token, with the least absolute error in the logarithm."""

    def loss(at: Sequence[float]) -> float:
        return sum(
            abs(math.log(one.ttft_s / (at[0] + at[1] * one.cached_tokens + at[2] * uncached(one)))) for one in seen
        )

    return least(loss, (1.2, 1e-5, 3e-5))


def uncached(seen: Seen) -> int:
    """Tokens of its prompt that are new."""
    return seen.prompt_tokens - seen.cached_tokens


def compare(name: str, fitted: dict[str, object], profile: ApiProfile) -> None:
    """Print a fit beside what is shipped."""
    print(name)
    for field, value in fitted.items():
        print(f"  {field}: fitted {value}, shipped {getattr(profile, field)}")


def long_context() -> None:
    """The commercial API with long prompts."""
    seen = agents()
    base_s, cached_s, uncached_s = medians_of(seen)
    tpots = [one.tpot_s for one in seen if one.tpot_s is not None]
    tpot_s = median(tpots)
    ratios = [one.ttft_s / (base_s + cached_s * one.cached_tokens + uncached_s * uncached(one)) for one in seen]
    ttft_spread, ttft_middle = spread_of(ratios)
    tpot_spread, tpot_middle = spread_of([one / tpot_s for one in tpots])
    fitted: dict[str, object] = {
        "ttft_s": round(base_s / ttft_middle, 3),
        "ttft_s_per_cached_token": f"{cached_s / ttft_middle:.3g}",
        "ttft_s_per_uncached_token": f"{uncached_s / ttft_middle:.3g}",
        "ttft_spread": ttft_spread,
        "tpot_s": round(tpot_s / tpot_middle, 4),
        "tpot_spread": tpot_spread,
    }
    compare(f"{LONG_CONTEXT}: {len(seen)} requests", fitted, PRESETS[LONG_CONTEXT])
    print("  TTFT: seen", [round(q, 2) for q in quantiles([one.ttft_s for one in seen], SHARES)])


def main() -> None:
    """Print all of it."""
    long_context()
    for name, provider in sorted(providers().items()):
        profile = PRESETS[f"llmperf-2023-{name}"]
        ttft_s, tpot_s = median(provider.ttft_s), median(provider.tpot_s)
        ttft_spread, ttft_middle = spread_of([one / ttft_s for one in provider.ttft_s])
        tpot_spread, tpot_middle = spread_of([one / tpot_s for one in provider.tpot_s])
        fitted: dict[str, object] = {
            "ttft_s": round(ttft_s / ttft_middle - LLMPERF_TOKENS * profile.ttft_s_per_uncached_token, 3),
            "ttft_spread": ttft_spread,
            "tpot_s": round(tpot_s / tpot_middle, 4),
            "tpot_spread": tpot_spread,
        }
        served = len(provider.ttft_s)
        title = (
            f"llmperf-2023-{name}: {served} served in {fmean(provider.ttft_s):.2f} s, failed {dict(provider.failed)}"
        )
        compare(title, fitted, profile)


if __name__ == "__main__":
    main()
