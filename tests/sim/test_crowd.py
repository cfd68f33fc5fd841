"""Who sends requests in a scenario: each for its time, of its classes, and all of them in order."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from tests.sim.test_scenario import FAR, HEAD, OWN
from tidegate.sim.crowd import crowd
from tidegate.sim.job import Job
from tidegate.sim.scenario import parse

LENGTHS = "prompt_tokens = { median = 300, sigma = 0.5, most = 900 }\noutput_tokens = 20\n"


def jobs(*traffics: str, world: str = "", folder: Path = Path(), answer_s: float = 1.0) -> list[Job]:
    """All that is asked, where each answer takes as long; times are from the beginning."""
    tables = "".join(f'[[traffic]]\nmodel = "m"\n{lines}\n' for lines in traffics)
    scenario = parse(f"[world]\n{world}\n{HEAD}{OWN}{FAR}{tables}", str(folder / "s.toml"))
    made = crowd(scenario)
    found, follows = list(made.arrivals()), []
    for job in found:
        following = made.follows(job, job.request.arrived_s + answer_s, served=True)
        while following is not None:
            follows.append(following)
            following = made.follows(following, following.request.arrived_s + answer_s, served=True)
    assert all(early.request.arrived_s <= late.request.arrived_s for early, late in pairwise(found))
    every = [*found, *follows]
    assert len({job.request.id for job in every}) == len(every)
    assert all(0.0 <= job.request.arrived_s - scenario.start_s < scenario.world.duration_s for job in every)
    return every


def seconds(found: list[Job], name: str) -> list[float]:
    start_s = 1767600000.0  # of the world, unless it is said otherwise
    return [job.request.arrived_s - start_s for job in found if job.request.id.startswith(name)]


def test_each_begins_and_ends_at_its_time_and_with_its_number() -> None:
    found = jobs(
        'name = "long"\nrate_per_s = 2\n' + LENGTHS,
        'name = "peak"\nrate_per_s = 9\nbegins_s = 100\nends_s = 200\n' + LENGTHS,
        'name = "few"\nrate_per_s = 9\nrequests_max = 7\n' + LENGTHS,
        world="duration_s = 300",
    )
    assert len(seconds(found, "long")) == pytest.approx(600, rel=0.2)
    assert max(seconds(found, "long")) > 290.0
    peak = seconds(found, "peak")
    assert len(peak) == pytest.approx(900, rel=0.2)
    assert 100.0 <= min(peak) <= max(peak) < 200.0
    assert len(seconds(found, "few")) == 7


def test_the_world_has_a_number_too() -> None:
    assert len(jobs("rate_per_s = 90\n" + LENGTHS, "rate_per_s = 90\n" + LENGTHS, world="requests_max = 50")) == 50


def test_requests_are_of_their_classes_as_often_as_they_weigh() -> None:
    found = jobs("rate_per_s = 9\nclasses = { interactive = 3, batch = 1 }\n" + LENGTHS)
    batch = [job for job in found if job.request.klass.startswith("batch")]
    assert len(batch) / len(found) == pytest.approx(0.25, abs=0.03)
    assert all(job.request.slo.e2e_s == 300.0 for job in batch)


def test_lengths_and_bounds_are_what_is_written() -> None:
    found = jobs("rate_per_s = 9\noutput_tokens_max = 11\ncommon_tokens = 1024\n" + LENGTHS)
    tokens = sorted(job.prompt_tokens for job in found)
    assert tokens[len(tokens) // 2] == pytest.approx(300, rel=0.1)
    assert tokens[-1] <= 900
    assert {job.output_tokens for job in found} == {20}
    assert {job.request.output_tokens_max for job in found} == {11}


def test_prompts_with_a_common_beginning_share_its_blocks_and_no_more() -> None:
    common, alone = (
        jobs(f"rate_per_s = 1\nprompt_tokens = 3000\noutput_tokens = 1\n{more}", world="duration_s = 60")
        for more in ("common_tokens = 1024", "")
    )
    assert len({job.blocks[:2] for job in common}) == 1
    assert len({job.blocks[2] for job in common}) == len(common)
    assert len({job.blocks[0] for job in alone}) == len(alone)


def test_bursts_are_burstier() -> None:
    def spread(lines: str) -> float:
        times = seconds(jobs(f'name = "a"\nrate_per_s = 4\n{lines}{LENGTHS}'), "a")
        gaps = [late - early for early, late in pairwise(times)]
        mean = sum(gaps) / len(gaps)
        return float((sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean)

    assert spread("") == pytest.approx(1.0, abs=0.15)
    assert spread('law = "gamma"\ncv = 3.0\n') > 2.0
    assert spread('law = "weibull"\ncv = 3.0\n') > 2.0
    assert spread('law = "gamma"\ncv = 0.2\n') < 0.3


def test_a_day_has_its_hours() -> None:
    lines = 'name = "a"\nrate_per_s = 0.1\nhours = true\nprompt_tokens = 1\noutput_tokens = 1\n'
    times = seconds(jobs(lines, world="duration_s = 86400"), "a")
    start_h = 8
    per_hour = [0] * 24
    for at_s in times:
        per_hour[(start_h + int(at_s // 3600)) % 24] += 1
    assert sum(per_hour[12:18]) > 3 * sum(per_hour[2:8])


def test_users_wait_for_their_answers_and_take_up_what_was_said() -> None:
    lines = 'name = "u"\nusers = 3\nprompt_tokens = 1000\noutput_tokens = 50\nnew_tokens = 30\nthink_s = 5\nturns = 4\n'
    found = sorted(jobs(lines, answer_s=2.0), key=lambda job: (job.session, job.turn))
    assert len({job.session.split(".")[0] for job in found}) > 3
    for early, late in pairwise(found):
        if early.session == late.session:
            assert late.request.arrived_s == pytest.approx(early.request.arrived_s + 2.0 + 5.0)
            assert late.prompt_tokens == early.prompt_tokens + 50 + 30
            assert late.blocks[: len(early.blocks)] == early.blocks
    assert max(job.turn for job in found) == 3


@pytest.mark.parametrize("preset", ["azure-code", "azure-conv", "mooncake-conv", "servegen-large", "coding-agents"])
def test_every_preset_is_traffic(preset: str) -> None:
    rate = "" if preset == "coding-agents" else "rate_per_s = 2\n"
    assert len(jobs(f'preset = "{preset}"\n{rate}', world="requests_max = 500")) > 20


def test_a_trace_is_sent_at_its_times_and_its_speed(tmp_path: Path) -> None:
    rows = [{"timestamp": 3000 * n, "input_length": 600, "output_length": 2, "hash_ids": [n]} for n in range(10)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = 'name = "t"\ntrace = "t.jsonl"\nformat = "mooncake"\n'
    usual = seconds(jobs(line, folder=tmp_path), "t")
    twice = seconds(jobs(line + "speed = 2\n", folder=tmp_path), "t")
    assert len(usual) == len(twice) == 10
    assert twice == pytest.approx([at_s / 2.0 for at_s in usual])
