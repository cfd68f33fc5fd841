"""Factories of the simulated world: a test names what matters to it."""

from tests import make
from tidegate.core.model import replace
from tidegate.core.step import StepTime
from tidegate.sim.engine import Engine, EngineProfile, Kind, Told
from tidegate.sim.job import Job

STEP = StepTime(base_s=0.01, per_token_s=0.0001, per_sequence_s=0.0002, per_context_token_s=1e-7, per_pair_s=1e-9)


def job(
    id: str, *, prompt_tokens: int = 100, output_tokens: int = 10, blocks: tuple[int, ...] = (), **asked: object
) -> Job:
    request = make.request(id, prompt_tokens=prompt_tokens, output_tokens_max=None)
    return Job(
        request=replace(request, **asked),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        blocks=blocks,
        block_tokens=64,
    )


def profile(**changes: object) -> EngineProfile:
    return replace(EngineProfile(step=STEP, slots=8, batch_tokens=256, kv_tokens=65_536), **changes)


def drained(engine: Engine) -> list[Told]:
    """All that it tells until it has nothing to do."""
    told: list[Told] = []
    while engine.next_s < float("inf"):
        told += engine.advance(engine.next_s)
    return told


def times(told: list[Told], kind: Kind) -> dict[str, float]:
    return {t.sequence.job.request.id: t.at_s for t in told if t.kind is kind}
