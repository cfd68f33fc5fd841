"""`tidegate status` and `top`: in which words an endpoint is told, and that nothing older is shown than before."""

import asyncio
import threading
from pathlib import Path

import pytest

from tests.gateway.harness import House, house, local, remote
from tests.http.harness import eventually
from tidegate.cli.live import Address, Live, look
from tidegate.core.model import replace


def at(home: House) -> Address:
    return Address(f"http://127.0.0.1:{home.admin_port}")


async def seen(home: House) -> tuple[bool, dict[str, str]]:
    live = await asyncio.to_thread(look, at(home))
    return live.well, {one.name: one.state for one in live.endpoints}


async def test_what_was_drained_on_purpose_is_well_also_while_it_is_down(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(up=False), cloud=remote()) as home:
        assert await seen(home) == (False, {"cloud": "up", "laptop": "down"})
        await home.change("PUT", "/api/endpoints/laptop/drain")
        assert await seen(home) == (True, {"cloud": "up", "laptop": "drained"})


async def test_a_breaker_whose_time_is_over_says_nothing_of_an_endpoint_that_nobody_asks(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        breaker, now_s = home.gateway.router.endpoint("cloud").state.breaker, home.gateway.clock.now_s()
        breaker.openings, breaker.open_until_s = 1, now_s + 60.0
        assert await seen(home) == (False, {"cloud": "broken", "laptop": "up"})
        breaker.open_until_s = now_s
        assert await seen(home) == (True, {"cloud": "up", "laptop": "up"})


async def a_look(folder: Path) -> Live:
    async with house(folder) as home:
        return await asyncio.to_thread(look, at(home))


async def test_a_slow_look_does_not_hide_what_a_later_one_has_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, live = pytest.importorskip("tidegate.cli.top"), await a_look(tmp_path)
    late, begun, done = threading.Event(), [0], [0]

    def looks(_: Address) -> Live:
        begun[0] += 1
        number = begun[0]
        if number == 1:
            late.wait(10.0)
        done[0] += 1
        return replace(live, held=number)

    monkeypatch.setattr(top, "look", looks)
    monkeypatch.setattr(top, "LOOK_S", 3600.0)
    app = top.Top(Address("http://127.0.0.1:9"))
    async with app.run_test(size=(80, 24)) as pilot:
        await eventually(lambda: begun[0] == 1)
        await pilot.press("r")
        await eventually(lambda: app._live is not None and app._live.held == 2)
        late.set()
        await eventually(lambda: done[0] == 2 and not app.workers._workers)
        assert app._live is not None
        assert app._live.held == 2


async def test_looks_that_take_longer_than_from_one_to_the_next_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, live = pytest.importorskip("tidegate.cli.top"), await a_look(tmp_path)

    def looks(_: Address) -> Live:
        threading.Event().wait(0.1)
        return live

    monkeypatch.setattr(top, "look", looks)
    monkeypatch.setattr(top, "LOOK_S", 0.01)
    app = top.Top(Address("http://127.0.0.1:9"))
    async with app.run_test(size=(80, 24)):
        await eventually(lambda: app._live is not None)


@pytest.mark.parametrize("found", ["an answer", "none"])
async def test_what_comes_after_the_screen_is_closed_is_shown_no_more(tmp_path: Path, found: str) -> None:
    """It was a traceback, for who left while a look was under way."""
    top, live = pytest.importorskip("tidegate.cli.top"), await a_look(tmp_path)
    app = top.Top(Address("http://127.0.0.1:9"))
    async with app.run_test(size=(80, 24)):
        pass
    app._answered(app._looks + 1, live if found == "an answer" else "refused")
    assert app._live is None
