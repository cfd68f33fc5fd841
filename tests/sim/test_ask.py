"""What the gateway may know of a job."""

from random import Random
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.clients import CHAT, ask
from tidegate.core.classify import classify
from tidegate.core.model import RequestClass, Slo
from tidegate.sim.ask import COMMON, block_ids, digests
from tidegate.sim.job import Job

BATCH = RequestClass(name="batch", slo=Slo(e2e_s=600.0), worth_usd_per_1k_tokens=0.02, residency=("local",))
sizes = st.sampled_from([64, 256, 512, 1024])


def jobs(n: int = 4000, **settings: object) -> list[Job]:
    asking, random = ask((CHAT, 3.0), (BATCH, 1.0), **settings), Random(1)  # type: ignore[arg-type]
    return [
        asking.job(asking.manner(random), id=f"r{i}", arrived_s=0.0, prompt_tokens=2000, output_tokens=10)
        for i in range(n)
    ]


def test_classes_come_as_often_as_their_weights_say_with_all_that_they_promise() -> None:
    found = jobs()
    batch = [job.request for job in found if job.request.klass.startswith("batch/")]
    assert len(batch) / len(found) == pytest.approx(0.25, abs=0.03)
    for request in batch:
        assert (request.slo, request.residency) == (BATCH.slo, ("local",))
        assert (request.worth_usd, request.worth_usd_per_1k_tokens) == (0.0, 0.02)


def test_estimates_scatter_as_bytes_per_token_do_and_are_right_on_average() -> None:
    found = [job.request.prompt_tokens / job.prompt_tokens for job in jobs()]
    assert mean(found) == pytest.approx(1.0, abs=0.01)
    assert pstdev(found) == pytest.approx(0.15, abs=0.01)
    assert mean(job.request.prompt_bytes / job.prompt_tokens for job in jobs()) == pytest.approx(4.0, abs=0.05)


def test_the_class_has_the_size_that_the_gateway_takes_it_for() -> None:
    for job in jobs(200):
        assert job.request.klass == classify(job.request.klass.split("/")[0], job.request.prompt_tokens)


def test_axes_that_a_client_sets_go_before_the_class_and_leave_the_others() -> None:
    found = {job.request.slo for job in jobs(slos=((Slo(), 1.0), (Slo(ttft_s=0.5, tpot_s=0.1), 1.0)))}
    own = {Slo(ttft_s=0.5, tpot_s=0.1), Slo(ttft_s=0.5, tpot_s=0.1, e2e_s=600.0)}
    assert found == own | {CHAT.slo, BATCH.slo}


def test_no_mix_changes_what_another_one_draws() -> None:
    plain, mixed = jobs(500), jobs(500, slos=((Slo(), 1.0), (Slo(ttft_s=0.5), 1.0)), output_tokens_max=(None, 64, 128))
    assert [job.request.klass for job in plain] == [job.request.klass for job in mixed]
    assert [job.request.prompt_bytes for job in plain] == [job.request.prompt_bytes for job in mixed]
    assert {job.request.output_tokens_max for job in mixed} == {None, 64, 128}


@given(st.integers(0, 127), st.integers(0, 2**28 - 1), st.integers(0, COMMON), st.integers(0, 900), st.integers(0, 999))
def test_blocks_of_different_origin_or_place_are_different(
    space: int, number: int, turn: int, begin: int, more: int
) -> None:
    found = block_ids(space, number, turn, range(begin, begin + more))
    assert len(set(found)) == more
    assert all(0 <= block < 2**63 for block in found)
    others = [
        ((space + 1) % 128, number, turn),
        (space, (number + 1) % 2**28, turn),
        (space, number, (turn + 1) % 4096),
    ]
    for other in others:
        assert not set(found) & set(block_ids(*other, range(begin, begin + more)))


@given(sizes, st.integers(0, 400), st.integers(0, 300), st.integers(0, 300))
def test_prompts_share_digests_as_far_as_they_share_blocks(
    block_tokens: int, common: int, one: int, other: int
) -> None:
    head = block_ids(0, 0, COMMON, range(common))
    first = digests(head + block_ids(0, 1, 0, range(common, common + one)), block_tokens)
    second = digests(head + block_ids(0, 2, 0, range(common, common + other)), block_tokens)
    shared = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    agreed = min(len(first), len(second)) if shared is None else shared
    assert agreed == min(common * block_tokens // 256, len(first), len(second))
    assert len(first) == min((common + one) * block_tokens // 256, 256)
    assert all(0 <= digest < 2**64 for digest in first)
