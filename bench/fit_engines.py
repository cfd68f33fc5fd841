"""What engines on declared hardware are fitted to, and how far predictions are from runs that were measured.

    TIDEGATE_DATA=... make bench-engines

Reads 300 requests each of three runs of vLLM 0.19 on RTX PRO 6000 (casys-kaist/LLMServingSim, MIT), and times of
kernels that aiconfigurator 0.12 estimates for a grid of models and hardware (ai-dynamo, Apache-2.0).

What is fitted on what:

- The form is physics: `core/hardware.py`. No run has a constant of its own.
- What is of kernels alone comes from the grid: how reading and computing overlap, the efficiency of experts and of
  attention, what passes in each layer and each exchange, and the share of a link that is reached. Rows are the models
  in bf16 whose facts are shipped, on all hardware but the L40S: with several accelerators these exchange at a ninth of
  the speed of their link, and a share fitted to that would say nothing of other links.
- What a whole machine makes of it comes from the runs: the shares of the memory's bandwidth and of the peak that are
  reached.
- The loss of a run is the mean square of the relative error of each request's TPOT, and of its end-to-end time.
- A run is predicted from constants fitted to the two others.

So a run's own numbers are never fitted to when it is predicted. But the form is not blind to them: all but the four
points below was laid down before anything was fitted to a run, and predicted mean TPOT 24 % too long for Llama-3.1-8B,
2 % for Qwen3-30B-A3B, and 12 % too short for Qwen3-32B. After that look, and in this order:

1. The speed of the link and of an exchange was fitted too; two runs do not tell a slow link from slow cores. It is
   what those who measured declare of their machine.
2. Ranks in step had all sequences on one of them. They are spread.
3. Scores of words have to come together from several accelerators. It is counted.
4. Seconds per iteration and per sequence were fitted too, and all shares pulled to those of the grid. Fitted to all
   runs, the seconds are nothing: vLLM prepares an iteration while accelerators compute the one before. They are gone,
   and two shares alone need no pull.

Another card may reach other shares of what its maker declares. The same authors' run of Llama-3.1-8B on an RTX 4090,
which is not in the folder and was looked at once, at the end, is predicted a fifth too slow.
"""

import math
import os
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec

from bench.fit_network import quantiles, rows
from bench.record import record
from tidegate.core.facts import ACCELERATORS, MODELS
from tidegate.core.hardware import Efficiency, Link, Model, Setup, step_time
from tidegate.core.model import Request, replace
from tidegate.sim.engine import Engine, EngineProfile, Kind
from tidegate.sim.hardware import profile
from tidegate.sim.job import Job

# Where the search begins; all of these are found anew.
FIRST = Efficiency(
    bandwidth_share=0.85,
    compute_share=0.7,
    attention_share=0.6,
    expert_share=0.5,
    layer_s=1e-5,
)
KERNELS = (
    "bandwidth_share",
    "compute_share",
    "attention_share",
    "expert_share",
    "layer_s",
    "overlap",
)
MACHINES = ("bandwidth_share", "compute_share")
# The nominal bandwidth of their links, in one direction.
GRID_LINKS = {"a100-80gb": 300e9, "h100-sxm": 450e9, "h200-sxm": 450e9, "b200-sxm": 900e9, "rtx-pro-6000-server": 64e9}
GRID_ACCELERATORS = {
    "a100_sxm": "a100-80gb",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200-sxm",
    "rtx_pro_6000_server": "rtx-pro-6000-server",
}
GRID_MODELS = {
    "meta-llama/Meta-Llama-3.1-8B": "llama-3.1-8b",
    "meta-llama/Meta-Llama-3.1-70B": "llama-3.1-70b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-30B-A3B": "qwen3-30b-a3b",
}


class Row(msgspec.Struct):
    """One point of the grid."""

    model: Model
    accelerator: str
    setup: Setup
    prompt_tokens: int
    pairs: float
    decoding: int
    context: int
    takes_s: float


class Run(msgspec.Struct):
    """One measured run: when requests came, what was asked, and what they saw."""

    name: str
    model: Model
    setup: Setup
    jobs: list[Job]
    ttft_s: list[float]
    tpot_s: list[float]


class Served(msgspec.Struct):
    """What the requests of a run see in the model."""

    ttft_s: list[float]
    tpot_s: list[float]


SETUPS = {
    "Llama-3.1-8B": ("llama-3.1-8b", Setup(slots=128)),
    "Qwen3-30B-A3B-Instruct-2507": ("qwen3-30b-a3b", Setup(slots=128, data_parallel=2)),
    "Qwen3-32B": ("qwen3-32b", Setup(slots=128, tensor_parallel=2)),
}
RUN_ACCELERATOR = ACCELERATORS["rtx-pro-6000-server"]


def grid() -> list[Row]:
    """Rows of the grid that the constants of kernels are fitted to."""
    found = []
    for row in rows("perf/aic_grid.csv.gz"):
        if row["model"] not in GRID_MODELS or row["system"] not in GRID_ACCELERATORS:
            continue
        context, prefix, batch = int(row["ctx_or_isl"]), int(row["prefix"]), int(row["batch"])
        decodes = row["phase"] == "decode"
        new = 0 if decodes else context - prefix
        found.append(
            Row(
                model=MODELS[GRID_MODELS[row["model"]]],
                accelerator=GRID_ACCELERATORS[row["system"]],
                setup=Setup(tensor_parallel=int(row["tp"])),
                prompt_tokens=new,
                pairs=new * (prefix + new / 2),
                decoding=batch if decodes else 0,
                context=context * batch if decodes else 0,
                takes_s=float(row["ms"]) / 1000.0,
            )
        )
    return found


def runs() -> list[Run]:
    """The measured runs."""
    found = {
        name: Run(name=name, model=MODELS[model], setup=setup, jobs=[], ttft_s=[], tpot_s=[])
        for name, (model, setup) in SETUPS.items()
    }
    for row in rows("perf/vllm_measured_requests.csv.gz"):
        run = found[row["model"]]
        request = Request(
            id=row["request_id"],
            model=row["model"],
            klass="chat",
            prompt_bytes=4 * int(row["input_toks"]),
            arrived_s=float(row["arrival_s"]),
            prompt_tokens=int(row["input_toks"]),
        )
        run.jobs.append(
            Job(request=request, prompt_tokens=int(row["input_toks"]), output_tokens=int(row["output_toks"]))
        )
        run.ttft_s.append(float(row["ttft_s"]))
        run.tpot_s.append(float(row["tpot_s"]))
    return list(found.values())


def serve(engine_profile: EngineProfile, jobs: Sequence[Job]) -> Served:
    """The same requests at the same times before a simulated engine."""
    engine = Engine(engine_profile)
    told = []
    for job in sorted(jobs, key=lambda job: job.request.arrived_s):
        told += engine.advance(job.request.arrived_s)
        assert engine.submit(job, job.request.arrived_s), "no request of a run was refused"
    while engine.next_s < math.inf:
        told += engine.advance(engine.next_s)
    first = {one.sequence.job.request.id: one.at_s for one in told if one.kind is Kind.FIRST}
    done = {one.sequence.job.request.id: one.at_s for one in told if one.kind is Kind.DONE}
    return Served(
        ttft_s=[first[job.request.id] - job.request.arrived_s for job in jobs],
        tpot_s=[(done[job.request.id] - first[job.request.id]) / (job.target - 1) for job in jobs],
    )


def predict(run: Run, efficiency: Efficiency) -> Served:
    """What a run's requests see with these constants."""
    return serve(profile(run.model, RUN_ACCELERATOR, run.setup, efficiency), run.jobs)


def run_loss(run: Run, efficiency: Efficiency) -> float:
    """See above."""
    served = predict(run, efficiency)
    total = 0.0
    for job, ttft_s, tpot_s, was_ttft_s, was_tpot_s in zip(
        run.jobs, served.ttft_s, served.tpot_s, run.ttft_s, run.tpot_s, strict=True
    ):
        e2e_s, was_e2e_s = (
            first + each * (job.target - 1) for first, each in ((ttft_s, tpot_s), (was_ttft_s, was_tpot_s))
        )
        total += (tpot_s / was_tpot_s - 1.0) ** 2 + (e2e_s / was_e2e_s - 1.0) ** 2
    return total / len(run.jobs)


def grid_loss(row: Row, efficiency: Efficiency, link_share: float, exchange_s: float) -> float:
    """The square of the logarithm of the ratio."""
    link = Link(bytes_per_s=link_share * GRID_LINKS[row.accelerator], exchange_s=exchange_s)
    step = step_time(row.model, replace(ACCELERATORS[row.accelerator], link=link), row.setup, efficiency)
    return math.log(step.takes_s(row.prompt_tokens, row.pairs, row.decoding, row.context) / row.takes_s) ** 2


def lowest(loss: Callable[[Sequence[float]], float], at: Sequence[float]) -> list[float]:
    """Where a function of positive numbers is least, by the simplex of Nelder and Mead in their logarithms."""

    def of(point: list[float]) -> float:
        return loss([math.exp(number) for number in point])

    best = [math.log(number) for number in at]
    for size in (0.5, 0.2, 0.1):
        corners = [best] + [[*best[:index], best[index] + size, *best[index + 1 :]] for index in range(len(best))]
        best = _simplex(of, sorted((of(corner), corner) for corner in corners))
    return [math.exp(number) for number in best]


def _simplex(of: Callable[[list[float]], float], corners: list[tuple[float, list[float]]]) -> list[float]:
    """The best corner, once all are alike; `corners` are in order, with their values."""
    for _ in range(400):
        worst, point = corners[-1]
        if worst - corners[0][0] < 1e-7:
            break
        middle = [fmean(numbers) for numbers in zip(*(corner for _, corner in corners[:-1]), strict=True)]

        def away(factor: float, point: list[float] = point, middle: list[float] = middle) -> tuple[float, list[float]]:
            tried = [m + factor * (p - m) for m, p in zip(middle, point, strict=True)]
            return of(tried), tried

        tried = away(-1.0)
        if tried[0] < corners[0][0]:
            tried = min(tried, away(-2.0))
        elif tried[0] >= corners[-2][0]:
            tried = min(tried, away(0.5))
        if tried[0] < worst:
            corners[-1] = tried
        else:
            near = [[(n + b) / 2.0 for n, b in zip(corner, corners[0][1], strict=True)] for _, corner in corners[1:]]
            corners[1:] = [(of(corner), corner) for corner in near]
        corners.sort()
    return corners[0][1]


def changed(efficiency: Efficiency, names: Sequence[str], at: Sequence[float]) -> Efficiency:
    """The same with these constants."""
    return replace(efficiency, **dict(zip(names, at, strict=True)))


def settled(efficiency: Efficiency, names: Sequence[str], at: Sequence[float]) -> Efficiency:
    """The same with what was fitted: three digits, so that what is recorded is what was used."""
    return changed(efficiency, names, [rounded(number) for number in at])


def fit_kernels(found: Sequence[Row]) -> tuple[Efficiency, dict[str, float]]:
    """Constants of kernels, those of links, and the error: standard, of the logarithm."""

    def loss(at: Sequence[float]) -> float:
        efficiency = changed(FIRST, KERNELS, at[2:])
        return fmean(grid_loss(row, efficiency, at[0], at[1]) for row in found)

    best = lowest(loss, [0.5, 1e-5, *(getattr(FIRST, name) for name in KERNELS)])
    links = {"link_share": best[0], "exchange_s": best[1], "error": math.sqrt(loss(best))}
    return settled(FIRST, KERNELS, best[2:]), links


def fit_machines(fitted_to: Sequence[Run], kernels: Efficiency) -> Efficiency:
    """Constants of machines, fitted to these runs."""

    def loss(at: Sequence[float]) -> float:
        efficiency = changed(kernels, MACHINES, at)
        return sum(run_loss(run, efficiency) for run in fitted_to)

    return settled(kernels, MACHINES, lowest(loss, [getattr(kernels, name) for name in MACHINES]))


def errors(run: Run, efficiency: Efficiency) -> dict[str, float]:
    """Relative errors of the figures of a run."""
    served = predict(run, efficiency)
    figures: dict[str, tuple[list[float], list[float], Callable[[list[float]], float]]] = {
        "tpot_mean": (served.tpot_s, run.tpot_s, fmean),
        "ttft_mean": (served.ttft_s, run.ttft_s, fmean),
        "tpot_p99": (served.tpot_s, run.tpot_s, p99),
        "ttft_p99": (served.ttft_s, run.ttft_s, p99),
        "ttft_median": (served.ttft_s, run.ttft_s, lambda values: quantiles(values, (0.5,))[0]),
    }
    return {name: round(figure(made) / figure(was) - 1.0, 4) for name, (made, was, figure) in figures.items()}


def p99(values: list[float]) -> float:
    """What one in a hundred is above."""
    return quantiles(values, (0.99,))[0]


def shown(efficiency: Efficiency) -> dict[str, float]:
    """Its constants by name."""
    return {name: getattr(efficiency, name) for name in efficiency.__struct_fields__}


def rounded(value: float) -> float:
    """With three digits."""
    return float(f"{value:.3g}")


def main() -> None:
    """Fit, predict what was left out, and record both."""
    assert "TIDEGATE_DATA" in os.environ, "TIDEGATE_DATA names the folder of public traces"
    measured, found = runs(), grid()
    kernels, links = fit_kernels(found)
    left_out, alone = {}, {}
    for run in measured:
        efficiency = fit_machines([other for other in measured if other is not run], kernels)
        left_out[run.name] = {**errors(run, efficiency), "constants": shown(efficiency)}
        efficiency = fit_machines([run], kernels)
        alone[run.name] = {**errors(run, efficiency), "constants": shown(efficiency)}
    together = fit_machines(measured, kernels)
    record(
        "engines",
        {
            "bounds": {"tpot_mean": 0.03, "ttft_mean": 0.1, "tpot_p99": 0.15, "ttft_p99": 0.15},
            "predicted from the other runs": left_out,
            "fitted to itself": alone,
            "fitted to all": {run.name: errors(run, together) for run in measured},
            "constants of all": shown(together),
            "kernels": {
                "rows": len(found),
                **shown(kernels),
                **{name: rounded(value) for name, value in links.items()},
            },
        },
    )


if __name__ == "__main__":
    main()
