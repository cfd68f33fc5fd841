"""Presets are like the traces that they were fitted to."""

from collections.abc import Iterable
from itertools import pairwise
from statistics import mean, pstdev

import pytest
from bench.fit_traffic import constants, distinct_agents

from tests.sim.clients import ask, data, prefix_hit_ratio
from tidegate.sim import fitted as ours
from tidegate.sim.chance import Chance
from tidegate.sim.fitted import PresetName, fitted
from tidegate.sim.job import Job
from tidegate.sim.recorded import TraceFormat, recorded
from tidegate.sim.traffic import Open, Sessions

AZURE_CODE = "AzureLLMInferenceTrace_code.csv.gz"
AZURE_CONV = "AzureLLMInferenceTrace_conv.csv.gz"
MOONCAKE = "mooncake_conversation_trace.jsonl.gz"
OPEN: list[tuple[PresetName, str, TraceFormat]] = [
    ("azure-code", AZURE_CODE, "azure"),
    ("azure-conv", AZURE_CONV, "azure"),
    ("mooncake-conv", MOONCAKE, "mooncake"),
]


def made(preset: PresetName, seed: int, n: int) -> list[Job]:
    return list(fitted(preset, ask(), Chance(seed), requests_max=n).arrivals())


def at(share: float, values: Iterable[int]) -> int:
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))]


def gap_cv(jobs: list[Job]) -> float:
    gaps_s = [late.request.arrived_s - early.request.arrived_s for early, late in pairwise(jobs)]
    return pstdev(gaps_s) / mean(gaps_s)


def whole_sessions(traffic: Sessions) -> list[Job]:
    """Every turn of each user's first session."""
    found = []
    for job in traffic.arrivals():
        session = job.session
        while job.session == session:
            found.append(job)
            job = traffic.follows(job, job.request.arrived_s, served=True)
    return found


@pytest.mark.slow
def test_the_constants_are_what_the_fit_gives() -> None:
    for name, value in constants(data("")).items():
        assert getattr(ours, name) == value, name


@pytest.mark.lengthy
@pytest.mark.parametrize(("preset", "file", "format"), OPEN)
def test_an_open_preset_has_the_lengths_and_gaps_of_its_trace(
    preset: PresetName, file: str, format: TraceFormat
) -> None:
    real = list(recorded(data("requests") / file, format, ask(), Chance(1)).arrivals())
    found = made(preset, 1, 40_000)
    for share in (0.5, 0.9, 0.99):
        for tokens in ("prompt_tokens", "output_tokens"):
            ours_, theirs = (at(share, (getattr(job, tokens) for job in jobs)) for jobs in (found, real))
            # Steps of one token are 8 % of a median of 13, and an 8th of 1 % of a long tail is few requests.
            assert ours_ == pytest.approx(theirs, rel=0.06, abs=1), (share, tokens)
    # Azure's code trace has its CV from one gap of three minutes: how many such there are is chance.
    assert gap_cv(found) == pytest.approx(gap_cv(real), rel=0.25 if preset == "azure-code" else 0.05)


@pytest.mark.lengthy
def test_conversations_are_resumed_about_as_much_as_in_mooncakes_trace() -> None:
    theirs = 0.3551625
    found = [prefix_hit_ratio(made("mooncake-conv", seed, 7218)) for seed in range(4)]
    assert mean(found) == pytest.approx(theirs, rel=0.15)


@pytest.mark.slow
def test_coding_agents_have_the_lengths_and_the_reuse_of_their_trace() -> None:
    requests = data("requests")
    rows = [row for agent in distinct_agents(requests) for row in agent]
    found: list[Job] = []
    for seed in range(3):
        traffic = fitted("coding-agents", ask(), Chance(seed), users=1000)
        assert isinstance(traffic, Sessions)
        sessions = whole_sessions(traffic)
        assert prefix_hit_ratio(sessions) == pytest.approx(0.961, abs=0.01)
        found += sessions
    # A tenth of the prompts are of sessions that outgrow the usual window: p90 is on the edge between the kinds.
    for share, off in ((0.5, 0.1), (0.9, 0.3), (0.99, 0.2)):
        theirs = at(share, (int(row["in_tokens"]) for row in rows))
        assert at(share, (job.prompt_tokens for job in found)) == pytest.approx(theirs, rel=off), share
        theirs = at(share, (int(row["out_tokens"]) for row in rows))
        assert at(share, (job.output_tokens for job in found)) == pytest.approx(theirs, rel=0.05), share


# What was published of the whole traces: prompts at p50, p90 and p99, output at p50, arrivals a second, CV of gaps.
FACTS = [
    ("azure-code", (1469, 5188, 7436), 13, 3.11),
    ("azure-conv", (1020, 2734, 4142), 129, 5.83),
    ("mooncake-conv", (6909, 27_367, 85_400), 350, 3.24),
    ("servegen-large", (601, 2371, 5452), 53, 195.8),
]


@pytest.mark.lengthy
@pytest.mark.parametrize(("preset", "prompts", "output", "rate_per_s"), FACTS)
def test_a_preset_is_near_what_was_published_without_the_trace_at_hand(
    preset: PresetName, prompts: tuple[int, int, int], output: int, rate_per_s: float
) -> None:
    jobs = made(preset, 1, 20_000)
    for share, theirs in zip((0.5, 0.9, 0.99), prompts, strict=True):
        # The last 40 % of Azure's conversations, which the fit has not seen, are shorter than the first.
        off = 0.5 if (preset, share) == ("azure-conv", 0.9) else 0.12
        assert at(share, (job.prompt_tokens for job in jobs)) == pytest.approx(theirs, rel=off)
    assert at(0.5, (job.output_tokens for job in jobs)) == pytest.approx(output, rel=0.12)
    assert len(jobs) / jobs[-1].request.arrived_s == pytest.approx(rate_per_s, rel=0.1)


def test_a_preset_keeps_its_pattern_at_another_rate() -> None:
    presets: tuple[PresetName, ...] = ("azure-code", "azure-conv", "mooncake-conv", "servegen-large")
    for preset in presets:
        slow, fast = (
            list(fitted(preset, ask(), Chance(1), rate_per_s=r, requests_max=200).arrivals()) for r in (1.0, 10.0)
        )
        expected = [job.request.arrived_s / 10.0 for job in slow]
        assert [job.request.arrived_s for job in fast] == pytest.approx(expected)


def test_a_day_moves_arrivals_and_nothing_else() -> None:
    traffic = fitted("azure-conv", ask(), Chance(1), requests_max=200, starts_h=6)
    assert isinstance(traffic, Open)
    quiet = list(traffic.arrivals())
    plain = made("azure-conv", 1, 200)
    # At six in the morning BurstGPT has a fifth of its mean.
    assert quiet[-1].request.arrived_s == pytest.approx(plain[-1].request.arrived_s / 0.2016, rel=1e-3)
    assert [job.blocks for job in quiet] == [job.blocks for job in plain]
