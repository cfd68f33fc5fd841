"""The simple rules that policies are held against, each with the values of its knob that are tried in hindsight."""

from collections.abc import Iterator, Sequence
from math import inf

from bench.policy_worlds import Scene
from bench.predict_traffic import capacity_per_s
from tidegate.sim.binder import Rule
from tidegate.sim.job import Job
from tidegate.sim.practice import (
    CheapestOnTime,
    LeastTtft,
    LeastWork,
    OursOnly,
    Patience,
    QueueGate,
    RandomSplit,
    RemoteGate,
    RemoteOnly,
    Threshold,
    ThresholdByTime,
)

TODAY = ("remote-only", "random-split", "threshold", "patience")
"""What people configure today."""
SPLITS = (0.2, 0.4, 0.6, 0.8)
LENGTHS = (0.2, 0.4, 0.6, 0.8, 0.9, 0.97)
"""Thresholds, as shares of the prompts that are shorter."""
LOADS_BY_TIME = (0.5, 0.7, 0.85, 1.0, 1.2)
STRETCH_S = 30.0
GATES = ((0.0, 0.6), (0.0, 0.8), (0.0, 1.0), (0.0, 1.25), (0.5, 0.6), (0.5, 1.0), (0.8, 0.8), (0.8, 1.0))
"""A threshold and how full our engines are, in slots."""
REMOTE_GATES = ((0.5, 8), (0.5, 64), (0.8, 8), (0.8, 64))
FACTORS = (1.0, 1.4, 2.0, 2.8, 4.0, 8.0)
WORK_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
PATIENCE = (0.2, 0.4, 0.6, 0.8)
"""Of the time within which first content has to be there."""
CHANCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def rules(scene: Scene) -> Iterator[tuple[str, float, Rule]]:
    """Name, knob and rule."""
    lengths = sorted(job.request.prompt_tokens for job in scene.jobs)

    def tokens(share: float) -> float:
        return float(lengths[min(int(share * len(lengths)), len(lengths) - 1)]) if share else 0.0

    yield "local-only", 0.0, OursOnly()
    yield "remote-only", 0.0, RemoteOnly()
    for share in SPLITS:
        yield "random-split", share, RandomSplit(share)
    for share in LENGTHS:
        yield "threshold", share, Threshold(tokens(share))
    for load in LOADS_BY_TIME:
        yield "threshold-by-time", load, ThresholdByTime(_by_time(scene, load))
    for share, queue in GATES:
        yield "queue-gate", round(share + queue / 100.0, 4), QueueGate(tokens(share), queue)
    for share, most in REMOTE_GATES:
        yield "remote-gate", round(share + most / 1000.0, 4), RemoteGate(tokens(share), most)
    for factor in FACTORS:
        yield "least-ttft", factor, LeastTtft(factor)
    for factor in WORK_FACTORS:
        yield "least-work", factor, LeastWork(factor)
    for share in PATIENCE:
        yield "patience", share, Patience(share * scene.setting.ttft_s)
    for chance in CHANCES:
        yield "cheapest-on-time", chance, CheapestOnTime(chance)


def _by_time(scene: Scene, load: float) -> tuple[tuple[float, float], ...]:
    """For each stretch of time the threshold that leaves our engines this load, known in hindsight."""
    stretches: dict[int, list[Job]] = {}
    for job in scene.jobs:
        stretches.setdefault(int(job.request.arrived_s / STRETCH_S), []).append(job)
    per_s = sum(capacity_per_s(profile, list(scene.jobs)) for profile in scene.pools.values())
    mean = sum(job.prompt_tokens + job.target for job in scene.jobs) / len(scene.jobs)
    room = load * per_s * mean * STRETCH_S
    return tuple((number * STRETCH_S, _threshold(jobs, room)) for number, jobs in sorted(stretches.items()))


def _threshold(jobs: Sequence[Job], room_tokens: float) -> float:
    """Up to which length prompts fit, with their outputs."""
    taken = 0.0
    for job in sorted(jobs, key=lambda job: job.request.prompt_tokens):
        taken += job.prompt_tokens + job.target
        if taken > room_tokens:
            return job.request.prompt_tokens - 1.0
    return inf
