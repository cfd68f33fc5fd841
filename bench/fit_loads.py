"""What the time to load a model is taken for before one was seen, beside the measurements.

    TIDEGATE_DATA=... python -m bench.fit_loads

Reads 260 loads of weights (ServerlessLLM's benchmark, Apache-2.0): four models of 13 to 66 GB, on an A5000 in 2024 and
on eight H100 with fast disks in 2025; from safetensors, as engines usually load, and from ServerlessLLM's own store;
from the disk (`random`), and from the host's memory (`cached`). Times are those of the weights alone: what an engine
takes to start is not in them, and neither are Ollama or llama.cpp.
"""

from collections import defaultdict
from math import exp, log
from statistics import fmean, median, pstdev

from bench.fit_network import rows
from tidegate.core.loading import LOAD_BYTES_PER_S, LOAD_S_MIN, LOAD_SIGMA, usual_load_s

# Bytes of the weights as published, two for each parameter.
WEIGHTS_BYTES = {
    "facebook_opt-6.7b": 2 * 6.658e9,
    "Qwen_Qwen3-32B": 2 * 32.76e9,
    "deepseek-ai_DeepSeek-R1-Distill-Qwen-32B": 2 * 32.76e9,
    "meta-llama_Llama-3.1-8B-Instruct": 2 * 8.03e9,
}


def main() -> None:
    """Print what the data says."""
    found: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for row in rows("perf/serverlessllm_load_times.csv.gz"):
        found[row["format"], row["test"], row["platform"], row["model"]].append(float(row["loading_time_s"]))
    print(f"{'loader':<12} {'from':<7} {'platform':<12} {'model':<42} {'n':>3} {'s':>6} {'GB/s':>5} {'predicted':>9}")
    rates: dict[str, list[float]] = defaultdict(list)
    errors: list[float] = []
    for (loader, source, platform, model), times in sorted(found.items()):
        seconds, size = median(times), WEIGHTS_BYTES[model]
        rates[f"{loader}, {source}"].append(size / seconds)
        predicted = usual_load_s(size)
        if loader == "safetensors":
            errors += [log(one / predicted) for one in times]
        print(
            f"{loader:<12} {source:<7} {platform:<12} {model:<42} {len(times):>3} {seconds:>6.2f} "
            f"{size / seconds / 1e9:>5.2f} {predicted:>9.2f}"
        )
    print()
    for name, values in rates.items():
        print(f"{name}: {exp(fmean(log(value) for value in values)) / 1e9:.2f} GB/s")
    print(f"\nshipped: {LOAD_S_MIN} s and {LOAD_BYTES_PER_S / 1e9} GB/s, sigma {LOAD_SIGMA}")
    print(
        f"log(measured / shipped) of safetensors: mean {fmean(errors):+.2f}, deviation {pstdev(errors):.2f}, "
        f"{sum(abs(error) < log(1.5) for error in errors) / len(errors):.0%} within a factor of 1.5"
    )


if __name__ == "__main__":
    main()
