"""Those who ask, for tests: a test names what matters to it."""

import heapq
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tidegate.core.model import RequestClass, Slo
from tidegate.sim.ask import Ask
from tidegate.sim.job import Job, Traffic

CHAT = RequestClass(name="chat", slo=Slo(ttft_s=2.0), worth_usd=0.01)


def ask(
    *classes: tuple[RequestClass, float],
    slos: Sequence[tuple[Slo, float]] = ((Slo(), 1.0),),
    output_tokens_max: Sequence[int | None] = (None,),
    bytes_sigma: float = 0.15,
) -> Ask:
    """One model's clients, of one class without bounds unless told otherwise."""
    given = classes or ((CHAT, 1.0),)
    return Ask("m", given, slos=slos, output_tokens_max=output_tokens_max, bytes_sigma=bytes_sigma)


def played(traffic: Traffic, jobs_max: int, *, takes_s: float = 5.0, served: bool = True) -> list[Job]:
    """The first jobs of a closed loop in order of arrival, in a world where each takes as long."""
    waiting = [(job.request.arrived_s, job.request.id, job) for job in traffic.arrivals()]
    heapq.heapify(waiting)
    found: list[Job] = []
    while waiting and len(found) < jobs_max:
        arrived_s, _, job = heapq.heappop(waiting)
        found.append(job)
        after = traffic.follows(job, arrived_s + takes_s, served=served)
        if after is not None:
            heapq.heappush(waiting, (after.request.arrived_s, after.request.id, after))
    return found


def prefix_hit_ratio(jobs: Iterable[Job]) -> float:
    """Share of all prompt tokens that a cache without bound would have held: the most that reuse can come to.

    Of each prompt the leading blocks count that some earlier prompt had, in full size, but no more than the prompt has
    tokens: traces give the last, partial block of a prompt an identity too. Zero without tokens. Memory grows with
    the number of different blocks.
    """
    seen: set[int] = set()
    hit_tokens = prompt_tokens = 0
    for job in jobs:
        blocks = job.blocks
        leading = next((i for i, block in enumerate(blocks) if block not in seen), len(blocks))
        hit_tokens += min(leading * job.block_tokens, job.prompt_tokens)
        prompt_tokens += job.prompt_tokens
        seen.update(blocks[leading:])
    return hit_tokens / prompt_tokens if prompt_tokens else 0.0


def data(name: str) -> Path:
    """A public trace, where there is one; tests that need it are skipped where not."""
    folder = os.environ.get("TIDEGATE_DATA")
    if not folder:
        pytest.skip("TIDEGATE_DATA does not name a folder with public traces")
    return Path(folder) / name
