import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

Run = Callable[[Coroutine[Any, Any, None]], None]


# A hanging test fails: uvloop does not let pytest-timeout interrupt it.
TEST_S_MAX = 60.0


async def _bounded(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(TEST_S_MAX):
        await test


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on either event loop; an exception that only the loop has seen fails it too."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        escaped: list[dict[str, Any]] = []
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: escaped.append(context))
            runner.run(_bounded(main))
        assert escaped == []

    return run
