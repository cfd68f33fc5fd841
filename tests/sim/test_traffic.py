"""Traffic made up from laws."""

import os
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.clients import ask, played, prefix_hit_ratio
from tidegate.sim.arrivals import Poisson
from tidegate.sim.ask import PLACES
from tidegate.sim.chance import Chance
from tidegate.sim.job import Job
from tidegate.sim.lengths import Constant, Lengths, LogNormal
from tidegate.sim.traffic import Break, Open, Reuse, Sessions, Talk

ROOT = Path(__file__).parents[2]
LENGTHS = Lengths(prompt_tokens=LogNormal(median=4000.0, sigma=1.0), output_tokens=LogNormal(median=100.0, sigma=1.0))
TALK = Talk(
    first_tokens=LogNormal(median=8000.0, sigma=0.5),
    output_tokens=LogNormal(median=200.0, sigma=1.0),
    new_tokens=LogNormal(median=500.0, sigma=1.0),
    turns=Constant(20.0),
    think_s=LogNormal(median=10.0, sigma=1.0),
)


def loop(seed: int = 1, **changes: object) -> Open:
    settings = {"process": Poisson(rate_per_s=5.0), "lengths": LENGTHS, "ask": ask(), "chance": Chance(seed), **changes}
    return Open(**settings)  # type: ignore[arg-type]


def sessions(seed: int = 1, talk: Talk = TALK, **changes: object) -> Sessions:
    settings = {"users": 4, "talks": ((talk, 1.0),), "ask": ask(), "chance": Chance(seed), **changes}
    return Sessions(**settings)  # type: ignore[arg-type]


def shared(one: Job, other: Job) -> int:
    """How many leading blocks they have in common."""
    together = zip(one.blocks, other.blocks, strict=False)
    return next((i for i, (a, b) in enumerate(together) if a != b), min(len(one.blocks), len(other.blocks)))


# --- open loops ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 99), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_every_prompt_has_the_blocks_that_it_is_long_enough_for(seed: int, common: float, resumed: float) -> None:
    reuse = Reuse(
        common_share=common,
        commons=3,
        common_tokens=LogNormal(median=2000.0, sigma=1.0),
        resumed_share=resumed,
        recent=9,
    )
    jobs = list(loop(seed, reuse=reuse, requests_max=60).arrivals())
    assert len(jobs) == 60
    assert len({job.request.id for job in jobs}) == 60
    for job in jobs:
        assert len(job.blocks) == job.prompt_tokens // 512
        assert len(set(job.blocks)) == len(job.blocks)
    assert all(early.request.arrived_s <= late.request.arrived_s for early, late in pairwise(jobs))


def test_a_prompt_longer_than_any_has_as_many_blocks_as_there_are_identities() -> None:
    lengths = Lengths(prompt_tokens=Constant(40e6), output_tokens=Constant(9.0))
    reuse = Reuse(common_share=1.0, common_tokens=Constant(40e6))
    for changes in (dict[str, object](), {"reuse": reuse}):
        one, other = loop(lengths=lengths, requests_max=2, **changes).arrivals()
        assert (one.prompt_tokens, len(one.blocks)) == (40_000_000, PLACES)
        assert (one.blocks == other.blocks) == bool(changes)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_as_many_begin_with_a_common_prefix_as_were_asked_to(share: float) -> None:
    reuse = Reuse(common_share=share, commons=4, common_tokens=Constant(1024.0))
    jobs = [job for job in loop(reuse=reuse, requests_max=3000).arrivals() if len(job.blocks) >= 2]
    firsts: dict[tuple[int, ...], int] = {}
    for job in jobs:
        firsts[job.blocks[:2]] = firsts.get(job.blocks[:2], 0) + 1
    common = [count for count in firsts.values() if count > 1]
    assert sum(common) / len(jobs) == pytest.approx(share, abs=0.04)
    assert len(common) == (4 if share else 0)


def test_a_resumed_prompt_begins_with_the_part_of_an_earlier_one_that_it_is_told_to() -> None:
    reuse = Reuse(resumed_share=1.0, resumed_part=Constant(0.5), resumed_tokens_min=4096, recent=50)
    jobs = list(loop(reuse=reuse, requests_max=400).arrivals())
    for n, job in enumerate(jobs[50:], 50):
        most = max(shared(job, earlier) for earlier in jobs[n - 50 : n])
        longest = max(len(earlier.blocks) for earlier in jobs[n - 50 : n])
        expected = min(int(len(job.blocks) * 0.5 + 0.5), longest) if job.prompt_tokens >= 4096 else 0
        assert most == expected


def test_without_reuse_no_two_prompts_have_a_block_in_common() -> None:
    assert prefix_hit_ratio(loop(requests_max=300).arrivals()) == 0.0


def test_another_law_of_arrival_changes_no_request_but_its_time() -> None:
    calm, busy = (list(loop(process=Poisson(rate_per_s=r), requests_max=50).arrivals()) for r in (1.0, 9.0))
    for one, other in zip(calm, busy, strict=True):
        assert one.request.arrived_s != other.request.arrived_s
        assert (one.prompt_tokens, one.output_tokens, one.blocks) == (
            other.prompt_tokens,
            other.output_tokens,
            other.blocks,
        )


def test_traffics_of_different_spaces_share_nothing() -> None:
    reuse = Reuse(common_share=1.0, common_tokens=Constant(512.0), resumed_share=0.5, recent=9)
    blocks = [
        {block for job in loop(reuse=reuse, space=space, requests_max=200).arrivals() for block in job.blocks}
        for space in (0, 1)
    ]
    assert not blocks[0] & blocks[1]


def test_nobody_in_an_open_loop_waits_for_an_answer() -> None:
    traffic = loop(requests_max=1)
    (job,) = traffic.arrivals()
    assert traffic.follows(job, 1.0, served=True) is None


# --- sessions -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 99), st.floats(0.1, 100.0))
def test_each_turn_begins_with_the_one_before_and_grows_by_its_answer(seed: int, takes_s: float) -> None:
    last: dict[str, Job] = {}
    for job in played(sessions(seed), 200, takes_s=takes_s):
        before = last.get(job.session)
        if before is None:
            assert job.turn == 0
        else:
            assert job.turn == before.turn + 1
            assert job.prompt_tokens >= before.prompt_tokens + before.output_tokens
            assert shared(job, before) == len(before.blocks)
            assert job.request.prefix[: len(before.request.prefix)] == before.request.prefix
            assert job.request.arrived_s > before.request.arrived_s + takes_s
            assert job.request.klass.split("/")[0] == before.request.klass.split("/")[0]
        assert len(job.blocks) == job.prompt_tokens // 512
        last[job.session] = job


def test_a_client_has_one_request_at_a_time_and_a_new_session_when_one_is_over() -> None:
    traffic = sessions(users=3)
    jobs = played(traffic, 3 * 45)
    assert len({job.request.id for job in jobs}) == len(jobs)
    assert {job.session for job in traffic.arrivals()} == {"sessions-0", "sessions-1", "sessions-2"}
    turns: dict[str, int] = {}
    for job in jobs:
        turns[job.session] = turns.get(job.session, 0) + 1
    assert max(turns.values()) == 20
    assert {"sessions-3", "sessions-4", "sessions-5"} <= set(turns)


def test_an_answer_counts_as_far_as_the_bound_lets_it() -> None:
    talk = Talk(
        first_tokens=Constant(1000.0),
        output_tokens=Constant(500.0),
        new_tokens=Constant(10.0),
        turns=Constant(3.0),
        think_s=Constant(1.0),
    )
    traffic = sessions(talk=talk, users=1, ask=ask(output_tokens_max=(100,)))
    assert [job.prompt_tokens for job in played(traffic, 3)] == [1000, 1110, 1220]


def test_what_was_not_answered_is_asked_again() -> None:
    traffic = sessions(users=1)
    (first,) = traffic.arrivals()
    again = traffic.follows(first, 100.0, served=False)
    assert (again.prompt_tokens, again.output_tokens, again.blocks) == (
        first.prompt_tokens,
        first.output_tokens,
        first.blocks,
    )
    assert (again.turn, again.request.arrived_s > 100.0) == (1, True)
    lost = played(traffic, 50, served=False)
    assert max(job.turn for job in lost) == 19


def test_agents_take_in_more_at_first() -> None:
    talk = Talk(
        first_tokens=Constant(1000.0),
        output_tokens=Constant(1.0),
        new_tokens=Constant(9.0),
        early_turns=2,
        early_tokens=Constant(99.0),
        turns=Constant(9.0),
        think_s=Constant(1.0),
    )
    jobs = played(sessions(talk=talk, users=1), 5)
    assert [job.prompt_tokens for job in jobs] == [1000, 1100, 1200, 1210, 1220]


def test_a_prompt_beyond_the_window_is_compacted() -> None:
    talk = Talk(
        first_tokens=Constant(8000.0),
        output_tokens=Constant(1000.0),
        new_tokens=Constant(1000.0),
        turns=Constant(50.0),
        think_s=Constant(1.0),
        window_tokens=12_000,
        compacted=Constant(6000.0),
        breaks=Break(kept=Constant(0.5)),
    )
    jobs = played(sessions(talk=talk, users=1), 5)
    assert [job.prompt_tokens for job in jobs] == [8000, 10_000, 12_000, 6000, 8000]
    assert shared(jobs[3], jobs[2]) == 3000 // 512
    assert shared(jobs[4], jobs[3]) == len(jobs[3].blocks)


@pytest.mark.parametrize(("resized", "prompt_tokens"), [(0.0, 10_240), (1.0, 8192)])
def test_a_break_costs_the_prefix_behind_it(resized: float, prompt_tokens: int) -> None:
    talk = Talk(
        first_tokens=Constant(10_240.0),
        output_tokens=Constant(1.0),
        new_tokens=Constant(1.0),
        turns=Constant(100.0),
        think_s=Constant(1.0),
        breaks=Break(share=1.0, resized_share=resized, tokens=Constant(8192.0), kept=Constant(0.25)),
    )
    first, second = played(sessions(talk=talk, users=1), 2)
    blocks = prompt_tokens // 512
    assert (second.prompt_tokens, len(second.blocks), shared(first, second)) == (prompt_tokens, blocks, blocks // 4)


def test_sessions_have_their_beginning_in_common_and_nothing_else() -> None:
    talk = Talk(
        first_tokens=Constant(8192.0),
        output_tokens=Constant(1.0),
        new_tokens=Constant(1.0),
        turns=Constant(1.0),
        think_s=Constant(1.0),
        common_tokens=2048,
    )
    one, other = islice(sessions(talk=talk).arrivals(), 2)
    assert shared(one, other) == 4
    assert not set(one.blocks[4:]) & set(other.blocks)


def test_sessions_are_of_each_kind_by_its_weight() -> None:
    short, long = (
        Talk(
            first_tokens=Constant(size),
            output_tokens=Constant(1.0),
            new_tokens=Constant(1.0),
            turns=Constant(1.0),
            think_s=Constant(1.0),
        )
        for size in (10.0, 1000.0)
    )
    jobs = list(sessions(users=2000, talks=((short, 3.0), (long, 1.0))).arrivals())
    assert sum(job.prompt_tokens == 1000 for job in jobs) / 2000 == pytest.approx(0.25, abs=0.04)


# --- both ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import hashlib, msgspec
from tests.sim.test_traffic import ask, loop, played, sessions
from tests.sim.clients import CHAT
from tidegate.core.model import Slo
from tidegate.sim.chance import Chance
from tidegate.sim.fitted import PRESETS, fitted
asking = ask((CHAT, 1.0), slos=((Slo(), 1.0), (Slo(ttft_s=1.0), 1.0)), output_tokens_max=(None, 100))
jobs = [job for name in PRESETS for job in fitted(name, asking, Chance(5), requests_max=100, starts_h=8).arrivals()]
jobs += played(fitted("coding-agents", asking, Chance(5)), 100) + played(sessions(5, ask=asking), 100)
print(hashlib.sha256(msgspec.json.encode(jobs)).hexdigest())
"""


def digest(hash_seed: int) -> str:
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout


def test_two_hash_seeds_give_one_traffic() -> None:
    assert digest(1) == digest(20_261_124)
