"""Tests here may be coroutines: each runs on a loop of its own, and what only the loop has seen fails it too."""

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

TEST_S_MAX = 30.0  # a hanging test fails: uvloop does not let pytest-timeout interrupt it


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    escaped: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: escaped.append(context))
        runner.run(_bounded(pyfuncitem.obj(**arguments)))
    assert escaped == []
    return True


async def _bounded(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(TEST_S_MAX):
        await test
