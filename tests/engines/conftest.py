"""The servers that speak each dialect, and a runner for coroutine tests as in the gateway's suite."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.engines.speakers import FakeSpeaker, RealSpeaker, Speaker
from tests.gateway.conftest import pytest_pyfunc_call
from tests.lab.engines import shared_engine
from tidegate.engines.fake import FakeEngine
from tidegate.engines.kinds import KINDS

__all__ = ["pytest_pyfunc_call", "shared_engine"]

Speaking = AbstractAsyncContextManager[Speaker]

# Every dialect before a server to order; those that fit, before the real llama.cpp too.
_PAIRS = [pytest.param((kind, False), id=f"{kind}-fake") for kind in sorted(KINDS)]
_PAIRS += [pytest.param((kind, True), id=f"{kind}-real", marks=pytest.mark.engine) for kind in ("llamacpp", "openai")]


@pytest.fixture(params=_PAIRS)
def speaking(request: pytest.FixtureRequest) -> Speaking:
    """`async with speaking as speaker`."""
    kind, real = request.param
    engine = request.getfixturevalue("shared_engine") if real else None
    return _speaking(kind, engine)


@asynccontextmanager
async def _speaking(kind: str, engine: Any) -> AsyncIterator[Speaker]:
    if engine is not None:
        async with RealSpeaker(kind, engine.port, engine.spec.alias) as speaker:
            yield speaker
        return
    async with FakeEngine(model="fake", context_tokens=1024) as fake, FakeSpeaker(kind, fake) as speaker:
        yield speaker
