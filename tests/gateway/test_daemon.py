"""Work that a hung disk may keep for ever."""

import asyncio
import time
from threading import Event, Thread, current_thread

import pytest

from tidegate.gateway import daemon


def test_what_comes_of_it_is_told_whatever_it_is() -> None:
    assert daemon.begin(lambda: 7, "seven").result(10.0) == 7
    with pytest.raises(ZeroDivisionError):
        daemon.begin(lambda: 1 // 0, "nothing").result(10.0)


def test_nobody_waits_at_the_end_for_one_that_hangs() -> None:
    found, begun, go_on = list[Thread](), Event(), Event()

    def hang() -> None:
        found.append(current_thread())
        begun.set()
        go_on.wait(60.0)

    future = daemon.begin(hang, "hung")
    assert begun.wait(10.0)
    assert (found[0].daemon, found[0].name, future.done()) == (True, "tidegate hung", False)
    go_on.set()
    assert future.result(10.0) is None


def test_where_the_system_has_no_thread_left_that_is_told_as_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", none_left)
    with pytest.raises(OSError, match="can't start new thread"):
        daemon.begin(lambda: 7, "seven").result(10.0)


@pytest.mark.virtual
async def test_time_that_is_virtual_stands_still_while_it_works() -> None:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()

    def work() -> None:
        until_s = time.perf_counter() + 0.05
        while time.perf_counter() < until_s:
            pass

    async with asyncio.timeout(30.0):
        await asyncio.wrap_future(daemon.begin(work, "slow"))
    assert loop.time() - begun_s < 1e-3
