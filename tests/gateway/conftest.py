"""Tests here may be coroutines: each runs on a loop of its own, and what only the loop has seen fails it too.

Where they are `virtual`, time is the loop's own (`tests.virtual`).
"""

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from tests.virtual import VirtualLoop

# A hanging test fails: uvloop does not let pytest-timeout interrupt it.
TEST_S_MAX, SLOW_S_MAX = 60.0, 240.0
VIRTUAL_S_MAX = 86_400.0  # more than any test is about, and of an idle gateway soon over


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    escaped: list[dict[str, Any]] = []
    virtual = pyfuncitem.get_closest_marker("virtual") is not None
    with asyncio.Runner(loop_factory=VirtualLoop if virtual else uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: escaped.append(context))
        slow = any(pyfuncitem.get_closest_marker(name) for name in ("slow", "lengthy"))
        most_s = VIRTUAL_S_MAX if virtual else SLOW_S_MAX if slow else TEST_S_MAX
        runner.run(_bounded(pyfuncitem.obj(**arguments), most_s))
    assert escaped == []
    return True


async def _bounded(test: Coroutine[Any, Any, None], most_s: float) -> None:
    async with asyncio.timeout(most_s):
        await test
