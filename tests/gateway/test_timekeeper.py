"""A machine that slept, or whose clock was set: time goes on from there, and nothing looks slow because of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import CHAT, House, chat, house, local, wire
from tests.http.harness import client, eventually, read_response
from tidegate.clock import Clock
from tidegate.engines.fake import Script
from tidegate.gateway.timekeeper import AHEAD, BACK

FORWARD = "clock put forward: the machine slept, or its clock was set"
NIGHT_S = 8 * 3600.0


class Slept(Clock):
    """A clock that stood still for so long, as the system's shows."""

    __slots__ = ("slept_s",)

    def __init__(self) -> None:
        super().__init__()
        self.slept_s = 0.0

    def behind_s(self) -> float:
        return super().behind_s() + self.slept_s


def told(home: House) -> list[tuple[str, float]]:
    return [(line["event"], line["by_s"]) for line in home.log("event") if "clock" in line["event"]]


def by(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1.0)


async def test_after_a_sleep_time_goes_on_from_the_systems(tmp_path: Path) -> None:
    clock = Slept()
    async with house(tmp_path, laptop=local(), clock=clock) as home:
        await home.ask()
        before_s = clock.now_s()
        clock.slept_s = NIGHT_S
        await eventually(lambda: home.gateway._is_quiet())
        home.gateway.timekeeper.look()
        clock.slept_s = 0.0
        assert clock.now_s() - before_s > NIGHT_S - 60.0
        assert told(home) == [(FORWARD, by(NIGHT_S))]
        assert (await home.ask()).status == 200
        times = [line.at_s for line in home.journal()]
    assert times == sorted(times)


async def test_what_is_under_way_is_timed_by_one_clock_and_not_given_up(tmp_path: Path) -> None:
    clock = Slept()
    async with house(tmp_path, laptop=local(Script(tokens=20, token_s=0.02)), clock=clock) as home:
        async with home.asking(chat(stream=True)) as client:
            await client.readuntil(b"w1 ")
            clock.slept_s = NIGHT_S
            for _ in range(3):
                home.gateway.timekeeper.look()
            assert clock.behind_s() > NIGHT_S - 60.0, "not while somebody is served"
            assert told(home) == [(AHEAD, by(NIGHT_S))], "once, that it will be"
            await client.readuntil(b"[DONE]")
        await eventually(lambda: home.gateway._is_quiet())
        home.gateway.timekeeper.look()
        clock.slept_s = 0.0
        assert told(home)[1:] == [(FORWARD, by(NIGHT_S))]
        (line,) = home.log()
    assert line["outcome"] == "ok"
    assert line["e2e_s"] < 60.0


async def test_who_is_in_the_middle_of_sending_a_request_is_not_too_slow_for_it(tmp_path: Path) -> None:
    clock = Slept()
    raw = wire("POST", CHAT, json.dumps(chat()).encode())
    async with house(tmp_path, laptop=local(), clock=clock) as home:
        await eventually(lambda: home.gateway._is_quiet())
        async with client(home.port) as (reader, writer):
            writer.write(raw[:-1])
            await eventually(lambda: not home.gateway.server.idle)
            clock.slept_s = NIGHT_S
            home.gateway.timekeeper.look()
            assert clock.behind_s() > NIGHT_S - 60.0, "not while somebody sends"
            writer.write(raw[-1:])
            assert (await read_response(reader)).status == 200


async def test_who_asks_after_a_sleep_has_as_long_as_ever_and_a_connection_that_is_kept_is_kept(tmp_path: Path) -> None:
    clock = Slept()
    raw = wire("POST", CHAT, json.dumps(chat()).encode())
    async with (
        house(tmp_path, laptop=local(), clock=clock) as home,
        client(home.port) as (kept_reader, kept_writer),
        client(home.port) as (reader, writer),
    ):
        server = home.gateway.server
        kept_writer.write(raw)
        await read_response(kept_reader)
        await eventually(lambda: home.gateway._is_quiet())
        clock.slept_s = NIGHT_S
        home.gateway.timekeeper.look()
        clock.slept_s = 0.0
        assert told(home) == [(FORWARD, by(NIGHT_S))]
        # It has begun before the server has looked at the time again.
        writer.write(raw[:-1])
        await eventually(lambda: not server.idle)
        swept_s = server.coarse_s
        await eventually(lambda: server.coarse_s != swept_s)
        for which in (writer, kept_writer):
            which.write(raw[-1:] if which is writer else raw)
        assert [(await read_response(which)).status for which in (reader, kept_reader)] == [200, 200]


@pytest.mark.lengthy
async def test_a_page_that_shows_what_goes_on_keeps_no_time_from_going_on(tmp_path: Path) -> None:
    clock = Slept()
    async with house(tmp_path, laptop=local(), clock=clock, gateway={"dashboard": True}) as home:
        while (await home.get("/api/dashboard/summary", admin=True)).status == 503:
            pass
        async with client(home.admin_port) as (reader, writer):
            writer.write(wire("GET", "/api/dashboard/live"))
            await reader.readuntil(b"data: ")
            clock.slept_s = NIGHT_S
            await eventually(lambda: home.gateway._is_quiet())
            home.gateway.timekeeper.look()
            assert told(home) == [(FORWARD, by(NIGHT_S))]
            await reader.readuntil(b"data: ")
        clock.slept_s = 0.0


async def test_a_clock_that_was_put_back_is_told_once_and_time_does_not_follow(tmp_path: Path) -> None:
    clock = Slept()
    async with house(tmp_path, laptop=local(), clock=clock) as home:
        before_s = clock.now_s()
        clock.slept_s = -3600.0
        for _ in range(3):
            home.gateway.timekeeper.look()
        assert clock.now_s() >= before_s
        assert told(home) == [(BACK, by(3600.0))]


def test_what_is_counted_steadily_is_counted_on_when_the_clock_is_put_forward() -> None:
    clock = Slept()
    for _ in range(2):
        before_s, counted_s = clock.now_s(), clock.steady_s()
        clock.slept_s += NIGHT_S
        clock.catch_up()
        assert clock.now_s() - before_s == pytest.approx(NIGHT_S, abs=1.0)
        assert clock.steady_s() - counted_s == pytest.approx(0.0, abs=1.0)


def test_a_clock_is_never_put_back() -> None:
    clock = Slept()
    before_s = clock.now_s()
    clock.slept_s = -1e6
    clock.catch_up()
    assert clock.now_s() >= before_s
