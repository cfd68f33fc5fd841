"""The real engine, for any suite: mark the test `engine`, then `async with real_engine() as engine`.

Importable as a fixture too: `shared_engine` starts one engine for the whole session.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tidegate.lab import weights
from tidegate.lab.llama import BATCH_TOKENS, Engine, Spec

LAST_CPU = max(os.sched_getaffinity(0))  # the first ones serve the tests and the gateway under test


@asynccontextmanager
async def real_engine(
    *,
    context_tokens: int = 1024,
    slots: int = 2,
    cpu: int | None = LAST_CPU,
    port: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    template: Path | None = None,
    sleep_after_s: int | None = None,
) -> AsyncIterator[Engine]:
    """A llama.cpp server with SmolLM2, on one thread and a core of its own."""
    model = await asyncio.to_thread(weights.fetch)
    spec = Spec(
        model=model,
        port=port,
        context_tokens=context_tokens,
        slots=slots,
        cpu=cpu,
        batch_tokens=batch_tokens,
        template=template,
        sleep_after_s=sleep_after_s,
    )
    with tempfile.TemporaryDirectory(prefix="tidegate-engine-") as folder:
        async with Engine(spec, Path(folder) / "llama.log") as engine:
            yield engine


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[Engine]:
    """One engine for all tests that leave it as they found it. Its loop rests between start and stop."""
    with asyncio.Runner() as runner:
        running = real_engine()
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))
