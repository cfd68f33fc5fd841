"""The timers of what is under way: one request's trouble is not another's."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import house, local, remote
from tests.http.harness import eventually
from tidegate.core.model import Request
from tidegate.core.waiting import SWEEP_S
from tidegate.engines.fake import Fault, Script


class Broken:
    """Something under way that fails whenever its time comes."""

    def __init__(self, id: str, arrived_s: float) -> None:
        self.request = Request(
            id=id, arrived_s=arrived_s, model="m", klass="chat/short", prompt_tokens=1, prompt_bytes=1
        )

    def depart(self) -> None:
        raise ArithmeticError("depart")

    def land(self) -> None:
        raise ArithmeticError("land")

    def timer(self, now_s: float) -> None:
        raise ArithmeticError("timer")

    @property
    def seen(self) -> bool:
        return False

    def awaited_usd(self, left_usd: float) -> float:
        return 0.0

    def expire(self, now_s: float) -> None:
        raise ArithmeticError("expire")

    def stop(self, now_s: float) -> None:
        raise ArithmeticError("stop")

    def turn(self, now_s: float) -> None:
        raise ArithmeticError("turn")


class Punctual(Broken):
    """Something under way that tells when its time has come."""

    def __init__(self, id: str, arrived_s: float) -> None:
        super().__init__(id, arrived_s)
        self.called = False

    def timer(self, now_s: float) -> None:
        self.called = True


class Patient(Broken):
    """Something under way that tells when it has taken too long."""

    def __init__(self, id: str, arrived_s: float, over: list[str]) -> None:
        super().__init__(id, arrived_s)
        self._over = over

    def expire(self, now_s: float) -> None:
        self._over.append(self.request.id)


async def _past(seconds: float) -> None:
    """Until the loop has called all that was due before; what is due first comes first on a slow machine too."""
    past = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, past.set)
    await past.wait()


async def test_a_cutover_comes_when_it_is_due_and_not_with_the_next_sweep(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        dispatch, now_s = home.gateway.dispatch, home.gateway.clock.now_s()
        drive = Punctual("hedged", now_s)
        dispatch.begin(drive)
        dispatch.set_timer(drive, now_s + SWEEP_S / 5, now_s)
        await _past(SWEEP_S / 2)
        dispatch.end(drive)
        assert drive.called


@pytest.mark.virtual
async def test_what_is_due_much_later_comes_when_it_is_due_as_it_was_asked_for_last(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        dispatch, now_s = home.gateway.dispatch, home.gateway.clock.now_s()
        soon, put_off, over = (Punctual(id, now_s) for id in ("soon", "put off", "over"))
        for drive in (soon, put_off, over):
            dispatch.begin(drive)
            dispatch.set_timer(drive, now_s + 20.5 * SWEEP_S, now_s)
        dispatch.set_timer(put_off, now_s + 60.0, now_s)
        dispatch.end(over)
        await _past(20.4 * SWEEP_S)
        assert not soon.called
        await _past(SWEEP_S / 5)
        assert (soon.called, put_off.called, over.called) == (True, False, False)
        await _past(60.0)
        assert put_off.called
        for drive in (soon, put_off):
            dispatch.end(drive)


@pytest.mark.virtual
async def test_however_many_fail_as_they_take_too_long_the_others_are_called_in_time(tmp_path: Path) -> None:
    loop, failed = asyncio.get_running_loop(), list[dict[str, Any]]()
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: failed.append(context))
    async with house(tmp_path) as home:
        dispatch, now_s = home.gateway.dispatch, home.gateway.clock.now_s()
        drive, broken = Punctual("in time", now_s), [Broken(str(number), now_s - 1e6) for number in range(30)]
        for one in (drive, *broken):
            dispatch.begin(one)
        dispatch.set_timer(drive, now_s + 20.5 * SWEEP_S, now_s)
        await _past(20.6 * SWEEP_S)
        assert (drive.called, dispatch.in_flight, len(failed)) == (True, 1, 30)
        dispatch.end(drive)
    loop.set_exception_handler(usual)


async def test_whose_request_is_over_is_not_called(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        dispatch, now_s = home.gateway.dispatch, home.gateway.clock.now_s()
        drive = Punctual("answered", now_s)
        dispatch.begin(drive)
        dispatch.set_timer(drive, now_s + SWEEP_S / 5, now_s)
        dispatch.end(drive)
        await _past(SWEEP_S / 2)
        assert not drive.called


async def test_a_request_that_fails_in_its_turn_takes_no_time_from_the_others(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    usual, failed = loop.get_exception_handler(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda loop, context: failed.append(context))
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT)), cloud=remote()) as home:
        dispatch, now_s = home.gateway.dispatch, home.gateway.clock.now_s()
        late, old = Broken("late", now_s), Broken("old", now_s - 1e6)
        for broken in (late, old):
            dispatch.begin(broken)
        dispatch.set_timer(late, now_s, now_s)
        answer = await home.ask(x_tidegate_slo_ttft_ms="200")
        dispatch.end(late)
        await eventually(lambda: dispatch.in_flight == 0)
    loop.set_exception_handler(usual)
    assert (answer.status, answer.endpoint) == (200, "cloud")
    assert [str(context["exception"]) for context in failed] == ["timer", "expire"]


async def test_each_has_its_own_time_until_it_has_taken_too_long(tmp_path: Path) -> None:
    async with house(tmp_path, gateway={"request_timeout_s": 600}) as home:
        dispatch, now_s, over = home.gateway.dispatch, home.gateway.clock.now_s(), list[str]()
        for id, left_s in (("third", 3 * SWEEP_S), ("first", -3 * SWEEP_S), ("second", SWEEP_S)):
            dispatch.begin(Patient(id, now_s - 600.0 + left_s, over))
        await eventually(lambda: len(over) == 3)
        assert over == ["first", "second", "third"]
        assert dispatch.in_flight == 0
