"""What goes on in the background outlives its faults, and these are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.http.harness import eventually
from tidegate.gateway import tending
from tidegate.gateway.tending import tended


@asynccontextmanager
async def faults() -> AsyncIterator[list[BaseException]]:
    """Those that the loop is told of."""
    told: list[BaseException] = []

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append(context["exception"])

    asyncio.get_running_loop().set_exception_handler(tell)
    yield told


@pytest.fixture(autouse=True)
def _rests_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tending, "REST_S", 0.0)


async def test_a_job_that_fails_is_told_and_begins_anew() -> None:
    begun = 0

    async def job() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise RuntimeError(f"fault {begun}")
        await asyncio.Event().wait()

    async with faults() as told:
        task = tended(job)
        await eventually(lambda: begun == 3)
        assert [str(fault) for fault in told] == ["fault 1", "fault 2"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_one_that_is_done_is_done() -> None:
    begun = 0

    async def job() -> None:
        nonlocal begun
        begun += 1

    async with faults() as told:
        await tended(job)
    assert (begun, told) == (1, [])
